"""Serving: from settings to a listening instance, and back to nothing without losing a request."""

import asyncio
import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import structlog
from aiohttp import web

from service.app import assemble, close, make_app
from service.errors import StoreUnavailable
from service.http.access_log import AccessLog
from service.http.protocol import Runner, Server
from service.parts import Parts
from service.settings import LOOPBACK, ROOT, Settings, SettingsError
from service.store import reach, trouble

if TYPE_CHECKING:
    from service.tracing import Tracing

log = structlog.get_logger("service.serving")

T = TypeVar("T")

SO_ATTACH_FILTER = 26  # Linux; the socket module has no name for it
MISCONFIGURED = 3  # the exit status
BACKLOG = 1024  # connections that wait to be accepted
LARGEST_HEADER = 16 * 1024  # bytes: two tokens in cookies and one in a header fit
KEEP_ALIVE = 75.0  # seconds; longer than a proxy keeps its idle connections, so that the proxy closes them
LINGER = 0.3  # seconds in which connections that were accepted at the last moment still say what they want
FINISH = 10.0  # seconds for running requests
HEARSAY = 1.0  # seconds in which a supervisor hears of what its worker was told
BEAT = 2.0  # seconds between two beats of a worker's event loop
LISTENS_WITHIN = 1.0  # seconds in which somebody who has our port says who they are
SAME_WISH = 0.2  # seconds: a terminal and a process manager may both pass the same Ctrl-C on
YOUNG = 20_000  # objects more than were freed, before the garbage collector looks at the latest
OTHER_FILES = 512  # open files besides clients: Redis, mail, providers, and those who are being turned away

WELCOME = """
  Gatepost is ready at {url}

  Make an account, then ask who you are:

    curl -s {url}/api/auth/register -H 'Content-Type: application/json' \\
      -d '{{"email": "grace@example.org", "password": "a long and private sentence"}}'

    curl -s {url}/api/auth/me -H 'Authorization: Bearer <the accessToken of the answer>'

  Every call, to read and to try: {url}/docs
  Settings: config/example.env    How to go on: README.md
"""


@dataclass(frozen=True)
class Place:
    """What a supervisor gives to one of several workers."""

    doors: tuple[socket.socket, ...]  # where to listen
    first: bool  # who speaks for all: what an operator has to know is said once
    lifeline: int  # a pipe that ends with the supervisor
    up: Callable[[], object]  # to be called when the worker listens
    beat: Callable[[], object]  # to be called now and then: the event loop turns
    all_leave: Callable[[], bool]  # or this one alone, and its doors stay open for the next


