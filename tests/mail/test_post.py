"""The post, on whole instances: what happens to mail when servers and instances come and go."""

import asyncio
import re

import pytest
from structlog.testing import capture_logs

from service.mail.outbox import Outbox
from service.vault import Vault
from tests.conftest import SECRET, free_port
from tests.mail.smtp_server import SmtpServer


def impatient(its, *waits: float):
    """The same instance with shorter waits between tries."""
    its.post._outbox = its.recovery._outbox = Outbox(its.store, Vault([SECRET]), waits)
    return its


async def forgot(browser, email="ada@example.org"):
    return await browser("POST", "/api/auth/password/forgot", {"email": email})


async def test_two_instances_send_each_mail_once(serving, mail):
    one, other = await serving(**mail.settings), await serving(**mail.settings)

    for number in range(20):
        assert (await (one, other)[number % 2].register(f"{number}@example.org")).status == 201

    await mail.until(20)
    await asyncio.sleep(0.3)
    assert sorted(each.recipients[0] for each in mail.received) == sorted(f"{n}@example.org" for n in range(20))


async def test_mail_that_met_a_dead_server_arrives_when_it_is_back(serving, assembling):
    port = free_port()
    server = SmtpServer(port=port)
    its = await assembling(**server.settings)
    browser = await serving(impatient(its, *(0.2,) * 20))
    await browser.register()
    await forgot(browser)
    await asyncio.sleep(0.5)

    await server.start(port)
    try:
        await server.until(2)
        assert {each.message["Subject"] for each in server.received} == {"Verify your email", "Set a new password"}
    finally:
        await server.stop()


async def test_what_is_refused_for_good_is_parked_and_holds_nothing_up(serving, parts, assembling, mail):
    its = await assembling(**mail.settings)
    browser = await serving(its)
    mail.answers = {"RCPT": "550 no such mailbox"}
    await browser.register()
    async with asyncio.timeout(60):
        while not (parked := await its.outbox.parked()):
            await asyncio.sleep(0.02)

    assert (parked[0].kind, parked[0].reason) == ("verify", "the server refused the recipient: 550")
    mail.answers = {}
    assert (await browser("POST", "/api/auth/email/resend")).status == 202
    await mail.until(1)


async def test_no_request_waits_for_a_slow_mail_server(serving, mail):
    mail.delay = 30.0  # before each of its replies, of which a letter needs several
    browser = await serving(**mail.settings)

    await browser.register()
    for _ in range(8):
        assert (await forgot(browser)).status == 202

    assert mail.received == []


async def test_an_instance_that_dies_between_taking_and_sending_loses_nothing(serving, assembling, mail):
    dying = await assembling(**mail.settings)
    await dying.outbox.put("email-taken", to="ada@example.org")
    assert len(await dying.outbox.take(4)) == 1

    await serving(impatient(await assembling(**mail.settings), 0.2))

    assert (await mail.until(1))[0].recipients == ["ada@example.org"]


async def test_an_instance_that_stops_finishes_what_is_on_its_way(serving, assembling, mail):
    its = await assembling(**mail.settings)
    mail.delay = 0.1
    browser = await serving(its)
    await browser.register()
    while not mail.connections:
        await asyncio.sleep(0.01)

    await browser.client.close()

    assert len(mail.received) == 1
    assert await (await assembling()).outbox.take(4) == []


async def test_production_without_a_mail_server_answers_as_always(serving):
    production = {
        "ENVIRONMENT": "production",
        "REDIS_URL": "redis://nowhere",
        "AUTH_SECRET": "d9Q1x-LrT0vKz7YwEa5uHc2NfPj8MbGs4oRi",
    }
    browser = await serving(**production)

    with capture_logs() as logged:
        assert (await browser.register()).status == 201
        assert (await forgot(browser)).status == 202
        await asyncio.sleep(0.1)

    assert not [line for line in logged if "token=" in str(line)]
    assert (await browser("GET", "/dev/mail")).status == 404


# /dev/mail


async def test_in_development_mail_is_in_the_log_and_at_dev_mail(serving):
    browser = await serving()
    with capture_logs() as logged:
        await browser.register()
        async with asyncio.timeout(60):
            while "Verify your email" not in (page := await browser("GET", "/dev/mail")).body.decode():
                await asyncio.sleep(0.02)

    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (await browser("GET", *re.findall('rel="stylesheet" href="([^"]+)"', page.body.decode()))).status == 200
    assert b'<a href="http://localhost:5173/verify-email#token=ot_' in page.body
    (line,) = [line for line in logged if line["event"] == "mail.shown"]
    assert "http://localhost:5173/verify-email#token=ot_" in line["text"]


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:8000"}, {"Host": "evil.example"}, {"X-Forwarded-For": "127.0.0.1"}]
)
async def test_dev_mail_is_for_this_machine_only(browser, headers):
    assert (await browser("GET", "/dev/mail", headers=headers)).status == 404


async def test_with_a_mail_server_there_is_no_such_page(serving, mail):
    assert (await (await serving(**mail.settings))("GET", "/dev/mail")).status == 404
