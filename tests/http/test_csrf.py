"""Cross-site request forgery: what another site makes a browser send is refused, and nothing has happened."""

import asyncio
import re
from typing import Any

import pytest

from service.parts import Parts
from tests.conftest import PASSWORD, Answer, Browser, all_that_is_in

TOKEN_MODE = {"X-Auth-Mode": "token"}
CHANGED = "another long and private sentence"
OURS = "http://localhost:8000"
FRONTEND = "http://localhost:5173"

EVIL = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:5173.evil.example"},
    {"Origin": "http://localhost.evil.example:5173"},
    {"Origin": "http://evillocalhost:5173"},
    {"Origin": "http://sub.localhost:5173"},
    {"Origin": "http://sibling.localhost:8000"},
    {"Origin": "http://localhost:51730"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost:5173"},
    {"Origin": "http://localhost:5173/"},
    {"Origin": "HTTP://LOCALHOST:5173"},
    {"Origin": "http://localhost:5173@evil.example"},
    {"Origin": f"{FRONTEND}, https://evil.example"},
    {"Origin": f"{FRONTEND} https://evil.example"},
    {"Origin": "file://"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://evil.example", "Referer": f"{FRONTEND}/", "Host": "evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
]
ALLOWED = [
    {},
    {"Origin": OURS},
    {"Origin": FRONTEND},
    {"Origin": FRONTEND, "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]

LOGIN = ("POST", "/api/auth/login", {"email": "ada@example.org", "password": PASSWORD})
REGISTER = ("POST", "/api/auth/register", {"email": "new@example.org", "password": PASSWORD})
REFRESH = ("POST", "/api/auth/refresh", None)
LOGOUT = ("POST", "/api/auth/logout", None)
LOGOUT_ALL = ("POST", "/api/auth/logout-all", None)
CHANGE = ("POST", "/api/auth/password/change", {"currentPassword": PASSWORD, "newPassword": CHANGED})
PROFILE = ("PATCH", "/api/users/profile", {"firstName": "Eve"})
END_SESSION = ("DELETE", "/api/auth/sessions/{sid}", None)
ALL = [LOGIN, REGISTER, REFRESH, LOGOUT, LOGOUT_ALL, CHANGE, PROFILE, END_SESSION]
BY_COOKIE = [REFRESH, LOGOUT, LOGOUT_ALL, CHANGE, PROFILE, END_SESSION]


def named(routes: list[Any]) -> Any:
    return [pytest.param(route, id=f"{route[0]} {route[1]}") for route in routes]


async def snapshot(redis: Any) -> dict[str, Any]:
    """All that Redis holds once the post has done its errands, but for limits, which may count a refused request."""
    while await redis.xlen("outbox"):
        await asyncio.sleep(0.01)
    kept = await all_that_is_in(redis)
    return {key: what for key, what in kept.items() if key != "outbox" and not key.startswith("limit:")}


class Victim:
    """Somebody signed in by cookie, whose state we can compare."""

    def __init__(self, browser: Browser, redis: Any, sid: str, csrf: str) -> None:
        self.browser, self.redis, self.sid, self.csrf = browser, redis, sid, csrf

    async def send(self, route: tuple[str, str, Any], **kwargs: Any) -> Answer:
        method, path, body = route
        return await self.browser(method, path.format(sid=self.sid), body, **kwargs)

    async def is_untouched_by(self, route: tuple[str, str, Any], code: str, **kwargs: Any) -> None:
        before, cookies = await snapshot(self.redis), self.browser.cookies()
        answer = await self.send(route, **kwargs)
        assert (answer.status, answer.code) == (403, code), (route, kwargs)
        assert "Set-Cookie" not in answer.headers
        assert await snapshot(self.redis) == before
        assert self.browser.cookies() == cookies


@pytest.fixture
async def victim(browser, connecting):
    signed = await browser.register()
    redis = connecting()
    sid = (await browser("GET", "/api/auth/sessions")).json["items"][0]["id"]
    yield Victim(browser, redis, sid, signed.json["csrfToken"])
    await redis.aclose()


@pytest.mark.parametrize("route", named(ALL))
async def test_another_site_changes_nothing_even_with_the_token(victim, route):
    for headers in EVIL:
        await victim.is_untouched_by(route, "ORIGIN_FORBIDDEN", headers=headers)


@pytest.mark.parametrize("route", named(ALL))
async def test_another_site_changes_nothing_for_a_bearer_either(victim, serving, route):
    signed = await (await serving(at=victim.browser)).login(headers=TOKEN_MODE)
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}

    await victim.is_untouched_by(route, "ORIGIN_FORBIDDEN", headers={**bearer, "Origin": "https://evil.example"})


@pytest.mark.parametrize("route", named(BY_COOKIE))
async def test_a_cookie_alone_changes_nothing(victim, serving, route):
    other = await (await serving(at=victim.browser)).register("eve@example.org")
    mac = victim.csrf
    wrong = [
        None,
        "",
        other.json["csrfToken"],
        mac[:-1],
        mac[:-4],
        mac + "AAAA",
        mac.swapcase(),
        mac[::-1],
        "A" * 24,
        "undefined",
        "null",
        mac + ", " + mac,
        f'"{mac}"',
        "ü" * 24,
        "A" * 4000,
    ]

    for csrf in wrong:
        await victim.is_untouched_by(route, "CSRF_FAILED", csrf=csrf)


@pytest.mark.parametrize("route", named(BY_COOKIE))
async def test_a_token_beside_the_header_does_not_count(victim, route):
    method, path, body = route

    await victim.is_untouched_by((method, f"{path}?csrfToken={victim.csrf}", body), "CSRF_FAILED", csrf=None)
    for name in ("csrf-token", "X-XSRF-TOKEN", "X_CSRF_Token"):
        await victim.is_untouched_by(route, "CSRF_FAILED", csrf=None, headers={name: victim.csrf})


@pytest.mark.parametrize("route", named(BY_COOKIE))
async def test_a_planted_cookie_with_the_attackers_own_token_does_not_count(victim, serving, route):
    """Double submit alone would fall for this: the cookie and the header agree."""
    planted = (await (await serving(at=victim.browser)).register("eve@example.org")).json["csrfToken"]
    cookies = victim.browser.cookies() | {"csrfToken": planted}
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "X-CSRF-Token": planted}
    stranger = await serving(at=victim.browser)
    before = await snapshot(victim.redis)

    method, path, body = route
    answer = await stranger(method, path.format(sid=victim.sid), body, headers=headers, csrf=None)

    assert (answer.status, answer.code) == (403, "CSRF_FAILED")
    assert await snapshot(victim.redis) == before


@pytest.mark.parametrize("headers", ALLOWED, ids=str)
@pytest.mark.parametrize("route", named(ALL))
async def test_our_own_page_and_the_allowed_origins_may(victim, route, headers):
    answer = await victim.send(route, headers=headers)

    assert answer.status in (200, 201, 204)


@pytest.mark.parametrize("route", named([LOGIN, REGISTER]))
async def test_signing_in_needs_no_csrf_token(victim, serving, route):
    stranger = await serving(at=victim.browser)

    answer = await stranger(*route)

    assert answer.status in (200, 201)


@pytest.mark.parametrize("route", named([LOGOUT, LOGOUT_ALL, CHANGE, PROFILE, END_SESSION]))
async def test_a_bearer_needs_no_csrf_token(victim, serving, route):
    stranger = await serving(at=victim.browser)
    signed = await stranger.login(headers=TOKEN_MODE)

    method, path, body = route
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    answer = await stranger(method, path.format(sid=victim.sid), body, headers=bearer)

    assert answer.status in (200, 204)


@pytest.mark.parametrize("route", named([REFRESH, LOGOUT]))
async def test_a_token_in_the_body_needs_no_csrf_token(browser, route):
    signed = await browser.register(headers=TOKEN_MODE)

    answer = await browser(route[0], route[1], {"refreshToken": signed.json["refreshToken"]})

    assert answer.status in (200, 204)


async def test_the_token_of_the_session_before_the_last_sign_in_does_not_count(browser):
    old = (await browser.register()).json["csrfToken"]
    await browser.login()

    assert (await browser(*PROFILE, csrf=old)).code == "CSRF_FAILED"
    assert (await browser(*PROFILE)).status == 200


async def test_the_token_survives_a_refresh(browser):
    first = (await browser.register()).json["csrfToken"]
    refreshed = await browser(*REFRESH)

    assert refreshed.json["csrfToken"] == first == browser.cookies()["csrfToken"]
    assert (await browser(*PROFILE, csrf=first)).status == 200


async def test_safe_methods_need_no_token_whoever_sends_them(victim):
    for headers in EVIL:
        for path in ("/api/auth/me", "/api/auth/verify", "/api/auth/sessions", "/api/users/profile"):
            assert (await victim.browser("GET", path, headers=headers, csrf=None)).status == 200
        assert (await victim.browser("HEAD", "/api/auth/me", headers=headers, csrf=None)).status == 200


async def test_no_get_changes_anything(victim):
    its_routes = (await victim.browser("GET", "/")).json["endpoints"]
    before = await snapshot(victim.redis)

    for path in {endpoint.split()[1] for endpoint in its_routes}:
        for method in ("GET", "HEAD"):
            await victim.browser(method, re.sub(r"{\w+}", victim.sid, path), csrf=None)

    assert await snapshot(victim.redis) == before


async def test_an_origin_of_the_configuration_may_and_no_other(serving):
    browser = await serving(PUBLIC_URL="http://auth.example.org", CORS_ORIGINS="https://app.example.org")

    for origin in ("http://auth.example.org", "https://app.example.org"):
        assert (await browser.login(headers={"Origin": origin})).code == "INVALID_CREDENTIALS"
    for origin in ("https://auth.example.org", "http://app.example.org", "https://example.org", FRONTEND,
                   "https://evil.app.example.org", "https://app.example.org.evil",
                   "http://localhost:8000"):  # fmt: skip
        assert (await browser.login(headers={"Origin": origin})).code == "ORIGIN_FORBIDDEN"


async def test_in_production_a_loopback_address_is_not_our_own(serving):
    live = {"ENVIRONMENT": "production", "REDIS_URL": "redis://localhost", "PUBLIC_URL": "http://localhost:8000"}
    browser = await serving(**live, CORS_ORIGINS="https://app.example.org")

    assert (await browser.login(headers={"Origin": "http://localhost:8000"})).code == "INVALID_CREDENTIALS"
    assert (await browser.login(headers={"Origin": "http://127.0.0.1:8000"})).code == "ORIGIN_FORBIDDEN"


# GET /api/auth/csrf-token


async def csrf_of(browser: Browser, **kwargs: Any) -> Answer:
    answer = await browser("GET", "/api/auth/csrf-token", csrf=None, **kwargs)
    assert answer.status == 200
    assert set(answer.json) == {"csrfToken"}
    return answer


async def test_the_token_can_be_asked_for_while_signed_in(browser):
    signed = await browser.register()

    answer = await csrf_of(browser)

    assert answer.json["csrfToken"] == signed.json["csrfToken"] == answer.cookies["csrfToken"].value
    assert set(answer.cookies) == {"csrfToken"}
    assert (await browser(*PROFILE, csrf=answer.json["csrfToken"])).status == 200


async def test_the_token_can_be_asked_for_with_the_refresh_cookie_alone(serving, browser):
    signed = await browser.register()
    only = {"Cookie": f"refreshToken={browser.cookies()['refreshToken']}"}
    stranger = await serving(at=browser)

    answer = await csrf_of(stranger, headers=only)

    assert answer.json["csrfToken"] == signed.json["csrfToken"]
    with_it = {**only, "X-CSRF-Token": answer.json["csrfToken"]}
    assert (await stranger(*REFRESH, headers=with_it, csrf=None)).status == 200


async def test_a_visitor_gets_a_token_of_a_browser_session(browser, connecting):
    first, second = await csrf_of(browser), await csrf_of(browser)

    assert first.json == second.json
    morsel = first.cookies["browser"]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["max-age"]) == (True, "Lax", "/", "600")
    assert len(morsel.value) >= 43  # 256 bits
    redis = connecting()
    keys = [key async for key in redis.scan_iter("browser:*")]
    assert len(keys) == 1
    assert morsel.value not in keys[0] + await redis.get(keys[0])
    assert 0 < await redis.ttl(keys[0]) <= 600
    await redis.aclose()


