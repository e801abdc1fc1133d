"""What each fault cost, in figures: told at the end of a run, and written to FAULTS_JSON where that is set."""

import asyncio
import bisect
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_TICK = 0.1  # seconds


class Lateness:
    """How late this machine is by itself: how long processes that wanted to run had to wait for a processor.

    A machine that is busy with other things delays a service that would be fast elsewhere, and the browsers that
    measure it. That much is not held against the service. `watched` gives the processes that answer; where the system
    does not tell of them, what is late here has to do.
    """

    def __init__(self) -> None:
        self.watched: Callable[[], Iterable[int]] = list
        self._at: list[float] = []
        self._late: list[tuple[float, float]] = []  # in all, up to the same place in `_at`: event loops, any thread
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Lateness":
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._ticking is not None
        self._ticking.cancel()

    def within(self, begin: float, end: float, hashing: bool = False) -> float:
        """Seconds by which event loops were late between these moments; `hashing` counts the other threads too."""
        if not self._at:
            return 0.0
        first, last = (min(bisect.bisect(self._at, moment), len(self._at) - 1) for moment in (begin, end))
        return self._late[last][hashing] - self._late[max(first - 1, 0)][hashing]

    async def _tick(self) -> None:
        loops, threads, was, waited = 0.0, 0.0, time.monotonic(), self._waited()
        while True:
            await asyncio.sleep(_TICK)
            now, waited_by_now = time.monotonic(), self._waited()
            kept = {thread: min(more - waited.get(thread, more), now - was) for thread, more in waited_by_now.items()}
            here = max(0.0, now - was - 2 * _TICK)
            loops += here + max((late for (pid, thread), late in kept.items() if pid == thread), default=0.0)
            threads += here + max(kept.values(), default=0.0)
            self._at.append(now)
            self._late.append((loops, threads))
            was, waited = now, waited_by_now

    def _waited(self) -> dict[tuple[str, str], float]:
        """For each thread of those processes, how long it has waited for a processor so far (seconds)."""
        found = {}
        for pid in self.watched():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError, IndexError, ValueError):
                    found[str(pid), path.parent.name] = int(path.read_text().split()[1]) / 1e9
        return found


@dataclass(frozen=True)
class Figures:
    """What a fault cost. Seconds; `recovered` counts from the end of its cause.

    `longest` is what somebody waited, `held` the longest less what the machine was late by itself.
    """

    fault: str
    requests: int
    requests_lost: int
    sessions_lost: int
    longest: float
    held: float
    recovered: float

    def __str__(self) -> str:
        return (
            f"{self.fault:<58} {self.requests:>8} {self.requests_lost:>6} {self.sessions_lost:>9} "
            f"{self.longest:>8.2f} s {self.held:>8.2f} s {self.recovered:>8.2f} s"
        )


HEADER = (
    f"{'fault':<58} {'requests':>8} {'lost':>6} {'sessions':>9} {'longest':>10} {'of it ours':>10} {'back after':>10}"
)


def as_property(figures: Figures) -> tuple[str, str]:
    """As a property of a test's report, which travels from a worker to the terminal."""
    return "figures", json.dumps(asdict(figures))


def of_reports(reports: Iterable[Any]) -> list[Figures]:
    found = [value for report in reports for name, value in report.user_properties if name == "figures"]
    return [Figures(**json.loads(value)) for value in found]


def write(all_figures: list[Figures]) -> None:
    """Write them to the file of FAULTS_JSON."""
    if path := os.environ.get("FAULTS_JSON"):
        rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(f).items()} for f in all_figures]
        Path(path).write_text(json.dumps(rounded, indent=2) + "\n")
