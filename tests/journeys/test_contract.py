"""Every endpoint of `docs/` that clients rely on: its answers, their exact shapes, and its refusals."""

import re

import pytest

from service import __version__
from service.app import assemble
from service.store import reach
from tests.conftest import PASSWORD, Answer, Browser, cheap_passwords, settings_for

TOKEN_MODE = {"X-Auth-Mode": "token"}
USER = {"id", "email", "emailVerified", "firstName", "lastName", "name", "picture", "roles", "permissions", "provider",
        "identities", "active", "createdAt", "updatedAt", "lastLoginAt"}  # fmt: skip
SIGNED_IN = {"user", "accessToken", "tokenType", "expiresIn", "csrfToken"}
SESSION = {"id", "current", "device", "ip", "userAgent", "createdAt", "lastUsedAt", "expiresAt"}
PROBLEM = {"type", "title", "status", "detail", "code", "requestId"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID = re.compile(r"[A-Za-z0-9_-]{22}")
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"


def bearer(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['accessToken']}"}


def is_problem(answer: Answer, status: int, code: str, *more: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer
    assert set(answer.json) == PROBLEM | set(more)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def is_user(user: dict) -> None:
    assert set(user) == USER
    assert ID.fullmatch(user["id"])
    assert all(MOMENT.fullmatch(user[name]) for name in ("createdAt", "updatedAt", "lastLoginAt"))


async def test_register_answers_201_with_the_user_and_the_tokens(browser):
    names = {"firstName": "Ada", "lastName": "Lovelace"}
    answer = await browser("POST", "/api/auth/register", {"email": "Ada@Example.ORG", "password": PASSWORD, **names})

    assert answer.status == 201
    assert set(answer.json) == SIGNED_IN
    assert (answer.json["tokenType"], 855 <= answer.json["expiresIn"] <= 900) == ("Bearer", True)
    user = answer.json["user"]
    is_user(user)
    assert {name: user[name] for name in USER - {"id", "createdAt", "updatedAt", "lastLoginAt"}} == {
        "email": "ada@example.org",
        "emailVerified": False,
        **names,
        "name": "Ada Lovelace",
        "picture": None,
        "roles": ["user"],
        "permissions": ["profile:read", "profile:write"],
        "provider": "local",
        "identities": [],
        "active": True,
    }
    same = (await browser("GET", "/api/auth/me")).json["user"]
    assert {**same, "lastLoginAt": None} == {**user, "lastLoginAt": None}


async def test_register_refuses_an_email_that_is_taken_in_any_spelling(browser):
    await browser.register("ada@example.org")

    for same in ("ada@example.org", "ADA@example.org", "ada@EXAMPLE.org.", "\uff41da@example.org"):
        is_problem(await browser.register(same, headers=TOKEN_MODE), 409, "EMAIL_EXISTS")
    await browser.register("jürgen@bücher.example")
    is_problem(await browser.register("jürgen@xn--bcher-kva.example", headers=TOKEN_MODE), 409, "EMAIL_EXISTS")
    assert (await browser.register("ada+list@example.org", headers=TOKEN_MODE)).status == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "ada@example.org"}, "password"),
        ({"password": PASSWORD}, "email"),
        ({"email": "ada", "password": PASSWORD}, "email"),
        ({"email": "ada@example.org", "password": "short"}, "password"),
        ({"email": "ada@example.org", "password": "x" * 1025}, "password"),
        ({"email": "ada@example.org", "password": "password123"}, "password"),
        ({"email": "ada@example.org", "password": "ada@example.org"}, "password"),
        ({"email": "ada@example.org", "password": "lovelace1", "lastName": "Lovelace"}, "password"),
        ({"email": "ada@example.org", "password": PASSWORD, "name": ""}, "name"),
        ({"email": "ada@example.org", "password": PASSWORD, "name": "x" * 101}, "name"),
        ({"email": "ada@example.org", "password": PASSWORD, "firstName": "a\nb"}, "firstName"),
        ({"email": "ada@example.org", "password": PASSWORD, "role": "admin"}, "role"),
        ({"email": "ada@example.org", "password": PASSWORD, "roles": ["admin"]}, "roles"),
        ({"email": "ada@example.org", "password": PASSWORD, "active": True}, "active"),
        ({"email": "ada@example.org", "password": PASSWORD, "emailVerified": True}, "emailVerified"),
        ({"email": "ada@example.org", "password": PASSWORD, "id": "A" * 22}, "id"),
        ({"email": "ada@example.org", "password": PASSWORD, "permissions": ["users:read"]}, "permissions"),
        ({"email": "ada@example.org", "password": PASSWORD, "first_name": "Ada"}, "first_name"),
    ],
)
async def test_register_names_the_field_it_refuses_and_makes_nothing(browser, body, field):
    answer = await browser("POST", "/api/auth/register", body)

    is_problem(answer, 400, "VALIDATION_ERROR", "errors")
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert "Set-Cookie" not in answer.headers
    assert (await browser.login()).code == "INVALID_CREDENTIALS"


