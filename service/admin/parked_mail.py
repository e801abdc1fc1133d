"""Parked mail: see what was given up, have it tried again, or forget it.

Keeps nothing; `mail/outbox.py` has the errands. What is shown tells an admin what to mend and for whom, and holds
nothing that opens anything: an errand has no link and no token yet, and addresses are masked.
"""

from dataclasses import dataclass
from typing import Any

from service.accounts.emails import masked
from service.admin.administration import Actor
from service.audit.events import Event
from service.audit.trail import Audit
from service.errors import NotFound
from service.mail.outbox import Outbox, Parked
from service.recovery.errands import Errands


@dataclass(frozen=True)
class Shown:
    """A parked errand and whom its letter is for, masked: `None` where nobody is left, or nobody can read it."""

    parked: Parked
    recipient: str | None

    def told(self) -> dict[str, Any]:
        """`ParkedMail`, as HTTP and the command line tell it; `createdAt` and `parkedAt` are times."""
        parked = self.parked
        return {
            "id": parked.id,
            "type": parked.kind,
            "recipient": self.recipient,
            "attempts": parked.tries,
            "lastError": parked.reason,
            "retrying": parked.retrying,
            "createdAt": parked.asked_at,
            "parkedAt": parked.parked_at,
        }


class ParkedMail:
    """What admins do about mail that did not leave, over HTTP and on the command line."""

    def __init__(self, outbox: Outbox, errands: Errands, audit: Audit) -> None:
        self._outbox = outbox
        self._errands = errands
        self._audit = audit

    async def page(self, cursor: str | None, limit: int) -> tuple[list[Shown], str | None]:
        """What is parked, the latest first, and where the next page begins; raises `ValidationFailed`."""
        found = await self._outbox.parked(cursor, limit + 1)
        recipients = await self._errands.recipients(parked.facts for parked in found[:limit])
        shown = [
            Shown(parked, masked(recipient) if recipient else None)
            for parked, recipient in zip(found, recipients, strict=False)
        ]
        return shown, shown[-1].parked.id if len(found) > limit else None

    async def retry(self, actor: Actor, id_: str) -> None:
        """Have one tried again now, by any instance; raises `NotFound`. Asked twice, or by two, it is sent once."""
        parked = await self._find(id_)
        # If it is not there any more, somebody else's wish or our own, whose answer got lost, has been fulfilled.
        await self._outbox.retry(id_)
        await self._tell(Event.MAIL_RETRIED, actor, parked)

    async def retry_all(self, actor: Actor) -> int:
        """Have all of it tried again; how many letters that is."""
        if count := await self._outbox.retry():
            await self._audit.record(
                Event.MAIL_RETRIED, client=actor.client, by=actor.by, key_id=actor.key_id, count=count
            )
        return count

    async def drop(self, actor: Actor, id_: str) -> None:
        """Forget one; raises `NotFound`. A letter that is on its way at this moment may still arrive."""
        parked = await self._find(id_)
        await self._outbox.drop(id_)
        await self._tell(Event.MAIL_DROPPED, actor, parked)

    async def _find(self, id_: str) -> Parked:
        if (parked := await self._outbox.find_parked(id_)) is None:
            raise NotFound("There is no such parked mail")
        return parked

    async def _tell(self, event: Event, actor: Actor, parked: Parked) -> None:
        about = {"by": actor.by, "key_id": actor.key_id, "mail": parked.id, "kind": parked.kind}
        await self._audit.record(event, user_id=parked.facts.get("user"), client=actor.client, **about)
