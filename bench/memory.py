"""`python -m bench.memory`: what each thing that Redis keeps takes there, with our redis.conf and with Redis' defaults.

Everything is made by the parts that make it in production; the account has a verified email. `each` is the growth of
`used_memory` over all of them, Redis' own tables included; `key` is what `MEMORY USAGE` says of a key, or of an index
for each of its entries.
"""

import argparse
import asyncio
import os
import random
import string
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from bench.ground import (
    ADA,
    OUR_CONFIGURATION,
    SECRET,
    BenchError,
    Figures,
    Results,
    client,
    private_redis,
    run,
    used_memory,
)
from service import logs
from service.accounts.once import Purpose
from service.accounts.user import Identity, User
from service.accounts.users import Linking
from service.app import assemble, close, look_after
from service.audit.events import Event
from service.ids import new_id
from service.limits.limiter import Charge
from service.limits.places import Seen
from service.parts import Parts
from service.sessions.refresh_tokens import RefreshToken
from service.settings import Settings, load
from service.store import reach
from service.tokens.access import Principal

USERS = 10_000
AT_ONCE = 50
SOME = 200  # keys of one form whose sizes are looked at
_LETTERS = string.ascii_letters + string.digits + "+/"


def _argon2id(chance: random.Random) -> str:
    """A hash of the length that ours have, as `Passwords` writes them."""
    salt, digest = "".join(chance.choices(_LETTERS, k=22)), "".join(chance.choices(_LETTERS, k=43))
    return f"$argon2id${salt}${digest}"


class Scale:
    """Weighs what work leaves in Redis."""

    def __init__(self, its: Parts, asking: redis.Redis, count: int) -> None:
        self._its = its
        self.asking = asking
        self._count = count
        self.rows: dict[str, Figures] = {}

    async def weigh(self, name: str, work: Callable[[int], Awaitable[object]], key: str) -> None:
        """Do the work for every number; note the growth, and the size of one key of this form."""
        before = used_memory(self.asking)
        for start in range(0, self._count, AT_ONCE):
            await asyncio.gather(*map(work, range(start, min(start + AT_ONCE, self._count))))
            await self._its.audit.settled()
        self.rows[name] = {"each": round((used_memory(self.asking) - before) / self._count)}
        self.look(name, key)

    def add(self, name: str, *parts: str) -> None:
        """Note what several things take together."""
        self.rows[name] = {"each": sum(self.rows[part]["each"] for part in parts)}

    def look(self, name: str, key: str, count: Callable[[str], Any] = lambda _: 1) -> None:
        """Note the mean size of the keys of this form, divided among their entries where these are to be counted."""
        found = list(islice(self.asking.scan_iter(key, count=10_000), SOME)) if "*" in key else [key]
        sizes = [self.asking.memory_usage(one, samples=0) or 0 for one in found]
        if not any(sizes):
            raise BenchError(f"there is no {key}")
        self.rows.setdefault(name, {})["key"] = round(sum(sizes) / sum(map(count, found)))


async def _weigh_all(url: str, settings: Settings, count: int, people_only: bool) -> dict[str, Figures]:
    with client(url) as asking:
        its = assemble(settings, reach(url))
        try:
            await look_after(its)
            return await _weigh(Scale(its, asking, count), its, people_only)
        finally:
            await close(its)


