"""User records and the way from an email to one of them.

Redis
    user:{<id>}    hash    email, ok (verified), pw (PHC string), first, last, name, pic, roles, off (disabled), via
                           (how the account came about), at, up, in (created, updated, last sign-in; ms); no TTL
    email:<hmac>   string  user id; for a minute while an account is being made, then without TTL
    lookup-key     string  the key of those HMACs, sealed with `AUTH_SECRET`; no TTL

An email belongs to one account, without a step over two keys: claim the lookup for a minute, write the user, make the
claim permanent. Where a crash came in between, whoever finds the record by its email makes the claim permanent, and a
claim without a record gives way to the next registration. At worst a record remains that nothing leads to.
The lookup key is random and kept in Redis, so that a new `AUTH_SECRET` does not lose a single account.
"""

import base64
import hashlib
import hmac
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from service.accounts.emails import canonical
from service.accounts.roles import USER
from service.clock import Clock
from service.errors import EmailExists, StoreUnavailable
from service.ids import new_id
from service.store import Command, Script, Store
from service.vault import Key, Unsealable, Vault

log = structlog.get_logger("service.accounts")

_HERE = Path(__file__).parent
_CLAIM = Script(_HERE / "claim.lua")
_CHANGE = Script(_HERE / "change.lua")
_RESEAL = Script(_HERE / "reseal.lua")
_LOOKUP_KEY = "lookup-key"
_CLAIM_HOLDS = 60_000  # ms
_NO_TIME = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class User:
    """A person's account. `password` is a PHC string, or empty when there is none."""

    id: str
    email: str
    password: str = field(default="", repr=False)
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    name: str | None = None
    picture: str | None = None
    roles: tuple[str, ...] = (USER,)
    provider: str = "local"
    active: bool = True
    created_at: datetime = _NO_TIME
    updated_at: datetime = _NO_TIME
    last_login_at: datetime | None = None

    @property
    def display_name(self) -> str | None:
        """The name as given, else first and last name together."""
        return self.name or " ".join(filter(None, (self.first_name, self.last_name))) or None


