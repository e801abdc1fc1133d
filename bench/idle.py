"""What is there before anybody asks anything: the start, the memory, and what counting costs."""

import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import memory
from bench.ground import (
    OUR_CONFIGURATION,
    STARTS_WITHIN,
    BenchError,
    environment,
    family,
    free_port,
    processor,
    running,
)
from bench.targets import FOLDER, PEERS, peer_settings, settings_of_ours
from service import metrics

SETTLED = 1.0  # seconds after the start
COUNTS = 200_000
GLANCE = 0.002  # seconds


def starts(home: Path, url: str, peers: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Milliseconds from the start of the process, imports and all, to the first answer; then megabytes, idle."""

    def bare(port: int) -> tuple[tuple[str, ...], Mapping[str, str], Path, str]:
        return (sys.executable, "-m", "bench.bare", str(port), "180"), environment(""), home, "/180"

    def ours(port: int) -> tuple[tuple[str, ...], Mapping[str, str], Path, str]:
        return (sys.executable, "-m", "service"), settings_of_ours(url, True, PORT=str(port)), home, "/ready"

    def other(name: str) -> "Start":
        peer = PEERS[name]
        return lambda port: (peer.command, peer_settings(url, port), FOLDER / peer.folder, "/ready")

    wanted: dict[str, Start] = {"bare": bare, "Gatepost": ours, **{PEERS[name].title: other(name) for name in peers}}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in wanted}
    for _ in range(rounds):
        for name, start in wanted.items():
            found[name].append(_start(home, start))
    return {
        name: {
            "ready ms": round(statistics.median(row[0] for row in rows) * 1000),
            "processor ms": round(statistics.median(row[1] for row in rows) * 1000),
            "idle MB": round(statistics.median(row[2] for row in rows), 1),
            "rounds ms": [round(row[0] * 1000) for row in rows],
        }
        for name, rows in found.items()
    }


Start = Callable[[int], tuple[tuple[str, ...], Mapping[str, str], Path, str]]


def _start(home: Path, start: Start) -> tuple[float, float, float]:
    port = free_port()
    command, settings, folder, path = start(port)
    began = time.monotonic()
    with running(home, *command, env=settings, cwd=folder) as process:
        while not _answers(port, path):
            if time.monotonic() - began > STARTS_WITHIN:
                raise BenchError(f"{command} did not start")
            time.sleep(GLANCE)
        took, used = time.monotonic() - began, processor(process.pid)
        time.sleep(SETTLED)
        return took, used, resident(process.pid)


def _answers(port: int, path: str) -> bool:
    """Whether it says 200; asked without a library, for that would take longer than some of the starts."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asking:
        asking.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in asking.recv(64)
    return False


def resident(pid: int) -> float:
    """Megabytes that a process and those it has started have in memory."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def bytes_of_a_user() -> dict[str, int]:
    """Bytes of Redis for an account with one session."""
    (ours,) = memory.measure(configurations={"ours": OUR_CONFIGURATION}, people_only=True).values()
    return {"bytes of a user with a session": int(ours["an account with a session"]["each"])}


def counting() -> dict[str, float]:
    """Microseconds of a core that the metrics of one request take: they cannot be turned off."""
    meter = metrics.Meter("/api/auth/verify", "GET")
    took = []
    for _ in range(5):
        used = time.process_time()
        for _ in range(COUNTS):
            meter.answered(200, 0.001)
        took.append((time.process_time() - used) / COUNTS * 1e6)
    return {"us": round(min(took), 2)}
