"""Clients that are gone before their answer is there."""

import asyncio
import random
from contextlib import suppress

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from tests.conftest import widen_bounds
from tests.faults.conftest import ENDLESS, TOKENS, bearer, joined


@pytest.fixture
def bounds_of_redis(monkeypatch):
    """Redis is well here."""
    widen_bounds(monkeypatch)


async def test_nobody_ever_gets_the_answer_of_another(own_redis, serving, assembling):
    its = await assembling()
    browser = await serving(its)
    people = [await joined(browser, f"person{n}@example.org") for n in range(40)]
    url = browser.client.make_url("/api/auth/me")
    chance = random.Random(38)
    mixed_up, answered = [], 0

    async def vanishes(session: ClientSession, signed: dict) -> None:
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(chance.uniform(0, 0.03)),
                session.get(url, headers=bearer(signed)) as answer,
            ):
                await answer.read()

    async def stays(session: ClientSession, signed: dict) -> None:
        nonlocal answered
        async with session.get(url, headers=bearer(signed)) as answer:
            told = await answer.json()
            answered += 1
            if answer.status != 200 or told["user"]["id"] != signed["user"]["id"]:
                mixed_up.append((signed["user"]["id"], answer.status, told))

    async with ClientSession(connector=TCPConnector(limit=200), timeout=ClientTimeout(total=ENDLESS)) as session:
        for _ in range(4):
            await asyncio.gather(
                *(vanishes(session, chance.choice(people)) for _ in range(200)),
                *(stays(session, signed) for signed in people),
            )

    assert mixed_up == []
    assert answered == 160
    pool = its.store._topology.node(None)._redis.connection_pool
    async with asyncio.timeout(ENDLESS):
        while pool._in_use_connections:
            await asyncio.sleep(0.01)
    burst = await asyncio.gather(*(browser("GET", "/api/auth/me", headers=bearer(it), csrf=None) for it in people * 2))
    assert [answer.json["user"]["id"] for answer in burst] == [it["user"]["id"] for it in people * 2]


async def test_a_client_that_leaves_in_the_middle_of_a_sign_up_leaves_an_account_or_none(own_redis, serving):
    browser = await serving()
    url = browser.client.make_url("/api/auth/register")

    async with ClientSession() as session:
        for n in range(40):
            with suppress(TimeoutError):
                async with asyncio.timeout(n / 2000):
                    body = {"email": f"gone{n}@example.org", "password": "correct horse, battery & staple"}
                    await session.post(url, json=body, headers=TOKENS)
    await asyncio.sleep(0.3)

    for n in range(40):
        again = await browser.register(f"gone{n}@example.org", headers=TOKENS)
        assert again.status == 201 or again.code == "EMAIL_EXISTS"
        assert (await browser.login(f"gone{n}@example.org", headers=TOKENS)).status == 200
    assert len(own_redis.cli("KEYS", "user:*")) == 40
