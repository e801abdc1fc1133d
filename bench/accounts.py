"""`python -m bench.accounts`: import a hundred thousand accounts, then list all of them through the admin's API.

The import is the real command in a process of its own, the listing the real route of a running instance. Beside the
first stand the same records as bare pipelined writes, beside the second the same pages read from Redis directly; a
ratio says what the product adds to them, whatever the machine.
"""

import argparse
import asyncio
import json
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import redis

from bench.ground import (
    BenchError,
    Figures,
    Results,
    client,
    environment,
    instance,
    private_redis,
    run,
    spread,
    tethered,
    used_memory,
)

USERS = 100_000
PAGE = 100  # the most that a page may have
SEARCHES = 1_000
AT_ONCE = 100  # commands in one pipeline of the bare writes
IMPORTS_WITHIN = 1800.0  # seconds
PASSWORD = "correct horse, battery & staple"
_ADMIN = "root@example.org"
_BCRYPT = "./" + string.ascii_letters + string.digits
_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_YEARS = timedelta(days=5 * 365)

# When accounts were made. Some systems only keep the day; some imports say the same for everybody.
CREATED: dict[str, Callable[[random.Random], datetime]] = {
    "any": lambda chance: _FIRST + _YEARS * chance.random(),
    "days": lambda chance: _FIRST + timedelta(days=chance.randrange(_YEARS.days)),
    "one": lambda _: _FIRST,
}


def people(count: int, created: str) -> Iterator[dict[str, Any]]:
    """Lines of an import: an admin with a real password, and others whose bcrypt hashes are of the form alone."""
    chance = random.Random(count)
    yield {
        "email": _ADMIN,
        "passwordHash": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
        "roles": ["user", "admin"],
    }
    for number in range(1, count):
        first, last = _word(chance, 6), _word(chance, 9)
        yield {
            "email": f"{first}.{last}.{number}@example.org",
            "passwordHash": "$2b$12$" + "".join(chance.choices(_BCRYPT, k=53)),
            "emailVerified": chance.random() < 0.8,
            "firstName": first.title(),
            "lastName": last.title(),
            "roles": ["user", "moderator"] if chance.random() < 0.1 else ["user"],
            "createdAt": CREATED[created](chance).isoformat(),
        }


def _word(chance: random.Random, letters: int) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=letters))


def measure(users: int = USERS, created: str = "any") -> Results:
    """Import, list, search: seconds, users per second, bytes, and the ratio to the bare work."""
    with private_redis() as url, tempfile.TemporaryDirectory(prefix="gp-bench-") as directory, client(url) as asking:
        file = Path(directory, "people.jsonl")
        everyone = list(people(users, created))
        file.write_text("".join(json.dumps(person) + "\n" for person in everyone))
        importing = {"the same as bare HSETs": bare_import(url, everyone)} | imports(url, file, asking, users)
        importing["import-users"]["ratio"] = _ratio(importing, "seconds")
        listing = asyncio.run(list_all(url, everyone))
        listing["the same pages, bare"] = bare_listing(asking)
        listing["all users"]["ratio"] = round(
            listing["all users"]["p50 ms"] / listing["the same pages, bare"]["p50 ms"], 2
        )
    return {f"Import of {users:,} users": importing, f"Listing of {users:,} users over HTTP": listing}


def _ratio(rows: dict[str, Figures], figure: str) -> float:
    return round(float(rows["import-users"][figure]) / float(rows["the same as bare HSETs"][figure]), 2)


def imports(url: str, file: Path, asking: redis.Redis, users: int) -> dict[str, Figures]:
    """The import itself, and the same file once more, as after an interruption."""
    nothing = file.with_name("nothing.jsonl")
    nothing.write_text("")
    idle = _import(url, nothing, 0)
    before = used_memory(asking)
    fresh = _import(url, file, users)
    fresh["Redis bytes/user"] = round((used_memory(asking) - before) / users)
    again = _import(url, file, users)
    for figures in (fresh, again):
        figures["users/s"] = round(users / figures["seconds"])
    return {"import-users": fresh, "the same file again": again, "an empty file": idle}


def _import(url: str, file: Path, users: int) -> Figures:
    """Run the command: how long it took, and its largest resident set in MB where the system tells."""
    started, used, peak = time.monotonic(), _cpu_of_children(), None
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            tethered(sys.executable, "-m", "service", "import-users", "--json", str(file)),
            env=environment(url, LOG_LEVEL="error"),
            cwd=file.parent,
            stdout=out,
        )
        try:
            while process.poll() is None:
                if time.monotonic() - started > IMPORTS_WITHIN:
                    raise BenchError(f"the import took longer than {IMPORTS_WITHIN:.0f} s")
                peak = _peak(process.pid) or peak
                time.sleep(0.01)
            seconds = time.monotonic() - started
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        told = json.loads(out.read() or "{}")
    if process.returncode or told.get("imported", 0) + told.get("thereAlready", 0) != users:
        raise BenchError(f"the import did not take every line: {told}")
    return {"seconds": round(seconds, 2), "CPU s": round(_cpu_of_children() - used, 2), "peak MB": peak}


