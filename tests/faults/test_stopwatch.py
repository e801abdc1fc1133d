"""The stopwatch takes the machine's part out, and nothing of ours."""

import asyncio
import time

from tests.faults.stopwatch import TICK, Stopwatch


async def test_waiting_counts():
    async with Stopwatch() as watch:
        await asyncio.sleep(0.3)

    assert watch.held + TICK >= 0.3
    assert watch.held <= watch.elapsed


async def test_computing_counts_although_the_event_loop_stands_still_meanwhile():
    async with Stopwatch() as watch:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass

    assert watch.held + TICK >= 0.3


async def test_what_the_machine_keeps_from_us_is_left_out():
    async with Stopwatch() as watch:
        await asyncio.sleep(0.1)
        time.sleep(0.5)  # neither waiting in the event loop nor computing, as where a neighbour has the processor
        await asyncio.sleep(0.1)

    assert watch.elapsed >= 0.7
    assert watch.held < 0.5


async def test_a_stall_at_the_very_end_is_left_out_too():
    async with Stopwatch() as watch:
        await asyncio.sleep(0)
        time.sleep(0.5)

    assert watch.elapsed >= 0.5
    assert watch.held < 0.3
