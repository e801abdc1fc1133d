"""`python -m bench`: the service beside a bare aiohttp handler, and beside what others would pick.

`make bench` runs it. By default it measures everything and writes docs/performance.md anew, with its plots and
docs/performance.json. Part of it, for whoever develops, goes to var/bench instead.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench import growth, idle, race, report, storm, targets
from bench.ground import BenchError, redis_on_a_port, stoppable
from bench.race import WORKS
from bench.targets import LIMIT, LIMITS, PEERS, ROTATES, TRACKED, UNLIMITED, Ours, Target, ours
from service.limits import policies
from service.settings import ROOT

SECTIONS = (*WORKS, "login", "storm", "connections", "start", "memory", "workers", "users")
DATABASES = 64  # each target has one of its own, and none is cleared
QUICK = (3, 1)  # rounds, seconds
FEW_ROUNDS = 3  # at most, for what varies less or takes longer


def main() -> int:
    called = _arguments()
    stoppable()
    try:
        results = measure(called)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    report.write(results, called.into)
    return 1 if results["failed"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_words, default=SECTIONS, metavar="A,B", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument(
        "--peers", type=_words, default=tuple(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}, none"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of load in each (default 2)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 second, and no million users")
    parser.add_argument("--into", type=Path, help="the folder to write to")
    called = parser.parse_args()
    called.peers = () if called.peers == ("none",) else called.peers
    if unknown := (set(called.only) - set(SECTIONS)) | (set(called.peers) - set(PEERS)):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    whole = (called.only, called.peers, called.quick) == (SECTIONS, tuple(PEERS), False)
    called.into = called.into or (ROOT / "docs" if whole else ROOT / "var" / "bench")
    if called.quick:
        called.rounds, called.seconds = QUICK
    return called


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def measure(called: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, by section."""
    targets.needs("wrk", "redis-server")
    targets.need_peers(called.peers)
    began = time.monotonic()
    results: dict[str, Any] = {"about": report.about(called)}
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as home, ExitStack() as stack:
        port, redis_pid = stack.enter_context(redis_on_a_port(Path(home), "--databases", str(DATABASES)))
        results |= Run(Path(home), f"redis://127.0.0.1:{port}", redis_pid, called).all()
    results["about"]["minutes"] = round((time.monotonic() - began) / 60, 1)
    return results


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


