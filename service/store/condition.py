"""The condition of Redis: how it is set up, and how it could lose or forget what it is told."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from service.errors import StoreUnavailable
from service.store.commands import Command
from service.store.node import Node

# What this server says; raises `StoreUnavailable`, or a refusal by Redis.
Ask = Callable[[Node, tuple[Command, ...]], Awaitable[list[Any]]]

_ASKED: tuple[Command, ...] = (
    *(("INFO", section) for section in ("server", "memory", "persistence", "replication")),
    ("TIME",),
)


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


async def condition_of(servers: Sequence[Node], ask: Ask, spread: bool) -> Condition:
    """How these are set up, from `INFO`; what a managed Redis does not tell is a danger of its own.

    `spread` says that they are known as those of a Cluster.
    """
    found = await asyncio.gather(*(_condition_of(node, ask, spread) for node in servers))
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


async def _condition_of(node: Node, ask: Ask, spread: bool) -> tuple[Condition, float]:
    """The condition of one server, and its clock."""
    try:
        *replies, moment = await ask(node, _ASKED)
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
    if told.get("redis_mode") == "cluster" and not spread:
        dangers.append("this Redis is part of a Cluster: write REDIS_URL=redis+cluster://…")
    if policy != "noeviction":
        dangers.append(f"maxmemory-policy is {policy}: Redis may forget sessions and accounts; set noeviction")
    if not appendonly:
        dangers.append("appendonly is off: a restart of Redis loses what happened since its last snapshot")
    replicas = int(told.get("connected_slaves", 0))
    memory, limit = (int(told.get(name, 0)) for name in ("used_memory", "maxmemory"))
    condition = Condition(version, appendonly, policy, tuple(dangers), told.get("role"), replicas, memory, limit)
    return condition, int(moment[0]) + int(moment[1]) / 1e6


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
