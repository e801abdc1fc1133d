"""Asking whether a token is good, for proxies, and the routes that let in only some."""

import jwt
import pytest

from service.app import look_after
from service.parts import Parts
from service.store import reach
from tests.conftest import Answer, Browser
from tests.faults.proxy import Proxy

TOKEN_MODE = {"X-Auth-Mode": "token"}
IDENTITY = ("X-Auth-User", "X-Auth-Email", "X-Auth-Roles", "X-Auth-Permissions")
VERIFIED = {"active", "sub", "sid", "roles", "permissions", "expiresAt"}


def bearer(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['accessToken']}"}


async def made(browser: Browser, parts: Parts, roles: str, email: str = "ada@example.org") -> Answer:
    """A person with these roles, signed in for them to be in the token."""
    registered = await browser.register(email, headers=TOKEN_MODE)
    await parts.users.change(registered.json["user"]["id"], roles=roles)
    return await browser.login(email, headers=TOKEN_MODE)


async def test_verify_says_who_is_asking(browser):
    signed = await browser.register(headers=TOKEN_MODE)

    answer = await browser("GET", "/api/auth/verify", headers=bearer(signed))

    claims = jwt.decode(signed.json["accessToken"], options={"verify_signature": False})
    assert answer.status == 200
    assert set(answer.json) == VERIFIED
    assert answer.json["active"] is True
    assert (answer.json["sub"], answer.json["sid"]) == (signed.json["user"]["id"], claims["sid"])
    assert (answer.json["roles"], answer.json["permissions"]) == (["user"], ["profile:read", "profile:write"])
    assert answer.json["expiresAt"].endswith("Z")
    told = [answer.headers[name] for name in IDENTITY]
    assert told == [signed.json["user"]["id"], "ada@example.org", "user", "profile:read,profile:write"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


async def test_verify_takes_the_cookie_and_the_bearer_token_alike(serving, browser):
    signed = await browser.register()
    elsewhere = await serving(at=browser)

    by_cookie = await browser("GET", "/api/auth/verify")
    by_bearer = await elsewhere("GET", "/api/auth/verify", headers=bearer(signed))

    assert by_cookie.json == by_bearer.json
    assert (await elsewhere("GET", "/api/auth/verify")).code == "NO_TOKEN"


async def test_the_header_wins_over_the_cookie(serving, browser):
    await browser.register("ada@example.org")
    other = await (await serving(at=browser)).register("eve@example.org", headers=TOKEN_MODE)

    answer = await browser("GET", "/api/auth/verify", headers=bearer(other))

    assert answer.headers["X-Auth-Email"] == "eve@example.org"


async def test_verify_answers_head_like_get_without_a_body(browser):
    await browser.register()

    answer = await browser("HEAD", "/api/auth/verify")

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["X-Auth-Email"] == "ada@example.org"
    assert (await browser("POST", "/api/auth/verify")).status == 405


async def test_an_email_beyond_ascii_travels_in_the_header(browser):
    signed = await browser.register("jürgen@bücher.example", headers=TOKEN_MODE)

    answer = await browser("GET", "/api/auth/verify", headers=bearer(signed))

    assert answer.headers["X-Auth-Email"] == "jürgen@bücher.example"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?role=moderator", 200),
        ("?role=user", 200),
        ("?role=admin", 403),
        ("?role=admin&role=moderator", 200),
        ("?role=admin,moderator", 403),
        ("?role=Moderator", 403),
        ("?role=", 403),
        ("?role=%20moderator", 403),
        ("?permission=content:moderate", 200),
        ("?permission=content%3Amoderate", 200),
        ("?permission=users:read", 403),
        ("?permission=users:read&permission=profile:read", 200),
        ("?permission=*", 403),
        ("?permission=content", 403),
        ("?role=moderator&permission=users:read", 403),
        ("?role=admin&permission=profile:read", 403),
        ("?role=moderator&permission=profile:read", 200),
        ("?role=%ED%A0%80&role=%00", 403),
    ],
)
async def test_verify_asks_for_any_of_the_roles_and_any_of_the_permissions(browser, parts, query, status):
    signed = await made(browser, parts, "user moderator")

    answer = await browser("GET", f"/api/auth/verify{query}", headers=bearer(signed))

    assert answer.status == status
    if status == 403:
        assert answer.code == "FORBIDDEN"
        assert isinstance(answer.json["required"], list)
        assert not set(IDENTITY) & set(answer.headers)


@pytest.mark.parametrize(
    ("query", "odd"),
    [
        ("?roles=admin", "roles"),
        ("?ROLE=admin", "ROLE"),
        ("?role%20=admin", "role "),
        ("?permissions=users:read&role=moderator", "permissions"),
        ("?role=moderator;permission=users:read&page=2", "page"),
        ("?%ED%A0%80", None),
    ],
)
async def test_a_demand_that_verify_does_not_know_is_never_answered_with_yes(browser, parts, query, odd):
    signed = await made(browser, parts, "user moderator")

    answer = await browser("GET", f"/api/auth/verify{query}", headers=bearer(signed))

    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert not set(IDENTITY) & set(answer.headers)
    (error,) = answer.json["errors"]
    assert odd in (error["field"], None)
    assert "role and permission" in error["message"]
    assert (await browser("GET", f"/api/auth/verify{query}")).status == 401


