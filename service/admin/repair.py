"""Repair: compare every index with the records it is about, and mend what a crash has left.

It goes over all keys with SCAN, some hundreds at a time, beside the running service. Records are the truth:

    unindexed     a user whom an index lacks, or has at the wrong place         entered
    unlisted      an entry of an index, or of a list of API keys, that no       removed
                  record bears out
    unfound       an email or an identity that leads nowhere                    the lookup is made
    misled        a lookup that leads to nobody, or to somebody else, or a      removed
                  claim that has lapsed
    contested     an email or an identity that leads to another account         told only: a person must choose
    unfinished    a deletion that was cut off                                   finished
    uncounted     a live session that is not counted, or a dead one that is     counted, or not
    unseen        an API key that its owner's list lacks                        entered
    unowned       sessions, events, API keys or one-time tokens of a user who   removed
                  is gone

What is being written at the moment may look like any of these. So what looks wrong is looked at again after a second,
and counts if the same is wrong then.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from service.accounts.deletion import Deletion
from service.accounts.directory import Directory
from service.accounts.lookups import Lookups
from service.accounts.once import Once
from service.accounts.user import User
from service.accounts.users import Users
from service.apikeys.keys import ApiKeys, Held
from service.audit.events import Event
from service.audit.trail import Audit
from service.clock import stamp
from service.errors import NotFound
from service.sessions.families import Families

T = TypeVar("T")
W = TypeVar("W", bound=Hashable)
Tell = Callable[[str, str], None]
_BATCH = 200
_SETTLES = 1.0  # seconds after which nothing that looked wrong is under way any more


@dataclass
class Findings:
    """What was found, by kind; `looked_at` is how many users."""

    looked_at: int = 0
    found: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.found


class Repair:
    """One run over everything. With `dry_run` nothing is changed."""

    def __init__(
        self,
        users: Users,
        lookups: Lookups,
        directory: Directory,
        families: Families,
        deletion: Deletion,
        api_keys: ApiKeys,
        once: Once,
        audit: Audit,
        tell: Tell,
        dry_run: bool = False,
    ) -> None:
        self._users = users
        self._lookups = lookups
        self._directory = directory
        self._families = families
        self._deletion = deletion
        self._api_keys = api_keys
        self._once = once
        self._audit = audit
        self._say = tell
        self._dry_run = dry_run
        self._findings = Findings()

    async def run(self) -> Findings:
        """Look at everything, mend what can be mended, and say what there was."""
        async for batch in self._batches(self._users.scan):
            await self._records(batch)
        for index in await self._directory.indexes():
            await self._index(index)
        async for lookups in self._batches(self._lookups.scan):
            await self._misleading(lookups)
        async for batch in self._batches(self._families.scan):
            await self._sessions(batch)
        async for live in self._batches(self._families.scan_counted):
            await self._counted(live)
        async for batch in self._batches(self._audit.scan):
            await self._events(batch)
        async for batch in self._batches(self._api_keys.scan_lists):
            await self._key_lists(batch)
        async for keys in self._batches(self._api_keys.scan):
            await self._keys(keys)
        async for tokens in self._batches(self._once.scan):
            await self._tokens(tokens)
        if not (self._findings.clean or self._dry_run):
            await self._audit.record(Event.INDEXES_REPAIRED, by="command line", **self._findings.found)
        return self._findings

    async def _records(self, user_ids: list[str]) -> None:
        self._findings.looked_at += len(list(filter(None, await self._users.find_all(user_ids))))
        for user_id in await self._still(user_ids, self._unfinished):
            await self._mend("unfinished", user_id, self._finish(user_id))
        for astray in await self._still(user_ids, self._astray):
            await self._findable(astray)
        for user_id, missing in await self._still(user_ids, self._unindexed):
            await self._mend("unindexed", f"{user_id} in {', '.join(missing)}", self._enter([user_id]))

    async def _unfinished(self, user_ids: list[str]) -> list[str]:
        return [user.id for user in await self._users.find_all(user_ids) if user and user.leaving]

    async def _finish(self, user_id: str) -> None:
        with suppress(NotFound):  # somebody else has finished it
            await self._deletion.delete(user_id, None, "repair")

    async def _unindexed(self, user_ids: list[str]) -> list[tuple[str, tuple[str, ...]]]:
        return [
            (user.id, tuple(missing))
            for user in await self._users.find_all(user_ids)
            if user and not user.leaving and (missing := await self._directory.missing(*self._place(user)))
        ]

    async def _enter(self, user_ids: list[str]) -> None:
        for user in await self._users.find_all(user_ids):
            if user and not user.leaving:
                await self._users.enter(user)

    async def _astray(self, user_ids: list[str]) -> list["_Astray"]:
        """The lookups that should lead to these users and do not, or not for good."""
        found = []
        for user in await self._users.find_all(user_ids):
            if user is None or user.leaving:
                continue
            for lookup in await self._lookups_of(user):
                holder = await self._lookups.holder(lookup)
                if holder is None or (holder.user_id == user.id and not holder.for_good):
                    found.append(_Astray("unfound", user.id, lookup))
                elif holder.user_id != user.id:
                    leads = await self._leads(lookup, holder.user_id)
                    found.append(_Astray("contested" if leads else "misled", user.id, lookup, holder.user_id))
        return found

    async def _findable(self, astray: "_Astray") -> None:
        lookup, user_id, holder_id = astray.lookup, astray.user_id, astray.holder_id
        match astray.kind:
            case "unfound":
                await self._mend("unfound", f"{user_id} by {lookup}", self._lookups.settle(lookup, user_id))
            case "contested":
                self._tell("contested", f"{user_id} and {holder_id} by {lookup}")
            case _:
                await self._mend("misled", f"{lookup} to {holder_id}", self._redirect(lookup, holder_id, user_id))

    async def _redirect(self, lookup: str, holder_id: str, user_id: str) -> None:
        await self._lookups.release(lookup, holder_id)
        await self._lookups.settle(lookup, user_id)

    async def _index(self, index: str) -> None:
        async def batch(cursor: int) -> tuple[int, list[str]]:
            return await self._directory.entries(index, cursor)

        async for entries in self._batches(batch):
            if wrong := await self._still(entries, lambda some: self._strangers(index, some)):
                for user_id in wrong:
                    self._tell("unlisted", f"{user_id} in {index}")
                if not self._dry_run:
                    await self._directory.drop(index, wrong)
                    await self._enter(wrong)  # who has come to belong there in this moment

    async def _strangers(self, index: str, user_ids: list[str]) -> list[str]:
        users = await self._users.find_all(user_ids)
        return [
            user_id
            for user_id, user in zip(user_ids, users, strict=True)
            if user is None or not self._directory.belongs(index, user.roles, user.active)
        ]

    async def _misleading(self, lookups: list[tuple[str, str]]) -> None:
        async def astray(some: list[tuple[str, str]]) -> list[tuple[str, str]]:
            return [(lookup, user_id) for lookup, user_id in some if not await self._leads(lookup, user_id)]

        for lookup, user_id in await self._still(lookups, astray):
            await self._mend("misled", f"{lookup} to {user_id}", self._lookups.release(lookup, user_id))

    async def _leads(self, lookup: str, user_id: str) -> bool:
        """Whether the user whom a lookup leads to has the email or the identity that it stands for."""
        user = await self._users.find(user_id)
        return user is not None and lookup in await self._lookups_of(user)

    async def _lookups_of(self, user: User) -> list[str]:
        """The lookups that should lead to a user."""
        identities = [await self._lookups.identity(held.issuer, held.subject) for held in user.identities]
        return [await self._lookups.email(user.email), *identities]

    async def _sessions(self, user_ids: list[str]) -> None:
        live = await self._families.live_of(user_ids)
        users = await self._users.find_all(user_ids)
        for user_id, user in zip(user_ids, users, strict=True):
            if not (sessions := live[user_id]):
                continue
            if user is None:
                await self._mend("unowned", f"sessions of {user_id}", self._families.forget(user_id))
                continue
            counted = await self._directory.counted(user_id, sessions)
            for (session_id, expires), is_counted in zip(sessions.items(), counted, strict=True):
                if not is_counted:
                    entering = self._families.count(user_id, session_id, expires)
                    await self._mend("uncounted", f"{session_id} of {user_id}", entering)

    async def _counted(self, members: list[tuple[str, str]]) -> None:
        async def dead(some: list[tuple[str, str]]) -> list[tuple[str, str]]:
            live = await self._families.live_of({user_id for user_id, _ in some})
            return [(user_id, mark) for user_id, mark in some if not any(sid.startswith(mark) for sid in live[user_id])]

        for user_id, mark in await self._still(members, dead):
            leaving = self._families.count_no_more(user_id, [mark])
            await self._mend("uncounted", f"{mark}... of {user_id}, which is over", leaving)

    async def _events(self, user_ids: list[str]) -> None:
        for user_id in await self._gone(user_ids):
            await self._mend("unowned", f"events of {user_id}", self._audit.forget(user_id))

    async def _key_lists(self, user_ids: list[str]) -> None:
        gone = await self._gone(user_ids)
        for user_id in gone:
            await self._mend("unowned", f"API keys of {user_id}", self._api_keys.revoke_all(user_id))

        async def blank(some: list[str]) -> list[tuple[str, str]]:
            return [(user_id, key_id) for user_id in some for key_id in await self._api_keys.leading_nowhere(user_id)]

        owners = [user_id for user_id in user_ids if user_id not in gone]
        for user_id, key_id in await self._still(owners, blank):
            what = f"API key {key_id} in the list of {user_id}"
            await self._mend("unlisted", what, self._api_keys.drop(user_id, [key_id]))

    async def _keys(self, keys: list[Held]) -> None:
        gone = await self._gone(key.user_id for key in keys)
        for key in keys:
            if key.user_id in gone:
                await self._mend("unowned", f"API key {key.id} of {key.user_id}", self._api_keys.withdraw(key))
        owned = [key for key in keys if key.user_id not in gone]
        for key in await self._still(owned, self._api_keys.unseen):
            await self._mend("unseen", f"API key {key.id} of {key.user_id}", self._api_keys.show(key))

    async def _tokens(self, tokens: list[tuple[str, str]]) -> None:
        gone = await self._gone(user_id for _, user_id in tokens)
        for name, user_id in tokens:
            if user_id in gone:
                await self._mend("unowned", f"a one-time token of {user_id}", self._once.withdraw(name))

    async def _gone(self, user_ids: Iterable[str]) -> list[str]:
        """Those of these users who are no more."""
        user_ids = tuple(user_ids)
        users = await self._users.find_all(user_ids)
        return [user_id for user_id, user in zip(user_ids, users, strict=True) if user is None]

    def _place(self, user: User) -> tuple[str, int, tuple[str, ...], bool]:
        return user.id, stamp(user.created_at), user.roles, user.active

    def _tell(self, kind: str, what: str) -> None:
        self._findings.found[kind] += 1
        self._say(kind, what)

    async def _mend(self, kind: str, what: str, mending: Awaitable[object]) -> None:
        self._tell(kind, what)
        if not self._dry_run:
            await mending
        elif asyncio.iscoroutine(mending):
            mending.close()

    @staticmethod
    async def _still(some: list[T], wrong: Callable[[list[T]], Awaitable[list[W]]]) -> list[W]:
        """What is wrong with these, and a second later still is."""
        if not (before := set(await wrong(some))):
            return []
        await asyncio.sleep(_SETTLES)
        return [it for it in await wrong(some) if it in before]

    @staticmethod
    async def _batches(scan: Callable[[int], Awaitable[tuple[int, list[T]]]]) -> AsyncIterator[list[T]]:
        """What a scan gives, in batches of a bounded size; the keys of a batch are read in one round trip."""
        cursor = 0
        while True:
            cursor, found = await scan(cursor)
            for batch in _in_batches(found):
                yield batch
            if cursor == 0:
                return


@dataclass(frozen=True)
class _Astray:
    """A lookup that should lead to a user; `holder_id` is where it leads."""

    kind: str
    user_id: str
    lookup: str
    holder_id: str = ""


def _in_batches(some: Iterable[T]) -> Iterable[list[T]]:
    remaining = iter(some)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
