"""Repair: compare every index with the records it is about, and mend what a crash has left.

It goes over all keys with SCAN, some hundreds at a time, beside the running service. Records are the truth:

    unindexed     a user whom an index lacks, or has at the wrong place         entered
    unlisted      an entry of an index that its record does not bear out        removed
    unfound       an email or an identity that leads nowhere                    the lookup is made
    misled        a lookup that leads to nobody, or to somebody else            removed
    contested     an email or an identity that leads to another account         told only: a person must choose
    unfinished    a deletion that was cut off                                   finished
    uncounted     a live session that is not counted, or a dead one that is     counted, or not
    unowned       sessions or events of a user who is gone                      removed

What is being written at the moment may look like any of these. So what is missing is looked at again after a second
before it counts.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from service.accounts.deletion import Deletion
from service.accounts.directory import Directory
from service.accounts.lookups import Lookups
from service.accounts.users import User, Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.sessions.families import Families

T = TypeVar("T")
W = TypeVar("W")
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
        audit: Audit,
        tell: Tell,
        dry_run: bool = False,
    ) -> None:
        self._users = users
        self._lookups = lookups
        self._directory = directory
        self._families = families
        self._deletion = deletion
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
        async for live in self._batches(self._directory.live):
            await self._counted(live)
        async for batch in self._batches(self._audit.scan):
            await self._events(batch)
        if not (self._findings.clean or self._dry_run):
            await self._audit.record(Event.INDEXES_REPAIRED, by="command line", **self._findings.found)
        return self._findings

    async def _records(self, user_ids: list[str]) -> None:
        for user in filter(None, await self._users.find_all(user_ids)):
            self._findings.looked_at += 1
            if user.leaving:
                await self._mend("unfinished", user.id, self._deletion.delete(user.id, None, "repair"))
                continue
            await self._findable(user)
        for user, missing in await self._still(user_ids, self._unindexed):
            await self._mend("unindexed", f"{user.id} in {', '.join(missing)}", self._users.enter(user))

    async def _unindexed(self, user_ids: list[str]) -> list[tuple[User, list[str]]]:
        return [
            (user, missing)
            for user in await self._users.find_all(user_ids)
            if user and not user.leaving and (missing := await self._directory.missing(*self._place(user)))
        ]

    async def _findable(self, user: User) -> None:
        wanted = [await self._lookups.email(user.email)]
        wanted += [await self._lookups.identity(held.issuer, held.subject) for held in user.identities]
        for lookup in wanted:
            holder = await self._lookups.holder(lookup)
            if holder is None or (holder.user_id == user.id and not holder.for_good):
                await self._mend("unfound", f"{user.id} by {lookup}", self._lookups.settle(lookup, user.id))
            elif holder.user_id != user.id and await self._leads(lookup, holder.user_id):
                self._tell("contested", f"{user.id} and {holder.user_id} by {lookup}")
            elif holder.user_id != user.id:
                redirecting = self._redirect(lookup, holder.user_id, user)
                await self._mend("misled", f"{lookup} to {holder.user_id}", redirecting)

    async def _redirect(self, lookup: str, holder_id: str, user: User) -> None:
        await self._lookups.release(lookup, holder_id)
        await self._lookups.settle(lookup, user.id)

    async def _index(self, index: str) -> None:
        async def batch(cursor: int) -> tuple[int, list[str]]:
            return await self._directory.entries(index, cursor)

        async for entries in self._batches(batch):
            if wrong := await self._still(entries, lambda some: self._strangers(index, some)):
                for user_id in wrong:
                    self._tell("unlisted", f"{user_id} in {index}")
                if not self._dry_run:
                    await self._directory.drop(index, wrong)

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
        if (user := await self._users.find(user_id)) is None:
            return False
        if lookup == await self._lookups.email(user.email):
            return True
        identities = [await self._lookups.identity(held.issuer, held.subject) for held in user.identities]
        return lookup in identities

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
            return [(user_id, session_id) for user_id, session_id in some if session_id not in live[user_id]]

        for user_id, session_id in await self._still(members, dead):
            leaving = self._families.count_no_more(user_id, [session_id])
            await self._mend("uncounted", f"{session_id} of {user_id}, which is over", leaving)

    async def _events(self, user_ids: list[str]) -> None:
        users = await self._users.find_all(user_ids)
        for user_id in [user_id for user_id, user in zip(user_ids, users, strict=True) if user is None]:
            await self._mend("unowned", f"events of {user_id}", self._audit.forget(user_id))

    def _place(self, user: User) -> tuple[str, int, tuple[str, ...], bool]:
        return user.id, round(user.created_at.timestamp() * 1000), user.roles, user.active

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
        """What is wrong with these, if something is and a second later still is."""
        if not await wrong(some):
            return []
        await asyncio.sleep(_SETTLES)
        return await wrong(some)

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


def _in_batches(some: Iterable[T]) -> Iterable[list[T]]:
    remaining = iter(some)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
