"""Requirement 28: a state is random, good once, for ten minutes, in its browser and for its provider.

A callback that fails any of these makes no call to the provider.
"""

import asyncio
import re

import pytest

from tests.oauth.conftest import APP, JSON, PAGE, TOKENS, come_back, enter, leave, query_of
from tests.oauth.github import CLIENT_ID

MINUTES = 10 * 60


async def callback_from(browser, github) -> str:
    """A callback that would be good."""
    return await github.sign_in(await leave(browser, "github"), "ada-l")


async def test_states_are_random_and_long(visiting, github):
    browser = await visiting(github)

    states = [query_of(await leave(browser, "github"))["state"] for _ in range(20)]

    assert len(set(states)) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", state) for state in states)  # 256 bits
    assert all(len({state[place] for state in states}) > 3 for place in range(42))


async def test_a_state_is_good_once(visiting, github):
    browser = await visiting(github)
    callback = await callback_from(browser, github)
    assert (await come_back(browser, callback)).status == 200
    before = github.called_by_us

    replayed = await come_back(browser, callback)

    assert (replayed.status, replayed.code) == (400, "OAUTH_STATE_INVALID")
    assert github.called_by_us == before


async def test_of_parallel_returns_with_one_state_one_is_let_in(visiting, github):
    browser = await visiting(github)
    callback = await callback_from(browser, github)

    answers = await asyncio.gather(*(come_back(browser, callback) for _ in range(12)))

    assert sorted(answer.status for answer in answers) == [200] + [400] * 11
    assert github.calls["/login/oauth/access_token"] == 1


async def test_a_state_lasts_ten_minutes(visiting, github, later):
    browser = await visiting(github)
    early, late = await callback_from(browser, github), await callback_from(browser, github)

    await later("595s")
    assert (await come_back(browser, early, TOKENS | JSON)).status == 200
    before = github.called_by_us
    await later("6s")

    assert (await come_back(browser, late)).code == "OAUTH_STATE_INVALID"
    assert github.called_by_us == before


async def test_a_state_is_bound_to_its_browser(visiting, github, serving):
    browser = await visiting(github)
    stranger, other = await serving(at=browser), await serving(at=browser)
    await leave(other, "github")  # a browser with a session of its own

    for elsewhere in (stranger, other):
        callback = await callback_from(browser, github)
        assert (await come_back(elsewhere, callback)).code == "OAUTH_STATE_INVALID"
        assert (await elsewhere("GET", "/api/auth/me")).code == "NO_TOKEN"
    assert github.called_by_us == 0


async def test_a_state_that_was_tried_elsewhere_is_used_up(visiting, github, serving):
    browser = await visiting(github)
    callback = await callback_from(browser, github)
    await come_back(await serving(at=browser), callback)

    assert (await come_back(browser, callback)).code == "OAUTH_STATE_INVALID"
    assert github.called_by_us == 0


async def test_a_state_is_bound_to_its_provider(visiting, github, hostile):
    browser = await visiting(github, hostile)
    at_github = await callback_from(browser, github)
    at_hostile = hostile.come_back(await leave(browser, "hostile"))
    calls = hostile.calls.total()

    for callback, other in ((at_github, "hostile"), (at_hostile, "github")):
        swapped = re.sub(r"/api/auth/\w+/", f"/api/auth/{other}/", callback)
        assert (await come_back(browser, swapped)).code == "OAUTH_STATE_INVALID"
    assert github.called_by_us == 0
    assert hostile.calls.total() == calls


@pytest.mark.parametrize(
    "query",
    [
        "code=abc",
        "code=abc&state=",
        "code=abc&state=unknown",
        "code=abc&state=" + "x" * 4000,
        "code=abc&state=%00%ff%ed%a0%80",
        "code=abc&state=*",
        "error=access_denied",
        "error=access_denied&state=unknown",
        "code=abc&code=abc&state={state}",
        "code=abc&state={state}&state={state}",
        "code=abc&state={state}&state=other",
    ],
)
async def test_whatever_is_no_state_of_ours_makes_no_call(visiting, github, query):
    browser = await visiting(github)
    state = query_of(await leave(browser, "github"))["state"]

    refused = await browser("GET", "/api/auth/github/callback?" + query.format(state=state), headers=JSON)

    assert (refused.status, refused.code) == (400, "OAUTH_STATE_INVALID")
    assert github.called_by_us == 0


