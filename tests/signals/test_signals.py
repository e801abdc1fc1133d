"""Signals: a burst is told once whoever saw it, counts are of all instances, and nobody waits or fails for them."""

import asyncio
from functools import partial

import structlog

from service import metrics
from service.admin.administration import COMMAND_LINE
from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.clock import Clock
from service.errors import StoreUnavailable
from service.limits import policies
from service.signals.signals import Agent, Signal, Signals
from service.store import Store, reach
from service.vault import Vault
from tests.conftest import PASSWORD, WIDE, free_port, parts_of, settings_for
from tests.faults.proxy import Proxy

ADA, NOBODY = "ada@example.org", "nobody@example.org"
HERE = Client("192.0.2.7", "curl/8")
BY_ACCOUNT = WIDE + ",burst-account=5/15m"
BY_ADDRESS = WIDE + ",burst-address=6/15m"


async def bursts(*instances):
    """The bursts of the trail, oldest first, once these instances have written what they know."""
    for its in instances:
        await its.signals.settled()
        await its.audit.settled()
    events, _ = await instances[0].audit.page(Wanted(type=Event.SIGN_IN_BURST), None, 100)
    return events[::-1]


async def guess(browser, email=ADA, times=1, address="192.0.2.7"):
    headers = {"X-Forwarded-For": address, "User-Agent": "curl/8"}
    return [await browser.login(email, "a wrong one entirely", headers=headers) for _ in range(times)]


def counted(by):
    return metrics.SIGN_IN_BURSTS.labels(by)._value.get()


def alone(its, store=None, clock=None):
    """The signals of an instance like this one, with another store or clock."""
    limits = policies.load(its.settings)
    return Signals(store or its.store, Vault(its.settings.secrets), clock or its.clock, its.users, its.audit, limits)


# Bursts


async def test_a_burst_on_an_account_is_told_once_over_two_instances(serving):
    one, two = [await serving(RATE_LIMITS=BY_ACCOUNT, TRUSTED_PROXIES="127.0.0.1") for _ in range(2)]
    user = (await one.register()).json["user"]["id"]
    before = counted("account")

    with structlog.testing.capture_logs() as logged:
        answers = await asyncio.gather(
            *(guess((one, two)[n % 2], address=f"192.0.2.{n % 3}") for n in range(12)),
        )
        (event,) = await bursts(parts_of(one), parts_of(two))

    assert {answer.status for some in answers for answer in some} == {401}
    assert event.detail == {"by": "account", "count": 5, "window": 900, "addresses": event.detail["addresses"]}
    assert 1 <= event.detail["addresses"] <= 3
    assert (event.user_id, event.outcome, event.user_agent) == (user, "refused", "curl/8")
    assert event.ip.startswith("192.0.2.")
    assert event.request_id in {answer.headers["X-Request-Id"] for some in answers for answer in some}
    assert counted("account") == before + 1
    assert [line["event"] for line in logged].count("sessions.sign_in.burst") == 1
    await one.login()
    own = (await one("GET", "/api/auth/events")).json["items"]
    assert [told["type"] for told in own].count("sessions.sign_in.burst") == 1


async def test_a_burst_on_an_email_without_an_account_is_told_of_nobody_and_without_the_email(serving):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT)

    await guess(browser, NOBODY, 7)

    (event,) = await bursts(parts_of(browser))
    assert (event.user_id, event.detail) == (None, {"by": "account", "count": 5, "window": 900, "addresses": 1})
    assert "nobody" not in str(event)


async def test_a_burst_from_an_address_tells_at_how_many_accounts_and_counts_a_network_as_one(serving):
    browser = await serving(RATE_LIMITS=BY_ADDRESS, TRUSTED_PROXIES="127.0.0.1")
    for number in range(5):
        await guess(browser, f"person{number % 3}@example.org", address=f"2001:db8::{number + 1}")
        await guess(browser, f"person{number}@example.org", address=f"2001:db8:0:{number + 1}::1")
    assert await bursts(parts_of(browser)) == []

    await guess(browser, NOBODY, address="2001:db8::ffff")

    (event,) = await bursts(parts_of(browser))
    assert event.detail == {"by": "address", "count": 6, "window": 900, "accounts": 4}
    assert (event.user_id, event.ip) == (None, "2001:db8::ffff")


