"""Accounts, sessions and tokens, made by the parts that make them in production, but for the hash of each password."""

import asyncio
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import redis
from argon2 import PasswordHasher

from bench.ground import ADA
from service import logs
from service.accounts.passwords import ARGON2ID
from service.accounts.users import User
from service.app import assemble, close, look_after
from service.ids import id_text
from service.parts import Parts
from service.sessions.families import Family
from service.sessions.refresh_tokens import RefreshToken
from service.sessions.signin import SignedIn
from service.settings import Settings, load
from service.store import reach

PASSWORD = "correct horse, battery & staple"
AT_ONCE = 50
IN_ONE_GO = 500  # copies
LONG_AGO = timedelta(days=2)


@dataclass(frozen=True)
class Person:
    """Somebody who has signed in, and what they hold."""

    email: str
    access: str
    refresh: str
    expired: str  # an access token that would be theirs, had it not expired


class Crowd:
    """So many people with a session each that making them one by one would take an hour.

    One is made by the parts that make people. The others are copies of every key that is named after that one, by
    Redis' own DUMP and RESTORE, with lookups and places in the directory by the commands of the service. So all have
    one name, one password and sessions of one age, which makes no difference to what is measured.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = load(settings)
        self._url = settings["REDIS_URL"]
        self._model: Person | None = None
        self.count = 0

    def grow(self, count: int, tokens: int) -> list[str]:
        """Be so many; access tokens of so many of them, evenly spread."""
        with open(os.devnull, "w") as nowhere:
            logs.configure(self._settings, nowhere)
            return asyncio.run(self._grow(count, tokens))

    async def _grow(self, count: int, tokens: int) -> list[str]:
        its = assemble(self._settings, reach(self._url))
        try:
            await look_after(its)
            if self._model is None:
                phc = PasswordHasher.from_parameters(ARGON2ID).hash(PASSWORD)
                self._model = await _one(its, email(0), phc)
                await its.audit.settled()
            principal = its.access_tokens.read(self._model.access)
            user = await its.users.find(principal.user_id)
            assert user is not None
            if count > max(self.count, 1):
                await self._copy(its, user, principal.session_id, range(max(self.count, 1), count))
            self.count = count
            now = datetime.fromtimestamp(its.clock.now(), UTC)
            found = []
            for number in range(0, count, max(1, count // tokens))[:tokens]:
                token = RefreshToken(_id(number) if number else user.id, principal.session_id)
                family = Family(token, principal.epoch, now, now + LONG_AGO, now, ("pwd",))
                found.append(its.access_tokens.make(replace(user, id=token.user_id), family).text)
            return found
        finally:
            await close(its)

    async def _copy(self, its: Parts, user: User, session_id: str, numbers: range) -> None:
        lasts = int((its.clock.now() + 86400) * 1000)
        with redis.Redis.from_url(self._url, socket_timeout=60) as asking:
            keys = [key.decode() for key in asking.scan_iter(f"*{user.id}*", count=1000)]
            copies = [(key, max(0, asking.pttl(key)), asking.dump(key)) for key in keys]
            connection = asking.connection_pool.get_connection()
            try:
                for start in range(numbers.start, numbers.stop, IN_ONE_GO):
                    some = range(start, min(start + IN_ONE_GO, numbers.stop))
                    lookups = await its.lookups.emails(map(email, some))
                    commands = list[bytes]()
                    for number, lookup in zip(some, lookups, strict=True):
                        its_id = _id(number)
                        commands += [
                            _packed(b"RESTORE", key.replace(user.id, its_id).encode(), b"%d" % ttl, content, b"REPLACE")
                            for key, ttl, content in copies
                        ]
                        commands.append(_packed(b"SET", lookup.encode(), its_id.encode()))
                        for command in (
                            *its.users.entering(replace(user, id=its_id)),
                            its.directory.session_opens(its_id, session_id, lasts, lasts)[0],
                        ):
                            commands.append(_packed(*(str(word).encode() for word in command)))
                    connection.send_packed_command([b"".join(commands)], check_health=False)
                    for _ in commands:
                        connection.read_response()
            finally:
                asking.connection_pool.release(connection)


def _packed(*words: bytes) -> bytes:
    """A command as it travels (RESP)."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _id(number: int) -> str:
    """The id of a copy. It begins with a letter, as every id does that we make."""
    return id_text(b"\x00" + hashlib.sha256(b"%d" % number).digest()[:15])


def email(number: int) -> str:
    return f"person{number}@example.org"


def sign_in(settings: Mapping[str, str], count: int) -> list[Person]:
    """A new session for each of so many people, whose accounts are made where they are not there."""
    read = load(settings)
    with open(os.devnull, "w") as nowhere:
        logs.configure(read, nowhere)  # a line for each sign-in would be in the way
        return asyncio.run(_sign_in(read, settings["REDIS_URL"], count))


async def _sign_in(settings: Settings, url: str, count: int) -> list[Person]:
    its = assemble(settings, reach(url))
    try:
        await look_after(its)
        phc = PasswordHasher.from_parameters(ARGON2ID).hash(PASSWORD)
        found = list[Person]()
        for start in range(0, count, AT_ONCE):
            some = range(start, min(start + AT_ONCE, count))
            found += await asyncio.gather(*(_one(its, email(number), phc) for number in some))
            await its.audit.settled()
        return found
    finally:
        await close(its)


async def _one(its: Parts, address: str, phc: str) -> Person:
    user = await its.users.find_by_email(address)
    user = user or await its.users.register(User("", address, phc, first_name="Ada", last_name="Lovelace"))
    signed = await its.signin.begin(user, ("pwd",), ADA)
    return Person(address, signed.access.text, signed.refresh_token, _expired(its, signed))


def _expired(its: Parts, signed: SignedIn) -> str:
    token = its.refresh_tokens.read(signed.refresh_token)
    then = datetime.fromtimestamp(its.clock.now(), UTC) - LONG_AGO
    return its.access_tokens.make(signed.user, Family(token, 0, then, then + timedelta(days=7), then, ("pwd",))).text
