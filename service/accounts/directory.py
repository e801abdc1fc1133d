"""The directory: who there is, found without looking at every record.

Redis
    index:users        zset  user id, scored by when the account was made (ms)
    index:role:<role>  zset  the same for those with a role
    index:disabled     set   ids of disabled users
    index:live         zset  <user>:<session>, scored by when the session expires (ms)
    admins             set   ids of active admins; decides who is the last one

All but `admins` are hints: an entry is written before its record and removed after it, whoever reads one checks the
record, and what a crash leaves, `python -m service repair` mends. Counts are these indexes' own, so after a crash they
may count what is not there until then.

`admins` decides: an admin leaves it before the record changes, and joins before it, too. Nobody leaves unless another
remains whom the caller has just read to be an active admin. So of two last admins who put each other out at the same
moment, one stays; and what a crash leaves is an admin too few in the set, never one too many who counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.accounts.roles import ADMIN
from service.store import Command, Script, Store

_LEAVE = Script(Path(__file__).with_name("leave.lua"))
_PAGE = Script(Path(__file__).with_name("page.lua"))
_OTHERS = 50  # admins that are looked at before one leaves


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
        admin = active and ADMIN in roles
        return [("ZADD", _USERS, created, user_id), *self.gaining(user_id, created, roles, not active, admin)]

    def gaining(
        self, user_id: str, created: int, roles: Iterable[str], disabled: bool = False, admin: bool = False
    ) -> list[Command]:
        """The commands that enter a user into what they come to belong to; send them before the record changes.

        Only what they were not before: an admin who is just being put out must not be entered again by another change.
        """
        commands: list[Command] = [("ZADD", _ROLE + role, created, user_id) for role in roles]
        if disabled:
            commands.append(("SADD", _DISABLED, user_id))
        if admin:
            commands.append(("SADD", _ADMINS, user_id))
        return commands

    def leaving(self, user_id: str, roles: Iterable[str]) -> list[Command]:
        """The commands that remove a user; send them after the record is gone."""
        return [
            ("ZREM", _USERS, user_id),
            *(("ZREM", _ROLE + role, user_id) for role in roles),
            ("SREM", _DISABLED, user_id),
            ("SREM", _ADMINS, user_id),
        ]

    def losing(self, user_id: str, roles: Iterable[str], enabled: bool) -> list[Command]:
        """The commands that remove a user from roles, and from the disabled; send them after the record changed."""
        commands: list[Command] = [("ZREM", _ROLE + role, user_id) for role in roles]
        return [*commands, ("SREM", _DISABLED, user_id)] if enabled else commands

    async def other_admins(self, user_id: str) -> list[str]:
        """Some of those who count as active admins, without this one; read their records before believing it."""
        found = await self._store.one(("SRANDMEMBER", _ADMINS, _OTHERS + 1))
        return [other for other in found if other != user_id]

    async def leave_admins(self, user_id: str, others: Iterable[str]) -> bool:
        """Let an admin go, while one of these others, whose records the caller has just read, remains."""
        return bool(await self._store.one(_LEAVE(_ADMINS, user_id, *others), durable=True))

    async def page(self, role: str | None, after: Place | None, count: int) -> list[Place]:
        """The entries after a place, newest first."""
        key = _ROLE + role if role else _USERS
        place = (after.at, after.id) if after else ("", "")
        found = await self._store.one(_PAGE(key, *place, count))
        return [Place(int(score), user_id) for user_id, score in zip(found[::2], found[1::2], strict=True)]

    async def counts(self, now: int, roles: Iterable[str]) -> Counts:
        """How many users and sessions there are at this moment (ms)."""
        roles = tuple(roles)
        users, disabled, new, live, *held = await self._store.run(
            ("ZCARD", _USERS),
            ("SCARD", _DISABLED),
            ("ZCOUNT", _USERS, now - 24 * 3_600_000, "+inf"),
            ("ZCOUNT", _LIVE, f"({now}", "+inf"),
            *(("ZCARD", _ROLE + role) for role in roles),
        )
        return Counts(users, disabled, new, dict(zip(roles, held, strict=True)), live)

    def session_opens(self, user_id: str, session_id: str, now: int, expires: int) -> list[Command]:
        """The commands that count a new session, and forget those that have expired."""
        return [("ZADD", _LIVE, expires, f"{user_id}:{session_id}"), ("ZREMRANGEBYSCORE", _LIVE, "-inf", now)]

    def session_lasts(self, user_id: str, session_id: str, expires: int) -> Command:
        """The command that counts a session until a later time, if it is counted."""
        return ("ZADD", _LIVE, "XX", expires, f"{user_id}:{session_id}")

    def sessions_end(self, user_id: str, session_ids: Iterable[str]) -> list[Command]:
        """The commands that count sessions no more."""
        return [("ZREM", _LIVE, f"{user_id}:{session_id}") for session_id in session_ids]

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
        found, cursor = {_USERS: "", _DISABLED: "", _ADMINS: ""}, 0
        while True:
            cursor, keys = await self._store.scan(_ROLE + "*", cursor)
            found |= {key: key.removeprefix(_ROLE) for key in keys}
            if not cursor:
                return found

    async def entries(self, index: str, cursor: int) -> tuple[int, list[str]]:
        """Some entries of an index, and where to go on; 0 is the end."""
        scan = "SSCAN" if index in (_DISABLED, _ADMINS) else "ZSCAN"
        cursor, batch = await self._store.one((scan, index, cursor, "COUNT", 500))
        return int(cursor), [entry if isinstance(entry, str) else entry[0] for entry in batch]

    def belongs(self, index: str, roles: Iterable[str], active: bool) -> bool:
        """Whether an active or disabled user with these roles belongs into an index."""
        if index == _DISABLED:
            return not active
        if index == _ADMINS:
            return active and ADMIN in roles
        return index == _USERS or index.removeprefix(_ROLE) in roles

    async def drop(self, index: str, entries: Iterable[str]) -> None:
        """Remove entries from an index."""
        command = "SREM" if index in (_DISABLED, _ADMINS) else "ZREM"
        await self._store.run(*((command, index, entry) for entry in entries))

    async def live(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the sessions that are counted, as user and session, and where to go on."""
        cursor, batch = await self._store.one(("ZSCAN", _LIVE, cursor, "COUNT", 500))
        return int(cursor), [tuple(member.split(":", 1)) for member, _ in batch]

    async def counted(self, user_id: str, session_ids: Iterable[str]) -> list[bool]:
        """Which of these sessions are counted."""
        asked = [("ZSCORE", _LIVE, f"{user_id}:{session_id}") for session_id in session_ids]
        return [score is not None for score in await self._store.run(*asked)] if asked else []


_USERS, _ROLE, _DISABLED, _LIVE, _ADMINS = "index:users", "index:role:", "index:disabled", "index:live", "admins"