async def test_two_visitors_get_two_tokens(serving, browser):
    stranger = await serving(at=browser)

    assert (await csrf_of(browser)).json != (await csrf_of(stranger)).json


@pytest.mark.parametrize(
    "cookie", ["accessToken=x", "refreshToken=rt_x", "browser=x", "browser=", "browser=" + "ü" * 99]
)
async def test_a_cookie_that_says_nothing_makes_a_visitor(browser, cookie):
    answer = await csrf_of(browser, headers={"Cookie": cookie})

    assert {"browser", "csrfToken"} <= set(answer.cookies)
    assert answer.cookies["browser"].value != cookie.partition("=")[2]  # nobody chooses the name of a session


@pytest.mark.parametrize("sign_in", ["register", "login"])
async def test_the_session_of_a_visitor_ends_with_the_sign_in(serving, browser, connecting, sign_in):
    await (await serving(at=browser)).register("ada@example.org")
    visitor = (await csrf_of(browser)).json["csrfToken"]
    planted = browser.cookies()["browser"]

    signed = await (browser.login() if sign_in == "login" else browser.register("eve@example.org"))

    gone = signed.cookies["browser"]
    assert (gone.value, gone["max-age"], gone["path"], gone["httponly"], gone["samesite"]) == (
        "",
        "0",
        "/",
        True,
        "Lax",
    )
    assert "browser" not in browser.cookies()
    assert signed.json["csrfToken"] != visitor
    assert (await browser(*PROFILE, csrf=visitor)).code == "CSRF_FAILED"
    redis = connecting()
    assert not [key async for key in redis.scan_iter("browser:*")]
    await redis.aclose()
    stranger = await serving(at=browser)
    again = await csrf_of(stranger, headers={"Cookie": f"browser={planted}"})
    assert again.json["csrfToken"] != visitor


async def test_an_attackers_session_planted_before_the_sign_in_does_not_become_the_victims(serving, parts: Parts):
    attacker = await serving(parts)
    await attacker.register("eve@example.org")
    planted = "; ".join(f"{name}={value}" for name, value in attacker.cookies().items())
    victim = await serving(at=attacker)

    signed = await victim.register("ada@example.org", headers={"Cookie": planted})

    assert signed.cookies["refreshToken"].value != attacker.cookies()["refreshToken"]
    assert (await attacker("GET", "/api/auth/me")).status == 401
    assert (await victim("GET", "/api/auth/me")).json["user"]["email"] == "ada@example.org"