async def test_login_answers_with_the_user_and_the_tokens(browser):
    registered = await browser.register()

    answer = await browser.login("ADA@example.org")

    assert answer.status == 200
    assert set(answer.json) == SIGNED_IN
    is_user(answer.json["user"])
    assert answer.json["user"]["id"] == registered.json["user"]["id"]
    assert answer.json["user"]["lastLoginAt"] >= registered.json["user"]["lastLoginAt"]


async def test_login_says_the_same_of_an_unknown_email_a_wrong_password_and_a_disabled_account(browser, parts):
    await browser.register("ada@example.org", headers=TOKEN_MODE)
    disabled = await browser.register("off@example.org", headers=TOKEN_MODE)
    await parts.users.change(disabled.json["user"]["id"], off="1")

    answers = [
        await browser.login("nobody@example.org", "wrong"),
        await browser.login("ada@example.org", "wrong"),
        await browser.login("off@example.org", "wrong"),
        await browser.login("ada@example.org", PASSWORD + " "),
        await browser.login("ada@example.org", ""),
        await browser.login("ada@example.org", "x" * 2000),
    ]

    told = []
    for answer in answers:
        is_problem(answer, 401, "INVALID_CREDENTIALS")
        same = {name: value for name, value in answer.json.items() if name != "requestId"}
        varying = ("x-request-id", "date", "ratelimit")
        told.append((same, {name: value for name, value in answer.headers.items() if name.lower() not in varying}))
    for one in told:
        assert one == told[0]


async def test_a_disabled_account_is_told_so_after_a_right_password_only(browser, parts):
    registered = await browser.register()
    await parts.users.change(registered.json["user"]["id"], off="1")

    is_problem(await browser.login(), 403, "ACCOUNT_DISABLED")
    is_problem(await browser.login(password="wrong"), 401, "INVALID_CREDENTIALS")
    refreshed = await browser("POST", "/api/auth/refresh")
    is_problem(refreshed, 401, "SESSION_ENDED", "reason")
    assert refreshed.json["reason"] == "account_disabled"
    assert browser.cookies() == {}
    is_problem(await browser("GET", "/api/auth/me", headers=bearer(registered)), 401, "TOKEN_REVOKED")

    await parts.users.change(registered.json["user"]["id"], off=None)
    assert (await browser.login()).status == 200


async def test_refresh_answers_with_tokens_and_no_user(browser):
    await browser.register()

    answer = await browser("POST", "/api/auth/refresh")

    assert answer.status == 200
    assert set(answer.json) == SIGNED_IN - {"user"}


async def test_me_and_profile_are_the_same_user(browser):
    await browser.register()
    user = (await browser("GET", "/api/auth/me")).json["user"]

    for path in ("/api/auth/me", "/api/users/profile", f"/api/users/{user['id']}"):
        answer = await browser("GET", path)
        assert (answer.status, answer.json) == (200, {"user": user})