async def test_a_return_without_a_code_says_so_and_makes_no_call(visiting, github):
    browser = await visiting(github)
    state = query_of(await leave(browser, "github"))["state"]

    refused = await browser("GET", f"/api/auth/github/callback?state={state}", headers=JSON)

    assert (refused.status, refused.code) == (400, "OAUTH_CODE_MISSING")
    assert github.called_by_us == 0


async def test_tabs_side_by_side_all_come_back_in_any_order(visiting, github, serving):
    browser = await visiting(github)
    tabs = [await callback_from(browser, github) for _ in range(4)]

    for callback in (tabs[2], tabs[0], tabs[3], tabs[1]):
        assert (await come_back(browser, callback, PAGE)).headers["Location"] == APP
        assert (await browser("GET", "/api/auth/me")).status == 200


async def test_tabs_that_start_at_the_same_moment_all_come_back(visiting, github):
    """The browser has a session already, from whatever it did before."""
    browser = await visiting(github)
    await browser("GET", "/api/auth/csrf-token")

    urls = await asyncio.gather(*(leave(browser, "github") for _ in range(5)))
    answers = [await come_back(browser, await github.sign_in(url, "ada-l")) for url in urls]

    assert [answer.status for answer in answers] == [200] * 5


async def test_tabs_may_be_at_different_providers(visiting, github, hostile):
    browser = await visiting(github, hostile)
    one, other = await callback_from(browser, github), hostile.come_back(await leave(browser, "hostile"))

    assert (await come_back(browser, other)).status == 200
    assert (await come_back(browser, one)).status == 200


async def test_a_sign_in_renews_the_browser_and_leaves_other_tabs_alone(visiting, github):
    """Session fixation: whoever planted the old cookie has nothing."""
    browser = await visiting(github)
    first, second = await callback_from(browser, github), await callback_from(browser, github)
    planted = browser.cookies()["browser"]

    signed = await come_back(browser, first)
    assert signed.cookies["browser"].value != planted
    stolen = {"Cookie": f"browser={planted}", **JSON}
    assert (await browser("GET", "/api/auth/me")).status == 200
    assert (await come_back(browser, second)).status == 200

    third = await callback_from(browser, github)
    browser.client.session.cookie_jar.clear()
    assert (await come_back(browser, third, stolen)).code == "OAUTH_STATE_INVALID"


@pytest.mark.parametrize(
    ("public_url", "name", "secure"),
    [("http://localhost:8000", "browser", False), ("https://auth.example.org", "__Host-browser", True)],
)
async def test_the_browsers_cookie_is_as_strict_as_it_can_be(visiting, github, public_url, name, secure):
    browser = await visiting(github, PUBLIC_URL=public_url, COOKIE_SAMESITE="lax")

    for headers in (JSON, PAGE):
        cookies = (await browser("GET", "/api/auth/github", headers=headers)).cookies
        assert list(cookies) == [name]
        cookie = cookies[name]
        assert bool(cookie["secure"]) is secure
        assert cookie["httponly"] is True
        assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Lax", "/", "")
        assert cookie["max-age"] == str(MINUTES)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", cookie.value)


async def test_the_cookie_can_come_back_from_another_site_whatever_the_others_are(visiting, github):
    """A callback is a navigation from the provider's site, which a strict cookie would miss."""
    browser = await visiting(github, COOKIE_SAMESITE="strict")

    assert (await browser("GET", "/api/auth/github", headers=JSON)).cookies["browser"]["samesite"] == "Lax"


async def test_the_flow_and_the_browsers_session_live_equally_long(visiting, github, redis_server, connecting, later):
    browser = await visiting(github)
    await leave(browser, "github")
    await later("5m")
    await leave(browser, "github")
    redis = connecting()

    flows = [await redis.ttl(key) async for key in redis.scan_iter("oauth:*")]
    (session,) = [await redis.ttl(key) async for key in redis.scan_iter("browser:*")]
    await redis.aclose()

    assert len(flows) == 2
    assert MINUTES - 3 <= max(flows) <= session <= MINUTES