def run(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def refuse(error: SettingsError) -> int:
    """Say why this cannot be served, and give the exit status."""
    with suppress(OSError, ValueError):  # nobody reads it: the status says it too
        print("Gatepost cannot start:", *(f"  - {mistake}" for mistake in error.mistakes), sep="\n", file=sys.stderr)
    return MISCONFIGURED


def end_by(sign: signal.Signals) -> NoReturn:
    """End at once, as this signal ends who does not heed it."""
    signal.signal(sign, signal.SIG_DFL)
    os.kill(os.getpid(), sign)
    os._exit(128 + sign)  # the first process of a container survives its own signals


def cannot_listen(settings: Settings, error: OSError) -> SettingsError:
    """The same words, whoever tries."""
    # What asyncio says of an error of the system repeats the address; a name that is none has a number below 0.
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    remedy = "HOST must be an address of this machine."
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        port = _free_port(settings)
        remedy = f"Try PORT={port}, with make: make run PORT={port}."
    if error.errno == errno.EADDRINUSE and (other := _gatepost_at(settings)):
        why, remedy = (
            f"Gatepost runs there already, see {other}/docs",
            f"For another one beside it: {remedy[0].lower()}{remedy[1:]}",
        )
    return SettingsError([f"Cannot listen on {settings.host}:{settings.port}: {why}. {remedy}"])


def _free_port(settings: Settings) -> int:
    """One that could be had instead, or at least another one."""
    first = max(settings.port + 1, 8001) if settings.port < 65_000 else 8001
    for port in range(first, first + 20):
        with suppress(OSError), socket.create_server((settings.host, port), family=_family(settings.host)):
            return port
    return first


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _gatepost_at(settings: Settings) -> str | None:
    """The address of the Gatepost that has the port already, if it is one."""
    host = "localhost" if settings.host in ("0.0.0.0", "::", *LOOPBACK) else settings.host  # noqa: S104
    connection = HTTPConnection(host, settings.port, timeout=LISTENS_WITHIN)
    with suppress(OSError, HTTPException), closing(connection):
        connection.request("GET", "/")
        if connection.getresponse().read1(100).startswith(b'{"name":"gatepost"'):
            return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    return None


@asynccontextmanager
async def open_redis(settings: Settings, *, told: bool = True) -> AsyncIterator[str]:
    """The address of Redis: the operator's, or of a private one that lives as long as this block."""
    if settings.redis_url:
        yield settings.redis_url.get_secret_value()
        return
    from service.embedded import EmbeddedRedis, EmbeddedRedisError  # not on every platform, and only needed here

    redis = EmbeddedRedis(ROOT / "var" / "redis")
    try:
        url = await redis.start()
    except EmbeddedRedisError as error:
        raise SettingsError([str(error)]) from error
    try:
        if told:
            log.info("redis.private", told=redis.description)
        yield url
    finally:
        await redis.stop()


@asynccontextmanager
async def _open_tracing(settings: Settings) -> AsyncIterator["Tracing | None"]:
    """What tells a collector of requests, for as long as this block lives, where `TRACES=on`."""
    if not settings.traces:
        yield None
        return
    for name, value in settings.otel.items():
        os.environ.setdefault(name, value.get_secret_value())  # those of `.env` too
    try:
        from service.tracing import Tracing  # a thing to install, and only needed here

        tracing = Tracing()
    except ValueError as error:  # one of OpenTelemetry's own settings
        raise SettingsError([f"TRACES=on cannot be with these settings of OpenTelemetry: {error}"]) from error
    try:
        yield tracing
    finally:
        await tracing.close()


def _telling(tracing: "Tracing", settings: Settings) -> dict[str, Any]:
    """What a `Runner` is made with, so that requests have spans and their lines say which."""
    from service.http.tracing import TracedAccessLog, TracedEdge

    return {"edge": partial(TracedEdge, tracing.tracer, settings), "access_log_class": TracedAccessLog}


async def serve(settings: Settings, place: Place | None = None) -> int:
    """Serve until SIGTERM or SIGINT, and give the exit status; raises `SettingsError` when this must not be served."""
    leave = _Leave(place)
    if place:
        _keep_beating(place)
    settings = settings if place else within_open_files(settings)
    async with _open_tracing(settings) as tracing, open_redis(settings, told=place is None) as url:
        its = assemble(settings, reach(url), tracing=tracing)
        await _meet(its, url, speaks=place is None or place.first)
        runner = Runner(
            make_app(its),
            **(_telling(tracing, settings) if tracing else {"access_log_class": AccessLog}),
            shutdown_timeout=FINISH,
            keepalive_timeout=KEEP_ALIVE,
            max_field_size=LARGEST_HEADER,
            max_line_size=LARGEST_HEADER,
        )
        await runner.setup()
        try:
            await _serve(its, runner, leave, place)
        finally:
            await runner.cleanup()
    return 0


def _keep_beating(place: Place) -> None:
    place.beat()
    asyncio.get_running_loop().call_later(BEAT, _keep_beating, place)


class _Leave:
    """The wish that this process ends.

    Alone, SIGTERM and SIGINT are that wish, and end it at once when they come again; SIGHUP is one where there is a
    terminal to lose. A worker heeds its supervisor's SIGTERM, and leaves without draining when the supervisor is gone:
    whoever starts the next one needs the port.
    """

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._asked_at = 0.0
        self.asked, self.abandoned = asyncio.Event(), asyncio.Event()
        if place:
            self._loop.add_signal_handler(signal.SIGTERM, self.asked.set)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self._loop.add_reader(place.lifeline, self._abandon, place.lifeline)
        else:
            for sign in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(sign, self._ask, sign)
            self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    @property
    def alone(self) -> bool:
        """Whether only this worker leaves, as when somebody has sent SIGTERM to nobody else."""
        return self._place is not None and not self.abandoned.is_set() and not self._place.all_leave()

    async def drained(self, seconds: float) -> None:
        """Wait that long for balancers, or until there is no time to wait."""
        if self.alone:
            await asyncio.sleep(HEARSAY)  # who tells everybody may have told us before the supervisor
        if self.alone:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.abandoned.wait()

    def _ask(self, sign: signal.Signals) -> None:
        if not self.asked.is_set():
            self._asked_at = self._loop.time()
            self.asked.set()
        elif self._loop.time() - self._asked_at > SAME_WISH:
            with suppress(OSError, ValueError):
                log.warning("stopping.at_once", signal=sign.name)
            end_by(sign)

    def _hang_up(self) -> None:
        if sys.stdin.isatty():
            self._ask(signal.SIGHUP)
        else:
            log.info("signal.ignored", signal="SIGHUP", told="settings are read at the start only")

    def _abandon(self, lifeline: int) -> None:
        self._loop.remove_reader(lifeline)
        log.error("supervisor.gone", told="this worker leaves")
        self.abandoned.set()
        self.asked.set()


def within_open_files(settings: Settings) -> Settings:
    """Raise the limit of open files as far as needed and allowed; without room for all connections, take fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # a platform with a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings
    room = max(soft - OTHER_FILES, soft // 2)
    log.warning("connections.fewer", max_connections=room, told=f"no more than {soft} files may be open (ulimit -n)")
    return settings.model_copy(update={"max_connections": room})


async def _serve(its: Parts, runner: web.AppRunner, leave: _Leave, place: Place | None) -> None:
    """Listen, and on the signal: say that we leave, wait for the balancer, stop listening, finish what runs."""
    if speaks := place is None or place.first:
        _warn(its)
    welcomes = speaks and not its.settings.production and await _is_new(its)
    # What is here now stays: a collection that looks through it again and again costs a third of a request. And what a
    # request leaves is freed without one, for it holds no cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
    settings, server = its.settings, runner.server
    assert isinstance(server, Server)
    listeners = await _listen(settings, server, place)
    log.info("serving", host=settings.host, port=settings.port, environment=settings.environment.value)
    if place:
        place.up()
    if welcomes:
        with suppress(OSError):  # nobody reads it
            print(WELCOME.format(url=settings.public_url), flush=True)
    await leave.asked.wait()
    log.info("stopping", drain_seconds=settings.drain_seconds.total_seconds())
    its.state.draining = True
    await leave.drained(settings.drain_seconds.total_seconds())
    if leave.alone:
        for listener in listeners:
            listener.close()  # the next one answers who stands there
    else:
        await _stop_listening(listeners, server)
    await asyncio.sleep(LINGER)


async def _listen(settings: Settings, server: Server, place: Place | None) -> list[asyncio.Server]:
    loop = asyncio.get_running_loop()
    if place:
        return [await loop.create_server(server, sock=door, backlog=BACKLOG) for door in place.doors]
    try:
        return [await loop.create_server(server, settings.host, settings.port, backlog=BACKLOG)]
    except OSError as error:
        raise cannot_listen(settings, error) from error


async def _stop_listening(listeners: list[asyncio.Server], server: Server) -> None:
    """Close the door behind those who stand in it: what was connected and not yet accepted would be reset unheard."""
    doors = [socket.socket(fileno=os.dup(door.fileno())) for listener in listeners for door in listener.sockets]
    for listener in listeners:
        listener.close()
    for door in doors:
        _turn_deaf(door)
    late = []
    for door in doors:
        with door, suppress(OSError):  # until there is nobody left, or no room for them
            door.setblocking(False)
            while True:
                late.append(door.accept()[0])
    for connection in late:
        with suppress(OSError):  # gone meanwhile
            await asyncio.get_running_loop().connect_accepted_socket(server, connection)


def _turn_deaf(door: socket.socket) -> None:
    """Hear nobody else who knocks, so that nobody comes between the last look and the closing; on Linux."""
    if sys.platform == "linux":
        # Classic BPF on the TCP header: a packet whose flags, the 14th byte, have SYN is dropped, and any other kept.
        program = ((0x30, 0, 0, 13), (0x45, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
        with suppress(OSError):  # without it, who comes within these microseconds is reset
            door.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code))
            )


async def _meet(its: Parts, url: str, *, speaks: bool) -> None:
    """See how Redis is before anything is written to it; raises `SettingsError` in production if it could forget.

    One that does not answer may do so later: it is told why, and requests get 503 until then.
    """
    try:
        its.state.condition = await its.store.meet()
    except StoreUnavailable as away:
        if speaks:
            log.warning("redis.away", told=f"{trouble(away, url)} Requests get 503 until it answers.")
        return
    dangers = its.state.condition.dangers
    if dangers and its.settings.production and not its.settings.redis_allow_unsafe:
        await close(its)
        remedy = "config/redis.conf has the lines. A provider that keeps data safe another way: REDIS_ALLOW_UNSAFE=on."
        raise SettingsError([*(f"{danger}." for danger in dangers), remedy])


def _warn(its: Parts) -> None:
    """Name what can be served and should not stay."""
    condition = its.state.condition
    if its.settings.production and not its.settings.cookie_secure:
        log.warning("cookies.insecure", told="PUBLIC_URL is not https: cookies and passwords travel in the clear")
    if its.settings.production and not its.settings.smtp_url:
        log.warning("mail.off", told="SMTP_URL is not set: nobody gets a mail, so forgotten passwords cannot be reset")
    if its.settings.production and not its.settings.metrics_token:
        log.warning("metrics.off", told="METRICS_TOKEN is not set: /metrics says 404, so nobody watches this instance")
    for danger in condition.dangers:
        log.warning("redis.unsafe", told=danger)


async def _is_new(its: Parts) -> bool:
    try:
        return await its.lookups.untouched()
    except StoreUnavailable:
        return False
