"""Redis did it and nobody heard: the answer to any one round trip, or to it and its second try, is lost.

Each flow is run again and again, with the first, the second, ... round trip losing its answer. It may then answer
rightly or 503; never wrongly. The same request, sent again, succeeds or says how things stand.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.store import reach
from tests.conftest import PASSWORD, Answer
from tests.faults.conftest import TOKENS, back_to_normal, bearer, in_time, is_unavailable, joined, refresh

NEW = PASSWORD + ", and more"

# Cut once, and a second try helps where a repeat is harmless; cut twice, and it does not.
times = pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])


@pytest.fixture
async def instance(serving, assembling, proxy):
    return await serving(await assembling(reach(proxy.url)))


async def at_each_round_trip(proxy, times: int, prepare: Callable[[int], Awaitable], act: Callable) -> list:
    """Act with the n-th answer lost, for every n that there is: what was prepared, and what was answered."""
    tried = []
    for n in range(30):
        prepared = await prepare(n)
        proxy.lose(skip=n, times=times)
        answer, _ = await in_time(act(prepared))
        lost = proxy.lost
        proxy.lose(times=0)
        tried.append((prepared, answer))
        if not lost:
            assert len(tried) > 1
            return tried[:-1]
    raise AssertionError("no flow makes so many round trips")


@times
async def test_a_refresh_gives_the_same_successor_and_is_no_reuse(instance, proxy, times):
    tried = await at_each_round_trip(
        proxy,
        times,
        prepare=lambda n: joined(instance, f"ada{n}@example.org"),
        act=lambda signed: refresh(instance, signed),
    )

    for signed, answer in tried:
        again = await refresh(instance, signed)
        assert again.status == 200, again
        assert answer.status == 200 or is_unavailable(answer), answer
        if answer.status == 200:
            assert again.json["refreshToken"] == answer.json["refreshToken"]
        assert (await refresh(instance, again.json)).status == 200
    if times == 1:
        assert {answer.status for _, answer in tried} == {200}


async def test_a_refresh_whose_answer_never_came_is_retried_within_its_second(instance, proxy):
    signed = await joined(instance, "ada@example.org")
    proxy.lose(b"sessions:", silently=True)

    answer, took = await in_time(refresh(instance, signed))

    assert answer.status == 200
    assert took >= 0.9
    assert (await refresh(instance, signed)).json["refreshToken"] == answer.json["refreshToken"]


@times
async def test_a_login_signs_in_or_says_503(instance, proxy, times):
    await joined(instance, "ada@example.org")

    async def nothing(n: int) -> None: ...

    tried = await at_each_round_trip(
        proxy, times, prepare=nothing, act=lambda _: instance.login("ada@example.org", headers=TOKENS)
    )

    for _, answer in tried:
        assert answer.status == 200 or is_unavailable(answer), answer
        if answer.status == 200:
            assert (await refresh(instance, answer.json)).status == 200
    assert (await instance.login("ada@example.org", headers=TOKENS)).status == 200


@times
async def test_a_logout_ends_the_session_or_says_503_and_then_does(instance, proxy, times):
    def sign_out(signed: dict) -> Awaitable[Answer]:
        return instance("POST", "/api/auth/logout", headers=bearer(signed), csrf=None)

    tried = await at_each_round_trip(
        proxy, times, prepare=lambda n: joined(instance, f"ada{n}@example.org"), act=sign_out
    )

    for signed, answer in tried:
        assert answer.status == 204 or is_unavailable(answer), answer
        assert (await sign_out(signed)).status == 204
        assert (await instance("GET", "/api/auth/me", headers=bearer(signed), csrf=None)).code == "TOKEN_REVOKED"
        assert (await refresh(instance, signed)).code == "SESSION_ENDED"


@times
async def test_a_logout_everywhere_is_done_when_it_says_so(instance, proxy, times):
    async def two_sessions(n: int) -> tuple[dict, dict]:
        signed = await joined(instance, f"ada{n}@example.org")
        return signed, (await instance.login(f"ada{n}@example.org", headers=TOKENS)).json

    def sign_out(both: tuple[dict, dict]) -> Awaitable[Answer]:
        return instance("POST", "/api/auth/logout-all", headers=bearer(both[0]), csrf=None)

    tried = await at_each_round_trip(proxy, times, prepare=two_sessions, act=sign_out)

    for both, answer in tried:
        assert answer.status == 204 or is_unavailable(answer), answer
        again = await sign_out(both)
        assert again.status == 204 or again.code in ("TOKEN_REVOKED", "TOKEN_STALE"), again
        for signed in both:
            assert (await refresh(instance, signed)).code == "SESSION_ENDED"


@times
async def test_a_password_change_holds_when_it_says_so_and_can_be_repeated(instance, proxy, times):
    def change(signed: dict) -> Awaitable[Answer]:
        body = {"currentPassword": PASSWORD, "newPassword": NEW}
        return instance("POST", "/api/auth/password/change", body, headers=bearer(signed), csrf=None)

    tried = await at_each_round_trip(
        proxy, times, prepare=lambda n: joined(instance, f"ada{n}@example.org"), act=change
    )

    for signed, answer in tried:
        email = signed["user"]["email"]
        assert answer.status == 204 or is_unavailable(answer), answer
        if answer.status != 204:
            renewed = (await refresh(instance, signed)).json
            assert (await change(renewed)).status == 204
        assert (await instance.login(email, headers=TOKENS)).code == "INVALID_CREDENTIALS"
        assert (await instance.login(email, NEW, headers=TOKENS)).status == 200


@times
async def test_a_registration_makes_one_account_that_stays(instance, proxy, own_redis, times):
    async def a_new_email(n: int) -> str:
        return f"new{n}@example.org"

    def register(email: str) -> Awaitable[Answer]:
        return instance.register(email, headers=TOKENS)

    tried = await at_each_round_trip(proxy, times, prepare=a_new_email, act=register)

    for email, answer in tried:
        assert answer.status == 201 or is_unavailable(answer), (email, answer)
        again = await register(email)
        assert again.status == 201 or again.code == "EMAIL_EXISTS", (email, again)
        # The truth, then: somebody has this email, and will have it tomorrow.
        assert (await instance.login(email, headers=TOKENS)).status == 200, (email, answer, again)
    lookups = [value for part in own_redis.cli("KEYS", "email:*") for value in own_redis.cli("HVALS", part)]
    assert [value for value in lookups if " " in value] == []  # none is only claimed
    assert len(own_redis.cli("KEYS", "user:*")) == len(tried) + 1


@times
async def test_a_session_ended_from_the_list_is_gone_or_it_says_503(instance, proxy, times):
    async def two_sessions(n: int) -> tuple[dict, dict, str]:
        signed = await joined(instance, f"ada{n}@example.org")
        other = (await instance.login(f"ada{n}@example.org", headers=TOKENS)).json
        listed = (await instance("GET", "/api/auth/sessions", headers=bearer(signed), csrf=None)).json["items"]
        return signed, other, next(item["id"] for item in listed if not item["current"])

    def end(which: tuple[dict, dict, str]) -> Awaitable[Answer]:
        return instance("DELETE", f"/api/auth/sessions/{which[2]}", headers=bearer(which[0]), csrf=None)

    tried = await at_each_round_trip(proxy, times, prepare=two_sessions, act=end)

    for which, answer in tried:
        assert answer.status == 204 or is_unavailable(answer), answer
        assert (await end(which)).status in (204, 404)
        assert (await refresh(instance, which[1])).code == "SESSION_ENDED"
        assert (await refresh(instance, which[0])).status == 200


@times
async def test_a_visitor_gets_a_csrf_token_or_503(instance, serving, proxy, times):
    async def a_visitor(n: int):
        visitor = await serving(at=instance)
        await visitor("GET", "/api/auth/csrf-token")
        return visitor

    tried = await at_each_round_trip(
        proxy, times, prepare=a_visitor, act=lambda visitor: visitor("GET", "/api/auth/csrf-token")
    )

    for visitor, answer in tried:
        assert answer.status == 200 or is_unavailable(answer), answer
        before = visitor.cookies()["csrfToken"]
        assert (await visitor("GET", "/api/auth/csrf-token")).json["csrfToken"] == before


async def test_parallel_tabs_in_a_network_that_loses_half_its_answers_stay_signed_in(instance, proxy):
    people = [await joined(instance, f"ada{n}@example.org") for n in range(8)]
    odd = [0]

    def every_other(data: bytes) -> bool:
        odd[0] += 1
        return odd[0] % 2 == 0

    async def tab(signed: dict) -> list[int]:
        statuses = []
        for _ in range(6):
            answer = await refresh(instance, signed)
            statuses.append(answer.status)
            if answer.status == 200:
                signed.update(answer.json)
        return statuses

    proxy._loses = every_other
    answered = await asyncio.gather(*(tab(signed) for signed in people for _ in range(2)))
    proxy._loses = lambda data: False
    await back_to_normal(instance)

    assert {status for statuses in answered for status in statuses} <= {200, 503}
    for signed in people:
        assert (await refresh(instance, signed)).status == 200


async def test_an_outage_in_the_middle_of_a_registration_is_answered_in_time(instance, proxy):
    """The network goes silent after a few answers, with the account half made or not at all."""
    proxy.lose(skip=4, times=100, silently=True)

    answer, took = await in_time(instance.register("late@example.org", headers=TOKENS))

    proxy.lose(times=0)
    assert is_unavailable(answer), answer
    await back_to_normal(instance)
    assert (await instance.register("late@example.org", headers=TOKENS)).status in (201, 409)
    assert (await instance.login("late@example.org", headers=TOKENS)).status == 200
    print(f"\nregistration in a network gone silent: {took:.2f} s")


async def test_of_many_registrations_with_one_email_at_once_exactly_one_has_it(instance, serving, assembling):
    others = [instance, await serving(await assembling())]

    for n in range(5):
        email = f"wanted{n}@example.org"
        answers = await asyncio.gather(*(others[i % 2].register(email, headers=TOKENS, csrf=None) for i in range(12)))

        assert sorted(answer.status for answer in answers) == [201] + [409] * 11
        winner = next(answer.json["user"]["id"] for answer in answers if answer.status == 201)
        assert (await instance.login(email, headers=TOKENS)).json["user"]["id"] == winner
