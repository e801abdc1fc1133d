"""The mails of an account, from the errand to the link that works, through a mail server that others wrote."""

import asyncio
import time

import pytest

from tests.conftest import PASSWORD, parts_of
from tests.mail.aiosmtpd_server import MailServer, token_of
from tests.mail.smtp_server import make_certificate

ADA, MOVED, NEW = "ada@example.org", "ada@b\u00fccher.example", "another battery & stapled horse"


@pytest.fixture
async def starting():
    """Starts servers: `await starting(refusal="550 no")`."""
    started = []

    async def start(running: bool = True, **options) -> MailServer:
        server = MailServer(**options)
        started.append(server)
        if running:
            await server.start()
        return server

    yield start
    for server in started:
        await server.stop()


async def post(browser, path, **body):
    return await browser("POST", f"/api/auth/{path}", body, csrf=None)


async def test_every_mail_of_an_account_arrives_and_its_link_works_once(starting, serving):
    server = await starting()
    one, other = await serving(**server.settings), await serving(**server.settings)
    signed = (await one.register(ADA, headers={"X-Auth-Mode": "token"})).json
    held = {"Authorization": f"Bearer {signed['accessToken']}"}

    async def used_by_forty_at_once(path: str, count: int, **body) -> int:
        """Over two instances; how many of them it worked for."""
        token = token_of((await server.until(count))[count - 1])
        asking = (post((one, other)[n % 2], path, token=token, **body) for n in range(40))
        answers = await asyncio.gather(*asking)
        assert {answer.code for answer in answers if answer.status != 204} == {"INVALID_ONE_TIME_TOKEN"}
        return [answer.status for answer in answers].count(204)

    assert await used_by_forty_at_once("email/verify", 1) == 1
    moving = {"newEmail": MOVED, "password": PASSWORD}
    assert (await one("POST", "/api/auth/email/change", moving, headers=held, csrf=None)).status == 202
    await server.until(3)
    server.received.sort(key=lambda envelope: "bcher" in envelope.rcpt_tos[0])  # the notice to the old address first
    assert await used_by_forty_at_once("email/verify", 3) == 1
    await server.until(4)
    await post(one, "password/forgot", email=MOVED)
    assert await used_by_forty_at_once("password/reset", 5, newPassword=NEW) == 1
    await server.until(6)

    assert [envelope.rcpt_tos[0] for envelope in server.received] == [
        ADA, ADA, "ada@xn--bcher-kva.example", ADA, "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example",
    ]  # fmt: skip
    assert (await other.login(MOVED, NEW)).status == 200


async def test_over_starttls_with_a_password(starting, serving, tmp_path, monkeypatch):
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = await starting(certificate=certificate, credentials=("me", "p@ss"))
    url = f"smtp://me:p%40ss@localhost:{server.port}?starttls=on"

    browser = await serving(**{**server.settings, "SMTP_URL": url})
    await browser.register(ADA)

    assert (await server.until(1))[0].rcpt_tos == [ADA]
    assert len(server.signed_in) == 1


@pytest.mark.parametrize(
    ("trouble", "reason", "for_good"),
    [
        ({"refusal": "550 no such mailbox"}, "the server refused the recipient: 550", True),
        ({"refusal": "451 greylisted"}, "the server refused the recipient: 451", False),
        ({"largest": 100}, "552", False),
        ({"running": False}, "Connection refused", False),
    ],
    ids=["refuses", "greylists", "full", "down"],
)
async def test_a_server_in_trouble_holds_up_nobody_and_has_the_mail_when_it_is_well(
    starting, serving, trouble, reason, for_good
):
    server = await starting(**trouble)
    browser = await serving(**server.settings)
    outbox = parts_of(browser).outbox
    outbox._waits = (1.0, 1.0)

    assert (await browser.register(ADA)).status == 201
    async with asyncio.timeout(60):
        while not (parked := await outbox.parked()):
            await asyncio.sleep(0.02)
    await server.stop()
    server.refusal, server.largest = None, 1_000_000
    await server.start()
    await outbox.retry()
    await server.until(1)

    assert reason in parked[0].reason
    assert parked[0].tries == (1 if for_good else 3)
    assert (await post(browser, "email/verify", token=token_of(server.received[0]))).status == 204


async def test_a_slow_server_makes_no_request_wait(starting, serving):
    server = await starting(delay=1.5)
    browser = await serving(**server.settings)
    await browser.register(ADA)
    started = time.monotonic()

    for _ in range(6):
        assert (await post(browser, "password/forgot", email=ADA)).status == 202

    assert server.received == []
    assert time.monotonic() - started < 1.5
    await server.until(7)
