"""An instance that is asked to leave finishes what it was asked, and takes nobody by surprise."""

import asyncio
import signal
import time
from collections import Counter

import pytest

from tests.faults.instances import Instance, get, post

PASSWORD = "correct horse, battery & staple"


async def test_every_answer_of_an_instance_that_leaves_ends_its_connection(running):
    instance: Instance = await running(DRAIN_SECONDS="3")
    wires = [await instance.connect() for _ in range(3)]
    for wire in wires:
        wire.send(get("/health"))
        assert "connection" not in (await wire.reply()).headers

    instance.signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    ready = await instance.ask(get("/ready"))
    for wire, path in zip(wires, ("/health", "/nowhere", "/api/auth/me"), strict=True):
        wire.send(get(path))
        reply = await wire.reply()
        assert reply.headers["connection"] == "close"
        assert await wire.ended(1)
    old = await instance.ask(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert (ready.status, ready.json["status"], ready.headers["connection"]) == (503, "draining", "close")
    assert old.headers["connection"] == "close"
    assert await instance.ended() == 0


async def test_who_knocked_before_the_door_closed_is_answered(running):
    """Connected and asked while the process stood still: neither accepted nor read when the signal arrives."""
    instance: Instance = await running()
    kept = [await instance.connect() for _ in range(20)]
    for wire in kept:
        wire.send(get("/health"))
        assert (await wire.reply()).status == 200

    instance.signal(signal.SIGSTOP)
    late = [await instance.connect() for _ in range(100)]
    for wire in (*late, *kept):
        wire.send(get("/health"))
    instance.signal(signal.SIGTERM)
    instance.signal(signal.SIGCONT)

    assert Counter([(await wire.reply()).status for wire in (*late, *kept)]) == {200: 120}
    assert await instance.ended() == 0


async def test_clients_that_keep_asking_over_the_same_connections_lose_nothing(running):
    """No balancer and no drain time: each client asks until it is told that the connection closes."""
    instance: Instance = await running(MAX_CONNECTIONS="100")
    person = {"email": "ada@example.org", "password": PASSWORD}
    signed = (await instance.ask(post("/api/auth/register", person, "X-Auth-Mode: token"))).json
    verify = get("/api/auth/verify", f"Authorization: Bearer {signed['accessToken']}")
    statuses: Counter[int] = Counter()

    async def keeps_asking() -> None:
        wire = await instance.connect()
        while True:
            wire.send(verify)
            reply = await wire.reply()
            statuses[reply.status] += 1
            if reply.headers.get("connection") == "close":
                return

    asking = asyncio.gather(*(keeps_asking() for _ in range(50)))
    await asyncio.sleep(1)
    instance.signal(signal.SIGTERM)
    await asking

    assert statuses.keys() == {200}
    assert await instance.ended() == 0
    print(f"\n{statuses[200]} requests over 50 connections, none lost")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(running, sign):
    instance: Instance = await running(DRAIN_SECONDS="60")
    instance.signal(sign)
    await asyncio.sleep(1)
    assert (await instance.ask(get("/health"))).status == 200
    began = time.monotonic()

    instance.signal(sign)

    assert await instance.ended() == -sign
    assert time.monotonic() - began < 3


async def test_one_ctrl_c_that_arrives_twice_is_one(running):
    """A terminal sends it to everybody in the foreground, and a process manager passes it on."""
    instance: Instance = await running(DRAIN_SECONDS="1")

    instance.signal(signal.SIGINT)
    instance.signal(signal.SIGTERM)

    assert await instance.ended() == 0


async def test_no_other_signal_ends_it(running):
    instance: Instance = await running()

    for sign in (signal.SIGHUP, signal.SIGPIPE, signal.SIGHUP):
        instance.signal(sign)
        await asyncio.sleep(0.2)

    assert (await instance.ask(get("/ready"))).status == 200
    assert await instance.stop() == 0
