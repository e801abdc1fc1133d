"""The trail: every event once, in the trail, in its user's list and in the log, and never in the way of a request."""

import asyncio
import re
from dataclasses import replace

import structlog

from service.accounts.once import Purpose
from service.audit.events import Event
from service.audit.trail import Audit, Wanted
from service.client import Client
from service.errors import StoreUnavailable
from service.ids import new_id
from service.store import Store, reach
from tests.conftest import PASSWORD, free_port

CLIENT = Client("192.0.2.7", "curl/8")


def bearer(signed):
    return {"Authorization": f"Bearer {signed['accessToken']}"}


async def own(browser, query=""):
    return (await browser("GET", f"/api/auth/events?limit=100{query}")).json["items"]


def test_every_event_is_named_by_source_subject_and_action():
    assert [event for event in Event if not re.fullmatch(r"[a-z]+\.[a-z_]+\.[a-z_]+", event)] == []


async def test_what_happens_to_me_is_mine_to_read_newest_first(browser):
    await browser.register()
    await browser("POST", "/api/auth/logout")
    await browser.login(password="not the right one")
    await browser.login(headers={"X-Request-Id": "this-one"})

    events = await own(browser)

    assert [event["type"] for event in events] == [
        "sessions.session.started", "sessions.sign_in.refused", "sessions.session.ended", "sessions.session.started",
        "accounts.user.registered",
    ]  # fmt: skip
    assert events[0].keys() == {
        "id", "at", "type", "userId", "sessionId", "ip", "userAgent", "requestId", "outcome", "detail",
    }  # fmt: skip
    assert (events[0]["requestId"], events[0]["outcome"], events[0]["ip"]) == ("this-one", "success", "127.0.0.1")
    assert (events[1]["outcome"], events[1]["detail"]) == ("refused", {"reason": "INVALID_CREDENTIALS"})
    assert len({event["id"] for event in events}) == 5


async def test_nobody_reads_the_events_of_another(browser, serving):
    await browser.register()
    other = await serving(at=browser)
    bob = (await other.register("bob@example.org")).json["user"]["id"]

    assert {event["userId"] for event in await own(other)} == {bob}


async def test_api_keys_and_revoked_tokens_are_told(browser):
    signed = (await browser.register(headers={"X-Auth-Mode": "token"})).json
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    wanted = {"name": "backup", "permissions": ["profile:read"]}
    key = (await browser("POST", "/api/auth/api-keys", wanted, headers=bearer)).json
    assert (await browser("DELETE", f"/api/auth/api-keys/{key['id']}", headers=bearer)).status == 204
    events = (await browser("GET", "/api/auth/events", headers=bearer)).json["items"]

    assert [(event["type"], event["detail"].get("key_id")) for event in events[:2]] == [
        ("apikeys.key.revoked", key["id"]),
        ("apikeys.key.created", key["id"]),
    ]
    assert key["apiKey"] not in str(events)


async def test_nobody_fills_the_trail_with_what_has_ended_long_ago(browser, serving, parts):
    """Else whoever has an account, or a token out of an old log, pushes the events of everybody out of it."""
    signed = (await browser.register(headers={"X-Auth-Mode": "token"})).json
    gone = (await browser.login(headers={"X-Auth-Mode": "token"})).json
    phone = await serving(at=browser)

    for _ in range(5):
        for token in (signed["accessToken"], gone["accessToken"], gone["refreshToken"], gone["accessToken"]):
            assert (await phone("POST", "/api/auth/revoke", data={"token": token})).status == 200
        for how in ({"headers": bearer(gone)}, {"json": {"refreshToken": gone["refreshToken"]}}):
            assert (await phone("POST", "/api/auth/logout", **how)).status == 204

    events, _ = await parts.audit.page(Wanted(signed["user"]["id"]), None, 100)
    assert sorted(event.type for event in events) == [
        "accounts.user.registered", "sessions.session.ended", "sessions.session.started", "sessions.session.started",
        "tokens.access_token.revoked", "tokens.access_token.revoked",
    ]  # fmt: skip


async def test_what_is_not_linked_is_not_told_to_be_unlinked(browser):
    """Its name may be 8 KB of anything, and the trail keeps a hundred thousand events."""
    await browser.register()

    for name in ("github", "x" * 7000):
        assert (await browser("DELETE", f"/api/auth/identities/{name}")).status == 204

    assert [event["type"] for event in await own(browser)] == ["sessions.session.started", "accounts.user.registered"]


