"""Every page of the demo: for everybody to use, on a phone and in the dark too, under the policy of its README.

`SCREENSHOTS=folder` looks at each in both themes and two widths, and keeps the pictures.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PASSWORD, free_port
from tests.e2e.demo import ADA, ADMIN, DEMO, at, fill_in_sign_in, go, said
from tests.e2e.driver import Page, expect
from tests.oauth.openid_provider import CLIENT_ID, CLIENT_SECRET

AXE = DEMO / "node_modules" / "axe-core" / "axe.min.js"
THEMES = ("light", "dark")
DESKTOP, PHONE, SMALL = 1280, 375, 320  # CSS pixels; the last is what WCAG 2.2, 1.4.10 asks for
EVERY_WAY = [(theme, width) for theme in THEMES for width in (DESKTOP, PHONE)]
# Colours depend on the theme and the rest on the width, so that two of the four looks see everything.
ENOUGH = [("light", DESKTOP), ("dark", PHONE)]
LONG = "Wolfeschlegelsteinhausenbergerdorffwelchevoraltern"

GUESTS = {
    "/login": "Sign in",
    "/login?session=reused": "Sign in",
    "/login?session=expired&error=OAUTH_DENIED": "Sign in",
    "/register": "Create an account",
    "/forgot-password": "Forgot your password?",
    "/reset-password#token=some": "Set a new password",
    "/reset-password": "This link does not work",
    "/verify-email#token=some": "Confirm your email",
    "/verify-email": "This link does not work",
    "/nowhere": "There is nothing here",
}
MEMBERS = {
    "/profile": "Profile",
    "/sessions": "Devices",
    "/api-keys": "API keys",
    "/activity": "Activity",
    "/admin/users/nobody": "This is not for you",
}
ADMINS = {
    "/admin/users": "Users",
    "/admin/statistics": "Statistics",
    "/admin/audit": "Audit trail",
}


class Eye:
    """Looks at pages, and keeps what is wrong with them."""

    def __init__(self) -> None:
        self.found: list[str] = []

    async def look(self, page: Page, name: str) -> None:
        """At a page as it is now, without loading it anew: themes and widths are the browser's."""
        await expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
        folder = os.environ.get("SCREENSHOTS")
        for theme, width in EVERY_WAY if folder else ENOUGH:
            await page.emulate_media(color_scheme=theme)
            await page.set_viewport_size({"width": width, "height": 800})
            self.found += [f"{name}, {theme}, {width} px: {fault}" for fault in await self._faults(page)]
            if folder:
                path = Path(folder) / f"{name.replace(' ', '-')}-{theme}-{width}.png"
                await page.screenshot(path=path, full_page=True)
        await page.set_viewport_size({"width": SMALL, "height": 800})
        if wide := await self._too_wide(page):
            self.found.append(f"{name}, {SMALL} px: {wide}")
        await page.set_viewport_size({"width": DESKTOP, "height": 800})

    async def _faults(self, page: Page) -> list[str]:
        if not await page.evaluate("'axe' in window"):
            await page.evaluate(AXE.read_text())
        told = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        serious = [each for each in told["violations"] if each["impact"] in ("serious", "critical")]
        faults = [f"{each['id']}, {each['help']}: {_where(each)}" for each in serious]
        return [*faults, *filter(None, [await self._too_wide(page)])]

    async def _too_wide(self, page: Page) -> str | None:
        """Whether one has to scroll sideways."""
        over = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return f"{over} px wider than the screen" if over > 0 else None


def _where(violation: dict[str, Any]) -> str:
    return "; ".join(f"{' '.join(map(str, node['target']))} ({node['failureSummary']})" for node in violation["nodes"])


def refusals(page: Page) -> list[str]:
    """Answers that say no, from now on."""
    kept: list[str] = []
    page.on("response", lambda answer: answer.status >= 400 and kept.append(f"{answer.status} {answer.url}"))
    return kept


def test_every_page_of_the_app_is_looked_at():
    routes = set(re.findall(r'path="([^"*]+)"', (DEMO / "src" / "app.tsx").read_text()))

    looked_at = {re.split(r"[?#]", path)[0] for path in (*GUESTS, *MEMBERS, *ADMINS)}
    assert routes - looked_at == {"/", "/admin", "/admin/users/:id"}, "two that lead elsewhere, and one with an id"


