"""One connection to a server that many calls share: what every request asks travels on it, written together.

The library makes the connection: TLS, login, greeting, and the look whether it is a master. From then on it is ours.
The commands of one turn of the event loop are one write, replies come in the order of the commands, and nobody waits
for a free connection. So a call costs a few microseconds where one on a pooled connection costs forty.

Only what `WORDS` lists is said here: commands that neither block the connection, as `WAIT` does, nor have replies that
the library translates.

A call that is cancelled or whose time is up leaves its place, so that its reply goes to nobody. A connection on which
time has run out, or on which nothing at all is heard, is not used for new calls; those under way may still hear.

With a `Memory` the connection is also the one on which Redis tells of changes (`CLIENT TRACKING`), of those keys alone
that were asked for with `keep`.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import structlog
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from service.clock import running
from service.store.commands import Command, key_of
from service.store.memory import BEAT, TRUSTED, Memory

log = structlog.get_logger("service.store")

WORDS = frozenset({
    "ASKING", "DEL", "EVALSHA", "EXISTS", "GET", "HGET", "HGETALL", "HMGET", "SADD", "SREM", "ZADD",
    "ZCOUNT", "ZREM", "ZREMRANGEBYSCORE",
})  # fmt: skip
MOST = 10_000  # calls under way on one connection
_TICK = 0.05  # seconds by which a call may be told late that its time is up

_TRACK: Command = ("CLIENT", "TRACKING", "ON", "OPTIN")
_KEEP: Command = ("CLIENT", "CACHING", "YES")  # tell us of changes of what the next command reads
_MORE = object()  # what the reader gives when it has no whole reply


class _Call:
    """Some commands, and their replies as they come."""

    __slots__ = ("as_of", "began", "keep", "missing", "packed", "replied", "replies", "sent", "until")

    def __init__(self, packed: list[bytes], replied: "asyncio.Future[list[Any]]", began: float, until: float) -> None:
        self.packed = packed
        self.missing = len(packed)
        self.replied = replied
        self.replies: list[Any] = []
        self.began = began  # monotonic, in seconds, as the others
        self.until = until
        self.sent = 0.0  # set for the last call of a write, as the next
        self.as_of = 0.0  # by the running clock
        self.keep: tuple[Command, int] | None = None  # what is asked, and the number of our changes then


class _Line(asyncio.Protocol):
    """A connection that the library has made, for as long as it lasts."""

    def __init__(self, made: AbstractConnection, wire: "Wire", memory: Memory | None) -> None:
        self.as_of = -math.inf  # by the running clock, in seconds: whatever Redis had to tell then has been heard
        self.spent = False  # nothing new is said on it
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsent: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._wire = wire
        self._memory = memory  # that of what Redis tells changes of on this connection
        self._witness = ""  # a key that was read here to be kept
        self._made = made  # it would close the transport when nobody has it any more
        self._loop = asyncio.get_running_loop()
        self._transport: Any = made._writer.transport  # type: ignore[union-attr]
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            encoding="utf-8",
            errors="strict",
            notEnoughData=_MORE,
        )
        self._full = False  # what was written does not drain
        self._open = True
        self._heard = 0.0  # monotonic, in seconds
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._transport.set_protocol(self)
        if memory is not None:
            self._beat()

    @property
    def busy(self) -> int:
        """Calls under way."""
        return len(self._sent) + len(self._unsent)

    @property
    def current(self) -> bool:
        """Whether all that changed up to `TRUSTED` seconds ago has been told here."""
        return not self.spent and running() - self.as_of <= TRUSTED

    def say(self, commands: tuple[Command, ...], within: float, keep: bool = False) -> "asyncio.Future[list[Any]]":
        """The replies in time (seconds), or `TimeoutError`, or the library's `ConnectionError`."""
        packed = [hiredis.pack_command(command) for command in commands]
        replied: asyncio.Future[list[Any]] = self._loop.create_future()
        now = time.monotonic()
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(call := _Call(packed, replied, now, now + within))
        if keep and self._memory is not None:
            packed.insert(0, hiredis.pack_command(_KEEP))
            call.missing += 1
            call.keep = commands[0], self._memory.changes
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)
        return replied

    def retire(self) -> None:
        """Say nothing new; who waits may still hear."""
        self.spent = True
        self._wire.leave(self)
        if not self.busy:
            self.give_up(RedisConnectionError, "The connection is not used any more")

    def give_up(self, error: type[Exception], why: str) -> None:
        """Nobody hears anything any more."""
        if not self._open:
            return
        self._open = False
        self.spent = True
        self._wire.leave(self)
        self._transport.abort()
        self._made._reader = self._made._writer = None  # else the library would say that nobody has closed it
        for timer in (self._timer, self._beating):
            if timer:
                timer.cancel()
        calls = [*self._sent, *self._unsent]
        self._sent.clear()
        self._unsent.clear()
        for call in calls:
            if not call.replied.done():
                call.replied.set_exception(error(why))

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        reader, calls = self._reader, self._sent
        reader.feed(data)
        self._heard = now = time.monotonic()
        while self._open:
            try:
                reply = reader.gets()
            except UnicodeDecodeError as error:
                reply = error  # a whole reply all the same
            except InvalidResponse as error:
                self.give_up(RedisConnectionError, f"Redis said what cannot be read: {error}")
                return
            if reply is _MORE:
                break
            if type(reply) is hiredis.PushNotification:
                self._hear(reply)
                continue
            if not calls:
                self.give_up(RedisConnectionError, "Redis said what nobody had asked for")
                return
            call = calls[0]
            call.replies.append(reply)
            call.missing -= 1
            if call.missing:
                continue
            calls.popleft()
            if call.sent:
                self._wire.took(now - call.sent)
                self.as_of = call.as_of
            if call.keep is not None:
                self._keep(call, call.keep)
            if not call.replied.done():
                call.replied.set_result(call.replies)
        if self.spent:
            self.retire()

    def connection_lost(self, error: Exception | None) -> None:
        self.give_up(RedisConnectionError, f"The connection to Redis was lost: {error or 'it was closed'}")
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._unsent:
            self._write()

    def _hear(self, told: list[Any]) -> None:
        """What Redis says unasked: which keys have changed, or that all have."""
        if self._memory is None or told[0] != "invalidate":
            return
        if told[1] is None:
            self._memory.clear()
            return
        for key in told[1]:
            self._memory.forget(key)

    def _keep(self, call: _Call, keep: tuple[Command, int]) -> None:
        promised, reply = call.replies
        del call.replies[0]
        if promised == "OK" and not isinstance(reply, Exception) and self._memory is not None and not self.spent:
            self._memory.keep(keep[0], reply, self, keep[1])
            self._witness = key_of(keep[0])

    def _beat(self) -> None:
        """Ask something, so that silence is told from peace; and for a key, so that a refusal is too."""
        self._beating = self._loop.call_later(BEAT, self._beat)
        if not self.spent:
            asked: Command = ("EXISTS", self._witness) if self._witness else ("PING",)
            self.say((asked,), self._wire.answer).add_done_callback(self._beaten)

    def _beaten(self, told: "asyncio.Future[list[Any]]") -> None:
        """A server that has no say over its keys any more may not hear of their changes either."""
        _unheard(told)
        if not told.cancelled() and not told.exception() and self._witness and isinstance(told.result()[0], Exception):
            self.retire()

    def _write(self) -> None:
        if self._full or not self._open:
            return
        # Whoever has gone already need not have it done.
        calls = [call for call in self._unsent if not call.replied.done()]
        self._unsent.clear()
        if calls:
            calls[-1].sent = time.monotonic()
            if self._memory is not None:
                calls[-1].as_of = running()
            self._sent += calls
            self._transport.write(b"".join([packed for call in calls for packed in call.packed]))

    def _tick(self) -> None:
        self._timer = None
        if not self.busy:
            return
        now, calls = time.monotonic(), [*self._sent, *self._unsent]
        if now - max(calls[0].began, self._heard) >= self._wire.answer:
            self.spent = True
        for call in calls:
            if call.until <= now and not call.replied.done():
                call.replied.set_exception(TimeoutError("Redis did not answer in time"))
                # Little time says nothing about the connection.
                self.spent = self.spent or call.until - call.began > self._wire.answer / 2
        if self.spent:
            self._wire.leave(self)
            if all(call.replied.done() for call in calls):
                self.give_up(TimeoutError, "Nobody waits any more")
                return
        self._timer = self._loop.call_later(_TICK, self._tick)


