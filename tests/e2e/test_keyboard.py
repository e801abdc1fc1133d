"""Without a mouse: everything can be reached, and the focus is where one goes on."""

from tests.conftest import PASSWORD
from tests.e2e.demo import ADA, at
from tests.e2e.driver import Locator, Page, expect


async def tab_to(page: Page, goal: Locator, back: bool = False) -> None:
    """Press Tab until the focus is there."""
    for _ in range(60):
        if await goal.evaluate("element => element === document.activeElement"):
            return
        await page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"{goal} cannot be reached")


def heading(page: Page, title: str) -> Locator:
    return page.get_by_role("heading", level=1, name=title, exact=True)


async def test_a_person_signs_up_and_in_and_out_with_the_keyboard_alone(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await page.goto(f"{demo.url}/login")
    await at(page, "Sign in")
    email, password = page.get_by_label("Email"), page.get_by_label("Password")

    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(email).to_be_focused()
    await tab_to(page, page.get_by_role("link", name="Create an account"))
    await page.keyboard.press("Enter")
    await expect(heading(page, "Create an account")).to_be_focused()

    await tab_to(page, email)
    await page.keyboard.type("ada at example")
    await tab_to(page, password)
    await page.keyboard.type("short")
    await page.keyboard.press("Enter")
    await expect(email).to_be_focused()
    await expect(email).to_have_accessible_description("Enter an address such as ada@example.org.")
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type(ADA)
    await page.keyboard.press("Enter")
    await expect(password).to_be_focused()
    await expect(password).to_have_attribute("aria-invalid", "true")
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(heading(page, "Profile")).to_be_focused()

    await tab_to(page, page.get_by_role("button", name="Sign out"), back=True)
    await page.keyboard.press("Enter")
    await expect(heading(page, "Sign in")).to_be_focused()
    await tab_to(page, email)
    await page.keyboard.type(ADA)
    await page.keyboard.press("Tab")
    await page.keyboard.type("not the password")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The email or the password is not right.")).to_be_focused()
    await tab_to(page, password, back=True)
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(heading(page, "Profile")).to_be_focused()


async def test_a_dialog_takes_the_focus_keeps_it_and_gives_it_back(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)
    await tab_to(page, page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices"))
    await page.keyboard.press("Enter")
    await expect(heading(page, "Devices")).to_be_focused()
    everywhere = page.get_by_role("button", name="Sign out everywhere")
    await expect(everywhere).to_be_visible()

    await tab_to(page, everywhere)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Sign out everywhere?")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    outside = (
        "!['BODY', undefined].includes(document.activeElement?.tagName) && !document.activeElement.closest('dialog')"
    )
    for _ in range(6):
        await page.keyboard.press("Tab")
        assert not await page.evaluate(outside)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(everywhere).to_be_focused()

    await page.keyboard.press("Enter")
    await tab_to(page, dialog.get_by_role("button", name="Sign out everywhere"), back=True)
    await page.keyboard.press("Enter")
    await expect(heading(page, "Sign in")).to_be_focused()


async def test_a_form_that_was_sent_keeps_the_focus_where_one_goes_on(starting, visiting):
    demo = await starting()
    page = await (await visiting()).new_page()
    await demo.sign_up(page)

    save = page.get_by_role("button", name="Save")
    await tab_to(page, page.get_by_label("First name"))
    await page.keyboard.type("Ada")
    await tab_to(page, save)
    await page.keyboard.press("Enter")

    await expect(page.get_by_role("status").get_by_text("Your profile is saved.")).to_be_visible()
    await expect(save).to_be_focused()