async def test_who_is_refused_by_a_limit_is_a_burst_all_the_same(serving):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT + ",login=2/15m")
    await browser.register()

    answers = await guess(browser, times=5)

    assert [answer.status for answer in answers] == [401, 401, 429, 429, 429]
    (event,) = await bursts(parts_of(browser))
    assert event.detail["by"] == "account"
    assert event.user_id is not None


async def test_who_is_refused_before_the_body_is_read_counts_for_the_address(serving):
    browser = await serving(RATE_LIMITS=BY_ADDRESS + ",login-address=2/15m")

    answers = await guess(browser, times=6)

    assert [answer.status for answer in answers] == [401, 401, 429, 429, 429, 429]
    (event,) = await bursts(parts_of(browser))
    assert event.detail["by"] == "address"


async def test_many_who_try_one_account_from_everywhere_are_a_burst_on_it(serving):
    limits = WIDE + ",burst-account=5/15m,login-account=3/1h"
    browser = await serving(RATE_LIMITS=limits, TRUSTED_PROXIES="127.0.0.1")

    statuses = [(await guess(browser, address=f"198.51.100.{n}"))[0].status for n in range(5)]

    assert statuses == [401, 401, 401, 429, 429]
    (event,) = await bursts(parts_of(browser))
    assert event.detail == {"by": "account", "count": 5, "window": 900, "addresses": 5}


async def test_a_right_password_is_no_attempt_whatever_comes_of_it(serving, assembling):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT)
    its = parts_of(browser)
    user = (await browser.register()).json["user"]["id"]
    for _ in range(6):
        await browser.login()
    await its.users.administer(await its.users.find(user), roles=None, active=False, email_verified=None, ending=[])
    for _ in range(6):
        assert (await browser.login()).code == "ACCOUNT_DISABLED"

    assert await bursts(its) == []


def asked_again(browser, password="a wrong one entirely", **headers):
    """Each of the calls that take the password of somebody who is signed in."""
    new = "another long and private sentence"
    bodies = {
        ("POST", "/api/auth/password/change"): {"currentPassword": password, "newPassword": new},
        ("POST", "/api/auth/email/change"): {"newEmail": "new@example.org", "password": password},
        ("DELETE", "/api/auth/me"): {"password": password},
    }
    return [partial(browser, *call, body, headers=headers) for call, body in bodies.items()]


def reauthentications(result):
    return metrics.REAUTHENTICATIONS.labels(result)._value.get()


async def test_a_wrong_password_of_somebody_who_is_signed_in_is_told_once_and_is_no_sign_in(serving):
    browser = await serving(RATE_LIMITS=WIDE)
    user = (await browser.register()).json["user"]["id"]
    its, sign_ins = parts_of(browser), metrics.SIGN_INS.labels("pwd", "invalid_credentials")
    before, wrong, right = sign_ins._value.get(), reauthentications("invalid_credentials"), reauthentications("success")

    with structlog.testing.capture_logs() as logged:
        answers = [await call() for call in asked_again(browser)]
    events, _ = await its.audit.page(Wanted(type=Event.REAUTHENTICATION_REFUSED), None, 100)

    assert [(answer.status, answer.code) for answer in answers] == [(401, "INVALID_CREDENTIALS")] * 3
    assert [event.detail for event in events[::-1]] == [
        {"reason": "INVALID_CREDENTIALS", "deed": deed} for deed in ("new_password", "new_email", "deletion")
    ]
    assert {(event.user_id, event.outcome, event.ip) for event in events} == {(user, "refused", "127.0.0.1")}
    assert [event.request_id for event in events[::-1]] == [answer.headers["X-Request-Id"] for answer in answers]
    assert all(event.session_id for event in events)
    told = [line["event"] for line in logged if line["event"].startswith("sessions.")]
    assert told == [Event.REAUTHENTICATION_REFUSED] * 3
    assert reauthentications("invalid_credentials") == wrong + 3
    assert (sign_ins._value.get(), reauthentications("success")) == (before, right)
    own = (await browser("GET", "/api/auth/events")).json["items"]
    assert [event["type"] for event in own].count(Event.REAUTHENTICATION_REFUSED) == 3


async def test_who_is_signed_in_and_guesses_the_password_is_a_burst_on_the_account(serving):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT)
    user = (await browser.register()).json["user"]["id"]

    await guess(browser, times=2)
    for call in asked_again(browser):
        await call()

    (event,) = await bursts(parts_of(browser))
    assert event.detail["by"] == "account"
    assert event.user_id == user