class Wire:
    """The shared connection to one server, made when it is needed, and again when it was lost.

    `answer` is how long a call may take, in seconds; `took` is told how long each round trip took. With a `memory`
    Redis is asked to tell of changes; where it does not, nothing is kept.
    """

    memory: Memory | None = None

    def __init__(self, connection: Callable[[], AbstractConnection], answer: float, took: Callable[[float], None]):
        self.answer = answer
        self.took = took
        self._connection = connection
        self._line: _Line | None = None  # the one that new calls are said on
        self._lines: set[_Line] = set()  # all that are open
        self._connecting: asyncio.Task[_Line] | None = None
        self._closed = False

    @property
    def line(self) -> object:
        """The connection in use; another one after a loss, `None` between the two."""
        return self._line

    def say(self, commands: tuple[Command, ...], within: float, keep: bool) -> "asyncio.Future[list[Any]] | None":
        """As `send`, where nothing has to be waited for first; `None` where something has."""
        line = self._line
        if line is None or within <= 0 or line.busy >= MOST or not commands:
            return None
        return line.say(commands, within, keep)

    async def send(self, commands: tuple[Command, ...], within: float, keep: bool = False) -> list[Any]:
        """The replies in order, those that are refusals too. The reply to one command may be kept in memory.

        Raises `TimeoutError` when the time is up (seconds), `OSError` or the library's `ConnectionError`.
        """
        if not commands:
            return []  # no reply would ever come for such a call
        line = self._line
        if line is None:
            until = time.monotonic() + within
            async with asyncio.timeout(within):
                line = await self._connected()
            if line.spent:
                raise RedisConnectionError("The connection to Redis was lost at once")
            within = until - time.monotonic()
        if within <= 0:
            raise TimeoutError
        if line.busy >= MOST:
            raise RedisConnectionError("No connection available: too many calls are under way")
        return await line.say(commands, within, keep)

    def drop(self) -> None:
        """Make a new connection for the next call."""
        if self._line:
            self._line.retire()

    def leave(self, line: _Line) -> None:
        """Say nothing new on this one, which is spent."""
        if self._line is line:
            self._line = None
            if self.memory is not None:
                self.memory.clear()

    async def close(self) -> None:
        """Let go of everything; who still waits hears a `ConnectionError`."""
        self._closed = True
        if self._connecting:
            await asyncio.sleep(0)  # a task that never began could not tell those who wait for it
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        lines = [line for line in self._lines if not line.gone.done()]
        for line in lines:
            line.give_up(RedisConnectionError, "The connection was closed")
        if lines:
            await asyncio.wait({line.gone for line in lines}, timeout=self.answer)

    async def _connected(self) -> _Line:
        if self._connecting is None or self._connecting.done():
            if self._closed:
                raise RedisConnectionError("The connection was closed")
            self._connecting = asyncio.create_task(self._connect())
            # Whoever waited may have gone by then.
            self._connecting.add_done_callback(_unheard)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Line:
        connection: Any = self._connection()
        try:
            async with asyncio.timeout(self.answer):
                await connection.connect()
                tracks = self.memory is not None and await _tracked(connection)
                # What came meanwhile, the end for one, would be told to nobody.
                if await connection._parser.can_read():
                    raise RedisConnectionError("The connection to Redis was lost at once")  # noqa: TRY301
        except asyncio.CancelledError as error:
            await connection.disconnect(nowait=True)
            # Those who wait for this were not cancelled themselves.
            raise RedisConnectionError("The connection was closed") from error
        except BaseException:  # whatever it is, it goes on; what had been opened is closed
            await connection.disconnect(nowait=True)
            raise
        self._line = line = _Line(connection, self, self.memory if tracks else None)
        self._lines.add(line)
        line.gone.add_done_callback(lambda _: self._lines.discard(line))
        return line


async def _tracked(connection: Any) -> bool:
    """Have Redis tell of changes on this connection; false where it does not want to."""
    for command in (_TRACK, _KEEP):
        await connection.send_command(*command)
        try:
            await connection.read_response()
        except ResponseError as error:
            log.warning("store.not_tracked", reason=str(error), instead="every request asks Redis")
            return False
    return True


def _unheard(done: "asyncio.Future[Any]") -> None:
    """Whoever waited for it may have gone."""
    if not done.cancelled():
        done.exception()
