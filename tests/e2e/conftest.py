"""A real browser: headless Chromium, driven by Playwright, at a single-page app on an origin of its own."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.app import make_app
from service.http.protocol import Runner
from tests.conftest import Assembling, free_port, in_ci
from tests.npm import built_client
from tests.oauth.conftest import PEOPLE
from tests.oauth.github import GitHub, Person, email
from tests.oauth.openid_provider import OpenIDProvider, install

SPA = Path(__file__).with_name("app.html")


@dataclass
class World:
    """Where everything listens."""

    api: str
    app: str


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        (pytest.fail if in_ci() else pytest.skip)("needs Chromium: apt install chromium")
    return str(found)


@contextlib.asynccontextmanager
async def launched(*flags: str, profile: Path | None = None) -> AsyncIterator[Any]:
    """A browser with these flags; no traffic of its own leaves this machine. Of certificates it takes any.

    Without a profile it is an incognito window. With one it takes third-party cookies, as Chrome does unless told
    otherwise; Debian's Chromium would block them.
    """
    if in_ci():
        from playwright.async_api import async_playwright
    else:
        async_playwright = pytest.importorskip("playwright.async_api").async_playwright
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    how = {"executable_path": _chromium(), "args": [*quiet, "--disable-quic", *flags]}
    async with async_playwright() as playwright:
        if profile:
            preferences = profile / "Default" / "Preferences"
            preferences.parent.mkdir(parents=True)
            preferences.write_text('{"profile": {"cookie_controls_mode": 2}}')  # block them in incognito windows
            window = await playwright.chromium.launch_persistent_context(profile, ignore_https_errors=True, **how)
            yield window
            await window.close()
            return
        browser = await playwright.chromium.launch(**how)
        yield await browser.new_context(ignore_https_errors=True)
        await browser.close()


@pytest.fixture
async def page() -> AsyncIterator[Any]:
    """A page of a fresh browser."""
    async with launched() as window:
        yield await window.new_page()


@pytest.fixture
async def world(assembling: Assembling) -> AsyncIterator[World]:
    """The service with two providers on one origin, the app on another, as in development."""
    install()
    api, app = (f"http://localhost:{free_port()}" for _ in range(2))
    openid = OpenIDProvider([f"{api}/api/auth/example/callback"], PEOPLE)
    github = GitHub(f"{api}/api/auth/github/callback")
    github.add(Person(101, "ada-l", "Ada Lovelace", emails=[email("ada@example.org")]))
    openid.start()
    await github.start()
    known = {**openid.settings, **github.settings}
    its = await assembling(PUBLIC_URL=api, FRONTEND_URL=app, **known)
    runners = [await _listen(Runner(make_app(its)), api), await _listen(web.AppRunner(_single_page_app(api)), app)]
    yield World(api, app)
    for runner in runners:
        await runner.cleanup()
    await github.stop()
    openid.stop()


async def _listen(runner: web.AppRunner, url: str) -> web.AppRunner:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(url.rpartition(":")[2])).start()
    return runner


def _single_page_app(api: str) -> web.Application:
    """One page, and the client library."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=SPA.read_text().replace("API_URL", api), content_type="text/html")

    app = web.Application()
    app.router.add_static("/client", built_client())
    app.router.add_get("/{any:.*}", page)
    return app
