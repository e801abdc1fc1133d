"""Time as a promise counts it: what a busy machine keeps from us is not held against the service."""

import asyncio
import time
from typing import Self

TICK = 0.05  # seconds between two looks at the clock


class Stopwatch:
    """Measures a block: `async with Stopwatch() as watch: ...`, then `watch.held` and `watch.elapsed`, in seconds.

    A task beside the block sleeps a tick at a time. Where it wakes late although the event loop was not computing,
    somebody else had the processor: a neighbour, or a hypervisor. That much is left out of `held`. Waiting and
    computing of our own stay in it, so a service that is slow is found slow on any machine.
    """

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.stalled = 0.0

    @property
    def held(self) -> float:
        return self.elapsed - self.stalled

    async def __aenter__(self) -> Self:
        self._started = time.monotonic()
        self._look()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        self._add_what_is_late()
        self.elapsed = time.monotonic() - self._started

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._add_what_is_late()
            self._look()

    def _look(self) -> None:
        self._at, self._computed = time.monotonic(), time.thread_time()

    def _add_what_is_late(self) -> None:
        late = time.monotonic() - self._at - TICK
        self.stalled += max(0.0, late - (time.thread_time() - self._computed))