async def test_who_goes_on_guessing_behind_the_limit_of_those_signed_in_counts_as_well(serving):
    limits = BY_ACCOUNT + ",login-account=2/1h"
    browser = await serving(RATE_LIMITS=limits, TRUSTED_PROXIES="127.0.0.1")
    await browser.register()

    changes = [asked_again(browser, **{"X-Forwarded-For": f"198.51.100.{n}"})[0] for n in range(5)]
    statuses = [(await change()).status for change in changes]

    assert statuses == [401, 401, 429, 429, 429]
    (event,) = await bursts(parts_of(browser))
    assert event.detail == {"by": "account", "count": 5, "window": 900, "addresses": 5}


async def test_a_right_password_of_somebody_who_is_signed_in_is_no_attempt_nor_is_a_repeated_change(serving):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT)
    await browser.register()
    right = reauthentications("success")

    change, *_ = asked_again(browser, PASSWORD)
    for _ in range(6):  # as a client does whose answers are lost
        assert (await change()).status == 204
        await browser("POST", "/api/auth/refresh")

    assert await bursts(parts_of(browser)) == []
    assert reauthentications("success") == right + 6


async def test_the_window_slides_and_a_burst_is_told_again_when_it_is_over(serving, later):
    first, second, third = [await serving(RATE_LIMITS=BY_ACCOUNT) for _ in range(3)]  # one remembers what it has told
    await guess(first, times=4)
    await bursts(parts_of(first))
    await later("14m")
    await guess(first, times=1)
    assert len(await bursts(parts_of(first))) == 1

    await guess(first, times=10)
    await later("14m")
    await guess(second, times=10)
    assert len(await bursts(parts_of(first), parts_of(second))) == 1
    await later("61s")
    await guess(third, times=4)
    assert len(await bursts(parts_of(third))) == 1
    await guess(third, times=1)

    assert len(await bursts(parts_of(third))) == 2


async def test_a_flood_after_a_burst_costs_redis_no_more_verdicts(assembling, redis):
    signals = (await assembling(RATE_LIMITS=BY_ACCOUNT + ",burst-address=6/15m")).signals
    for _ in range(30):
        signals.note_attempt(ADA, HERE)
    await signals.settled()
    told = {key: await redis.zrange(key, 0, -1, withscores=True) async for key in redis.scan_iter("burst:*")}

    await redis.delete(*told)
    for _ in range(50):
        signals.note_attempt(ADA, HERE)
    await signals.settled()

    assert len(told) == 2
    assert [key async for key in redis.scan_iter("burst:*")] == []


async def test_attempts_that_are_far_apart_are_no_burst(serving, later):
    browser = await serving(RATE_LIMITS=BY_ACCOUNT)
    for _ in range(10):
        await guess(browser)
        await parts_of(browser).signals.settled()
        await later("4m")

    assert await bursts(parts_of(browser)) == []