async def test_what_mails_prove_is_told_without_the_address(browser, parts, redis):
    user = await parts.users.find((await browser.register()).json["user"]["id"])
    await parts.recovery.forgot(user.email, CLIENT)
    async with asyncio.timeout(60):
        while await redis.xlen("outbox"):  # the tokens of its letters would end ours
            await asyncio.sleep(0.01)
    verifying = await parts.once.issue(Purpose.VERIFY, user.id, ("email", user.email))
    await parts.recovery.verify(verifying, CLIENT)
    resetting = await parts.once.issue(Purpose.RESET, user.id, ("email", user.email))
    await parts.recovery.reset(resetting, PASSWORD + " anew", CLIENT)
    await parts.users.change(user.id, new="ada@new.example")
    moving = await parts.once.issue(Purpose.CHANGE, user.id, ("new", "ada@new.example"))
    await parts.recovery.verify(moving, CLIENT)

    events, _ = await parts.audit.page(Wanted(user.id), None, 10)
    assert [event.type for event in events[:3]] == [
        "accounts.email.changed", "accounts.password.reset", "accounts.email.verified",
    ]  # fmt: skip
    assert len(events[1].detail["ended"]) == 1
    (asked,), _ = await parts.audit.page(Wanted(type=Event.PASSWORD_RESET_ASKED), None, 10)
    assert (asked.user_id, asked.ip) == (None, CLIENT.address)
    everything, _ = await parts.audit.page(Wanted(), None, 100)
    assert "@" not in str(everything)


async def test_an_unknown_email_is_told_of_nobody(browser, parts, redis):
    await browser.login("nobody@example.org")
    await parts.audit.settled()

    events, _ = await parts.audit.page(Wanted(), None, 10)
    (event,) = (event for event in events if event.type != Event.SIGNING_KEY_ADDED)
    assert (event.type, event.user_id) == (Event.SIGN_IN_REFUSED, None)
    assert [key async for key in redis.scan_iter("events:*")] == []


async def test_the_api_keys_that_end_with_the_reset_of_an_unverified_account_are_told_each(browser, parts):
    signed = (await browser.register(headers={"X-Auth-Mode": "token"})).json
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    wanted = {"name": "backdoor", "permissions": ["profile:read"]}
    made = [(await browser("POST", "/api/auth/api-keys", wanted, headers=bearer)).json["id"] for _ in range(2)]
    user = await parts.users.find(signed["user"]["id"])
    token = await parts.once.issue(Purpose.RESET, user.id, ("email", user.email))
    await parts.recovery.reset(token, PASSWORD + " anew", CLIENT)

    events, _ = await parts.audit.page(Wanted(user.id, Event.API_KEY_REVOKED), None, 10)

    assert sorted(event.detail["key_id"] for event in events) == sorted(made)
    assert {(event.detail["reason"], event.ip) for event in events} == {("password_changed", CLIENT.address)}


async def test_a_session_tells_why_it_is_over(browser, serving, parts):
    """Started, refreshed three times, recovered, and ended by a change of the password elsewhere."""
    signed = (await browser.register(headers={"X-Auth-Mode": "token"})).json
    sid = (await parts.families.of(signed["user"]["id"]))[0].id
    token = signed["refreshToken"]
    for _ in range(3):
        answer = await browser("POST", "/api/auth/refresh", {"refreshToken": token})
        token = answer.json["refreshToken"]
    elsewhere = await serving(at=browser)
    await elsewhere.login()
    body = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}
    assert (await elsewhere("POST", "/api/auth/password/change", body)).status == 204

    await elsewhere("POST", "/api/auth/refresh")
    history = await own(elsewhere, f"&sessionId={sid}")

    assert [event["type"] for event in history] == ["accounts.password.changed", "sessions.session.started"]
    assert history[0]["detail"]["ended"] == [sid]
    assert history[0]["sessionId"] != sid


async def test_the_end_of_a_session_tells_how_often_it_was_refreshed(browser):
    await browser.register()
    for _ in range(3):
        await browser("POST", "/api/auth/refresh")
    await browser("POST", "/api/auth/logout")
    await browser.login()

    ended = next(event for event in await own(browser) if event["type"] == "sessions.session.ended")
    assert ended["detail"] == {"reason": "logout", "rotations": 3}


async def test_the_session_that_made_room_is_named(serving, assembling):
    browser = await serving(await assembling(MAX_SESSIONS_PER_USER="2"))
    await browser.register(headers={"X-Auth-Mode": "token"})
    first = (await own_sessions(browser, await browser.login(headers={"X-Auth-Mode": "token"})))[-1]
    await browser.login()

    started = (await own(browser))[0]
    assert started["detail"]["ended"] == [first["id"]]
    assert [event["type"] for event in await own(browser, f"&sessionId={first['id']}")] == [
        "sessions.session.started"
    ] * 2


