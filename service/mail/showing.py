"""Mail in development, without a mail server: readable in the log and at `/dev/mail`, and nowhere else.

Keeps the last fifty letters in the memory of this instance. This is the one place where a token is shown; `app.py`
builds it in development only, and only without `SMTP_URL`.
"""

from collections import deque
from dataclasses import dataclass
from email.message import EmailMessage

import structlog

log = structlog.get_logger("service.mail")

_KEPT = 50


@dataclass(frozen=True)
class Shown:
    """A letter as the page shows it."""

    to: str
    subject: str
    date: str
    text: str


class Showing:
    """Shows letters instead of sending them."""

    def __init__(self, page: str) -> None:
        self._page = page
        self.letters: deque[Shown] = deque(maxlen=_KEPT)

    async def send(self, message: EmailMessage) -> None:
        """Put the letter in the log and on the page."""
        body = message.get_body(("plain",))
        text = body.get_content() if body else ""
        self.letters.appendleft(Shown(str(message["To"]), str(message["Subject"]), str(message["Date"]), text))
        told = " ".join(text.split())
        log.info("mail.shown", to=str(message["To"]), subject=str(message["Subject"]), text=told, page=self._page)

    def close(self) -> None:
        """Nothing to close."""
