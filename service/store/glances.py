"""Glances that need the policy: those of one turn of the event loop are asked together."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from service.errors import StoreUnavailable
from service.store.allowance import LEFT, waiting
from service.store.commands import Command
from service.store.node import Failed

# The replies in time (monotonic, in seconds), some of which may be exceptions, after a first try that went like this.
Deliver = Callable[[tuple[Command, ...], float, Failed | None], Awaitable[list[Any]]]


@dataclass(slots=True)
class _Glance:
    command: Command
    failed: Failed | None  # how its first try went, if it had one
    reply: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Glances:
    """Reads that wait for the end of this turn. Whatever the policy says then, it says to all of them."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._glances: list[_Glance] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command, failed: Failed | None) -> Any:
        """The reply; `failed` is how a first try of its own went, if it had one."""
        self._glances.append(glance := _Glance(command, failed))
        if len(self._glances) == 1:
            asyncio.get_running_loop().call_soon(self._take_off, context=contextvars.Context())
        with waiting() as until:
            try:
                async with asyncio.timeout(None if LEFT.get() is None else max(until - time.monotonic(), 0)):
                    return await glance.reply
            except TimeoutError as error:
                raise StoreUnavailable from error

    def _take_off(self) -> None:
        glances, self._glances = self._glances, []
        together: dict[tuple[bool, ...], list[_Glance]] = {}  # what failed in the same way is asked again together
        for glance in glances:
            way = (glance.failed.final, glance.failed.shed, glance.failed.unseen) if glance.failed else ()
            together.setdefault(way, []).append(glance)
        for some in together.values():
            self._flights.add(task := asyncio.get_running_loop().create_task(self._fly(some)))
            task.add_done_callback(self._flights.discard)

    async def _fly(self, glances: list[_Glance]) -> None:
        commands = tuple(glance.command for glance in glances)
        try:
            with waiting() as until:
                replies = await self._deliver(commands, until, glances[0].failed)
        except Exception as error:
            # Whatever it is, it belongs to those who wait; nobody else would ever hear of it.
            replies = [error] * len(glances)
        for glance, reply in zip(glances, replies, strict=True):
            if glance.reply.done():
                continue
            if isinstance(reply, Exception):
                glance.reply.set_exception(reply)
            else:
                glance.reply.set_result(reply)
