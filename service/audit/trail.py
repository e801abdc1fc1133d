"""The audit trail: every security event once, for the operator in a stream, for its owner in a list, and in the log.

Redis
    audit-trail      stream  every event; the latest 100,000 or a little more, no TTL
    events:{<user>}  list    those of one user, the latest first; the latest 1,000, ninety days after the last one

The line of the log is written first, before anything can fail. Then both are written, and the request waits for it, so
that who has an answer finds its event; but for a quarter of a second at most: the writing goes on beside it. One
writer does it, with one round trip at a time, which takes every event that came up since the one before: a hundred
events at once cost two round trips and one connection. Events that Redis did not take are counted, and told in the log
as `audit.unwritten`; their own lines are there as well. They are not tried again, for then they might be told twice.

A user's list begins with a registration or a sign-in and nothing else, so that an event which comes in late does not
bring back the list of somebody who is gone. It is a list because Redis sets 4 KB aside for a stream, however short.
"""

import asyncio
import contextvars
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import structlog

from service import logs, metrics
from service.audit.events import Event
from service.client import Client
from service.clock import Clock, moment, stamp
from service.errors import InvalidField, StoreUnavailable
from service.ids import new_id
from service.store import Command, Store

log = structlog.get_logger("service.audit")

WAITS = 0.25  # seconds that a request waits for its event to be written
_KEPT, _KEPT_OF_ONE = 100_000, 1_000
_KEPT_FOR = 90 * 24 * 3600  # seconds
_BATCH, _LOOKS = 500, 10  # how many entries a page looks at: so many at once, so often
_MOST_TOLD = 10_000  # names of what happens once that are remembered
_TOGETHER = 250  # events written in one round trip at most
_FIRST = frozenset({Event.USER_REGISTERED, Event.ADMIN_CREATED, Event.SIGNED_IN})
_EVENTS = {event: metrics.AUDIT_EVENTS.labels(event.value) for event in Event}
_CURSOR = re.compile(r"\d{1,15}-\d{1,15}", re.ASCII)
_CURSOR_OF_ONE = re.compile(r"(\d{1,15})-[A-Za-z0-9_-]{22}", re.ASCII)


@dataclass(frozen=True)
class AuditEvent:
    """What happened, as it is read back. `position` is where it stands, in the trail or in the list of its user."""

    position: str
    id: str
    at: datetime
    type: str
    user_id: str | None
    session_id: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    outcome: str
    detail: dict[str, Any]

    def concerns(self, session_id: str) -> bool:
        """Whether it is part of a session's history: its own, or what ended it among others."""
        return self.session_id == session_id or session_id in self.detail.get("ended", ())


@dataclass(frozen=True)
class Wanted:
    """Which events a reader wants; `None` is any."""

    user_id: str | None = None
    type: str | None = None
    session_id: str | None = None

    def __contains__(self, event: AuditEvent) -> bool:
        return (
            self.user_id in (None, event.user_id)
            and self.type in (None, event.type)
            and (self.session_id is None or event.concerns(self.session_id))
        )


