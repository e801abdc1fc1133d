"""Nobody is signed out by tabs, networks or outages; but who holds a copied cookie is, and its owner is told why."""

import asyncio
from typing import Any

import pytest

from tests.e2e.demo import ADA, Demo, alerted, at, card, fill_in_sign_in, go, lose_access, said, sign_out
from tests.e2e.driver import BrowserContext, Page, Route, expect
from tests.faults.proxy import Proxy

REFRESH = "**/api/auth/refresh"


async def events(demo: Demo) -> list[str]:
    """The types of what happened to Ada, the latest first; the look itself is the first of them."""
    listed = await demo.ask_as(ADA, "/api/auth/events?limit=100")
    return [event["type"] for event in listed["items"]]


async def sessions(demo: Demo) -> int:
    """How many sessions Ada has, without that of the look."""
    listed = await demo.ask_as(ADA, "/api/auth/sessions")
    return sum(not session["current"] for session in listed["items"])


async def all_at_once(context: BrowserContext, count: int) -> list[Route]:
    """Let refreshes leave only when so many of them are under way; gives those that have been."""
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)
        if len(held) == count:
            await asyncio.gather(*(each.continue_() for each in held))
        elif len(held) > count:
            await route.continue_()

    await context.route(REFRESH, hold)
    return held


def listen(context: BrowserContext) -> list[int]:
    """The statuses of the answers to refreshes, as they come from now on."""
    statuses: list[int] = []
    context.on(
        "response",
        lambda answer: (
            answer.request.method == "POST" and answer.url.endswith("/refresh") and statuses.append(answer.status)
        ),
    )
    return statuses


async def test_eight_tabs_that_refresh_at_once_all_stay_signed_in(starting, visiting):
    demo = await starting()
    context = await visiting()
    first = await context.new_page()
    await demo.sign_up(first)
    tabs = [first, *[await context.new_page() for _ in range(7)]]
    for tab in tabs[1:]:
        await tab.goto(f"{demo.url}/profile")
        await at(tab, "Profile")
    await lose_access(context)
    statuses, left = listen(context), await all_at_once(context, len(tabs))

    await asyncio.gather(*(tab.reload() for tab in tabs))

    await asyncio.gather(*(at(tab, "Profile") for tab in tabs))
    assert len(left) >= 8
    assert set(statuses) == {200}, "whoever does not wait for an answer has heard from another tab"
    await context.unroute(REFRESH)
    await lose_access(context)
    await asyncio.gather(*(go(tab, "Devices") for tab in tabs))
    for tab in tabs:
        await expect(tab.get_by_role("list", name="Signed-in devices").get_by_role("listitem")).to_have_count(1)
    assert await sessions(demo) == 1
    assert "sessions.refresh_token.reused" not in await events(demo)


async def test_tabs_whose_timers_are_due_refresh_before_the_token_is_spent(starting, visiting):
    demo = await starting()
    context = await visiting()
    tabs = [await context.new_page() for _ in range(3)]
    for tab in tabs:
        await tab.clock.install()
    await demo.sign_up(tabs[0])
    statuses = listen(context)
    for tab in tabs[1:]:
        async with tab.expect_response("**/api/auth/verify"):  # says how old the cookie of the other tab is
            await tab.goto(f"{demo.url}/activity")
        await at(tab, "Activity")

    await asyncio.gather(*(tab.clock.fast_forward("14:00") for tab in tabs))

    async with asyncio.timeout(30):
        while not statuses:
            await asyncio.sleep(0.01)
    for tab in tabs:
        await go(tab, "Devices")
    assert set(statuses) == {200}
    assert await sessions(demo) == 1


@pytest.mark.parametrize("leeway", ["10s", "0"])
async def test_a_reply_to_a_refresh_that_is_lost_signs_nobody_out(starting, visiting, leeway):
    network = Proxy(0)
    demo = await starting(behind=network, REFRESH_LEEWAY=leeway)
    context = await visiting()
    page = await context.new_page()
    await demo.sign_up(page)
    await lose_access(context)

    network.lose(b"POST /api/auth/refresh", times=2)  # the browser itself asks again once where a connection breaks
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices").click()

    await at(page, "Devices")
    await expect(page.get_by_role("list", name="Signed-in devices").get_by_role("listitem")).to_have_count(1)
    assert network.lost == 2
    await lose_access(context)
    await page.reload()
    await at(page, "Devices")
    assert await sessions(demo) == 1
    assert "sessions.refresh_token.reused" not in await events(demo)


async def test_a_page_that_is_closed_before_the_reply_comes_back_signed_in(starting, visiting):
    network = Proxy(0)
    demo = await starting(behind=network, REFRESH_LEEWAY="0")
    context = await visiting()
    page = await context.new_page()
    await demo.sign_up(page)
    await lose_access(context)
    network.lose(b"POST /api/auth/refresh", silently=True)
    await page.reload(wait_until="commit")
    async with asyncio.timeout(30):
        while not network.lost:
            await asyncio.sleep(0.01)
    await page.close()

    page = await context.new_page()
    await page.goto(f"{demo.url}/profile")

    await at(page, "Profile")
    assert "sessions.refresh_token.reused" not in await events(demo)


