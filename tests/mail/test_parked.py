"""Parked mail, with aiosmtpd as the mail server: what was given up is seen, tried again once, or dropped."""

import asyncio
from typing import Any

import pytest

from service.accounts.user import User
from service.audit.trail import Wanted
from service.errors import StoreUnavailable
from service.store.node import Failed, Node
from tests.conftest import PASSWORD, parts_of
from tests.mail.aiosmtpd_server import MailServer, token_of

PARKED = "/api/admin/mail/parked"
ROOT, ADA = "root@example.org", "ada@example.org"


@pytest.fixture
async def server():
    """A mail server that is not running yet."""
    made = MailServer()
    yield made
    await made.stop()


@pytest.fixture
def admin_of(serving):
    """An admin's browser at an instance of its own: `await admin_of(server)`; errands are tried twice."""

    async def signed_in(server: MailServer, at=None, **changes: str):
        if at is not None:
            browser = await serving(at=at)
        else:
            browser = await serving(**server.settings, **changes)
            parts_of(browser).outbox._waits = (1.0,)
        its = parts_of(browser)
        if await its.users.find_by_email(ROOT) is None:
            made = (await browser.register(ROOT)).json["user"]["id"]
            await its.users.change(made, roles="user admin", ok="1")
        assert (await browser.login(ROOT)).status == 200
        return browser

    return signed_in


async def parked_at(browser, count: int = 1) -> list[dict[str, Any]]:
    """What is parked, once there are so many and none is being tried."""
    async with asyncio.timeout(60):
        while True:
            items = (await browser("GET", PARKED)).json["items"]
            if len(items) == count and not any(item["retrying"] for item in items):
                return items
            await asyncio.sleep(0.02)


async def nothing_left(browser) -> None:
    async with asyncio.timeout(60):
        while await parts_of(browser).outbox.counts() != (0, 0):
            await asyncio.sleep(0.02)


async def refused(browser, server: MailServer, *people: str) -> list[dict[str, Any]]:
    """The mails that verify the emails of these people, each refused for good and parked."""
    server.refusal = "550 no such mailbox"
    await server.start()
    its = parts_of(browser)
    for count, person in enumerate(people, 1):
        user = await its.users.register(User(id="", email=person))
        await its.outbox.put("verify", user=user.id)
        parked = await parked_at(browser, count)  # one after another, so that the order is known
    server.refusal = None
    return parked


@pytest.fixture
async def root(admin_of, server):
    """An admin's browser whose own mails have all been taken."""
    await server.start()
    browser = await admin_of(server)
    await nothing_left(browser)
    await server.stop()
    server.received.clear()
    return browser


async def test_a_server_that_was_down_for_too_long_and_is_back_gets_what_an_admin_retries_exactly_once(root, server):
    await root("POST", "/api/auth/password/forgot", {"email": ROOT})
    (parked,) = await parked_at(root)
    assert parked["attempts"] == 2
    assert "Connection refused" in parked["lastError"]

    await server.start()
    answer = await root("POST", f"{PARKED}/{parked['id']}/retry")
    await server.until(1)
    await nothing_left(root)

    assert answer.status == 202
    await asyncio.sleep(1.2)  # the post has looked again
    assert [each.rcpt_tos for each in server.received] == [[ROOT]]
    token = token_of(server.received[0])
    reset = await root("POST", "/api/auth/password/reset", {"token": token, "newPassword": PASSWORD + "!"}, csrf=None)
    assert reset.status == 204


