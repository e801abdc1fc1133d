"""The life of a session over HTTP: register, refresh, sign out, change the password."""

import jwt
import pytest

from service.store import reach
from tests.conftest import PASSWORD, Answer, Browser, Parts
from tests.faults.proxy import Proxy

TOKEN_MODE = {"X-Auth-Mode": "token"}
NEW = "another long and private sentence"


def bearer(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['accessToken']}"}


async def is_over(browser: Browser, signed: Answer, reason: str) -> None:
    """No token of this token-mode session does anything any more."""
    assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).code == "TOKEN_REVOKED"
    ended = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    assert (ended.code, ended.json.get("reason")) == ("SESSION_ENDED", reason)


async def lives(browser: Browser, signed: Answer) -> None:
    assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).status == 200


async def change(browser: Browser, current: str = PASSWORD, new: str = NEW, **kwargs) -> Answer:
    body = {"currentPassword": current, "newPassword": new}
    return await browser("POST", "/api/auth/password/change", body, **kwargs)


async def test_a_person_registers_refreshes_and_signs_out(browser):
    registered = await browser.register()
    assert registered.status == 201
    assert (await browser("GET", "/api/auth/me")).json["user"]["email"] == "ada@example.org"

    refreshed = await browser("POST", "/api/auth/refresh")
    assert refreshed.status == 200
    assert "refreshToken" not in refreshed.json

    assert (await browser("POST", "/api/auth/logout")).status == 204
    assert (await browser("GET", "/api/auth/me")).code == "NO_TOKEN"
    gone = {"Authorization": f"Bearer {refreshed.json['accessToken']}"}
    assert (await browser("GET", "/api/auth/me", headers=gone)).code == "TOKEN_REVOKED"


async def test_a_refresh_asks_everything_at_once_and_after_a_refusal_first_whether_it_may(
    serving, assembling, redis_server
):
    proxy = Proxy(redis_server.socket)
    await proxy.start()
    browser = await serving(await assembling(reach(proxy.url), RATE_LIMITS="refresh=1/1m"))
    signed = await browser.register(headers=TOKEN_MODE)
    proxy.sent.clear()

    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    body = {"refreshToken": refreshed.json["refreshToken"]}
    refused = [await browser("POST", "/api/auth/refresh", body) for _ in range(2)]

    assert (refreshed.status, *(each.status for each in refused)) == (200, 429, 429)
    everything, too_much, may_not = [sent for sent in proxy.sent if b"sessions:{" in sent or b"limit:" in sent]
    for key in (b"limit:refresh:", b"sessions:{", b"user:{", b"index:live:"):
        assert key in everything
        assert key in too_much
    assert b"limit:refresh:" in may_not
    assert b"sessions:" not in may_not
    await proxy.stop()


async def test_a_wrong_password_is_refused(browser):
    await browser.register()

    assert (await browser.login(password=PASSWORD + "!")).code == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    "password",
    ["        x y z        ", "pass🔑word🔑", "x" * 1024, "ä" * 512, "nul\0in the middle", "line\nbreak inside",
     '"><script>', "Å" + "ngström unit", "A\u030a" + "ngström unit"],
)  # fmt: skip
async def test_a_password_may_be_any_text(browser, password):
    assert (await browser.register(password=password)).status == 201

    assert (await browser.login(password=password)).status == 200
    assert (await browser.login(password=password[:-1])).code == "INVALID_CREDENTIALS"
    assert (await browser.login(password=password + "x")).code == "INVALID_CREDENTIALS"


async def test_a_password_is_the_same_on_every_keyboard(browser):
    await browser.register(password="A\u030angstro\u0308m, the unit")

    assert (await browser.login(password="\u00c5ngstr\u00f6m, the unit")).status == 200


async def test_a_body_refresh_token_is_renewed_over_and_over(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    seen = {signed.json["refreshToken"]}
    for _ in range(5):
        signed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
        assert signed.status == 200
        await lives(browser, signed)
        seen.add(signed.json["refreshToken"])

    assert len(seen) == 6


async def test_a_refresh_does_not_end_the_access_token_before(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})

    await lives(browser, signed)


# Signing in again


async def test_signing_in_again_in_the_same_browser_ends_the_session_before(serving, browser):
    first = await browser.register()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies().items())
    csrf = first.json["csrfToken"]

    await browser.login()

    assert (await browser("GET", "/api/auth/me", headers=bearer(first))).code == "TOKEN_REVOKED"
    stranger = await serving(at=browser)
    old = await stranger("POST", "/api/auth/refresh", headers={"Cookie": cookies, "X-CSRF-Token": csrf})
    assert (old.code, old.json["reason"]) == ("SESSION_ENDED", "signed_in_again")
    assert len((await browser("GET", "/api/auth/sessions")).json["items"]) == 1


