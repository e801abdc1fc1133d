"""`python -m bench.costs`: what a request costs an instance and Redis, in time of a processor and in bytes.

A real instance on a real Redis, both on their own, under `wrk` for some seconds with each kind of request in turn; what
the two processes have used meanwhile is divided by the answers. A bare aiohttp handler is measured beside them. Rounds
are interleaved and the median is told: on a machine with other work, that is what can be had.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from argon2 import PasswordHasher

from bench.ground import OUR_CONFIGURATION, STARTS_WITHIN, BenchError, Figures, Results, environment, run, tethered
from service import embedded
from service.accounts.passwords import ARGON2ID
from service.limits import policies

PASSWORD = "correct horse, battery & staple"
PEOPLE = 100
ENTRIES = 1_000_000  # members of the index whose commands are measured
MARKS = 20_000  # commands of each kind that are measured on Redis alone

# A handler that does nothing, served as ours are.
BARE = """
import contextlib, sys
from aiohttp import web
with contextlib.suppress(ImportError):
    import uvloop
    uvloop.install()
async def answer(request):
    return web.json_response({"name": "bare"})
app = web.Application()
app.router.add_get("/", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""

# What wrk asks. A refresh takes a token from the queue and puts its successor there, as a client does.
ASKING = """
local kind, lines, at = os.getenv("KIND"), {}, 0
for line in io.lines(os.getenv("TOKENS")) do lines[#lines + 1] = line end
local tag, json = os.getenv("TAG"), {["Content-Type"] = "application/json", ["X-Auth-Mode"] = "token"}
local made = 0
function request()
  if kind == "bare" then return wrk.format("GET", "/") end
  if kind == "health" then return wrk.format("GET", "/health") end
  at = at % #lines + 1
  if kind == "verify" or kind == "me" then
    return wrk.format("GET", "/api/auth/" .. kind, {["Authorization"] = "Bearer " .. lines[at]})
  end
  if kind == "refresh" then
    local token = table.remove(lines, 1)
    return wrk.format("POST", "/api/auth/refresh", json, '{"refreshToken": "' .. token .. '"}')
  end
  if kind == "login" then
    return wrk.format("POST", "/api/auth/login", json,
      '{"email": "' .. lines[at] .. '", "password": "correct horse, battery & staple"}')
  end
  made = made + 1
  return wrk.format("POST", "/api/auth/register", json,
    '{"email": "new' .. made .. "." .. tag .. '@example.org", "password": "correct horse, battery & staple"}')
end
if kind == "refresh" then
  function response(status, headers, body)
    local token = body:match('"refreshToken": ?"([^"]+)"')
    if token then lines[#lines + 1] = token end
  end
end
function done(summary)
  local errors = summary.errors
  io.write(string.format('RESULT {"answers": %d, "bytes": %d, "refused": %d, "broken": %d}\\n', summary.requests,
    summary.bytes, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""
KINDS = {"bare": 32, "health": 32, "verify": 32, "me": 32, "refresh": 32, "login": 4, "register": 4}  # connections


def processor(pid: int) -> float:
    """Seconds of a core that the threads of a process have used."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(home: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a block."""
    log = home / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(tethered(*command), cwd=home, stdout=output, stderr=output, **options)
    try:
        yield process
    except OSError as error:
        raise BenchError(f"{error}\n{log.read_text()[-2000:]}") from error
    finally:
        process.terminate()
        try:
            process.wait(STARTS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis_server(port: int, home: Path) -> list[str]:
    """How a Redis is started as operators are told to run it, on a port: how many bytes travel is measured too."""
    server = next(iter(embedded.servers()), None)
    if server is None:
        raise BenchError(embedded.INSTALL)
    return [str(server.path), str(OUR_CONFIGURATION), "--port", str(port), "--dir", str(home)]


def wait_for(port: int, path: str = "/") -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


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


def ask(kind: str, port: int, tokens: Path, seconds: float) -> dict[str, float]:
    """Load for some seconds."""
    script = tokens.with_name("asking.lua")
    script.write_text(ASKING)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{KINDS[kind]}", f"-d{seconds:g}s", "-s", str(script), f"http://127.0.0.1:{port}"],
        env={"PATH": os.environ["PATH"], "KIND": kind, "TOKENS": str(tokens), "TAG": str(time.monotonic_ns())},
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + seconds,
    )
    result: dict[str, float] = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    return result


def sign_in(port: int, email: str) -> dict[str, str]:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/auth/login",
        json.dumps({"email": email, "password": PASSWORD}).encode(),
        {"Content-Type": "application/json", "X-Auth-Mode": "token"},
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.loads(answer.read())  # type: ignore[no-any-return]


def measure_requests(home: Path, rounds: int, seconds: float) -> dict[str, Figures]:
    """For each kind of request the medians over the rounds, for each answer: microseconds, bytes, commands."""
    port, redis_port, bare_port = free_port(), free_port(), free_port()
    settings = environment(
        f"redis://127.0.0.1:{redis_port}/0",
        ENVIRONMENT="production",
        AUTH_SECRET=secrets.token_urlsafe(48),
        HOST="127.0.0.1",
        PORT=str(port),
        PUBLIC_URL=f"http://127.0.0.1:{port}",
        DRAIN_SECONDS="0",
        RATE_LIMITS=",".join(f"{name}=500000/1m" for name in policies.NAMES),
    )
    emails = [f"person{n}@example.org" for n in range(PEOPLE)]
    (home / "redis").mkdir()
    with (
        running(home, *redis_server(redis_port, home / "redis")) as redis_process,
        running(home, sys.executable, "-m", "service", env=settings) as instance,
        running(home, sys.executable, "-c", BARE, str(bare_port)) as bare,
    ):
        wait_for(bare_port)
        wait_for(port, "/ready")
        its_redis = Redis(redis_port, redis_process.pid)
        phc = PasswordHasher.from_parameters(ARGON2ID).hash(PASSWORD)
        accounts = home / "accounts"
        accounts.write_text("\n".join(json.dumps({"email": email, "passwordHash": phc}) for email in emails))
        importing = [sys.executable, "-m", "service", "import-users", str(accounts)]
        subprocess.run(importing, env=settings, cwd=home, check=True, capture_output=True, timeout=120)
        (home / "login").write_text("\n".join(emails))
        found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            signed = [sign_in(port, email) for email in emails]
            for kind in ("bare", "health", "verify", "me", "register"):
                (home / kind).write_text("\n".join(one["accessToken"] for one in signed))
            (home / "refresh").write_text("\n".join(one["refreshToken"] for one in signed))
            idle = _idle(its_redis, instance.pid)
            for kind in KINDS:
                at, process = (bare_port, bare) if kind == "bare" else (port, instance)
                before, used = its_redis.told(), processor(process.pid)
                asked = ask(kind, at, home / kind, seconds)
                used, after = processor(process.pid) - used, its_redis.told()
                found[kind].append(_each(asked, used, before, after, {} if kind == "bare" else idle))
        return {kind: _median(rows) for kind, rows in found.items()}


def _idle(its: Redis, pid: int) -> dict[str, float]:
    """What both use in a second in which nobody asks anything."""
    before, used = its.told(), processor(pid)
    time.sleep(2)
    after = its.told()
    seconds = after["at"] - before["at"]
    grown = {name: (value - before.get(name, 0)) / seconds for name, value in after.items()}
    return {**grown, "instance": (processor(pid) - used) / seconds}


def _each(
    asked: dict[str, float], used: float, before: dict[str, float], after: dict[str, float], idle: dict[str, float]
) -> dict[str, float]:
    """What one answer took, beyond what is used anyway."""
    answers, seconds = asked["answers"], after["at"] - before["at"]
    grown = {
        name: (value - before.get(name, 0) - idle.get(name, 0) * seconds) / answers for name, value in after.items()
    }
    row = {"answers": answers, "refused": asked["refused"] + asked["broken"]}
    row |= {"instance us": (used - idle.get("instance", 0) * seconds) / answers * 1e6}
    row |= {"redis us": grown.pop("processor") * 1e6, "answer bytes": asked["bytes"] / answers}
    row |= {"redis in": grown.pop("in"), "redis out": grown.pop("out")}
    grown.pop("at")
    return row | {name: value for name, value in grown.items() if value > 0.05}


def _median(rows: list[Figures]) -> Figures:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(statistics.median(row.get(name, 0) for row in rows), 1) for name in names}


def measure_single_keys(home: Path, rounds: int) -> dict[str, Figures]:
    """What a command on each of the keys that do not spread costs Redis, when it comes alone."""
    port = free_port()
    (home / "single").mkdir()
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
    benchmark = ["redis-benchmark", "-p", str(port), "-q", "-r", str(ENTRIES)]
    with running(home, *redis_server(port, home / "single")) as process:
        its = redis.Redis(port=port)
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until:
            try:
                its.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        filling = [*benchmark, "-P", "100", "-n", str(ENTRIES), *commands["index:users"]]
        subprocess.run(filling, check=True, capture_output=True)
        found: dict[str, list[Figures]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                used = processor(process.pid)
                subprocess.run([*benchmark, "-c", "32", "-n", str(MARKS), *command], check=True, capture_output=True)
                found[name].append({"redis us": (processor(process.pid) - used) / MARKS * 1e6})
        return {name: _median(rows) for name, rows in found.items()}


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--json", action="store_true")
    called = arguments.parse_args()

    def measure() -> Results:
        for tool in ("wrk", "redis-benchmark"):
            if shutil.which(tool) is None:
                raise BenchError(f"{tool} is needed")
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
