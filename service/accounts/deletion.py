"""The end of an account. Nothing is left of it but the audit trail, and for an hour its epoch, a bare number.

In this order, so that a crash leaves the safe half, and the same call, or `python -m service repair`, does the rest:

    doom the record      nobody signs in, nothing is linked or changed any more; from here on there is no way back
    forget the sessions  every token is refused, on every instance
    what features keep   `removals`, one for each feature that keeps something of a user
    release the lookups  the email and the identities are free for others
    the user's events    the trail of the operator stays
    erase the record     and then its places in the directory

What counts calls or knows addresses (`limit:…`, `burst:…`, `known:…`) names nobody and expires by itself. So does a
one-time token that a new password, a new email or an admin had ended (`once:…`), within its hour, and a sign-in
elsewhere that was to link an identity (`oauth:…`), within ten minutes; neither opens anything. An event that could not
be written at the time is told by who finishes the deletion.
"""

from collections.abc import Awaitable, Callable

from service.accounts.user import User
from service.accounts.users import Changed, Users
from service.audit.events import Event
from service.audit.trail import Audit, Wanted
from service.client import Client
from service.clock import Clock
from service.errors import (
    InvalidField,
    InvalidToken,
    NotFound,
    StoreUnavailable,
)
from service.sessions.families import Families
from service.sessions.reauthentication import Deed, Reauthentication
from service.tokens.access import Principal

Removal = Callable[[str], Awaitable[object]]
"""Removes all that a feature keeps of the user with this id; may be repeated."""

_ATTEMPTS = 5
_TELLS_WITHIN = 5.0  # seconds; after that, who began a deletion and has not told of it never will


class Deletion:
    """Deletes accounts."""

    def __init__(
        self,
        users: Users,
        reauthentication: Reauthentication,
        families: Families,
        audit: Audit,
        clock: Clock,
        removals: tuple[Removal, ...] = (),
    ) -> None:
        self._users = users
        self._reauthentication = reauthentication
        self._families = families
        self._audit = audit
        self._clock = clock
        self._removals = removals

    async def by_owner(self, principal: Principal, password: str | None, client: Client) -> None:
        """Delete one's own account, with its password, or with a recent sign-in where it has none.

        Raises `InvalidCredentials`, `ReauthenticationRequired`, or `Forbidden` for the last admin.
        """
        if (user := await self._users.find(principal.user_id)) is None:
            raise InvalidToken("The account is gone")
        if not user.password:
            principal.check_recent(self._clock.now())
        elif password is None:
            raise InvalidField("password", "is required")
        else:
            await self._reauthentication.confirm(principal, user, password, Deed.DELETION, client)
        await self.delete(user.id, client)

    async def delete(
        self,
        user_id: str,
        client: Client | None,
        by: str | None = None,
        allowed: Callable[[User], None] = lambda _: None,
        key_id: str | None = None,
    ) -> None:
        """Delete an account, or what a crash has left of it.

        Raises `NotFound`, `Forbidden` for the last admin, or whatever `allowed` raises for the user as they are now.
        """
        user, began = await self._doom(user_id, allowed)
        if began or await self._untold(user):
            await self._audit.record(Event.USER_DELETED, user_id=user_id, client=client, by=by, key_id=key_id)
        await self._families.forget(user_id)
        for remove in self._removals:
            await remove(user_id)
        await self._users.release(user)
        await self._audit.forget(user_id)
        await self._users.erase(user)

    async def _doom(self, user_id: str, allowed: Callable[[User], None]) -> tuple[User, bool]:
        for _ in range(_ATTEMPTS):
            if (seen := await self._users.find(user_id)) is None:
                break
            allowed(seen)
            if seen.is_admin:
                await self._users.leave_admins(user_id)
            try:
                user, began = await self._users.doom(seen)
            except Changed:
                continue
            if user is None:
                break
            return user, began
        else:
            raise StoreUnavailable
        raise NotFound("There is no such user")

    async def _untold(self, user: User) -> bool:
        """Whether the call that began this deletion was cut off before its event was written."""
        if user.leaving_since is None or self._clock.now() - user.leaving_since.timestamp() < _TELLS_WITHIN:
            return False
        told, _ = await self._audit.page(Wanted(user.id, Event.USER_DELETED), None, 1)
        return not told
