"""What a person does with an account, from the first day to the last, in the demo as it is deployed."""

import asyncio
import re

import aiohttp

from tests.conftest import PASSWORD
from tests.e2e.demo import ADA, LINK, alerted, at, card, fill_in_sign_in, go, said, sign_out
from tests.e2e.driver import Page, Route, expect

BETTER, BEST = "a longer sentence that is mine alone", "the third sentence, after a mail"


async def open_mailed(page: Page, text: str) -> None:
    link = LINK.search(text)
    assert link, text
    await page.goto(link[0])


async def test_a_person_signs_up_and_confirms_the_email_by_mail(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await page.goto(demo.url)
    await at(page, "Sign in")

    await page.get_by_role("link", name="Create an account").click()
    await at(page, "Create an account")
    await page.get_by_label("First name").fill("Ada")
    await page.get_by_label("Email").fill(ADA)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Create account").click()
    await at(page, "Profile")
    await expect(page.get_by_role("banner")).to_contain_text("Ada")
    await expect(card(page, "Email")).to_contain_text("not verified")

    await open_mailed(page, (await demo.new_mail(ADA, "Verify your email")).text)
    await at(page, "Confirm your email")
    await page.get_by_role("button", name="Confirm my email").click()
    await at(page, "Your email is confirmed")
    await page.get_by_role("link", name="Go to your profile").click()
    await at(page, "Profile")

    await expect(card(page, "Email").get_by_text("verified", exact=True)).to_be_visible()
    await page.go_back()
    await page.reload()
    await at(page, "This link does not work")


async def test_a_person_lives_with_an_account_and_leaves(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)

    await sign_out(page)
    await fill_in_sign_in(page, ADA, "not the password")
    await alerted(page, "The email or the password is not right.")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await at(page, "Profile")

    you = card(page, "You")
    await you.get_by_label("First name").fill("Ada")
    await you.get_by_label("Last name").fill("Lovelace")
    await you.get_by_role("button", name="Save").click()
    await said(page, "Your profile is saved.")
    await expect(page.get_by_role("banner")).to_contain_text("Ada Lovelace")

    await card(page, "Password").get_by_label("Current password").fill("not the password")
    await card(page, "Password").get_by_label("New password").fill(BETTER)
    await page.get_by_role("button", name="Change password").click()
    await expect(card(page, "Password").get_by_text("That is not your current password.")).to_be_visible()
    await card(page, "Password").get_by_label("Current password").fill(PASSWORD)
    await page.get_by_role("button", name="Change password").click()
    await said(page, "Your password is changed.")

    await sign_out(page)
    await page.get_by_role("link", name="Forgot your password?").click()
    await at(page, "Forgot your password?")
    await page.get_by_label("Email").fill(ADA)
    await page.get_by_role("button", name="Send the link").click()
    await at(page, "Check your mail")
    await open_mailed(page, (await demo.new_mail(ADA, "Set a new password")).text)
    await at(page, "Set a new password")
    await page.get_by_label("New password").fill("short")
    await page.get_by_role("button", name="Set password").click()
    await expect(page.locator("[aria-invalid=true]")).to_be_focused()
    await page.get_by_label("New password").fill(BEST)
    await page.get_by_role("button", name="Set password").click()
    await at(page, "Your password is set")
    await page.get_by_role("link", name="Sign in").click()
    await fill_in_sign_in(page, ADA, BETTER)
    await alerted(page, "The email or the password is not right.")
    await fill_in_sign_in(page, ADA, BEST)
    await at(page, "Profile")

    await go(page, "Activity")
    events = page.get_by_role("list", name="Events")
    for event in ("Signed in", "Password reset by mail", "Password changed", "Account created"):
        await expect(events.get_by_text(event, exact=True).first).to_be_visible()
    await expect(events.get_by_role("listitem").filter(has_text="Sign-in refused").first).to_contain_text(
        "wrong password"
    )

    await go(page, "Profile")
    await page.get_by_role("button", name="Delete account").click()
    dialog = page.get_by_role("dialog", name="Delete your account?")
    await dialog.get_by_label("Password").fill("not the password")
    await dialog.get_by_role("button", name="Delete for good").click()
    await expect(dialog.get_by_text("That is not your password.")).to_be_visible()
    await dialog.get_by_label("Password").fill(BEST)
    await dialog.get_by_role("button", name="Delete for good").click()
    await said(page, "Your account is deleted.")
    await at(page, "Sign in")
    await fill_in_sign_in(page, ADA, BEST)
    await alerted(page, "The email or the password is not right.")


async def test_a_device_that_is_signed_out_from_afar_notices_with_its_next_action(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1"
    other = await (await visiting(user_agent=phone)).new_page()
    await demo.sign_up(page)
    await demo.sign_in(other)

    await go(page, "Devices")
    devices = page.get_by_role("list", name="Signed-in devices").get_by_role("listitem")
    await expect(devices).to_have_count(2)
    await expect(devices.filter(has_text="this device")).to_contain_text("Chrome on Linux")
    await page.get_by_role("button", name="Sign out Safari on iPhone").click()
    await page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    await said(page, "Safari on iPhone is signed out.")
    await expect(devices).to_have_count(1)
    await expect(devices.get_by_role("button")).to_be_focused()

    await other.get_by_role("navigation", name="Main").get_by_role("link", name="Activity").click()
    await at(other, "Sign in")
    await said(other, "Your session was ended, here or on another device.")
    await fill_in_sign_in(other)
    await at(other, "Activity")


async def test_an_api_key_works_until_it_is_revoked(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)

    async def call(key: str) -> int:
        headers = {"X-API-Key": key}
        async with (
            aiohttp.ClientSession(demo.api) as session,
            session.get("/api/auth/verify", headers=headers) as answer,
        ):
            return answer.status

    await go(page, "API keys")
    await page.get_by_label("Name").fill("nightly backup")
    await page.get_by_role("button", name="Create key").click()
    await expect(page.get_by_role("heading", name="Copy your key now")).to_be_focused()
    key = await page.get_by_label("Your new API key").input_value()
    assert re.match(r"ak_\w+", key)
    assert await call(key) == 200

    await page.get_by_role("button", name="I have kept it").click()
    await expect(page.get_by_text(key)).to_have_count(0)
    await expect(page.get_by_role("heading", name="New key")).to_be_focused()

    closed = asyncio.Event()

    async def fail_late(route: Route) -> None:
        await closed.wait()
        await route.abort()

    await page.route("**/api/auth/api-keys/*", fail_late)
    await page.get_by_role("button", name="Revoke nightly backup").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    closed.set()
    await said(page, "We cannot reach the service.")
    await page.unroute("**/api/auth/api-keys/*")

    await page.get_by_role("button", name="Revoke nightly backup").click()
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_have_count(0)
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await said(page, "nightly backup is revoked.")
    await expect(card(page, "Your keys")).to_contain_text("You have no keys.")
    await expect(page.get_by_role("heading", name="Your keys")).to_be_focused()
    assert await call(key) == 401
