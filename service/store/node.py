"""One Redis server: its connections, its breaker, and who it says it is."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoPermissionError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from service import metrics
from service.store.address import Address, Host
from service.store.commands import READS, Command, script_of
from service.store.memory import Memory
from service.store.wire import WORDS, Wire

log = structlog.get_logger("service.store")

ANSWER = 1.0  # seconds one attempt may take
CONNECT = 0.5  # seconds to connect, or to wait for a free connection
CONNECTIONS = 32
_FAILURES, _FAILING = 5, 0.3  # so many failures in a row, over so many seconds, open the breaker
_AFTER = READS | {"WAIT"}  # what is about all that stands before it
_DRIVER = DriverInfo()  # reads the version of the library from a file: once, and not for each connection
_PROBE = 0.25  # seconds between two probes of a server that is given up for now


class Failed(Exception):
    """A server could not answer.

    `final`: asking again at once would not help. `shed`: it was not asked at all, for it is given up for now.
    `unseen`: nothing was done of what it was told.
    """

    def __init__(self, cause: Exception, final: bool = False, shed: bool = False, unseen: bool = False) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.final = final
        self.shed = shed
        self.unseen = unseen


class NoMaster(RedisConnectionError):
    """The server at the other end is a replica."""


@dataclass(frozen=True)
class Identity:
    """Who a server says it is. `run` is another one after every start."""

    run: str
    role: str
    mode: str


class Breaker:
    """Gives a server up for now when it has failed again and again, so that nobody waits for it in vain."""

    def __init__(self) -> None:
        self.open = False
        self._failures = 0
        self._since = 0.0

    def succeeded(self) -> None:
        self._failures = 0
        self.open = False

    def failed(self, began: float) -> bool:
        """Count the failure of a call that began then; true when this one opens the breaker."""
        self._since = min(self._since, began) if self._failures else began
        self._failures += 1
        if self.open or self._failures < _FAILURES or time.monotonic() - self._since < _FAILING:
            return False
        self.open = True
        return True


class Node:
    """One Redis server."""

    def __init__(self, redis: Redis, name: str = "redis", kind: str = "single") -> None:
        self.name = name
        self.kind = kind
        self.demoted = False
        self.leaving_until = 0.0  # monotonic, in seconds: another server takes its place, so nothing is sent to it
        self._redis = redis
        self._breaker = Breaker()
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self._took = metrics.REDIS_ROUND_TRIP.labels(kind).observe
        self._lost, self._late, self._shed = (
            metrics.REDIS_ERRORS.labels(kind, why) for why in ("connection", "timeout", "given_up")
        )
        self._opened = metrics.REDIS_GIVEN_UP_TIMES.labels(kind)
        self._wire = _wire(redis, self._took)
        self._mourned: object = None  # the shared connection whose loss has been counted

    @property
    def address(self) -> Host:
        """Where it is; the path of a unix socket has no port, which is told as 0."""
        told = self._redis.connection_pool.connection_kwargs
        return (told["path"], 0) if "path" in told else (told.get("host", "localhost"), told.get("port", 6379))

    @property
    def shared(self) -> bool:
        """Whether calls share a connection, so that many small ones cost no more than a few large ones."""
        return self._wire is not None

    @property
    def given_up(self) -> bool:
        """Whether the breaker is open: nothing is sent until a probe has been answered."""
        return self._breaker.open

    @property
    def leaving(self) -> bool:
        """Whether another server is about to take its place."""
        return time.monotonic() < self.leaving_until

    async def send(self, commands: tuple[Command, ...], within: float = ANSWER, keep: bool = False) -> list[Any]:
        """The replies in order, those that are errors too; raises `Failed` if there are none in time (seconds).

        `keep` allows the reply to a single command to be kept in memory.
        """
        if self._breaker.open:
            self._see_that_it_is_probed()
            self._shed.inc()
            raise Failed(
                RedisConnectionError(f"{self.name} does not answer and is given up for now"), final=True, shed=True
            )
        if self.demoted or self.leaving:
            raise Failed(ReadOnlyError(f"{self.name} is no master any more"), unseen=True)
        return await self._ask(commands, within, keep)

    async def identify(self) -> Identity | None:
        """Who the server is now; `None` where it does not tell. Raises `Failed` when it does not answer."""
        server, replication = await self._ask((("INFO", "server"), ("INFO", "replication")), ANSWER)
        if not isinstance(server, dict) or not isinstance(replication, dict):
            return None
        return Identity(
            str(server.get("run_id", "")), str(replication.get("role", "")), str(server.get("redis_mode", ""))
        )

    def remember(self, memory: Memory | None) -> None:
        """Keep in this memory what Redis promises to tell changes of."""
        if self._wire:
            self._wire.memory = memory
            self._wire.drop()
        elif memory is not None:
            log.warning("store.not_tracked", reason="RESP2 has no messages", instead="every request asks Redis")

    def leave(self) -> None:
        """Say nothing more on the shared connection, and believe nothing more that was heard on it."""
        if self._wire:
            self._wire.drop()

    async def drop(self) -> None:
        """Close the connections that nobody uses: they lead to a server that has another role now."""
        self.leave()
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        self._closed = True
        if self._probing:
            self._probing.cancel()
        if self._wire:
            await self._wire.close()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _ask(self, commands: tuple[Command, ...], within: float, keep: bool = False) -> list[Any]:
        began = time.monotonic()
        wire = self._wire
        if wire is not None:
            for command in commands:
                if command[0] not in WORDS:
                    wire = None
                    break
        line = wire and wire.line
        try:
            if wire is None:
                async with asyncio.timeout(within):
                    replies = await self._pipeline(commands)
                self._took(time.monotonic() - began)
            else:
                replies = await (wire.say(commands, within, keep) or wire.send(commands, within, keep))
            for reply in replies:
                if isinstance(reply, Exception):
                    replies = await self._mended(commands, replies, within - (time.monotonic() - began))
                    break
        except (TimeoutError, RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError) as error:
            (self._late if isinstance(error, TimeoutError | RedisTimeoutError) else self._lost).inc()
            # Too little time, or too many callers at once, says nothing about the server; and when a connection is
            # lost that many shared, it is the loss of one.
            if within > ANSWER / 2 and "No connection available" not in str(error) and not self._is_mourned(line):
                self._failed(began)
            if isinstance(error, NoMaster):
                self.leave()  # the shared connection leads to the same server, and was made when it was a master
            raise Failed(error) from error
        self._breaker.succeeded()
        return replies

    def _is_mourned(self, line: object) -> bool:
        if line is None or self._wire is None or line is self._wire.line:
            return False  # it lives: what failed is the server
        mourned, self._mourned = self._mourned, line
        return line is mourned

    def _failed(self, began: float) -> None:
        if self._breaker.failed(began):
            self._opened.inc()
            log.warning("store.given_up", server=self.name)
            self.leave()
            self._see_that_it_is_probed()

    def _see_that_it_is_probed(self) -> None:
        """Nothing but a probe closes the breaker for those who ask, so there is one, whatever became of the last."""
        if not self._closed and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER):
                    await self._redis.ping()
            except NoPermissionError:
                pass
            except (TimeoutError, RedisError, OSError):
                await asyncio.sleep(_PROBE)
                continue
            self._breaker.succeeded()
            log.info("store.answers_again", server=self.name)
            return

    async def _mended(self, commands: tuple[Command, ...], replies: list[Any], within: float) -> list[Any]:
        """The replies once the server has been given the scripts that it lacked; some of these are refusals.

        What has happened does not happen again. So a write that stood behind such a script has come before it; reads
        that stood there are made again, and so is the wait for replicas.
        """
        for reply in replies:
            if isinstance(reply, RedisConnectionError):
                raise reply  # the library's word for a server that is not ready for anybody, as while it is loading
        lacking = [
            index
            for index, (command, reply) in enumerate(zip(commands, replies, strict=True))
            if isinstance(reply, NoScriptError) and command[0] == "EVALSHA"
        ]
        if not lacking:
            return replies
        again = [n for n in range(lacking[0], len(commands)) if n in lacking or commands[n][0] in _AFTER]
        # What is for the next command alone comes before it again.
        said = [(n - 1, n) if n and commands[n - 1][0] == "ASKING" else (n,) for n in again]
        loads = tuple(("SCRIPT", "LOAD", script.text) for script in {script_of(commands[n]) for n in lacking})
        async with asyncio.timeout(within):
            told = await self._pipeline((*loads, *(commands[n] for each in said for n in each)))
        del told[: len(loads)]
        for each in said:
            *_, reply = (told.pop(0) for _ in each)
            n = each[-1]
            if commands[n][0] == "WAIT" and isinstance(reply, int) and isinstance(replies[n], int):
                reply = min(reply, replies[n])  # this connection may know nothing of what was written on the other
            replies[n] = reply
        return replies

    async def _pipeline(self, commands: tuple[Command, ...]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)


def _wire(redis: Redis, took: Callable[[float], None]) -> Wire | None:
    """A shared connection beside those of a client of ours; none beside one that speaks RESP2, or is in memory."""
    pool = redis.connection_pool
    if not isinstance(pool, BlockingConnectionPool) or pool.connection_kwargs.get("protocol") not in (None, 3, "3"):
        return None
    return Wire(pool.make_connection, ANSWER, took)


def connect(url: str) -> Redis:
    """A client of one server with our bounds instead of the library's."""
    address = Address.read(url)
    return client(address.options, address.host)


def client(options: dict[str, Any], host: Host | None = None, only_master: bool = False) -> Redis:
    """A client with our bounds instead of the library's: no retries, no endless waits, no stale connections."""
    place = {} if host is None else {"host": host[0], "port": host[1]}
    asking = {"redis_connect_func": _greet_master} if only_master else {}
    pool = BlockingConnectionPool(
        **{**options, **place, **asking},
        max_connections=CONNECTIONS,
        timeout=CONNECT,
        socket_connect_timeout=CONNECT,
        socket_timeout=None,  # `Node.send` bounds the whole call; two timeouts on one read lose cancellations on 3.11
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        decode_responses=True,
        client_name="gatepost",
        driver_info=_DRIVER,
    )
    return Redis.from_pool(pool)


async def _greet_master(connection: Any) -> None:
    """Connect, and refuse a replica: it would answer reads, and late ones."""
    await connection.on_connect()
    await connection.send_command("ROLE")
    try:
        role = (await connection.read_response())[0]
    except ResponseError:
        return  # not for us to ask, or unknown there: then the first write tells
    if role != "master":
        raise NoMaster(f"it is no master but a {role}")
