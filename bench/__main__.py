"""`python -m bench`: the service beside a bare aiohttp handler, and beside what others would pick.

`make bench` runs it. By default it measures everything and writes docs/performance.md anew, with its plots and
docs/performance.json. Part of it, for whoever develops, goes to var/bench instead.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import race, report, targets
from bench.ground import BenchError, redis_on_a_port, stoppable
from bench.race import WORKS
from bench.targets import LIMIT, PEERS, TRACKED, UNLIMITED, Ours, Target, other, ours
from service.limits import policies
from service.settings import ROOT

SECTIONS = (*WORKS,)


def main() -> int:
    called = _arguments()
    stoppable()
    try:
        results = measure(called)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    report.write(results, called.into)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    words = lambda text: tuple(word for word in text.split(",") if word)  # noqa: E731
    parser.add_argument("--only", type=words, default=SECTIONS, metavar="A,B", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument(
        "--peers", type=words, default=tuple(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}; or none"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of load in each (default 2)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 second")
    parser.add_argument("--into", type=Path, help="the folder to write to")
    called = parser.parse_args()
    if called.peers == ("none",):
        called.peers = ()
    if unknown := (set(called.only) - set(SECTIONS)) | (set(called.peers) - set(PEERS)):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    narrowed = called.quick or called.only != SECTIONS or called.peers != tuple(PEERS)
    called.into = called.into or (ROOT / "var" / "bench" if narrowed else ROOT / "docs")
    if called.quick:
        called.rounds, called.seconds = 3, 1
    return called


def measure(called: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    targets.needs("wrk", "redis-server")
    began = time.monotonic()
    results: dict[str, Any] = {"about": report.about(called)}
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as home, ExitStack() as stack:
        port, redis_pid = stack.enter_context(redis_on_a_port(Path(home)))
        url = f"redis://127.0.0.1:{port}"
        if works := [name for name in WORKS if name in called.only]:
            results["works"] = _race(works, Path(home), url, redis_pid, called)
    results["about"]["minutes"] = round((time.monotonic() - began) / 60, 1)
    return results


def _race(works: list[str], home: Path, url: str, redis_pid: int, called: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        found = {work: list[Target]() for work in works}
        instances = _instances(stack, works, home, url, found)
        say(f"{len(instances)} instances are ready")
        sizes: dict[str, int] = {}
        for instance in instances:
            if targets.LIMITS in instance.claims:
                instance.sign_in(1)
                sizes["limited"] = targets.check_limit(instance)
            else:
                instance.tokens = instance.sign_in(targets.TOKENS)
                sizes |= targets.check(instance)
        _peers(stack, called.peers, home, url, found)
        bare = stack.enter_context(targets.bare(home, set(sizes.values())))
        bare.tokens = instances[0].tokens or instances[0].sign_in(1)
        results = {}
        for work in works:
            say(WORKS[work].title)
            entered = race.entries(work, bare, sizes[work], found[work])
            results[work] = race.run(entered, redis_pid, called.rounds, called.seconds)
            results[work]["bare"]["size"] = sizes[work]
        return results


def _instances(stack: ExitStack, works: list[str], home: Path, url: str, found: dict[str, list[Target]]) -> list[Ours]:
    """Start the instances that these works need; `found` has those of each work."""
    started = []

    def start(name: str, database: int, its: set[str], **settings: Any) -> None:
        if not its.isdisjoint(works):
            instance = stack.enter_context(ours(home, name, f"{url}/{database}", **settings))
            started.append(instance)
            for work in its & found.keys():
                found[work].append(instance)

    of_es256 = {"verify", "me", "refresh", "garbage", "expired", "forged"}
    limits = ",".join(f"{name}={UNLIMITED}/1m" for name in sorted(policies.NAMES - {"login"})) + f",login={LIMIT}/15m"
    for name, log in (("Gatepost, log off", False), ("Gatepost, log on", True)):
        start(name, 0, of_es256, log=log)
    if TRACKED:
        for name, log in (("Gatepost, tracked, log off", False), ("Gatepost, tracked, log on", True)):
            start(name, 0, {"verify", "me"}, log=log, REVOCATION="tracked")
    for name, log in (("Gatepost, HS256, log off", False), ("Gatepost, HS256, log on", True)):
        start(name, 1, {"refresh"}, log=log, JWT_ALGORITHM="HS256")
    for name, log, database in (("Gatepost, log off", False, 2), ("Gatepost, log on", True, 3)):
        start(name, database, {"limited"}, log=log, RATE_LIMITS=limits)
    return started


def _peers(stack: ExitStack, names: tuple[str, ...], home: Path, url: str, found: dict[str, list[Target]]) -> None:
    """Start the peers, and have each prove what it claims."""
    for number, name in enumerate(names):
        peer = PEERS[name]
        its = {"verify", "me"} | ({"refresh"} if targets.ROTATES in peer.claims else set())
        if its & found.keys():
            one = stack.enter_context(other(home, peer, f"{url}/{4 + 2 * number}"))
            one.register(targets.TOKENS)
            one.tokens = one.sign_in(targets.TOKENS)
            targets.check(one)
            for work in its & found.keys():
                found[work].append(one)
        if "limited" in found and targets.LIMITS in peer.claims:
            one = stack.enter_context(other(home, peer, f"{url}/{5 + 2 * number}", limit=LIMIT))
            one.register(1)
            targets.check_limit(one)
            found["limited"].append(one)
        say(f"{peer.title} is ready")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
