"""The limiter: exactly so many calls in any window, over all instances, and nothing left behind."""

import asyncio
import time

import pytest
import time_machine

from service.client import Client
from service.limits.limiter import Charge, Refused
from service.limits.places import Seen
from service.store import Single, reach
from tests.conftest import gather
from tests.faults.proxy import Proxy

ADA = Charge("login", ("192.0.2.7", "ada@example.org"))


async def charge(its, *charges: Charge) -> bool:
    """Whether the call was allowed."""
    try:
        await its.limiter.charge(*charges or (ADA,))
    except Refused:
        return False
    return True


async def test_exactly_as_many_as_allowed_get_through_over_two_instances(assembling):
    one, two = await assembling(RATE_LIMITS="login=7/15m"), await assembling(RATE_LIMITS="login=7/15m")

    allowed = await gather(*(charge((one, two)[n % 2]) for n in range(60)))

    assert sum(allowed) == 7


async def test_a_call_counts_for_one_window_and_not_a_moment_more(assembling, later):
    its = await assembling(RATE_LIMITS="login=2/10s")
    assert await charge(its)
    await later("6s")
    assert await charge(its)
    await later("3s")
    assert not await charge(its)

    await later("1s")

    assert await charge(its)
    assert not await charge(its)


async def test_no_ten_seconds_hold_more_than_allowed_wherever_they_begin(assembling, later):
    its = await assembling(RATE_LIMITS="login=3/10s")
    allowed_at = []
    for second in range(30):
        allowed_at += [second for _ in range(2) if await charge(its)]
        await later("1s")

    for start in range(30):
        assert sum(start <= at < start + 10 for at in allowed_at) <= 3
    assert len(allowed_at) == 9


async def test_a_refused_call_adds_nothing(assembling, later, connecting):
    its = await assembling(RATE_LIMITS="login=2/10s")
    redis = connecting()
    await charge(its)
    await charge(its)
    for _ in range(20):
        assert not await charge(its)

    (key,) = [key async for key in redis.scan_iter("limit:*")]
    assert await redis.zcard(key) == 2
    await later("10s")
    assert await charge(its)
    await redis.aclose()


async def test_what_is_left_is_told(assembling, later):
    its = await assembling(RATE_LIMITS="login=3/60s")

    told = []
    for _ in range(3):
        (allowance,) = await its.limiter.charge(ADA)
        told.append(allowance.limit_header)
        assert allowance.policy_header == '"login";q=3;w=60'
        await later("20s")

    assert told == ['"login";r=2;t=60', '"login";r=1;t=40', '"login";r=0;t=20']


async def test_who_waits_as_long_as_told_is_let_in(assembling, later):
    its = await assembling(RATE_LIMITS="login=2/30s")
    await charge(its)
    await later("11s")
    await charge(its)

    with pytest.raises(Refused) as refused:
        await its.limiter.charge(ADA)

    assert 18 <= refused.value.retry_after <= 19
    await later(f"{refused.value.retry_after}s")
    assert await charge(its)


async def test_a_refusal_by_a_wider_policy_withdraws_the_call_from_the_narrower(assembling):
    its = await assembling(RATE_LIMITS="login=3/15m,login-address=1/15m")
    wide = Charge("login-address", ("192.0.2.7",))
    assert await charge(its, ADA, wide)
    for _ in range(10):
        assert not await charge(its, ADA, wide)

    (allowance,) = await its.limiter.charge(ADA)

    assert allowance.remaining == 1


async def test_a_refusal_names_the_policy_that_refused(assembling):
    its = await assembling(RATE_LIMITS="login=3/15m,login-address=1/1h")
    wide = Charge("login-address", ("192.0.2.7",))
    await charge(its, ADA, wide)

    with pytest.raises(Refused) as refused:
        await its.limiter.charge(ADA, wide)

    assert refused.value.allowance.policy.name == "login-address"
    assert refused.value.members["retryAfter"] == refused.value.retry_after


async def test_subjects_and_policies_count_apart(assembling):
    its = await assembling(RATE_LIMITS="login=1/15m,login-account=1/15m")

    for charged in (
        ADA,
        Charge("login", ("192.0.2.8", "ada@example.org")),
        Charge("login", ("192.0.2.7", "bob@example.org")),
        Charge("login-account", ("192.0.2.7", "ada@example.org")),
        Charge("login", ("192.0.2.7ada@example.org",)),
        Charge("login", ("192.0.2.7", "", "ada@example.org")),
    ):
        assert await charge(its, charged), charged
        assert not await charge(its, charged), charged


