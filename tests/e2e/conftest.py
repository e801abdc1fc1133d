"""A real browser: headless Chromium, driven by Playwright, at a single-page app on an origin of its own."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.app import make_app
from service.http.protocol import Runner
from tests.conftest import WIDE, Assembling, RedisServer, free_port, in_ci
from tests.faults.instances import STRONG, Instance
from tests.faults.proxy import Proxy
from tests.mail.smtp_server import SmtpServer
from tests.npm import built_client, built_demo
from tests.oauth.conftest import PEOPLE
from tests.oauth.github import GitHub, Person, email
from tests.oauth.openid_provider import OpenIDProvider, install

SPA = Path(__file__).with_name("app.html")
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


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
    from tests.e2e.driver import async_playwright

    how = {"executable_path": _chromium(), "args": [*QUIET, *flags]}
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
async def chromium() -> AsyncIterator[Any]:
    """A fresh browser; no traffic leaves this machine."""
    from tests.e2e.driver import async_playwright

    alone = "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_chromium(), args=[*QUIET, alone])
        yield browser
        await browser.close()


@pytest.fixture
async def page(chromium: Any) -> Any:
    """A page of a fresh browser."""
    return await (await chromium.new_context()).new_page()


@pytest.fixture
async def visiting(chromium: Any) -> AsyncIterator[Any]:
    """Opens one more device, with cookies of its own: `await visiting(color_scheme="dark")`.

    Whatever the console calls an error fails the test, a violated policy above all. Only answers other than 2xx, which
    Chromium writes there too, are none of its business.
    """
    from tests.e2e.driver import PATIENCE

    complaints: list[str] = []

    def hear(message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource:"):
            complaints.append(f"{message.text} ({message.page.url if message.page else ''})")

    async def visit(**options: Any) -> Any:
        context = await chromium.new_context(**{"locale": "en-GB", "reduced_motion": "reduce", **options})
        context.set_default_timeout(PATIENCE)
        context.on("console", hear)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context

    yield visit
    assert complaints == []


@pytest.fixture(scope="session")
def dist() -> Path:
    """The demo as it is built."""
    return built_demo()


@pytest.fixture
async def starting(
    dist: Path, own_redis: RedisServer, mail: SmtpServer, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """Starts the service and the demo: `await starting(REFRESH_LEEWAY="0", hosts=("localhost", "127.0.0.1"))`.

    With `behind` the browsers reach the service through that, which listens at its own port.
    """
    from tests.e2e.demo import Demo, static

    ended: list[Callable[[], Awaitable[Any]]] = []

    async def start(
        behind: Proxy | None = None,
        port: int | None = None,
        hosts: tuple[str, str] = ("localhost",) * 2,
        **changes: str,
    ) -> Demo:
        port = port or free_port()
        if behind:
            behind.lead_to(port)
            await behind.start()
            ended.append(behind.stop)
        api, app = f"http://{hosts[0]}:{behind.port if behind else port}", f"http://{hosts[1]}:{free_port()}"
        settings = {
            "AUTH_SECRET": STRONG,
            "REDIS_URL": own_redis.url,
            "PUBLIC_URL": api,
            "FRONTEND_URL": app,
            "RATE_LIMITS": WIDE,
            **mail.settings,
            **changes,
        }
        instance = Instance(tmp_path, own_redis.url, port=port, **settings)
        ended.append(instance.clean_up)
        runner = await _listen(web.AppRunner(static(dist, api), access_log=None), app)
        ended.append(runner.cleanup)
        await instance.ready()
        return Demo(app, api, own_redis, mail, instance, settings)

    yield start
    for end in reversed(ended):
        await end()


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
