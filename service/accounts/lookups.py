"""Lookups: the way from an email, or from an identity elsewhere, to one account.

Redis
    email:<part>     hash    <rest of the HMAC>: user id, and until when (ms) where it is only claimed; no TTL
    identity:<part>  hash    the same, for the issuer and subject of an identity
    lookup-key       string  the key of those HMACs, sealed with `AUTH_SECRET`; no TTL

There are 4,096 parts of each, named by the first two letters of the HMAC. So a part is small, and Redis keeps it as one
compact block, in half the memory that a key for each lookup takes. In a Cluster they are on all nodes. A lookup is told
as `email:<part>:<rest>`.

Each belongs to one account, without a step over two keys: claim the lookup for a minute, write the user, make the
claim permanent. Where a crash came in between, whoever finds the record by its email makes the claim permanent, and a
claim without a record gives way to the next registration, or to `repair` when it has lapsed. At worst a record remains
that nothing leads to. And a lookup alone proves nothing: whoever follows one compares what it leads to.

The lookup key is random and kept in Redis, so that a new `AUTH_SECRET` does not lose a single account.
"""

import base64
import hashlib
import hmac
import os
import string
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.accounts.emails import canonical
from service.errors import StoreUnavailable
from service.store import Command, Script, Store
from service.vault import Unsealable, Vault

log = structlog.get_logger("service.accounts")

_HERE = Path(__file__).parent
_CLAIM = Script(_HERE / "claim.lua")
_RELEASE = Script(_HERE / "release.lua")
_RESEAL = Script(_HERE / "reseal.lua")
_LOOKUP_KEY = "lookup-key"
_CLAIM_HOLDS = 60_000  # ms
_KINDS = ("email:", "identity:")
_LETTERS = string.ascii_letters + string.digits + "-_"  # of base64url
_PARTS = [kind + one + other for kind in _KINDS for one in _LETTERS for other in _LETTERS]
_PARTS_TOGETHER = 128  # that are read in one round trip


@dataclass(frozen=True)
class Holder:
    """Who has a lookup, for a while or for good."""

    user_id: str
    for_good: bool