async def test_a_burst_whose_reply_was_lost_is_told_once(assembling, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    its = await assembling(reach(proxy.url), RATE_LIMITS=BY_ACCOUNT)
    for _ in range(4):
        its.signals.note_attempt(ADA, HERE)
    await its.signals.settled()
    proxy.lose(b"burst:")

    its.signals.note_attempt(ADA, HERE)
    told = await bursts(its)

    assert proxy.lost == 1
    assert [event.detail["by"] for event in told] == ["account"]
    await proxy.stop()


async def test_a_known_and_an_unknown_email_are_the_same_work_and_the_same_answer(assembling, serving, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    its = await assembling(reach(proxy.url), RATE_LIMITS=WIDE + ",burst-account=3/15m")
    browser = await serving(its)
    await browser.register()
    told = {}
    for email in (ADA, NOBODY):
        await bursts(its)
        proxy.sent.clear()
        answers = await guess(browser, email, 2)
        await its.signals.settled()
        signals = [sent for sent in proxy.sent if b"burst:" in sent or b"signals:" in sent]
        answers += await guess(browser, email, 2)  # the third makes it a burst
        told[email] = (
            [(a.status, {**a.json, "requestId": ""}, sorted(set(a.headers) - {"Date"})) for a in answers],
            sum(sent.count(b"burst:") for sent in signals),
        )

    assert told[ADA] == told[NOBODY]
    assert len(await bursts(its)) == 2
    await proxy.stop()


# Never in the way


class Stuck:
    """A store that answers nobody before it is let go, and is away then."""

    def __init__(self):
        self.asked, self.free = 0, asyncio.Event()

    async def run(self, *commands, **how):
        self.asked += 1
        await self.free.wait()
        raise StoreUnavailable


async def test_a_store_that_is_away_fails_nobody_and_what_it_missed_is_not_kept(parts):
    lost = alone(parts, Store(reach(f"redis://127.0.0.1:{free_port()}")))

    for _ in range(50):
        lost.note_attempt(ADA, HERE)
        lost.note(Signal.FAILED)
        lost.note_broken(HERE)
    await lost.settled()

    assert (lost._attempts, lost._counts, lost._agents) == ([], {}, {})
    assert await bursts(parts) == []


async def test_an_answer_does_not_wait_for_what_is_counted(serving, assembling):
    its = await assembling()
    browser = await serving(its)
    stuck = its.signals._store = Stuck()

    answers = await guess(browser, times=3)

    assert {answer.status for answer in answers} == {401}
    assert stuck.asked == 1  # one round trip at a time, however long it takes
    stuck.free.set()
    await its.signals.settled()
    assert (its.signals._attempts, its.signals._counts) == ([], {})


async def test_redis_dying_while_it_is_counted_fails_nobody(assembling, own_redis):
    its = await assembling(reach(own_redis.url), RATE_LIMITS=BY_ACCOUNT)
    for _ in range(3):
        its.signals.note_attempt(ADA, HERE)
    await its.signals.settled()
    its.signals.note_attempt(ADA, HERE)
    own_redis.kill()
    await its.signals.settled()
    own_redis.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await its.store.time()
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)

    for _ in range(2):
        its.signals.note_attempt(ADA, HERE)
        await its.signals.settled()

    assert len(await bursts(its)) <= 1  # the one that was under way may count or not
    its.signals.note_attempt(ADA, HERE)
    assert len(await bursts(its)) == 1


async def test_a_mistake_of_ours_in_counting_fails_no_request(serving, redis):
    browser = await serving()
    its = parts_of(browser)
    for hour in (0, 1):
        await redis.set(f"signals:{int(its.clock.now()) // 3600 + hour}", "not a hash")

    with structlog.testing.capture_logs() as logged:
        (answer,) = await guess(browser)
        await its.signals.settled()

    assert answer.status == 401
    assert "signals.failed" in [line["event"] for line in logged]


# Little room


async def test_a_flood_of_accounts_addresses_and_user_agents_leaves_what_expires_and_is_small(parts, redis, request):
    many = 300 if "fakeredis" in request.node.name else 10_000
    its = alone(parts, clock=parts.clock)
    for number in range(many):
        client = Client(f"2001:db8:{number:x}::1", f"made-up/{number}")
        its.note_attempt(f"{number}@example.org", client)
        its.note(Signal.FAILED)
        its.note_broken(client)
        if number % 1000 == 999:
            await its.settled()
    await its.settled()

    kept = [key async for key in redis.scan_iter("burst:*", count=1000)]
    hours = [key async for key in redis.scan_iter("signals:*", count=1000)]
    assert len(kept) == 2 * many
    assert {await redis.zcard(key) for key in kept[:200]} == {1}
    assert all([0 < await redis.pttl(key) <= 3_600_000 for key in kept])
    assert not [key for key in kept if "example" in key or "2001" in key]
    assert len(hours) in (1, 2)
    for hour in hours:
        fields = await redis.hkeys(hour)
        assert len([field for field in fields if field.startswith("agent ")]) <= 20
        assert len(fields) <= 20 + 12 * len(Signal)
        assert 0 < await redis.ttl(hour) <= 25 * 3600
    told = await its.told()
    assert (told.day[Signal.FAILED], told.day[Signal.BROKEN_CLIENT]) == (many, many)


async def test_an_attack_on_one_account_is_kept_no_longer_than_it_takes_to_tell(assembling, redis):
    its = await assembling(RATE_LIMITS=WIDE + ",burst-account=5/15m,burst-address=20/15m")
    for _ in range(100):
        its.signals.note_attempt(ADA, HERE)
        await its.signals.settled()

    sizes = {key.split(":")[1]: await redis.zcard(key) async for key in redis.scan_iter("burst:*")}
    assert sizes == {"account": 1, "address": 1}


async def test_no_more_attempts_wait_than_there_is_room_for(parts):
    its = alone(parts)
    for number in range(20_000):
        its.note_attempt(f"{number}@example.org", HERE)

    assert len(its._attempts) <= 10_001
    its._attempts.clear()
    await its.settled()


async def test_the_user_agents_that_look_broken_most_often_stay_in_a_flood_of_others(parts):
    its = parts.signals
    for number in range(200):
        its.note_broken(Client("192.0.2.7", f"made-up/{number}"))
        if number % 2:
            its.note_broken(Client("192.0.2.7", "our-app/2.1"))
        if number % 4 == 0:
            its.note_broken(Client("192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64) ~ Firefox/140.0"))
        await its.settled()

    told = await its.told()

    assert len(told.agents) == 10
    assert [agent.user_agent for agent in told.agents[:2]] == [
        "our-app/2.1",
        "Mozilla/5.0 (X11; Linux x86_64) ~ Firefox/140.0",
    ]
    assert told.agents[0] == Agent("our-app/2.1", 100)


# Counts


async def test_the_statistics_add_up_what_all_instances_have_seen(serving, parts):
    limits = WIDE + ",burst-account=5/15m,burst-address=6/15m,login=6/15m"
    one, two = [await serving(RATE_LIMITS=limits, TRUSTED_PROXIES="127.0.0.1") for _ in range(2)]
    user = (await one.register()).json["user"]["id"]
    await parts_of(one).administration.change(COMMAND_LINE, user, roles=["user", "admin"])
    for browser in (one, two):
        await guess(browser, times=4)
    headers = {"X-Forwarded-For": "203.0.113.9", "User-Agent": "curl/8"}
    assert (await one.login(headers=headers)).status == 200
    await bursts(parts_of(one), parts_of(two))

    told = (await one("GET", "/api/admin/stats")).json["security"]

    assert told["lastHour"] == told["lastDay"]
    assert told["lastDay"] == {
        "failedSignIns": 6,
        "limitedSignIns": 2,
        "burstsByAccount": 1,
        "burstsByAddress": 1,
        "refreshTokensReused": 0,
        "brokenClientReplays": 0,
        "newDeviceSignIns": 1,
    }
    assert told["brokenClients"] == []


async def test_counts_are_of_the_last_hour_and_the_last_day_and_then_of_no_more(parts, redis):
    now = parts.clock.now()

    def at(hours: float) -> Signals:
        clock = Clock()
        clock.anchor(now + hours * 3600)
        return alone(parts, clock=clock)

    async def happens(hours: float) -> None:
        its = at(hours)
        its.note(Signal.FAILED)
        its.note_broken(HERE)
        await its.settled()

    async def seen(hours: float) -> tuple[int, int]:
        told = await at(hours).told()
        return told.hour[Signal.FAILED], told.day[Signal.FAILED]

    await happens(0)
    await happens(0.5)
    assert await seen(0.9) == (2, 2)
    assert await seen(1.2) == (1, 2)
    await happens(2)
    assert await seen(2.5) == (1, 3)
    await happens(23.4)
    assert await seen(23.9) == (1, 4)
    assert await seen(24.2) == (1, 3)
    assert await seen(24.7) == (0, 2)
    assert [agent.count for agent in (await at(26).told()).agents] == [2]  # by the hour
    assert await seen(49) == (0, 0)
    assert (await at(49).told()).agents == []
    ttls = [await redis.ttl(key) async for key in redis.scan_iter("signals:*")]
    assert all(24 * 3600 < ttl <= 25 * 3600 for ttl in ttls)


async def test_what_a_later_version_counts_is_passed_over(parts, redis):
    parts.signals.note(Signal.REUSED)
    await parts.signals.settled()
    (key,) = [key async for key in redis.scan_iter("signals:*")]
    await redis.hset(key, "unheard-of.3", "7")

    assert sum((await parts.signals.told()).day.values()) == 1


def test_the_thresholds_are_lines_of_the_table_of_limits():
    table = policies.load(settings_for(RATE_LIMITS=""))

    assert (table["burst-account"].calls, table["burst-address"].calls) == (10, 20)
    assert policies.load(settings_for(RATE_LIMITS="burst-account=3/1h"))["burst-account"].milliseconds == 3_600_000
