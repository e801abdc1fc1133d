"""The outbox: what is to be done about mail, by whichever instance comes first, and not lost with one that dies.

Redis
    outbox         stream  one entry an errand, sealed; read by the consumer group `post`, deleted when done
    outbox:parked  stream  errands that were given up, with the reason, the latest thousand; those of them that somebody
                           wants tried again are pending in a group `post` of its own, deleted when done

An errand says what to do, not what to write: "a reset for this address". So asking is one command whoever asks, a
request never waits for a mail server, and a one-time token is made only when its letter is about to leave: none is
in the outbox. Errands hold addresses, and a registration a password's hash, so they are sealed.

`take.lua` hands each errand to one instance. One that fails comes back after the waits of `WAITS`, longer each
time, and so does one whose instance died; after the last it is parked. A letter may arrive twice if an instance
dies between sending it and saying so.

A parked errand that is to be tried again does not move: between two keys it could get lost or be there twice.
`retry.lua` marks it in its own stream, and `take.lua` hands it out from there like any other. However many ask for
that, and however often, the mark is one, and so is the letter. Its link cannot be too old, for none has been made yet.
"""

import asyncio
import base64
import binascii
import re
import secrets
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import structlog

from service import metrics
from service.clock import moment
from service.errors import InvalidField, StoreUnavailable
from service.store import Command, Script, Store
from service.vault import Unsealable, Vault

log = structlog.get_logger("service.mail")

_HERE = Path(__file__).parent
_TAKE = Script(_HERE / "take.lua")
_DONE = Script(_HERE / "done.lua")
_RETRY = Script(_HERE / "retry.lua")
_PARK = Script(_HERE / "park.lua")
_LIST = Script(_HERE / "parked.lua")
_OUTBOX = "outbox"
_PARKED = "outbox:parked"
_GROUP = "post"
_CONTEXT = b"errand"
_UNKNOWN = "unknown"
_KEPT = 1000
_ALL = 2 * _KEPT  # more than there ever are: Redis trims in pieces of a hundred entries
_BATCH = 200  # errands in one round trip
_ENTRY = re.compile(r"\d{1,15}-\d{1,15}", re.ASCII)
# Seconds until the next try, after the first, second and so on. The first is longer than any try may take
# (`post.py`), for an instance that has died cannot be told from one that is still trying. Seven hours in all.
WAITS = (60, 120, 300, 900, 1800, 3600, 7200, 10800)


@dataclass(frozen=True)
class Errand:
    """One thing to do: a `kind`, which is known to whoever does it, and what there is to know.

    `tries` counts this one. One that had been parked has its `parked_as`, and the tries `before` that.
    """

    id: str
    kind: str
    facts: dict[str, str]
    tries: int
    sealed: str
    parked_as: str | None = None
    before: int = 0


