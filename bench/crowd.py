"""So many people with a session each that making them one by one would take an hour."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import redis

from bench import people
from service.accounts.user import User
from service.ids import id_text
from service.parts import Parts
from service.sessions.families import Family
from service.sessions.refresh_tokens import RefreshToken
from service.tokens.access import Principal

IN_ONE_GO = 500  # copies
LASTS = 86_400_000  # ms


@dataclass(frozen=True)
class Model:
    """The one whom the others are copies of."""

    user: User
    principal: Principal


class Crowd:
    """People in Redis.

    The first is made by the parts that make people. The others are copies of every key that is named after that one,
    by Redis' own DUMP and RESTORE, with lookups and places in the directory by the commands of the service. So all have
    one name, one password and sessions of one age, which makes no difference to what is measured.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._model: Model | None = None
        self._count = 1

    def grow(self, count: int, tokens: int) -> list[str]:
        """Be so many; an access token of each of so many of them, evenly spread."""
        return asyncio.run(self._grow(count, tokens))

    async def _grow(self, count: int, tokens: int) -> list[str]:
        async with people.parts_of(self._settings) as its:
            model = self._model = self._model or await _model(its)
            with redis.Redis.from_url(self._settings["REDIS_URL"], socket_timeout=60) as asking:
                await _copy(its, asking, model, range(self._count, count))
            self._count = max(self._count, count)
            step = max(1, count // tokens)
            return [await _token(its, model, number) for number in range(0, count, step)[:tokens]]


async def _model(its: Parts) -> Model:
    person = await people.enter(its, people.email(0))
    await its.audit.settled()
    principal = its.access_tokens.read(person.access)
    user = await its.users.find(principal.user_id)
    assert user is not None
    return Model(user, principal)


async def _token(its: Parts, model: Model, number: int) -> str:
    user = replace(model.user, id=_id(number)) if number else model.user
    now = int(its.clock.now() * 1000)
    token = RefreshToken(user.id, model.principal.session_id)
    made = await its.access_tokens.make(user, Family(token, model.principal.epoch, now, now + LASTS, now, ("pwd",)))
    return made.text


async def _copy(its: Parts, asking: redis.Redis, model: Model, numbers: range) -> None:
    """Make the copies of these numbers."""
    keys = [key.decode() for key in asking.scan_iter(f"*{model.user.id}*", count=1000)]
    contents = {key: (max(0, int(asking.pttl(key))), asking.dump(key) or b"") for key in keys}
    connection = asking.connection_pool.get_connection()
    try:
        for start in range(numbers.start, numbers.stop, IN_ONE_GO):
            some = range(start, min(start + IN_ONE_GO, numbers.stop))
            lookups = await its.lookups.emails(map(people.email, some))
            commands = [
                _packed(command)
                for number, lookup in zip(some, lookups, strict=True)
                for command in _copying(its, model, contents, replace(model.user, id=_id(number)), lookup)
            ]
            connection.send_packed_command([b"".join(commands)], check_health=False)  # type: ignore[no-untyped-call]
            for _ in commands:
                connection.read_response()
    finally:
        asking.connection_pool.release(connection)


def _copying(
    its: Parts, model: Model, contents: Mapping[str, tuple[int, bytes]], user: User, lookup: str
) -> Iterator[Iterable[object]]:
    """The commands that make one copy."""
    for key, (ttl, content) in contents.items():
        yield "RESTORE", key.replace(model.user.id, user.id), ttl, content
    yield "SET", lookup, user.id
    yield from its.users.entering(user)
    now = int(its.clock.now() * 1000)
    yield from its.directory.session_opens(user.id, model.principal.session_id, now, now + LASTS)[:1]


def _packed(command: Iterable[object]) -> bytes:
    """A command as it travels (RESP)."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _id(number: int) -> str:
    """The id of a copy. It begins with a letter, as every id of ours does with one or a digit."""
    return id_text(b"\x00" + hashlib.sha256(b"%d" % number).digest()[:15])