async def test_what_is_for_users_is_for_nobody_else(browser):
    routes = [("POST", "/api/auth/logout-all"), ("GET", "/api/auth/me"), ("GET", "/api/auth/verify"),
              ("GET", "/api/auth/sessions"), ("DELETE", "/api/auth/sessions/x"), ("POST", "/api/auth/password/change"),
              ("GET", "/api/users/profile"), ("PATCH", "/api/users/profile"), ("GET", "/api/users/x")]  # fmt: skip
    for method, path in routes:
        is_problem(await browser(method, path), 401, "NO_TOKEN")
        broken = {"Authorization": "Bearer broken"}
        is_problem(await browser(method, path, headers=broken), 401, "INVALID_TOKEN")


async def test_every_route_says_who_may_call_it(browser):
    """A route without a guard would be an open door."""
    for route in browser.client.server.app.router.routes():
        if route.method != "OPTIONS":
            assert hasattr(route.handler, "access"), route


# Profile


async def test_a_profile_changes_by_field_and_null_empties(browser):
    await browser.register()
    everything = {
        "firstName": "Ada",
        "lastName": "King",
        "name": "The Countess",
        "picture": "https://example.org/a.png",
    }

    changed = await browser("PATCH", "/api/users/profile", everything)
    assert changed.status == 200
    assert set(changed.json) == {"user"}
    is_user(changed.json["user"])
    assert {name: changed.json["user"][name] for name in everything} == everything

    partly = (await browser("PATCH", "/api/users/profile", {"lastName": "Lovelace"})).json["user"]
    assert {name: partly[name] for name in everything} == {**everything, "lastName": "Lovelace"}

    emptied = (await browser("PATCH", "/api/users/profile", {"name": None, "picture": None})).json["user"]
    assert (emptied["name"], emptied["picture"], emptied["firstName"]) == ("Ada Lovelace", None, "Ada")

    nothing = await browser("PATCH", "/api/users/profile", {})
    assert nothing.json["user"] == emptied
    assert (await browser("GET", "/api/auth/me")).json["user"] == emptied


@pytest.mark.parametrize(
    "name", ["Ἀριστοτέλης", "李小龍", "O'Brien-Smith", "Zoë", "عمر", "x" * 100, "<b>Ada</b>", "a  b"]
)
async def test_a_name_may_be_any_that_people_have(browser, name):
    await browser.register()

    answer = await browser("PATCH", "/api/users/profile", {"firstName": name})

    assert (answer.status, answer.json["user"]["firstName"]) == (200, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "A" * 22), ("email", "eve@example.org"), ("role", "admin"), ("roles", ["admin"]), ("active", True),
        ("emailVerified", True), ("permissions", ["users:read"]), ("provider", "google"), ("identities", []),
        ("password", PASSWORD), ("pw", "x"), ("off", "1"), ("createdAt", "2020-01-01T00:00:00Z"), ("first_name", "Ada"),
        ("name", ""), ("name", "   "), ("name", "x" * 101), ("name", 1), ("name", ["Ada"]), ("name", "a\tb"),
        ("firstName", "a\u202eb"), ("lastName", "a\0"), ("picture", ""), ("picture", "javascript:alert(1)"),
        ("picture", "data:image/png;base64,AAAA"), ("picture", "//example.org/a.png"), ("picture", "example.org"),
        ("picture", "https://"), ("picture", "https://["), ("picture", "https://example.org/a b\n"),
        ("picture", "https://example.org/" + "a" * 2048), ("picture", {}), ("picture", "ftp://example.org/a.png"),
    ],
)  # fmt: skip
async def test_a_profile_has_no_other_fields_and_no_other_values(browser, field, value):
    await browser.register()
    user = (await browser("GET", "/api/auth/me")).json["user"]

    answer = await browser("PATCH", "/api/users/profile", {"lastName": "Changed", field: value})

    is_problem(answer, 400, "VALIDATION_ERROR", "errors")
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert (await browser("GET", "/api/auth/me")).json["user"] == user


