"""Redis, with the bounds that make an outage a 503 and never a wrong answer.

Everything the service says to Redis goes through `Store.run` or `Store.glance`, so the outage policy is here and
nowhere else:

- A call takes 1 s at most, waiting for a connection included; one second try follows where a repeat is harmless.
  A request spends 2 s waiting for Redis at most, however many calls it makes (`patience`).
- A repeat is harmless for reads and for scripts, which are all written so: run twice with the same arguments they
  take effect once and answer the same.
- Redis away, loading, full, read-only or without its replicas is `StoreUnavailable`. Any other refusal by Redis is
  a mistake of ours and stays an exception.
"""

import asyncio
import contextvars
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    ResponseError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import StoreUnavailable

log = structlog.get_logger("service.store")

ANSWER = 1.0  # seconds one attempt may take
CONNECT = 0.5  # seconds to connect, or to wait for a free connection
PATIENCE = 2.0  # seconds one request may wait for Redis in all
REPLICAS = 500  # milliseconds to wait for replicas to confirm

Command = tuple[Any, ...]
_READS = frozenset(
    {"GET", "HGET", "HMGET", "HGETALL", "EXISTS", "PING", "TIME", "INFO", "PTTL"}
    | {"SCAN", "SSCAN", "ZSCAN", "ZSCORE", "ZREVRANGEBYSCORE", "ZCARD", "ZCOUNT", "SCARD", "SISMEMBER", "SRANDMEMBER"}
    | {"XRANGE", "XREVRANGE"}
)
_IDEMPOTENT = frozenset({"ZADD", "ZREM", "ZREMRANGEBYSCORE", "SADD", "SREM", "DEL"})
_PASSING = re.compile(
    r"\b(READONLY|LOADING|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|WRONGPASS|NOPERM)\b"
)
_left: contextvars.ContextVar["Patience | None"] = contextvars.ContextVar("left", default=None)


@dataclass
class Patience:
    """What is left of the time that one request may wait for Redis, in seconds."""

    seconds: float = PATIENCE


@contextmanager
def patience() -> Iterator[None]:
    """All Redis calls in this block share one allowance of waiting."""
    token = _left.set(Patience())
    try:
        yield
    finally:
        _left.reset(token)


