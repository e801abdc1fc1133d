"""Lookups: the way from an email, or from an identity elsewhere, to one account.

Redis
    email:<hmac>     string  user id; for a minute while an account is being made, then without TTL
    identity:<hmac>  string  the same, for the issuer and subject of an identity
    lookup-key       string  the key of those HMACs, sealed with `AUTH_SECRET`; no TTL

Each belongs to one account, without a step over two keys: claim the lookup for a minute, write the user, make the
claim permanent. Where a crash came in between, whoever finds the record by its email makes the claim permanent, and a
claim without a record gives way to the next registration. At worst a record remains that nothing leads to. And a lookup
alone proves nothing: whoever follows one compares what it leads to.

The lookup key is random and kept in Redis, so that a new `AUTH_SECRET` does not lose a single account.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.accounts.emails import canonical
from service.errors import StoreUnavailable
from service.store import Script, Store
from service.vault import Unsealable, Vault

log = structlog.get_logger("service.accounts")

_HERE = Path(__file__).parent
_CLAIM = Script(_HERE / "claim.lua")
_RELEASE = Script(_HERE / "release.lua")
_RESEAL = Script(_HERE / "reseal.lua")
_LOOKUP_KEY = "lookup-key"
_CLAIM_HOLDS = 60_000  # ms


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
        return ["email:" + _digest(key, canonical(email)) for email in emails]

    async def identity(self, issuer: str, subject: str) -> str:
        """The lookup of an identity (OpenID Connect Core, section 5.7)."""
        return "identity:" + _digest(await self._lookup_key(), f"{issuer}\0{subject}")

    async def holder(self, lookup: str) -> Holder | None:
        """Who has it."""
        user_id, lapses = await self._store.run(("GET", lookup), ("PTTL", lookup))
        return Holder(user_id, for_good=lapses == -1) if user_id else None

    async def claim(self, lookup: str, user_id: str, instead_of: Holder | None = None) -> bool:
        """Claim it for a minute, from nobody or from a holder it does not lead to; false if another has it.

        Read the holder first, and then what the lookup leads to: one that was for good by then leads nowhere for good.
        """
        yielding = (instead_of.user_id, int(instead_of.for_good)) if instead_of else ("", 0)
        return bool(await self._store.one(_CLAIM(lookup, user_id, _CLAIM_HOLDS, *yielding)) == user_id)

    async def give_back(self, lookup: str, user_id: str, to: Holder) -> None:
        """Give it to a holder from whom it was claimed, for good, if this user still has it."""
        await self._store.one(_CLAIM(lookup, to.user_id, 0, user_id, 1), durable=True)

    async def settle(self, lookup: str, user_id: str) -> bool:
        """Make the claim permanent; false if it had lapsed and somebody else came first."""
        return bool(await self._store.one(_CLAIM(lookup, user_id, 0, "", 0), durable=True) == user_id)

    async def claim_all(self, wanted: Iterable[tuple[str, str]]) -> list[bool]:
        """Claim several for a minute, each for its user and from nobody; false for each that another has."""
        return await self._take_all(tuple(wanted), _CLAIM_HOLDS)

    async def settle_all(self, claimed: Iterable[tuple[str, str]]) -> list[bool]:
        """Make several claims permanent; false for each that had lapsed and somebody else came first."""
        return await self._take_all(tuple(claimed), 0, durable=True)

    async def release(self, lookup: str, user_id: str) -> None:
        """Give it up, if this user has it."""
        await self._store.one(_RELEASE(lookup, user_id))

    async def scan(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the lookups that are for good, each with its user, and where to go on; 0 is the end."""
        cursor, keys = await self._store.scan("*", cursor)
        keys = [key for key in keys if key.startswith(("email:", "identity:"))]
        replies = await self._store.run(*(ask for key in keys for ask in (("GET", key), ("PTTL", key)))) if keys else []
        held = zip(keys, replies[::2], replies[1::2], strict=True)
        return cursor, [(key, user_id) for key, user_id, lapses in held if user_id and lapses == -1]

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
        claims = (_CLAIM(*pair, holds, "", 0) for pair in pairs)
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


def _digest(key: bytes, name: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, name.encode(), hashlib.sha256)[:18]).decode("ascii")
