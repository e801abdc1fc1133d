"""The time that every instance agrees on: Redis' own. What is kept there counts it in milliseconds."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial

# Seconds of a clock that is never set, and that goes on while the machine is suspended, which Linux' monotonic one
# does not.
running = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """Seconds since the epoch as Redis counts them, wherever this machine's clock stands.

    Every script answers with Redis' `TIME`; `anchor` takes it. Between answers `running` carries on, so a step
    of the local clock is not noticed. Until the first answer the local clock has to do.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() if self._ahead is None else running() + self._ahead

    def anchor(self, redis_time: float) -> None:
        """Follow Redis. Its answer is a little old when it arrives, so of two anchors the later time is right."""
        ahead = redis_time - running()
        if self._ahead is None or ahead > self._ahead or self._ahead - ahead > 0.5:
            self._ahead = ahead


def moment(ms: str | int) -> datetime:
    """The time so many milliseconds after the epoch."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC)


def stamp(at: datetime) -> int:
    """The other way round."""
    return round(at.timestamp() * 1000)


def milliseconds(span: timedelta) -> int:
    """A length of time, in whole milliseconds."""
    return int(span.total_seconds() * 1000)
