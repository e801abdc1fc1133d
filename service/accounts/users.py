"""User records: who a person is.

Redis
    user:{<id>}  hash  email, ok (verified), pw (PHC string), first, last, name, pic, roles, off (disabled),
                       via (how the account came about), at, up, in (created, updated, last sign-in; ms),
                       gone (its deletion has begun: when, and by which call),
                       id:<provider>, an identity elsewhere as JSON: issuer, subject, email, linked at (ms),
                       new (email asked for), once.<type> and once.spent (see `once.py`); no TTL

What leads to a record is in `lookups.py`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import orjson

from service.accounts.directory import Directory
from service.accounts.emails import canonical
from service.accounts.lookups import Holder, Lookups
from service.accounts.roles import ADMIN, USER
from service.clock import Clock
from service.errors import (
    EmailExists,
    Forbidden,
    IdentityInUse,
    InvalidOneTimeToken,
    ServiceError,
    StoreUnavailable,
)
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
_SECOND_LOOKS, _MOMENT = 10, 0.02  # how often, and every how many seconds, at a holder who may be about to give way
_NO_TIME = datetime.fromtimestamp(0, UTC)


class Linking(StrEnum):
    """Who links an identity: one who is signed in, the same with a word on the email, or who has proved the email."""

    HOLDER = "holder"
    VERIFIED = "verified"
    OWNER = "owner"


class Changed(Exception):
    """The record is no longer what the caller has read: read it again."""


class LastWayIn(Exception):
    """Without this identity nobody could sign in to the account any more."""


@dataclass(frozen=True)
class Identity:
    """An account elsewhere that signs in here. Issuer and subject are the identity; the email is for display."""

    provider: str
    issuer: str
    subject: str
    email: str | None = None
    linked_at: datetime = _NO_TIME

    @classmethod
    def read(cls, provider: str, text: str) -> "Identity":
        issuer, subject, email, linked = orjson.loads(text)
        return cls(provider, issuer, subject, email, _time(linked))

    def written(self) -> str:
        return orjson.dumps([self.issuer, self.subject, self.email, _ms(self.linked_at.timestamp())]).decode()

    def same_as(self, other: "Identity | None") -> bool:
        return other is not None and (self.issuer, self.subject) == (other.issuer, other.subject)


@dataclass(frozen=True)
class User:
    """A person's account. `password` is a PHC string, or empty when there is none."""

    id: str
    email: str
    password: str = field(default="", repr=False)
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    name: str | None = None
    picture: str | None = None
    roles: tuple[str, ...] = (USER,)
    provider: str = "local"
    active: bool = True
    created_at: datetime = _NO_TIME
    updated_at: datetime = _NO_TIME
    last_login_at: datetime | None = None
    identities: tuple[Identity, ...] = ()
    new_email: str | None = None
    leaving_since: datetime | None = None  # when its deletion began

    @property
    def leaving(self) -> bool:
        """Whether its deletion has begun."""
        return self.leaving_since is not None

    @property
    def is_admin(self) -> bool:
        """Whether they are an admin who can act."""
        return self.active and ADMIN in self.roles

    @property
    def display_name(self) -> str | None:
        """The name as given, else first and last name together."""
        return self.name or " ".join(filter(None, (self.first_name, self.last_name))) or None


@dataclass(frozen=True)
class Rights:
    """What an access token says of an account that may be used."""

    id: str
    email: str
    roles: tuple[str, ...]