@dataclass(frozen=True)
class Parked:
    """An errand that was given up. `facts` are empty where it was sealed with a secret that is not here."""

    id: str
    errand_id: str
    kind: str
    facts: dict[str, str] = field(repr=False)
    tries: int
    reason: str
    retrying: bool

    @property
    def asked_at(self) -> datetime:
        """When the errand came into the outbox."""
        return _time(self.errand_id)

    @property
    def parked_at(self) -> datetime:
        """When it was given up, the last time."""
        return _time(self.id)


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
        """At most so many errands for this instance: those whose wait is over, new ones, then parked ones."""
        errands = await self._take(_OUTBOX, most)
        if len(errands) < most:
            with suppress(StoreUnavailable):  # what was taken already must not be left lying
                errands += await self._take(_PARKED, most - len(errands))
        return errands

    async def done(self, errand: Errand) -> None:
        """The errand is done, or there was nothing to do."""
        if errand.parked_as:
            await self._store.one(_DONE(_PARKED, _GROUP, errand.parked_as))
        else:
            await self._store.one(_DONE(_OUTBOX, _GROUP, errand.id))

    async def failed(self, errand: Errand, reason: str, *, for_good: bool = False) -> None:
        """The errand comes back later, or is parked when that has been often enough or would not help."""
        parked = for_good or errand.tries > len(self._waits)
        metrics.MAIL_FAILED.labels(errand.kind, "yes" if parked else "no").inc()
        log.warning("mail.failed", id=errand.id, kind=errand.kind, reason=reason, tries=errand.tries, parked=parked)
        if parked:
            await self._park(errand, reason)

    async def parked(self, cursor: str | None = None, most: int = 100) -> list[Parked]:
        """What was given up, the latest first; after `cursor`, the `id` of one. Raises `ValidationFailed`."""
        if cursor is not None and not _ENTRY.fullmatch(cursor):
            raise InvalidField("cursor", "is not one of ours")
        listed = await self._store.one(_LIST(_PARKED, _GROUP, f"({cursor}" if cursor else "+", most))
        return [self._read(id_, int(tries), _fields(flat)) for id_, tries, flat in listed]

    async def find_parked(self, id_: str) -> Parked | None:
        """A parked errand by its id."""
        if not _ENTRY.fullmatch(id_):
            return None
        entries: Any = await self._store.one(("XRANGE", _PARKED, id_, id_))
        return self._read(id_, -1, entries[0][1]) if entries else None

    async def retry(self, *ids: str) -> int:
        """Have these parked errands tried again now, or all without any; how many are going to be.

        Harmless to repeat, and of many who ask at once: each letter leaves once.
        """
        everything = await self.parked(most=_ALL)
        entries: defaultdict[str, list[str]] = defaultdict(list)
        for parked in everything:
            entries[parked.errand_id].append(parked.id)
        wanted = {parked.errand_id: parked.id for parked in everything if not ids or parked.id in ids}
        # Where a crash came between the two halves of `_park`, the errand is still in the outbox too.
        leaving: list[Command] = [_DONE(_OUTBOX, _GROUP, errand_id) for errand_id in wanted]
        retrying: list[Command] = []
        for errand_id, entry in wanted.items():
            twins = (twin for twin in entries[errand_id] if twin != entry)
            retrying.append(_RETRY(_PARKED, _GROUP, entry, int(self._waits[0] * 1000), *twins))
        count = 0
        for start in range(0, len(wanted), _BATCH):
            some = slice(start, start + _BATCH)
            count += (await self._store.run(*leaving[some], *retrying[some])).count("waiting")
        self.filled.set()
        return count

    async def drop(self, id_: str) -> None:
        """Forget a parked errand; a letter that is on its way at this moment may still arrive."""
        await self._store.one(_DONE(_PARKED, _GROUP, id_))

    async def counts(self) -> tuple[int, int]:
        """How many errands are to be done, and how many are parked."""
        waiting, parked = await self._store.run(("XLEN", _OUTBOX), ("XLEN", _PARKED))
        return int(waiting), int(parked)

    async def _take(self, stream: str, most: int) -> list[Errand]:
        waits = (int(seconds * 1000) for seconds in self._waits)
        taken = await self._store.one(_TAKE(stream, _GROUP, self._consumer, most, int(stream == _OUTBOX), *waits))
        return [
            errand for id_, tries, flat in taken if (errand := await self._open(stream, id_, int(tries), _fields(flat)))
        ]

    async def _park(self, errand: Errand, reason: str) -> None:
        """The copy first: a crash in between parks it twice, and loses nothing."""
        told = ("id", errand.id, "kind", errand.kind, "tries", errand.before + errand.tries, "reason", reason)
        if errand.parked_as:
            await self._store.one(_PARK(_PARKED, _GROUP, errand.parked_as, *told, "sealed", errand.sealed))
            return
        await self._store.one(("XADD", _PARKED, "MAXLEN", "~", _KEPT, "*", *told, "sealed", errand.sealed))
        await self._store.one(_DONE(_OUTBOX, _GROUP, errand.id))

    async def _open(self, stream: str, id_: str, tries: int, fields: dict[str, str]) -> Errand | None:
        """What was taken, as an errand; one that cannot be read is parked."""
        sealed = fields["sealed"]
        kind, facts = self._unseal(sealed)
        if stream == _OUTBOX:
            errand = Errand(id_, kind, facts, tries, sealed)
        else:
            errand = Errand(fields["id"], kind, facts, tries, sealed, parked_as=id_, before=int(fields["tries"]))
        if kind == _UNKNOWN:
            log.error("mail.unreadable", id=errand.id, remedy="put the AUTH_SECRET of before in AUTH_SECRET_PREVIOUS")
            await self._park(errand, "it was sealed with another AUTH_SECRET")
            return None
        return errand

    def _read(self, id_: str, tries: int, fields: dict[str, str]) -> Parked:
        kind, facts = self._unseal(fields["sealed"])
        before = int(fields["tries"])
        return Parked(id_, fields["id"], kind, facts, before + max(tries, 0), fields["reason"], retrying=tries >= 0)

    def _unseal(self, sealed: str) -> tuple[str, dict[str, str]]:
        try:
            kind, facts = orjson.loads(self._key.unseal(base64.b64decode(sealed), _CONTEXT))
        except (Unsealable, binascii.Error, ValueError):
            return _UNKNOWN, {}
        return kind, facts


def _fields(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _time(id_: str) -> datetime:
    """The time in the id of an entry of a stream."""
    return moment(id_.partition("-")[0])
