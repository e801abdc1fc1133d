"""Providers to sign in at, all on loopback, and a browser that goes there and comes back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import WIDE, Answer, Browser, Serving, parts_of
from tests.oauth.github import GitHub, Person, email
from tests.oauth.hostile import Hostile
from tests.oauth.openid_provider import OpenIDProvider, install

PUBLIC_URL = "http://localhost:8000"
APP = "http://localhost:5173"
LIMITS = {"RATE_LIMITS": WIDE + ",oauth=10000/10m"}
JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TOKENS = {"X-Auth-Mode": "token"}

PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {
        "email": "ada@example.org",
        "email_verified": True,
        "name": "Ada Lovelace",
        "given_name": "Ada",
        "family_name": "Lovelace",
        "picture": "https://pictures.example.org/ada.png",
    },
    "bob": {"email": "bob@example.org", "email_verified": True, "name": "Bob"},
    "unverified": {"email": "ada@example.org", "email_verified": False},
    "nameless": {},
}


@pytest.fixture(scope="session")
def openid_provider() -> Iterator[OpenIDProvider]:
    """The certified provider, shared by the tests of a run; count differences, not totals."""
    install()
    provider = OpenIDProvider([callback_of("example")], PEOPLE)
    provider.start()
    yield provider
    provider.stop()


@pytest.fixture
async def github() -> AsyncIterator[GitHub]:
    """A GitHub where Ada has an account with a private, verified email."""
    provider = GitHub(callback_of("github"))
    provider.add(Person(101, "ada-l", "Ada Lovelace", emails=[email("ada@example.org")]))
    await provider.start()
    yield provider
    await provider.stop()


MakingHostile = Callable[..., Awaitable[Hostile]]


@pytest.fixture
async def making_hostile() -> AsyncIterator[MakingHostile]:
    """Starts a provider that can be bent: `await making_hostile("mallory")`."""
    made: list[Hostile] = []

    async def make(name: str = "hostile") -> Hostile:
        made.append(provider := Hostile(name))
        await provider.start()
        return provider

    yield make
    for provider in made:
        await provider.stop()


@pytest.fixture
async def hostile(making_hostile: MakingHostile) -> Hostile:
    return await making_hostile()


Visiting = Callable[..., Awaitable[Browser]]


@pytest.fixture
async def visiting(serving: Serving) -> Visiting:
    """A browser at an instance that knows these providers: `await visiting(github, hostile, FRONTEND_URL=...)`."""

    async def visit(*providers: Any, **changes: str) -> Browser:
        known = {name: value for provider in providers for name, value in provider.settings.items()}
        return await serving(**{**LIMITS, **known, **changes})

    return visit


def callback_of(provider: str) -> str:
    return f"{PUBLIC_URL}/api/auth/{provider}/callback"


async def leave(browser: Browser, provider: str, headers: dict[str, str] | None = None, **query: str) -> str:
    """Start a sign-in as a script; the provider's address."""
    answer = await browser("GET", f"/api/auth/{provider}", params=query, headers={**JSON, **(headers or {})})
    assert answer.status == 200, answer
    return str(answer.json["authUrl"])


async def come_back(browser: Browser, callback: str, headers: dict[str, str] | None = None) -> Answer:
    """Follow the provider's redirect to our callback; as a script, unless the headers say otherwise."""
    parts = urlsplit(callback)
    assert callback.startswith(PUBLIC_URL + "/api/auth/")
    return await browser("GET", f"{parts.path}?{parts.query}", headers=headers or JSON)


async def enter(browser: Browser, provider: Any, login: str = "ada", headers: dict[str, str] | None = None) -> Answer:
    """Sign in with GitHub, the certified provider or the hostile one, from start to end."""
    name = {"GitHub": "github", "OpenIDProvider": "example"}.get(type(provider).__name__) or provider.name
    auth_url = await leave(browser, name, headers)
    back = provider.come_back(auth_url) if isinstance(provider, Hostile) else await provider.sign_in(auth_url, login)
    return await come_back(browser, back)


async def make_account(browser: Browser, address: str = "ada@example.org", verified: bool = True) -> str:
    """An account with a password, as its maker's browser sees it; its id."""
    made = await browser.register(address)
    assert made.status == 201, made
    user_id = str(made.json["user"]["id"])
    if verified:
        await parts_of(browser).users.change(user_id, ok="1")
    return user_id


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query, keep_blank_values=True).items()}
