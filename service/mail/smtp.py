"""The way out: a mail server, over SMTP with TLS.

Keeps nothing. The standard library's client does the talking, in a few threads of its own; each step takes ten
seconds at most and a whole delivery `LONGEST`, after which its connection is cut. TLS is required: at once for
`smtps://`, by STARTTLS for `smtp://` (RFC 3207), unless `?starttls=off` says otherwise or the server is on this
machine.
"""

import asyncio
import contextlib
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

from service.settings import LOOPBACK

STEP = 10.0  # seconds
LONGEST = 45.0  # seconds; less than the first wait of the outbox
SLOTS = 4  # deliveries at once


class NotDelivered(Exception):
    """The letter did not leave; `for_good` when it never will."""

    def __init__(self, reason: str, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Transport(Protocol):
    """A way for messages to leave."""

    async def send(self, message: EmailMessage) -> None:
        """Hand the message on; raises `NotDelivered`."""

    def close(self) -> None: ...


class Smtp:
    """A mail server by its address, `smtp://user:password@host:587` or `smtps://…`."""

    def __init__(self, url: str, hello: str) -> None:
        """`hello` is the domain to introduce ourselves with (RFC 5321, 4.1.1.1)."""
        parts = urlsplit(url)
        self._implicit = parts.scheme == "smtps"
        self._host = parts.hostname or ""
        self._port = parts.port or (465 if self._implicit else 587)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        asked = parts.query.partition("=")[2]
        self._starttls = not self._implicit and (asked or ("off" if self._host in LOOPBACK else "on")) == "on"
        self._hello = hello
        self._talking: dict[int, list[smtplib.SMTP]] = {}
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="smtp")

    async def send(self, message: EmailMessage) -> None:
        """Deliver; raises `NotDelivered`."""
        clients = self._talking[id(message)] = []
        job = asyncio.get_running_loop().run_in_executor(self._threads, self._deliver, clients, message)
        job.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits any more
        try:
            async with asyncio.timeout(LONGEST):
                await asyncio.shield(job)
        except TimeoutError as error:
            _cut(clients)
            raise NotDelivered(f"the server took longer than {LONGEST:.0f} s") from error
        finally:
            del self._talking[id(message)]

    def close(self) -> None:
        """Stop, and cut what has not ended: no thread holds up the end of the process."""
        for clients in self._talking.values():
            _cut(clients)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _client(self) -> smtplib.SMTP:
        if self._implicit:
            return smtplib.SMTP_SSL(local_hostname=self._hello, timeout=STEP, context=_tls())
        return smtplib.SMTP(local_hostname=self._hello, timeout=STEP)

    def _deliver(self, clients: list[smtplib.SMTP], message: EmailMessage) -> None:
        """In a thread; `clients` gets the connection, so that it can be cut from outside."""
        try:
            clients.append(client := self._client())
            client._host = self._host  # type: ignore[attr-defined]  # the name that its certificate must have
            client.connect(self._host, self._port)
            try:
                if self._starttls:
                    client.starttls(context=_tls())
                if self._user:
                    client.login(self._user, self._password)
                client.send_message(message)
            finally:
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    client.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code = max(code for code, _ in error.recipients.values())
            raise NotDelivered(f"the server refused the recipient: {code}", for_good=code >= 500) from error
        except smtplib.SMTPDataError as error:
            raise NotDelivered(f"the server refused the message: {error.smtp_code}", error.smtp_code >= 500) from error
        except smtplib.SMTPNotSupportedError as error:
            # Without STARTTLS another try may find a mended server; an address it cannot spell stays one.
            raise NotDelivered(str(error), for_good="SMTPUTF8" in str(error)) from error
        except smtplib.SMTPResponseException as error:
            raise NotDelivered(f"{type(error).__name__}: {error.smtp_code}") from error
        except (smtplib.SMTPException, OSError, ValueError) as error:
            # Not its words: a server may repeat what it was sent.
            raise NotDelivered(f"{type(error).__name__}: {getattr(error, 'strerror', None) or 'no answer'}") from error


def _cut(clients: list[smtplib.SMTP]) -> None:
    for connection in (client.sock for client in clients if client.sock):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # wakes the thread


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
