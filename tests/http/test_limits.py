"""Limits as a client meets them: with the limits of the table, as an installation has them."""

import asyncio
import threading

import pytest

from tests.conftest import PASSWORD, cheap_passwords

TOKENS = {"X-Auth-Mode": "token"}
DEFAULT = {"RATE_LIMITS": ""}  # unset: the table as it is shipped
BEHIND_A_PROXY = {**DEFAULT, "TRUSTED_PROXIES": "127.0.0.1"}


def seen_from(address: str) -> dict[str, str]:
    return {**TOKENS, "X-Forwarded-For": address}


def bearer(answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['accessToken']}"}


@pytest.fixture
async def shipped(serving):
    return await serving(**DEFAULT)


async def wrong(browser, email: str = "ada@example.org", headers: dict[str, str] = TOKENS):
    return await browser.login(email, "not the password at all", headers=headers)


async def test_the_sixth_wrong_password_in_a_quarter_of_an_hour_is_refused(shipped, later):
    await shipped.register(headers=TOKENS)
    for _ in range(5):
        assert (await wrong(shipped)).code == "INVALID_CREDENTIALS"

    refused = await wrong(shipped)
    right = await shipped.login(headers=TOKENS)

    assert refused.code == right.code == "RATE_LIMITED"
    await later("15m")
    assert (await shipped.login(headers=TOKENS)).status == 200


async def test_a_refusal_says_when_to_come_again(shipped, later):
    for _ in range(5):
        await wrong(shipped)
    await later("5m")

    refused = await wrong(shipped)

    assert refused.status == 429
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert 598 <= refused.json["retryAfter"] <= 600
    assert refused.headers["Retry-After"] == str(refused.json["retryAfter"])
    assert refused.headers["RateLimit"] == f'"login";r=0;t={refused.json["retryAfter"]}'
    assert refused.headers["RateLimit-Policy"] == '"login";q=5;w=900'
    assert "Set-Cookie" not in refused.headers


async def test_an_allowed_answer_says_what_is_left(shipped):
    first, second = await wrong(shipped), await wrong(shipped)

    # Not of `login-account`: how often others have tried is nobody's business.
    assert first.headers["RateLimit"] == '"login";r=4;t=900, "login-address";r=99;t=900'
    assert first.headers["RateLimit-Policy"] == '"login";q=5;w=900, "login-address";q=100;w=900'
    assert second.headers["RateLimit"].startswith('"login";r=3;t=')
    registered = await shipped.register(headers=TOKENS)
    assert registered.headers["RateLimit"] == '"register";r=9;t=3600'
    refreshed = await shipped("POST", "/api/auth/refresh", {"refreshToken": registered.json["refreshToken"]})
    assert refreshed.headers["RateLimit-Policy"] == '"refresh";q=600;w=60'
    assert "RateLimit" not in (await shipped("GET", "/health")).headers


async def test_two_instances_count_together(serving, assembling):
    both = [await serving(await assembling(**DEFAULT)) for _ in range(2)]

    answers = await asyncio.gather(*(wrong(both[n % 2]) for n in range(30)))

    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 25


async def test_a_call_is_counted_before_its_password_is_hashed(serving, assembling):
    """With every hashing thread taken and no queue, whatever got as far as hashing would be told 503."""
    passwords = cheap_passwords(workers=1, queue=0)
    its = await assembling(passwords=passwords, **DEFAULT)
    browser = await serving(its)
    release = threading.Event()
    busy = asyncio.create_task(passwords.threads.run(release.wait))
    await asyncio.sleep(0)
    try:
        codes = [(await wrong(browser)).code for _ in range(7)]
    finally:
        release.set()
        await busy

    assert codes == ["OVERLOADED"] * 5 + ["RATE_LIMITED"] * 2


async def test_who_burns_a_limit_from_elsewhere_does_not_lock_the_owner_out(serving):
    browser = await serving(**BEHIND_A_PROXY)
    await browser.register(headers=seen_from("192.0.2.1"))
    for _ in range(6):
        attacker = await wrong(browser, headers=seen_from("203.0.113.66"))

    owner = await browser.login(headers=seen_from("192.0.2.1"))

    assert attacker.status == 429
    assert owner.status == 200


