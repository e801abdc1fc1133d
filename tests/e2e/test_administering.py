"""What an admin sees and does, and what those notice to whom it is done; and what a limit says."""

import asyncio

from tests.conftest import PASSWORD
from tests.e2e.demo import ADA, ADMIN, BOB, alerted, at, card, fill_in_sign_in, go, said
from tests.e2e.driver import expect


async def test_an_admin_finds_a_user_and_disables_the_account_and_its_owner_notices(starting, visiting):
    demo = await starting()
    page, ada, bob = [await (await visiting()).new_page() for _ in range(3)]
    await asyncio.to_thread(demo.command, "create-admin", ADMIN, said=PASSWORD + "\n")
    await demo.sign_up(ada, ADA)
    await demo.sign_up(bob, BOB)
    await demo.sign_in(page, ADMIN)

    await go(page, "Users")
    rows = page.get_by_role("table", name="Users").get_by_role("row")
    await expect(rows).to_have_count(4)  # with that of the headings
    await page.get_by_label("Role").select_option("admin")
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Clear").click()
    await page.get_by_label("Email").fill(ADA)
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(2)
    await page.get_by_role("link", name=ADA).click()
    await at(page, ADA)
    await page.get_by_role("button", name="Disable account").click()
    await page.get_by_role("dialog", name="Disable this account?").get_by_role("button", name="Disable").click()
    await said(page, "The account is disabled.")
    await expect(card(page, "Account").get_by_text("disabled", exact=True)).to_be_visible()

    await ada.get_by_role("navigation", name="Main").get_by_role("link", name="Activity").click()
    await at(ada, "Sign in")
    await expect(ada.get_by_role("status").get_by_text("This account is disabled.")).to_be_visible()
    await fill_in_sign_in(ada, ADA)
    await alerted(ada, "This account is disabled. Ask an administrator.")
    await go(bob, "Activity")

    await page.get_by_role("link", name="What happened to this account").click()
    await at(page, "Audit trail")
    events = page.get_by_role("list", name="Events")
    await expect(events.get_by_text("Account disabled", exact=True)).to_be_visible()
    await expect(events.get_by_role("listitem").filter(has_text="Sign-in refused")).to_contain_text(
        "the account is disabled"
    )
    await page.get_by_label("What happened").select_option("accounts.user.registered")
    await page.get_by_role("button", name="Filter").click()
    await expect(events.get_by_role("listitem")).to_have_count(1)
    await go(page, "Statistics")
    await expect(page.get_by_label("Accounts and sessions")).to_contain_text("Users3Active2Disabled1")
    await expect(page.get_by_role("row", name="Failed sign-ins")).to_contain_text("Failed sign-ins11")


async def test_who_is_no_admin_sees_no_admin_pages(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)

    await expect(page.get_by_role("link", name="Users")).to_have_count(0)
    for path in ("users", "users/someone", "statistics", "audit"):
        await page.goto(f"{demo.url}/admin/{path}")
        await at(page, "This is not for you")


async def test_a_right_that_is_given_is_there_with_the_next_action(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)

    await asyncio.to_thread(demo.command, "create-admin", ADA)
    await go(page, "Devices")

    await go(page, "Users")
    await expect(page.get_by_role("table", name="Users")).to_contain_text(ADA)


async def test_a_limit_says_in_the_form_when_to_try_again(starting, visiting):
    demo = await starting(RATE_LIMITS="login=2/1m")
    page = await (await visiting()).new_page()
    await page.goto(f"{demo.url}/login")
    for _ in range(2):
        await fill_in_sign_in(page, ADA, "not the password")
        await alerted(page, "The email or the password is not right.")

    await fill_in_sign_in(page, ADA, "not the password")

    form = page.locator("form")
    await expect(form.get_by_role("alert").get_by_text("Too many tries. Try again in")).to_be_focused()
    assert await page.get_by_label("Email").input_value() == ADA