class Users:
    """Finds, makes and changes accounts."""

    def __init__(self, store: Store, clock: Clock, vault: Vault) -> None:
        self._store = store
        self._clock = clock
        self._key = vault.key("lookup-key")
        self._opened: tuple[str, bytes] | None = None

    def reading(self, user_id: str) -> Command:
        """The command whose reply `read` understands."""
        return ("HGETALL", _key(user_id))

    def read(self, user_id: str, record: dict[str, str]) -> User | None:
        """The user of a record, `None` if there is none."""
        if "email" not in record:
            return None
        return User(
            id=user_id,
            email=record["email"],
            password=record.get("pw", ""),
            email_verified="ok" in record,
            first_name=record.get("first"),
            last_name=record.get("last"),
            name=record.get("name"),
            picture=record.get("pic"),
            roles=tuple(record.get("roles", USER).split()),
            provider=record.get("via", "local"),
            active="off" not in record,
            created_at=_time(record["at"]),
            updated_at=_time(record.get("up", record["at"])),
            last_login_at=_time(record["in"]) if "in" in record else None,
        )

    async def none_yet(self) -> bool:
        """Whether no account has ever been made here."""
        return not await self._store.one(("EXISTS", _LOOKUP_KEY))

    async def find(self, user_id: str) -> User | None:
        return self.read(user_id, await self._store.one(self.reading(user_id)))

    async def id_of(self, email: str) -> str | None:
        """The id that an email leads to; the caller reads the user and compares the email."""
        lookup = await self._lookup(email)
        found, lapses = await self._store.run(("GET", lookup), ("PTTL", lookup))
        if found and lapses > 0 and await self.find(found):
            # Its registration was cut off before the last step: an account that can be found must stay.
            await self._store.one(_CLAIM(lookup, found, 0, ""), durable=True)
        return str(found) if found else None

    async def find_by_email(self, email: str) -> User | None:
        """The user with this email, in any spelling of it."""
        user_id = await self.id_of(email)
        user = await self.find(user_id) if user_id else None
        return user if user and user.email == canonical(email) else None

    async def register(self, user: User) -> User:
        """Make an account of a `User` without id and times; raises `EmailExists`."""
        lookup = await self._lookup(user.email)
        now = datetime.fromtimestamp(int(self._clock.now() * 1000) / 1000, UTC)
        user = replace(user, id=new_id(), email=canonical(user.email), created_at=now, updated_at=now)
        holder = await self._store.one(_CLAIM(lookup, user.id, _CLAIM_HOLDS, ""))
        if holder != user.id and not await self.find(holder):
            # A registration that was cut off, or one under way, which then finds below that it came second.
            holder = await self._store.one(_CLAIM(lookup, user.id, _CLAIM_HOLDS, holder))
        if holder != user.id:
            raise EmailExists
        await self._store.one(("HSET", _key(user.id), *_pairs(user)))
        if await self._store.one(_CLAIM(lookup, user.id, 0, ""), durable=True) != user.id:
            # The claim had lapsed or given way before the record was written, and somebody else came first.
            await self._store.one(("DEL", _key(user.id)))
            raise EmailExists
        return user

    async def change(self, user_id: str, *, password_was: str | None = None, **fields: str | None) -> bool:
        """Change fields of a record by their Redis names; false when the user is gone.

        With `password_was` nothing changes unless that still is the stored password; then false, too.
        """
        pairs = {"up": _ms(self._clock.now()), **{name: value or "" for name, value in fields.items()}}
        guard = ("", "") if password_was is None else ("pw", password_was)
        flat = (part for pair in pairs.items() for part in pair)
        return bool(await self._store.one(_CHANGE(_key(user_id), *guard, *flat), durable=True) == "changed")

    def noting_login(self, user_id: str) -> Command:
        """The command that notes a sign-in, to travel with another."""
        return _CHANGE(_key(user_id), "", "", "in", _ms(self._clock.now()))

    async def reseal(self) -> None:
        """Seal the lookup key with the current `AUTH_SECRET`, so that the one before can go."""
        if (sealed := await self._store.one(("GET", _LOOKUP_KEY))) is None:
            return
        with suppress(Unsealable):
            if renewed := self._key.resealed(base64.b64decode(sealed), b"lookup-key"):
                await self._store.one(_RESEAL(_LOOKUP_KEY, sealed, base64.b64encode(renewed).decode("ascii")))

    async def _lookup(self, email: str) -> str:
        digest = hmac.digest(await self._lookup_key(), canonical(email).encode(), hashlib.sha256)
        return "email:" + base64.urlsafe_b64encode(digest[:18]).decode("ascii")

    async def _lookup_key(self) -> bytes:
        """Read each time: were it only remembered, a Redis restarted empty would leave instances with two keys."""
        sealed: str | None = await self._store.one(("GET", _LOOKUP_KEY))
        if sealed is None:
            made = base64.b64encode(self._key.seal(os.urandom(32), b"lookup-key")).decode("ascii")
            await self._store.one(("SET", _LOOKUP_KEY, made, "NX"))
            sealed = str(await self._store.one(("GET", _LOOKUP_KEY)))
        if self._opened is None or self._opened[0] != sealed:
            self._opened = (sealed, _unseal(self._key, sealed))
        return self._opened[1]


def _unseal(key: Key, sealed: str) -> bytes:
    try:
        return key.unseal(base64.b64decode(sealed), b"lookup-key")
    except Unsealable as error:
        log.error("accounts.lookup_key_sealed", remedy="AUTH_SECRET changed: put the old one in AUTH_SECRET_PREVIOUS")
        raise StoreUnavailable from error


def _pairs(user: User) -> list[str]:
    fields = {
        "email": user.email,
        "pw": user.password,
        "ok": "1" if user.email_verified else None,
        "first": user.first_name,
        "last": user.last_name,
        "name": user.name,
        "pic": user.picture,
        "roles": " ".join(user.roles),
        "via": user.provider if user.provider != "local" else None,
        "off": None if user.active else "1",
        "at": _ms(user.created_at.timestamp()),
    }
    return [part for name, value in fields.items() if value for part in (name, value)]


def _key(user_id: str) -> str:
    return f"user:{{{user_id}}}"


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def _time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
