"""Redis as it fails, and what the service promises meanwhile."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store import connect
from tests.conftest import Answer, Browser, Connect, RedisServer
from tests.faults import figures
from tests.faults.instances import Instance
from tests.faults.proxy import Proxy
from tests.faults.stopwatch import Stopwatch

PROMISED = 2.5  # seconds within which every request is answered, whatever becomes of Redis
BACK_WITHIN = 3.0  # seconds from the end of the cause to normal service
ENDLESS = 30.0  # seconds after which nothing more is expected, however busy the machine
TOKENS = {"X-Auth-Mode": "token"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the faults cost."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    if told := figures.of_reports(reports):
        terminalreporter.section("what the faults cost")
        terminalreporter.write_line(figures.HEADER)
        for each in told:
            terminalreporter.write_line(str(each))
        figures.write(told)


@pytest.fixture
def bounds_of_redis() -> None:
    """Those of the service: they are what is tested here."""


@pytest.fixture
def connecting(own_redis: RedisServer) -> Connect:
    """In this folder every instance stands on the test's own Redis, so that it can be killed."""
    return lambda: connect(own_redis.url)


@pytest.fixture
async def proxy(own_redis: RedisServer) -> AsyncIterator[Proxy]:
    """A network in front of the test's own Redis."""
    between = Proxy(own_redis.socket)
    await between.start()
    yield between
    await between.stop()


Running = Callable[..., Awaitable[Instance]]


@pytest.fixture
async def running(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Running]:
    """Starts a process of the service and waits until it is ready: `await running(MAX_CONNECTIONS="50")`."""
    started: list[Instance] = []

    async def run(before: Callable[[], object] | None = None, **changes: str) -> Instance:
        instance = Instance(tmp_path, own_redis.url, before, **changes)
        started.append(instance)
        return await instance.ready()

    yield run
    for instance in started:
        await instance.clean_up()


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """The server's process stands still, as on an overloaded or paused machine."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


async def in_time(asking: Awaitable[Answer]) -> tuple[Answer, float]:
    """The answer and how long it took; it is a failure if that is longer than promised."""
    async with asyncio.timeout(ENDLESS), Stopwatch() as watch:
        answer = await asking
    assert watch.held <= PROMISED, (watch.held, answer)
    return answer, watch.elapsed


async def back_to_normal(browser: Browser, token: str | None = None) -> float:
    """Wait until the instance is ready and answers, and say how many seconds that took."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    path = "/api/auth/me" if token else "/ready"
    async with asyncio.timeout(ENDLESS), Stopwatch() as watch:
        while True:
            ready = await browser("GET", "/ready")
            answer = await browser("GET", path, headers=headers, csrf=None)
            if ready.status == answer.status == 200:
                break
            assert answer.status in (200, 503), answer
            await asyncio.sleep(0.05)
    assert watch.held <= BACK_WITHIN, watch.held
    return watch.elapsed


def is_unavailable(answer: Answer) -> bool:
    """A 503 as the contract has it: nothing decided, nothing taken away."""
    return (
        answer.status == 503
        and answer.code == "SERVICE_UNAVAILABLE"
        and int(answer.headers["Retry-After"]) == answer.json["retryAfter"] >= 1
        and "Set-Cookie" not in answer.headers
    )


async def joined(browser: Browser, email: str) -> dict:
    """A new account in token mode: the body of its registration."""
    answer = await browser.register(email, headers=TOKENS)
    assert answer.status == 201, answer
    return answer.json


def bearer(signed: dict) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed['accessToken']}"}


async def refresh(browser: Browser, signed: dict) -> Answer:
    return await browser("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]}, csrf=None)
