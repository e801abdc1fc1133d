"""aiosmtpd, a mail server that others wrote, on loopback: what our letters meet outside."""

import asyncio
import email
import email.policy
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from tests.conftest import free_port


@dataclass
class MailServer:
    """Listens once started. `refusal` is what it says to a recipient, `delay` how long it thinks, in seconds.

    With a `certificate` it demands STARTTLS, with `credentials` a sign-in, and over `largest` bytes it takes nothing.
    """

    refusal: str | None = None
    delay: float = 0.0
    certificate: Path | None = None
    credentials: tuple[str, str] | None = None
    largest: int = 1_000_000
    port: int = field(default_factory=free_port)
    received: list[Envelope] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @property
    def settings(self) -> dict[str, str]:
        return {"SMTP_URL": f"smtp://127.0.0.1:{self.port}", "MAIL_FROM": "Example <no-reply@example.com>"}

    async def start(self) -> None:
        options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": True, "data_size_limit": self.largest}
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            options |= {"tls_context": context, "require_starttls": True}
        if self.credentials:
            options |= {"authenticator": self._authenticate, "auth_required": True}
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, **options), "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        await asyncio.sleep(self.delay)
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        self.received.append(envelope)
        return "250 taken"

    async def until(self, count: int) -> list[Envelope]:
        """What has arrived, once there are so many."""
        async with asyncio.timeout(15):
            while len(self.received) < count:
                await asyncio.sleep(0.02)
        return self.received

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        assert self.credentials is not None
        right = LoginPassword(*(part.encode() for part in self.credentials))
        if given == right:
            self.signed_in.append(mechanism)
        return AuthResult(success=given == right)


def text_of(envelope: Envelope) -> str:
    """The plain text of a letter."""
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    return message.get_body(("plain",)).get_content()


def token_of(envelope: Envelope) -> str:
    """The one-time token in its link."""
    return text_of(envelope).partition("#token=")[2].split()[0]
