"""What measurements stand on: a private Redis, the service on it, and numbers in readable form."""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import redis

from service import embedded
from service.settings import CONFIG, ROOT

SECRET = "a secret of measurements that guards nothing"
STARTS_WITHIN = 30.0  # seconds
OUR_CONFIGURATION = CONFIG / "redis.conf"

Figures = dict[str, Any]
Results = dict[str, dict[str, Figures]]  # tables by title, rows by name


class BenchError(Exception):
    """A measurement that could not be made, and why."""


@contextmanager
def private_redis(configuration: Path | None = OUR_CONFIGURATION) -> Iterator[str]:
    """A real server on a unix socket, by default as operators are told to run it; its URL."""
    server = next(iter(embedded.servers()), None)
    if server is None:
        raise BenchError(embedded.INSTALL)
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as directory:
        url = f"unix://{directory}/s"
        files = [str(configuration)] if configuration else []
        options = ["--port", "0", "--unixsocket", f"{directory}/s", "--dir", directory, "--save", ""]
        process = subprocess.Popen(
            tethered(str(server.path), *files, *options),
            stdout=subprocess.DEVNULL,
            cwd=directory,
            start_new_session=True,
        )
        try:
            _wait_for(url)
            yield url
        finally:
            process.kill()
            process.wait()


def tethered(*command: str) -> list[str]:
    """The command, so that it ends with us even if we are killed, where the system can do that."""
    tether = [sys.executable, "-ISc", embedded.TETHER, str(os.getpid())] if sys.platform == "linux" else []
    return [*tether, *command]


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with client(url) as asking:
                asking.ping()
                return
        except redis.ConnectionError as error:
            if time.monotonic() > deadline:
                raise BenchError("redis-server did not start") from error
            time.sleep(0.02)


def client(url: str, database: int = 0) -> redis.Redis:
    """A bare client, for what is measured beside the product."""
    return redis.Redis.from_url(f"{url}?db={database}", decode_responses=True, socket_timeout=60)


def used_memory(asking: redis.Redis) -> int:
    """Bytes that Redis has in use, its own tables included, the buffers of connections and of the AOF not."""
    told = asking.info("memory")
    return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])


def environment(url: str, **settings: str) -> dict[str, str]:
    """What a process of the service is started with: nothing of the settings of whoever measures."""
    passed = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return {**passed, "PYTHONPATH": str(ROOT), "REDIS_URL": url, "AUTH_SECRET": SECRET, **settings}


@asynccontextmanager
async def instance(url: str) -> AsyncIterator[str]:
    """An instance of the service as `python -m service` runs it; the address where it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    settings = environment(url, HOST="127.0.0.1", PORT=str(port), PUBLIC_URL=base, DRAIN_SECONDS="0", LOG_LEVEL="error")
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as directory:
        process = await asyncio.create_subprocess_exec(
            *tethered(sys.executable, "-m", "service"), env=settings, cwd=directory, stdout=subprocess.DEVNULL
        )
        try:
            await _wait_until_ready(base)
            yield base
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STARTS_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _wait_until_ready(base: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"{base}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)
    raise BenchError("the service did not start")


def spread(seconds: Sequence[float]) -> Figures:
    """Median, 95th percentile and maximum of some durations, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    return {"p50 ms": ms(cuts[49]), "p95 ms": ms(cuts[94]), "longest ms": ms(max(seconds))}


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def show(title: str, rows: dict[str, Figures]) -> None:
    """Figures as a table: a row for each thing, a column for each kind of figure."""
    columns = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    lines = [["", *columns], *([row, *(_told(figures.get(name)) for name in columns)] for row, figures in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def _told(figure: Any) -> str:
    match figure:
        case None:
            return ""
        case float():
            return f"{figure:,.2f}" if abs(figure) < 100 else f"{figure:,.0f}"
        case int():
            return f"{figure:,}"
        case _:
            return str(figure)


def run(measure: Callable[[], Results], as_json: bool) -> int:
    """Measure and write it: JSON for scripts, else tables. SIGTERM ends it as Ctrl-C does: nothing is left running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = measure()
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        for title, rows in results.items():
            show(title, rows)
    return 0