async def test_somebody_else_who_signs_in_ends_the_session_before_too(browser):
    ada = await browser.register("ada@example.org")

    await browser.register("eve@example.org")

    assert (await browser("GET", "/api/auth/me", headers=bearer(ada))).code == "TOKEN_REVOKED"
    assert (await browser("GET", "/api/auth/me")).json["user"]["email"] == "eve@example.org"


async def test_a_failed_sign_in_ends_nothing(browser):
    await browser.register()

    await browser.login(password="wrong")
    await browser.register(password="short")

    assert (await browser("GET", "/api/auth/me")).status == 200


async def test_a_sign_in_elsewhere_or_for_an_app_ends_nothing(serving, browser):
    first = await browser.register()
    await (await serving(at=browser)).login()
    await browser.login(headers=TOKEN_MODE)

    await lives(browser, first)
    assert len((await browser("GET", "/api/auth/sessions")).json["items"]) == 3


async def test_more_sessions_than_allowed_push_out_the_oldest(serving):
    browser = await serving(MAX_SESSIONS_PER_USER="3")
    signed = [await browser.register(headers=TOKEN_MODE)]
    for _ in range(3):
        signed.append(await browser.login(headers=TOKEN_MODE))  # noqa: PERF401 one after the other

    await is_over(browser, signed[0], "replaced")
    for newer in signed[1:]:
        await lives(browser, newer)


# Signing out


def expired(parts: Parts, token: str) -> str:
    key, claims = parts.keys.signing(), jwt.decode(token, options={"verify_signature": False})
    old = {**claims, "iat": claims["iat"] - 3600, "exp": claims["iat"] - 2700}
    return jwt.encode(old, key.private, key.algorithm, headers={"kid": key.kid, "typ": "at+jwt"})


@pytest.mark.parametrize(
    "credential",
    ["access token", "expired access token", "refresh token", "access cookie", "expired access cookie",
     "refresh cookie", "all of them", "an older refresh token"],
)  # fmt: skip
async def test_any_one_credential_is_enough_to_sign_out_and_again(serving, browser, parts, credential):
    signed = await browser.register(headers=TOKEN_MODE)
    access, refresh, csrf = (signed.json[name] for name in ("accessToken", "refreshToken", "csrfToken"))
    old = expired(parts, access)
    body, headers = None, {}
    match credential:
        case "access token":
            headers = {"Authorization": f"Bearer {access}"}
        case "expired access token":
            headers = {"Authorization": f"Bearer {old}"}
        case "refresh token":
            body = {"refreshToken": refresh}
        case "access cookie":
            headers = {"Cookie": f"accessToken={access}", "X-CSRF-Token": csrf}
        case "expired access cookie":
            headers = {"Cookie": f"accessToken={old}", "X-CSRF-Token": csrf}
        case "refresh cookie":
            headers = {"Cookie": f"refreshToken={refresh}", "X-CSRF-Token": csrf}
        case "all of them":
            cookies = f"accessToken={access}; refreshToken={refresh}; csrfToken={csrf}"
            headers = {"Cookie": cookies, "Authorization": f"Bearer {access}"}
            body = {"refreshToken": refresh}
        case "an older refresh token":
            await browser("POST", "/api/auth/refresh", {"refreshToken": refresh})
            body = {"refreshToken": refresh}
    elsewhere = await browser.login(headers=TOKEN_MODE)
    leaving = await serving(at=browser)

    for _ in range(3):
        answer = await leaving("POST", "/api/auth/logout", body, headers=headers)
        assert (answer.status, answer.body) == (204, b"")
        gone = {name: (morsel.value, morsel["max-age"]) for name, morsel in answer.cookies.items()}
        everything = dict.fromkeys(("accessToken", "refreshToken", "csrfToken"), ("", "0"))
        assert gone == (everything if "Cookie" in headers else {})

    await is_over(browser, signed, "logout")
    await lives(browser, elsewhere)


async def test_who_is_nobody_may_sign_out_too(browser):
    for headers, body in (
        ({}, None),
        ({}, {}),
        ({}, {"refreshToken": "rubbish"}),
        ({"Authorization": "Bearer rubbish"}, None),
        ({"Cookie": "accessToken=rubbish; refreshToken=rubbish; csrfToken=rubbish"}, None),
    ):
        answer = await browser("POST", "/api/auth/logout", body, headers=headers)
        assert answer.status == 204
        assert bool(answer.cookies) == ("Cookie" in headers)


async def test_what_was_signed_out_is_dead_on_every_instance_when_the_answer_arrives(serving, assembling):
    here, there = await serving(await assembling()), await serving(await assembling())
    signed = await here.register(headers=TOKEN_MODE)
    await lives(there, signed)

    await there("POST", "/api/auth/logout", {"refreshToken": signed.json["refreshToken"]})

    await is_over(here, signed, "logout")


