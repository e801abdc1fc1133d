"""Asking about a token (RFC 7662) and ending one (RFC 7009): of whatever kind, and whatever has become of it."""

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from service.app import look_after
from service.parts import Parts
from service.sessions.families import EndReason
from tests.conftest import Answer, Browser

TOKENS = {"X-Auth-Mode": "token"}
DEAD = {"active": False}
FORM = "application/x-www-form-urlencoded"


@dataclass
class House:
    """An instance, a resource server with a key that may ask, and Ada, who is signed in."""

    browser: Browser
    parts: Parts
    key: str
    ada: dict[str, Any]

    async def ask(self, token: str, at: Browser | None = None, **fields: str) -> Any:
        form = {"token": token, **fields}
        headers = {"X-API-Key": self.key}
        answer = await (at or self.browser)("POST", "/api/auth/introspect", data=form, headers=headers, csrf=None)
        assert answer.status == 200, answer
        return answer.json

    async def revoke(self, token: str, **fields: str) -> Answer:
        return await self.browser("POST", "/api/auth/revoke", data={"token": token, **fields}, csrf=None)

    async def me(self, token: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self.browser("GET", "/api/auth/me", headers=headers, csrf=None)
        return "" if answer.status == 200 else answer.code

    async def refresh(self, token: str) -> Answer:
        return await self.browser("POST", "/api/auth/refresh", {"refreshToken": token}, csrf=None)


async def key_for(browser: Browser, parts: Parts, *permissions: str, roles: str = "admin") -> str:
    email = f"{roles}@example.org"
    registered = (await browser.register(email, headers=TOKENS)).json
    await parts.users.change(registered["user"]["id"], roles=roles)
    signed = (await browser.login(email, headers=TOKENS)).json
    body = {"name": "resource server", "permissions": list(permissions)}
    headers = {"Authorization": f"Bearer {signed['accessToken']}"}
    return (await browser("POST", "/api/auth/api-keys", body, headers=headers, csrf=None)).json["apiKey"]


@pytest.fixture
async def house(browser: Browser, parts: Parts) -> House:
    key = await key_for(browser, parts, "tokens:introspect")
    return House(browser, parts, key, (await browser.register(headers=TOKENS)).json)


# Introspection


async def test_a_live_access_token_says_what_it_says(house):
    claims = jwt.decode(house.ada["accessToken"], options={"verify_signature": False})

    told = await house.ask(house.ada["accessToken"])

    assert told.pop("active") is True
    assert (told.pop("token_type"), told.pop("username")) == ("Bearer", "ada@example.org")
    assert told.pop("scope") == "profile:read profile:write"
    assert told == {name: claims[name] for name in told}
    assert {"sub", "sid", "jti", "iss", "aud", "iat", "exp", "roles"} <= told.keys()


async def test_a_live_refresh_token_says_whose_it_is(house):
    told = await house.ask(house.ada["refreshToken"])

    claims = jwt.decode(house.ada["accessToken"], options={"verify_signature": False})
    assert (told["active"], told["sub"], told["sid"]) == (True, claims["sub"], claims["sid"])
    assert told["exp"] > claims["exp"]
    assert (await house.refresh(house.ada["refreshToken"])).status == 200  # asking has not used it up


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense", ""])
async def test_a_hint_may_be_wrong(house, hint):
    for token in (house.ada["accessToken"], house.ada["refreshToken"]):
        assert (await house.ask(token, token_type_hint=hint))["active"] is True


@pytest.mark.parametrize(
    "text", ["x", "a.b.c", "rt_", "rt_" + "A" * 72, "ak_" + "A" * 40, "é", "\x00", " ", "x" * 9000, "e30.e30."]
)
async def test_garbage_is_not_active_and_that_is_all_one_learns(house, text):
    assert await house.ask(text) == DEAD


async def test_what_is_over_is_not_active(house, serving, assembling):
    there = await serving(await assembling())
    access, refresh = house.ada["accessToken"], house.ada["refreshToken"]

    await house.browser("POST", "/api/auth/logout", {"refreshToken": refresh}, csrf=None)

    for at in (house.browser, there):
        assert await house.ask(access, at) == DEAD
        assert await house.ask(refresh, at) == DEAD


async def test_a_stale_access_token_is_not_active_and_its_refresh_token_is(house):
    await house.parts.families.outdate_tokens(house.ada["user"]["id"])

    assert await house.ask(house.ada["accessToken"]) == DEAD
    assert (await house.ask(house.ada["refreshToken"]))["active"] is True


@pytest.mark.parametrize("connecting", ["fakeredis"], indirect=True)
async def test_an_expired_token_is_not_active(house, later):
    await later("16m")
    await look_after(house.parts)
    assert await house.ask(house.ada["accessToken"]) == DEAD
    assert (await house.ask(house.ada["refreshToken"]))["active"] is True
    await later("7d")
    await look_after(house.parts)
    assert await house.ask(house.ada["refreshToken"]) == DEAD


async def test_a_refresh_token_that_would_be_reuse_is_not_active(house, later):
    old = house.ada["refreshToken"]
    current = (await house.refresh(old)).json["refreshToken"]
    assert (await house.ask(old))["active"] is True  # may be repeated, by another tab
    await later("11s")
    newest = (await house.refresh(current)).json["refreshToken"]

    assert await house.ask(old) == DEAD
    assert (await house.ask(newest))["active"] is True
    assert (await house.refresh(newest)).status == 200  # and asking has ended nothing


async def test_the_tokens_of_a_disabled_person_are_not_active(house):
    user_id = house.ada["user"]["id"]
    await house.parts.users.change(user_id, off="1")
    assert await house.ask(house.ada["refreshToken"]) == DEAD
    await house.parts.families.end_all(user_id, EndReason.ACCOUNT_DISABLED, account_changed=True)

    assert await house.ask(house.ada["accessToken"]) == DEAD


async def test_only_who_has_the_permission_may_ask(house, browser, parts):
    async def asks(headers: dict[str, str]) -> Answer:
        form = {"token": house.ada["accessToken"]}
        return await browser("POST", "/api/auth/introspect", data=form, headers=headers, csrf=None)

    weak = await key_for(browser, parts, "profile:read", roles="moderator")
    admin = (await browser.login("admin@example.org", headers=TOKENS)).json["accessToken"]
    assert (await asks({})).code == "NO_TOKEN"
    assert (await asks({"X-API-Key": "ak_wrong"})).code == "INVALID_API_KEY"
    refused = await asks({"X-API-Key": weak})
    assert (refused.status, refused.json["required"]) == (403, ["tokens:introspect"])
    assert (await asks({"Authorization": f"Bearer {house.ada['accessToken']}"})).status == 403
    assert (await asks({"Authorization": f"Bearer {admin}"})).json["active"] is True
    assert (await asks({"Authorization": f"Bearer {house.key}"})).json["active"] is True


# Revocation


async def test_a_revoked_access_token_is_dead_everywhere_and_its_session_lives(house, serving, assembling):
    there = await serving(await assembling())
    access, refresh = house.ada["accessToken"], house.ada["refreshToken"]
    assert await house.me(access) == ""

    assert [(await house.revoke(access)).status for _ in range(2)] == [200, 200]

    for at in (house.browser, there):
        assert await house.ask(access, at) == DEAD
        answer = await at("GET", "/api/auth/me", headers={"Authorization": f"Bearer {access}"}, csrf=None)
        assert answer.code == "TOKEN_REVOKED"
    renewed = await house.refresh(refresh)
    assert renewed.status == 200
    assert await house.me(renewed.json["accessToken"]) == ""


@pytest.mark.parametrize("connecting", ["fakeredis"], indirect=True)
async def test_a_sign_in_does_not_bring_a_revoked_access_token_back(house, later):
    claims = jwt.decode(house.ada["accessToken"], options={"verify_signature": False})
    await house.revoke(house.ada["accessToken"])
    await later(f"{claims['exp'] - claims['iat'] + 5}s")  # still taken, for the sake of clocks that are apart
    await look_after(house.parts)

    await house.browser.login(headers=TOKENS)  # prunes what has expired

    assert await house.me(house.ada["accessToken"]) == "TOKEN_REVOKED"


async def test_what_has_expired_is_pruned(house, later, connecting):
    await house.revoke(house.ada["accessToken"])
    await later("16m")
    renewed = (await house.refresh(house.ada["refreshToken"])).json
    await house.revoke(renewed["accessToken"])

    redis = connecting()
    fields = await redis.hkeys(f"sessions:{{{house.ada['user']['id']}}}")
    await redis.aclose()
    assert len([name for name in fields if name.startswith("-")]) == 1


@pytest.mark.parametrize("hint", ["refresh_token", "access_token"])
async def test_a_revoked_refresh_token_ends_its_session(house, hint):
    access, refresh = house.ada["accessToken"], house.ada["refreshToken"]
    other = (await house.browser.login(headers=TOKENS)).json

    assert [(await house.revoke(refresh, token_type_hint=hint)).status for _ in range(2)] == [200, 200]

    assert (await house.refresh(refresh)).code == "SESSION_ENDED"
    assert await house.me(access) == "TOKEN_REVOKED"
    assert await house.me(other["accessToken"]) == ""


@pytest.mark.parametrize("text", ["x", "a.b.c", "rt_" + "A" * 72, "ak_" + "A" * 40, "é", " ", "x" * 9000])
async def test_garbage_is_200_and_ends_nothing(house, text):
    answer = await house.revoke(text)

    assert (answer.status, answer.body) == (200, b"")
    assert await house.me(house.ada["accessToken"]) == ""


async def test_a_forged_token_ends_nothing(house):
    head, body, signature = house.ada["accessToken"].split(".")
    raw = bytearray(base64.urlsafe_b64decode(house.ada["refreshToken"][3:]))
    raw[-1] ^= 1

    await house.revoke(f"{head}.{body}.{signature[::-1]}")
    await house.revoke("rt_" + base64.urlsafe_b64encode(bytes(raw)).decode())

    assert await house.me(house.ada["accessToken"]) == ""
    assert (await house.refresh(house.ada["refreshToken"])).status == 200


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_what_the_replicas_have_not_confirmed_is_not_said_to_be_revoked(house, serving, assembling):
    strict = await serving(await assembling(REDIS_WAIT_REPLICAS="1"))

    for token in (house.ada["accessToken"], house.ada["refreshToken"]):
        answer = await strict("POST", "/api/auth/revoke", data={"token": token}, csrf=None)
        assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE")
        assert (await house.revoke(token)).status == 200


async def test_cookies_vouch_for_nothing(serving, browser):
    await browser.register()

    answer = await browser("POST", "/api/auth/revoke", data={"token": "x"}, csrf=None)

    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    assert (await browser("GET", "/api/auth/me")).status == 200


# Forms


@pytest.mark.parametrize("path", ["/api/auth/introspect", "/api/auth/revoke"])
async def test_only_a_form_with_one_token_is_taken(house, path):
    async def sends(body: bytes, kind: str = FORM) -> Answer:
        headers = {"X-API-Key": house.key, "Content-Type": kind}
        return await house.browser("POST", path, data=body, headers=headers, csrf=None)

    for wrong in (b"", b"token", b"token=", b"tok=x", b"token=a&token=b", b"token=a&x=1&x=2", b"token=%ff"):
        assert (await sends(wrong)).code == "VALIDATION_ERROR", wrong
    assert (await sends(urlencode({str(n): n for n in range(40)} | {"token": "x"}).encode())).status == 400
    assert (await sends(b"token=" + b"x" * 17_000)).code == "PAYLOAD_TOO_LARGE"
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", f"{FORM}; charset=utf-16"):
        answer = await sends(b"token=x", kind)
        assert (answer.code, answer.headers["Accept"]) == ("UNSUPPORTED_MEDIA_TYPE", FORM)
    assert (await sends(b"token=x&client_id=somebody", f"{FORM}; charset=UTF-8")).status == 200
