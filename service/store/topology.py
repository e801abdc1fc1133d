"""Which server answers for which key: one server, the master that Sentinels name, or the servers of a Cluster."""

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from service.store.address import Address, Host
from service.store.memory import Memory
from service.store.node import CONNECT, Failed, Node, client

log = structlog.get_logger("service.store")

SLOTS = 16384
_OFTEN = 0.1  # seconds between two looks at least, however many ask for one

# What Sentinels publish: the next thing is that a replica becomes a master; and how that ended.
_PROMOTING = ("+failover-state-send-slaveof-noone",)
_SWITCHED = "+switch-master"
_OVER = (_SWITCHED, "-failover-abort-slave-timeout", "-failover-abort-no-good-slave")
_PROMOTED_WITHIN = 5.0  # seconds after which a promotion that nobody told the end of has failed
_SILENCE = 10.0  # seconds in which a Sentinel may have nothing to say


class Topology(ABC):
    """The servers that hold our keys. What is known of them may be old; `learn` looks again."""

    kind = "single"  # what Redis is, as metrics tell it
    spread = False  # whether keys are on several servers

    def __init__(self) -> None:
        self.changed = asyncio.Event()  # set when a look has found another layout
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._lost = False  # whether the last look found nobody who knows; told once
        self._closing: set[asyncio.Task[None]] = set()
        self._memory: Memory | None = None

    def remember(self, memory: Memory) -> None:
        """Keep in this memory what the servers promise to tell changes of."""
        self._memory = memory
        for node in self.nodes():
            node.remember(memory)

    @abstractmethod
    def node(self, slot: int | None) -> Node | None:
        """The server for a slot, any fixed one for `None`; `None` where that is not known."""

    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """Every server that answers for keys, always in the same order."""

    async def learn(self) -> None:
        """Look again who answers for what; whoever asks while somebody looks waits for that look. Never fails."""
        if self._looking is None or self._looking.done():
            if time.monotonic() - self._looked < _OFTEN:
                return
            self._looking = asyncio.create_task(self._learn())
            self._looking.add_done_callback(self._seen)
        await asyncio.wait({self._looking})

    async def listen(self) -> None:
        """Hear of changes as they happen, where somebody tells of them, for as long as this runs. Never fails."""
        return

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
        for node in self.nodes():
            await node.close()

    @abstractmethod
    async def _look(self) -> None: ...

    def _make(self, redis: Redis, host: Host) -> Node:
        node = Node(redis, f"{host[0]}:{host[1]}", self.kind)
        node.remember(self._memory)
        return node

    def _let_go(self, node: Node) -> None:
        """Close a server's connections while others go on."""
        self._closing.add(task := asyncio.create_task(node.close()))
        task.add_done_callback(self._closing.discard)

    async def _learn(self) -> None:
        try:
            await self._look()
        except Exception:
            # Whatever it is: what was known stays, and the next look may do better.
            log.exception("store.look_failed")

    def _seen(self, _: object) -> None:
        self._looked = time.monotonic()


