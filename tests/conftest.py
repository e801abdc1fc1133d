"""What every test stands on: a Redis (in memory and real), the parts joined on it, and instances over HTTP."""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import time_machine
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from service import embedded
from service.accounts.passwords import ARGON2ID, Passwords, load_common
from service.app import assemble, close, look_after, make_app
from service.http.access_log import AccessLog
from service.limits import policies
from service.parts import PARTS, Parts
from service.settings import CONFIG, Settings, duration, load
from service.store import Single, Topology, connect
from tests import contract, log_watch
from tests.log_watch import WATCH
from tests.mail.smtp_server import SmtpServer

SECRET = "a secret that only the tests know: 0f6b1c"
PASSWORD = "correct horse, battery & staple"
SLOTS = 16384
COMMON = load_common(CONFIG / "common-passwords.txt")


class RedisServer:
    """A real redis-server of the tests' own, on a unix socket, with AOF."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        binary = next(iter(embedded.servers()), None)
        assert binary is not None, embedded.INSTALL
        self.process = subprocess.Popen(
            [
                binary.path,
                "--port",
                "0",
                "--unixsocket",
                self.socket,
                "--dir",
                self.directory,
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--daemonize",
                "no",
                *options,
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not (self.socket.exists() and self.cli("PING") == "PONG"):
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server did not start")
            time.sleep(0.01)

    def cli(self, *command: str | int) -> Any:
        """Say something to it over a connection of its own."""
        import redis

        with redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=5) as client:
            try:
                reply = client.execute_command(*command)
            except redis.ConnectionError:
                return None
            return "PONG" if reply is True and command == ("PING",) else reply

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture(autouse=True, scope="session")
def _listening() -> None:
    log_watch.listen()


@pytest.fixture(autouse=True)
def log_watch_of_this_test() -> Iterator[None]:
    """No line of any test holds a secret of it or an email, and no request tells a security event twice."""
    WATCH.begin()
    yield
    assert WATCH.complaints() == []


@pytest.fixture(autouse=True)
def bounds_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, so that a machine that is busy for a second is no outage; tests of outages override this."""
    widen_bounds(monkeypatch)


def widen_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("node.ANSWER", "node.CONNECT", "store.ANSWER", "allowance.ANSWER", "allowance.PATIENCE"):
        monkeypatch.setattr(f"service.store.{bound}", 30.0)


