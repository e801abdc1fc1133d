"""API keys: `ak_`, eight signs to tell them apart, and 192 random bits that nobody but the holder knows.

Redis
    apikey:<digest>  hash   user, id, name, prefix, may (permissions), at, exp, used (made, expires, last use; ms)
                            expires with the key
    apikeys:{<user>}  hash  <id>  digest, made, expires (ms; 0 for never)
                            expires with the last of the keys

A key is entered in its owner's list before its record is written, and the record goes before the entry: what a crash
leaves is an entry that leads nowhere, never a key that works and is in no list.

Who makes a key may be put out at the same moment, by a takeover or a deletion that revokes every key. So the maker is
looked at once more when the record is written, and what should not be there any more is removed again.

A key works while its record is there and its owner is active, and may do what it was given of that which its owner
may do now. Both are read for each use, so a revocation is in force everywhere at once.
"""

import hashlib
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from service.accounts.roles import Roles
from service.accounts.user import User
from service.accounts.users import Users
from service.clock import Clock, milliseconds, moment
from service.errors import Forbidden, InvalidApiKey, ServiceError, TooManyKeys
from service.ids import is_id, new_id
from service.store import Command, Script, Store
from service.tokens.access import Principal
from service.tokens.check import Check

PREFIX = "ak_"
MOST = 50  # keys of one user
NOTED_EVERY = 60.0  # seconds between two notes of a key's use, on one instance
_HERE = Path(__file__).parent
_ENTER = Script(_HERE / "enter.lua")
_WRITE = Script(_HERE / "write.lua")
_NOTE = Script(_HERE / "note.lua")
_LETTERS = string.ascii_letters + string.digits
_FORM = re.compile(r"ak_[A-Za-z0-9]{8}[A-Za-z0-9_-]{32}", re.ASCII)
_SHOWN = len(PREFIX) + 8
_BEING_MADE = milliseconds(timedelta(hours=1))


