"""Load: `wrk` for some seconds, what it counted, and the processor time that everybody used meanwhile."""

import json
import os
import resource
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.ground import BenchError, tethered, usage

SCRIPT = Path(__file__).with_name("asking.lua")
CONNECTIONS = 64


@dataclass(frozen=True)
class Ask:
    """What is asked: `kind` is bearer (GET, a line is a token), body or form (POST, a line is one) or refresh."""

    kind: str
    path: str
    lines: Path
    refused: bool = False  # every answer is to be a refusal


@dataclass(frozen=True)
class Load:
    """What came of it; latencies in milliseconds.

    `used` has the seconds of a core by process, `wrk` itself among them, and `waited` those in which it had none.
    """

    answers: int
    seconds: float
    bytes: int
    refused: int
    broken: int
    p50: float
    p99: float
    longest: float
    used: Mapping[str, float] = field(default_factory=dict)
    waited: Mapping[str, float] = field(default_factory=dict)

    @property
    def granted(self) -> float:
        """Answers in a second that were no refusals."""
        return (self.answers - self.refused) / self.seconds

    def each(self, who: str) -> float:
        """Microseconds of a core for each answer."""
        return self.used[who] / self.answers * 1e6

    def busy(self, who: str) -> float:
        """The share of one core."""
        return self.used[who] / self.seconds

    def full(self, who: str) -> float:
        """The share of the time in which it worked or would have, had it had a core: at 1 it was never idle."""
        return (self.used[who] + self.waited[who]) / self.seconds


def start(port: int, ask: Ask, seconds: int, connections: int = CONNECTIONS, pace: int = 0) -> "subprocess.Popen[str]":
    """wrk on one thread; with a `pace` each connection waits so many milliseconds before it asks again."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    passed = {"PATH": os.environ["PATH"], "KIND": ask.kind, "ASK": ask.path, "LINES": str(ask.lines)}
    passed |= {"PACE": str(pace), "SEED": str(secrets.randbelow(2**31))}
    where = shutil.which("wrk") or "wrk"
    return subprocess.Popen(
        tethered(where, *command[1:], f"http://127.0.0.1:{port}"),
        env=passed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(asking: "subprocess.Popen[str]", ask: Ask, seconds: int, losses: bool = False) -> Load:
    """Wait for it.

    Raises `BenchError` if an answer was lost, or was a refusal where none should be, or was none: unless some `losses`
    are part of what is measured.
    """
    try:
        told, _ = asking.communicate(timeout=60 + seconds)
    finally:
        asking.kill()
        asking.wait()
    if asking.returncode or "RESULT " not in told:
        raise BenchError(f"wrk failed on {ask.path}: {told[-1000:]}")
    load = Load(**json.loads(told.partition("RESULT ")[2].splitlines()[0]))
    if not load.answers and not losses:
        raise BenchError(f"{ask.path} answered nothing")
    if not losses and (load.broken or load.refused != (load.answers if ask.refused else 0)):
        raise BenchError(f"{ask.path}: of {load.answers} answers {load.refused} were refusals, {load.broken} were lost")
    return load


def press(
    port: int,
    ask: Ask,
    seconds: int,
    watched: Mapping[str, int],
    connections: int = CONNECTIONS,
    losses: bool = False,
) -> Load:
    """Load for some seconds, and what the watched processes (by pid), with all their children, used meanwhile."""
    before, wrk = {who: usage(pid) for who, pid in watched.items()}, _ended()
    load = finish(start(port, ask, seconds, connections), ask, seconds, losses)
    after, used = {who: usage(pid) for who, pid in watched.items()}, {"wrk": _ended() - wrk}
    used |= {who: after[who][0] - before[who][0] for who in watched}
    return replace(load, used=used, waited={who: after[who][1] - before[who][1] for who in watched})


def _ended() -> float:
    """Seconds of a core that children which have ended took: wrk's, for the others live on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
