"""Cookies: what every Set-Cookie of a whole journey looks like, and when there is none."""

from http.cookies import Morsel, SimpleCookie
from typing import Any

import pytest

from service.settings import SettingsError
from tests.conftest import PASSWORD, Answer, Browser, settings_for

TOKEN_MODE = {"X-Auth-Mode": "token"}
NEW = "another long and private sentence"
HTTPS = {"PUBLIC_URL": "https://auth.example.org", "CORS_ORIGINS": "https://app.example.org"}
DEPLOYMENTS: dict[str, tuple[dict[str, str], dict[str, str], dict[str, Any]]] = {
    # name: settings, names on the wire, attributes of all of them
    "http": (
        {},
        {"access": "accessToken", "refresh": "refreshToken", "csrf": "csrfToken", "browser": "browser"},
        {"secure": "", "samesite": "Lax", "domain": ""},
    ),
    "secure": (
        {"COOKIE_SECURE": "on"},
        {
            "access": "__Host-accessToken",
            "refresh": "__Secure-refreshToken",
            "csrf": "__Host-csrfToken",
            "browser": "__Host-browser",
        },
        {"secure": True, "samesite": "Lax", "domain": ""},
    ),
    "https": (
        HTTPS,
        {
            "access": "__Host-accessToken",
            "refresh": "__Secure-refreshToken",
            "csrf": "__Host-csrfToken",
            "browser": "__Host-browser",
        },
        {"secure": True, "samesite": "Lax", "domain": ""},
    ),
    "domain": (
        {**HTTPS, "COOKIE_DOMAIN": "example.org"},
        {
            "access": "__Secure-accessToken",
            "refresh": "__Secure-refreshToken",
            "csrf": "__Secure-csrfToken",
            "browser": "__Host-browser",
        },
        {"secure": True, "samesite": "Lax", "domain": "example.org"},
    ),
    "none": (
        {**HTTPS, "COOKIE_SAMESITE": "None"},
        {
            "access": "__Host-accessToken",
            "refresh": "__Secure-refreshToken",
            "csrf": "__Host-csrfToken",
            "browser": "__Host-browser",
        },
        {"secure": True, "samesite": "None", "domain": ""},
    ),
    "strict": (
        {"COOKIE_SAMESITE": "strict"},
        {"access": "accessToken", "refresh": "refreshToken", "csrf": "csrfToken", "browser": "browser"},
        {"secure": "", "samesite": "Strict", "domain": ""},
    ),
}


