"""The directory: who there is, found without looking at every record.

Redis
    index:users        zset  user id, scored by when the account was made (ms)
    index:role:<role>  zset  the same for those with a role, but `user`, which nearly everybody has
    index:not-user     set   ids of those without the role `user`
    index:disabled     set   ids of disabled users
    index:live:<part>  zset  <user>:<mark of the session>, scored by when it expires (ms); the part is the user's
    admins             set   ids of active admins; decides who is the last one

All but `admins` are hints: an entry is written before its record and removed after it, whoever reads one checks the
record, and what a crash leaves, `python -m service repair` mends. Counts are these indexes' own, so after a crash they
may count what is not there until then. Who has the role `user` is found among all; they are counted as all without
those of `index:not-user`.

Sessions are counted in many parts, so that each is small and Redis keeps it as one compact block, in half the memory.
In a Cluster they are on all nodes. The mark is the first six letters of the session's id: enough to tell apart those of
one user, who has 200 at most.

`admins` decides: an admin leaves it before the record changes, and joins before it, too. Nobody leaves unless another
remains whom the caller has just read to be an active admin. So of two last admins who put each other out at the same
moment, one stays; and what a crash leaves is an admin too few in the set, never one too many who counts.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.accounts.roles import ADMIN, USER
from service.store import Command, Script, Store

_LEAVE = Script(Path(__file__).with_name("leave.lua"))
_PAGE = Script(Path(__file__).with_name("page.lua"))
_OTHERS = 50  # admins that are looked at before one leaves
_PARTS = 4096  # of the count of sessions; of half a thousand sessions each it is still compact
_PARTS_TOGETHER = 128  # that are counted, or read, in one round trip


@dataclass(frozen=True)
class Place:
    """A place in a list: the score and the id of the last entry that was seen."""

    at: int
    id: str


@dataclass(frozen=True)
class Counts:
    """How many there are."""

    users: int
    disabled: int
    new_today: int
    roles: dict[str, int]
    sessions: int


class Directory:
    """Keeps the indexes, and reads them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entering(self, user_id: str, created: int, roles: Iterable[str], active: bool) -> list[Command]:
        """The commands that enter a user; send them before the record is written."""
        roles = tuple(roles)
        admin, not_user = active and ADMIN in roles, USER not in roles
        return [("ZADD", _USERS, created, user_id), *self.gaining(user_id, created, roles, not_user, not active, admin)]

    def gaining(
        self,
        user_id: str,
        created: int,
        roles: Iterable[str],
        not_user: bool = False,
        disabled: bool = False,
        admin: bool = False,
    ) -> list[Command]:
        """The commands that enter a user into what they come to belong to; send them before the record changes.

        Only what they were not before: an admin who is just being put out must not be entered again by another change.
        """
        commands: list[Command] = [("ZADD", _ROLE + role, created, user_id) for role in roles if role != USER]
        if not_user:
            commands.append(("SADD", _NOT_USER, user_id))
        if disabled:
            commands.append(("SADD", _DISABLED, user_id))
        if admin:
            commands.append(("SADD", _ADMINS, user_id))
        return commands

    def leaving(self, user_id: str, roles: Iterable[str]) -> list[Command]:
        """The commands that remove a user; send them after the record is gone."""
        return [
            ("ZREM", _USERS, user_id),
            *(("ZREM", _ROLE + role, user_id) for role in roles if role != USER),
            ("SREM", _NOT_USER, user_id),
            ("SREM", _DISABLED, user_id),
            ("SREM", _ADMINS, user_id),
        ]

    def losing(self, user_id: str, roles: Iterable[str], is_user: bool, enabled: bool) -> list[Command]:
        """The commands that remove a user from roles, from those without the role `user`, and from the disabled.

        Send them after the record changed.
        """
        commands: list[Command] = [("ZREM", _ROLE + role, user_id) for role in roles if role != USER]
        if is_user:
            commands.append(("SREM", _NOT_USER, user_id))
        return [*commands, ("SREM", _DISABLED, user_id)] if enabled else commands

    async def other_admins(self, user_id: str) -> list[str]:
        """Some of those who count as active admins, without this one; read their records before believing it."""
        found = await self._store.one(("SRANDMEMBER", _ADMINS, _OTHERS + 1))
        return [other for other in found if other != user_id]

    async def leave_admins(self, user_id: str, others: Iterable[str]) -> bool:
        """Let an admin go, while one of these others, whose records the caller has just read, remains."""
        return bool(await self._store.one(_LEAVE(_ADMINS, user_id, *others), durable=True))

    async def page(self, role: str | None, after: Place | None, count: int) -> list[Place]:
        """The entries after a place, newest first; of the role `user` those of everybody, so look at the records."""
        key = _USERS if role in (None, USER) else f"{_ROLE}{role}"
        place = (after.at, after.id) if after else ("", "")
        found = await self._store.one(_PAGE(key, *place, count))
        return [Place(int(score), user_id) for user_id, score in zip(found[::2], found[1::2], strict=True)]

    async def counts(self, now: int, roles: Iterable[str]) -> Counts:
        """How many users and sessions there are at this moment (ms)."""
        roles = tuple(roles)
        users, disabled, new, *held = await self._store.run(
            ("ZCARD", _USERS),
            ("SCARD", _DISABLED),
            ("ZCOUNT", _USERS, now - 24 * 3_600_000, "+inf"),
            *(("SCARD", _NOT_USER) if role == USER else ("ZCARD", _ROLE + role) for role in roles),
        )
        told = dict(zip(roles, held, strict=True))
        if USER in told:
            told[USER] = max(users - told[USER], 0)
        return Counts(users, disabled, new, told, await self.live_count(now))

    async def live_count(self, now: int) -> int:
        """How many sessions there are at this moment (ms); as many round trips as there are bundles of parts."""
        live = 0
        for some in range(0, _PARTS, _PARTS_TOGETHER):
            parts = range(some, some + _PARTS_TOGETHER)
            live += sum(await self._store.run(*(("ZCOUNT", f"{_LIVE}{part}", f"({now}", "+inf") for part in parts)))
        return live

    def session_opens(self, user_id: str, session_id: str, now: int, expires: int) -> list[Command]:
        """The commands that count a new session, and forget those of its part that have expired."""
        part = _part(user_id)
        return [("ZADD", part, expires, _member(user_id, session_id)), ("ZREMRANGEBYSCORE", part, "-inf", now)]

    def session_lasts(self, user_id: str, session_id: str, expires: int) -> Command:
        """The command that counts a session until a later time, if it is counted."""
        return ("ZADD", _part(user_id), "XX", expires, _member(user_id, session_id))

    def sessions_end(self, user_id: str, session_ids: Iterable[str]) -> list[Command]:
        """The commands that count sessions no more."""
        return [("ZREM", _part(user_id), _member(user_id, session_id)) for session_id in session_ids]

    # What `repair` needs

    async def missing(self, user_id: str, created: int, roles: Iterable[str], active: bool) -> list[str]:
        """The names of the indexes that lack this user or have them at the wrong place."""
        commands = self.entering(user_id, created, roles, active)
        asked: list[Command] = [
            ("SISMEMBER", command[1], user_id) if command[0] == "SADD" else ("ZSCORE", command[1], user_id)
            for command in commands
        ]
        replies = await self._store.run(*asked)
        return [
            str(command[1])
            for command, reply in zip(commands, replies, strict=True)
            if not reply or (command[0] == "ZADD" and int(reply) != created)
        ]

    async def indexes(self) -> dict[str, str]:
        """The indexes of users there are, each with the role it is for or "" ."""
        found, cursor = {_USERS: "", _NOT_USER: "", _DISABLED: "", _ADMINS: ""}, 0
        while True:
            cursor, keys = await self._store.scan(_ROLE + "*", cursor)
            found |= {key: key.removeprefix(_ROLE) for key in keys}
            if not cursor:
                return found

    async def entries(self, index: str, cursor: int) -> tuple[int, list[str]]:
        """Some entries of an index, and where to go on; 0 is the end."""
        scan = "SSCAN" if index in _SETS else "ZSCAN"
        cursor, batch = await self._store.one((scan, index, cursor, "COUNT", 500))
        return int(cursor), [entry if isinstance(entry, str) else entry[0] for entry in batch]

    def belongs(self, index: str, roles: Iterable[str], active: bool) -> bool:
        """Whether an active or disabled user with these roles belongs into an index."""
        if index == _NOT_USER:
            return USER not in roles
        if index == _DISABLED:
            return not active
        if index == _ADMINS:
            return active and ADMIN in roles
        return index == _USERS or index.removeprefix(_ROLE) in roles

    async def drop(self, index: str, entries: Iterable[str]) -> None:
        """Remove entries from an index."""
        command = "SREM" if index in _SETS else "ZREM"
        await self._store.run(*((command, index, entry) for entry in entries))

    async def live(self, now: int, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the sessions that are counted at this moment (ms), as user and mark, and where to go on."""
        parts = range(cursor, cursor + _PARTS_TOGETHER)
        found = await self._store.run(*(("ZRANGE", f"{_LIVE}{part}", f"({now}", "+inf", "BYSCORE") for part in parts))
        counted = [tuple(member.split(":", 1)) for members in found for member in members]
        return parts.stop % _PARTS, counted

    async def counted(self, user_id: str, session_ids: Iterable[str]) -> list[bool]:
        """Which of these sessions are counted."""
        asked = [("ZSCORE", _part(user_id), _member(user_id, session_id)) for session_id in session_ids]
        return [score is not None for score in await self._store.run(*asked)] if asked else []


_USERS, _ROLE, _NOT_USER, _DISABLED = "index:users", "index:role:", "index:not-user", "index:disabled"
_LIVE, _ADMINS = "index:live:", "admins"
_SETS = frozenset({_NOT_USER, _DISABLED, _ADMINS})
_MARK = 6  # letters of a session's id


def _part(user_id: str) -> str:
    """The part of the count in which a user's sessions are."""
    return f"{_LIVE}{zlib.crc32(user_id.encode()) % _PARTS}"


def _member(user_id: str, session_id: str) -> str:
    """What stands for a session in the count; its mark may be given for its id."""
    return f"{user_id}:{session_id[:_MARK]}"
