"""Re-authentication: the password once more, from somebody who is signed in, before what a thief must not do.

A wrong one is an attempt at the password like that of a sign-in, and counts in the same bursts: who has somebody's
session and not the password guesses here.
"""

from enum import StrEnum

from service import metrics
from service.accounts.passwords import Passwords
from service.accounts.user import User
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.errors import InvalidCredentials
from service.signals.signals import Signals
from service.tokens.access import Principal


class Deed(StrEnum):
    """What takes the password. These words are in the trail."""

    NEW_PASSWORD = "new_password"  # noqa: S105
    NEW_EMAIL = "new_email"
    DELETION = "deletion"


class Reauthentication:
    """Asks who is signed in for the password that their session does not have."""

    def __init__(self, passwords: Passwords, signals: Signals, audit: Audit) -> None:
        self._passwords = passwords
        self._signals = signals
        self._audit = audit

    async def confirm(
        self, principal: Principal, user: User, password: str, deed: Deed, client: Client, *, or_done: str | None = None
    ) -> bool:
        """Whether the password is the user's; raises `InvalidCredentials` where it is not.

        `or_done` is another one that will do, and then the answer is no: what this call is for was done by the one
        before it, whose answer was lost.
        """
        right = await self._passwords.verify(password, user.password or None)
        if right or (or_done is not None and await self._passwords.verify(or_done, user.password or None)):
            metrics.REAUTHENTICATIONS.labels("success").inc()
            return right
        refusal = InvalidCredentials("The password is not right")
        metrics.REAUTHENTICATIONS.labels(refusal.code.lower()).inc()
        self._signals.note_attempt(user.email, client)
        await self._audit.record(
            Event.REAUTHENTICATION_REFUSED,
            user_id=user.id,
            session_id=principal.session_id,
            client=client,
            reason=refusal.code,
            deed=deed,
        )
        raise refusal