class Lookups:
    """Names lookups, and says who has each."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._key = vault.key("lookup-key")
        self._opened: tuple[str, bytes] | None = None

    async def email(self, email: str) -> str:
        """The lookup of an email, the same for every spelling of it."""
        return (await self.emails([email]))[0]

    async def emails(self, emails: Iterable[str]) -> list[str]:
        """The lookups of several emails, in this order."""
        key = await self._lookup_key()
        return [_lookup("email:", key, canonical(email)) for email in emails]

    async def identity(self, issuer: str, subject: str) -> str:
        """The lookup of an identity (OpenID Connect Core, section 5.7)."""
        return _lookup("identity:", await self._lookup_key(), f"{issuer}\0{subject}")

    async def holder(self, lookup: str) -> Holder | None:
        """Who has it; also whose claim has lapsed, while nobody else has come."""
        value: str | None = await self._store.one(("HGET", *_place(lookup)))
        if value is None:
            return None
        user_id, _, claimed_until = value.partition(" ")
        return Holder(user_id, for_good=not claimed_until)

    async def claim(self, lookup: str, user_id: str, instead_of: Holder | None = None) -> bool:
        """Claim it for a minute, from nobody or from a holder it does not lead to; false if another has it.

        Read the holder first, and then what the lookup leads to: one that was for good by then leads nowhere for good.
        """
        yielding = (instead_of.user_id, int(instead_of.for_good)) if instead_of else ("", 0)
        return bool(await self._store.one(_claiming(lookup, user_id, _CLAIM_HOLDS, *yielding)) == user_id)

    async def give_back(self, lookup: str, user_id: str, to: Holder) -> None:
        """Give it to a holder from whom it was claimed, for good, if this user still has it."""
        await self._store.one(_claiming(lookup, to.user_id, 0, user_id, 1), durable=True)

    async def settle(self, lookup: str, user_id: str) -> bool:
        """Make the claim permanent; false if it had lapsed and somebody else came first."""
        return bool(await self._store.one(_claiming(lookup, user_id, 0, "", 0), durable=True) == user_id)

    async def claim_all(self, wanted: Iterable[tuple[str, str]]) -> list[bool]:
        """Claim several for a minute, each for its user and from nobody; false for each that another has."""
        return await self._take_all(tuple(wanted), _CLAIM_HOLDS)

    async def settle_all(self, claimed: Iterable[tuple[str, str]]) -> list[bool]:
        """Make several claims permanent; false for each that had lapsed and somebody else came first."""
        return await self._take_all(tuple(claimed), 0, durable=True)

    async def release(self, lookup: str, user_id: str) -> None:
        """Give it up, if this user has it."""
        part, rest = _place(lookup)
        await self._store.one(_RELEASE(part, rest, user_id))

    async def scan(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the lookups that nobody is just claiming, each with its user, and where to go on; 0 is the end."""
        parts, now = _PARTS[cursor : cursor + _PARTS_TOGETHER], await self._store.time() * 1000
        held = list[tuple[str, str]]()
        for part, fields in zip(parts, await self._store.run(*(("HGETALL", part) for part in parts)), strict=True):
            for rest, value in fields.items():
                user_id, _, claimed_until = value.partition(" ")
                if int(claimed_until or 0) <= now:
                    held.append((f"{part}:{rest}", user_id))
        return (cursor + _PARTS_TOGETHER) % len(_PARTS), held

    async def untouched(self) -> bool:
        """Whether no account has ever been made or looked for here."""
        return not await self._store.one(("EXISTS", _LOOKUP_KEY))

    async def reseal(self) -> None:
        """Seal the lookup key with the current `AUTH_SECRET`, so that the one before can go."""
        if (sealed := await self._store.one(("GET", _LOOKUP_KEY))) is None:
            return
        with suppress(Unsealable):
            if renewed := self._key.resealed(base64.b64decode(sealed), b"lookup-key"):
                await self._store.one(_RESEAL(_LOOKUP_KEY, sealed, base64.b64encode(renewed).decode("ascii")))

    async def _take_all(self, pairs: tuple[tuple[str, str], ...], holds: int, durable: bool = False) -> list[bool]:
        if not pairs:
            return []
        claims = (_claiming(*pair, holds, "", 0) for pair in pairs)
        takers = await self._store.run(*claims, durable=durable, apart=True)
        return [taker == user_id for taker, (_, user_id) in zip(takers, pairs, strict=True)]

    async def _lookup_key(self) -> bytes:
        """Read each time: were it only remembered, a Redis restarted empty would leave instances with two keys."""
        sealed: str | None = await self._store.one(("GET", _LOOKUP_KEY))
        if sealed is None:
            made = base64.b64encode(self._key.seal(os.urandom(32), b"lookup-key")).decode("ascii")
            await self._store.one(("SET", _LOOKUP_KEY, made, "NX"))
            sealed = str(await self._store.one(("GET", _LOOKUP_KEY)))
        if self._opened is None or self._opened[0] != sealed:
            self._opened = (sealed, self._unseal(sealed))
        return self._opened[1]

    def _unseal(self, sealed: str) -> bytes:
        try:
            return self._key.unseal(base64.b64decode(sealed), b"lookup-key")
        except Unsealable as error:
            log.error("accounts.lookup_key_sealed", remedy="put the AUTH_SECRET of before in AUTH_SECRET_PREVIOUS")
            raise StoreUnavailable from error


def _lookup(kind: str, key: bytes, name: str) -> str:
    digest = base64.urlsafe_b64encode(hmac.digest(key, name.encode(), hashlib.sha256)[:18]).decode("ascii")
    return f"{kind}{digest[:2]}:{digest[2:]}"


def _place(lookup: str) -> tuple[str, str]:
    """The key of a lookup's part, and its field there."""
    part, _, rest = lookup.rpartition(":")
    return part, rest


def _claiming(lookup: str, user_id: str, holds: int, yielding: str, even_for_good: int) -> Command:
    """The command that claims a lookup, see `claim.lua`."""
    return _CLAIM(*_place(lookup), user_id, holds, yielding, even_for_good)
