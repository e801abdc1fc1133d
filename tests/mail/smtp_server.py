"""A small real mail server on loopback: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA; and it can be slow, cross or away."""

import asyncio
import base64
import datetime
import email
import email.policy
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Received:
    """A message as it arrived, with its envelope and what protected the way."""

    sender: str
    recipients: list[str]
    raw: bytes
    tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.raw, policy=email.policy.default)

    @property
    def text(self) -> str:
        return self.message.get_body(("plain",)).get_content()

    @property
    def html(self) -> str:
        return self.message.get_body(("html",)).get_content()

    @property
    def token(self) -> str:
        return self.text.partition("#token=")[2].split()[0]


@dataclass
class SmtpServer:
    """`answers` replaces the reply to a command, such as `{"RCPT": "550 no"}`; `delay` comes before each reply."""

    certificate: Path | None = None
    credentials: tuple[str, str] | None = None
    implicit_tls: bool = False
    answers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def start(self, port: int = 0) -> "SmtpServer":
        tls = self._context() if self.implicit_tls else None
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def settings(self) -> dict[str, str]:
        return {"SMTP_URL": f"smtp://127.0.0.1:{self.port}", "MAIL_FROM": "Example <no-reply@example.com>"}

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    _tasks: set = field(default_factory=set)

    async def until(self, count: int) -> list[Received]:
        """What has arrived, once there are so many."""
        async with asyncio.timeout(60):
            while len(self.received) < count:
                await asyncio.sleep(0.01)
        return self.received

    def to(self, address: str) -> list[Received]:
        return [each for each in self.received if each.recipients == [address]]

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            await self._session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls, user, sender, recipients = self.implicit_tls, None, "", []

        async def say(line: str) -> None:
            await asyncio.sleep(self.delay)
            writer.write(line.encode() + b"\r\n")
            await writer.drain()

        await say("220 mail.test ready")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            if verb in self.answers:
                await say(self.answers[verb])
                continue
            match verb:
                case "EHLO":
                    offers = ["mail.test", "8BITMIME", "SMTPUTF8"]
                    offers += ["STARTTLS"] if self.certificate and not tls else []
                    offers += ["AUTH PLAIN LOGIN"] if self.credentials and tls else []
                    await say("\r\n".join(f"250-{offer}" for offer in offers[:-1]) + f"\r\n250 {offers[-1]}")
                case "STARTTLS":
                    await say("220 go ahead")
                    await writer.start_tls(self._context())
                    tls = True
                case "AUTH":
                    how, _, given = rest.partition(" ")
                    if how == "LOGIN":
                        name = base64.b64decode(given).decode()
                        await say("334 UGFzc3dvcmQ6")
                        password = base64.b64decode(await reader.readline()).decode()
                    else:
                        _, name, password = base64.b64decode(given).decode().split("\0")
                    user = name if (name, password) == self.credentials else None
                    await say("235 ok" if user else "535 no")
                case "MAIL":
                    sender = rest.partition("<")[2].partition(">")[0]
                    await say("530 sign in first" if self.credentials and not user else "250 ok")
                case "RCPT":
                    recipients = [*recipients, rest.partition("<")[2].partition(">")[0]]
                    await say("250 ok")
                case "DATA":
                    await say("354 go on")
                    raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                    refusal = self.answers.get("BODY")
                    if refusal is None:
                        self.received.append(Received(sender, recipients, raw, tls, user))
                    await say(refusal or "250 taken")
                    recipients = []
                case "QUIT":
                    await say("221 bye")
                    return
                case _:
                    await say("250 ok")


def make_certificate(folder: Path) -> Path:
    """A certificate for localhost and 127.0.0.1 with its key, in one file."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "mail.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