async def test_two_admins_at_two_instances_who_retry_again_and_again_send_it_once(root, server, admin_of):
    other = await admin_of(server)
    (parked,) = await refused(root, server, ADA)
    parts_of(root).outbox._waits = parts_of(other).outbox._waits = (60,)
    server.delay = 0.3

    paths = [f"{PARKED}/{parked['id']}/retry", f"{PARKED}/retry"]
    answers = await asyncio.gather(*((root, other)[n % 2]("POST", paths[n // 2 % 2]) for n in range(20)))
    await server.until(1)
    await nothing_left(root)

    assert {answer.status for answer in answers} <= {202, 404}
    await asyncio.sleep(0.5)
    assert [each.rcpt_tos for each in server.received] == [[ADA]]


async def test_a_list_tells_what_to_mend_and_nothing_that_opens_anything(root, server):
    parked = await refused(root, server, ADA, "bob@example.org")

    pages = [await root("GET", f"{PARKED}?limit=1")]
    pages.append(await root("GET", f"{PARKED}?limit=1&cursor={pages[0].json['nextCursor']}"))

    assert [page.json["items"][0]["recipient"] for page in pages] == ["b***@example.org", "a***@example.org"]
    assert pages[1].json["nextCursor"] is None
    assert parked[0].keys() == {
        "id", "type", "recipient", "attempts", "lastError", "retrying", "createdAt", "parkedAt",
    }  # fmt: skip
    assert (parked[0]["type"], parked[0]["lastError"]) == ("verify", "the server refused the recipient: 550")
    assert parked[0]["createdAt"] <= parked[0]["parkedAt"]
    told = b"".join(page.body for page in pages)
    assert not [word for word in (b"ot_", b"token=", b"http", b"ada@", b"bob@") if word in told]
    assert (await root("GET", "/api/admin/stats")).json["parkedMail"] == 2
    for cursor in ("x", "(1-1", "-", "1"):
        assert (await root("GET", f"{PARKED}?cursor={cursor}")).code == "VALIDATION_ERROR"


async def test_everything_is_retried_at_once(root, server):
    people = [f"person{number}@example.org" for number in range(9)]
    await refused(root, server, *people)

    answer = await root("POST", f"{PARKED}/retry")
    await server.until(9)
    await nothing_left(root)

    assert (answer.status, answer.json) == (202, {"retried": 9})
    assert sorted(each.rcpt_tos[0] for each in server.received) == people
    assert (await root("POST", f"{PARKED}/retry")).json == {"retried": 0}


async def test_what_is_dropped_is_never_sent(root, server):
    parked = await refused(root, server, ADA, "bob@example.org")

    assert (await root("DELETE", f"{PARKED}/{parked[1]['id']}")).status == 204
    await root("POST", f"{PARKED}/retry")
    await server.until(1)
    await nothing_left(root)

    assert [each.rcpt_tos for each in server.received] == [["bob@example.org"]]
    for method, path in (("DELETE", ""), ("POST", "/retry")):
        for id_ in (parked[1]["id"], "nonsense", "0-0", "*", "9" * 40 + "-0"):
            assert (await root(method, f"{PARKED}/{id_}{path}")).code == "NOT_FOUND", id_


async def test_what_fails_again_is_parked_again_with_all_its_tries(root, server):
    (parked,) = await refused(root, server, ADA)
    await server.stop()

    await root("POST", f"{PARKED}/{parked['id']}/retry")
    async with asyncio.timeout(60):
        while (again := (await parked_at(root))[0])["id"] == parked["id"]:
            await asyncio.sleep(0.02)

    assert again["attempts"] == 3
    assert "Connection refused" in again["lastError"]
    assert again["createdAt"] == parked["createdAt"]
    assert (await root("POST", f"{PARKED}/{parked['id']}/retry")).code == "NOT_FOUND"


async def test_the_link_of_a_retried_letter_is_new_however_long_it_was_parked(root, server, later):
    (parked,) = await refused(root, server, ADA)
    await later("3h")
    await root.login(ROOT)

    await root("POST", f"{PARKED}/{parked['id']}/retry")
    await server.until(1)

    token = token_of(server.received[0])
    assert (await root("POST", "/api/auth/email/verify", {"token": token}, csrf=None)).status == 204


@pytest.mark.parametrize("gone", ["verified", "disabled", "deleted"])
async def test_a_letter_whose_reason_is_gone_is_not_sent(root, server, gone):
    (parked,) = await refused(root, server, ADA)
    ada = await parts_of(root).users.find_by_email(ADA)
    match gone:
        case "verified":
            await root("PATCH", f"/api/admin/users/{ada.id}", {"emailVerified": True})
        case "disabled":
            await root("PATCH", f"/api/admin/users/{ada.id}", {"active": False})
        case "deleted":
            await root("DELETE", f"/api/admin/users/{ada.id}")
            assert (await parked_at(root))[0]["recipient"] is None

    assert (await root("POST", f"{PARKED}/{parked['id']}/retry")).status == 202
    await nothing_left(root)

    assert server.received == []


async def test_each_act_is_in_the_trail_with_who_did_it(root, server):
    first, second, third = await refused(root, server, ADA, "bob@example.org", "eve@example.org")
    me = (await root("GET", "/api/auth/me")).json["user"]["id"]

    await root("POST", f"{PARKED}/{first['id']}/retry")
    await root("DELETE", f"{PARKED}/{second['id']}")
    await server.until(1)
    await root("POST", f"{PARKED}/retry")

    trail = parts_of(root).audit
    await trail.settled()
    retried, _ = await trail.page(Wanted(type="admin.mail.retried"), None, 10)
    dropped, _ = await trail.page(Wanted(type="admin.mail.dropped"), None, 10)
    assert [event.detail for event in dropped] == [{"by": me, "mail": second["id"], "kind": "verify"}]
    assert retried[-1].detail == {"by": me, "mail": first["id"], "kind": "verify"}
    assert retried[0].detail["by"] == me
    assert retried[0].detail["count"] >= 1
    assert third["id"] not in str(dropped)


async def test_an_errand_that_a_crash_has_parked_twice_is_sent_once(root, server):
    outbox = parts_of(root).outbox
    await refused(root, server, ADA)
    (parked,) = await outbox.parked()
    copied = ("id", parked.errand_id, "kind", "verify", "tries", 1, "reason", "again")
    (entry,) = await outbox._store.one(("XRANGE", "outbox:parked", parked.id, parked.id))
    await outbox._store.one(("XADD", "outbox:parked", "*", *copied, "sealed", entry[1]["sealed"]))

    assert (await root("POST", f"{PARKED}/retry")).json == {"retried": 1}
    await server.until(1)
    await nothing_left(root)

    assert len(server.received) == 1


async def test_a_letter_sealed_with_a_lost_secret_can_be_sent_once_the_secret_is_back(root, server, assembling):
    old = "an older secret altogether 0f77aa01"
    stranger = await assembling(AUTH_SECRET=old, JWT_ALGORITHM="HS256")
    await server.start()
    await stranger.outbox.put("email-taken", to=ADA)
    (parked,) = await parked_at(root)
    assert (parked["type"], parked["recipient"]) == ("unknown", None)
    assert "AUTH_SECRET" in parked["lastError"]

    back = await assembling(AUTH_SECRET_PREVIOUS=old, **server.settings)
    await back.outbox.retry()
    for errand in await back.outbox.take(4):
        await back.post._do(errand)

    assert [each.rcpt_tos for each in server.received] == [[ADA]]


async def test_a_retry_whose_reply_is_lost_is_one_and_can_be_repeated(parts, monkeypatch):
    sent = Node.send
    await parts.outbox.put("email-taken", to=ADA)
    for errand in await parts.outbox.take(4):
        await parts.outbox.failed(errand, "no", for_good=True)
    (parked,) = await parts.outbox.parked()
    lost = 3

    async def deaf(self, commands, within):
        nonlocal lost
        replies = await sent(self, commands, within)
        if lost and any(command[0] == "EVALSHA" and parked.id in command for command in commands):
            lost -= 1
            raise Failed(TimeoutError())
        return replies

    monkeypatch.setattr(Node, "send", deaf)
    with pytest.raises(StoreUnavailable):
        await parts.outbox.retry(parked.id)

    assert await parts.outbox.retry(parked.id) == 1
    assert lost == 0
    (errand,) = await parts.outbox.take(4)
    assert (errand.id, errand.tries, errand.before) == (parked.errand_id, 1, 1)
    assert await parts.outbox.retry(parked.id) == 1
    assert await parts.outbox.take(4) == []


async def test_parking_again_whose_reply_is_lost_parks_once(parts):
    await parts.outbox.put("email-taken", to=ADA)
    for _ in range(3):
        await parts.outbox.retry()
        for errand in await parts.outbox.take(4):
            for _ in range(2 if errand.parked_as else 1):
                await parts.outbox.failed(errand, "no", for_good=True)

    (parked,) = await parts.outbox.parked()
    assert (parked.tries, parked.retrying) == (3, False)