def _cpu_of_children() -> float:
    """Seconds that the processes which have ended took of a core: the figure to trust on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(pid: int) -> float | None:
    """Of this program alone: what `getrusage` says of a child includes its parent's size at the fork."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(sizes[0]) / 1024, 1) if sizes else None


def bare_import(url: str, everyone: list[dict[str, Any]]) -> Figures:
    """Records of the same size, written by a client that checks nothing and keeps no index."""
    with client(url, database=1) as asking:
        before, started, used = used_memory(asking), time.monotonic(), time.process_time()
        for start in range(0, len(everyone), AT_ONCE):
            with asking.pipeline(transaction=False) as pipeline:
                for number, person in enumerate(everyone[start : start + AT_ONCE], start):
                    pipeline.hset(f"user:{{{number:022}}}", mapping=_record(person))
                pipeline.execute()
        seconds = time.monotonic() - started
        figures = {
            "seconds": round(seconds, 4),  # with few users it is soon done
            "CPU s": round(time.process_time() - used, 2),
            "users/s": round(len(everyone) / seconds),
            "Redis bytes/user": round((used_memory(asking) - before) / len(everyone)),
        }
        asking.flushdb()
    return figures


def _record(person: dict[str, Any]) -> dict[str, str]:
    fields = {
        "email": person["email"],
        "pw": person["passwordHash"],
        "ok": "1" if person.get("emailVerified") else "",
        "first": person.get("firstName", ""),
        "last": person.get("lastName", ""),
        "roles": " ".join(person["roles"]),
        "at": "1577836800000",
    }
    return {name: value for name, value in fields.items() if value}


async def list_all(url: str, everyone: list[dict[str, Any]]) -> dict[str, Figures]:
    """Every user page by page, those with a role, and some by their email, as an admin who has signed in."""
    async with instance(url) as base, aiohttp.ClientSession(base) as session:
        sign_in = {"email": _ADMIN, "password": PASSWORD}
        async with session.post("/api/auth/login", json=sign_in, headers={"X-Auth-Mode": "token"}) as answer:
            signed = await answer.json()
            session.headers["Authorization"] = f"Bearer {signed['accessToken']}"
        moderators = [person["email"] for person in everyone if "moderator" in person["roles"]]
        emails = [person["email"] for person in everyone]
        return {
            "all users": await _list(session, {}, emails),
            "role=moderator": await _list(session, {"role": "moderator"}, moderators),
            "email=...": await _search(session, emails),
        }


async def _list(session: aiohttp.ClientSession, filters: dict[str, str], expected: list[str]) -> Figures:
    took, found, query = list[float](), list[str](), {"limit": str(PAGE), **filters}
    started = time.monotonic()
    while True:
        seconds, page = await _page(session, query)
        took.append(seconds)
        found += [user["email"] for user in page["items"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    in_all = time.monotonic() - started
    if sorted(found) != sorted(expected):
        raise BenchError(
            f"{len(found)} users were listed, {len(set(found))} of them once, and there are {len(expected)}"
        )
    return {"pages": len(took), "seconds": round(in_all, 2), "users/s": round(len(found) / in_all), **spread(took)}


async def _search(session: aiohttp.ClientSession, emails: list[str]) -> Figures:
    wanted = random.Random(1).sample(emails, min(SEARCHES, len(emails)))
    took, started = list[float](), time.monotonic()
    for email in wanted:
        seconds, page = await _page(session, {"email": email})
        took.append(seconds)
        if [user["email"] for user in page["items"]] != [email]:
            raise BenchError("a user was not found by the email")
    return {"pages": len(took), "seconds": round(time.monotonic() - started, 2), **spread(took)}


async def _page(session: aiohttp.ClientSession, query: dict[str, str]) -> tuple[float, dict[str, Any]]:
    started = time.monotonic()
    async with session.get("/api/admin/users", params=query) as answer:
        page = await answer.json()
    if answer.status != 200:
        raise BenchError(f"the listing answered {answer.status}: {page}")
    return time.monotonic() - started, page


def bare_listing(asking: redis.Redis) -> Figures:
    """The same index and the same records, page by page, by rank: no HTTP, no rights, no JSON."""
    took, started, rank = list[float](), time.monotonic(), 0
    while True:
        began = time.monotonic()
        ids = asking.zrevrange("index:users", rank, rank + PAGE - 1)
        with asking.pipeline(transaction=False) as pipeline:
            for user_id in ids:
                pipeline.hgetall("user:{" + str(user_id) + "}")
            pipeline.execute()
        took.append(time.monotonic() - began)
        rank += len(ids)
        if len(ids) < PAGE:
            in_all = time.monotonic() - started
            return {"pages": len(took), "seconds": round(in_all, 2), "users/s": round(rank / in_all), **spread(took)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accounts", description="Measures import and listing.")
    parser.add_argument("--users", type=int, default=USERS, metavar="N", help=f"how many (default {USERS:,})")
    parser.add_argument("--created", choices=CREATED, default="any", help="at any time, on any day, or all at one time")
    parser.add_argument("--json", action="store_true", help="write JSON")
    asked = parser.parse_args()
    return run(lambda: measure(asked.users, asked.created), asked.json)


if __name__ == "__main__":
    sys.exit(main())
