"""What measurements stand on: a private Redis, the service on it, and numbers in readable form."""

import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import redis

from service import embedded
from service.client import Client
from service.settings import CONFIG, ROOT

SECRET = "a secret of measurements that guards nothing"
STARTS_WITHIN = 30.0  # seconds
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)
ADA = Client("203.0.113.7", CHROME)
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


@contextmanager
def redis_on_a_port(home: Path, *options: str) -> Iterator[tuple[int, int]]:
    """The same on a port, where bytes that travel are counted, its data below `home`; its port and pid."""
    server = next(iter(embedded.servers()), None)
    if server is None:
        raise BenchError(embedded.INSTALL)
    directory, port = home / "redis", free_port()
    directory.mkdir()
    command = [str(server.path), str(OUR_CONFIGURATION), "--port", str(port), "--dir", str(directory), *options]
    with running(home, *command) as process:
        _wait_for(f"redis://127.0.0.1:{port}")
        yield port, process.pid


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(home: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a block; what it writes goes to a file below `home`."""
    log = home / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        where = shutil.which(command[0]) or command[0]
        process = subprocess.Popen(
            tethered(where, *command[1:]), **{"cwd": home, "stdout": output, "stderr": output, **options}
        )
    try:
        yield process
    except (OSError, BenchError) as error:
        if process.poll() is None:
            raise
        raise BenchError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from error
    finally:
        process.terminate()
        try:
            process.wait(STARTS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, path: str = "/") -> None:
    """Wait until a server answers there with success."""
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def processor(pid: int) -> float:
    """Seconds of a core, user and system, that a process and those it has started have used.

    To the nanosecond by thread; of children that have ended already, such as Redis' rewriting its file, to 10 ms.
    """
    return usage(pid)[0]


def usage(pid: int) -> tuple[float, float]:
    """The same, and the seconds in which their threads were ready to go on but had no core."""
    each = [usage_of_one(process) for process in family(pid)]
    return sum(used for used, _ in each), sum(waited for _, waited in each)


def usage_of_one(pid: int) -> tuple[float, float]:
    """The same of one process alone."""
    try:
        threads = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]  # cutime, cstime
    except OSError:  # one that has just ended
        return 0, 0
    used = sum(int(one[0]) for one in threads) / 1e9 + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK")
    return used, sum(int(one[1]) for one in threads) / 1e9


def family(pid: int) -> list[int]:
    """A process, and those that it has started, and so on."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has just ended
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


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
    port = free_port()
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


def stoppable() -> None:
    """SIGTERM ends us as Ctrl-C does: nothing is left running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(measure: Callable[[], Results], as_json: bool) -> int:
    """Measure and write it: JSON for scripts, else tables."""
    stoppable()
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
