"""The post of one instance: takes errands from the outbox, has a letter written, and sends it. Requests never wait
for it.

Keeps nothing. Without a way out, in production without `SMTP_URL`, errands are still done, for not each of them is
a letter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from service import metrics
from service.errors import ServiceError, StoreUnavailable
from service.mail.letters import Kind, Letter, Writer
from service.mail.outbox import Errand, Outbox
from service.mail.smtp import SLOTS, NotDelivered, Transport

log = structlog.get_logger("service.mail")

for _kind in Kind:  # there from the start, so that the first one is a change
    metrics.MAIL_SENT.labels(_kind.value)
    for _parked in ("no", "yes"):
        metrics.MAIL_FAILED.labels(_kind.value, _parked)

LOOK_EVERY = 1.0  # seconds, for errands that other instances left or that wait for another try
FINISH = 3.0  # seconds for what is on its way when the instance stops

Doing = Callable[[Errand], Awaitable[Letter | None]]


class Post:
    """Does errands, a few at a time. `doing` gives the letter of an errand, if there is one to send."""

    def __init__(self, outbox: Outbox, writer: Writer, transport: Transport | None, doing: Doing) -> None:
        self._outbox = outbox
        self._writer = writer
        self._transport = transport
        self._doing = doing
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Look after the outbox until `stop`; then finish what is on its way."""
        while not self._stopping:
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._outbox.filled.wait()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=FINISH)
        if self._transport:
            self._transport.close()
        for task in self._under_way:
            task.cancel()  # its errand comes back

    def stop(self) -> None:
        """Let `run` come to its end; a word and not a cancellation, which may get lost in a call to Redis."""
        self._stopping = True
        self._outbox.filled.set()

    async def round(self) -> int:
        """Do everything that is due now, and say how many errands that was."""
        count = 0
        while errands := await self._outbox.take(SLOTS):
            await asyncio.gather(*(self._do(errand) for errand in errands))
            count += len(errands)
        return count

    async def _look(self) -> None:
        if not self._stopping:
            self._outbox.filled.clear()
        if (free := SLOTS - len(self._under_way)) <= 0:
            await asyncio.wait(self._under_way, timeout=LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
            self._outbox.filled.set()
            return
        try:
            errands = await self._outbox.take(free)
        except StoreUnavailable:
            return
        except Exception:
            # Whatever it is, the next look may do better.
            log.exception("mail.look_failed")
            return
        for errand in errands:
            task = asyncio.create_task(self._do(errand))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if len(errands) == free:
            self._outbox.filled.set()  # there may be more

    async def _do(self, errand: Errand) -> None:
        try:
            await self._deliver(errand)
        except StoreUnavailable:
            return  # not said to be done, so it comes back
        except Exception:
            # Whatever it is, the other errands go on, and this one is tried again or parked like any that failed.
            log.exception("mail.errand_failed", id=errand.id, kind=errand.kind)
            with suppress(StoreUnavailable):
                await self._outbox.failed(errand, "something went wrong on our side")

    async def _deliver(self, errand: Errand) -> None:
        try:
            letter = await self._doing(errand)
            if letter and self._transport:
                message = self._writer.write(letter, errand.id)
                await self._transport.send(message)
                metrics.MAIL_SENT.labels(errand.kind).inc()
                log.info("mail.sent", id=errand.id, kind=errand.kind, tries=errand.tries)
        except NotDelivered as refusal:
            await self._outbox.failed(errand, str(refusal), for_good=refusal.for_good)
            return
        except StoreUnavailable:
            raise
        except ServiceError as error:
            await self._outbox.failed(errand, error.detail)
            return
        if letter is None:
            log.info("mail.nothing_to_send", id=errand.id, kind=errand.kind)
        await self._outbox.done(errand)