async def test_other_users_are_seen_by_those_who_may_read_them(browser, serving, parts):
    await browser.register("ada@example.org")
    ada = (await browser("GET", "/api/auth/me")).json["user"]
    eve = await serving(at=browser)
    signed = await eve.register("eve@example.org")
    nobody = "A" * 22

    hidden = await eve("GET", f"/api/users/{ada['id']}")
    missing = await eve("GET", f"/api/users/{nobody}")
    is_problem(hidden, 403, "FORBIDDEN", "required")
    assert hidden.json["required"] == missing.json["required"] == ["users:read"]
    assert (missing.status, missing.json["detail"]) == (hidden.status, hidden.json["detail"])

    await parts.users.change(signed.json["user"]["id"], roles="user admin")
    await eve.login("eve@example.org")
    found = await eve("GET", f"/api/users/{ada['id']}")
    assert found.json == {"user": ada}
    for odd in (nobody, "x", "%00", "*", "%7D", "a%2fb"):
        assert (await eve("GET", f"/api/users/{odd}")).code == "NOT_FOUND"


# Sessions


async def test_sessions_are_listed_with_the_current_one_marked(serving, browser):
    await browser.register(headers={"User-Agent": FIREFOX})
    phone = await serving(at=browser)
    await phone.login(headers={"User-Agent": "curl/8.5.0"})

    answer = await phone("GET", "/api/auth/sessions")

    assert answer.status == 200
    assert set(answer.json) == {"items", "nextCursor"}
    assert answer.json["nextCursor"] is None
    by_device = {session["device"]: session for session in answer.json["items"]}
    assert set(by_device) == {"Firefox on Windows", "curl"}
    for session in answer.json["items"]:
        assert set(session) == SESSION
        assert ID.fullmatch(session["id"])
        assert all(MOMENT.fullmatch(session[name]) for name in ("createdAt", "lastUsedAt", "expiresAt"))
        assert session["ip"] == "127.0.0.1"
        assert session["createdAt"] <= session["lastUsedAt"] < session["expiresAt"]
    assert (by_device["curl"]["current"], by_device["Firefox on Windows"]["current"]) == (True, False)
    assert by_device["Firefox on Windows"]["userAgent"] == FIREFOX


async def test_a_user_agent_cannot_do_harm(serving, browser):
    await browser.register(headers={"User-Agent": "x" * 5000})
    odd = await serving(at=browser)
    await odd.login(headers={"User-Agent": "<script>\x7f".replace("\x7f", "ü") + " 1 2.meta epoch"})

    agents = {session["userAgent"] for session in (await browser("GET", "/api/auth/sessions")).json["items"]}

    assert agents == {"x" * 256, "<script>ü 1 2.meta epoch"}


async def test_one_of_my_devices_can_be_signed_out(serving, browser):
    await browser.register()
    phone = await serving(at=browser)
    signed = await phone.login()
    sessions = (await browser("GET", "/api/auth/sessions")).json["items"]
    (other,) = [session["id"] for session in sessions if not session["current"]]

    assert (await browser("DELETE", f"/api/auth/sessions/{other}")).status == 204

    is_problem(await phone("GET", "/api/auth/me", headers=bearer(signed)), 401, "TOKEN_REVOKED")
    ended = await phone("POST", "/api/auth/refresh")
    is_problem(ended, 401, "SESSION_ENDED", "reason")
    assert ended.json["reason"] == "revoked"
    assert (await browser("GET", "/api/auth/me")).status == 200
    assert len((await browser("GET", "/api/auth/sessions")).json["items"]) == 1


async def test_ending_the_current_session_signs_the_browser_out(browser):
    await browser.register()
    (session,) = (await browser("GET", "/api/auth/sessions")).json["items"]

    assert (await browser("DELETE", f"/api/auth/sessions/{session['id']}")).status == 204

    assert browser.cookies() == {}