async def test_a_charge_whose_answer_was_lost_counts_once(assembling, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    its = await assembling(reach(proxy.url), RATE_LIMITS="login=5/15m")
    await its.limiter.charge(ADA)
    proxy.lose(b"limit:")

    (allowance,) = await its.limiter.charge(ADA)

    assert proxy.lost == 1
    assert allowance.remaining == 3
    await proxy.stop()


async def test_a_look_refuses_what_a_call_would_be_refused_and_counts_nothing(assembling, later, connecting):
    its = await assembling(RATE_LIMITS="login=2/30s")
    redis = connecting()
    await its.limiter.look(ADA)
    while await charge(its):
        await its.limiter.look(ADA)

    for _ in range(5):
        with pytest.raises(Refused) as refused:
            await its.limiter.look(ADA)

    assert refused.value.allowance.limit_header == f'"login";r=0;t={refused.value.retry_after}'
    assert 28 <= refused.value.retry_after <= 30
    (key,) = [key async for key in redis.scan_iter("limit:*")]
    assert await redis.zcard(key) == 2
    await later("30s")
    for _ in range(5):
        await its.limiter.look(ADA)
    (allowance,) = await its.limiter.charge(ADA)
    assert allowance.remaining == 1
    await redis.aclose()


async def test_a_look_asks_nobody_about_a_window_that_has_not_refused(assembling, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    its = await assembling(reach(proxy.url), RATE_LIMITS="login=1/15m,register=1/1h")
    other = Charge("register", ("192.0.2.7",))
    await charge(its)
    await charge(its, other)
    proxy.sent.clear()

    await its.limiter.look(ADA)
    assert not await charge(its)
    await its.limiter.look(other)

    assert len([sent for sent in proxy.sent if b"limit:" in sent]) == 1
    with pytest.raises(Refused):
        await its.limiter.look(ADA)
    assert len([sent for sent in proxy.sent if b"limit:" in sent]) == 2
    await proxy.stop()


async def test_an_account_is_looked_up_only_when_its_own_limit_is_at_hand(assembling, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    its = await assembling(reach(proxy.url), RATE_LIMITS="login=1/15m,login-account=1/1h")
    account = Charge("login-account", ("ada@example.org",), quiet=True, spared=("ada@example.org", "192.0.2.7"))
    await its.places.remember("ada@example.org", Client("192.0.2.7"), Seen(None))
    assert await charge(its, ADA, account)
    proxy.sent.clear()

    assert not await charge(its, ADA, account)

    assert [b"known:" in sent for sent in proxy.sent if b"limit:" in sent or b"known:" in sent] == [False]
    elsewhere = Charge("login-account", ("ada@example.org",), spared=("ada@example.org", "192.0.2.8"))
    assert await charge(its, account)
    assert await charge(its, account)
    assert await charge(its, elsewhere)
    assert not await charge(its, elsewhere)
    await proxy.stop()


async def test_keys_name_nobody_and_expire_with_their_window(assembling, connecting):
    its = await assembling(RATE_LIMITS="login=5/15m")
    redis = connecting()
    await charge(its)

    (key,) = [key async for key in redis.scan_iter("*login*")]
    content = await redis.zrange(key, 0, -1)

    assert key.startswith("limit:login:")
    for told in ("ada", "192.0.2.7", "example"):
        assert told not in key + "".join(content)
    assert 0 < await redis.pttl(key) <= 15 * 60 * 1000
    await redis.aclose()


async def test_another_installation_has_other_keys(assembling, connecting):
    redis = connecting()
    for secret in ("a" * 20 + "bcdefghijklm", "z" * 20 + "bcdefghijklm"):
        await charge(await assembling(AUTH_SECRET=secret, JWT_ALGORITHM="HS256"))

    assert len([key async for key in redis.scan_iter("limit:*")]) == 2
    await redis.aclose()


async def test_thousands_of_random_subjects_leave_nothing_behind(assembling, later, connecting, request):
    its = await assembling(RATE_LIMITS="login=5/15m")
    redis = connecting()
    many = 300 if "fakeredis" in request.node.name else 3000
    for start in range(0, many, 100):
        await asyncio.gather(
            *(charge(its, Charge("login", ("192.0.2.7", f"{n}@example.org"))) for n in range(start, start + 100))
        )
    assert len([key async for key in redis.scan_iter("limit:*", count=1000)]) == many

    await later("15m")

    assert [key async for key in redis.scan_iter("limit:*")] == []
    await redis.aclose()


async def test_the_window_goes_by_redis_clock_not_by_the_instance(assembling, connecting_for_real, redis_server):
    """An instance whose clock is an hour off counts like any other."""
    right = await assembling(Single(connecting_for_real()), RATE_LIMITS="login=2/15m")
    off = await assembling(Single(connecting_for_real()), RATE_LIMITS="login=2/15m")
    await charge(right)
    with time_machine.travel(time.time() + 3600, tick=True):
        assert await charge(off)
        assert not await charge(off)

    assert not await charge(right)
