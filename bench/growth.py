"""How the cost of a verification grows: with users, with connections, with worker processes."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import targets
from bench.crowd import Crowd
from bench.ground import family, redis_on_a_port, usage_of_one
from bench.load import Ask, Load, press
from bench.race import WARM, figures
from bench.targets import Held, Ours, Target, ours
from service.settings import NAMES

USERS = (1, 1_000, 100_000, 1_000_000)
MANY_TOKENS = 100_000  # ten times what an instance remembers
AT_ONCE = (1, 4, 16, 64, 256)
WORKERS = (1, 2)


def with_users(home: Path, rounds: int, seconds: int, users: tuple[int, ...] = USERS) -> dict[str, Any]:
    """For each number of users, each with a session: the figures with a thousand live tokens, and with many.

    The Redis writes no file here, since a million users arrive at once; nothing is written while it is timed.
    """
    found: dict[str, Any] = {}
    inner = home / "users"
    inner.mkdir()
    with redis_on_a_port(inner, "--appendonly", "no") as (port, redis_pid):
        url = f"redis://127.0.0.1:{port}/0"
        with ours(inner, "users", url, REDIS_ALLOW_UNSAFE="on") as instance:
            crowd = Crowd(instance.settings)
            with targets.bare(inner, {180}) as bare:
                for count in users:
                    tokens = {f"{count:,}": targets.TOKENS}
                    if count >= MANY_TOKENS:
                        tokens[f"{count:,}, {MANY_TOKENS:,} tokens"] = MANY_TOKENS
                    for name, number in tokens.items():
                        held = crowd.grow(count, number)
                        found[name] = _beside(bare, instance, held, redis_pid, rounds, seconds)
                        found[name] |= {"users": count, "tokens": len(held)}
    return found


def _beside(
    bare: Target, instance: Ours, tokens: list[str], redis_pid: int, rounds: int, seconds: int
) -> dict[str, Any]:
    instance.tokens = bare.tokens = [Held(token) for token in tokens]
    asks = {"bare": (bare, Ask("bearer", "/180", bare.lines("get", tokens))), "ours": (instance, instance.verifying())}
    loads: dict[str, list[Load]] = {"bare": [], "ours": []}
    for target, ask in asks.values():
        press(target.port, ask, WARM, {})
    for _ in range(rounds):
        for name, (target, ask) in asks.items():
            loads[name].append(press(target.port, ask, seconds, {"server": target.pid, "redis": redis_pid}))
    return figures(loads["ours"], [load.each("server") for load in loads["bare"]])


def with_connections(
    instance: Ours, bare: Target, size: int, redis_pid: int, rounds: int, seconds: int
) -> dict[str, Any]:
    """For each number of connections the figures of ours and of the yardstick."""
    asks = {
        "bare": (bare, Ask("bearer", f"/{size}", bare.lines("get", [held.access for held in bare.tokens]))),
        "ours": (instance, instance.verifying()),
    }
    loads: dict[int, dict[str, list[Load]]] = {count: {"bare": [], "ours": []} for count in AT_ONCE}
    for _ in range(rounds):
        for count in AT_ONCE:
            for name, (target, ask) in asks.items():
                watched = {"server": target.pid, "redis": redis_pid}
                loads[count][name].append(press(target.port, ask, seconds, watched, count))
    found: dict[str, Any] = {}
    for count, its in loads.items():
        yardstick = [load.each("server") for load in its["bare"]]
        found[f"{count}"] = {name: figures(rows, yardstick) for name, rows in its.items()}
    return found


def with_workers(home: Path, url: str, redis_pid: int, rounds: int, seconds: int) -> dict[str, Any] | None:
    """For one process and for two: the figures, and how the work was shared. `None` while there is no such setting."""
    if "WORKERS" not in NAMES:
        return None
    loads: dict[int, list[Load]] = {count: [] for count in WORKERS}
    shares: dict[int, list[list[float]]] = {count: [] for count in WORKERS}
    for _ in range(rounds):
        for count in WORKERS:
            with ours(home, f"{count} workers", url, WORKERS=str(count)) as instance:
                instance.tokens = instance.sign_in(targets.TOKENS)
                ask = instance.verifying()
                press(instance.port, ask, WARM, {})
                before = _by_process(instance.pid)
                loads[count].append(press(instance.port, ask, seconds, {"server": instance.pid, "redis": redis_pid}))
                after = _by_process(instance.pid)
                shares[count].append(sorted(_shares(before, after)))
    yardstick = [load.each("server") for load in loads[1]]
    return {
        f"{count}": figures(rows, yardstick)
        | {
            "least share": round(statistics.median(share[0] for share in shares[count]), 3),
            "processes": len(shares[count][0]),
        }
        for count, rows in loads.items()
    }


def _by_process(pid: int) -> dict[int, float]:
    """Seconds of a core by process."""
    return {process: usage_of_one(process)[0] for process in family(pid)}


def _shares(before: Mapping[int, float], after: Mapping[int, float]) -> list[float]:
    """What part of the work each process did, of those that did any to speak of: a supervisor does none."""
    grown = [used - before.get(pid, 0) for pid, used in after.items()]
    working = [used for used in grown if used > 0.02 * sum(grown)]
    return [used / sum(working) for used in working]