@dataclass
class _Entry:
    event: Event
    user_id: str | None
    fields: dict[str, str]
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Audit:
    """Writes and reads the trail."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[_Entry] = []
        self._writer: asyncio.Task[None] | None = None
        self._told: dict[tuple[Event, str], None] = {}  # the latest of what happens once
        self.unwritten = 0  # events that are in the log alone

    async def record(self, event: Event, **facts: Any) -> None:
        """Tell that something happened, and see it written or wait a moment for it; the facts are those of `note`."""
        await asyncio.wait({self.note(event, **facts)}, timeout=WAITS)

    async def record_once(self, event: Event, of: Iterable[str], **facts: Any) -> None:
        """The same for what happens once: not where this instance has lately told it of any of these.

        Who may repeat a request with what is worthless by now would otherwise push everybody's events out of the trail.
        """
        told = [(event, name) for name in of]
        if not self._told.keys().isdisjoint(told):
            return
        self._told |= dict.fromkeys(told)
        while len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        await self.record(event, **facts)

    def note(
        self,
        event: Event,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        client: Client | None = None,
        **detail: Any,
    ) -> asyncio.Future[None]:
        """Tell that something happened and wait for nothing; what is written takes no time that an answer would show.

        `detail` is ids, numbers and reasons, never credentials, and no email.
        """
        detail = {name: fact for name, fact in detail.items() if fact is not None and fact != ()}
        told = {
            "user_id": user_id,
            "session_id": session_id,
            "ip": client.address if client else None,
            "user_agent": client.user_agent if client else None,
        }
        known = {name: fact for name, fact in told.items() if fact is not None}
        _EVENTS[event].inc()
        logs.tell(event.value, **known, outcome=event.outcome, **detail)
        fields = {
            "id": new_id(),
            "at": str(round(self._clock.now() * 1000)),
            "type": event.value,
            "outcome": event.outcome,
            **{name: fact or "" for name, fact in told.items()},
            "request_id": logs.request_id.get() or "",
            "detail": orjson.dumps(detail, default=str).decode(),
        }
        self._waiting.append(entry := _Entry(event, user_id, fields))
        if self._writer is None:
            # In a context of its own: the request's allowance of waiting is not for this.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=contextvars.Context())
        return entry.written

    async def settled(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> tuple[list[AuditEvent], str | None]:
        """Events, newest first, and where the next page begins; of a user without a list, those of the trail.

        A page looks at a bounded number of entries. So it may be short, or empty, and still have a next one. It goes on
        where the one before was: in the trail, or in the user's list.
        """
        if wanted.user_id is not None and (cursor is None or _CURSOR_OF_ONE.fullmatch(cursor)):
            events = await self._list(wanted.user_id)
            if events or cursor:
                return _page_of(events, wanted, cursor, limit)
        return await self._page(wanted, cursor, limit)

    async def own(
        self, user_id: str, session_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[AuditEvent], str | None]:
        """The same for the user themselves: what their own list has, and nothing else."""
        wanted = Wanted(user_id, session_id=session_id)
        return _page_of(await self._list(user_id), wanted, cursor, limit)

    async def latest(self) -> str:
        """The position of the latest event, for `since`."""
        entries = await self._store.one(("XREVRANGE", _AUDIT, "+", "-", "COUNT", 1))
        return str(entries[0][0]) if entries else "0-0"

    async def since(self, position: str) -> list[AuditEvent]:
        """What came into the trail after a position, oldest first."""
        entries = await self._store.one(("XRANGE", _AUDIT, f"({position}", "+", "COUNT", _BATCH))
        return [_read(*entry) for entry in entries]

    async def forget(self, *user_ids: str) -> None:
        """Take the lists of users who are gone away; the trail stays."""
        if user_ids:
            await self._store.run(*(("DEL", _of(user_id)) for user_id in user_ids), apart=True)

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the users with a list, and where to go on; 0 is the end."""
        cursor, keys = await self._store.scan(_of("*"), cursor)
        return cursor, [key[len(_of("")) - 1 : -1] for key in keys]

    async def _list(self, user_id: str) -> list[AuditEvent]:
        """All that a user's list has, newest first. A thousand at most, in one step: nothing shifts meanwhile."""
        entries = await self._store.one(("LRANGE", _of(user_id), 0, -1))
        return [_read_of(user_id, entry) for entry in entries]

    async def _page(self, wanted: Wanted, cursor: str | None, limit: int) -> tuple[list[AuditEvent], str | None]:
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise _not_ours()
        found: list[AuditEvent] = []
        for _ in range(_LOOKS):
            until = f"({cursor}" if cursor else "+"
            entries = await self._store.one(("XREVRANGE", _AUDIT, until, "-", "COUNT", _BATCH))
            for position, fields in entries:
                if (event := _read(position, fields)) in wanted:
                    found.append(event)
                    if len(found) > limit:
                        return found[:limit], found[limit - 1].position
            if len(entries) < _BATCH:
                return found, None
            cursor = entries[-1][0]
        return found, cursor

    async def _write(self) -> None:
        try:
            while self._waiting:
                entries, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                await self._send(entries)
                for entry in entries:
                    entry.written.set_result(None)
        finally:
            self._writer = None

    async def _send(self, entries: list[_Entry]) -> None:
        try:
            await self._store.run(*(command for entry in entries for command in _writing(entry)), apart=True)
        except StoreUnavailable:
            self._missed(entries)
        except Exception:
            # Whatever it is, what was done is done: nobody is to hear of it who only asked for that.
            self._missed(entries)
            log.exception("audit.failed")

    def _missed(self, entries: list[_Entry]) -> None:
        for entry in entries:
            self.unwritten += 1
            metrics.AUDIT_UNWRITTEN.inc()
            log.error("audit.unwritten", type=entry.event.value, id=entry.fields["id"], unwritten=self.unwritten)


_AUDIT = "audit-trail"


def _of(user_id: str) -> str:
    return f"events:{{{user_id}}}"


def _writing(entry: _Entry) -> Iterator[Command]:
    pairs = [part for pair in entry.fields.items() for part in pair]
    yield ("XADD", _AUDIT, "MAXLEN", "~", _KEPT, "*", *pairs)
    if entry.user_id:
        name = _of(entry.user_id)
        yield ("LPUSH" if entry.event in _FIRST else "LPUSHX", name, _written(entry.fields))
        yield ("LTRIM", name, 0, _KEPT_OF_ONE - 1)
        yield ("EXPIRE", name, _KEPT_FOR)


def _read(position: str, fields: dict[str, str]) -> AuditEvent:
    return AuditEvent(
        position,
        fields["id"],
        moment(fields["at"]),
        fields["type"],
        fields["user_id"] or None,
        fields["session_id"] or None,
        fields["ip"] or None,
        fields["user_agent"] or None,
        fields["request_id"] or None,
        fields["outcome"],
        orjson.loads(fields["detail"]),
    )


def _written(fields: dict[str, str]) -> str:
    """An entry of a user's list: what it tells in a fixed order, without their own id.

    A later version may write more at the end: readers take what they know. A form that is no array is another one.
    """
    told = [fields[name] or None for name in ("session_id", "ip", "user_agent", "request_id")]
    detail = orjson.Fragment(fields["detail"])
    return orjson.dumps([fields["id"], int(fields["at"]), fields["type"], fields["outcome"], *told, detail]).decode()


def _read_of(user_id: str, entry: str) -> AuditEvent:
    id_, at, type_, outcome, session_id, ip, user_agent, request_id, detail, *_ = orjson.loads(entry)
    return AuditEvent(
        f"{at}-{id_}", id_, moment(at), type_, user_id, session_id, ip, user_agent, request_id, outcome, detail
    )


def _page_of(
    events: list[AuditEvent], wanted: Wanted, cursor: str | None, limit: int
) -> tuple[list[AuditEvent], str | None]:
    """A page of a user's list after the event that the cursor names; where it is gone, of what is older."""
    if cursor is not None:
        if not (form := _CURSOR_OF_ONE.fullmatch(cursor)):
            raise _not_ours()
        positions = [event.position for event in events]
        if cursor in positions:
            events = events[positions.index(cursor) + 1 :]
        else:
            events = [event for event in events if stamp(event.at) < int(form[1])]
    found = [event for event in events if event in wanted]
    return found[:limit], found[limit - 1].position if len(found) > limit else None


def _not_ours() -> InvalidField:
    return InvalidField("cursor", "is not one of ours")
