"""Tasks that run until somebody ends them."""

import asyncio

_HEEDED_WITHIN = 0.2  # seconds after which a task that goes on is told again


async def cancel(*tasks: "asyncio.Task[None]") -> None:
    """Cancel these, and wait until they have ended; what they raise is nobody's any more.

    A cancellation can get lost in a library, where what was waited for ends at that very moment: `asyncio.wait_for`
    returns instead, in Python 3.11. Such a task would go on for ever, and whoever waits for its end with it.
    """
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=_HEEDED_WITHIN)
    await asyncio.gather(*tasks, return_exceptions=True)
