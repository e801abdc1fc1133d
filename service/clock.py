"""The time that every instance agrees on: Redis' own."""

import time


class Clock:
    """Seconds since the epoch as Redis counts them, wherever this machine's clock stands.

    Every script answers with Redis' `TIME`; `anchor` takes it. Between answers the local monotonic clock carries
    on, so a step of the local clock is not noticed. Until the first answer the local clock has to do.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None

    def now(self) -> float:
        return time.time() if self._ahead is None else time.monotonic() + self._ahead

    def anchor(self, redis_time: float) -> None:
        """Follow Redis. Its answer is a little old when it arrives, so of two anchors the later time is right."""
        ahead = redis_time - time.monotonic()
        if self._ahead is None or ahead > self._ahead or self._ahead - ahead > 0.5:
            self._ahead = ahead