class Script:
    """A Lua file on one key. `script(key, *arguments)` is a command like any other."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        _SCRIPTS[self.sha] = self

    def __call__(self, key: str, *arguments: str | int) -> Command:
        return ("EVALSHA", self.sha, 1, key, *arguments)


_SCRIPTS: dict[str, Script] = {}


class _Failed(Exception):
    """Redis could not answer; `final` when asking again at once would not help."""

    def __init__(self, cause: Exception, final: bool = False) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.final = final


@dataclass(frozen=True)
class Condition:
    """What Redis says of itself; `dangers` are sentences about how it could lose or forget what it is told."""

    version: str = "unknown"
    appendonly: bool | None = None
    maxmemory_policy: str | None = None
    dangers: tuple[str, ...] = ()
    role: str | None = None
    replicas: int = 0


@dataclass
class _Glance:
    command: Command
    reply: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Store:
    """The one way to Redis."""

    def __init__(self, redis: Redis, wait_replicas: int = 0) -> None:
        self._redis = redis
        self._wait_replicas = wait_replicas
        self._glances: list[_Glance] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def run(self, *commands: Command, durable: bool = False, once: bool = False) -> list[Any]:
        """Send the commands in one round trip and give their replies in order.

        `once` forbids the second try: for a script that would undo what others did after its first run.

        `durable` waits for the replicas of `REDIS_WAIT_REPLICAS`: too few is `StoreUnavailable`, although the
        commands did happen on the master; the caller may come again.
        """
        wait = durable and self._wait_replicas > 0
        sent = (*commands, ("WAIT", self._wait_replicas, REPLICAS)) if wait else commands
        replies = await self._patiently(sent, tries=2 if _repeatable(commands) and not once else 1)
        if wait and replies.pop() < self._wait_replicas:
            raise StoreUnavailable("The change could not be confirmed; please try again")
        return replies

    async def one(self, command: Command, durable: bool = False, once: bool = False) -> Any:
        """Send one command."""
        return (await self.run(command, durable=durable, once=once))[0]

    async def glance(self, *command: Any) -> Any:
        """A read that shares its round trip with every other glance of this turn of the event loop."""
        self._glances.append(glance := _Glance(command))
        if len(self._glances) == 1:
            asyncio.get_running_loop().call_soon(self._take_off, context=contextvars.Context())
        started, left = time.monotonic(), _left.get()
        try:
            async with asyncio.timeout(None if left is None else max(left.seconds, 0)):
                return await glance.reply
        except TimeoutError as error:
            raise StoreUnavailable from error
        finally:
            if left is not None:
                left.seconds -= time.monotonic() - started

    async def time(self) -> float:
        """Redis' clock, in seconds since the epoch."""
        seconds, microseconds = await self.one(("TIME",))
        return int(seconds) + int(microseconds) / 1e6

    async def condition(self) -> Condition:
        """How Redis is set up, from `INFO`; what a managed Redis does not tell is a danger of its own."""
        try:
            sections = ("server", "memory", "persistence", "replication")
            replies = await self.run(*(("INFO", section) for section in sections))
        except (ResponseError, StoreUnavailable) as refusal:
            if isinstance(refusal, StoreUnavailable) and not isinstance(refusal.__cause__, NoPermissionError):
                raise
            return Condition(dangers=("Redis does not answer INFO, so its persistence cannot be checked",))
        told: dict[str, Any] = {name: value for reply in replies for name, value in reply.items()}
        version = str(told.get("redis_version", "0"))
        policy = told.get("maxmemory_policy")
        appendonly = bool(told.get("aof_enabled", 0))
        dangers = []
        if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
            dangers.append(f"Redis {version} is too old: 6.2 or newer is needed")
        if policy != "noeviction":
            dangers.append(f"maxmemory-policy is {policy}: Redis may forget sessions and accounts; set noeviction")
        if not appendonly:
            dangers.append("appendonly is off: a restart of Redis loses what happened since its last snapshot")
        replicas = int(told.get("connected_slaves", 0))
        return Condition(version, appendonly, policy, tuple(dangers), told.get("role"), replicas)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    def _take_off(self) -> None:
        glances, self._glances = self._glances, []
        task = asyncio.get_running_loop().create_task(self._fly(glances))
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)

    async def _fly(self, glances: list[_Glance]) -> None:
        try:
            replies = await self.run(*(glance.command for glance in glances))
        except Exception as error:
            # Whatever it is, it belongs to those who wait; nobody else would ever hear of it.
            for glance in glances:
                if not glance.reply.done():
                    glance.reply.set_exception(error)
            return
        for glance, reply in zip(glances, replies, strict=True):
            if not glance.reply.done():
                glance.reply.set_result(reply)

    async def _patiently(self, commands: tuple[Command, ...], tries: int) -> list[Any]:
        while True:
            tries -= 1
            try:
                return await self._bounded(commands)
            except _Failed as failed:
                final = tries == 0 or failed.final
                log.warning("store.failed", error=type(failed.cause).__name__, reason=str(failed.cause), final=final)
                if final:
                    raise StoreUnavailable from failed.cause

    async def _bounded(self, commands: tuple[Command, ...]) -> list[Any]:
        """One try, within its time; raises `_Failed` when Redis is not able to answer."""
        left = _left.get()
        started = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER if left is None else max(min(ANSWER, left.seconds), 0)):
                return await self._send(commands)
        except (TimeoutError, RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise _Failed(error) from error
        except ResponseError as error:
            # The library cuts the codes it knows off the text; in a script's error the code may stand in the middle.
            if not (passing := _PASSING.search(f"{error.status_code} {error}")):
                raise
            if demoted := passing[1] == "READONLY":
                # The master has become a replica: nothing was done, and these connections all lead there.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise _Failed(error, final=not demoted) from error
        finally:
            if left is not None:
                left.seconds -= time.monotonic() - started

    async def _send(self, commands: tuple[Command, ...]) -> list[Any]:
        replies = await self._pipeline(commands)
        missing = {
            command[1]
            for command, reply in zip(commands, replies, strict=True)
            if isinstance(reply, NoScriptError) and command[0] == "EVALSHA"
        }
        if missing:
            loads = tuple(("SCRIPT", "LOAD", _SCRIPTS[sha].text) for sha in missing)
            # All of them again: a read that was meant to come after the script has come before it.
            replies = (await self._pipeline(loads + commands))[len(loads) :]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _pipeline(self, commands: tuple[Command, ...]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)


def _repeatable(commands: tuple[Command, ...]) -> bool:
    return all(command[0] == "EVALSHA" or command[0] in _READS | _IDEMPOTENT for command in commands)


def connect(url: str) -> Redis:
    """A client with our bounds instead of the library's: no retries, no endless waits, no stale connections."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=CONNECT,
        socket_connect_timeout=CONNECT,
        socket_timeout=None,  # `Store` bounds the whole call; two timeouts on one read lose cancellations on 3.11
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        decode_responses=True,
        client_name="gatepost",
    )
    return Redis.from_pool(pool)
