"""Administration: find accounts, and change what their owners may and may not.

Whoever acts is an `Actor`. Nobody gives a role that permits what they may not do themselves, and nobody touches an
account that may do more than they; a role that permits nothing here is an admin's to give and to take. Nobody disables
or deletes themselves as an admin. The command line may do everything. The last active admin stays.

A change is written to the record first and takes effect then: the epoch grows, so that older access tokens are
`TOKEN_STALE`, or with a disabled account all sessions end. Where a crash came in between, the same call again does it.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from service.accounts.deletion import Deletion
from service.accounts.directory import Directory, Place
from service.accounts.once import Purpose
from service.accounts.roles import ADMIN, Roles
from service.accounts.user import User
from service.accounts.users import Changed, Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.clock import Clock
from service.errors import Forbidden, InvalidField, NotFound, ServiceError, StoreUnavailable
from service.mail.outbox import Outbox
from service.sessions.families import Ended, EndReason, Families
from service.signals.signals import Signals, Told
from service.tokens.access import Principal

_ATTEMPTS = 5
_LOOKS = 5  # how many batches a page looks through for users who fit
_PLACE = re.compile(r"(\d{1,15}):([A-Za-z0-9_-]{22})", re.ASCII)


@dataclass(frozen=True)
class Actor:
    """Who acts: `by` is for the trail. `permissions` of `None` are all there are."""

    by: str
    permissions: frozenset[str] | None = None
    client: Client | None = None
    key_id: str | None = None  # the API key by which they act

    @classmethod
    def of(cls, principal: Principal, client: Client) -> "Actor":
        """A person who is signed in, or an API key, with the permissions that they have."""
        return cls(principal.user_id, frozenset(principal.permissions), client, principal.key_id or None)


COMMAND_LINE = Actor("command line")


@dataclass(frozen=True)
class Statistics:
    """How many accounts and sessions there are, how much mail has not left, and what looks like an attack."""

    total_users: int
    active_users: int
    new_users: int  # in the last 24 hours
    active_sessions: int
    roles: dict[str, int]
    waiting_mail: int
    parked_mail: int
    signals: Told


class Administration:
    """What admins do, over HTTP and on the command line."""

    def __init__(
        self,
        users: Users,
        families: Families,
        directory: Directory,
        roles: Roles,
        audit: Audit,
        deletion: Deletion,
        outbox: Outbox,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self._users = users
        self._families = families
        self._directory = directory
        self._roles = roles
        self._audit = audit
        self._deletion = deletion
        self._outbox = outbox
        self._signals = signals
        self._clock = clock

    async def find(self, user_id: str) -> User:
        """A user; raises `NotFound`."""
        user = await self._users.find(user_id)
        if user is None or user.leaving:
            raise NotFound("There is no such user")
        return user

    async def list(
        self, email: str | None, role: str | None, cursor: str | None, limit: int
    ) -> tuple[list[User], str | None]:
        """Users, newest first, and where the next page begins.

        An email, in any spelling of it, is found by its lookup: there is one or none. The cursor is a place in time,
        not a number, so it stays right while users come and go: nobody is listed twice, and nobody who was there all
        the time is left out.
        """
        if email is not None:
            user = await self._users.find_by_email(email)
            return ([user] if user and _fits(user, role) else []), None
        after, found = _place(cursor), list[User]()
        for _ in range(_LOOKS):
            places = await self._directory.page(role, after, limit + 1)
            users = await self._users.find_all(place.id for place in places)
            for place, user in zip(places, users, strict=True):
                if user and _fits(user, role):
                    if len(found) == limit:
                        return found, _cursor(after)
                    found.append(user)
                after = place
            if len(places) <= limit:
                return found, None
        return found, _cursor(after)

    async def change(
        self,
        actor: Actor,
        user_id: str,
        *,
        roles: Iterable[str] | None = None,
        active: bool | None = None,
        email_verified: bool | None = None,
    ) -> User:
        """Change what is not `None`; raises `NotFound`, `Forbidden` or `ValidationFailed`."""
        wanted = None if roles is None else self._known(roles)
        if active is False and actor.by == user_id:
            raise Forbidden("Nobody disables their own account: let another admin do it, or sign out everywhere")
        for _ in range(_ATTEMPTS):
            before = await self.find(user_id)
            self._check(actor, before, changing=() if wanted is None else {*before.roles} ^ {*wanted})
            stays_admin = ADMIN in (before.roles if wanted is None else wanted) and active is not False
            if before.is_admin and not stays_admin:
                await self._users.leave_admins(user_id)
            try:
                after = await self._users.administer(
                    before,
                    roles=wanted,
                    active=active,
                    email_verified=email_verified,
                    ending=_overtaken(email_verified),
                )
            except Changed:
                continue
            except StoreUnavailable:
                # It may be done all the same, and who comes again then finds nothing different to tell of.
                with suppress(ServiceError):
                    await self._tell(actor, before, await self.find(user_id), Ended(0))
                raise
            ended = Ended(0)
            try:
                if active is False:
                    ended = await self._families.end_all(user_id, EndReason.ACCOUNT_DISABLED, account_changed=True)
                elif wanted is not None:
                    await self._families.outdate_tokens(user_id)
            finally:
                # Done is done: whoever repeats it after a fault finds nothing different any more to tell of.
                await self._tell(actor, before, after, ended)
            return await self.find(user_id)
        raise StoreUnavailable

    async def sign_out(self, actor: Actor, user_id: str) -> int:
        """End every session of a user; how many there were."""
        self._check(actor, await self.find(user_id))
        ended = await self._families.end_all(user_id, EndReason.BY_ADMIN, account_changed=True)
        await self._audit.record(
            Event.SESSIONS_ENDED,
            user_id=user_id,
            client=actor.client,
            by=actor.by,
            key_id=actor.key_id,
            reason=EndReason.BY_ADMIN,
            count=ended.count,
            ended=ended.sessions,
        )
        return ended.count

    async def delete(self, actor: Actor, user_id: str) -> None:
        """Delete a user, or what a crash has left of one; raises `NotFound` or `Forbidden`.

        Not oneself: whoever finds a page open must not end the account of its owner without the password, nor must
        their API key.
        """
        if actor.by == user_id:
            raise Forbidden("Your own account is deleted with DELETE /api/auth/me, which asks for the password")

        def allowed(user: User) -> None:
            self._check(actor, user)

        await self._deletion.delete(user_id, actor.client, actor.by, allowed, key_id=actor.key_id)

    async def statistics(self) -> Statistics:
        """The counts of the directory, of the outbox and of the signals."""
        counts = await self._directory.counts(int(self._clock.now() * 1000), self._roles.table)
        waiting, parked = await self._outbox.counts()
        return Statistics(
            total_users=counts.users,
            active_users=counts.users - counts.disabled,
            new_users=counts.new_today,
            active_sessions=counts.sessions,
            roles=counts.roles,
            waiting_mail=waiting,
            parked_mail=parked,
            signals=await self._signals.told(),
        )

    def _known(self, roles: Iterable[str]) -> tuple[str, ...]:
        roles = tuple(dict.fromkeys(roles))
        if unknown := [role for role in roles if role not in self._roles.table]:
            known = ", ".join(self._roles.table)
            raise InvalidField("roles", f"{unknown[0]!r} is not one of {known}")
        if not roles:
            raise InvalidField("roles", "must have one role at least")
        return roles

    def _check(self, actor: Actor, user: User, changing: Iterable[str] = ()) -> None:
        """Raise `Forbidden` unless the actor may do all that the user may, and may give and take these roles."""
        if actor.permissions is None:
            return
        needed = self._roles.to_grant(changing) | {*self._roles.permissions(user.roles)}
        if lacking := needed - actor.permissions:
            raise Forbidden("This takes permissions that you do not have yourself", required=sorted(lacking))

    async def _tell(self, actor: Actor, before: User, after: User, ended: Ended) -> None:
        """One event for each thing that is different now."""
        who = {"user_id": after.id, "client": actor.client, "by": actor.by, "key_id": actor.key_id}
        if set(before.roles) != set(after.roles):
            gained = [role for role in after.roles if role not in before.roles]
            lost = [role for role in before.roles if role not in after.roles]
            await self._audit.record(Event.ROLES_CHANGED, **who, gained=gained, lost=lost)
        if before.active and not after.active:
            await self._audit.record(Event.USER_DISABLED, **who, ended=ended.sessions)
        if after.active and not before.active:
            await self._audit.record(Event.USER_ENABLED, **who)
        if before.email_verified != after.email_verified:
            await self._audit.record(Event.EMAIL_VOUCHED_FOR if after.email_verified else Event.EMAIL_UNVERIFIED, **who)


def _fits(user: User, role: str | None) -> bool:
    return not user.leaving and (role is None or role in user.roles)


def _overtaken(email_verified: bool | None) -> list[str]:
    """The one-time tokens that an admin's word about the email ends, by their fields in the record.

    A mail to verify it has nothing left to say. Whoever withdraws a verification wants it proved anew, and a reset that
    was mailed before would prove it too.
    """
    if email_verified is None:
        return []
    return [purpose.field for purpose in ((Purpose.VERIFY,) if email_verified else (Purpose.VERIFY, Purpose.RESET))]


def _cursor(place: Place | None) -> str | None:
    if place is None:
        return None
    return base64.urlsafe_b64encode(f"{place.at}:{place.id}".encode()).decode("ascii").rstrip("=")


def _place(cursor: str | None) -> Place | None:
    """The place that a cursor of ours names; raises `ValidationFailed`."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if not (form := _PLACE.fullmatch(text)):
        raise InvalidField("cursor", "is not one of ours")
    return Place(int(form[1]), form[2])