class StrictBrowser:
    """A jar that keeps the rules of RFC 6265bis for prefixes, paths and deletions, whatever the address."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.jar: dict[tuple[str, str, str], str] = {}  # name, domain, path
        self.seen: list[Morsel[str]] = []

    async def __call__(self, method: str, path: str, json: Any = None, **headers: str) -> Answer:
        sent = {name: value for (name, _, under), value in self.jar.items() if path.startswith(under)}
        csrf = next((value for name, value in sent.items() if name.endswith("csrfToken")), None)
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())} if sent else {}
        answer = await self.browser(method, path, json, headers={**cookie, **headers}, csrf=csrf)
        assert b'"rt_' not in answer.body
        for morsel in set_cookies(answer):
            self.take(morsel)
        return answer

    def take(self, morsel: Morsel[str]) -> None:
        assert not morsel.key.startswith("__Secure-") or morsel["secure"]
        if morsel.key.startswith("__Host-"):
            assert (morsel["secure"], morsel["path"], morsel["domain"]) == (True, "/", "")
        self.seen.append(morsel)
        place = (morsel.key, morsel["domain"], morsel["path"])
        if morsel["max-age"] == "0":
            assert place in self.jar, f"the deletion of {place} removes nothing"
            del self.jar[place]
        else:
            assert not [other for other in self.jar if other[0] == morsel.key and other != place]
            self.jar[place] = morsel.value

    @property
    def held(self) -> set[str]:
        return {name for name, _, _ in self.jar}


def set_cookies(answer: Answer) -> list[Morsel[str]]:
    found: list[Morsel[str]] = []
    for header in answer.headers.getall("Set-Cookie", ()):
        found += SimpleCookie(header).values()
    assert len({morsel.key for morsel in found}) == len(found), "a cookie is set twice in one answer"
    return found


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
async def test_every_cookie_of_a_journey_has_its_name_and_attributes(serving, deployment):
    changes, names, common = DEPLOYMENTS[deployment]
    person = StrictBrowser(await serving(**changes))
    signed_in = {names["access"], names["refresh"], names["csrf"]}
    refresh_lifetimes = set()

    assert (await person("GET", "/api/auth/csrf-token")).status == 200
    assert person.held == {names["csrf"], names["browser"]}
    credentials = {"email": "ada@example.org", "password": PASSWORD}
    registered = await person("POST", "/api/auth/register", credentials)
    assert person.held == signed_in
    assert (await person("GET", "/api/auth/me")).status == 200
    assert (await person("GET", "/api/auth/csrf-token")).status == 200
    for path in ("/api/auth/sessions", "/api/auth/verify", "/api/public", "/", "/health"):
        assert not set_cookies(await person("GET", path))
    refreshed = await person("POST", "/api/auth/refresh")
    assert refreshed.status == 200
    assert not set_cookies(await person("PATCH", "/api/users/profile", {"name": "Ada"}))
    assert (await person("POST", "/api/auth/login", credentials)).status == 200
    change = await person("POST", "/api/auth/password/change", {"currentPassword": PASSWORD, "newPassword": NEW})
    assert (change.status, set_cookies(change)) == (204, [])
    assert (await person("POST", "/api/auth/refresh")).status == 200
    assert person.held == signed_in
    assert (await person("POST", "/api/auth/logout")).status == 204
    assert person.held == set()
    assert (await person("POST", "/api/auth/login", {**credentials, "password": NEW})).status == 200
    assert (await person("POST", "/api/auth/logout-all")).status == 204
    assert person.held == set()
    assert (await person("POST", "/api/auth/login", {**credentials, "password": NEW})).status == 200
    (session,) = (await person("GET", "/api/auth/sessions")).json["items"]
    assert (await person("DELETE", f"/api/auth/sessions/{session['id']}")).status == 204
    assert person.held == set()

    for morsel in person.seen:
        # The browser's session before a sign-in never leaves this host, and must survive the way back from a provider.
        mine = {**common, "samesite": "Lax", "domain": ""} if morsel.key == names["browser"] else common
        assert {name: morsel[name] for name in mine} == mine, morsel
        assert morsel["path"] == ("/api/auth" if morsel.key == names["refresh"] else "/")
        assert bool(morsel["httponly"]) == (morsel.key != names["csrf"])
        if morsel.key == names["refresh"] and morsel.value:
            refresh_lifetimes.add(int(morsel["max-age"]))
            assert morsel.value.startswith("rt_")
    lifetimes = {registered.json["expiresIn"], refreshed.json["expiresIn"]}
    assert {int(m["max-age"]) for m in person.seen if m.key == names["access"] and m.value} >= lifetimes
    assert all(604_790 <= lifetime <= 604_800 for lifetime in refresh_lifetimes)


@pytest.mark.parametrize("odd", ["a=;", "a ;", '"', "=;=;", "accessToken;", "xaccessToken=y;"])
async def test_ours_are_found_among_odd_ones(browser, odd):
    await browser.register()
    sent = "; ".join(f"{name}={value}" for name, value in browser.cookies().items() if name != "refreshToken")

    for header in (f"{odd * 300};{sent}", f"{sent};{odd * 300}"):
        answer = await browser("GET", "/api/auth/me", headers={"Cookie": header})
        assert answer.status == 200


async def test_the_refresh_cookie_goes_nowhere_else(browser):
    signed = await browser.register()

    path = signed.cookies["refreshToken"]["path"]

    assert path == "/api/auth"
    assert signed.json["accessToken"] == signed.cookies["accessToken"].value
    assert signed.json["csrfToken"] == signed.cookies["csrfToken"].value


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"COOKIE_SAMESITE": "none"}, "set PUBLIC_URL to an https:// address, or COOKIE_SECURE=on"),
        ({"COOKIE_DOMAIN": "example.com", **HTTPS}, "COOKIE_DOMAIN=example.com does not cover the host"),
        ({"COOKIE_DOMAIN": "org", **HTTPS}, "COOKIE_DOMAIN=org does not cover the host"),
        ({"COOKIE_SAMESITE": "sometimes"}, "COOKIE_SAMESITE must be one of"),
    ],
)
def test_an_impossible_mix_stops_the_start_with_the_remedy(changes, remedy):
    with pytest.raises(SettingsError) as refusal:
        settings_for(**changes)

    assert remedy in str(refusal.value)


# When a refusal removes the cookies, and when it must not


GONE = {"accessToken": "0", "refreshToken": "0", "csrfToken": "0"}


def removed(answer: Answer) -> dict[str, str]:
    for morsel in set_cookies(answer):
        assert (morsel.value, morsel["samesite"], morsel["secure"]) == ("", "Lax", "")
        assert bool(morsel["httponly"]) == (morsel.key != "csrfToken")
        assert morsel["path"] == ("/api/auth" if morsel.key == "refreshToken" else "/")
    return {morsel.key: morsel["max-age"] for morsel in set_cookies(answer)}


async def test_a_refresh_whose_session_is_over_removes_the_cookies(serving, browser):
    signed = await browser.register()
    elsewhere = await serving(at=browser)
    await elsewhere("POST", "/api/auth/logout", headers={"Authorization": f"Bearer {signed.json['accessToken']}"})

    answer = await browser("POST", "/api/auth/refresh")

    assert (answer.status, answer.code, answer.json["reason"]) == (401, "SESSION_ENDED", "logout")
    assert removed(answer) == GONE
    assert browser.cookies() == {}


async def test_a_refresh_token_that_was_used_before_removes_the_cookies(serving, browser, later):
    await browser.register()
    thief = await serving(at=browser)
    stolen = {
        "Cookie": f"refreshToken={browser.cookies()['refreshToken']}",
        "X-CSRF-Token": browser.cookies()["csrfToken"],
    }
    await browser("POST", "/api/auth/refresh")
    await later("11s")
    await browser("POST", "/api/auth/refresh")

    answer = await thief("POST", "/api/auth/refresh", headers=stolen)

    assert (answer.status, answer.code) == (401, "REFRESH_TOKEN_REUSED")
    assert removed(answer) == GONE
    victim = await browser("POST", "/api/auth/refresh")
    assert (victim.code, victim.json["reason"]) == ("SESSION_ENDED", "reuse")
    assert browser.cookies() == {}


async def test_a_refresh_that_comes_too_late_removes_the_cookies(serving, later):
    browser = await serving(JWT_REFRESH_EXPIRY="1m")
    await browser.register()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies().items())
    csrf = browser.cookies()["csrfToken"]
    await later("61s")

    answer = await browser("POST", "/api/auth/refresh", headers={"Cookie": cookies, "X-CSRF-Token": csrf})

    assert (answer.code, answer.json["reason"]) == ("SESSION_ENDED", "expired")
    assert removed(answer) == GONE


@pytest.mark.parametrize(
    ("cookie", "code"),
    [
        ("accessToken=x", "NO_REFRESH_TOKEN"),
        ("refreshToken=", "NO_REFRESH_TOKEN"),
        ("refreshToken=x", "INVALID_REFRESH_TOKEN"),
        ("refreshToken=rt_" + "A" * 72, "INVALID_REFRESH_TOKEN"),
        ("refreshToken=rt_%00", "INVALID_REFRESH_TOKEN"),
        ("refreshToken=" + "x" * 5000, "INVALID_REFRESH_TOKEN"),
    ],
)
async def test_a_refresh_cookie_that_is_none_is_removed(browser, cookie, code):
    answer = await browser("POST", "/api/auth/refresh", headers={"Cookie": cookie})

    assert (answer.status, answer.code) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert removed(answer) == GONE


async def test_a_refused_token_in_the_body_removes_no_cookie(browser):
    await browser.register()
    kept = browser.cookies()

    for token in ("x", "rt_" + "A" * 72, ""):
        answer = await browser("POST", "/api/auth/refresh", {"refreshToken": token})
        assert (answer.status, answer.code) == (401, "INVALID_REFRESH_TOKEN")
        assert not set_cookies(answer)
    assert browser.cookies() == kept


async def test_a_limit_removes_no_cookie(serving):
    browser = await serving(RATE_LIMITS="refresh=1/1m")
    await browser.register()
    assert (await browser("POST", "/api/auth/refresh")).status == 200
    kept = browser.cookies()

    answer = await browser("POST", "/api/auth/refresh")

    assert (answer.status, answer.code) == (429, "RATE_LIMITED")
    assert not set_cookies(answer)
    assert browser.cookies() == kept


async def test_an_outage_removes_no_cookie(browser, without_redis):
    await browser.register()
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies().items())}
    csrf = {"X-CSRF-Token": browser.cookies()["csrfToken"]}

    for method, path in (
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/logout"),
        ("POST", "/api/auth/logout-all"),
        ("GET", "/api/auth/me"),
        ("GET", "/api/auth/verify"),
    ):
        answer = await without_redis(method, path, headers={**cookies, **csrf})
        assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE"), path
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["retryAfter"] == 1
        assert not set_cookies(answer)


async def test_a_refusal_of_anything_else_removes_no_cookie(browser):
    await browser.register()
    kept = browser.cookies()
    answers = [
        await browser("POST", "/api/auth/refresh", csrf="wrong"),
        await browser("POST", "/api/auth/refresh", headers={"Origin": "https://evil.example"}),
        await browser("POST", "/api/auth/refresh", {"unknown": 1}),
        await browser("POST", "/api/auth/refresh", data=b"{", headers={"Content-Type": "application/json"}),
        await browser("POST", "/api/auth/refresh", data=b"x", headers={"Content-Type": "text/plain"}),
        await browser("POST", "/api/auth/logout", csrf="wrong"),
        await browser("GET", "/api/auth/me", headers={"Authorization": "Bearer x"}),
        await browser("GET", "/api/admin"),
        await browser.login(password="wrong"),
        await browser.register(),
    ]

    assert [answer.status for answer in answers] == [403, 403, 400, 400, 415, 403, 401, 403, 401, 409]
    assert not [answer for answer in answers if set_cookies(answer)]
    assert browser.cookies() == kept


# The two deliveries


async def test_the_refresh_token_is_never_in_the_body_in_cookie_mode(browser):
    answers = [
        await browser.register(),
        await browser.login(),
        await browser.login(headers={"X-Auth-Mode": "cookie"}),
        await browser("POST", "/api/auth/refresh"),
        await browser("POST", "/api/auth/refresh", {}),
        await browser("POST", "/api/auth/refresh", {"refreshToken": None}),
        await browser("POST", "/api/auth/refresh", headers=TOKEN_MODE),
        await browser("GET", "/api/auth/sessions"),
        await browser("GET", "/api/auth/me"),
    ]

    for answer in answers:
        assert answer.status in (200, 201)
        assert b'"rt_' not in answer.body
        assert b"refresh" not in answer.body
    for answer in answers[:7]:
        assert set(answer.cookies) == {"accessToken", "refreshToken", "csrfToken"}


async def test_token_mode_sets_no_cookie_ever(serving, browser):
    await browser.register()
    app = await serving(at=browser)
    answers = [await app.register("eve@example.org", headers=TOKEN_MODE)]
    answers.append(signed := await app.login("eve@example.org", headers=TOKEN_MODE))
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    refresh = {"refreshToken": signed.json["refreshToken"]}
    answers += [
        await app("GET", "/api/auth/me", headers=bearer),
        await app("GET", "/api/auth/verify", headers=bearer),
        await app("PATCH", "/api/users/profile", {"name": "Eve"}, headers=bearer),
        await app("POST", "/api/auth/refresh", refresh),
        await app("POST", "/api/auth/refresh", {"refreshToken": "x"}),
        await app("POST", "/api/auth/logout", refresh),
        await app("POST", "/api/auth/refresh", refresh),
        await app("POST", "/api/auth/logout-all", headers=bearer),
    ]

    assert [answer.status for answer in answers] == [201, 200, 200, 200, 200, 200, 401, 204, 401, 401]
    assert not [answer for answer in answers if set_cookies(answer)]


async def test_token_mode_leaves_the_cookies_of_the_browser_alone(browser):
    await browser.register()
    kept = browser.cookies()

    signed = await browser.login(headers=TOKEN_MODE)

    assert not set_cookies(signed)
    assert browser.cookies() == kept
    assert (await browser("GET", "/api/auth/me")).status == 200


@pytest.mark.parametrize("mode", ["cookie", "token", "whatever"])
async def test_a_refresh_token_goes_back_the_way_it_came(browser, mode):
    in_body = (await browser.register("ada@example.org", headers=TOKEN_MODE)).json["refreshToken"]
    await browser.register("eve@example.org")
    cookies = browser.cookies()

    by_body = await browser("POST", "/api/auth/refresh", {"refreshToken": in_body}, headers={"X-Auth-Mode": mode})
    by_cookie = await browser("POST", "/api/auth/refresh", headers={"X-Auth-Mode": mode})

    assert set(by_body.json) == {
        "accessToken", "tokenType", "expiresIn", "csrfToken", "refreshToken", "refreshExpiresIn",
    }  # fmt: skip
    assert not set_cookies(by_body)
    assert set(by_cookie.json) == {"accessToken", "tokenType", "expiresIn", "csrfToken"}
    assert {morsel.key for morsel in set_cookies(by_cookie)} == {"accessToken", "refreshToken", "csrfToken"}
    assert browser.cookies()["refreshToken"] != cookies["refreshToken"]
    me = await browser("GET", "/api/auth/me", headers={"Authorization": f"Bearer {by_body.json['accessToken']}"})
    assert me.json["user"]["email"] == "ada@example.org"


@pytest.mark.parametrize("mode", ["Token", "TOKEN", "", "body", "cookie, token"])
async def test_a_delivery_that_is_none_is_refused_before_anything_happens(browser, mode):
    answer = await browser.register(headers={"X-Auth-Mode": mode})

    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert answer.json["errors"] == [{"field": "X-Auth-Mode", "message": "must be cookie or token"}]
    assert (await browser.register()).status == 201