async def test_the_session_of_somebody_else_is_not_there(serving, browser):
    await browser.register("ada@example.org")
    (mine,) = (await browser("GET", "/api/auth/sessions")).json["items"]
    eve = await serving(at=browser)
    await eve.register("eve@example.org")

    foreign = await eve("DELETE", f"/api/auth/sessions/{mine['id']}")
    unknown = await eve("DELETE", f"/api/auth/sessions/{'A' * 22}")

    is_problem(foreign, 404, "NOT_FOUND")
    is_problem(unknown, 404, "NOT_FOUND")
    assert foreign.json["detail"] == unknown.json["detail"]
    assert (await browser("GET", "/api/auth/me")).status == 200
    assert len((await eve("GET", "/api/auth/sessions")).json["items"]) == 1


# Limits


async def test_a_limited_route_says_what_is_left_and_when_to_come_again(serving):
    browser = await serving(RATE_LIMITS="login=2/15m,login-address=100/15m,login-account=100/1h")

    allowed = await browser.login()
    await browser.login()
    refused = await browser.login()

    assert 'login";r=1;' in allowed.headers["RateLimit"]
    assert '"login";q=2;w=900' in allowed.headers["RateLimit-Policy"]
    is_problem(refused, 429, "RATE_LIMITED", "retryAfter")
    assert 0 < refused.json["retryAfter"] == int(refused.headers["Retry-After"]) <= 900
    assert '"login";r=0;t=' in refused.headers["RateLimit"]


# What machines ask


async def test_health_asks_nobody_and_ready_asks_redis(browser, serving, parts):
    alone = await serving(assemble(settings_for(), reach("unix:///nobody"), cheap_passwords()))

    for asked in (browser, alone):
        health = await asked("GET", "/health")
        assert health.status == 200
        assert set(health.json) == {"status", "timestamp", "uptime"}
        assert (health.json["status"], MOMENT.fullmatch(health.json["timestamp"]) is not None) == ("ok", True)
        assert isinstance(health.json["uptime"], int)
    ready, unready = await browser("GET", "/ready"), await alone("GET", "/ready")
    assert (ready.status, ready.json["status"], ready.json["redis"]["reachable"]) == (200, "ready", True)
    assert (unready.status, unready.json["status"], unready.json["redis"]["reachable"]) == (503, "unavailable", False)
    assert set(ready.json) == set(unready.json) == {"status", "redis"}
    assert set(ready.json["redis"]) == {"reachable", "version", "warnings"}
    parts.state.draining = True
    draining = await browser("GET", "/ready")
    assert (draining.status, draining.json["status"], draining.headers["Connection"]) == (503, "draining", "close")
    assert (await browser("GET", "/health")).status == 200


async def test_the_index_names_the_service_and_every_endpoint(browser):
    answer = await browser("GET", "/")

    assert set(answer.json) == {"name", "version", "endpoints"}
    assert (answer.json["name"], answer.json["version"]) == ("gatepost", __version__)
    assert {"POST /api/auth/login", "DELETE /api/auth/sessions/{id}", "GET /.well-known/jwks.json", "GET /"} <= set(
        answer.json["endpoints"]
    )


async def test_an_outage_is_a_503_on_every_route_that_needs_redis(serving, browser):
    signed = await browser.register(headers=TOKEN_MODE)
    away: Browser = await serving(assemble(settings_for(), reach("unix:///nobody"), cheap_passwords()))
    answers = [
        await away.register(),
        await away.login(),
        await away("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]}),
        await away("POST", "/api/auth/logout", {"refreshToken": signed.json["refreshToken"]}),
        await away("POST", "/api/auth/logout", headers=bearer(signed)),
        await away("GET", "/api/auth/me", headers=bearer(signed)),
        await away("GET", "/api/optional", headers=bearer(signed)),
        await away("GET", "/.well-known/jwks.json"),
        await away("GET", "/api/auth/csrf-token", headers={"Cookie": "browser=abc"}),
    ]

    for answer in answers:
        is_problem(answer, 503, "SERVICE_UNAVAILABLE", "retryAfter")
        assert answer.headers["Retry-After"] == "1"
    assert (await away("GET", "/api/public")).status == 200
    assert (await away("GET", "/api/auth/me")).code == "NO_TOKEN"
