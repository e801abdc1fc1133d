"""What each fault cost, in figures: told at the end of a run, and written to FAULTS_JSON where that is set."""

import asyncio
import bisect
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_TICK = 0.02  # seconds


class Lateness:
    """How late this machine is by itself: a clock that should tick every 20 ms, and when it did not.

    A machine that is busy with other things delays the browsers of a test as well as the service; what is late here is
    not held against the service.
    """

    def __init__(self) -> None:
        self._at: list[float] = []
        self._late: list[float] = []  # in all, up to the same place in `_at`
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Lateness":
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._ticking is not None
        self._ticking.cancel()

    async def _tick(self) -> None:
        late, was = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            late += max(0.0, now - was - 2 * _TICK)
            self._at.append(now)
            self._late.append(late)
            was = now

    def within(self, begin: float, end: float) -> float:
        """Seconds by which the machine was late between these moments."""
        if not self._at:
            return 0.0
        first, last = (min(bisect.bisect(self._at, moment), len(self._at) - 1) for moment in (begin, end))
        return self._late[last] - self._late[max(first - 1, 0)]


@dataclass(frozen=True)
class Figures:
    """What a fault cost. Seconds; `recovered` counts from the end of its cause."""

    fault: str
    requests: int
    requests_lost: int
    sessions_lost: int
    longest: float
    recovered: float

    def __str__(self) -> str:
        return (
            f"{self.fault:<58} {self.requests:>8} {self.requests_lost:>6} {self.sessions_lost:>9} "
            f"{self.longest:>8.2f} s {self.recovered:>8.2f} s"
        )


HEADER = f"{'fault':<58} {'requests':>8} {'lost':>6} {'sessions':>9} {'longest':>10} {'back after':>10}"


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
