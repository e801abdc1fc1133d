"""The way out: TLS where it must be, and every refusal as what it is."""

import asyncio
from email.message import EmailMessage

import pytest

from service.mail import smtp
from service.mail.smtp import NotDelivered, Smtp
from tests.conftest import free_port
from tests.mail.smtp_server import SmtpServer, make_certificate


@pytest.fixture
async def sending():
    """Sends one message to a server: `await sending(server, "smtp://...")`."""
    opened = []

    async def send(url: str, to: str = "ada@example.org") -> None:
        opened.append(way := Smtp(url, "example.com"))
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "Example <no-reply@example.com>", to, "Hello"
        message.set_content("Good day\n.\nto you\n")
        await way.send(message)

    yield send
    for way in opened:
        way.close()


@pytest.fixture
async def starting(tmp_path, monkeypatch):
    """Starts servers whose certificate this machine trusts."""
    started = []
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def start(tls: bool = False, **options) -> SmtpServer:
        server = SmtpServer(certificate=certificate if tls else None, **options)
        started.append(await server.start())
        return server

    yield start
    for server in started:
        await server.stop()


async def refusal_of(sent) -> NotDelivered:
    with pytest.raises(NotDelivered) as refused:
        await sent
    return refused.value


async def test_a_message_arrives_as_it_was_written(starting, sending):
    server = await starting()

    await sending(f"smtp://127.0.0.1:{server.port}")

    (received,) = server.received
    assert (received.sender, received.recipients) == ("no-reply@example.com", ["ada@example.org"])
    assert received.message["Subject"] == "Hello"
    assert not received.tls


async def test_starttls_comes_before_the_password(starting, sending):
    server = await starting(tls=True, credentials=("me@x", "p@ss/word"))

    await sending(f"smtp://me%40x:p%40ss%2Fword@localhost:{server.port}?starttls=on")

    assert (server.received[0].tls, server.received[0].user) == (True, "me@x")


async def test_tls_from_the_start(starting, sending):
    server = await starting(tls=True, implicit_tls=True)

    await sending(f"smtps://localhost:{server.port}")

    assert server.received[0].tls


async def test_without_starttls_nothing_is_said(starting, sending):
    server = await starting()

    refusal = await refusal_of(sending(f"smtp://me:secret@localhost:{server.port}?starttls=on"))

    assert "STARTTLS" in str(refusal)
    assert not refusal.for_good
    assert server.received == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(starting, sending, monkeypatch, tmp_path):
    server = await starting(tls=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path / "other")))

    refusal = await refusal_of(sending(f"smtp://localhost:{server.port}?starttls=on"))

    assert "SSLCertVerificationError" in str(refusal)
    assert server.received == []


def test_starttls_is_demanded_unless_the_server_is_here_or_the_operator_says_so():
    def demanded(url: str) -> bool:
        way = Smtp(url, "example.com")
        way.close()
        return way._starttls

    assert demanded("smtp://mail.example.org")
    assert demanded("smtp://localhost?starttls=on")
    assert not demanded("smtp://localhost:25")
    assert not demanded("smtp://mail.internal?starttls=off")
    assert not demanded("smtps://mail.example.org")


@pytest.mark.parametrize(
    ("answers", "for_good"),
    [
        ({"RCPT": "550 no such mailbox"}, True),
        ({"RCPT": "450 try later"}, False),
        ({"BODY": "554 spam"}, True),
        ({"BODY": "451 try later"}, False),
        ({"MAIL": "421 too busy"}, False),
        ({"MAIL": "553 not from you"}, False),
        ({"EHLO": "500 what", "HELO": "500 what"}, False),
    ],
)
async def test_a_refusal_is_for_good_where_another_try_would_not_help(starting, sending, answers, for_good):
    server = await starting(answers=answers)

    refusal = await refusal_of(sending(f"smtp://127.0.0.1:{server.port}"))

    assert refusal.for_good is for_good
    assert server.received == []


async def test_a_wrong_password_is_the_operators_to_mend_and_is_not_told(starting, sending):
    server = await starting(tls=True, credentials=("me", "right"))

    refusal = await refusal_of(sending(f"smtp://me:hunter2@localhost:{server.port}?starttls=on"))

    assert not refusal.for_good
    assert str(refusal) == "SMTPAuthenticationError: 535"


async def test_a_server_that_is_down(sending):
    refusal = await refusal_of(sending(f"smtp://127.0.0.1:{free_port()}"))

    assert "Connection refused" in str(refusal)


async def test_a_server_that_trickles_is_cut_off_and_its_thread_is_free_again(starting, sending, monkeypatch):
    monkeypatch.setattr(smtp, "LONGEST", 0.3)
    server = await starting(delay=0.2)

    refusal = await refusal_of(sending(f"smtp://127.0.0.1:{server.port}"))

    assert "longer than" in str(refusal)
    await asyncio.sleep(0.3)
    assert server.received == []


async def test_an_address_that_needs_more_than_the_server_knows_is_refused_for_good(starting, sending):
    server = await starting(answers={"EHLO": "250 mail.test"})

    refusal = await refusal_of(sending(f"smtp://127.0.0.1:{server.port}", to="jürgen@example.org"))

    assert refusal.for_good
