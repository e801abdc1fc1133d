"""User records: who a person is.

Redis
    user:{<id>}  hash  email, ok (verified), pw (PHC string), first, last, name, pic, roles, off (disabled),
                       via (how the account came about), priv (registered where the answer tells nothing),
                       at, up, in (created, updated, last sign-in; ms),
                       gone (its deletion has begun: when, and by which call),
                       id:<provider>, an identity elsewhere as JSON: issuer, subject, email, linked at (ms),
                       new (email asked for), once.<type> and once.spent (see `once.py`); no TTL

How a record reads is in `user.py`, what leads to it in `lookups.py`, who may have what leads to it in `claims.py`.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from service.accounts.claims import Claims
from service.accounts.directory import Directory
from service.accounts.emails import canonical
from service.accounts.lookups import Lookups
from service.accounts.roles import USER
from service.accounts.user import NO_TIME, Identity, Rights, User
from service.clock import Clock, moment, stamp
from service.errors import EmailExists, Forbidden, IdentityInUse, InvalidOneTimeToken, ServiceError, StoreUnavailable
from service.ids import new_id
from service.store import Command, Script, Store

_HERE = Path(__file__).parent
_ADMINISTER = Script(_HERE / "administer.lua")
_CHANGE = Script(_HERE / "change.lua")
_DOOM = Script(_HERE / "doom.lua")
_LINK = Script(_HERE / "link.lua")
_REDEEM = Script(_HERE / "redeem.lua")
_STRIP = Script(_HERE / "strip.lua")
_UNLINK = Script(_HERE / "unlink.lua")


class Linking(StrEnum):
    """Who links an identity: one who is signed in, the same with a word on the email, or who has proved the email."""

    HOLDER = "holder"
    VERIFIED = "verified"
    OWNER = "owner"


class Changed(Exception):
    """The record is no longer what the caller has read: read it again."""


class LastWayIn(Exception):
    """Without this identity nobody could sign in to the account any more."""


class Users:
    """Finds, makes and changes accounts."""

    def __init__(self, store: Store, clock: Clock, lookups: Lookups) -> None:
        self._store = store
        self._clock = clock
        self._lookups = lookups
        self._claims = Claims(lookups, self.find)
        self._directory = Directory(store)

    def reading(self, user_id: str) -> Command:
        """The command whose reply `User.read` understands."""
        return ("HGETALL", _key(user_id))

    def reading_rights(self, user_id: str) -> Command:
        """The command whose reply `Rights.read` understands: a refresh needs no more of the record."""
        return ("HMGET", _key(user_id), *Rights.FIELDS)

    def entering(self, user: User) -> list[Command]:
        """The commands that enter a user, as the record is or is going to be, into the directory."""
        return self._directory.entering(user.id, stamp(user.created_at), user.roles, user.active)

    async def find_all(self, user_ids: Iterable[str]) -> list[User | None]:
        """Several users in one round trip, in this order."""
        user_ids = tuple(user_ids)
        if not user_ids:
            return []
        records = await self._store.run(*map(self.reading, user_ids))
        return [User.read(user_id, record) for user_id, record in zip(user_ids, records, strict=True)]

    async def find(self, user_id: str) -> User | None:
        """The user with this id."""
        return User.read(user_id, await self._store.one(self.reading(user_id)))

    async def id_of(self, email: str) -> str | None:
        """The id that an email leads to; the caller reads the user and compares the email."""
        lookup = await self._lookups.email(email)
        if (holder := await self._lookups.holder(lookup)) is None:
            return None
        if not holder.for_good and await self.find(holder.user_id):
            # Its registration was cut off before the last step: an account that can be found must stay.
            await self._lookups.settle(lookup, holder.user_id)
        return holder.user_id

    async def find_by_email(self, email: str) -> User | None:
        """The user with this email, in any spelling of it."""
        user_id = await self.id_of(email)
        user = await self.find(user_id) if user_id else None
        return user if user and user.email == canonical(email) else None

    async def find_by_identity(self, issuer: str, subject: str) -> User | None:
        """The user with this identity."""
        holder = await self._lookups.holder(await self._lookups.identity(issuer, subject))
        user = await self.find(holder.user_id) if holder else None
        wanted = Identity("", issuer, subject)
        return user if user and any(wanted.same_as(identity) for identity in user.identities) else None

    async def register(self, user: User) -> User:
        """Make an account of a `User` without id, as of now unless it says when.

        Raises `EmailExists` or `IdentityInUse`.
        """
        user = self._new(user)
        claimed: dict[str, ServiceError] = {await self._claims.email(user.id, user.email): EmailExists()}
        try:
            for identity in user.identities:
                claimed[await self._claims.identity(user.id, identity)] = IdentityInUse()
        except IdentityInUse:
            for lookup in claimed:
                await self._lookups.release(lookup, user.id)
            raise
        await self._store.run(*self.entering(user), self._recording(user))
        for lookup, lost in claimed.items():
            if not await self._lookups.settle(lookup, user.id):
                # The claim had lapsed or given way before the record was written, and somebody else came first.
                await self.erase(user)
                raise lost
        return user

    async def register_all(self, users: Iterable[User]) -> list[User | None]:
        """Make accounts of users without identities, in a few round trips for all; `None` for each that was not made.

        That is where the email is taken or was claimed a moment ago. Only `register` finds out which, and whether the
        claim gives way.
        """
        new = [self._new(user) for user in users]
        lookups = await self._lookups.emails(user.email for user in new)
        claims = {user.id: (lookup, user.id) for lookup, user in zip(lookups, new, strict=True)}
        claimed = await self._lookups.claim_all(claims.values())
        written = [user for user, got in zip(new, claimed, strict=True) if got]
        if written:
            # The places in the directory first, as for one; but those of all users, for one says nothing of another.
            await self._store.run(*(command for user in written for command in self.entering(user)), apart=True)
            await self._store.run(*(self._recording(user) for user in written), apart=True)
        settled = await self._lookups.settle_all(claims[user.id] for user in written)
        lost = {user.id for user, got in zip(written, settled, strict=True) if not got}
        for user in written:
            if user.id in lost:
                await self.erase(user)
        made = {user.id for user in written} - lost
        return [user if user.id in made else None for user in new]

    async def link(self, user: User, identity: Identity, who: Linking) -> None:
        """Give a user, as the caller has read it, an identity.

        Raises `IdentityInUse` if another user has it, if this one has another of the provider, or if the account was
        taken over after it was read.
        """
        identity = replace(identity, linked_at=self._now())
        existing = next((held for held in user.identities if held.provider == identity.provider), None)
        if existing and not identity.same_as(existing):
            raise IdentityInUse("The account already has another identity of this provider; unlink it first")
        lookup = await self._claims.identity(user.id, identity)
        field_name, seen = "id:" + identity.provider, existing.written() if existing else ""
        written, verified = seen or identity.written(), int(user.email_verified)
        linking = _LINK(_key(user.id), field_name, written, seen, verified, who, self._stamp())
        if await self._store.one(linking, durable=True) != "linked":
            raise IdentityInUse("The account has changed meanwhile; please try again")
        if not await self._lookups.settle(lookup, user.id):
            await self._store.one(_UNLINK(_key(user.id), field_name, self._stamp()))
            raise IdentityInUse
        if await self._left_with(lookup, user.id):
            raise IdentityInUse("The account has changed meanwhile; please try again")

    async def unlink(self, user_id: str, provider: str) -> None:
        """Take an identity from a user who has it; raises `LastWayIn`."""
        match await self._store.one(_UNLINK(_key(user_id), "id:" + provider, self._stamp()), durable=True):
            case ["unlinked", identity]:
                await self._claims.release_identity(user_id, Identity.read(provider, identity))
            case ["last"]:
                raise LastWayIn

    async def strip(self, user_id: str) -> bool:
        """Take every way in from an account whose email was never verified; false if it has been meanwhile."""
        answer = await self._store.one(_STRIP(_key(user_id), self._stamp()), durable=True)
        if answer[0] != "stripped":
            return False
        for identity in answer[1:]:
            await self._claims.release_identity(user_id, Identity.read("", identity))
        return True

    async def change(self, user_id: str, *, password_was: str | None = None, **fields: str | None) -> bool:
        """Change fields of a record by their Redis names; false when the user is gone.

        With `password_was` nothing changes unless that still is the stored password; then false, too.
        """
        guard = ("", "") if password_was is None else ("pw", password_was)
        return await self.change_if(user_id, guard, {"up": self._stamp(), **fields})

    async def change_if(self, user_id: str, only_if: tuple[str, str], fields: dict[str, str | None]) -> bool:
        """Change fields while another still has its value; false when it has not, or the user is gone."""
        command = _CHANGE(_key(user_id), *only_if, *_flat(fields))
        return bool(await self._store.one(command, durable=True) == "changed")

    async def field(self, user_id: str, name: str) -> str | None:
        """One field of a record, by its Redis name."""
        value: str | None = await self._store.one(("HGET", _key(user_id), name))
        return value

    async def redeem(
        self, user_id: str, token_field: str, digest: str, fields: dict[str, str | None], proves_owner: bool
    ) -> bool:
        """Change fields in exchange for a one-time token, once; false if it is not good. Only `once.py` asks."""
        pairs = _flat({"up": self._stamp(), **fields})
        command = _REDEEM(_key(user_id), token_field, digest, secrets.randbits(63), int(proves_owner), *pairs)
        verdict, *identities = await self._store.one(command, durable=True)
        for identity in identities:
            await self._claims.release_identity(user_id, Identity.read("", identity))
        return bool(verdict == "taken")

    @asynccontextmanager
    async def moving(self, user: User, email: str) -> AsyncIterator[None]:
        """Around the writing of a new email: the lookup of the new one before, that of the old one after.

        The new lookup is there for good before the record says so. A crash in between leaves one that leads nowhere,
        which gives way; a record that no lookup leads to never comes about. Raises `EmailExists`.
        """
        lookup = await self._claims.email(user.id, email)
        if not await self._lookups.settle(lookup, user.id):
            raise EmailExists
        try:
            yield
        except StoreUnavailable:
            raise  # nobody knows whether it was written; a lookup that leads nowhere harms nobody
        except ServiceError:
            # Another request with the same token may have been faster: then it is in use.
            if (now := await self.find(user.id)) is None or now.email != email:
                await self._lookups.release(lookup, user.id)
            raise
        if not await self._lookups.settle(lookup, user.id):
            # Somebody registered with it in the moment when the lookup led nowhere: who has the lookup has the email.
            await self.change_if(user.id, ("email", email), {"email": user.email})
            raise EmailExists
        if user.email != email:
            await self._claims.release_email(user.id, user.email)
        if await self._left_with(lookup, user.id):
            raise InvalidOneTimeToken

    async def administer(
        self,
        user: User,
        *,
        roles: tuple[str, ...] | None = None,
        active: bool | None = None,
        email_verified: bool | None = None,
        ending: Iterable[str] = (),
    ) -> User:
        """Set what admins decide of a user as the caller has read it, and nothing that is `None`; the user as written.

        `ending` are fields that go in the same step. Raises `Changed` if the user has other roles now, or has been
        disabled, enabled or deleted. The directory is written around it: what is added before, what is taken away
        after.
        """
        after = replace(
            user,
            roles=user.roles if roles is None else roles,
            active=user.active if active is None else active,
            email_verified=user.email_verified if email_verified is None else email_verified,
        )
        fields: dict[str, str | None] = {**dict.fromkeys(ending), "up": self._stamp()}
        if email_verified is not None:
            fields["ok"] = "1" if email_verified else None
        change = _ADMINISTER(
            _key(user.id),
            *(" ".join(user.roles), _off(user)),
            *(" ".join(after.roles), _off(after)),
            *_flat(fields),
        )
        created = stamp(user.created_at)
        entering = self._directory.gaining(
            user.id,
            created,
            [role for role in after.roles if role not in user.roles],
            not_user=USER in user.roles and USER not in after.roles,
            disabled=user.active and not after.active,
            admin=after.is_admin and not user.is_admin,
        )
        *_, answer = await self._store.run(*entering, change, durable=True)
        if answer != "changed":
            raise Changed
        await self._take_out(after, [role for role in user.roles if role not in after.roles], after.active)
        return after

    async def _take_out(self, user: User, lost: Iterable[str], enabled: bool) -> None:
        """Remove a user from what they no longer belong to, unless somebody has given it back meanwhile."""
        if not (removing := self._directory.losing(user.id, lost, USER in user.roles, enabled)):
            return
        record = (await self._store.run(*removing, self.reading(user.id)))[-1]
        current = User.read(user.id, record)
        if current is None or current.leaving or (current.roles, current.active) == (user.roles, user.active):
            return
        created = stamp(user.created_at)
        not_user = USER not in current.roles
        if again := self._directory.gaining(user.id, created, current.roles, not_user, disabled=not current.active):
            await self._store.run(*again)

    async def enter(self, user: User) -> None:
        """Enter a user into the directory as the record is."""
        await self._store.run(*self.entering(user))

    async def leave_admins(self, user_id: str) -> None:
        """Count a user as an admin no more, before the record says so; raises `Forbidden` for the last one."""
        found = await self.find_all(await self._directory.other_admins(user_id))
        others = [user.id for user in found if user and user.is_admin]
        if not await self._directory.leave_admins(user_id, others):
            raise Forbidden("This is the last admin; make somebody else an admin first")

    async def doom(self, user: User) -> tuple[User | None, bool]:
        """Begin to delete a user as the caller has read it: nobody gets in any more, nothing is added.

        The user as the record stays from now on, `None` if there is none; and whether it is this call that began.
        Raises `Changed` if the user has other roles now, or has been disabled or enabled.
        """
        mark = f"{self._stamp()} {new_id()}"
        dooming = _DOOM(_key(user.id), mark, " ".join(user.roles), _off(user))
        verdict, *fields = await self._store.one(dooming, durable=True)
        if verdict == "differs":
            raise Changed
        found = User.read(user.id, dict(zip(fields[::2], fields[1::2], strict=True)))
        return found, verdict == "began"

    async def release(self, user: User) -> None:
        """Give up every lookup that leads to a user, so that others may have the email and the identities."""
        await self._claims.release_email(user.id, user.email)
        for identity in user.identities:
            await self._claims.release_identity(user.id, identity)

    async def erase(self, user: User) -> None:
        """Remove the record, and then its places in the directory."""
        await self._store.run(("DEL", _key(user.id)), *self._directory.leaving(user.id, user.roles), durable=True)

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the ids there are, and where to go on; 0 is the end. An id may come twice."""
        cursor, keys = await self._store.scan(_key("*"), cursor)
        return cursor, [key[len(_key("")) - 1 : -1] for key in keys]

    def noting_login(self, user_id: str) -> Command:
        """The command that notes a sign-in, to travel with another."""
        return _CHANGE(_key(user_id), "", "", "in", self._stamp())

    async def _left_with(self, lookup: str, user_id: str) -> bool:
        """Whether the account has gone meanwhile, or is going; then the lookup goes as well.

        The deletion may have released the lookup before it was made permanent.
        """
        if (current := await self.find(user_id)) is not None and not current.leaving:
            return False
        await self._lookups.release(lookup, user_id)
        return True

    def _new(self, user: User) -> User:
        now = self._now()
        return replace(
            user,
            id=new_id(),
            email=canonical(user.email),
            created_at=now if user.created_at == NO_TIME else user.created_at,
            updated_at=now,
            identities=tuple(replace(identity, linked_at=now) for identity in user.identities),
        )

    @staticmethod
    def _recording(user: User) -> Command:
        """The command that writes a new user's record, for which there are places in the directory already."""
        return ("HSET", _key(user.id), *user.written())

    def _now(self) -> datetime:
        return moment(self._stamp())

    def _stamp(self) -> str:
        """Now, as records have it."""
        return str(round(self._clock.now() * 1000))


def _flat(fields: dict[str, str | None]) -> Iterator[str]:
    for name, value in fields.items():
        yield from (name, value or "")


def _key(user_id: str) -> str:
    return f"user:{{{user_id}}}"


def _off(user: User) -> str:
    """The field `off`, as `administer.lua` and `doom.lua` compare it."""
    return "" if user.active else "1"