@dataclass(frozen=True)
class ApiKey:
    """A key as its owner sees it; the key itself is shown once, when it is made."""

    id: str
    name: str
    prefix: str
    permissions: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class ApiKeys:
    """Makes, lists, revokes and recognises API keys."""

    def __init__(self, store: Store, clock: Clock, users: Users, roles: Roles, check: Check) -> None:
        self._store = store
        self._clock = clock
        self._users = users
        self._roles = roles
        self._check = check
        self._used: dict[str, float] = {}
        self._noted: dict[str, float] = {}

    async def make(
        self, owner: Principal, name: str, permissions: Iterable[str], lifetime: timedelta | None
    ) -> tuple[ApiKey, str]:
        """A new key and its text.

        Raises `Forbidden` for permissions that the owner lacks, `TooManyKeys`, or `NotSignedIn` for an owner who has
        been put out meanwhile.
        """
        wanted = tuple(sorted(set(permissions)))
        if lacking := sorted(set(wanted) - set(owner.permissions)):
            raise Forbidden("A key cannot have permissions that its owner lacks", required=lacking)
        text = PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(8)) + secrets.token_urlsafe(24)
        key_id, digest = new_id(), _digest(text)
        made, expires = await self._enter(owner.user_id, key_id, digest, milliseconds(lifetime) if lifetime else 0)
        key = ApiKey(key_id, name, text[:_SHOWN], wanted, moment(made), None, moment(expires) if expires else None)
        record = _WRITE(_key(digest), expires, *_pairs(owner.user_id, key, made, expires))
        try:
            await self._store.one(record, durable=True)
            await self._confirm(owner, key_id)
        except ServiceError:
            # Nobody has seen the key, so nobody misses it; who has revoked all keys may have looked too early for it.
            await self._remove(owner.user_id, key_id, digest)
            raise
        return key, text

    async def of(self, user_id: str) -> list[ApiKey]:
        """The live keys of a user, the newest first."""
        entries: dict[str, str] = await self._store.one(("HGETALL", _list(user_id)))
        if not entries:
            return []
        found = {key_id: _Entry.read(entry) for key_id, entry in entries.items()}
        reading = [("HGETALL", _key(entry.digest)) for entry in found.values()]
        records = dict(zip(found, await self._store.run(*reading), strict=True))
        now = self._clock.now() * 1000
        # A creation that was cut off, or the end of a revocation that was; one under way has not come so far yet.
        leading_nowhere = [
            key_id for key_id, entry in found.items() if not records[key_id] and entry.made + _BEING_MADE < now
        ]
        if leading_nowhere:
            await self._store.one(("HDEL", _list(user_id), *leading_nowhere))
        keys = [(found[key_id].made, _read(record)) for key_id, record in records.items() if _lives(record, now)]
        return [key for _, key in sorted(keys, key=lambda pair: pair[0], reverse=True)]

    async def revoke(self, user_id: str, key_id: str) -> bool:
        """Revoke a key, everywhere at once; true when there was one."""
        entry = await self._store.one(("HGET", _list(user_id), key_id)) if is_id(key_id) else None
        if entry is None:
            return False
        await self._remove(user_id, key_id, _Entry.read(entry).digest)
        return True

    async def revoke_all(self, user_id: str) -> tuple[str, ...]:
        """Revoke every key of a user, and leave no trace of them; the ids of those that there were."""
        entries = await self._store.one(("HGETALL", _list(user_id)))
        gone: list[Command] = [("DEL", _key(_Entry.read(entry).digest)) for entry in entries.values()]
        await self._store.run(*gone, durable=True, apart=True)
        for command in gone:
            self._store.insist(command)
        await self._store.one(("DEL", _list(user_id)))
        return tuple(entries)

    async def holder(self, text: str) -> Principal:
        """Who holds a key; raises `InvalidApiKey` when it is unknown, over, revoked, or its owner is disabled."""
        if not _FORM.fullmatch(text):
            raise InvalidApiKey
        digest = _digest(text)
        record: dict[str, str] = await self._store.glance("HGETALL", _key(digest))
        now = self._clock.now()
        if not _lives(record, now * 1000):
            raise InvalidApiKey
        user_id = record["user"]
        owner = User.read(user_id, await self._store.glance(*self._users.reading(user_id)))
        if owner is None or not owner.active:
            raise InvalidApiKey
        self._used[digest] = now
        granted = set(record["may"].split()) & set(self._roles.permissions(owner.roles))
        return Principal(
            user_id=user_id,
            session_id="",
            jti="",
            email=owner.email,
            roles=(),
            permissions=tuple(sorted(granted)),
            amr=(),
            auth_time=0,
            issued_at=int(record["at"]) // 1000,
            expires_at=int(record["exp"]) // 1000,
            epoch=0,
            kid="",
            key_id=record["id"],
        )

    async def note_uses(self) -> None:
        """Write down when keys were used last: each once a minute at most, all in one round trip."""
        now = self._clock.now()
        self._noted = {digest: at for digest, at in self._noted.items() if now - at < NOTED_EVERY}
        due = {digest: at for digest, at in self._used.items() if digest not in self._noted}
        if not due:
            return
        await self._store.run(*(_NOTE(_key(digest), int(at * 1000)) for digest, at in due.items()), apart=True)
        self._noted |= dict.fromkeys(due, now)
        self._used = {digest: at for digest, at in self._used.items() if at != due.get(digest)}

    # What `repair` needs

    async def scan(self, cursor: int) -> tuple[int, list["Held"]]:
        """Some of the keys there are, and where to go on; 0 is the end."""
        cursor, names = await self._store.scan(_key("*"), cursor)
        records = await self._store.run(*(("HGETALL", name) for name in names)) if names else []
        found = zip(names, records, strict=True)
        return cursor, [_held(name, record) for name, record in found if "user" in record]

    async def scan_lists(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the users with a list of keys, and where to go on; 0 is the end."""
        cursor, names = await self._store.scan(_list("*"), cursor)
        return cursor, [name[len(_list("")) - 1 : -1] for name in names]

    async def unseen(self, keys: list["Held"]) -> list["Held"]:
        """Those of these keys that their owners' lists lack."""
        asked = [("HGET", _list(key.user_id), key.id) for key in keys]
        entries = await self._store.run(*asked) if asked else []
        return [key for key, entry in zip(keys, entries, strict=True) if entry is None]

    async def show(self, key: "Held") -> None:
        """Enter a key in its owner's list again. The list stays then until its last key is gone."""
        entry = f"{key.digest} {key.made} {key.expires}"
        await self._store.run(("HSET", _list(key.user_id), key.id, entry), ("PERSIST", _list(key.user_id)))

    async def withdraw(self, key: "Held") -> None:
        """Remove a key and its entry."""
        await self._remove(key.user_id, key.id, key.digest)

    async def leading_nowhere(self, user_id: str) -> list[str]:
        """The ids in a list that no record bears out, but for keys that have expired or may be in the making."""
        entries: dict[str, str] = await self._store.one(("HGETALL", _list(user_id)))
        found = {key_id: _Entry.read(entry) for key_id, entry in entries.items()}
        asked = [("EXISTS", _key(entry.digest)) for entry in found.values()]
        there = await self._store.run(*asked) if asked else []
        now = self._clock.now() * 1000
        return [
            key_id
            for (key_id, entry), exists in zip(found.items(), there, strict=True)
            if not exists and entry.made + _BEING_MADE < now and (entry.expires == 0 or entry.expires > now)
        ]

    async def drop(self, user_id: str, key_ids: Iterable[str]) -> None:
        """Remove entries from a list."""
        await self._store.one(("HDEL", _list(user_id), *key_ids))

    async def _confirm(self, owner: Principal, key_id: str) -> None:
        """Raise `NotSignedIn` or `Forbidden` unless the owner still may have the key that has just been written.

        Who revokes all keys ends the sessions first, or dooms the record. So either that is seen here, or the list is
        read after the record was written, and the key goes with the others.
        """
        await self._check.still(owner)
        entry, found = await self._store.run(("HGET", _list(owner.user_id), key_id), self._users.reading(owner.user_id))
        user = User.read(owner.user_id, found)
        if entry is None or user is None or not user.active:
            raise Forbidden("The account is disabled or gone, or its keys have just been revoked")

    async def _remove(self, user_id: str, key_id: str, digest: str) -> None:
        """The record first: what works must be in the list."""
        ending: Command = ("DEL", _key(digest))
        await self._store.one(ending, durable=True)
        self._store.insist(ending)
        await self._store.one(("HDEL", _list(user_id), key_id))

    async def _enter(self, user_id: str, key_id: str, digest: str, lifetime: int) -> tuple[int, int]:
        for attempt in (1, 2):
            verdict, now, expires = await self._store.one(_ENTER(_list(user_id), key_id, digest, lifetime, MOST))
            self._clock.anchor(int(now) / 1000)
            if verdict == "entered":
                return int(now), int(expires)
            if attempt == 1:
                await self.of(user_id)  # forgets entries that lead nowhere
        raise TooManyKeys(f"There are {MOST} keys already; revoke one first")


@dataclass(frozen=True)
class Held:
    """A key as its record has it, for those who compare it with the lists (ms)."""

    digest: str
    user_id: str
    id: str
    made: int
    expires: int


@dataclass(frozen=True)
class _Entry:
    digest: str
    made: int
    expires: int

    @classmethod
    def read(cls, text: str) -> "_Entry":
        digest, made, expires = text.split(" ")
        return cls(digest, int(made), int(expires))


def _pairs(user_id: str, key: ApiKey, made: int, expires: int) -> tuple[Any, ...]:
    return (
        *("user", user_id, "id", key.id, "name", key.name, "prefix", key.prefix),
        *("may", " ".join(key.permissions), "at", made, "exp", expires),
    )


def _read(record: dict[str, str]) -> ApiKey:
    return ApiKey(
        record["id"],
        record["name"],
        record["prefix"],
        tuple(record["may"].split()),
        moment(record["at"]),
        moment(record["used"]) if "used" in record else None,
        moment(record["exp"]) if record["exp"] != "0" else None,
    )


def _held(name: str, record: dict[str, str]) -> Held:
    return Held(name.removeprefix(_key("")), record["user"], record["id"], int(record["at"]), int(record["exp"]))


def _lives(record: dict[str, str], now: float) -> bool:
    return "user" in record and (record["exp"] == "0" or int(record["exp"]) > now)


def _digest(text: str) -> str:
    """Enough without salt and stretching: there is nothing to guess in 192 random bits."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _key(digest: str) -> str:
    return f"apikey:{digest}"


def _list(user_id: str) -> str:
    return f"apikeys:{{{user_id}}}"
