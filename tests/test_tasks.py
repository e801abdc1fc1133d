"""Tasks that are ended: also those that did not hear it the first time."""

import asyncio

from service import tasks


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same():
    lost = 0

    async def deaf_at_first() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
        await asyncio.sleep(60)

    async def fails() -> None:
        raise OSError

    running = [asyncio.create_task(deaf_at_first()), asyncio.create_task(fails())]
    await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await tasks.cancel(*running)

    assert lost == 2
    assert running[0].cancelled()
    assert isinstance(running[1].exception(), OSError)


async def test_to_end_nothing_takes_no_time():
    await tasks.cancel()
