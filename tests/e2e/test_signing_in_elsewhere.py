"""A person in a real browser, from the app to a provider and back."""

import re
from typing import Any

import pytest

from tests.e2e.conftest import World

SECRETS = re.compile(r"eyJ[\w-]{10,}|rt_[\w-]{20,}|[?&](code|token|access_token|id_token|refreshToken)=")


async def who(page: Any) -> str:
    await page.wait_for_function("document.getElementById('who').textContent !== '…'")
    return str(await page.text_content("#who"))


async def history(page: Any) -> list[str]:
    """Every address that the browser's back button could reach."""
    session = await page.context.new_cdp_session(page)
    entries = (await session.send("Page.getNavigationHistory"))["entries"]
    return [entry["url"] for entry in entries]


async def sign_in_at_example(page: Any) -> None:
    await page.click("#example")
    await page.fill("[name=login]", "ada")
    await page.fill("[name=password]", "anything")
    await page.click("[type=submit]")
    await page.click("[type=submit]")  # consent


async def come_home(page: Any, world: World, path: str = "/") -> str:
    await page.wait_for_url(world.app + path)
    return await who(page)


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_a_person_signs_in_with_openid_and_out_again(page, world):
    await page.goto(world.app)
    assert await who(page) == "nobody (none)"

    await sign_in_at_example(page)
    assert await come_home(page, world) == "ada@example.org"
    await page.reload()
    assert await who(page) == "ada@example.org"

    await page.click("#out")
    await page.wait_for_function("document.getElementById('who').textContent.startsWith('nobody')")


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_nothing_worth_stealing_is_in_an_address_or_in_the_page_s_reach(page, world):
    requested: list[tuple[str, str | None]] = []
    page.on("request", lambda request: requested.append((request.url, request.headers.get("referer"))))
    await page.goto(world.app)

    await sign_in_at_example(page)
    await come_home(page, world)

    assert [url for url in await history(page) if SECRETS.search(url)] == []
    # The code passes through one address, the service's own, which is gone from the history and never a referrer.
    with_code = {url.partition("?")[0] for url, _ in requested if SECRETS.search(url)}
    assert with_code == {f"{world.api}/api/auth/example/callback"}
    assert [referer for _, referer in requested if referer and SECRETS.search(referer)] == []
    assert await page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert not SECRETS.search(await page.evaluate("document.cookie"))
    jar = {cookie["name"]: cookie for cookie in await page.context.cookies([f"{world.api}/api/auth/refresh"])}
    assert {name: jar[name]["httpOnly"] for name in ("accessToken", "refreshToken", "csrfToken", "browser")} == {
        "accessToken": True,
        "refreshToken": True,
        "csrfToken": False,
        "browser": True,
    }


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_two_tabs_leave_side_by_side_and_both_come_back(page, world):
    other = await page.context.new_page()
    for tab in (page, other):
        await tab.goto(world.app)
    await page.click("#example")
    await page.wait_for_selector("[name=login]")

    await other.click("#github")
    await other.fill("[name=login]", "ada-l")
    await other.click("button[value='1']")
    assert await come_home(other, world, "/inbox") == "ada@example.org"
    await page.fill("[name=login]", "ada")
    await page.fill("[name=password]", "anything")
    await page.click("[type=submit]")
    await page.click("[type=submit]")

    assert await come_home(page, world) == "ada@example.org"
    await other.reload()
    assert await who(other) == "ada@example.org"


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_who_cancels_or_comes_back_twice_is_at_the_app_with_the_reason(page, world):
    await page.goto(world.app)
    callbacks: list[str] = []
    page.on("request", lambda request: "/callback?" in request.url and callbacks.append(request.url))
    await sign_in_at_example(page)
    await come_home(page, world)

    await page.goto(callbacks[0])
    await page.wait_for_url(f"{world.app}/?error=OAUTH_STATE_INVALID")

    assert await page.text_content("#error") == "OAUTH_STATE_INVALID"
    assert await who(page) == "ada@example.org", "still signed in"
