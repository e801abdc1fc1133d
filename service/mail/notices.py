"""Notices: what an account's owner should hear of, even when it was them.

Keeps nothing; a notice is an errand in the outbox.
"""

from datetime import UTC, datetime

from service.client import UNKNOWN, Client
from service.clock import Clock
from service.mail.letters import Kind
from service.mail.outbox import Outbox


class Notices:
    """Tells owners what happened, when and from where. Fails open, as `Outbox.tell` does."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def tell(self, kind: Kind, client: Client, user_id: str, to: str = "", **facts: str) -> None:
        """Send a notice to this address, or to the one that the account has when it is sent."""
        when = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%d %B %Y, %H:%M UTC")
        device = "an unknown device" if client.device == UNKNOWN else client.device  # in the middle of a sentence
        scene = {"when": when, "device": device, "ip": client.address}
        await self._outbox.tell(kind, user=user_id, to=to, **scene, **facts)