class Users:
    """Finds, makes and changes accounts."""

    def __init__(self, store: Store, clock: Clock, lookups: Lookups) -> None:
        self._store = store
        self._clock = clock
        self._lookups = lookups
        self._directory = Directory(store)

    def reading(self, user_id: str) -> Command:
        """The command whose reply `read` understands."""
        return ("HGETALL", _key(user_id))

    def read(self, user_id: str, record: dict[str, str]) -> User | None:
        """The user of a record, `None` if there is none."""
        if "email" not in record:
            return None
        linked = sorted([name for name in record if name.startswith("id:")])
        return User(
            id=user_id,
            email=record["email"],
            password=record.get("pw", ""),
            email_verified="ok" in record,
            first_name=record.get("first"),
            last_name=record.get("last"),
            name=record.get("name"),
            picture=record.get("pic"),
            roles=tuple(record.get("roles", USER).split()),
            provider=record.get("via", "local"),
            active="off" not in record,
            created_at=_time(record["at"]),
            updated_at=_time(record.get("up", record["at"])),
            last_login_at=_time(record["in"]) if "in" in record else None,
            new_email=record.get("new"),
            identities=tuple([Identity.read(name[3:], record[name]) for name in linked]),
            leaving_since=_time(record["gone"].partition(" ")[0]) if "gone" in record else None,
        )

    def reading_rights(self, user_id: str) -> Command:
        """The command whose reply `rights` understands: a refresh needs no more of the record."""
        return ("HMGET", _key(user_id), "email", "roles", "off")

    def rights(self, user_id: str, reply: list[str | None]) -> Rights | None:
        """What the account may do; `None` where there is none, or it is disabled."""
        email, roles, off = reply
        if email is None or off is not None:
            return None
        return Rights(user_id, email, tuple((roles or USER).split()))

    def entering(self, user: User) -> list[Command]:
        """The commands that enter a user, as the record is or is going to be, into the directory."""
        return self._directory.entering(user.id, int(_ms(user.created_at.timestamp())), user.roles, user.active)

    async def find_all(self, user_ids: Iterable[str]) -> list[User | None]:
        """Several users in one round trip, in this order."""
        user_ids = tuple(user_ids)
        if not user_ids:
            return []
        records = await self._store.run(*map(self.reading, user_ids))
        return [self.read(user_id, record) for user_id, record in zip(user_ids, records, strict=True)]

    async def find(self, user_id: str) -> User | None:
        return self.read(user_id, await self._store.one(self.reading(user_id)))

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
        lookup = await self._lookups.email(user.email)
        taken = EmailExists()
        claimed: dict[str, ServiceError] = {}
        claimed[await self._claim(lookup, user.id, lambda found: found.email == user.email, taken)] = taken
        try:
            for identity in user.identities:
                claimed[await self._claim_identity(user.id, identity)] = IdentityInUse()
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
        lookup = await self._claim_identity(user.id, identity)
        field_name, seen = "id:" + identity.provider, existing.written() if existing else ""
        linking = _LINK(
            _key(user.id),
            field_name,
            seen or identity.written(),
            seen,
            int(user.email_verified),
            who,
            _ms(self._clock.now()),
        )
        if await self._store.one(linking, durable=True) != "linked":
            raise IdentityInUse("The account has changed meanwhile; please try again")
        if not await self._lookups.settle(lookup, user.id):
            await self._store.one(_UNLINK(_key(user.id), field_name, _ms(self._clock.now())))
            raise IdentityInUse
        if (current := await self.find(user.id)) is None or current.leaving:
            # The deletion that has come in between may have released the lookup before it was made permanent.
            await self._lookups.release(lookup, user.id)
            raise IdentityInUse("The account has changed meanwhile; please try again")

    async def unlink(self, user_id: str, provider: str) -> None:
        """Take an identity from a user who has it; raises `LastWayIn`."""
        match await self._store.one(_UNLINK(_key(user_id), "id:" + provider, _ms(self._clock.now())), durable=True):
            case ["unlinked", identity]:
                await self._release(user_id, Identity.read(provider, identity))
            case ["last"]:
                raise LastWayIn

    async def strip(self, user_id: str) -> bool:
        """Take every way in from an account whose email was never verified; false if it has been meanwhile."""
        answer = await self._store.one(_STRIP(_key(user_id), _ms(self._clock.now())), durable=True)
        if answer[0] != "stripped":
            return False
        for identity in answer[1:]:
            await self._release(user_id, Identity.read("", identity))
        return True

    async def change(self, user_id: str, *, password_was: str | None = None, **fields: str | None) -> bool:
        """Change fields of a record by their Redis names; false when the user is gone.

        With `password_was` nothing changes unless that still is the stored password; then false, too.
        """
        guard = ("", "") if password_was is None else ("pw", password_was)
        return await self.change_if(user_id, guard, {"up": _ms(self._clock.now()), **fields})

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
        pairs = _flat({"up": _ms(self._clock.now()), **fields})
        command = _REDEEM(_key(user_id), token_field, digest, secrets.randbits(63), int(proves_owner), *pairs)
        verdict, *identities = await self._store.one(command, durable=True)
        for identity in identities:
            await self._release(user_id, Identity.read("", identity))
        return bool(verdict == "taken")

    @asynccontextmanager
    async def moving(self, user: User, email: str) -> AsyncIterator[None]:
        """Around the writing of a new email: the lookup of the new one before, that of the old one after.

        The new lookup is there for good before the record says so. A crash in between leaves one that leads nowhere,
        which gives way; a record that no lookup leads to never comes about. Raises `EmailExists`.
        """
        lookup, taken = await self._lookups.email(email), EmailExists()
        await self._claim(lookup, user.id, lambda found: found.email == email, taken)
        if not await self._lookups.settle(lookup, user.id):
            raise taken
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
            raise taken
        if user.email != email:
            await self._lookups.release(await self._lookups.email(user.email), user.id)
        if (current := await self.find(user.id)) is None or current.leaving:
            # The deletion that has come in between may have released the lookup before it was made permanent.
            await self._lookups.release(lookup, user.id)
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
        fields: dict[str, str | None] = {**dict.fromkeys(ending), "up": _ms(self._clock.now())}
        if email_verified is not None:
            fields["ok"] = "1" if email_verified else None
        change = _ADMINISTER(
            _key(user.id),
            *(" ".join(user.roles), _off(user)),
            *(" ".join(after.roles), _off(after)),
            *_flat(fields),
        )
        created = int(_ms(user.created_at.timestamp()))
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
        current = self.read(user.id, record)
        if current is None or current.leaving or (current.roles, current.active) == (user.roles, user.active):
            return
        created = int(_ms(user.created_at.timestamp()))
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
        mark = f"{_ms(self._clock.now())} {new_id()}"
        dooming = _DOOM(_key(user.id), mark, " ".join(user.roles), _off(user))
        verdict, *fields = await self._store.one(dooming, durable=True)
        if verdict == "differs":
            raise Changed
        found = self.read(user.id, dict(zip(fields[::2], fields[1::2], strict=True)))
        return found, verdict == "began"

    async def release(self, user: User) -> None:
        """Give up every lookup that leads to a user, so that others may have the email and the identities."""
        await self._lookups.release(await self._lookups.email(user.email), user.id)
        for identity in user.identities:
            await self._release(user.id, identity)

    async def erase(self, user: User) -> None:
        """Remove the record, and then its places in the directory."""
        await self._store.run(("DEL", _key(user.id)), *self._directory.leaving(user.id, user.roles), durable=True)

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the ids there are, and where to go on; 0 is the end. An id may come twice."""
        cursor, keys = await self._store.scan(_key("*"), cursor)
        return cursor, [key[len(_key("")) - 1 : -1] for key in keys]

    def noting_login(self, user_id: str) -> Command:
        """The command that notes a sign-in, to travel with another."""
        return _CHANGE(_key(user_id), "", "", "in", _ms(self._clock.now()))

    async def _claim(self, lookup: str, user_id: str, leads: Callable[[User], bool], taken: ServiceError) -> str:
        """Claim a lookup, also from a holder to whom it does not lead; raises `taken` where it does.

        That is a registration which was cut off, one under way, which then finds at its end that it came second, or an
        account that is gone.
        """
        if await self._lookups.claim(lookup, user_id):
            return lookup
        holder = await self._lookups.holder(lookup)
        found = await self.find(holder.user_id) if holder else None
        if (found and leads(found)) or not await self._lookups.claim(lookup, user_id, instead_of=holder):
            raise taken
        if holder and found and not await self._leads_nowhere(holder, leads):
            await self._lookups.give_back(lookup, user_id, holder)
            raise taken
        return lookup

    async def _leads_nowhere(self, holder: Holder, leads: Callable[[User], bool]) -> bool:
        """Whether a lookup that was claimed from its holder still leads nowhere.

        The holder may have been about to write the record that it leads to. Written before the claim, it stands.
        Written after it, the holder finds the lookup gone and takes the record back, which is waited for.
        """
        for _ in range(_SECOND_LOOKS):
            found = await self.find(holder.user_id)
            if found is None or not leads(found):
                return True
            await asyncio.sleep(_MOMENT)
        return False

    async def _claim_identity(self, user_id: str, identity: Identity) -> str:
        lookup = await self._lookups.identity(identity.issuer, identity.subject)
        return await self._claim(
            lookup, user_id, lambda found: any(identity.same_as(held) for held in found.identities), IdentityInUse()
        )

    async def _release(self, user_id: str, identity: Identity) -> None:
        await self._lookups.release(await self._lookups.identity(identity.issuer, identity.subject), user_id)

    def _new(self, user: User) -> User:
        now = self._now()
        return replace(
            user,
            id=new_id(),
            email=canonical(user.email),
            created_at=now if user.created_at == _NO_TIME else user.created_at,
            updated_at=now,
            identities=tuple(replace(identity, linked_at=now) for identity in user.identities),
        )

    @staticmethod
    def _recording(user: User) -> Command:
        """The command that writes a new user's record, for which there are places in the directory already."""
        return ("HSET", _key(user.id), *_pairs(user))

    def _now(self) -> datetime:
        return _time(_ms(self._clock.now()))


def _pairs(user: User) -> list[str]:
    fields = {
        "email": user.email,
        "pw": user.password,
        "ok": "1" if user.email_verified else None,
        "first": user.first_name,
        "last": user.last_name,
        "name": user.name,
        "pic": user.picture,
        "roles": " ".join(user.roles) if user.roles != (USER,) else None,
        "via": user.provider if user.provider != "local" else None,
        "off": None if user.active else "1",
        "at": _ms(user.created_at.timestamp()),
        **{"id:" + identity.provider: identity.written() for identity in user.identities},
    }
    return [part for name, value in fields.items() if value for part in (name, value)]


def _flat(fields: dict[str, str | None]) -> Iterator[str]:
    for name, value in fields.items():
        yield from (name, value or "")


def _off(user: User) -> str:
    """The field `off`, as `administer.lua` and `doom.lua` compare it."""
    return "" if user.active else "1"


def _key(user_id: str) -> str:
    return f"user:{{{user_id}}}"


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


@lru_cache(maxsize=8192)  # whoever asks for their account asks again
def _time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
