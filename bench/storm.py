"""Log-ins: as many as the cores can hash, and what everybody else notices meanwhile."""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from argon2 import PasswordHasher

from bench.load import Ask, Load, finish, press, start
from bench.people import PASSWORD
from bench.targets import VERIFY, Ours, Target
from service.accounts.passwords import ARGON2ID

KEEPING_BUSY = 16  # connections that keep every core hashing and nobody waiting for long
LOGGING_IN = 64  # connections: each signs in, and again at once
VERIFYING = 8  # connections of another pool
PACE = 10  # ms that each of those waits before it asks again: some hundreds a second, nothing that saturates
PEOPLE = 16  # who signs in, where each hash costs a twentieth of a second
CALM_WITHIN = 20.0  # seconds
AHEAD = 1.0  # seconds for the storm to rise


def log_ins(instance: Ours, redis_pid: int, rounds: int, seconds: int) -> dict[str, Any]:
    """Log-ins a second and their processor time, beside the bare hash on all cores."""
    bare, loads = list[tuple[float, float]](), list[Load]()
    ask = instance.logging_in()
    for _ in range(rounds):
        bare.append(_hash(seconds))
        watched = {"server": instance.pid, "redis": redis_pid}
        loads.append(press(instance.port, ask, seconds, watched, KEEPING_BUSY, losses=True))
    slower = [rate / load.granted for (rate, _), load in zip(bare, loads, strict=True)]
    dearer = [
        load.used["server"] / (load.granted * load.seconds) / each for (_, each), load in zip(bare, loads, strict=True)
    ]
    return {
        "hashes per s": round(statistics.median(rate for rate, _ in bare), 1),
        "log-ins per s": round(statistics.median(load.granted for load in loads), 1),
        "refused": sum(load.refused for load in loads),
        "hash ms": round(statistics.median(each for _, each in bare) * 1000, 2),
        "log-in ms": round(
            statistics.median(load.used["server"] / (load.granted * load.seconds) for load in loads) * 1000, 2
        ),
        "throughput ratio": round(statistics.median(slower), 3),
        "processor ratio": round(statistics.median(dearer), 3),
        "spread": round((max(slower) - min(slower)) / statistics.median(slower), 3),
    }


def _hash(seconds: float) -> tuple[float, float]:
    """How many passwords a second argon2 alone verifies on all cores, and the seconds of a core for each."""
    hasher = PasswordHasher.from_parameters(ARGON2ID)
    phc, until, cores = hasher.hash(PASSWORD), time.monotonic() + seconds, len(os.sched_getaffinity(0))

    def some(_: int) -> int:
        count = 0
        while time.monotonic() < until:
            hasher.verify(phc, PASSWORD)
            count += 1
        return count

    began, used = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(cores) as threads:
        count = sum(threads.map(some, range(cores)))
    return count / (time.monotonic() - began), (time.process_time() - used) / count


def _calm(target: Target) -> None:
    """Wait until what an earlier storm left behind is done."""
    until, soon = time.monotonic() + CALM_WITHIN, 0
    while soon < 3 and time.monotonic() < until:
        began = time.monotonic()
        target.call("GET", VERIFY, token=target.tokens[0].access)
        soon = soon + 1 if time.monotonic() - began < 0.1 else 0


def _verify(target: Target, ask: Ask, seconds: int) -> Load:
    """Verify for some seconds. Where nothing was answered, it took the whole time at least."""
    load = finish(start(target.port, ask, seconds, VERIFYING, PACE), ask, seconds, losses=True)
    return load if load.answers else replace(load, p99=seconds * 1000, longest=seconds * 1000)


def verifying(target: Target, rounds: int, seconds: int) -> dict[str, Any]:
    """How long a verification takes while nothing else happens, and in a storm of log-ins; milliseconds."""
    ask, storm = target.verifying(), target.logging_in(PEOPLE)
    quiet, loud, log_ins = list[Load](), list[Load](), list[Load]()
    for _ in range(rounds):
        _calm(target)
        quiet.append(_verify(target, ask, seconds))
        raging = start(target.port, storm, seconds + 2, LOGGING_IN)
        time.sleep(AHEAD)
        loud.append(_verify(target, ask, seconds))
        log_ins.append(finish(raging, storm, seconds + 2, losses=True))
    slower = [storm.p99 / calm.p99 for calm, storm in zip(quiet, loud, strict=True)]
    return {
        "quiet p99 ms": round(statistics.median(load.p99 for load in quiet), 2),
        "storm p99 ms": round(statistics.median(load.p99 for load in loud), 2),
        "times": round(statistics.median(slower), 2),
        "longest ms": round(max(load.longest for load in loud), 1),
        "quiet per s": round(statistics.median(load.answers / load.seconds for load in quiet)),
        "storm per s": round(statistics.median(load.answers / load.seconds for load in loud)),
        "log-ins per s": round(statistics.median(load.granted for load in log_ins), 1),
        "log-ins refused": sum(load.refused for load in log_ins),
        "rounds": [round(one, 2) for one in slower],
    }