@pytest.fixture(autouse=True)
def answers_as_published() -> Iterator[None]:
    """Whatever a test is about: what an instance answers in it is what `/openapi.json` says."""
    contract.complaints.clear()
    yield
    assert contract.complaints == []


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    directory = Path(tempfile.mkdtemp(prefix="gp-"))
    server = RedisServer(directory)
    server.start("--appendonly", "no")
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> RedisServer:
    """A real Redis, empty; shared by the tests of a run, so leave its process alone."""
    _shared_redis.cli("FLUSHALL")
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real Redis with AOF for this test alone, to be killed, frozen and restarted."""
    directory = Path(tempfile.mkdtemp(prefix="gp-"))
    server = RedisServer(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def another_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts further servers: `another_redis("--replicaof", "127.0.0.1", "7001")`."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(Path(tempfile.mkdtemp(prefix="gp-")))
        started.append(server)
        server.start(*options)
        return server

    yield start
    for server in started:
        server.kill()  # a master that is asked to stop waits for its replicas
        shutil.rmtree(server.directory)


@pytest.fixture
def cluster(another_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Two servers of a Cluster: one has every slot, the other none yet."""
    everything, nothing = servers = [_member(another_redis) for _ in range(2)]
    everything.cli("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    _, bus = nothing.cli("CONFIG", "GET", "cluster-port").popitem()
    everything.cli("CLUSTER", "MEET", "127.0.0.1", nothing.cli("CONFIG", "GET", "port")["port"], bus)
    deadline = time.monotonic() + 30
    while not all(_is_ready(server) for server in servers):
        if time.monotonic() > deadline:
            raise TimeoutError("a Cluster")
        time.sleep(0.02)
    return everything, nothing


def _member(another_redis: Callable[..., RedisServer]) -> RedisServer:
    options = {"port": free_port(), "cluster-enabled": "yes", "cluster-port": free_port()}
    options |= {"cluster-require-full-coverage": "no", "cluster-node-timeout": 60_000}
    return another_redis(*(word for name, value in options.items() for word in (f"--{name}", str(value))))


def _is_ready(server: RedisServer) -> bool:
    told = str(server.cli("CLUSTER", "INFO"))
    return "cluster_state:ok" in told and f"cluster_slots_assigned:{SLOTS}" in told


Connect = Callable[[], Redis]


@pytest.fixture(params=["fakeredis", "redis"])
def connecting(request: pytest.FixtureRequest) -> Connect:
    """Makes clients of one and the same Redis: in memory, and for real. A test that uses it runs on both."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        return lambda: connect(url)
    server = fakeredis.FakeServer()
    # The pool in memory refuses whom the real one lets wait: it has room for everybody.
    return lambda: fakeredis.FakeAsyncRedis(server=server, decode_responses=True, max_connections=10_000)


@pytest.fixture
async def redis(connecting: Connect) -> AsyncIterator[Redis]:
    """Redis as an onlooker sees it."""
    client = connecting()
    yield client
    await client.aclose()


async def all_that_is_in(redis: Redis) -> dict[str, Any]:
    """Every key in Redis, and what it holds."""
    keys = [key async for key in redis.scan_iter(count=1000)]
    types, contents = redis.pipeline(transaction=False), redis.pipeline(transaction=False)
    for key in keys:
        types.type(key)
    read = []
    for key, its_type in zip(keys, await types.execute(), strict=True):
        match its_type:
            case "string":
                contents.get(key)
            case "hash":
                contents.hgetall(key)
            case "zset":
                contents.zrange(key, 0, -1, withscores=True)
            case "set":
                contents.smembers(key)
            case "list":
                contents.lrange(key, 0, -1)
            case "stream":
                contents.xrange(key)
            case _:
                continue  # gone meanwhile
        read.append(key)
    return dict(zip(read, await contents.execute(), strict=True))


@pytest.fixture
def connecting_for_real(redis_server: RedisServer) -> Connect:
    """Makes clients of a real Redis only, for what fakeredis cannot show."""
    return lambda: connect(redis_server.url)


def settings_for(**changes: str) -> Settings:
    """Settings as the operator writes them: `settings_for(REFRESH_LEEWAY="2s")`."""
    return load({"AUTH_SECRET": SECRET, "RATE_LIMITS": WIDE, **changes})


# The limits have tests of their own, and would be in the way of most others.
WIDE = ",".join(f"{name}=10000/1h" for name in sorted(policies.NAMES))


def cheap_passwords(**changes: Any) -> Passwords:
    """Real argon2id, with parameters that cost next to nothing."""
    parameters = replace(ARGON2ID, memory_cost=8, time_cost=1)
    roomy = {"queue": 1000, "patience": 30.0}
    return Passwords(**{"common": COMMON, "parameters": parameters, "workers": 2, **roomy, **changes})


Assembling = Callable[..., Awaitable[Parts]]


@pytest.fixture
async def assembling(connecting: Connect) -> AsyncIterator[Assembling]:
    """Joins the parts of one more instance on the same Redis: `await assembling(MAX_SESSIONS_PER_USER="3")`."""
    made: list[Parts] = []

    async def assembled(topology: Topology | None = None, passwords: Passwords | None = None, **changes: str) -> Parts:
        its = assemble(settings_for(**changes), topology or Single(connecting()), passwords or cheap_passwords())
        await look_after(its)
        made.append(its)
        return its

    yield assembled
    for its in made:
        await close(its)


@pytest.fixture
async def parts(assembling: Assembling) -> Parts:
    """The parts of one instance."""
    return await assembling()


@pytest.fixture
def all_of_redis(redis_server: RedisServer) -> str:
    """The URL of the tests' real Redis for an onlooker who may look at everything and change it."""
    return redis_server.url


Later = Callable[[str], Awaitable[None]]
LOOKUPS = ("email:", "identity:")


@pytest.fixture
def later(request: pytest.FixtureRequest) -> Iterator[Later]:
    """Lets time pass: `await later("11s")`. In memory the clock is moved; on a real Redis what it holds is aged."""
    if "fakeredis" in request.node.name:
        with time_machine.travel(time.time(), tick=True) as traveller:

            async def shifted(span: str) -> None:
                traveller.shift(duration(span))

            yield shifted
        return
    url = request.getfixturevalue("all_of_redis")

    async def aged(span: str) -> None:
        ms = int(duration(span).total_seconds() * 1000)
        redis = connect(url)
        async for key in redis.scan_iter():
            ttl = await redis.pttl(key)
            if await redis.type(key) == "hash" and key.startswith(("sessions:", "signing-keys", "apikey", *LOOKUPS)):
                fields = await redis.hgetall(key)
                await redis.hset(key, mapping={name: _older(value, ms) for name, value in fields.items()})
            elif await redis.type(key) == "zset":
                entries = await redis.zrange(key, 0, -1, withscores=True)
                await redis.zadd(key, {member: score - ms for member, score in entries})
            elif await redis.type(key) == "stream":
                await _idle_longer(redis, key, ms)
            if ttl > 0:
                await (redis.pexpire(key, ttl - ms) if ttl > ms else redis.delete(key))
        await redis.aclose()

    yield aged


async def _idle_longer(redis: Redis, stream: str, ms: int) -> None:
    """As if every entry that waits for its consumer to be done had been handed out so much earlier."""
    for group in await redis.xinfo_groups(stream):
        for entry in await redis.xpending_range(stream, group["name"], "-", "+", 10_000):
            idle = entry["time_since_delivered"] + ms
            claim = ("XCLAIM", stream, group["name"], entry["consumer"], 0, entry["message_id"])
            await redis.execute_command(*claim, "IDLE", idle, "JUSTID")


def _older(value: str, ms: int) -> str:
    return re.sub(r"\b\d{13}\b", lambda match: str(int(match[0]) - ms), value)


class Browser:
    """A client with a cookie jar that treats our address as secure, as browsers treat localhost."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    async def __call__(self, method: str, path: str, json: Any = None, **kwargs: Any) -> "Answer":
        """Ask; the CSRF cookie goes back as the header, as our SPA would send it."""
        headers = {**kwargs.pop("headers", {})}
        if "csrf" in kwargs:
            csrf = kwargs.pop("csrf")
        else:
            csrf = next((c for name, c in self.cookies().items() if name.endswith("csrfToken")), None)
        if csrf and "X-CSRF-Token" not in headers:
            headers["X-CSRF-Token"] = csrf
        if json is not None:
            kwargs["json"] = json
        WATCH.hide_in(json)
        WATCH.hide_of_url(str(path))
        async with self.client.request(method, path, headers=headers, allow_redirects=False, **kwargs) as response:
            body = await response.read()
            answer = Answer(response.status, response.headers, response.cookies, body)
        WATCH.hide(morsel.value for morsel in response.cookies.values())
        WATCH.hide_of_url(response.headers.get("Location", ""))
        with contextlib.suppress(ValueError):
            WATCH.hide_in(answer.json)
        return answer

    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self.client.session.cookie_jar}

    async def register(self, email: str = "ada@example.org", password: str = PASSWORD, **kwargs: Any) -> "Answer":
        return await self("POST", "/api/auth/register", {"email": email, "password": password}, **kwargs)

    async def login(self, email: str = "ada@example.org", password: str = PASSWORD, **kwargs: Any) -> "Answer":
        return await self("POST", "/api/auth/login", {"email": email, "password": password}, **kwargs)


def parts_of(browser: Browser) -> Parts:
    """The parts of the instance that a browser looks at."""
    return browser.client.server.app[PARTS]


class Answer:
    """An answer, read to its end."""

    def __init__(self, status: int, headers: Any, cookies: Any, body: bytes) -> None:
        self.status, self.headers, self.cookies, self.body = status, headers, cookies, body

    @property
    def json(self) -> Any:
        import orjson

        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), (self.status, self.body[:200])
        return str(self.json["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class Served(TestServer):
    """A server as `service.serving` runs it, whose answers are held against what it publishes."""

    async def _make_runner(self, **options: Any) -> contract.Watched:
        return contract.Watched(self.app, access_log_class=AccessLog, **options)


Serving = Callable[..., Awaitable[Browser]]


@pytest.fixture
async def serving(assembling: Assembling) -> AsyncIterator[Serving]:
    """Starts an instance and gives a browser for it: `await serving(its)`; `at=` gives one more browser of the same."""
    opened: list[TestClient] = []

    async def served(its: Parts | None = None, at: Browser | None = None, **changes: str) -> Browser:
        if at is None:
            server = Served(make_app(its or await assembling(**changes)))
            await server.start_server()
        else:
            server = at.client.server
        jar = CookieJar(unsafe=True, treat_as_secure_origin=[server.make_url("/")])
        client = TestClient(server, cookie_jar=jar)
        opened.append(client)
        return Browser(client)

    yield served
    for client in reversed(opened):
        await client.close()


@pytest.fixture
async def browser(serving: Serving, parts: Parts) -> Browser:
    """A browser that looks at one instance, made of `parts`."""
    return await serving(parts)


async def until_replicated(master: RedisServer) -> None:
    """Until a replica confirms a write; one that is called online may still be loading."""
    async with asyncio.timeout(60), Redis.from_url(master.url, single_connection_client=True) as redis:
        await redis.set("written", "before it was asked")
        while await redis.wait(1, 100) < 1:
            pass


@pytest.fixture
async def mail() -> AsyncIterator[SmtpServer]:
    """A mail server on loopback; `mail.settings` points an instance to it."""
    server = await SmtpServer().start()
    yield server
    await server.stop()


emails = (f"person{number}@example.org" for number in itertools.count())


def _ports() -> Iterator[int]:
    """Ports below those that clients are given, in blocks of a hundred.

    The first port of a block is held by the process that uses the block, for as long as it lives, so that no other
    process of tests on this machine, of the same run or of another, takes a port between our look and its use.
    """
    for first in range(11_000, 32_000, 100):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        claim.detach()  # open until the process ends
        yield from range(first + 1, first + 100)


_next_ports = _ports()


def free_port() -> int:
    """A port for a server of this test alone: not one that a client's connection or a test beside us may take."""
    for port in _next_ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


async def gather(*work: Awaitable[Any]) -> list[Any]:
    """All at once; an exception is a result like any other."""
    return await asyncio.gather(*work, return_exceptions=True)
