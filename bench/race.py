"""Requests against the bare handler: each kind of work, on each target in turn, round after round."""

import json
import secrets
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench import people
from bench.load import Ask, Load, press
from bench.targets import TOKENS, Ours, Target, forged, garbage_token

SATURATED = 0.9  # of the time at work or waiting for a core: less means that it waited for something else
WARM = 1  # seconds before a target is timed, for what compiles while it runs


@dataclass(frozen=True)
class Work:
    """A kind of request; `bare` makes the same of the yardstick."""

    title: str
    asking: Callable[[Target], Ask]
    post: bool = False


def _garbage(target: Target) -> Ask:
    return target.refused("garbage", [garbage_token(held.access) for held in target.tokens])


def _expired(target: Target) -> Ask:
    assert isinstance(target, Ours)
    return target.refused("expired", target.expired)


def _forged(target: Target) -> Ask:
    return target.refused("forged", [forged(held.access) for held in target.tokens])


WORKS = {
    "verify": Work(f"`GET /api/auth/verify`, {TOKENS:,} live tokens", Target.verifying),
    "me": Work("`GET /api/auth/me`, the same", Target.asking_me),
    "refresh": Work("`POST /api/auth/refresh`, token mode, 64 sessions rotating", Target.refreshing, post=True),
    "limited": Work("`POST /api/auth/login`, refused with 429", Target.refused_log_in, post=True),
    "garbage": Work("verify, garbage for a token", _garbage),
    "expired": Work("verify, expired tokens", _expired),
    "forged": Work("verify, real tokens with forged signatures", _forged),
}


@dataclass(frozen=True)
class Entry:
    """A target in the race for one kind of work."""

    name: str
    target: Target
    asking: Callable[[], Ask]


def entries(work: str, bare: Target, size: int, others: Iterable[Target]) -> list[Entry]:
    """The yardstick first, then the others."""
    of = WORKS[work]
    if of.post:
        sent = json.dumps({"refreshToken": f"rt_{secrets.token_urlsafe(64)}"})
        if work == "limited":
            sent = json.dumps({"email": people.email(0), "password": people.PASSWORD})
        first = [Entry("bare", bare, lambda: Ask("body", f"/{size}", bare.lines("post", [sent])))]
    else:

        def lines() -> Any:
            return bare.lines("get", [held.access for held in bare.tokens])

        first = [Entry("bare", bare, lambda: Ask("bearer", f"/{size}", lines()))]
        if work == "verify":
            first.append(Entry("bare, encoded beforehand", bare, lambda: Ask("bearer", f"/bytes/{size}", lines())))
    return first + [Entry(target.name, target, _asking(of, target)) for target in others]


def _asking(of: Work, target: Target) -> Callable[[], Ask]:
    return lambda: of.asking(target)


def run(entered: list[Entry], redis_pid: int, rounds: int, seconds: int) -> dict[str, dict[str, Any]]:
    """Figures of each by name: medians over the rounds, and how far these are apart."""
    for entry in entered:
        press(entry.target.port, entry.asking(), WARM, {})
    first, *others = entered
    loads: dict[str, list[Load]] = {entry.name: [] for entry in others}
    beside: dict[str, list[float]] = {entry.name: [] for entry in others}

    def timed(entry: Entry) -> Load:
        watched = {"server": entry.target.pid, "redis": redis_pid}
        return press(entry.target.port, entry.asking(), seconds, watched)

    # The yardstick is laid on before and after each: how fast a machine is may change within seconds.
    bare = [timed(first)]
    for number in range(rounds):
        # Who comes first changes, so that nobody is always the one after a particular other.
        turn = number % len(others)
        for entry in others[turn:] + others[:turn]:
            loads[entry.name].append(timed(entry))
            bare.append(timed(first))
            beside[entry.name].append(statistics.mean(load.each("server") for load in bare[-2:]))
    found = {first.name: figures(bare, [load.each("server") for load in bare])}
    return found | {name: figures(its, beside[name]) for name, its in loads.items()}


def figures(loads: list[Load], yardstick: list[float]) -> dict[str, Any]:
    """What the rounds say of one target; each load is compared with the yardstick's time beside it."""
    each = [load.each("server") for load in loads]
    ratios = [own / bare for own, bare in zip(each, yardstick, strict=True)]
    median = statistics.median
    return {
        "ratio": round(median(ratios), 3),
        "ratio spread": round((max(ratios) - min(ratios)) / median(ratios), 3),
        "us": round(median(each), 2),
        "us spread": round((max(each) - min(each)) / median(each), 3),
        "redis us": round(median(load.each("redis") for load in loads), 2),
        "answers per s": round(median(load.answers / load.seconds for load in loads)),
        "busy": round(median(load.busy("server") for load in loads), 3),
        "never idle": round(median(load.full("server") for load in loads), 3),
        "redis busy": round(median(load.busy("redis") for load in loads), 3),
        "wrk busy": round(median(load.busy("wrk") for load in loads), 3),
        "bytes": round(median(load.bytes / load.answers for load in loads)),
        "p50 ms": round(median(load.p50 for load in loads), 3),
        "p99 ms": round(median(load.p99 for load in loads), 3),
        "rounds": [
            {"ratio": round(ratio, 3), "us": round(own, 2), "answers": load.answers}
            for ratio, own, load in zip(ratios, each, loads, strict=True)
        ],
    }
