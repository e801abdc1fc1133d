"""Requirement 31: linking and unlinking, by those who signed in a moment ago, and never the last way in."""

import asyncio

import pytest

from tests.conftest import parts_of
from tests.oauth.conftest import (
    APP,
    JSON,
    PAGE,
    TOKENS,
    come_back,
    enter,
    make_account,
    query_of,
)
from tests.oauth.github import Person, email


async def link(browser, github, login="ada-l", **query) -> str:
    """Begin to link, and consent at GitHub; the callback."""
    begun = await browser("POST", "/api/auth/github/link", params=query)
    assert begun.status == 200, begun
    assert set(begun.json) == {"authUrl", "state"}
    return await github.sign_in(begun.json["authUrl"], login)


async def linked(browser) -> list[str]:
    user = (await browser("GET", "/api/auth/me")).json["user"]
    return [held["provider"] for held in user["identities"]]


async def test_a_user_links_an_account_elsewhere_and_signs_in_with_it(visiting, github, serving):
    github.people["ada-l"].emails = [email("another@example.org")]
    browser = await visiting(github)
    user_id = await make_account(browser)

    answer = await come_back(browser, await link(browser, github))

    assert answer.status == 200
    assert answer.json["user"]["id"] == user_id
    assert answer.json["user"]["identities"][0]["email"] == "another@example.org"
    assert answer.json["user"]["email"] == "ada@example.org"
    assert not {"accessToken", "refreshToken"} & answer.cookies.keys()
    assert (await enter(await serving(at=browser), github, "ada-l")).json["user"]["id"] == user_id
    assert (await (await serving(at=browser)).login()).status == 200


async def test_a_person_who_links_comes_back_to_where_they_were(visiting, github):
    browser = await visiting(github)
    await make_account(browser)

    back = await come_back(browser, await link(browser, github, redirectTo="/settings"), PAGE)

    assert (back.status, back.headers["Location"]) == (302, f"{APP}/settings")
    assert await linked(browser) == ["github"]


async def test_a_client_with_tokens_links_in_the_browser_that_began(visiting, github):
    browser = await visiting(github)
    signed = await browser.register(headers=TOKENS)
    held = {"Authorization": f"Bearer {signed.json['accessToken']}"}

    begun = await browser("POST", "/api/auth/github/link", headers=held)
    answer = await come_back(browser, await github.sign_in(begun.json["authUrl"], "ada-l"))

    assert answer.json["user"]["id"] == signed.json["user"]["id"]


async def test_linking_an_account_with_the_same_email_verifies_it(visiting, github):
    browser = await visiting(github)
    await make_account(browser, verified=False)

    answer = await come_back(browser, await link(browser, github))

    assert answer.json["user"]["emailVerified"] is True


async def test_linking_an_account_with_another_email_verifies_nothing(visiting, github):
    github.people["ada-l"].emails = [email("another@example.org")]
    browser = await visiting(github)
    await make_account(browser, verified=False)

    assert (await come_back(browser, await link(browser, github))).json["user"]["emailVerified"] is False


async def test_linking_twice_changes_nothing(visiting, github):
    browser = await visiting(github)
    await make_account(browser)
    first = await come_back(browser, await link(browser, github))

    again = await come_back(browser, await link(browser, github))

    assert again.json["user"]["identities"] == first.json["user"]["identities"]


async def test_an_identity_of_another_account_is_in_use(visiting, github, serving):
    browser = await visiting(github)
    await enter(await serving(at=browser), github, "ada-l")
    await make_account(browser, "bob@example.org")

    refused = await come_back(browser, await link(browser, github))
    person = await come_back(browser, await link(browser, github, redirectTo="/settings"), PAGE)

    assert (refused.status, refused.code) == (409, "IDENTITY_IN_USE")
    assert person.headers["Location"] == f"{APP}/settings?error=IDENTITY_IN_USE"
    assert await linked(browser) == []


async def test_a_second_account_of_one_provider_is_refused(visiting, github):
    github.add(Person(102, "ada-2", emails=[email("second@example.org")]))
    browser = await visiting(github)
    await make_account(browser)
    await come_back(browser, await link(browser, github))

    assert (await come_back(browser, await link(browser, github, "ada-2"))).code == "IDENTITY_IN_USE"


