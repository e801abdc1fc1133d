"""The watch over the servers: a new master is noticed at once, and hears again what it may have missed.

A master that takes over, or comes back, may not have heard of the last revocations. Each instance says those of its
last minute again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
from redis.exceptions import ResponseError

from service import tasks
from service.errors import StoreUnavailable
from service.store.commands import Command
from service.store.node import Failed, Identity, Node
from service.store.topology import Topology

log = structlog.get_logger("service.store")

OFTEN, SOON = 1.0, 0.25  # seconds between two looks at the servers; soon again while one is away
INSISTS = 60.0  # seconds in which a change of master may have lost what was acknowledged
_MOST_INSISTED = 20_000
_TOGETHER = 200  # commands said again in one round trip


class Watch:
    """Looks at the servers. `run` says commands to them, as `Store.run` does."""

    def __init__(self, topology: Topology, run: Callable[..., Awaitable[list[Any]]]) -> None:
        self._topology = topology
        self._run = run
        self._insisted: OrderedDict[Command, float] = OrderedDict()  # and when it was, the earliest first
        self._masters: dict[str, str] = {}
        self._owing = False  # a new master has not heard yet what is insisted on

    def insist(self, command: Command) -> None:
        """Remember this for a minute, for a master that takes over meanwhile."""
        self._insisted[command] = time.monotonic()  # repeated, it takes no place of another
        self._insisted.move_to_end(command)
        if len(self._insisted) > _MOST_INSISTED:
            self._insisted.popitem(last=False)

    async def keep_looking(self) -> None:
        """Look at the servers for as long as this runs, so that a new master is noticed at once."""
        listening = asyncio.create_task(self._topology.listen())
        try:
            await self._keep_looking_around()
        finally:
            await tasks.cancel(listening)

    async def _keep_looking_around(self) -> None:
        while True:
            self._topology.changed.clear()
            try:
                await self.look_around()
            except Exception:
                # Whatever it is, the next look may do better; without a next one no new master would ever be noticed.
                log.exception("store.look_failed")
            soon = self._owing or not self._topology.nodes() or any(node.given_up for node in self._topology.nodes())
            with suppress(TimeoutError):
                async with asyncio.timeout(SOON if soon else OFTEN):
                    await self._topology.changed.wait()

    async def look_around(self) -> None:
        """Learn who serves what, and say to a new master what it may have missed."""
        await self._topology.learn()
        servers = self._topology.nodes()
        found = await asyncio.gather(*map(self._identify, servers))
        masters = {
            node.name: identity.run if identity else self._masters.get(node.name, "")
            for node, identity in zip(servers, found, strict=True)
        }
        # A server that was there all the time and whose number was not known before is no new one.
        new = {name for name, run in masters.items() if self._masters.get(name, "") not in ("", run)}
        new |= masters.keys() - self._masters.keys()
        if new and self._masters:
            log.warning("store.new_master", servers=sorted(new), insists=len(self._insisted))
            self._owing = True
        if masters:
            self._masters = masters
        if self._owing:
            await self._say_again()

    async def _identify(self, node: Node) -> Identity | None:
        try:
            identity = await node.identify()
        except Failed:
            return None
        if identity and not self._topology.spread:
            if identity.role == "slave" and not node.demoted:
                log.warning("store.demoted", server=node.name)
                await node.drop()
            node.demoted = identity.role == "slave"
        return identity

    async def _say_again(self) -> None:
        """What was ended in the last minute, once more; tried again with the next look if that fails."""
        oldest = time.monotonic() - INSISTS
        while self._insisted and next(iter(self._insisted.values())) < oldest:
            self._insisted.popitem(last=False)
        commands = tuple(self._insisted)
        for start in range(0, len(commands), _TOGETHER):
            try:
                await self._run(*commands[start : start + _TOGETHER], apart=True)
            except (StoreUnavailable, ResponseError) as error:
                log.warning("store.not_said_again", commands=len(commands) - start, reason=str(error))
                return
        self._owing = False
        log.info("store.said_again", commands=len(commands))
