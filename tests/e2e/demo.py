"""The demo as it is deployed: built, from a static server on an origin of its own, on a service in a process."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from service.settings import ROOT
from tests.conftest import PASSWORD, RedisServer
from tests.e2e.driver import BrowserContext, Locator, Page, expect
from tests.faults.instances import Instance
from tests.mail.smtp_server import Received, SmtpServer

DEMO = ROOT / "clients" / "demo"
LIBRARY = ROOT / "clients" / "js" / "dist"
ADA, BOB, ADMIN = "ada@example.org", "bob@example.org", "admin@example.org"
LINK = re.compile(r"https?://\S+#token=\S+")


def policy(api: str) -> str:
    """The Content-Security-Policy that the demo's README tells operators to send, for this service."""
    found = re.search(r"Content-Security-Policy: (.+?)\n```", (DEMO / "README.md").read_text(), re.DOTALL)
    assert found, "the README names no policy"
    return " ".join(found[1].split()).replace("https://auth.example.org", api)


def static(dist: Path, api: str) -> web.Application:
    """Any static server: files, and index.html for every path that is none. Where the service is, says config.json."""
    headers = {"Content-Security-Policy": policy(api), "X-Content-Type-Options": "nosniff"}

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path == "config.json":
            return web.json_response({"authUrl": api}, headers=headers)
        if path.startswith("library/"):  # for pages that try the library by itself
            return web.FileResponse(LIBRARY / path.removeprefix("library/"), headers=headers)
        file = dist / path
        return web.FileResponse(file if path and file.is_file() else dist / "index.html", headers=headers)

    app = web.Application()
    app.router.add_get("/{path:[A-Za-z0-9_./-]*}", answer)
    return app


@dataclass
class Demo:
    """A demo that runs, and what it runs on."""

    url: str
    api: str
    redis: RedisServer
    mail: SmtpServer
    instance: Instance
    settings: dict[str, str] = field(repr=False)

    async def sign_up(self, page: Page, email: str = ADA, password: str = PASSWORD) -> None:
        await page.goto(f"{self.url}/register")
        await page.get_by_label("Email").fill(email)
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Create account").click()
        await at(page, "Profile")

    async def sign_in(self, page: Page, email: str = ADA, password: str = PASSWORD) -> None:
        await page.goto(f"{self.url}/login")
        await fill_in_sign_in(page, email, password)
        await at(page, "Profile")

    async def new_mail(self, address: str, subject: str) -> Received:
        """The newest mail to somebody about something, as soon as there is one."""
        async with asyncio.timeout(30):
            while True:
                for received in reversed(self.mail.to(address)):
                    if subject in str(received.message["Subject"]):
                        return received
                await asyncio.sleep(0.02)

    async def ask_as(self, email: str, path: str, password: str = PASSWORD) -> Any:
        """What the service answers an onlooker who has signed in for this one question, which tells the test more."""
        headers = {"X-Auth-Mode": "token"}
        async with aiohttp.ClientSession(self.api, headers=headers) as session:
            async with session.post("/api/auth/login", json={"email": email, "password": password}) as response:
                assert response.status == 200, await response.text()
                headers["Authorization"] = f"Bearer {(await response.json())['accessToken']}"
            async with session.get(path, headers=headers) as response:
                assert response.status == 200, await response.text()
                return await response.json()

    def command(self, *arguments: str, said: str = "") -> str:
        """A command of the operator, with the settings of the service; gives what it prints."""
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.settings}
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            cwd=self.redis.directory,
            env=environ,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


Starting = Callable[..., Awaitable[Demo]]
Visiting = Callable[..., Awaitable[BrowserContext]]


async def at(page: Page, title: str) -> None:
    """Wait for a page by its heading."""
    await expect(page.get_by_role("heading", level=1, name=title, exact=True)).to_be_visible()


async def go(page: Page, place: str, title: str | None = None) -> None:
    """Follow a link of the main navigation, without loading anything anew."""
    await page.get_by_role("navigation", name="Main").get_by_role("link", name=place, exact=True).click()
    await at(page, title or place)


async def fill_in_sign_in(page: Page, email: str = ADA, password: str = PASSWORD) -> None:
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def sign_out(page: Page) -> None:
    await page.get_by_role("banner").get_by_role("button", name="Sign out").click()
    await at(page, "Sign in")


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


async def said(page: Page, text: str) -> None:
    """Wait for good news: a status that is read out."""
    await expect(page.get_by_role("status").get_by_text(text).first).to_be_visible()


async def alerted(page: Page, text: str) -> None:
    """Wait for an alert."""
    await expect(page.get_by_role("alert").get_by_text(text).first).to_be_visible()


async def lose_access(context: BrowserContext) -> None:
    """As if the access token had run out: its cookie is gone, and the next call has to refresh."""
    await context.clear_cookies(name="accessToken")