async def test_guests_pages_are_accessible_and_fit_a_phone(starting, visiting):
    nobody = f"http://127.0.0.1:{free_port()}"
    provider = {"ISSUER": nobody, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": CLIENT_SECRET}
    demo = await starting(**{f"OIDC_EXAMPLE_{name}": value for name, value in provider.items()})
    page, eye = await (await visiting()).new_page(), Eye()
    refused = refusals(page)
    for path, title in GUESTS.items():
        await page.goto("about:blank")
        await page.goto(demo.url + path)
        await at(page, title)
        if title in ("Sign in", "Create an account"):
            await expect(page.get_by_role("button", name="Continue with Example")).to_be_visible()
        await eye.look(page, f"guest {re.sub(r'[^a-z]+', ' ', path).strip()}")
    assert {re.sub(r"http://[^/]+", "", each) for each in refused} <= {"401 /api/auth/me", "401 /api/auth/refresh"}

    await page.goto(f"{demo.url}/register")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_label("Email")).to_be_focused()
    await eye.look(page, "guest register incomplete")
    await page.goto(f"{demo.url}/login")
    await fill_in_sign_in(page, ADA, "not the password")
    await expect(page.get_by_text("The email or the password is not right.")).to_be_focused()
    await eye.look(page, "guest login refused")
    await page.goto(f"{demo.url}/forgot-password")
    await page.get_by_label("Email").fill(f"{LONG}@example.org")
    await page.get_by_role("button", name="Send the link").click()
    await at(page, "Check your mail")
    await eye.look(page, "guest forgot password sent")
    assert eye.found == []


async def test_members_pages_are_accessible_and_fit_a_phone(starting, visiting):
    demo = await starting()
    page, eye = await (await visiting()).new_page(), Eye()
    await demo.sign_up(page, f"{LONG.lower()}@example.org")
    await page.get_by_label("First name").fill(LONG)
    await page.get_by_label("Last name").fill(LONG)
    await page.get_by_role("button", name="Save").click()
    await said(page, "Your profile is saved.")
    refused = refusals(page)
    for path, title in MEMBERS.items():
        await page.goto(demo.url + path)
        await at(page, title)
        await eye.look(page, f"member {re.sub(r'[^a-z]+', ' ', path).strip()}")
    assert refused == []

    await go(page, "API keys")
    await page.get_by_label("Name").fill(LONG)
    await page.get_by_role("button", name="Create key").click()
    await expect(page.get_by_role("button", name=f"Revoke {LONG}")).to_be_visible()
    await eye.look(page, "member api keys made")
    await go(page, "Devices")
    await page.get_by_role("button", name="Sign out everywhere").click()
    await expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    await eye.look(page, "member sessions dialog")
    await page.keyboard.press("Escape")
    await go(page, "Profile")
    await page.get_by_text("Change your email", exact=True).click()
    await page.get_by_role("button", name="Delete account").click()
    await expect(page.get_by_role("dialog", name="Delete your account?")).to_be_visible()
    await eye.look(page, "member profile dialog")
    await page.keyboard.press("Escape")

    await asyncio.to_thread(demo.redis.kill)
    await page.get_by_role("button", name="Save").click()
    await said(page, "We cannot reach the service; trying again.")
    await eye.look(page, "member outage")
    assert eye.found == []


async def test_admins_pages_are_accessible_and_fit_a_phone(starting, visiting):
    demo = await starting()
    page, eye = await (await visiting()).new_page(), Eye()
    await asyncio.to_thread(demo.command, "create-admin", ADMIN, said=PASSWORD + "\n")
    await demo.sign_up(await (await visiting()).new_page(), f"{LONG.lower()}@example.org")
    await demo.sign_in(page, ADMIN)
    refused = refusals(page)
    for path, title in ADMINS.items():
        await page.goto(demo.url + path)
        await at(page, title)
        await eye.look(page, path.replace("/", " ").strip())
    await go(page, "Users")
    await page.get_by_role("link", name=LONG.lower()).click()
    await expect(page.get_by_role("heading", name="Access")).to_be_visible()
    await eye.look(page, "admin user")
    assert refused == []
    assert eye.found == []


@pytest.mark.parametrize("chosen", THEMES)
async def test_the_theme_that_was_chosen_outlives_the_page_and_the_system_s(starting, visiting, chosen):
    demo = await starting()
    system = THEMES[1 - THEMES.index(chosen)]
    page = await (await visiting(color_scheme=system)).new_page()
    await page.goto(f"{demo.url}/login")
    background = "getComputedStyle(document.body).backgroundColor"
    before = await page.evaluate(background)

    await page.get_by_role("button", name=f"Use the {chosen} theme").click()
    after = await page.evaluate(background)
    await page.reload()

    await expect(page.get_by_role("button", name=f"Use the {system} theme")).to_be_visible()
    assert await page.evaluate(background) == after != before