async def test_of_two_users_who_link_one_identity_at_once_one_gets_it(visiting, github, serving):
    one = await visiting(github)
    other = await serving(at=one)
    github.people["ada-l"].emails = [email("third@example.org")]
    await make_account(one, "one@example.org")
    await make_account(other, "other@example.org")
    callbacks = [await link(one, github), await link(other, github)]

    answers = await asyncio.gather(come_back(one, callbacks[0]), come_back(other, callbacks[1]))

    assert sorted(answer.status for answer in answers) == [200, 409]
    assert len(await linked(one) + await linked(other)) == 1


async def test_linking_needs_a_recent_sign_in(visiting, github, later):
    browser = await visiting(github)
    await make_account(browser)
    await later("9m")
    await browser("POST", "/api/auth/refresh")
    assert (await browser("POST", "/api/auth/github/link")).status == 200

    await later("2m")
    await browser("POST", "/api/auth/refresh")
    refused = await browser("POST", "/api/auth/github/link")

    assert (refused.status, refused.code) == (403, "REAUTHENTICATION_REQUIRED")
    assert github.calls.total() == 0
    await browser.login()
    assert (await browser("POST", "/api/auth/github/link")).status == 200


async def test_unlinking_needs_a_recent_sign_in(visiting, github, later):
    browser = await visiting(github)
    await make_account(browser)
    await come_back(browser, await link(browser, github))
    await later("11m")
    await browser("POST", "/api/auth/refresh")

    assert (await browser("DELETE", "/api/auth/identities/github")).code == "REAUTHENTICATION_REQUIRED"
    assert await linked(browser) == ["github"]


async def test_an_identity_that_was_unlinked_signs_nobody_in(visiting, github, serving):
    github.people["ada-l"].emails = [email("another@example.org")]
    browser = await visiting(github)
    user_id = await make_account(browser)
    await come_back(browser, await link(browser, github))

    assert (await browser("DELETE", "/api/auth/identities/github")).status == 204
    assert (await browser("DELETE", "/api/auth/identities/github")).status == 204

    assert await linked(browser) == []
    assert (await enter(await serving(at=browser), github, "ada-l")).json["user"]["id"] != user_id


async def test_an_identity_that_was_unlinked_may_be_linked_by_another(visiting, github, serving):
    one = await visiting(github)
    other = await serving(at=one)
    await make_account(one, "one@example.org")
    await make_account(other, "other@example.org")
    await come_back(one, await link(one, github))
    await one("DELETE", "/api/auth/identities/github")

    assert (await come_back(other, await link(other, github))).status == 200


async def test_the_last_way_in_stays(visiting, github):
    browser = await visiting(github)
    await enter(browser, github, "ada-l")

    refused = await browser("DELETE", "/api/auth/identities/github")

    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    assert "only way to sign in" in refused.json["detail"]
    assert await linked(browser) == ["github"]


async def test_of_the_last_two_ways_in_one_stays_even_in_a_race(visiting, github, hostile):
    browser = await visiting(github, hostile)
    await enter(browser, github, "ada-l")
    begun = await browser("POST", "/api/auth/hostile/link")
    await come_back(browser, hostile.come_back(begun.json["authUrl"]))
    assert await linked(browser) == ["github", "hostile"]

    answers = await asyncio.gather(
        *(browser("DELETE", f"/api/auth/identities/{name}") for name in ("github", "hostile") * 3)
    )

    assert {answer.status for answer in answers} == {204, 403}
    assert len(await linked(browser)) == 1


async def test_the_return_of_a_link_belongs_to_the_browser_that_began(visiting, github, serving):
    """Or somebody could be lured into linking their account there to another's account here."""
    browser = await visiting(github)
    await make_account(browser)
    victim = await serving(at=browser)
    await make_account(victim, "victim@example.org")
    callback = await link(browser, github)
    before = github.called_by_us

    assert (await come_back(victim, callback)).code == "OAUTH_STATE_INVALID"
    assert (await come_back(browser, callback)).code == "OAUTH_STATE_INVALID"
    assert github.called_by_us == before
    assert await linked(browser) == await linked(victim) == []