async def test_what_redis_holds_of_a_flow_is_no_state_and_no_cookie(visiting, github, connecting):
    browser = await visiting(github)
    state = query_of(await leave(browser, "github"))["state"]
    redis = connecting()

    kept = [(key, await redis.get(key)) async for key in redis.scan_iter() if key.startswith(("oauth:", "browser:"))]
    await redis.aclose()

    assert len(kept) == 2
    assert state not in str(kept)
    assert browser.cookies()["browser"] not in str(kept)


async def test_a_late_or_replayed_return_sends_a_person_to_a_fresh_start(visiting, github, later):
    browser = await visiting(github)
    away = await browser("GET", "/api/auth/github", params={"redirectTo": "/inbox"}, headers=PAGE)
    callback = await github.sign_in(away.headers["Location"], "ada-l")
    assert (await come_back(browser, callback, PAGE)).headers["Location"] == f"{APP}/inbox"

    replayed = await come_back(browser, callback, PAGE)
    late = await callback_from(browser, github)
    await later("11m")
    too_late = await come_back(browser, late, PAGE)

    for answer in (replayed, too_late):
        assert (answer.status, answer.body) == (302, b"")
        assert answer.headers["Location"] == f"{APP}?error=OAUTH_STATE_INVALID"
        assert not {"accessToken", "refreshToken", "csrfToken"} & answer.cookies.keys()


async def test_a_failed_return_leaves_who_is_signed_in_alone(visiting, github):
    browser = await visiting(github)
    callback = await callback_from(browser, github)
    await come_back(browser, callback)

    await come_back(browser, callback, PAGE)

    assert (await browser("GET", "/api/auth/me")).status == 200


async def test_no_address_of_ours_ever_holds_a_token_or_a_code(visiting, github):
    browser = await visiting(github)
    locations, secrets = [], set()
    for consent in (True, False, True):
        away = await browser("GET", "/api/auth/github", params={"redirectTo": "/a?b=c"}, headers=PAGE)
        callback = await github.sign_in(away.headers["Location"], "ada-l", consent)
        locations.append(away.headers["Location"].replace(query_of(callback)["state"], "the state goes out"))
        for _ in range(2):
            back = await come_back(browser, callback, PAGE)
            locations.append(back.headers["Location"])
            secrets |= {cookie.value for cookie in back.cookies.values() if cookie.value}
        secrets |= {query_of(callback)["state"], query_of(callback).get("code", CLIENT_ID + "?")}
    secrets |= set(github._tokens)

    assert len(secrets) > 8
    assert not [(secret, place) for place in locations for secret in secrets if secret in place]


async def test_a_user_who_signs_in_again_leaves_the_old_session(visiting, github):
    browser = await visiting(github)
    first = await enter(browser, github, "ada-l")

    await enter(browser, github, "ada-l")

    gone = {"Authorization": f"Bearer {first.json['accessToken']}"}
    assert (await browser("GET", "/api/auth/me", headers=gone)).code == "TOKEN_REVOKED"
    assert len((await browser("GET", "/api/auth/sessions")).json["items"]) == 1


async def test_starts_are_limited_by_address_and_who_has_left_may_come_back(visiting, github):
    browser = await visiting(github, RATE_LIMITS="oauth=2/10m")
    for _ in range(2):
        away = await browser("GET", "/api/auth/github", headers=PAGE)

    refused = await browser("GET", "/api/auth/github", headers=JSON)
    callback = await github.sign_in(away.headers["Location"], "ada-l")

    assert (refused.status, refused.code) == (429, "RATE_LIMITED")
    assert (await come_back(browser, callback, PAGE)).headers["Location"] == APP


async def test_returns_at_the_same_moment_all_get_in(visiting, github):
    browser = await visiting(github)
    tabs = [await callback_from(browser, github) for _ in range(3)]

    answers = await asyncio.gather(*(come_back(browser, callback) for callback in tabs))

    assert [answer.status for answer in answers] == [200] * 3


async def test_the_app_may_read_what_a_script_is_told(visiting, github):
    browser = await visiting(github)
    from_the_app = {**JSON, "Origin": APP}

    begun = await browser("GET", "/api/auth/github", headers=from_the_app)
    refused = await browser("GET", "/api/auth/github/callback?code=a&state=b", headers=from_the_app)
    evil = await browser("GET", "/api/auth/github", headers={**JSON, "Origin": "https://evil.example"})

    for answer in (begun, refused):
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in evil.headers
