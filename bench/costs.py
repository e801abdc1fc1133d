"""`python -m bench.costs`: what a request costs an instance and Redis, in time of a processor and in bytes.

A real instance on a real Redis, both on their own, under `wrk` for some seconds with each kind of request in turn; what
the two processes have used meanwhile is divided by the answers. A bare aiohttp handler is measured beside them. Rounds
are interleaved and the median is told: on a machine with other work, that is what can be had.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from bench import targets
from bench.ground import Figures, Results, processor, redis_on_a_port, run
from bench.load import Ask, Load, press
from bench.people import PASSWORD
from bench.targets import Ours, Target

PEOPLE = 100
NEWCOMERS = 2000  # in each round; more than can register meanwhile
ENTRIES = 1_000_000  # members of the index whose commands are measured
MARKS = 20_000  # commands of each kind that are measured on Redis alone
BARE_SIZE = 16  # bytes
KINDS = {"bare": 32, "health": 32, "verify": 32, "me": 32, "refresh": 32, "login": 4, "register": 4}  # connections


class Redis:
    """What a Redis has done so far."""

    def __init__(self, port: int, pid: int) -> None:
        self.client = redis.Redis(port=port, decode_responses=True)
        self.pid = pid

    def told(self) -> dict[str, float]:
        stats, commands = self.client.info("stats"), self.client.info("commandstats")
        found = {"at": time.monotonic(), "processor": processor(self.pid)}
        found |= {"in": stats["total_net_input_bytes"], "out": stats["total_net_output_bytes"]}
        found |= {f"calls {name.removeprefix('cmdstat_')}": one["calls"] for name, one in commands.items()}
        return {name: float(value) for name, value in found.items()}


def measure_requests(home: Path, rounds: int, seconds: int) -> dict[str, Figures]:
    """For each kind of request the medians over the rounds, for each answer: microseconds, bytes, commands."""
    found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    with (
        redis_on_a_port(home) as (port, redis_pid),
        targets.ours(home, "costs", f"redis://127.0.0.1:{port}/0", log=True) as instance,
        targets.bare(home, {BARE_SIZE}) as bare,
    ):
        its_redis = Redis(port, redis_pid)
        for number in range(rounds):
            instance.tokens = instance.sign_in(PEOPLE)
            bare.tokens = instance.tokens
            idle = _idle(its_redis, instance.pid)
            for kind, connections in KINDS.items():
                target: Target = bare if kind == "bare" else instance
                asking = _asking(kind, bare, instance, number)
                before = its_redis.told()
                load = press(target.port, asking, seconds, {"server": target.pid}, connections)
                after = its_redis.told()
                found[kind].append(_each(load, before, after, {} if kind == "bare" else idle))
    return {kind: _median(rows) for kind, rows in found.items()}


def _asking(kind: str, bare: Target, instance: Ours, number: int) -> Ask:
    """What is asked; those that need no token bring one all the same."""
    match kind:
        case "bare":
            return Ask("bearer", f"/{BARE_SIZE}", bare.lines("get", [held.access for held in bare.tokens]))
        case "health":
            return Ask("bearer", "/health", instance.verifying().lines)
        case "verify":
            return instance.verifying()
        case "me":
            return instance.asking_me()
        case "refresh":
            return instance.refreshing()
        case "login":
            return instance.logging_in(PEOPLE)
        case _:
            emails = [f"new{who}.{number}@example.org" for who in range(NEWCOMERS)]
            bodies = [json.dumps({"email": email, "password": PASSWORD}) for email in emails]
            return Ask("body", "/api/auth/register", instance.lines("register", bodies))


def _idle(its: Redis, pid: int) -> dict[str, float]:
    """What both use in a second in which nobody asks anything."""
    before, used = its.told(), processor(pid)
    time.sleep(2)
    after = its.told()
    seconds = after["at"] - before["at"]
    grown = {name: (value - before.get(name, 0)) / seconds for name, value in after.items()}
    return {**grown, "instance": (processor(pid) - used) / seconds}


def _each(load: Load, before: Figures, after: Figures, idle: Figures) -> Figures:
    """What one answer took, beyond what is used anyway."""
    answers, seconds = load.answers, after["at"] - before["at"]
    grown = {
        name: (value - before.get(name, 0) - idle.get(name, 0) * seconds) / answers for name, value in after.items()
    }
    row: Figures = {"answers": answers}
    row |= {"instance us": (load.used["server"] - idle.get("instance", 0) * seconds) / answers * 1e6}
    row |= {"redis us": grown.pop("processor") * 1e6, "answer bytes": load.bytes / answers}
    row |= {"redis in": grown.pop("in"), "redis out": grown.pop("out")}
    grown.pop("at")
    return row | {name: value for name, value in grown.items() if value > 0.05}


def _median(rows: list[Figures]) -> Figures:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(statistics.median(row.get(name, 0) for row in rows), 1) for name in names}


def measure_single_keys(home: Path, rounds: int) -> dict[str, Figures]:
    """What a command on each of the keys that do not spread costs Redis, when it comes alone."""
    event = ["id", "Zc1l0bX6TqWw3hRr5mQ0Ng", "at", "1795361910267", "type", "sessions.session.started", "outcome"]
    event += ["success", "user_id", "eDMduePD5QyBvjaQy72qrw", "session_id", "vG5cL67Q0Ln4koVdi9njKQ", "ip", "127.0.0.1"]
    event += ["user_agent", "x" * 111, "request_id", "3f69822e046e7fa3", "detail", '{"method":"pwd"}']
    commands = {
        "PING": ["PING"],
        "audit-trail": ["XADD", "audit-trail", "MAXLEN", "~", "100000", "*", *event],
        "index:users": ["ZADD", "index:users", "1795361909940", "eDMduePD5QyB__rand_int__"],
        "admins": ["SISMEMBER", "admins", "eDMduePD5QyBvjaQy72qrw"],
        "outbox": ["XADD", "outbox", "MAXLEN", "~", "100000", "*", "sealed", "x" * 200],
    }
    inner = home / "single"
    inner.mkdir()
    with redis_on_a_port(inner) as (port, pid):
        benchmark = ["redis-benchmark", "-p", str(port), "-q", "-r", str(ENTRIES)]
        filling = [*benchmark, "-P", "100", "-n", str(ENTRIES), *commands["index:users"]]
        subprocess.run(filling, check=True, capture_output=True)
        found: dict[str, list[Figures]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                used = processor(pid)
                subprocess.run([*benchmark, "-c", "32", "-n", str(MARKS), *command], check=True, capture_output=True)
                found[name].append({"redis us": (processor(pid) - used) / MARKS * 1e6})
        return {name: _median(rows) for name, rows in found.items()}


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--json", action="store_true")
    called = arguments.parse_args()

    def measure() -> Results:
        targets.needs("wrk", "redis-benchmark")
        with tempfile.TemporaryDirectory(prefix="gp-bench-") as home:
            requests = measure_requests(Path(home), called.rounds, called.seconds)
            commands = {kind: _commands(row) for kind, row in requests.items()}
            return {
                "For each answer": requests,
                "Commands of Redis for each answer, those that scripts run included": commands,
                "Redis' time for a command that comes alone": measure_single_keys(Path(home), called.rounds),
            }

    return run(measure, called.json)


def _commands(row: Figures) -> Figures:
    """The commands, taken out of the other figures."""
    names = [name for name in row if name.startswith("calls ")]
    return {name.removeprefix("calls "): row.pop(name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