@pytest.mark.parametrize("leaving", ["/api/auth/logout", "/api/auth/logout-all"])
async def test_a_link_does_not_come_back_after_a_logout(visiting, github, leaving):
    browser = await visiting(github)
    await make_account(browser)
    callback = await link(browser, github)
    assert (await browser("POST", leaving)).status == 204

    refused = await come_back(browser, callback)

    assert (refused.status, refused.code) == (403, "REAUTHENTICATION_REQUIRED")
    await browser.login()
    assert await linked(browser) == []


async def test_a_link_does_not_come_back_to_whoever_signed_in_meanwhile(visiting, github):
    browser = await visiting(github)
    await make_account(browser)
    callback = await link(browser, github)
    other_id = await make_account(browser, "bob@example.org")

    assert (await come_back(browser, callback)).code == "REAUTHENTICATION_REQUIRED"
    assert (await parts_of(browser).users.find(other_id)).identities == ()


async def test_a_disabled_user_links_nothing(visiting, github):
    browser = await visiting(github)
    user_id = await make_account(browser)
    callback = await link(browser, github)
    await parts_of(browser).users.change(user_id, off="1")

    assert (await come_back(browser, callback)).code == "REAUTHENTICATION_REQUIRED"


async def test_linking_and_unlinking_need_the_csrf_token(visiting, github, serving):
    browser = await visiting(github)
    await make_account(browser)
    await come_back(browser, await link(browser, github))
    another = await serving(at=browser)
    theirs = (await another.register("bob@example.org")).json["csrfToken"]

    for method, path in (("POST", "/api/auth/github/link"), ("DELETE", "/api/auth/identities/github")):
        for csrf in (None, "", theirs):
            assert (await browser(method, path, csrf=csrf)).code == "CSRF_FAILED"
        evil = {"Origin": "https://evil.example"}
        assert (await browser(method, path, headers=evil)).code == "ORIGIN_FORBIDDEN"
        assert (await (await serving(at=browser))(method, path)).code == "NO_TOKEN"
    assert await linked(browser) == ["github"]


async def test_a_link_is_no_navigation(visiting, github):
    """A GET that linked could be an image on any page."""
    browser = await visiting(github)
    await make_account(browser)

    assert (await browser("GET", "/api/auth/github/link", headers=JSON)).status == 405


async def test_a_sign_in_flow_does_not_link_whoever_is_signed_in(visiting, github):
    """Only a link that the user began links; signing in elsewhere changes the session instead."""
    github.people["ada-l"].emails = [email("another@example.org")]
    browser = await visiting(github)
    user_id = await make_account(browser)

    signed = await enter(browser, github, "ada-l")

    assert signed.json["user"]["id"] != user_id
    assert (await parts_of(browser).users.find(user_id)).identities == ()


async def test_saying_no_to_a_link_changes_nothing(visiting, github):
    browser = await visiting(github)
    await make_account(browser)
    begun = await browser("POST", "/api/auth/github/link")

    denied = await come_back(browser, await github.sign_in(begun.json["authUrl"], "ada-l", consent=False))

    assert (denied.status, denied.code) == (403, "OAUTH_DENIED")
    assert await linked(browser) == []


async def test_linking_at_an_unknown_provider_is_not_there(browser):
    await make_account(browser)

    assert (await browser("POST", "/api/auth/nobody/link")).code == "PROVIDER_NOT_CONFIGURED"
    assert (await browser("DELETE", "/api/auth/identities/nobody")).status == 204


async def test_the_scope_of_a_link_is_that_of_a_sign_in(visiting, github):
    browser = await visiting(github)
    await make_account(browser)

    asked = query_of((await browser("POST", "/api/auth/github/link")).json["authUrl"])

    assert asked["scope"] == "read:user user:email"


@pytest.mark.parametrize("theirs", ["x" * 100_000, "a\r\n@example.org", ["ada@example.org"], ""])
async def test_an_email_that_is_shown_stays_within_our_bounds(visiting, hostile, theirs):
    hostile.claims = {"email": theirs}
    browser = await visiting(hostile)
    await make_account(browser)
    begun = await browser("POST", "/api/auth/hostile/link")

    answer = await come_back(browser, hostile.come_back(begun.json["authUrl"]))

    assert answer.json["user"]["identities"][0]["email"] is None
