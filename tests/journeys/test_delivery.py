"""The two deliveries of a sign-in: cookies for browsers, tokens in the body for everything else."""

import re

import pytest

from tests.conftest import PASSWORD, Answer

TOKEN_MODE = {"X-Auth-Mode": "token"}
TOKENS = {"accessToken", "tokenType", "expiresIn", "csrfToken"}
WITH_REFRESH = TOKENS | {"refreshToken", "refreshExpiresIn"}
REFRESH_TOKEN = re.compile(r"rt_[A-Za-z0-9_-]{72}")
COOKIES = {"accessToken", "refreshToken", "csrfToken"}


def bearer(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['accessToken']}"}


async def test_a_browser_gets_cookies_unless_it_says_otherwise(serving, browser):
    registered = await browser.register()
    browser = await serving(at=browser)
    login, asked = await browser.login(), await browser.login(headers={"X-Auth-Mode": "cookie"})

    for answer in (registered, login, asked):
        assert set(answer.json) == TOKENS | {"user"}
        assert set(answer.cookies) == COOKIES
        assert REFRESH_TOKEN.fullmatch(answer.cookies["refreshToken"].value)
        assert not REFRESH_TOKEN.search(answer.body.decode())


async def test_an_app_gets_everything_in_the_body_and_no_cookie(browser):
    registered = await browser.register(headers=TOKEN_MODE)
    login = await browser.login(headers=TOKEN_MODE)
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": login.json["refreshToken"]})

    for answer, members in ((registered, {"user"}), (login, {"user"}), (refreshed, set())):
        assert set(answer.json) == WITH_REFRESH | members
        assert answer.json["tokenType"] == "Bearer"
        assert REFRESH_TOKEN.fullmatch(answer.json["refreshToken"])
        assert 604_790 <= answer.json["refreshExpiresIn"] <= 604_800
        assert not answer.cookies
    assert browser.cookies() == {}


async def test_an_app_lives_on_its_tokens_alone(browser):
    signed = await browser.register(headers=TOKEN_MODE)

    assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).status == 200
    assert (await browser("PATCH", "/api/users/profile", {"name": "Ada"}, headers=bearer(signed))).status == 200
    refreshed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    assert (await browser("GET", "/api/auth/me", headers=bearer(refreshed))).status == 200
    out = await browser("POST", "/api/auth/logout", {"refreshToken": refreshed.json["refreshToken"]})
    assert out.status == 204
    assert (await browser("GET", "/api/auth/me", headers=bearer(refreshed))).code == "TOKEN_REVOKED"
    assert browser.cookies() == {}


async def test_a_browser_may_also_use_the_access_token_of_the_body(serving, browser):
    signed = await browser.register()
    elsewhere = await serving(at=browser)

    assert (await elsewhere("GET", "/api/auth/me", headers=bearer(signed))).status == 200
    assert (await elsewhere("PATCH", "/api/users/profile", {"name": "Ada"}, headers=bearer(signed))).status == 200


async def test_the_token_of_the_body_wins_over_the_cookie(browser):
    app = await browser.register("app@example.org", headers=TOKEN_MODE)
    await browser.register("browser@example.org")
    before = browser.cookies()

    answer = await browser("POST", "/api/auth/refresh", {"refreshToken": app.json["refreshToken"]}, csrf=None)

    assert set(answer.json) == WITH_REFRESH
    assert browser.cookies() == before
    me = await browser("GET", "/api/auth/me", headers=bearer(answer))
    assert me.json["user"]["email"] == "app@example.org"
    assert (await browser("GET", "/api/auth/me")).json["user"]["email"] == "browser@example.org"


async def test_a_bad_token_in_the_body_is_not_replaced_by_a_good_cookie(browser):
    await browser.register()

    for token in ("", "x", "rt_" + "A" * 72):
        assert (await browser("POST", "/api/auth/refresh", {"refreshToken": token})).code == "INVALID_REFRESH_TOKEN"
    for token in (1, True, ["x"], {}):
        assert (await browser("POST", "/api/auth/refresh", {"refreshToken": token})).code == "VALIDATION_ERROR"


@pytest.mark.parametrize("body", [None, {}, {"refreshToken": None}], ids=str)
async def test_without_a_token_in_the_body_the_cookie_counts(browser, body):
    await browser.register()

    answer = await browser("POST", "/api/auth/refresh", body)

    assert (answer.status, set(answer.cookies)) == (200, COOKIES)


async def test_a_refresh_token_from_a_cookie_may_move_into_a_body_and_stays_there(serving, browser):
    """Whoever holds the token chooses; what never happens is that we put it into a body unasked."""
    await browser.register()
    token = browser.cookies()["refreshToken"]

    answer = await (await serving(at=browser))("POST", "/api/auth/refresh", {"refreshToken": token})

    assert set(answer.json) == WITH_REFRESH
    assert not answer.cookies


async def test_two_tabs_that_refresh_one_after_the_other_with_the_same_cookie_end_up_with_the_same(serving, browser):
    await browser.register()
    held = browser.cookies()
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in held.items())}

    tabs = [
        await (await serving(at=browser))("POST", "/api/auth/refresh", headers=cookies, csrf=held["csrfToken"])
        for _ in range(3)
    ]

    assert [tab.status for tab in tabs] == [200] * 3
    assert len({tab.cookies["refreshToken"].value for tab in tabs}) == 1
    assert len({tab.json["accessToken"] for tab in tabs}) == 3


async def test_a_refresh_token_has_one_spelling(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    token = signed.json["refreshToken"]

    for other in (token + "=", token + "A", token[:-1], " " + token, token + "\n", token.replace("rt_", "RT_"),
                  token[3:], "rt_" + token, token[:-1] + ("A" if token[-1] != "A" else "B"), token.swapcase(),
                  token[:40] + ("A" if token[40] != "A" else "B") + token[41:], token * 2,
                  "rt_" + "é" * 72):  # fmt: skip
        answer = await browser("POST", "/api/auth/refresh", {"refreshToken": other})
        assert (answer.status, answer.code) == (401, "INVALID_REFRESH_TOKEN"), other
    assert (await browser("POST", "/api/auth/refresh", {"refreshToken": token})).status == 200


async def test_a_refresh_token_in_a_query_string_or_a_header_is_none(browser):
    token = (await browser.register(headers=TOKEN_MODE)).json["refreshToken"]

    for name in ("refreshToken", "refresh_token", "token"):
        assert (await browser("POST", f"/api/auth/refresh?{name}={token}")).code == "NO_REFRESH_TOKEN"
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await browser("POST", "/api/auth/refresh", headers=bearer)).code == "NO_REFRESH_TOKEN"
    assert PASSWORD not in token