class Run:
    """One run on one Redis."""

    def __init__(self, home: Path, url: str, redis_pid: int, called: argparse.Namespace) -> None:
        self._home = home
        self._databases = (f"{url}/{number}" for number in itertools.count())
        self._redis_pid = redis_pid
        self._only: tuple[str, ...] = called.only
        self._peers: tuple[str, ...] = called.peers
        self._quick: bool = called.quick
        self._rounds: int = called.rounds
        self._few = min(called.rounds, FEW_ROUNDS)
        self._seconds: int = called.seconds
        self._failed: list[str] = []

    def all(self) -> dict[str, Any]:
        """Every section; one that could not be measured is told in `failed`, and the others go on."""
        found: dict[str, Any] = {"failed": self._failed}
        if works := [work for work in WORKS if work in self._only]:
            self._add(found, "works", partial(self._race, works))
        if {"login", "connections", "storm"} & set(self._only):
            found["storm"] = {}
            self._add(found, "", self._with_one_instance)
        if "storm" in self._only:
            for name in self._peers:
                self._add(found["storm"], PEERS[name].title, partial(self._storm, name))
        if "start" in self._only:
            say("from start to ready, and idle")
            url = next(self._databases)
            self._add(found, "start", partial(idle.starts, self._home, url, self._peers, self._few))
            found["metrics"] = idle.counting()
        if "memory" in self._only:
            say("memory of Redis")
            self._add(found, "memory", idle.bytes_of_a_user)
        if "workers" in self._only:
            say("worker processes")
            measuring = partial(growth.with_workers, self._home, next(self._databases), self._redis_pid)
            self._add(found, "workers", partial(measuring, self._few, self._seconds))
        if "users" in self._only:
            say("users")
            users = growth.USERS[:-1] if self._quick else growth.USERS
            self._add(found, "users", partial(growth.with_users, self._home, self._few, self._seconds, users))
        return found

    def _add(self, found: dict[str, Any], name: str, measure: Callable[[], Any]) -> None:
        """Measure, and keep it under the name; without one, what is found has names of its own."""
        try:
            found |= {name: measure()} if name else measure()
        except BenchError as error:
            say(f"FAILED: {error}")
            self._failed.append(f"{name}: {str(error).partition(chr(10))[0]}")

    def _race(self, works: list[str]) -> dict[str, Any]:
        """Each kind of work, on every target that does it."""
        found: dict[str, Any] = {}
        with ExitStack() as stack:
            entered: dict[str, list[Target]] = {work: [] for work in works}
            instances = self._start_instances(stack, entered)
            sizes = _checked(instances)
            self._start_peers(stack, entered)
            bare = stack.enter_context(targets.bare(self._home, set(sizes.values())))
            bare.tokens = next((one.tokens for one in instances if one.tokens), [targets.Held("x" * 700)])
            for work in works:
                say(WORKS[work].title)
                entries = race.entries(work, bare, sizes[work], entered[work])
                racing = partial(race.run, entries, self._redis_pid, self._rounds, self._seconds)
                self._add(found, work, racing)
                if work in found:
                    found[work]["bare"]["size"] = sizes[work]
        return found

    def _start_instances(self, stack: ExitStack, entered: dict[str, list[Target]]) -> list[Ours]:
        """The instances that these works need, each entered for its works."""
        started = []

        def start(name: str, url: str, its: set[str], **settings: Any) -> None:
            if its := its & entered.keys():
                instance = stack.enter_context(ours(self._home, name, url, **settings))
                started.append(instance)
                for work in its:
                    entered[work].append(instance)

        lifted = [f"{name}={UNLIMITED}/1m" for name in sorted(policies.LIMITS - {"login"})]
        limits = ",".join([*lifted, f"login={LIMIT}/15m"])
        on_es256, on_hs256 = next(self._databases), next(self._databases)
        for log, name in ((False, "log off"), (True, "log on")):
            every = {"verify", "me", "refresh", "garbage", "expired", "forged"}
            start(f"Gatepost, {name}", on_es256, every, log=log)
            if TRACKED:
                start(f"Gatepost, tracked, {name}", on_es256, {"verify", "me"}, log=log, REVOCATION="tracked")
            start(f"Gatepost, HS256, {name}", on_hs256, {"refresh"}, log=log, JWT_ALGORITHM="HS256")
            start(f"Gatepost, {name}", next(self._databases), {"limited"}, log=log, RATE_LIMITS=limits)
        say(f"{len(started)} instances are ready")
        return started

    def _start_peers(self, stack: ExitStack, entered: dict[str, list[Target]]) -> None:
        """The peers that these works need, after each has shown that it does what it claims."""
        for name in self._peers:
            peer = PEERS[name]
            its = ({"verify", "me"} | ({"refresh"} if ROTATES in peer.claims else set())) & entered.keys()
            if its:
                say(f"{peer.title} is made ready")
                one = stack.enter_context(targets.other(self._home, peer, next(self._databases)))
                one.register(targets.TOKENS)
                one.tokens = one.sign_in(targets.TOKENS)
                targets.check(one)
                for work in its:
                    entered[work].append(one)
            if "limited" in entered and LIMITS in peer.claims:
                one = stack.enter_context(targets.other(self._home, peer, next(self._databases), limit=LIMIT))
                one.register(1)
                targets.check_limit(one)
                entered["limited"].append(one)

    def _with_one_instance(self) -> dict[str, Any]:
        """What one instance shows by itself, or beside the bare hash and the bare handler."""
        found: dict[str, Any] = {}
        with ours(self._home, "Gatepost", next(self._databases)) as instance:
            instance.tokens = instance.sign_in(targets.TOKENS)
            size = targets.check(instance)["verify"]
            if "connections" in self._only:
                say("connections")
                with targets.bare(self._home, {size}) as bare:
                    bare.tokens = instance.tokens
                    found["connections"] = growth.with_connections(
                        instance, bare, size, self._redis_pid, self._few, self._seconds
                    )
            if "login" in self._only:
                say("log-ins")
                found["login"] = storm.log_ins(instance, self._redis_pid, self._rounds, self._seconds)
            if "storm" in self._only:
                say("a storm of log-ins")
                found["storm"] = {"Gatepost": storm.verifying(instance, self._few, self._seconds)}
        return found

    def _storm(self, name: str) -> dict[str, Any]:
        """The same storm on a peer, with the hash that it has by default."""
        with targets.other(self._home, PEERS[name], next(self._databases), cheap=False) as one:
            say(f"a storm of log-ins: {one.name}")
            one.register(storm.PEOPLE)
            one.tokens = one.sign_in(storm.PEOPLE)
            return storm.verifying(one, self._few, self._seconds)


def _checked(instances: list[Ours]) -> dict[str, int]:
    """Have each instance show that it does what it claims; the bytes of its answers by work."""
    sizes: dict[str, int] = {}
    for instance in instances:
        if LIMITS in instance.claims:
            instance.sign_in(1)
            sizes["limited"] = targets.check_limit(instance)
        else:
            instance.tokens = instance.sign_in(targets.TOKENS)
            sizes = targets.check(instance) | sizes  # the first one is what the yardstick is like
    return sizes


if __name__ == "__main__":
    sys.exit(main())