async def test_who_tries_many_accounts_from_one_address_is_stopped(serving):
    browser = await serving(RATE_LIMITS="login-address=10/15m")

    statuses = [(await wrong(browser, f"person{n}@example.org")).status for n in range(12)]

    assert statuses == [401] * 10 + [429] * 2
    stopped = await wrong(browser, "another@example.org")
    assert stopped.headers["RateLimit-Policy"] == '"login-address";q=10;w=900'


@pytest.mark.parametrize(
    ("path", "body", "policy"),
    [
        ("/api/auth/login", {"email": "{}@example.org", "password": PASSWORD}, "login-address"),
        ("/api/auth/register", {"email": "{}@example.org", "password": PASSWORD}, "register"),
        ("/api/auth/password/forgot", {"email": "{}@example.org"}, "forgot"),
        ("/api/auth/password/reset", {"token": "{}", "newPassword": PASSWORD}, "verify-email"),
        ("/api/auth/email/verify", {"token": "{}"}, "verify-email"),
    ],
)
async def test_an_address_that_is_over_its_limit_is_refused_before_its_body_is_looked_at(
    serving, later, path, body, policy
):
    browser = await serving(RATE_LIMITS=f"{policy}=2/10m,login=9/10m,login-account=9/10m")

    async def call(text: str | None) -> tuple[int, str]:
        sent = {} if text is None else {name: value.format(text) for name, value in body.items()}
        answer = await browser("POST", path, sent, headers=TOKENS)
        assert answer.status != 429 or answer.headers["RateLimit-Policy"] == f'"{policy}";q=2;w=600'
        return answer.status, answer.json["code"] if answer.status >= 400 else ""

    for number in range(2):
        assert await call(None) == (400, "VALIDATION_ERROR")  # which costs nothing
        assert (await call(str(number)))[0] != 429
    assert await call("another") == (429, "RATE_LIMITED")

    assert await call(None) == (429, "RATE_LIMITED")

    await later("10m")
    assert await call(None) == (400, "VALIDATION_ERROR")
    assert (await call("one more"))[0] != 429


async def test_many_who_try_one_account_are_stopped(serving):
    browser = await serving(**{**BEHIND_A_PROXY, "RATE_LIMITS": "login-account=10/1h"})

    statuses = [(await wrong(browser, headers=seen_from(f"192.0.2.{n}"))).status for n in range(12)]

    assert statuses == [401] * 10 + [429] * 2


async def test_an_address_that_the_account_is_known_by_is_spared_the_accounts_own_limit(serving):
    browser = await serving(**{**BEHIND_A_PROXY, "RATE_LIMITS": "login-account=5/1h"})
    home, elsewhere = seen_from("192.0.2.200"), seen_from("192.0.2.201")
    await browser.register(headers=home)
    assert (await browser.login(headers=home)).status == 200
    for n in range(6):
        stranger = await wrong(browser, headers=seen_from(f"192.0.2.{n}"))

    assert stranger.status == 429
    assert "RateLimit" not in stranger.headers
    assert (await browser.login(headers=home)).status == 200
    assert (await browser.login(headers=elsewhere)).status == 429


async def test_spellings_of_one_email_count_together(shipped):
    spellings = ("ada@example.org", "ADA@example.org", "ada@EXAMPLE.org", "Ada@Example.Org.", "ada@example.org")

    for spelling in spellings:
        assert (await wrong(shipped, spelling)).status == 401

    assert (await wrong(shipped, "aDa@example.org")).status == 429


async def test_a_made_up_forwarded_address_multiplies_nothing(shipped):
    statuses = [(await wrong(shipped, headers=seen_from(f"192.0.2.{n}"))).status for n in range(7)]

    assert statuses == [401] * 5 + [429] * 2


async def test_what_is_made_up_left_of_the_proxys_word_multiplies_nothing(serving):
    browser = await serving(**BEHIND_A_PROXY)

    statuses = [(await wrong(browser, headers=seen_from(f"192.0.2.{n}, 198.51.100.7"))).status for n in range(7)]

    assert statuses == [401] * 5 + [429] * 2


