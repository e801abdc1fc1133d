"""One-time tokens: what a mail carries to prove that its reader has the address.

Redis
    once:<type>:<digest>  string  type and user id, as JSON; expires with the token

A token is `ot_` and 192 random bits. Only its digest is kept, and what it opens is bound to its type, in the key and
in the value. The key leads from a token to its user. Whether the token is still good stands in one place, the
user's record (`users.py`), whose field `once.<type>` names the latest of the type. So a newer one kills those before
it; a new password, a new email or a takeover removes the fields and kills all, an admin's word about the email those
that it overtakes; and `redeem.lua` takes the token and writes what it was for in one step, so that of many who bring
it one has it. A fault before that step burns nothing: the same request may come again.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

import orjson

from service.accounts.users import Users
from service.clock import milliseconds
from service.errors import InvalidOneTimeToken
from service.settings import Settings
from service.store import Store

_FORM = re.compile(r"ot_[A-Za-z0-9_-]{32}", re.ASCII)


class Purpose(StrEnum):
    """What a token is for: its type."""

    VERIFY = "verify"
    RESET = "reset"
    CHANGE = "change"

    @property
    def field(self) -> str:
        """The field of the user's record that names the latest token."""
        return f"once.{self.value}"


# What to write beside a new password or email: no token of before and no pending change of email outlives it.
NONE_LEFT: dict[str, str | None] = {**{purpose.field: None for purpose in Purpose}, "new": None}


@dataclass(frozen=True)
class Found:
    """A token that was good a moment ago; whether it still is, `Once.redeem` decides."""

    purpose: Purpose
    user_id: str
    digest: str


class Once:
    """Makes one-time tokens, finds what they are for, and takes them."""

    def __init__(self, store: Store, users: Users, settings: Settings) -> None:
        self._store = store
        self._users = users
        self._life = milliseconds(settings.one_time_token_expiry)

    async def issue(self, purpose: Purpose, user_id: str, only_if: tuple[str, str]) -> str | None:
        """Make a token, and so end those of its type before it; the latest of them is removed.

        `only_if` names a field of the record and its value: `None` when that has changed, so that no token goes to an
        address that is not the account's any more.
        """
        text = "ot_" + secrets.token_urlsafe(24)
        digest, before = _digest(text), await self._users.field(user_id, purpose.field)
        # The key first: a record that names a token which is not there would only have killed the one before.
        value = orjson.dumps({"type": purpose, "user": user_id}).decode()
        await self._store.one(("SET", _key(purpose, digest), value, "PX", self._life))
        if await self._users.change_if(user_id, only_if, {purpose.field: digest}):
            if before:
                await self._store.one(("DEL", _key(purpose, before)))  # it opens nothing any more
            return text
        await self._store.one(("DEL", _key(purpose, digest)))
        return None

    async def find(self, text: str, *purposes: Purpose) -> Found:
        """What a token is for; raises `InvalidOneTimeToken` if for none of these."""
        if not _FORM.fullmatch(text):
            raise InvalidOneTimeToken
        digest = _digest(text)
        for reply, purpose in zip(
            await self._store.run(*(("GET", _key(purpose, digest)) for purpose in purposes)), purposes, strict=True
        ):
            if reply is not None and (told := orjson.loads(reply))["type"] == purpose:
                found = Found(purpose, told["user"], digest)
                if await self._users.field(found.user_id, purpose.field) == digest:
                    return found
        raise InvalidOneTimeToken

    async def redeem(self, found: Found, writing: dict[str, str | None], *, proves_owner: bool = False) -> None:
        """Take the token and write these fields of its user; raises `InvalidOneTimeToken` if another was faster.

        With `proves_owner` an account that was never verified loses its identities: a squatter may have linked them.
        """
        if not await self._users.redeem(found.user_id, found.purpose.field, found.digest, writing, proves_owner):
            raise InvalidOneTimeToken
        await self._store.one(("DEL", _key(found.purpose, found.digest)))

    async def revoke_all(self, user_id: str) -> None:
        """Take the latest tokens of a user away, one who is being deleted too; those before them expire."""
        digests = {purpose: await self._users.field(user_id, purpose.field) for purpose in Purpose}
        if gone := [("DEL", _key(purpose, digest)) for purpose, digest in digests.items() if digest]:
            await self._store.run(*gone, apart=True)

    async def scan(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the tokens there are, each as the name of its key and its user, and where to go on; 0 is the end."""
        cursor, names = await self._store.scan("once:*", cursor)
        values = await self._store.run(*(("GET", name) for name in names)) if names else []
        return cursor, [(name, orjson.loads(value)["user"]) for name, value in zip(names, values, strict=True) if value]

    async def withdraw(self, name: str) -> None:
        """Take a token away by the name of its key."""
        await self._store.one(("DEL", name))


def _key(purpose: Purpose, digest: str) -> str:
    return f"once:{purpose.value}:{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