class Single(Topology):
    """One server."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._node = Node(redis, kind=self.kind)

    def node(self, slot: int | None) -> Node:
        return self._node

    def nodes(self) -> tuple[Node, ...]:
        return (self._node,)

    async def learn(self) -> None:
        """There is nothing to learn: it is where its address says."""

    async def _look(self) -> None: ...


class Sentinels(Topology):
    """The master that Sentinels name: the one of the latest failover that any of them knows.

    In a failover that an operator asks for, the old master goes on taking writes for about ten seconds and loses them
    all. So the Sentinels are listened to as well: nothing is sent to it from the moment its successor is promoted
    until that one is known.
    """

    kind = "sentinel"

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._sentinels = [client(address.sentinel_options, host) for host in address.hosts]
        self._master: Node | None = None
        self._where: Host | None = None

    def node(self, slot: int | None) -> Node | None:
        return self._master

    def nodes(self) -> tuple[Node, ...]:
        return (self._master,) if self._master else ()

    async def listen(self) -> None:
        await asyncio.gather(*map(self._listen_to, self._sentinels))

    async def close(self) -> None:
        await super().close()
        for sentinel in self._sentinels:
            await sentinel.aclose()
            await sentinel.connection_pool.disconnect()

    async def _look(self) -> None:
        answers = await asyncio.gather(*map(self._ask, self._sentinels))
        if not (told := [answer for answer in answers if answer]):
            if not self._lost:
                log.warning("store.no_sentinel", master=self._address.master, asked=len(answers))
            self._lost = True
            return
        self._lost = False
        # One that was cut off may still name the master of before.
        _, where = max(told)
        if where == self._where:
            return
        log.info("store.master", host=where[0], port=where[1], before=self._where)
        former, self._where = self._master, where
        self._master = self._make(client(self._address.options, where, only_master=True), where)
        self.changed.set()
        if former:
            self._let_go(former)

    async def _listen_to(self, sentinel: Redis) -> None:
        while True:
            try:
                async with sentinel.pubsub(ignore_subscribe_messages=True) as told:
                    await told.subscribe(*_PROMOTING, *_OVER)
                    await self._hear_all(told)
            except (TimeoutError, RedisError, OSError) as error:
                log.debug("store.sentinel_silent", error=str(error))
            except Exception:
                # Whatever it is, it is one message of one Sentinel; deaf, we would follow a master that is replaced.
                log.exception("store.listening_failed")
            await asyncio.sleep(_SILENCE / 10)

    async def _hear_all(self, told: PubSub) -> None:
        """What one Sentinel publishes; raises `TimeoutError` when it does not even answer a ping."""
        heard = time.monotonic()
        while time.monotonic() - heard < 3 * _SILENCE:
            event = await told.get_message(timeout=_SILENCE)
            if event is None:
                await told.ping()
                continue
            heard = time.monotonic()
            if event["type"] == "message" and self._address.master in str(event["data"]).split():
                self._hear(str(event["channel"]))
        raise TimeoutError

    def _hear(self, event: str) -> None:
        log.info("store.failover", told=event)
        if self._master and event != _SWITCHED:
            self._master.leaving_until = time.monotonic() + _PROMOTED_WITHIN if event in _PROMOTING else 0.0
            self._master.leave()
        if event not in _PROMOTING:
            self._looked = 0.0
            self.changed.set()

    async def _ask(self, sentinel: Redis) -> tuple[int, Host] | None:
        """What one of them knows: the number of the failover, and where the master is since.

        The one that leads a failover counts it from the promotion on, but names the former master among its facts
        until every replica follows the new one: only the second question is answered with the address that clients
        should use. It comes second, so that an address is never older than its number.
        """
        name = self._address.master
        try:
            async with asyncio.timeout(CONNECT):
                facts = _mapping(await sentinel.execute_command("SENTINEL", "MASTER", name))  # type: ignore[no-untyped-call]
                where = await sentinel.execute_command(  # type: ignore[no-untyped-call]
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name
                )
        except (TimeoutError, RedisError, OSError) as error:
            log.debug("store.sentinel_silent", error=str(error))
            return None
        return (int(facts["config-epoch"]), (str(where[0]), int(where[1]))) if where else None


class Cluster(Topology):
    """The servers of a Cluster, each with its slots."""

    kind = "cluster"
    spread = True

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._nodes: dict[Host, Node] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._masters: tuple[Node, ...] = ()

    def node(self, slot: int | None) -> Node | None:
        if slot is None:
            return self._masters[0] if self._masters else None
        return self._slots[slot]

    def nodes(self) -> tuple[Node, ...]:
        return self._masters

    def at(self, host: Host, teller: Node | None = None) -> Node:
        """The server at an address that another one has told; without a host it is where that one is."""
        if not host[0] and teller:
            host = (teller.name.rpartition(":")[0], host[1])
        if host not in self._nodes:
            self._nodes[host] = self._make(client(self._address.options, host), host)
        return self._nodes[host]

    def moved(self, slot: int, host: Host, teller: Node | None = None) -> Node:
        """Another server answers for this slot from now on."""
        self._slots[slot] = node = self.at(host, teller)
        self._forget()
        self.changed.set()
        return node

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
        for node in self._nodes.values():
            await node.close()

    async def _look(self) -> None:
        """Ask a few of the servers at once; the first that knows every slot is believed."""
        known = [host for host in self._nodes if host not in self._address.hosts]
        asked = random.sample(known, min(len(known), 3)) + random.sample(self._address.hosts, len(self._address.hosts))
        partial: list[Any] | None = None
        for some in (asked[i : i + 3] for i in range(0, len(asked), 3)):
            tasks = [asyncio.create_task(self._ask(host)) for host in some]
            try:
                for answer in asyncio.as_completed(tasks):
                    if not (ranges := await answer):
                        continue
                    if sum(last - first + 1 for first, last, _ in ranges) == SLOTS:
                        self._lost = False
                        self._believe(ranges)
                        return
                    partial = ranges
            finally:
                for task in tasks:
                    task.cancel()
        if partial is None:
            if not self._lost:
                log.warning("store.no_cluster", asked=len(asked))
            self._lost = True
        else:
            self._lost = False
            self._believe(partial)

    async def _ask(self, host: Host) -> list[tuple[int, int, Host]]:
        """The ranges of slots with their masters, as one server knows them; empty where it does not answer."""
        try:
            (told,) = await self.at(host).send((("CLUSTER", "SLOTS"),), CONNECT)
        except Failed as error:
            log.debug("store.cluster_silent", server=host, error=str(error))
            return []
        if isinstance(told, Exception):
            log.warning("store.no_cluster_mode", server=host, reason=str(told))
            return []
        # A server that does not know its own address leaves it empty: it is where it was asked.
        return [
            (int(first), int(last), (str(master[0] or host[0]), int(master[1]))) for first, last, master, *_ in told
        ]

    def _believe(self, ranges: list[tuple[int, int, Host]]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, host in ranges:
            slots[first : last + 1] = [self.at(host)] * (last - first + 1)
        masters = tuple(self.at(host) for host in sorted({host for *_, host in ranges}))
        if masters != self._masters:
            log.info("store.cluster", masters=[node.name for node in masters])
            self.changed.set()
        if slots != self._slots:
            self._forget()
        self._slots, self._masters = slots, masters
        for host in [host for host, node in self._nodes.items() if node.given_up and node not in masters]:
            self._let_go(self._nodes.pop(host))

    def _forget(self) -> None:
        """What was heard of a slot when it was here or there may not be told of any more."""
        if self._memory is not None:
            self._memory.clear()


def reach(url: str) -> Topology:
    """The topology behind a `REDIS_URL`; nothing is asked yet."""
    address = Address.read(url)
    match address.kind:
        case "sentinel":
            return Sentinels(address)
        case "cluster":
            return Cluster(address)
        case _:
            return Single(client(address.options, address.host, only_master=True))


def _mapping(told: Any) -> Mapping[str, Any]:
    """A reply of names and values, whichever shape the protocol gave it."""
    if isinstance(told, Mapping):
        return told
    flat = iter(told)
    with contextlib.suppress(TypeError):
        return dict(zip(flat, flat, strict=True))
    raise ValueError(told)
