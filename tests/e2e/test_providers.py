"""Signing in elsewhere with the certified provider, from the demo and back into it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conftest import free_port
from tests.e2e.demo import ADA, BOB, alerted, at, card, fill_in_sign_in, said, sign_out
from tests.e2e.driver import Page, expect
from tests.oauth.openid_provider import OpenIDProvider, install

PEOPLE = {
    "ada": {
        "email": ADA,
        "email_verified": True,
        "name": "Ada Lovelace",
        "given_name": "Ada",
        "family_name": "Lovelace",
    },
    "mallory": {"email": ADA, "email_verified": False},
    "robert": {"email": "robert@example.net", "email_verified": True},
}


@pytest.fixture
async def with_provider(starting: Callable[..., Any]) -> AsyncIterator[Any]:
    """The demo with the provider behind it."""
    install()
    port = free_port()
    provider = OpenIDProvider([f"http://localhost:{port}/api/auth/example/callback"], PEOPLE)
    provider.start()
    yield await starting(port=port, **provider.settings)
    provider.stop()


async def sign_in_there(page: Page, login: str) -> None:
    """What a person does on the provider's pages."""
    await page.locator("[name=login]").fill(login)
    await page.locator("[name=password]").fill("anything")
    await page.locator("[type=submit]").click()
    await page.locator("[name=prompt][value=consent]").wait_for(state="attached")
    await page.locator("[type=submit]").click()


async def test_a_person_signs_in_with_a_provider_and_lands_where_they_were_going(with_provider, visiting):
    page = await (await visiting()).new_page()
    await page.goto(f"{with_provider.url}/activity")
    await at(page, "Sign in")

    await page.get_by_role("button", name="Continue with Example").click()
    await sign_in_there(page, "ada")

    await at(page, "Activity")
    await expect(page.get_by_role("banner")).to_contain_text("Ada Lovelace")
    await page.reload()
    await at(page, "Activity")
    await sign_out(page)


async def test_a_sign_in_that_is_cancelled_at_the_provider_says_so_and_another_one_works(with_provider, visiting):
    page = await (await visiting()).new_page()
    await page.goto(f"{with_provider.url}/login")
    await page.get_by_role("button", name="Continue with Example").click()
    await page.locator("a[href$=abort]").click()

    await at(page, "Sign in")
    await alerted(page, "The sign-in was cancelled at the provider.")
    await page.get_by_role("button", name="Dismiss this message").click()
    await expect(page.get_by_role("alert").filter(has_text="cancelled")).to_have_count(0)
    await page.get_by_role("button", name="Continue with Example").click()
    await sign_in_there(page, "ada")
    await at(page, "Profile")


async def test_a_provider_is_linked_in_the_profile_and_unlinked_again(with_provider, visiting):
    demo, page = with_provider, await (await visiting()).new_page()
    await demo.sign_up(page, BOB)
    ways = card(page, "Other ways to sign in")
    await expect(ways).to_contain_text("not linked")

    await page.get_by_role("button", name="Link Example").click()
    await sign_in_there(page, "robert")
    await at(page, "Profile")
    await expect(ways).to_contain_text("robert@example.net, linked")
    await sign_out(page)
    await page.get_by_role("button", name="Continue with Example").click()
    await at(page, "Profile")
    await expect(card(page, "Email")).to_contain_text(BOB)

    await page.get_by_role("button", name="Unlink Example").click()
    await page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    await said(page, "Example is unlinked.")
    await expect(ways).to_contain_text("not linked")


async def test_an_email_that_the_provider_has_not_verified_opens_no_account(with_provider, visiting):
    demo, page = with_provider, await (await visiting()).new_page()
    await demo.sign_up(page, ADA)
    await sign_out(page)

    await page.get_by_role("button", name="Continue with Example").click()
    await page.locator("a[href$=abort]").click()
    await alerted(page, "The sign-in was cancelled at the provider.")

    await page.get_by_role("button", name="Continue with Example").click()
    await sign_in_there(page, "mallory")

    await at(page, "Sign in")
    await alerted(page, "Sign in to it with its password, then link the provider.")
    await expect(page.get_by_text("cancelled")).to_have_count(0)
    await fill_in_sign_in(page, ADA)
    await at(page, "Profile")
    await expect(card(page, "Other ways to sign in")).to_contain_text("not linked")