async def test_signing_out_everywhere_ends_every_session_and_the_next_sign_in_works_at_once(serving, browser):
    app = await browser.register(headers=TOKEN_MODE)
    await browser.login()

    everywhere = await browser("POST", "/api/auth/logout-all")

    assert everywhere.status == 204
    assert browser.cookies() == {}
    await is_over(browser, app, "logout_all")
    again = await browser.login(headers=TOKEN_MODE)
    await lives(browser, again)


async def test_one_persons_sign_out_everywhere_is_nobody_elses(serving, browser):
    ada = await browser.register("ada@example.org", headers=TOKEN_MODE)
    eve = await browser.register("eve@example.org", headers=TOKEN_MODE)

    await browser("POST", "/api/auth/logout-all", headers=bearer(eve))

    await lives(browser, ada)


# Changing the password


async def test_a_new_password_ends_every_other_session_and_this_one_goes_on(serving, browser):
    app = await browser.register(headers=TOKEN_MODE)
    signed = await browser.login()

    assert (await change(browser)).status == 204

    await is_over(browser, app, "password_changed")
    assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).code == "TOKEN_STALE"
    assert (await browser("GET", "/api/auth/me")).code == "TOKEN_STALE"
    assert (await browser("POST", "/api/auth/refresh")).status == 200
    assert (await browser("GET", "/api/auth/me")).status == 200
    assert (await browser.login(headers=TOKEN_MODE)).code == "INVALID_CREDENTIALS"
    assert (await browser.login(password=NEW, headers=TOKEN_MODE)).status == 200
    assert len((await browser("GET", "/api/auth/sessions")).json["items"]) == 2


async def test_a_wrong_current_password_changes_nothing(browser):
    app = await browser.register(headers=TOKEN_MODE)

    refused = await change(browser, "wrong", headers=bearer(app))

    assert (refused.status, refused.code) == (401, "INVALID_CREDENTIALS")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    await lives(browser, app)
    assert (await browser.login()).status == 200


@pytest.mark.parametrize("weak", ["short", "password123", "ada@example.org", "x" * 1025, "\ud800" * 10, "Countess1"])
async def test_a_weak_new_password_is_refused_under_its_own_name(browser, weak):
    await browser.register()
    await browser("PATCH", "/api/users/profile", {"lastName": "Countess"})

    refused = await change(browser, new=weak)

    assert (refused.status, refused.code) == (400, "VALIDATION_ERROR")
    assert [error["field"] for error in refused.json["errors"]] == ["newPassword"]
    assert (await browser("GET", "/api/auth/me")).status == 200
    assert (await browser.login(headers=TOKEN_MODE)).status == 200


@pytest.mark.parametrize("missing", ["currentPassword", "newPassword"])
async def test_a_change_needs_both_passwords(browser, missing):
    await browser.register()
    body = {"currentPassword": PASSWORD, "newPassword": NEW}
    del body[missing]

    refused = await browser("POST", "/api/auth/password/change", body)

    assert [error["field"] for error in refused.json["errors"]] == [missing]


async def test_a_change_that_broke_off_half_way_is_finished_by_the_same_request(browser, parts):
    """The password was written, the sessions not yet ended, and the answer was lost."""
    thief = await browser.register(headers=TOKEN_MODE)
    mine = await browser.login(headers=TOKEN_MODE)
    await parts.users.change(mine.json["user"]["id"], pw=await parts.passwords.hash(NEW))

    assert (await change(browser, headers=bearer(mine))).status == 204

    await is_over(browser, thief, "password_changed")
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": mine.json["refreshToken"]})
    await lives(browser, refreshed)
    assert (await browser.login(password=NEW)).status == 200


async def test_guesses_of_the_current_password_are_counted_with_the_sign_ins(serving):
    browser = await serving(RATE_LIMITS="login=3/15m,login-account=100/1h,login-address=100/1h,register=9/1h")
    app = await browser.register(headers=TOKEN_MODE)

    codes = [(await change(browser, f"guess {number}", headers=bearer(app))).code for number in range(4)]

    assert codes == ["INVALID_CREDENTIALS"] * 3 + ["RATE_LIMITED"]
    assert (await browser.login()).code == "RATE_LIMITED"


async def test_an_account_that_is_gone_signs_nobody_in(browser, parts, connecting):
    signed = await browser.register(headers=TOKEN_MODE)
    redis = connecting()
    await redis.delete(f"user:{{{signed.json['user']['id']}}}")
    await redis.aclose()

    assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).code == "INVALID_TOKEN"
    assert (await browser.login()).code == "INVALID_CREDENTIALS"
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    assert refreshed.code == "SESSION_ENDED"