async def test_an_ipv6_subscriber_is_one_however_many_addresses_there_are(serving):
    browser = await serving(**BEHIND_A_PROXY)

    statuses = [(await wrong(browser, headers=seen_from(f"2001:db8:1:1::{n}"))).status for n in range(7)]
    neighbour = await wrong(browser, headers=seen_from("2001:db8:1:2::1"))

    assert statuses == [401] * 5 + [429] * 2
    assert neighbour.status == 401


async def test_rubbish_in_forwarded_for_is_no_500(serving):
    browser = await serving(**BEHIND_A_PROXY)

    for rubbish in (",", "x" * 5000, "::::", "[", "1.2.3.4:", "%", "999.1.1.1", "[::1", "\xe9\xe9"):
        assert (await wrong(browser, f"{len(rubbish)}@example.org", seen_from(rubbish))).status in (401, 429)


async def test_new_accounts_are_limited_by_address(shipped):
    statuses = [(await shipped.register(f"new{n}@example.org", headers=TOKENS)).status for n in range(12)]

    assert statuses == [201] * 10 + [429] * 2


async def test_a_refused_refresh_clears_no_cookie(serving):
    browser = await serving(RATE_LIMITS="refresh=2/1m")
    await browser.register()
    for _ in range(2):
        assert (await browser("POST", "/api/auth/refresh")).status == 200
    held = browser.cookies()

    refused = await browser("POST", "/api/auth/refresh")

    assert refused.code == "RATE_LIMITED"
    assert "Set-Cookie" not in refused.headers
    assert browser.cookies() == held


async def test_refreshes_are_limited_by_session_and_not_by_address(serving):
    browser = await serving(RATE_LIMITS="refresh=1/1m")
    people = [(await browser.register(f"{n}@example.org", headers=TOKENS)).json for n in range(2)]

    statuses = []
    for signed in [*people, people[0]]:
        body = {"refreshToken": signed["refreshToken"]}
        statuses.append((await browser("POST", "/api/auth/refresh", body)).status)

    assert statuses == [200, 200, 429]


async def test_guessing_the_password_through_its_change_is_limited_too(shipped):
    await shipped.register()
    body = {"currentPassword": "not the password at all", "newPassword": PASSWORD + "!"}

    statuses = [(await shipped("POST", "/api/auth/password/change", body)).status for _ in range(7)]

    assert statuses == [401] * 5 + [429] * 2
    assert (await wrong(shipped)).status == 429  # and it is one limit with signing in


async def test_whoever_has_a_session_guesses_no_more_from_many_addresses_than_others(serving):
    browser = await serving(**{**BEHIND_A_PROXY, "RATE_LIMITS": "login-account=9/1h"})
    home = seen_from("192.0.2.200")
    stolen = bearer(await browser.register(headers=home))
    calls = [
        ("POST", "/api/auth/password/change", {"currentPassword": "not it at all", "newPassword": PASSWORD + "!"}),
        ("POST", "/api/auth/email/change", {"newEmail": "eve@example.org", "password": "not it at all"}),
        ("DELETE", "/api/auth/me", {"password": "not it at all"}),
    ]

    refused = [
        await browser(method, path, body, headers=stolen | seen_from(f"203.0.113.{n}"), csrf=None)
        for n, (method, path, body) in enumerate(calls * 4)
    ]

    assert [answer.status for answer in refused] == [401] * 9 + [429] * 3
    assert "RateLimit" not in refused[-1].headers
    # The owner is stopped neither at home, nor by strangers who try to sign in.
    change = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}
    assert (await browser("POST", "/api/auth/password/change", change, headers=stolen | home, csrf=None)).status == 204


async def test_who_tries_to_sign_in_keeps_nobody_who_is_signed_in_from_a_new_password(serving):
    browser = await serving(**{**BEHIND_A_PROXY, "RATE_LIMITS": "login-account=5/1h"})
    signed = bearer(await browser.register(headers=seen_from("192.0.2.200")))
    for n in range(6):
        stranger = await wrong(browser, headers=seen_from(f"203.0.113.{n}"))
    change = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}

    away = signed | seen_from("198.51.100.7")
    owner = await browser("POST", "/api/auth/password/change", change, headers=away, csrf=None)

    assert (stranger.status, owner.status) == (429, 204)
