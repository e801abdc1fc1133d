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
  again (`insist`).

The commands of one call are run in their order, and together as far as they are for the same server. In a Cluster a
server is asked when the one before has answered; all at once for reads alone, and where the caller says that nothing
depends on the order (`apart`). A script that a server does not know any more is given to it and run then, after the
writes that stood behind it.
"""

import asyncio
import contextvars
import math
import re
import time
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import structlog
from redis.exceptions import AskError, MovedError, NoPermissionError, ResponseError, TryAgainError

from service import metrics
from service.errors import StoreUnavailable
from service.store.address import Host
from service.store.commands import READS, Command, key_of, repeatable, slot_of
from service.store.memory import Memory
from service.store.node import ANSWER, Failed, Identity, Node
from service.store.topology import Cluster, Topology

log = structlog.get_logger("service.store")

PATIENCE = 2.0  # seconds one request may wait for Redis in all
REPLICAS = 500  # milliseconds to wait for replicas to confirm
WATCH_EVERY, WATCH_SOON = 1.0, 0.25  # seconds between two looks at the servers; soon again while one is away
INSISTS = 60.0  # seconds in which a change of master may have lost what was acknowledged
_MOST_INSISTED = 20_000
_TOGETHER = 200  # commands said again in one round trip
_DETOURS = 5  # servers that one command may be sent on to
_BESIDE = 0.25  # seconds that anybody waits for what nothing depends on, at a server of its own
_MOMENT = 0.02  # seconds until a key that is on its way has arrived


class Lost(Enum):
    """What stands for a reply that did not come, where there may be none."""

    LOST = "lost"


LOST = Lost.LOST

_PASSING = re.compile(
    r"\b(READONLY|LOADING|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|WRONGPASS|NOPERM"
    r"|MOVED|ASK)\b"
)
_left: contextvars.ContextVar["Patience | None"] = contextvars.ContextVar("left", default=None)


@dataclass
class Patience:
    """What is left of the time that one request may wait for Redis, in seconds."""

    seconds: float


def be_patient() -> None:
    """All Redis calls of this context share one allowance of waiting."""
    _left.set(Patience(PATIENCE))


@contextmanager
def patience() -> Iterator[None]:
    """All Redis calls in this block share one allowance of waiting."""
    token = _left.set(Patience(PATIENCE))
    try:
        yield
    finally:
        _left.reset(token)


@contextmanager
def _waiting() -> Iterator[float]:
    """Until when (monotonic, in seconds) this call may wait; what it has waited is taken off the allowance."""
    left, began = _left.get(), time.monotonic()
    try:
        yield began + (2 * ANSWER if left is None else left.seconds)
    finally:
        if left is not None:
            left.seconds -= time.monotonic() - began


@dataclass(frozen=True)
class Condition:
    """What Redis says of itself; `dangers` are sentences about how it could lose or forget what it is told.

    Of several servers it is the worst that any of them says.
    """

    version: str = "unknown"
    appendonly: bool | None = None
    maxmemory_policy: str | None = None
    dangers: tuple[str, ...] = ()
    role: str | None = None
    replicas: int = 0
    memory: int = 0  # bytes, of the server that has the least room
    memory_limit: int = 0  # bytes; 0 is no bound


@dataclass(slots=True)
class _Glance:
    command: Command
    failed: Failed | None  # how its first try went, if it had one
    reply: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


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
        self._glances: list[_Glance] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._insisted: OrderedDict[Command, float] = OrderedDict()  # and when it was, the earliest first
        self._masters: dict[str, str] = {}
        self._owing = False  # a new master has not heard yet what is insisted on

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
        # As `_waiting` does, which costs as much as the rest.
        left, began = _left.get(), time.monotonic()
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
            left, began = _left.get(), time.monotonic()
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
        self._glances.append(glance := _Glance(command, failed))
        if len(self._glances) == 1:
            asyncio.get_running_loop().call_soon(self._take_off, context=contextvars.Context())
        with _waiting() as until:
            try:
                async with asyncio.timeout(None if _left.get() is None else max(until - time.monotonic(), 0)):
                    return await glance.reply
            except TimeoutError as error:
                raise StoreUnavailable from error

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
        with _waiting() as until:
            asked = (("SCAN", place, "MATCH", pattern, "COUNT", 500),)
            (reply,) = await self._at(servers[server], asked, until)
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
        self._insisted[command] = time.monotonic()  # repeated, it takes no place of another
        self._insisted.move_to_end(command)
        if len(self._insisted) > _MOST_INSISTED:
            self._insisted.popitem(last=False)

    async def watch(self) -> None:
        """Look at the servers for as long as this runs, so that a new master is noticed at once."""
        listening = asyncio.create_task(self._topology.listen())
        try:
            await self._keep_looking_around()
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

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
                async with asyncio.timeout(WATCH_SOON if soon else WATCH_EVERY):
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

    async def condition(self) -> Condition:
        """How Redis is set up, from `INFO`; what a managed Redis does not tell is a danger of its own."""
        if not self._topology.nodes():
            await self._topology.learn()
        if not (servers := self._topology.nodes()):
            raise StoreUnavailable
        found = await asyncio.gather(*map(self._condition_of, servers))
        conditions = [condition for condition, _ in found]
        several = len(conditions) > 1
        fullest = max(
            conditions,
            key=lambda condition: (condition.memory / (condition.memory_limit or math.inf), condition.memory),
        )
        dangers = [
            f"{node.name}: {danger}" if several else danger
            for node, condition in zip(servers, conditions, strict=True)
            for danger in condition.dangers
        ]
        clocks = [clock for _, clock in found if clock]
        if several and clocks and max(clocks) - min(clocks) > 2:
            dangers.append(f"the clocks of the Redis servers are {max(clocks) - min(clocks):.0f} s apart; run NTP")
        return Condition(
            min((condition.version for condition in conditions), key=_numbers),
            all(condition.appendonly for condition in conditions),
            next((c.maxmemory_policy for c in conditions if c.maxmemory_policy != "noeviction"), "noeviction"),
            tuple(dangers),
            next((c.role for c in conditions if c.role != "master"), "master"),
            min(condition.replicas for condition in conditions),
            fullest.memory,
            fullest.memory_limit,
        )

    def observe(self) -> None:
        """Tell the metrics how many servers there are, and how many of them are given up for now."""
        servers, kind = self._topology.nodes(), self._topology.kind
        metrics.REDIS_SERVERS.labels(kind).set(len(servers))
        metrics.REDIS_GIVEN_UP.labels(kind).set(sum(node.given_up for node in servers))

    async def close(self) -> None:
        await self._topology.close()

    # Glances

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
            with _waiting() as until:
                replies = await self._deliver(commands, _Errand(until, failed=glances[0].failed))
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
            return [*replies[: len(commands)], *map(_if_any, replies[len(commands) : len(commands) + len(hints)])]
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
                replies[index] = _if_any(reply)

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
                error = type(failed.cause).__name__
                log.warning("store.failed", error=error, reason=str(failed.cause), final=final)
                await self._learn(errand.until)
            if final or time.monotonic() >= errand.until:
                return [_unavailable(failed.cause) for _ in commands]
            failed = None

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
            raise Failed(StoreUnavailable("Nobody knows which server to ask"))
        replies = await self._say(node, commands, until, durable)
        if self._topology.spread:
            replies = await self._follow(commands, replies, until, durable)
        refused = [reply for reply in replies if _passing(reply)]
        for reply in refused:
            metrics.REDIS_ERRORS.labels(self._topology.kind, str(_passing(reply)).lower()).inc()
            log.warning("store.refused", error=type(reply).__name__, reason=str(reply))
            if _passing(reply) == "READONLY":
                # The master has become a replica: these connections all lead there.
                await node.drop()
                written = any(
                    command[0] not in READS and not isinstance(answer, Exception)
                    for command, answer in zip(commands, replies, strict=True)
                )
                raise Failed(reply, unseen=not written)
        return [_unavailable(reply) if _passing(reply) else reply for reply in replies]

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
            if _redirected(reply) or (moved and command[0] in READS):
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
            if not _redirected(reply):
                break
        return reply

    async def _at(self, node: Node, commands: tuple[Command, ...], until: float) -> list[Any]:
        """Ask this very server; raises `StoreUnavailable`, or a refusal by Redis."""
        try:
            replies = await self._say(node, commands, until, durable=False)
        except Failed as failed:
            raise StoreUnavailable from failed.cause
        for reply in replies:
            if isinstance(reply, Exception):
                raise _unavailable(reply) if _passing(reply) else reply
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
                await self.run(*commands[start : start + _TOGETHER], apart=True)
            except (StoreUnavailable, ResponseError) as error:
                log.warning("store.not_said_again", commands=len(commands) - start, reason=str(error))
                return
        self._owing = False
        log.info("store.said_again", commands=len(commands))

    async def _condition_of(self, node: Node) -> tuple[Condition, float]:
        """The condition of one server, and its clock."""
        sections = ("server", "memory", "persistence", "replication")
        asked: tuple[Command, ...] = (*(("INFO", section) for section in sections), ("TIME",))
        try:
            with _waiting() as until:
                *replies, moment = await self._at(node, asked, until)
        except (ResponseError, StoreUnavailable) as refusal:
            if isinstance(refusal, StoreUnavailable) and not isinstance(refusal.__cause__, NoPermissionError):
                raise
            return Condition(dangers=("Redis does not answer INFO, so its persistence cannot be checked",)), 0
        told: dict[str, Any] = {name: value for reply in replies for name, value in reply.items()}
        version = str(told.get("redis_version", "0"))
        policy = told.get("maxmemory_policy")
        appendonly = bool(told.get("aof_enabled", 0))
        dangers = []
        if _numbers(version)[:2] < (6, 2):
            dangers.append(f"Redis {version} is too old: 6.2 or newer is needed")
        if told.get("redis_mode") == "cluster" and not self._topology.spread:
            dangers.append("this Redis is part of a Cluster: write REDIS_URL=redis+cluster://…")
        if policy != "noeviction":
            dangers.append(f"maxmemory-policy is {policy}: Redis may forget sessions and accounts; set noeviction")
        if not appendonly:
            dangers.append("appendonly is off: a restart of Redis loses what happened since its last snapshot")
        replicas = int(told.get("connected_slaves", 0))
        memory, limit = (int(told.get(name, 0)) for name in ("used_memory", "maxmemory"))
        condition = Condition(version, appendonly, policy, tuple(dangers), told.get("role"), replicas, memory, limit)
        return condition, int(moment[0]) + int(moment[1]) / 1e6


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


def _passing(reply: Any) -> str | None:
    """The word for a refusal that will pass; `None` for an answer, and for a mistake of ours."""
    if not isinstance(reply, ResponseError):
        return None
    if isinstance(reply, AskError):
        return "MOVED"  # by a Cluster that is not known as one, or that sends in a circle
    # The library cuts the codes it knows off the text; in a script's error the code may stand in the middle.
    passing = _PASSING.search(f"{reply.status_code} {reply}")
    return passing[1] if passing else None


def _if_any(reply: Any) -> Any:
    return LOST if isinstance(reply, Exception) else reply


def _redirected(reply: Any) -> bool:
    return isinstance(reply, AskError | TryAgainError)


def _unavailable(cause: Exception) -> StoreUnavailable:
    if isinstance(cause, StoreUnavailable):
        return cause
    error = StoreUnavailable()
    error.__cause__ = cause
    return error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