async def own_sessions(browser, signed):
    headers = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    sessions = (await browser("GET", "/api/auth/sessions", headers=headers)).json["items"]
    return sorted(sessions, key=lambda session: session["createdAt"], reverse=True)


async def test_a_session_found_expired_is_told_once(browser, later, parts):
    await browser.register()
    cookies = {cookie.key: cookie.value for cookie in browser.client.session.cookie_jar}
    await later("8d")
    body = {"refreshToken": next(value for name, value in cookies.items() if "refresh" in name)}
    for _ in range(2):
        assert (await browser("POST", "/api/auth/refresh", body)).json["reason"] == "expired"

    events, _ = await parts.audit.page(Wanted(type=Event.SESSION_ENDED), None, 10)
    assert [event.detail["reason"] for event in events] == ["expired"]


async def test_pages_follow_one_another_and_leave_nothing_out(parts):
    user = new_id()
    await parts.audit.record(Event.USER_REGISTERED, user_id=user, client=CLIENT)
    for number in range(7):
        await parts.audit.record(Event.SESSION_ENDED, user_id=user, client=CLIENT, number=number)
    seen, cursor = [], None
    while True:
        events, cursor = await parts.audit.page(Wanted(user, type=Event.SESSION_ENDED), cursor, 3)
        seen += [event.detail["number"] for event in events]
        if cursor is None:
            break

    assert seen == list(reversed(range(7)))


async def test_pages_of_my_own_events_stay_right_while_new_ones_come_in(parts):
    user = new_id()
    await parts.audit.record(Event.SIGNED_IN, user_id=user, number=0)
    for number in range(1, 7):
        await parts.audit.record(Event.SESSION_ENDED, user_id=user, number=number)
    events, cursor = await parts.audit.own(user, None, None, 3)
    seen = [event.detail["number"] for event in events]
    while cursor is not None:
        for _ in range(5):
            await parts.audit.record(Event.SESSION_ENDED, user_id=user, number="new")
        events, cursor = await parts.audit.own(user, None, cursor, 3)
        seen += [event.detail["number"] for event in events]

    assert seen == list(reversed(range(7)))


async def test_pages_of_one_session_leave_the_others_out(parts):
    user, mine, another = new_id(), new_id(), new_id()
    for number in range(6):
        sid = mine if number % 2 else another
        await parts.audit.record(Event.SIGNED_IN, user_id=user, session_id=sid, number=number)
    await parts.audit.record(Event.PASSWORD_CHANGED, user_id=user, session_id=another, ended=(mine,), number=6)

    first, cursor = await parts.audit.own(user, mine, None, 2)
    rest, end = await parts.audit.own(user, mine, cursor, 2)

    assert [event.detail["number"] for event in first + rest] == [6, 5, 3, 1]
    assert end is None


async def test_a_page_goes_on_by_time_where_its_event_is_gone(parts, redis):
    """The list was cut meanwhile, or a failover has lost the event."""
    user = new_id()
    name = f"events:{{{user}}}"
    for number in range(4):
        await parts.audit.record(Event.SIGNED_IN, user_id=user, number=number)
        await asyncio.sleep(0.005)  # each at a millisecond of its own
    _, cursor = await parts.audit.own(user, None, None, 2)
    latest, _, *older = await redis.lrange(name, 0, -1)
    await redis.delete(name)
    await redis.rpush(name, latest, *older)

    events, _ = await parts.audit.own(user, None, cursor, 10)
    await redis.ltrim(name, 0, 0)
    nothing = await parts.audit.own(user, None, cursor, 10)

    assert [event.detail["number"] for event in events] == [1, 0]
    assert nothing == ([], None)


async def test_pages_of_the_trail_go_on_in_the_trail_although_a_list_begins(parts):
    user = new_id()
    for number in range(4):
        await parts.audit.record(Event.SESSION_ENDED, user_id=user, number=number)
    first, cursor = await parts.audit.page(Wanted(user), None, 2)
    await parts.audit.record(Event.SIGNED_IN, user_id=user, number="new")

    rest, end = await parts.audit.page(Wanted(user), cursor, 2)

    assert [event.detail["number"] for event in first + rest] == [3, 2, 1, 0]
    assert end is None