async def test_who_works_while_redis_is_killed_is_told_calmly_and_goes_on_without_a_reload(starting, visiting):
    demo = await starting()
    context = await visiting()
    page, other = await context.new_page(), await context.new_page()
    await demo.sign_up(page)
    await other.goto(f"{demo.url}/sessions")
    await at(other, "Devices")
    await page.evaluate("window.neverReloaded = true")
    away = "We cannot reach the service; trying again."

    await asyncio.to_thread(demo.redis.kill)
    await page.get_by_label("First name").fill("Ada")
    await page.get_by_role("button", name="Save").click()
    await alerted(page, "Nothing is lost; try again in a moment.")
    await said(page, f"{away} You stay signed in.")
    await other.reload()
    await said(other, away)
    await asyncio.to_thread(demo.redis.start)

    for tab in (page, other):
        await expect(tab.get_by_role("status").filter(has_text=away)).to_have_count(0)
    await at(other, "Devices")
    await expect(other.get_by_role("list", name="Signed-in devices").get_by_role("listitem")).to_have_count(1)
    assert await page.get_by_label("First name").input_value() == "Ada"
    await page.get_by_role("button", name="Save").click()
    await said(page, "Your profile is saved.")
    await go(page, "Activity")
    await expect(page.get_by_text("Account created")).to_be_visible()
    assert await page.evaluate("window.neverReloaded") is True
    assert await sessions(demo) == 1


async def test_a_session_is_refreshed_once_redis_is_back(starting, visiting):
    demo = await starting()
    context = await visiting()
    page = await context.new_page()
    await demo.sign_up(page)
    await lose_access(context)

    await asyncio.to_thread(demo.redis.kill)
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices").click()
    await said(page, "We cannot reach the service; trying again. You stay signed in.")
    await asyncio.to_thread(demo.redis.start)

    await expect(page.get_by_role("list", name="Signed-in devices").get_by_role("listitem")).to_have_count(1)
    assert await sessions(demo) == 1


async def test_a_sign_out_in_one_tab_is_seen_in_the_others(starting, visiting):
    demo = await starting()
    context = await visiting()
    page, other, elsewhere = [await context.new_page() for _ in range(3)]
    await demo.sign_up(page)
    for tab in (other, elsewhere):
        await tab.goto(f"{demo.url}/profile")
        await at(tab, "Profile")
        await go(tab, "Activity")
    await elsewhere.goto("about:blank")

    await sign_out(page)

    await at(other, "Sign in")
    await said(other, "You are signed out.")
    await other.go_back()
    await at(other, "Sign in")
    await elsewhere.go_back()
    await at(elsewhere, "Sign in")
    for tab in (page, other, elsewhere):
        await expect(tab.get_by_text(ADA)).to_have_count(0)
    # And who signs in again in one of them has signed in in all.
    await fill_in_sign_in(page)
    await at(page, "Profile")
    await expect(other.get_by_role("navigation", name="Main")).to_be_visible()


async def copied(context: BrowserContext, demo: Demo) -> list[dict[str, Any]]:
    """The refresh cookie, as a thief takes it."""
    cookies = await context.cookies(f"{demo.api}/api/auth/refresh")
    return [cookie for cookie in cookies if cookie["name"] == "refreshToken"]


async def refresh_twice(context: BrowserContext, page: Page) -> None:
    """So that nobody may think that a reply was lost."""
    for _ in range(2):
        await lose_access(context)
        async with page.expect_response(lambda r: r.url.endswith("/refresh") and r.request.method == "POST") as answer:
            await page.reload()
        assert (await answer.value).status == 200
        await expect(page.get_by_role("navigation", name="Main")).to_be_visible()


async def test_a_thief_who_is_late_ends_the_session_and_the_owner_is_told_why(starting, visiting):
    demo = await starting(REFRESH_LEEWAY="0")
    context, elsewhere = await visiting(), await visiting()
    page, thief = await context.new_page(), await elsewhere.new_page()
    await demo.sign_up(page)
    loot = await copied(context, demo)
    await refresh_twice(context, page)

    await elsewhere.add_cookies(loot)
    await thief.goto(f"{demo.url}/profile")
    await at(thief, "Sign in")

    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Activity").click()
    await at(page, "Sign in")
    await alerted(page, "We ended your session to protect your account.")
    await page.reload()
    await alerted(page, "Sign in again, look through your devices")
    await fill_in_sign_in(page)
    await at(page, "Activity")
    await expect(page.get_by_text("Copied token used: session ended")).to_be_visible()
    assert await demo.new_mail(ADA, "A session of yours was ended")
    assert await copied(elsewhere, demo) == [], "nothing is left to the thief"


async def test_a_thief_who_is_first_has_the_session_only_until_its_owner_comes_back(starting, visiting):
    demo = await starting(REFRESH_LEEWAY="0")
    context, elsewhere = await visiting(), await visiting()
    page, thief = await context.new_page(), await elsewhere.new_page()
    await demo.sign_up(page)
    await elsewhere.add_cookies(await copied(context, demo))
    await thief.goto(f"{demo.url}/profile")
    await at(thief, "Profile")
    await refresh_twice(elsewhere, thief)

    await lose_access(context)
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices").click()
    await at(page, "Sign in")
    await alerted(page, "We ended your session to protect your account.")

    await thief.get_by_role("navigation", name="Main").get_by_role("link", name="Devices").click()
    await at(thief, "Sign in")
    await expect(card(thief, "You")).to_have_count(0)