async def test_a_refusal_names_what_would_do(browser):
    signed = await browser.register(headers=TOKEN_MODE)

    roles = await browser("GET", "/api/auth/verify?role=admin&role=moderator", headers=bearer(signed))
    permissions = await browser("GET", "/api/auth/verify?permission=users:read", headers=bearer(signed))

    assert roles.json["required"] == ["admin", "moderator"]
    assert permissions.json["required"] == ["users:read"]


async def test_verify_tells_revoked_stale_expired_and_wrong_tokens_apart(browser, parts):
    signed = await browser.register(headers=TOKEN_MODE)
    key, claims = parts.keys.signing(), jwt.decode(signed.json["accessToken"], options={"verify_signature": False})
    past = {**claims, "exp": int(parts.clock.now()) - 60}
    expired = jwt.encode(past, key.private, key.algorithm, headers={"kid": key.kid, "typ": "at+jwt"})

    async def code(token: str) -> str:
        answer = await browser("GET", "/api/auth/verify", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert not set(IDENTITY) & set(answer.headers)
        return answer.code

    assert await code(expired) == "TOKEN_EXPIRED"
    assert await code(signed.json["accessToken"][:-3]) == "INVALID_TOKEN"
    await parts.families.outdate_tokens(signed.json["user"]["id"])
    assert await code(signed.json["accessToken"]) == "TOKEN_STALE"
    await browser("POST", "/api/auth/logout", headers=bearer(signed))
    assert await code(signed.json["accessToken"]) == "TOKEN_REVOKED"


async def test_the_tokens_of_a_session_end_with_it(serving, assembling, later):
    its = await assembling(JWT_REFRESH_EXPIRY="1m", JWT_ACCESS_EXPIRY="15m")
    browser = await serving(its)
    signed = await browser.register(headers=TOKEN_MODE)

    await later("61s")
    await look_after(its)  # as every few seconds

    assert (await browser("GET", "/api/auth/verify", headers=bearer(signed))).code == "TOKEN_REVOKED"


async def test_another_instance_refuses_what_this_one_ended(serving, assembling):
    here, there = await serving(await assembling()), await serving(await assembling())
    signed = await here.register(headers=TOKEN_MODE)
    assert (await there("GET", "/api/auth/verify", headers=bearer(signed))).status == 200

    await here("POST", "/api/auth/logout", headers=bearer(signed))

    assert (await there("GET", "/api/auth/verify", headers=bearer(signed))).code == "TOKEN_REVOKED"


async def test_who_i_am_is_read_in_the_round_trip_of_the_check(serving, assembling, redis_server):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    browser = await serving(await assembling(reach(proxy.url)))
    signed = await browser.register(headers=TOKEN_MODE)

    for path in ("/api/auth/me", "/api/users/profile"):
        proxy.sent.clear()
        answer = await browser("GET", path, headers=bearer(signed))

        assert answer.json["user"]["id"] == signed.json["user"]["id"]
        (asked,) = [sent for sent in proxy.sent if b"sessions:{" in sent or b"HGETALL" in sent]
        assert b"sessions:{" in asked
        assert b"user:{" in asked
    await proxy.stop()


async def test_a_good_token_of_an_account_that_is_gone_is_invalid(browser, connecting):
    signed = await browser.register(headers=TOKEN_MODE)
    redis = connecting()
    await redis.delete(f"user:{{{signed.json['user']['id']}}}")

    for path in ("/api/auth/me", "/api/users/profile"):
        assert (await browser("GET", path, headers=bearer(signed))).code == "INVALID_TOKEN"
    await redis.aclose()


async def test_new_rights_are_in_force_after_a_refresh_and_old_tokens_are_stale(browser, parts):
    signed = await browser.register(headers=TOKEN_MODE)
    user_id = signed.json["user"]["id"]
    assert (await browser("GET", "/api/admin", headers=bearer(signed))).code == "FORBIDDEN"

    await parts.users.change(user_id, roles="user admin")
    await parts.families.outdate_tokens(user_id)

    assert (await browser("GET", "/api/admin", headers=bearer(signed))).code == "TOKEN_STALE"
    assert (await browser("GET", "/api/auth/verify", headers=bearer(signed))).code == "TOKEN_STALE"
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    assert (await browser("GET", "/api/admin", headers=bearer(refreshed))).status == 200
    again = await browser("GET", "/api/auth/verify?role=admin&permission=users:write", headers=bearer(refreshed))
    assert again.headers["X-Auth-Roles"] == "user,admin"


async def test_rights_that_were_taken_are_gone_at_once(browser, parts):
    signed = await made(browser, parts, "user admin")
    assert (await browser("GET", "/api/admin", headers=bearer(signed))).status == 200

    await parts.users.change(signed.json["user"]["id"], roles="user")
    await parts.families.outdate_tokens(signed.json["user"]["id"])

    assert (await browser("GET", "/api/admin", headers=bearer(signed))).code == "TOKEN_STALE"
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    refused = await browser("GET", "/api/admin", headers=bearer(refreshed))
    assert (refused.status, refused.code, refused.json["required"]) == (403, "FORBIDDEN", ["admin"])


async def test_nobody_revives_a_stale_token_by_ending_a_session_of_an_odd_name(browser, parts):
    """A session's id comes from the path, and the epoch is a field beside the sessions."""
    admin = await made(browser, parts, "user admin")
    await parts.users.change(admin.json["user"]["id"], roles="user")
    await parts.families.outdate_tokens(admin.json["user"]["id"])
    demoted = await browser("POST", "/api/auth/refresh", {"refreshToken": admin.json["refreshToken"]})

    for odd in ("epoch", "*", "-", "", "epoch.meta", "%2A"):
        answer = await browser("DELETE", f"/api/auth/sessions/{odd}", headers=bearer(demoted))
        assert (answer.status, answer.code) == (404, "NOT_FOUND")

    assert (await browser("GET", "/api/admin", headers=bearer(admin))).code == "TOKEN_STALE"
    assert (await browser("GET", "/api/auth/me", headers=bearer(demoted))).status == 200


EXAMPLES = ("/api/public", "/api/optional", "/api/protected", "/api/moderate", "/api/admin", "/api/users/dashboard")


@pytest.mark.parametrize(
    ("roles", "statuses"),
    [
        (None, (200, 200, 401, 401, 401, 401)),
        ("user", (200, 200, 200, 403, 403, 200)),
        ("user moderator", (200, 200, 200, 200, 403, 200)),
        ("admin", (200, 200, 200, 200, 200, 200)),
        ("retired", (200, 200, 200, 403, 403, 200)),
    ],
)
async def test_the_examples_let_in_whom_they_name(browser, parts, roles, statuses):
    headers = bearer(await made(browser, parts, roles)) if roles else {}

    answers = [await browser("GET", path, headers=headers) for path in EXAMPLES]

    assert tuple(answer.status for answer in answers) == statuses
    assert {answer.code for answer in answers if answer.status == 401} <= {"NO_TOKEN"}
    assert {tuple(answer.json["required"]) for answer in answers if answer.status == 403} <= {
        ("moderator", "admin"),
        ("admin",),
    }


async def test_a_role_that_is_no_longer_in_the_table_permits_nothing(browser, parts):
    signed = await made(browser, parts, "retired")

    answer = await browser("GET", "/api/auth/verify", headers=bearer(signed))

    assert (answer.json["roles"], answer.json["permissions"]) == (["retired"], [])


async def test_the_optional_example_takes_a_bad_token_for_none(browser):
    signed = await browser.register(headers=TOKEN_MODE)

    assert (await browser("GET", "/api/optional", headers=bearer(signed))).json["authenticated"] is True
    for authorization in ("Bearer x", "Bearer", f"Bearer {signed.json['accessToken']}x", "Basic eDp5"):
        answer = await browser("GET", "/api/optional", headers={"Authorization": authorization})
        assert (answer.status, answer.json["authenticated"]) == (200, False)
    await browser("POST", "/api/auth/logout", headers=bearer(signed))
    assert (await browser("GET", "/api/optional", headers=bearer(signed))).json["authenticated"] is False


async def test_the_dashboard_greets_its_caller_and_is_no_user_id(browser):
    signed = await browser.register(headers=TOKEN_MODE)

    answer = await browser("GET", "/api/users/dashboard", headers=bearer(signed))

    assert set(answer.json) == {"message", "userId", "roles"}
    assert answer.json["userId"] == signed.json["user"]["id"]
    assert "ada@example.org" in answer.json["message"]


async def test_without_examples_there_are_none(serving):
    browser = await serving(EXAMPLES="off")
    signed = await browser.register(headers=TOKEN_MODE)

    answers = [await browser("GET", path, headers=bearer(signed)) for path in EXAMPLES]

    # What is left of the dashboard's path is an id that is nobody's.
    assert [answer.code for answer in answers] == ["NOT_FOUND"] * 5 + ["FORBIDDEN"]
    assert not set(EXAMPLES) & set(" ".join((await browser("GET", "/")).json["endpoints"]).split())


async def test_there_are_no_examples_in_production_unless_asked_for(serving):
    live = {"ENVIRONMENT": "production", "REDIS_URL": "redis://localhost", "PUBLIC_URL": "https://auth.example.org"}
    browser = await serving(**live)
    asked = await serving(**live, EXAMPLES="true")

    assert (await browser("GET", "/api/public")).code == "NOT_FOUND"
    assert (await asked("GET", "/api/public")).status == 200
