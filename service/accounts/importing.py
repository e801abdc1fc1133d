"""Bringing accounts from another system: JSON lines in, accounts out, and a reason for each line that is none.

    {"email": "ada@example.org", "passwordHash": "$2b$12$...", "emailVerified": true, "firstName": "Ada", ...}

A line is an account or it is not: nothing is half-imported. To go on after an interruption, run the same file again; a
line whose account is there already, with the same hash, is passed over. Hashes stay as they are until their owner signs
in. No line, and nothing of it, is ever repeated in a message but its number, its field and its email.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from service.accounts.fields import Email, Name, Picture
from service.accounts.passwords import Passwords
from service.accounts.roles import USER, Roles
from service.accounts.user import User
from service.accounts.users import Users
from service.errors import EmailExists, StoreUnavailable

AT_ONCE = 32
LONGEST_LINE = 64 * 1024  # characters
PATIENCE = 60  # tries of a second each, while Redis is away


class Line(BaseModel):
    """What a line may say."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)

    email: Email
    password_hash: str | None = None
    email_verified: bool = False
    first_name: Name | None = None
    last_name: Name | None = None
    name: Name | None = None
    picture: Picture | None = None
    roles: tuple[str, ...] = (USER,)
    active: bool = True
    created_at: datetime | None = None


class Fate(StrEnum):
    IMPORTED = "imported"
    THERE_ALREADY = "there already"
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    """What became of one line; `roles` are those of the account that was made."""

    line: int
    fate: Fate
    reason: str = ""
    roles: tuple[str, ...] = ()


@dataclass
class Summary:
    """What became of all of them."""

    imported: int = 0
    there_already: int = 0
    refused: list[Outcome] = field(default_factory=list)


class Importing:
    """Makes accounts of lines."""

    def __init__(self, users: Users, passwords: Passwords, roles: Roles) -> None:
        self._users = users
        self._passwords = passwords
        self._roles = roles

    async def run(self, lines: Iterable[str], told: Callable[[Outcome], None] = lambda _: None) -> Summary:
        """Import every line, some at once; `told` hears of each. Raises `StoreUnavailable` if Redis stays away."""
        summary = Summary()
        async for outcome in self._outcomes(lines):
            match outcome.fate:
                case Fate.IMPORTED:
                    summary.imported += 1
                case Fate.THERE_ALREADY:
                    summary.there_already += 1
                case Fate.REFUSED:
                    summary.refused.append(outcome)
            told(outcome)
        summary.refused.sort(key=lambda outcome: outcome.line)
        return summary

    async def _outcomes(self, lines: Iterable[str]) -> AsyncIterator[Outcome]:
        """Outcomes as they come, so many lines at a time."""
        numbered = ((number, text) for number, text in enumerate(lines, 1) if text.strip())
        while some := list(islice(numbered, AT_ONCE)):
            for outcome in await self._import(some):
                yield outcome

    async def _import(self, lines: list[tuple[int, str]]) -> list[Outcome]:
        """Import some lines: those that are new together, and then each of the others by itself."""
        outcomes, users = list[Outcome](), dict[int, User]()
        for number, text in lines:
            try:
                users[number] = self._user(text)
            except _Refused as refusal:
                outcomes.append(Outcome(number, Fate.REFUSED, str(refusal)))
        try:
            made = await self._users.register_all(users.values())
        except StoreUnavailable:
            made = [None] * len(users)  # some may be there now, which each will find
        new = [(number, user) for number, user in zip(users, made, strict=True) if user]
        outcomes += [Outcome(number, Fate.IMPORTED, roles=user.roles) for number, user in new]
        others = [number for number, user in zip(users, made, strict=True) if not user]
        tasks = [asyncio.create_task(self._import_one(number, users[number])) for number in others]
        try:
            return outcomes + [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _import_one(self, number: int, user: User) -> Outcome:
        for _ in range(PATIENCE):
            try:
                return await self._register(number, user)
            except StoreUnavailable:
                await asyncio.sleep(1)
        raise StoreUnavailable

    async def _register(self, number: int, user: User) -> Outcome:
        if existing := await self._users.find_by_email(user.email):
            return self._there_already(number, existing, user)
        try:
            await self._users.register(user)
        except EmailExists:
            # Another line, or a registration, was faster; or an earlier try of ours whose answer was lost.
            if existing := await self._users.find_by_email(user.email):
                return self._there_already(number, existing, user)
            return Outcome(number, Fate.REFUSED, f"{user.email}: the email is just being registered; try again")
        return Outcome(number, Fate.IMPORTED, roles=user.roles)

    def _there_already(self, number: int, existing: User, user: User) -> Outcome:
        if existing.password == user.password:
            return Outcome(number, Fate.THERE_ALREADY)
        return Outcome(number, Fate.REFUSED, f"{user.email}: there is an account with this email and another password")

    def _user(self, text: str) -> User:
        if len(text) > LONGEST_LINE:
            raise _Refused("the line is too long")
        try:
            line = Line.model_validate(_object(text))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            raise _Refused("; ".join(f"{'.'.join(map(str, one['loc']))}: {_sentence(one)}" for one in found)) from None
        if line.password_hash is not None and not self._passwords.readable(line.password_hash):
            raise _Refused("passwordHash: must be argon2id, bcrypt, scrypt or PBKDF2 in one of the known forms")
        if unknown := [role for role in line.roles if role not in self._roles.table]:
            raise _Refused(f"roles: there is no role {unknown[0]!r}; config/roles.toml has the table")
        created = line.created_at or datetime.now(UTC)
        return User(
            id="",
            email=line.email,
            password=line.password_hash or "",
            email_verified=line.email_verified,
            first_name=line.first_name,
            last_name=line.last_name,
            name=line.name,
            picture=line.picture,
            roles=tuple(dict.fromkeys(line.roles)) or (USER,),
            active=line.active,
            created_at=created if created.tzinfo else created.replace(tzinfo=UTC),
        )


class _Refused(Exception):
    """A line that is no account, and why."""


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _Refused("the line is not JSON") from None
    if not isinstance(value, dict):
        raise _Refused("the line is not a JSON object")
    return value


def _sentence(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field"
    return str(problem["msg"]).removeprefix("Value error, ")