async def test_an_event_reads_the_same_from_the_list_of_its_user_as_from_the_trail(parts):
    user, sid = new_id(), new_id()
    await parts.audit.record(Event.SIGNED_IN, user_id=user, session_id=sid, client=CLIENT, amr=("pwd",), device="curl")
    await parts.audit.record(Event.USER_DISABLED, user_id=user)

    listed, _ = await parts.audit.own(user, None, None, 9)
    in_trail, _ = await parts.audit.page(Wanted(), None, 2)

    assert [replace(event, position="") for event in listed] == [replace(event, position="") for event in in_trail]
    assert {listed[1].session_id, listed[1].ip, listed[0].ip} == {sid, CLIENT.address, None}


async def test_an_entry_of_a_later_version_is_read_as_far_as_it_is_known(parts, redis):
    user = new_id()
    await parts.audit.record(Event.SIGNED_IN, user_id=user, client=CLIENT)
    (before,), _ = await parts.audit.own(user, None, None, 9)
    (entry,) = await redis.lrange(f"events:{{{user}}}", 0, -1)
    await redis.lset(f"events:{{{user}}}", 0, entry[:-1] + ',"more",{"than":"today"}]')

    assert await parts.audit.own(user, None, None, 9) == ([before], None)


async def test_a_cursor_of_somebody_elses_making_is_refused(browser):
    await browser.register()

    for cursor in ("x", "-", "+", "1-1", "1-1 COUNT", "%28", ""):
        assert (await browser("GET", f"/api/auth/events?cursor={cursor}")).code == "VALIDATION_ERROR"


async def test_the_trail_and_the_lists_are_bounded_and_a_users_own_expires(parts, redis):
    user, before = new_id(), await redis.xlen("audit-trail")
    await parts.audit.record(Event.USER_REGISTERED, user_id=user)
    for _ in range(1500):
        parts.audit.note(Event.SESSION_ENDED, user_id=user)
    await parts.audit.settled()

    assert await redis.llen(f"events:{{{user}}}") == 1000
    assert await redis.xlen("audit-trail") == before + 1501
    assert 0 < await redis.ttl(f"events:{{{user}}}") <= 90 * 24 * 3600
    assert await redis.ttl("audit-trail") == -1


async def test_a_late_event_does_not_bring_back_the_list_of_somebody_gone(parts, redis):
    before = await redis.xlen("audit-trail")
    await parts.audit.record(Event.SESSION_ENDED, user_id=new_id())

    assert [key async for key in redis.scan_iter("events:*")] == []
    assert await redis.xlen("audit-trail") == before + 1


# Never in the way


async def test_an_event_that_redis_refuses_is_in_the_log_and_counted(parts):
    lost = Audit(Store(reach(f"redis://127.0.0.1:{free_port()}")), parts.clock)

    with structlog.testing.capture_logs() as logged:
        await lost.record(Event.SESSION_ENDED, user_id="ada", client=CLIENT)
        await lost.settled()

    told = [line["event"] for line in logged]
    assert told.count("sessions.session.ended") == 1
    assert told.count("audit.unwritten") == 1
    assert lost.unwritten == 1


async def test_a_thousand_events_at_once_take_a_few_round_trips_and_one_connection_at_a_time(parts):
    class Watched(Store):
        trips, under_way, most = 0, 0, 0

        async def run(self, *commands, **how):
            self.trips, self.under_way = self.trips + 1, self.under_way + 1
            self.most = max(self.most, self.under_way)
            try:
                return await parts.store.run(*commands, **how)
            finally:
                self.under_way -= 1

    store = Watched(None)
    crowded = Audit(store, parts.clock)

    await asyncio.gather(*(crowded.record(Event.SESSION_ENDED, user_id="ada", turn=turn) for turn in range(1000)))
    await crowded.settled()

    events, _ = await parts.audit.page(Wanted("ada"), None, 1000)
    assert [event.detail["turn"] for event in reversed(events)] == list(range(1000))
    assert (store.trips, store.most) == (4, 1)
    assert crowded.unwritten == 0


async def test_an_event_is_not_waited_for_longer_than_a_moment(parts):
    answers = asyncio.Event()

    class Slow:
        async def run(self, *commands, apart):
            await answers.wait()
            raise StoreUnavailable

    slow = Audit(Slow(), parts.clock)

    async with asyncio.timeout(30):
        await slow.record(Event.SESSION_ENDED, user_id="ada")

    assert slow.unwritten == 0
    answers.set()
    await slow.settled()
    assert slow.unwritten == 1


async def test_a_mistake_of_ours_in_writing_fails_no_request(parts, redis, browser):
    await redis.set("audit-trail", "not a stream")

    assert (await browser.register()).status == 201
    assert parts.audit.unwritten == 2