async def _weigh(scale: Scale, its: Parts, people_only: bool) -> dict[str, Figures]:
    chance, made, opened = random.Random(1), dict[int, User](), dict[int, RefreshToken]()

    async def register(number: int) -> None:
        user = User("", f"ada.lovelace{number}@example.org", _argon2id(chance), first_name="Ada", last_name="Lovelace")
        user = await its.users.register(user)
        token = await its.once.issue(Purpose.VERIFY, user.id, ("email", user.email))
        await its.once.redeem(await its.once.find(token or "", Purpose.VERIFY), {"ok": "1"})
        made[number] = replace(user, email_verified=True)

    async def sign_in(number: int) -> None:
        user_id = made[number].id
        family = await its.families.start(user_id, 0, ("pwd",), ADA, its.users.noting_login(user_id))
        opened[number] = family.token

    async def refresh(number: int) -> None:
        await its.families.rotate(opened[number])

    async def tell(number: int) -> None:
        user_id, session_id = made[number].id, opened[number].session_id
        await its.audit.note(
            Event.SIGNED_IN, user_id=user_id, session_id=session_id, client=ADA, amr=("pwd",), device=ADA.device
        )

    async def charge(number: int) -> None:
        await its.limiter.charge(Charge("login", (ADA.address, made[number].email)))

    async def remember(number: int) -> None:
        await its.places.remember(made[number].email, ADA, Seen(None))

    async def guess(number: int) -> None:
        its.signals.note_attempt(made[number].email, ADA)
        await its.signals.settled()

    async def make_key(number: int) -> None:
        await its.api_keys.make(
            _owner(made[number], opened[number].session_id), "nightly report", ("profile:read",), None
        )

    async def link(number: int) -> None:
        identity = Identity("google", "https://accounts.google.com", f"1{number:020}", made[number].email)
        await its.users.link(made[number], identity, Linking.HOLDER)

    # What there is once, such as scripts and the lookup key, is there before anything is weighed.
    for work in (register, sign_in, refresh, tell, charge, remember, guess, make_key, link):
        await asyncio.gather(*map(work, range(-AT_ONCE, 0)))
    await scale.weigh("an account", register, "user:*")
    scale.look("  place in email:<part>", "email:*", scale.asking.hlen)
    scale.look("  place in index:users", "index:users", scale.asking.zcard)
    await scale.weigh("a session", sign_in, "sessions:*")
    scale.look("  place in index:live:<part>", "index:live:*", scale.asking.zcard)
    scale.add("an account with a session", "an account", "a session")
    if people_only:
        return scale.rows
    await scale.weigh("its first refresh", refresh, "sessions:*")
    await scale.weigh("a second session", sign_in, "sessions:*")
    await scale.weigh("a user's first event", tell, "events:*")
    scale.look("  place in audit-trail", "audit-trail", scale.asking.xlen)
    await scale.weigh("a further event", tell, "events:*")
    await scale.weigh("a first call to a limit", charge, "limit:*")
    await scale.weigh("a further call", charge, "limit:*")
    await scale.weigh("an address that is known", remember, "known:*")
    await scale.weigh("a first wrong password", guess, "burst:account:*")
    await scale.weigh("a further one", guess, "burst:account:*")
    await scale.weigh("an API key", make_key, "apikey:*")
    scale.look("  list of a user's keys", "apikeys:*")
    await scale.weigh("an identity elsewhere", link, "user:*")
    scale.look("  place in identity:<part>", "identity:*", scale.asking.hlen)
    return scale.rows


def _owner(user: User, session_id: str) -> Principal:
    return Principal(user.id, session_id, new_id(), user.email, user.roles, ("profile:read",), ("pwd",), 0, 0, 0, 0, "")


CONFIGURATIONS = {"config/redis.conf": OUR_CONFIGURATION, "Redis' defaults": None}


def measure(
    users: int = USERS, configurations: Mapping[str, Path | None] = CONFIGURATIONS, people_only: bool = False
) -> Results:
    """Bytes of Redis for each thing, or for accounts and sessions alone, under each configuration."""
    settings, found = load({"AUTH_SECRET": SECRET}), {}
    with open(os.devnull, "w") as nowhere:
        logs.configure(settings, nowhere)  # a line for each event would be in the way
        for name, configuration in configurations.items():
            with private_redis(configuration) as url:
                weighed = asyncio.run(_weigh_all(url, settings, users, people_only))
            found[f"Bytes of Redis with {name}, {users:,} of each"] = weighed
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Measures what is kept in Redis.")
    parser.add_argument("--users", type=int, default=USERS, metavar="N", help=f"how many of each (default {USERS:,})")
    parser.add_argument("--json", action="store_true", help="write JSON")
    asked = parser.parse_args()
    return run(lambda: measure(asked.users), asked.json)


if __name__ == "__main__":
    sys.exit(main())
