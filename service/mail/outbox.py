"""The outbox: what is to be done about mail, by whichever instance comes first, and not lost with one that dies.

Redis
    outbox         stream  one entry an errand, sealed; read by the consumer group `post`, deleted when done
    outbox:parked  stream  errands that were given up, with the reason; the latest thousand

An errand says what to do, not what to write: "a reset for this address". So asking is one command whoever asks, a
request never waits for a mail server, and a one-time token is made only when its letter is about to leave: none is
in the outbox. Errands hold addresses, and a registration a password's hash, so they are sealed.

`take.lua` hands each errand to one instance. One that fails comes back after the waits of `WAITS`, longer each
time, and so does one whose instance died; after the last it is parked. A letter may arrive twice if an instance
dies between sending it and saying so.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from service.errors import StoreUnavailable
from service.store import Script, Store
from service.vault import Unsealable, Vault

log = structlog.get_logger("service.mail")

_HERE = Path(__file__).parent
_TAKE = Script(_HERE / "take.lua")
_DONE = Script(_HERE / "done.lua")
_OUTBOX = "outbox"
_PARKED = "outbox:parked"
_GROUP = "post"
_CONTEXT = b"errand"
# Seconds until the next try, after the first, second and so on. The first is longer than any try may take
# (`post.py`), for an instance that has died cannot be told from one that is still trying. Seven hours in all.
WAITS = (60, 120, 300, 900, 1800, 3600, 7200, 10800)


@dataclass(frozen=True)
class Errand:
    """One thing to do: a `kind`, which is known to whoever does it, and what there is to know."""

    id: str
    kind: str
    facts: dict[str, str]
    tries: int
    sealed: str


class Outbox:
    """Takes errands in, hands each to one instance, and keeps what cannot be done."""

    def __init__(self, store: Store, vault: Vault, waits: Sequence[float] = WAITS) -> None:
        self._store = store
        self._key = vault.key("mail")
        self._consumer = secrets.token_hex(8)
        self._waits = waits
        self.filled = asyncio.Event()

    async def put(self, kind: str, **facts: str) -> None:
        """Leave an errand; the post of any instance will do it."""
        sealed = self._key.seal(orjson.dumps([kind, facts]), _CONTEXT)
        await self._store.one(("XADD", _OUTBOX, "*", "sealed", base64.b64encode(sealed).decode("ascii")))
        self.filled.set()

    async def tell(self, kind: str, **facts: str) -> None:
        """Leave a notice of what has happened already. Fails open: it must not undo that, so a loss is only logged."""
        try:
            await self.put(kind, **facts)
        except StoreUnavailable:
            log.warning("mail.notice_lost", kind=kind)

    async def take(self, most: int) -> list[Errand]:
        """At most so many errands for this instance: those whose wait is over first, then new ones."""
        waits = (int(seconds * 1000) for seconds in self._waits)
        taken = await self._store.one(_TAKE(_OUTBOX, _GROUP, self._consumer, most, *waits))
        return [errand for id_, tries, sealed in taken if (errand := await self._open(id_, int(tries), sealed))]

    async def done(self, errand: Errand) -> None:
        """The errand is done, or there was nothing to do."""
        await self._store.one(_DONE(_OUTBOX, _GROUP, errand.id))

    async def failed(self, errand: Errand, reason: str, *, for_good: bool = False) -> None:
        """The errand comes back later, or is parked when that has been often enough or would not help."""
        parked = for_good or errand.tries > len(self._waits)
        log.warning("mail.failed", id=errand.id, kind=errand.kind, reason=reason, tries=errand.tries, parked=parked)
        if parked:
            await self._park(errand.id, errand.kind, errand.tries, reason, errand.sealed)

    async def parked(self, most: int = 100) -> list[dict[str, str]]:
        """What was given up, the latest first: `id`, `kind`, `tries` and `reason` of each."""
        entries: Any = await self._store.one(("XREVRANGE", _PARKED, "+", "-", "COUNT", most))
        return [{name: value for name, value in fields.items() if name != "sealed"} for _, fields in entries]

    async def _park(self, id_: str, kind: str, tries: int, reason: str, sealed: str) -> None:
        """The copy first: a crash in between parks it twice, and loses nothing."""
        told = ("id", id_, "kind", kind, "tries", tries, "reason", reason, "sealed", sealed)
        await self._store.one(("XADD", _PARKED, "MAXLEN", "~", 1000, "*", *told))
        await self._store.one(_DONE(_OUTBOX, _GROUP, id_))

    async def _open(self, id_: str, tries: int, sealed: str) -> Errand | None:
        try:
            kind, facts = orjson.loads(self._key.unseal(base64.b64decode(sealed), _CONTEXT))
        except (Unsealable, binascii.Error, ValueError):
            log.error("mail.unreadable", id=id_, remedy="put the AUTH_SECRET of before in AUTH_SECRET_PREVIOUS")
            await self._park(id_, "unknown", tries, "it was sealed with another AUTH_SECRET", sealed)
            return None
        return Errand(id_, kind, facts, tries, sealed)
