"""The page at `/docs` in a real browser: under its own strict policy, all by itself, and its calls can be tried."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.app import make_app
from service.http.protocol import Runner
from tests.conftest import PASSWORD, Assembling, free_port
from tests.e2e.conftest import _listen

pytestmark = pytest.mark.parametrize("connecting", ["redis"], indirect=True)

WATCH = (
    "addEventListener('securitypolicyviolation', (event) => (window.violations ??= []).push(event.violatedDirective))"
)


@pytest.fixture
async def api(assembling: Assembling) -> AsyncIterator[str]:
    """The address of an instance."""
    url = f"http://localhost:{free_port()}"
    runner = await _listen(Runner(make_app(await assembling(PUBLIC_URL=url))), url)
    yield url
    await runner.cleanup()


@pytest.fixture
async def docs(api: str, page: Any) -> Any:
    """The page, open; what it asked for and complained of is in `page.asked` and `page.complaints`."""
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    await page.add_init_script(WATCH)
    await page.goto(f"{api}/docs", wait_until="networkidle")
    return page


async def attempt(docs: Any, operation: str, fields: dict[str, str] | None = None) -> str:
    """Open a call, fill its fields, send it; the answer's text."""
    call = docs.locator(f"#{operation}")
    if await call.get_attribute("open") is None:
        await call.locator("summary").first.click()
    for name, value in (fields or {}).items():
        await call.locator(f"#{operation}-{name}").fill(value)
    await call.get_by_role("button", name="Send").click()
    answer = call.locator(".answer")
    await answer.wait_for()
    return str(await answer.inner_text())


async def test_it_shows_every_call_and_asks_nobody_but_us(api, docs):
    listed = await docs.locator(".group .call").count()
    document = await (await docs.request.get(f"{api}/openapi.json")).json()

    assert listed == sum(len(item.keys() - {"parameters"}) for item in document["paths"].values())
    assert {url.removeprefix(api) for url in docs.asked} <= {
        "/docs",
        "/docs/page.css",
        "/docs/page.js",
        "/openapi.json",
    }
    assert docs.complaints == []
    assert await docs.evaluate("window.violations ?? []") == []


async def test_every_call_can_be_opened_without_a_fault(docs):
    await docs.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    await docs.wait_for_function(
        "document.querySelectorAll('.group form').length === document.querySelectorAll('.group .call').length"
    )

    unlabelled = """
        [...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length).map((e) => e.id)
    """
    assert await docs.evaluate(unlabelled) == []
    ids = await docs.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    broken = """
        [...document.querySelectorAll('a[href^="#"]')]
          .map((link) => link.hash.slice(1)).filter((id) => !document.getElementById(id))
    """
    assert await docs.evaluate(broken) == []
    assert docs.complaints == []
    assert await docs.evaluate("window.violations ?? []") == []


async def test_a_person_signs_up_and_changes_their_name_with_the_cookies_of_the_browser(docs):
    body = f'{{"email": "ada@example.org", "password": "{PASSWORD}"}}'

    registered = await attempt(docs, "accountsRegister", {"body": body})
    me = await attempt(docs, "accountsMe")
    changed = await attempt(docs, "accountsChangeProfile", {"body": '{"firstName": "Augusta"}'})

    assert registered.startswith("201")
    assert me.startswith("200")
    assert '"firstName": "Augusta"' in changed
    assert "has a CSRF token" in await docs.locator("#csrf-line").inner_text()


async def test_a_token_is_used_instead_of_the_cookies(docs):
    body = f'{{"email": "ada@example.org", "password": "{PASSWORD}"}}'
    await docs.locator("#accountsRegister summary").first.click()
    await docs.locator("[id='accountsRegister-X-Auth-Mode']").select_option("token")
    await attempt(docs, "accountsRegister", {"body": body})

    unknown = await attempt(docs, "accountsMe")
    await docs.get_by_role("button", name="Use this access token").click()
    await docs.locator("#accountsMe .answer").evaluate("(element) => element.remove()")
    known = await attempt(docs, "accountsMe")

    assert "NO_TOKEN" in unknown
    assert known.startswith("200")
    assert await docs.context.cookies() == []


async def test_a_call_is_found_by_a_word_and_by_its_address(api, docs):
    await docs.locator("#filter").fill("TOO_MANY_KEYS")
    assert await docs.locator(".group .call:visible").count() == 1
    await docs.locator("#filter").fill("login")
    assert await docs.locator(".group .call:visible").count() == 1

    await docs.goto(f"{api}/docs#sessionsLogin")
    await docs.reload(wait_until="networkidle")
    assert await docs.locator("#sessionsLogin").get_attribute("open") == ""
