"""The service and the app on hosts of their own, over plain http: what browsers allow there, and what they do not.

Two hosts of one site share no cookie that a script could read, but those of the service come along. Between two sites
cookies with `SameSite=Lax` do not, and those with `None` need https.
"""

from tests.conftest import PASSWORD
from tests.e2e.demo import ADA, at, lose_access, sign_out
from tests.e2e.driver import expect

SAME_SITE = ("auth.example.localhost", "app.example.localhost")
OTHER_SITE = ("localhost", "127.0.0.1")

LIVE_ON_TOKENS = """async ([api, email, password]) => {
    const { createAuth } = await import("/library/index.js");
    const auth = createAuth({ baseUrl: api, mode: "token" });
    await auth.register({ email, password });
    const reached = await auth.fetch("/api/auth/sessions");
    const before = auth.state.status;
    await auth.logout();
    return [before, reached.status, (await reached.json()).items.length, auth.state.status];
}"""


async def test_an_app_beside_the_service_on_the_same_site_keeps_a_person_signed_in(starting, visiting):
    demo = await starting(hosts=SAME_SITE)
    context = await visiting()
    page = await context.new_page()
    await demo.sign_up(page)
    assert await page.evaluate("document.cookie") == ""

    for again in range(2):
        await page.reload()
        await page.get_by_label("First name").fill(f"Ada {again}")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("banner")).to_contain_text(f"Ada {again}")
        await lose_access(context)

    await sign_out(page)
    await page.reload()
    await at(page, "Sign in")


async def test_cookies_of_another_site_do_not_keep_a_person_signed_in(starting, visiting):
    demo = await starting(hosts=OTHER_SITE)
    context = await visiting()
    page = await context.new_page()
    await demo.sign_up(page)

    await page.reload()

    await at(page, "Sign in")
    assert await context.cookies() == []


async def test_tokens_do(starting, visiting):
    demo = await starting(hosts=OTHER_SITE)
    page = await (await visiting()).new_page()
    await page.goto(f"{demo.url}/login")
    await expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()

    said = await page.evaluate(LIVE_ON_TOKENS, [demo.api, ADA, PASSWORD])

    assert said == ["authenticated", 200, 1, "unauthenticated"]
    assert await page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
