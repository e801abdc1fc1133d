"""Accounts, sessions and tokens, made by the parts that make them in production, but for the hash of each password."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from argon2 import PasswordHasher

from bench.ground import ADA
from service import logs
from service.accounts.passwords import ARGON2ID
from service.accounts.user import User
from service.app import assemble, close, look_after
from service.parts import Parts
from service.sessions.families import Family
from service.sessions.signin import SignedIn
from service.settings import load
from service.store import reach

PASSWORD = "correct horse, battery & staple"
AT_ONCE = 50
LONG_AGO = timedelta(days=2)
_PHC = PasswordHasher.from_parameters(ARGON2ID).hash(PASSWORD)


@dataclass(frozen=True)
class Person:
    """Somebody who has signed in, and what they hold."""

    email: str
    access: str
    refresh: str
    expired: str  # an access token that would be theirs, had it not expired


def email(number: int) -> str:
    return f"person{number}@example.org"


def sign_in(settings: Mapping[str, str], count: int) -> list[Person]:
    """A new session for each of so many people, whose accounts are made where they are not there."""
    return asyncio.run(_sign_in(settings, count))


@asynccontextmanager
async def parts_of(settings: Mapping[str, str]) -> AsyncIterator[Parts]:
    """The parts of the service with the settings of an instance, on its Redis; they write no log."""
    read = load(settings)
    logs.configure(read, io.StringIO())  # a line for each sign-in would be in the way
    its = assemble(read, reach(settings["REDIS_URL"]))
    try:
        await look_after(its)
        yield its
    finally:
        await close(its)


async def _sign_in(settings: Mapping[str, str], count: int) -> list[Person]:
    found = list[Person]()
    async with parts_of(settings) as its:
        for start in range(0, count, AT_ONCE):
            some = range(start, min(start + AT_ONCE, count))
            found += await asyncio.gather(*(enter(its, email(number)) for number in some))
            await its.audit.settled()
    return found


async def enter(its: Parts, address: str) -> Person:
    """A new session of a person, whose account is made unless it is there."""
    user = await its.users.find_by_email(address)
    user = user or await its.users.register(User("", address, _PHC, first_name="Ada", last_name="Lovelace"))
    signed = await its.signin.begin(user, ("pwd",), ADA)
    return Person(address, signed.access.text, signed.refresh_token, await _expired(its, signed))


async def _expired(its: Parts, signed: SignedIn) -> str:
    token = its.refresh_tokens.read(signed.refresh_token)
    then = int((its.clock.now() - LONG_AGO.total_seconds()) * 1000)
    family = Family(token, 0, then, then + 7 * 86_400_000, then, ("pwd",))
    return (await its.access_tokens.make(signed.user, family)).text
