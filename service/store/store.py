"""The one way to Redis, and the outage policy, which is here and nowhere else.

- A call takes 1 s at most, waiting for a connection included; one second try follows where a repeat is harmless.
  A request spends 2 s waiting for Redis at most, however many calls it makes (`patience`). A server that has failed
  again and again is not asked at all until it answers a probe.
- A repeat is harmless for reads and for scripts, which are all written so: run twice with the same arguments they
  take effect once and answer the same. What a server has refused unseen, for it is a replica now or another one has
  the slot, is always said again, to the right one.
- Redis away, loading, full, read-only or without its replicas is `StoreUnavailable`. Any other refusal by Redis is
  a mistake of ours and stays an exception.
- A master that takes over may not have heard of the last revocations. Each instance says those of its last minute
  again (`watch.py`).

The commands of one call are run in their order, and together as far as they are for the same server. In a Cluster a
server is asked when the one before has answered; all at once for reads alone, and where the caller says that nothing
depends on the order (`apart`). A script that a server does not know any more is given to it and run then, after the
writes that stood behind it.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
from redis.exceptions import AskError, MovedError, TryAgainError

from service import metrics
from service.errors import StoreUnavailable
from service.store.address import Host
from service.store.allowance import LEFT, waiting
from service.store.commands import READS, Command, key_of, repeatable, slot_of
from service.store.condition import Condition, condition_of
from service.store.glances import Glances
from service.store.memory import Memory
from service.store.node import ANSWER, Failed, Node
from service.store.replies import LOST, if_any, passing, redirected, unavailable
from service.store.topology import Cluster, Topology
from service.store.watch import Watch

log = structlog.get_logger("service.store")

REPLICAS = 500  # milliseconds to wait for replicas to confirm
_DETOURS = 5  # servers that one command may be sent on to
_BESIDE = 0.25  # seconds that anybody waits for what nothing depends on, at a server of its own
_NOBODY = "Nobody knows which server to ask"
_NEWS_AGAIN = 10.0  # seconds after which a failure that goes on is told again
_MOST_TOLD = 100  # kinds of failures that are remembered as told
_MOMENT = 0.02  # seconds until a key that is on its way has arrived


@dataclass(slots=True)
class _Errand:
    """How commands are to be said, and until when (monotonic, in seconds); `failed` is how the first try went."""

    until: float = 0.0
    durable: bool = False
    once: bool = False
    apart: bool = False
    failed: Failed | None = None


class Store:
    """Says commands to Redis, whatever Redis is."""

    def __init__(self, topology: Topology, wait_replicas: int = 0, tracked: bool = False) -> None:
        self._topology = topology
        self._memory = Memory() if tracked else None
        if self._memory is not None:
            topology.remember(self._memory)
        self._wait_replicas = wait_replicas
        self._lately: dict[tuple[str, str, bool], float] = {}  # failures, and until when they are no news
        self._glances = Glances(lambda commands, until, failed: self._deliver(commands, _Errand(until, failed=failed)))
        self._watch = Watch(topology, self.run)

    async def run(
        self,
        *commands: Command,
        durable: bool = False,
        once: bool = False,
        apart: bool = False,
        hints: Iterable[Command] = (),
        aside: Iterable[Command] = (),
    ) -> list[Any]:
        """Send the commands in one round trip to each server they concern, and give their replies in order.

        `once` forbids the second try: for a script that would undo what others did after its first run.

        `durable` waits for the replicas of `REDIS_WAIT_REPLICAS`: too few is `StoreUnavailable`, although the
        commands did happen on the master; the caller may come again.

        `apart` says that the commands have nothing to do with each other.

        `hints` are reads that nothing depends on. Their replies come after the others, `LOST` in the place of each
        that did not come; they fail nobody. `aside` are commands that travel along, after the others; what becomes of
        them fails nobody either, and their replies are not given. In a Cluster nobody waits longer than 0.25 s for
        either of these.
        """
        # As `waiting` does, which costs as much as the rest.
        left, began = LEFT.get(), time.monotonic()
        patience = 2 * ANSWER if left is None else left.seconds
        hints, aside = tuple(hints), tuple(aside)
        errand = _Errand(began + patience, durable and self._wait_replicas > 0, once, apart)
        everything = (*commands, *hints, *aside)
        try:
            if (node := self._shared(errand)) is not None and all(map(repeatable, everything)):
                # The first try, as it nearly always goes. After any other the policy has the word, and may ask again.
                try:
                    replies = await node.send(everything, min(ANSWER, patience))
                except Failed as failure:
                    errand.failed = failure
                else:
                    if not any(isinstance(reply, Exception) for reply in replies):
                        return replies[: len(commands) + len(hints)]
            replies = await self._deliver(commands, errand, hints, aside)
        finally:
            if left is not None:
                left.seconds -= time.monotonic() - began
            if self._memory is not None:
                # Whatever came of them: Redis may have done it, and tells us only after it has told the caller.
                for command in everything:
                    if command[0] not in READS:
                        self._memory.wrote(key_of(command))
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _shared(self, errand: _Errand) -> Node | None:
        """The only server there is, if it may be asked plainly: on its shared connection, and again if need be."""
        if self._topology.spread or errand.durable or errand.once:
            return None
        node = self._topology.node(None)
        return node if node is not None and node.shared and not node.leaving else None

    async def one(self, command: Command, durable: bool = False, once: bool = False) -> Any:
        """Send one command."""
        return (await self.run(command, durable=durable, once=once))[0]

    def glance(self, *command: Any) -> Coroutine[Any, Any, Any]:
        """A read that shares its round trip with every other glance of this turn of the event loop."""
        return self._glance(command)

    async def recall(self, *command: Any) -> Any:
        """A glance; where changes are tracked its reply may be from memory: up to 2 s old, older than no own change."""
        if self._memory is None:
            return await self._glance(command)
        if (reply := self._memory.recall(command)) is None:
            reply = await self._glance(command, keep=True)
        return reply

    async def _glance(self, command: Command, keep: bool = False) -> Any:
        failed = None
        node = self._topology.node(slot_of(command) if self._topology.spread else None)
        if node is not None and node.shared:
            left, began = LEFT.get(), time.monotonic()
            try:
                within = ANSWER if left is None else min(ANSWER, left.seconds)
                (reply,) = await (node.send((command,), within, keep) if keep else node.send((command,), within))
                if not isinstance(reply, Exception):
                    return reply
            except Failed as failure:
                failed = failure
            finally:
                if left is not None:
                    left.seconds -= time.monotonic() - began
        # Nothing is shared there, or something went wrong: whatever the policy says then, it says for all of them.
        return await self._glances.ask(command, failed)

    @property
    def spread(self) -> bool:
        """Whether keys are on several servers, so that each script has its own alone."""
        return self._topology.spread

    def address_for(self, command: Command) -> Host | None:
        """Where a command is sent, as far as that is known."""
        node = self._topology.node(slot_of(command) if self._topology.spread else None)
        return node.address if node else None

    async def scan(self, pattern: str, cursor: int = 0) -> tuple[int, list[str]]:
        """Some of the keys that match, of all servers one after another, and where to go on; 0 is the end.

        A key may come twice. What changes meanwhile may be missed.
        """
        if not self._topology.nodes():
            await self._topology.learn()
        servers = self._topology.nodes()
        place, server = divmod(cursor, max(len(servers), 1))
        if server >= len(servers):
            raise StoreUnavailable
        (reply,) = await self._at(servers[server], (("SCAN", place, "MATCH", pattern, "COUNT", 500),))
        following, keys = int(reply[0]), list(reply[1])
        if following == 0:
            server += 1
        return (following * len(servers) + server if server < len(servers) else 0), keys

    async def time(self) -> float:
        """Redis' clock, in seconds since the epoch."""
        seconds, microseconds = await self.one(("TIME",))
        return int(seconds) + int(microseconds) / 1e6

    def insist(self, command: Command) -> None:
        """Say this again to a master that takes over within a minute: it may not have heard.

        Only for what may be said at any later moment: it must end what it names and nothing else.
        """
        self._watch.insist(command)

    async def watch(self) -> None:
        """Look at the servers for as long as this runs, so that a new master is noticed at once."""
        await self._watch.keep_looking()

    async def look_around(self) -> None:
        """Learn who serves what, and say to a new master what it may have missed."""
        await self._watch.look_around()

    async def condition(self) -> Condition:
        """How Redis is set up, of several servers the worst that any of them says."""
        if not self._topology.nodes():
            await self._topology.learn()
        if not (servers := self._topology.nodes()):
            raise StoreUnavailable(_NOBODY)
        return await condition_of(servers, self._at, self._topology.spread)

    async def meet(self) -> Condition:
        """The condition, for who begins and says by `trouble` why there is none: the log need not say it as well."""
        try:
            return await self.condition()
        except StoreUnavailable as away:
            cause = away.__cause__ if isinstance(away.__cause__, Exception) else away
            for final in (False, True):
                self._is_news(cause, final)
            raise

    def observe(self) -> None:
        """Tell the metrics how many servers there are, and how many of them are given up for now."""
        servers, kind = self._topology.nodes(), self._topology.kind
        metrics.REDIS_SERVERS.labels(kind).set(len(servers))
        metrics.REDIS_GIVEN_UP.labels(kind).set(sum(node.given_up for node in servers))

    async def close(self) -> None:
        await self._topology.close()

    # Delivery

    async def _deliver(
        self,
        commands: tuple[Command, ...],
        errand: "_Errand",
        hints: tuple[Command, ...] = (),
        aside: tuple[Command, ...] = (),
    ) -> list[Any]:
        """The replies, with an exception in the place of each that failed, and then those to the hints."""
        if not self._topology.spread:
            everything = (*commands, *hints, *aside)
            replies = await self._patiently(everything, errand, essential=len(commands))
            return [*replies[: len(commands)], *map(if_any, replies[len(commands) : len(commands) + len(hints)])]
        if hints:
            replies, found = await asyncio.gather(self._to_each(commands, errand), self._beside(hints, errand))
            replies += found
        else:
            replies = await self._to_each(commands, errand)
        if aside and not any(isinstance(reply, Exception) for reply in replies):
            await self._beside(aside, errand)
        return replies

    async def _to_each(self, commands: tuple[Command, ...], errand: "_Errand") -> list[Any]:
        """What the servers of a Cluster say: in the order of the commands, or at once where that may be."""
        at_once = errand.apart or all(command[0] in READS for command in commands)
        groups = _groups(await self._servers(commands, errand.until), at_once)
        replies: list[Any] = [None] * len(commands)

        async def say(group: list[int]) -> bool:
            part = await self._patiently(tuple(commands[i] for i in group), errand, essential=len(group))
            for index, reply in zip(group, part, strict=True):
                replies[index] = reply
            return not any(isinstance(reply, Exception) for reply in part)

        if at_once:
            await asyncio.gather(*map(say, groups))
            return replies
        for done, group in enumerate(groups):
            if not await say(group):
                for index in (index for later in groups[done + 1 :] for index in later):
                    replies[index] = StoreUnavailable()
                break
        return replies

    async def _beside(self, commands: tuple[Command, ...], errand: "_Errand") -> list[Any]:
        """What the servers of a Cluster say soon to what nothing depends on."""
        errand = replace(errand, until=min(errand.until, time.monotonic() + _BESIDE), durable=False)
        replies: list[Any] = [LOST] * len(commands)

        async def say(group: list[int]) -> None:
            part = await self._patiently(tuple(commands[i] for i in group), errand, essential=0)
            for index, reply in zip(group, part, strict=True):
                replies[index] = if_any(reply)

        await asyncio.gather(*map(say, _groups(await self._servers(commands, errand.until), at_once=True)))
        return replies

    async def _servers(self, commands: tuple[Command, ...], until: float) -> list[Node | None]:
        """Who has the keys of these commands."""
        slots = [slot_of(command) for command in commands]
        if any(self._topology.node(slot) is None for slot in slots):
            await self._learn(until)
        return [self._topology.node(slot) for slot in slots]

    async def _patiently(self, commands: tuple[Command, ...], errand: "_Errand", essential: int) -> list[Any]:
        """What one server says; a second try where it is harmless, to whoever answers for it then.

        The commands after the essential ones may get lost.
        """
        tries = 2 if essential and all(map(repeatable, commands[:essential])) and not errand.once else 1
        failed = errand.failed
        while True:
            tries -= 1
            if failed is None:
                try:
                    return await self._try(commands, errand.until, errand.durable and essential > 0)
                except Failed as failure:
                    failed = failure
            # What was refused unseen may be said to the next one, whatever it is.
            final = failed.final or (tries <= 0 and not (failed.unseen and tries == 0))
            if not failed.shed:  # else it has been told, and everybody would tell it again
                self._tell(failed.cause, final)
                await self._learn(errand.until)
            if final or time.monotonic() >= errand.until:
                return [unavailable(failed.cause) for _ in commands]
            failed = None

    def _tell(self, cause: Exception, final: bool) -> None:
        tell = log.warning if self._is_news(cause, final) else log.debug
        tell("store.failed", error=type(cause).__name__, reason=str(cause), final=final)

    def _is_news(self, cause: Exception, final: bool) -> bool:
        """Whether nothing of the kind was told lately: in an outage every request would tell it."""
        kind, now = (type(cause).__name__, str(cause), final), time.monotonic()
        if now < self._lately.get(kind, 0.0):
            return False
        if len(self._lately) >= _MOST_TOLD:
            self._lately.clear()
        self._lately[kind] = now + _NEWS_AGAIN
        return True

    async def _try(self, commands: tuple[Command, ...], until: float, durable: bool) -> list[Any]:
        """One try; raises `Failed` when Redis is not able to answer."""
        slot = slot_of(commands[0]) if self._topology.spread else None
        node = self._topology.node(slot)
        if node is None:
            await self._learn(until)
            node = self._topology.node(slot)
        elif node.leaving:
            node = await self._successor(node, slot, until)
        if node is None:
            metrics.REDIS_ERRORS.labels(self._topology.kind, "unknown_server").inc()
            raise Failed(StoreUnavailable(_NOBODY))
        replies = await self._say(node, commands, until, durable)
        if self._topology.spread:
            replies = await self._follow(commands, replies, until, durable)
        refused = [reply for reply in replies if passing(reply)]
        for reply in refused:
            metrics.REDIS_ERRORS.labels(self._topology.kind, str(passing(reply)).lower()).inc()
            log.warning("store.refused", error=type(reply).__name__, reason=str(reply))
            if passing(reply) == "READONLY":
                # The master has become a replica: these connections all lead there.
                await node.drop()
                written = any(
                    command[0] not in READS and not isinstance(answer, Exception)
                    for command, answer in zip(commands, replies, strict=True)
                )
                raise Failed(reply, unseen=not written)
        return [unavailable(reply) if passing(reply) else reply for reply in replies]

    async def _say(self, node: Node, commands: tuple[Command, ...], until: float, durable: bool) -> list[Any]:
        """Send to one server, and have it confirmed."""
        wait = durable and self._wait_replicas > 0
        sent = (*commands, ("WAIT", self._wait_replicas, REPLICAS)) if wait else commands
        replies = await node.send(sent, max(min(ANSWER, until - time.monotonic()), 0))
        if wait and (isinstance(confirmed := replies.pop(), Exception) or confirmed < self._wait_replicas):
            unconfirmed = StoreUnavailable("The change could not be confirmed; please try again")
            return [reply if isinstance(reply, Exception) else unconfirmed for reply in replies]
        return replies

    async def _follow(
        self, commands: tuple[Command, ...], replies: list[Any], until: float, durable: bool
    ) -> list[Any]:
        """Say again, to the server that has its slot, what was sent on; and the reads after it, to keep the order."""
        moved = False
        for index, (command, reply) in enumerate(zip(commands, replies, strict=True)):
            if redirected(reply) or (moved and command[0] in READS):
                moved = True
                replies[index] = await self._detour(command, reply, until, durable)
        return replies

    async def _detour(self, command: Command, reply: Any, until: float, durable: bool) -> Any:
        topology = self._topology
        assert isinstance(topology, Cluster)
        node = topology.node(slot_of(command))
        for _ in range(_DETOURS):
            commands: tuple[Command, ...] = (command,)
            if isinstance(reply, MovedError):
                node = topology.moved(reply.slot_id, (reply.host, reply.port), node)
            elif isinstance(reply, AskError):
                node, commands = topology.at((reply.host, reply.port), node), (("ASKING",), command)
            elif isinstance(reply, TryAgainError):
                await asyncio.sleep(_MOMENT)
            if node is None:
                break
            reply = (await self._say(node, commands, until, durable))[-1]
            if not redirected(reply):
                break
        return reply

    async def _at(self, node: Node, commands: tuple[Command, ...]) -> list[Any]:
        """Ask this very server; raises `StoreUnavailable`, or a refusal by Redis."""
        try:
            with waiting() as until:
                replies = await self._say(node, commands, until, durable=False)
        except Failed as failed:
            raise StoreUnavailable from failed.cause
        for reply in replies:
            if isinstance(reply, Exception):
                raise unavailable(reply) if passing(reply) else reply
        return replies

    async def _successor(self, node: Node, slot: int | None, until: float) -> Node | None:
        """Wait until the server that takes another's place is known: about a second, which is better than a 503."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                while node.leaving and self._topology.node(slot) is node:  # noqa: ASYNC110 it may just as well run out
                    await asyncio.sleep(_MOMENT)
        return self._topology.node(slot)

    async def _learn(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                await self._topology.learn()

    # The servers


def _groups(servers: list[Node | None], at_once: bool) -> list[list[int]]:
    """The indexes of what goes in one round trip: all for one server, or else only those that stand together."""
    groups: list[list[int]] = []
    place: dict[Node | None, list[int]] = {}
    for index, server in enumerate(servers):
        if not at_once:
            place = {known: group for known, group in place.items() if known is server}
        if server not in place:
            place[server] = []
            groups.append(place[server])
        place[server].append(index)
    return groups
