"""Clients that are gone before their answer is there."""

import asyncio
import random
import socket
import struct
from contextlib import suppress

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from tests.conftest import widen_bounds
from tests.faults.conftest import ENDLESS, TOKENS, bearer, joined
from tests.faults.instances import Reply, get, post

PASSWORD = "correct horse, battery & staple"


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


async def test_three_thousand_that_hang_up_in_the_middle_leave_nothing_behind(running):
    """Reset or closed, in the head, in the body, while Redis answers or while a password is hashed."""
    instance = await running(MAX_CONCURRENT_REQUESTS="64", MAX_CONNECTIONS="500")
    people = []
    for n in range(4):
        account = {"email": f"person{n}@example.org", "password": PASSWORD}
        people.append((await instance.ask(post("/api/auth/register", account, "X-Auth-Mode: token"))).json)
    chance, over = random.Random(42), asyncio.Event()
    mixed_up: list[object] = []
    asked = 0

    def something() -> bytes:
        signed = chance.choice(people)
        whole = [
            get("/api/auth/me", f"Authorization: Bearer {signed['accessToken']}"),
            get("/api/auth/verify", f"Authorization: Bearer {signed['accessToken']}") * 3,
            post("/api/auth/refresh", {"refreshToken": signed["refreshToken"]}),
            post("/api/auth/login", {"email": signed["user"]["email"], "password": PASSWORD}),
        ]
        request = chance.choices(whole, (8, 8, 4, 1))[0]
        return request if chance.random() < 0.7 else request[: chance.randrange(1, len(request))]

    async def vanishes() -> None:
        with suppress(OSError):
            wire = await instance.connect()
            if chance.random() < 0.5:  # a reset instead of a farewell
                line = wire.writer.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.send(something())
            await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
            await wire.drop()

    async def stays(signed: dict) -> None:
        nonlocal asked
        while not over.is_set():
            wire = await instance.connect()
            for _ in range(20):
                wire.send(get("/api/auth/me", f"Authorization: Bearer {signed['accessToken']}"))
                reply: Reply = await wire.reply()
                asked += 1
                if reply.status == 200 and reply.json["user"]["id"] != signed["user"]["id"]:
                    mixed_up.append((signed["user"]["id"], reply))
                elif reply.status not in (200, 503):
                    mixed_up.append(reply)
            await wire.drop()

    staying = asyncio.gather(*(stays(signed) for signed in people))
    for _ in range(30):
        await asyncio.gather(*(vanishes() for _ in range(100)))
    over.set()
    await staying

    assert mixed_up == []
    assert asked > 100
    async with asyncio.timeout(20):  # every place and every connection to Redis is free again
        while True:
            me = [get("/api/auth/me", f"Authorization: Bearer {signed['accessToken']}") for signed in people * 15]
            replies = await asyncio.gather(*(instance.ask(sent) for sent in me))
            if {reply.status for reply in replies} == {200}:
                break
            await asyncio.sleep(0.2)
    assert [reply.json["user"]["id"] for reply in replies] == [signed["user"]["id"] for signed in people * 15]
    assert [line for line in instance.said.splitlines() if "Traceback" in line] == []
    assert await instance.stop() == 0
