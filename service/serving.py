"""Serving: from settings to a listening instance, and back to nothing without losing a request."""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiohttp import web

from service.app import assemble, make_app
from service.errors import StoreUnavailable
from service.http.access_log import AccessLog
from service.http.protocol import Runner, Server
from service.parts import Parts
from service.settings import ROOT, Settings, SettingsError
from service.store import reach

log = structlog.get_logger("service.serving")

LARGEST_HEADER = 16 * 1024  # bytes: two tokens in cookies and one in a header fit
KEEP_ALIVE = 75.0  # seconds; longer than a proxy keeps its idle connections, so that the proxy closes them
LINGER = 0.3  # seconds in which connections that were accepted at the last moment still say what they want
FINISH = 10.0  # seconds for running requests
SAME_WISH = 0.2  # seconds: a terminal and a process manager may both pass the same Ctrl-C on
OTHER_FILES = 512  # open files besides clients: Redis, mail, providers, and those who are being turned away

WELCOME = """
  Gatepost is ready at {url}

  Make an account, then ask who you are:

    curl -s {url}/api/auth/register -H 'Content-Type: application/json' \\
      -d '{{"email": "ada@example.org", "password": "a long and private sentence"}}'

    curl -s {url}/api/auth/me -H 'Authorization: Bearer <the accessToken of the answer>'

  All routes: {url}/    Settings: config/example.env    How to go on: README.md
"""


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[str]:
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
        log.info("redis.private", told=redis.description)
        yield url
    finally:
        await redis.stop()


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and give the exit status; raises `SettingsError` when this must not be served."""
    stop = asyncio.Event()
    _heed_signals(stop)
    settings = _within_open_files(settings)
    async with open_redis(settings) as url:
        its = assemble(settings, reach(url))
        runner = Runner(
            make_app(its),
            access_log_class=AccessLog,
            shutdown_timeout=FINISH,
            keepalive_timeout=KEEP_ALIVE,
            max_field_size=LARGEST_HEADER,
            max_line_size=LARGEST_HEADER,
        )
        await runner.setup()
        try:
            await _serve(its, runner, stop)
        finally:
            await runner.cleanup()
    return 0


def _heed_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT stop, and end at once when they come again. SIGHUP stops where there is a terminal to lose."""
    loop = asyncio.get_running_loop()
    asked = 0.0

    def leave(sign: signal.Signals) -> None:
        nonlocal asked
        if not stop.is_set():
            asked = loop.time()
            stop.set()
        elif loop.time() - asked > SAME_WISH:
            log.warning("stopping.at_once", signal=sign.name)
            signal.signal(sign, signal.SIG_DFL)
            os.kill(os.getpid(), sign)

    def hang_up() -> None:
        if sys.stdin.isatty():
            leave(signal.SIGHUP)
        else:
            log.info("signal.ignored", signal="SIGHUP", told="settings are read at the start only")

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, leave, sign)
    loop.add_signal_handler(signal.SIGHUP, hang_up)


def _within_open_files(settings: Settings) -> Settings:
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


async def _serve(its: Parts, runner: web.AppRunner, stop: asyncio.Event) -> None:
    """Listen, and on the signal: say that we leave, wait for the balancer, stop listening, finish what runs."""
    await _examine(its)
    # What is here now stays: a collection that looks through it again and again costs a third of a request.
    gc.collect()
    gc.freeze()
    settings, server = its.settings, runner.server
    assert isinstance(server, Server)
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(server, settings.host, settings.port, backlog=1024)
    except OSError as error:
        raise SettingsError(
            [f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Try PORT=8001."]
        ) from error
    log.info("serving", host=settings.host, port=settings.port, environment=settings.environment.value)
    if not settings.production and await _is_new(its):
        print(WELCOME.format(url=settings.public_url), flush=True)
    await stop.wait()
    log.info("stopping", drain_seconds=settings.drain_seconds.total_seconds())
    its.state.draining = True
    await asyncio.sleep(settings.drain_seconds.total_seconds())
    await _stop_listening(listener, server)
    await asyncio.sleep(LINGER)


async def _stop_listening(listener: asyncio.Server, server: Server) -> None:
    """Close the door behind those who stand in it: what was connected and not yet accepted would be reset unheard."""
    doors = [socket.socket(fileno=os.dup(door.fileno())) for door in listener.sockets]
    listener.close()
    late = []
    for door in doors:
        with door, suppress(OSError):  # until there is nobody left, or no room for them
            door.setblocking(False)
            while True:
                late.append(door.accept()[0])
    for connection in late:
        with suppress(OSError):  # gone meanwhile
            await asyncio.get_running_loop().connect_accepted_socket(server, connection)


async def _examine(its: Parts) -> None:
    """Refuse in production, and name elsewhere, a Redis that could forget."""
    condition = its.state.condition
    if condition.version == "unknown" and not condition.dangers:
        log.warning("redis.away", told="Redis does not answer; requests get 503 until it does")
    if its.settings.production and condition.dangers and not its.settings.redis_allow_unsafe:
        remedy = "If your provider keeps the data safe in another way, set REDIS_ALLOW_UNSAFE=on."
        raise SettingsError([*(f"{danger}." for danger in condition.dangers), remedy])
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
