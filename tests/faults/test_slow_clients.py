"""Clients that send or read as slowly as they can hold nothing for long, and slow nobody else down."""

import asyncio
import socket
import time
from contextlib import suppress

from tests.faults.instances import Instance, Wire, get, post

WITHIN = (9.0, 16.0)  # seconds: ten are allowed, a look is taken once a second, and the machine may be slow
HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


async def was_cut_off(wire: Wire) -> float:
    """Wait for the 408 and the end of the connection, and say how many seconds that took."""
    began = time.monotonic()
    reply = await wire.reply(30)
    took = time.monotonic() - began
    assert (reply.status, reply.json["code"]) == (408, "REQUEST_TIMEOUT"), reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["server"] == "gatepost"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.json["requestId"] == reply.headers["x-request-id"]
    assert await wire.ended()
    return took


async def trickle(wire: Wire) -> None:
    """A byte of a head every second, for as long as anybody listens."""
    while not wire.writer.is_closing():
        wire.send(b"x")
        await asyncio.sleep(1)


async def test_a_head_has_ten_seconds_and_nobody_waits_for_it(running):
    instance: Instance = await running()

    async def silent() -> float:
        return await was_cut_off(await instance.connect())

    async def half() -> float:
        wire = await instance.connect()
        wire.send(HALF)
        return await was_cut_off(wire)

    async def slow() -> float:
        wire = await instance.connect()
        wire.send(HALF)
        dripping = asyncio.create_task(trickle(wire))
        try:
            return await was_cut_off(wire)
        finally:
            dripping.cancel()
            wire.close()

    async def later() -> float:
        """On a connection that was idle for three seconds, the time runs from the first byte."""
        wire = await instance.connect()
        wire.send(get("/health"))
        assert (await wire.reply()).status == 200
        await asyncio.sleep(3)
        wire.send(HALF)
        return await was_cut_off(wire)

    async def idle() -> None:
        """Kept alive, with nothing begun: longer than any of the others."""
        wire = await instance.connect()
        for _ in range(2):
            wire.send(get("/health"))
            assert (await wire.reply()).status == 200
            await asyncio.sleep(13)
        wire.send(get("/health"))
        assert (await wire.reply()).status == 200
        wire.close()

    async def honest() -> float:
        """Heads that come in pieces and by twos, all the while."""
        longest = 0.0
        for _ in range(40):
            wire = await instance.connect()
            began = time.monotonic()
            wire.send(HALF[:20])
            await asyncio.sleep(0.1)
            wire.send(HALF[20:] + b"\r\n\r\n" + get("/health") + HALF)
            replies = [await wire.reply(), await wire.reply()]
            longest = max(longest, time.monotonic() - began)
            assert [reply.status for reply in replies] == [200, 200]
            wire.send(b"\r\n\r\n")
            assert (await wire.reply()).status == 200
            wire.close()
            await asyncio.sleep(0.1)
        return longest

    *cut_off, longest, _ = await asyncio.gather(
        *(kind() for kind in (silent, half, slow, later) for _ in range(50)), honest(), idle()
    )

    assert WITHIN[0] < min(cut_off) <= max(cut_off) < WITHIN[1]
    assert longest < 2
    print(f"\n200 slow heads cut off after {min(cut_off):.1f} to {max(cut_off):.1f} s; others: {longest:.2f} s at most")


async def test_a_head_that_never_ends_is_cut_off_before_it_fills_the_memory(running):
    instance = await running()
    wire = await instance.connect()
    wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")

    for n in range(9):
        wire.send(b"X-Long-%d: %s\r\n" % (n, b"x" * 10_000))
        await asyncio.sleep(0.05)

    reply = await wire.reply()
    assert (reply.status, reply.json["code"]) == (400, "VALIDATION_ERROR")
    assert await wire.ended()


async def test_who_reads_no_answer_holds_little_and_not_for_long(running):
    instance = await running()
    before = instance.memory()
    wires = [await instance.connect(receive_buffer=4096) for _ in range(5)]

    async def asks_and_never_reads(wire: Wire) -> None:
        wire.writer.transport.pause_reading()
        line = wire.writer.get_extra_info("socket")
        with suppress(ConnectionError):
            for _ in range(300):
                wire.send(get("/") * 100)
                await wire.writer.drain()
            while not line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                await asyncio.sleep(0.1)

    asking = [asyncio.create_task(asks_and_never_reads(wire)) for wire in wires]
    await asyncio.sleep(5)
    assert (await instance.ask(get("/health"), within=3)).status == 200
    grown = instance.memory() - before
    done, left = await asyncio.wait(asking, timeout=60)
    for wire in wires:
        wire.writer.transport.abort()
    await asyncio.gather(*left, return_exceptions=True)

    assert len(done) == 5
    assert grown < 40 * 1024 * 1024
    print(f"\n5 clients that never read: {grown / 1024:.0f} KiB more")


async def test_slow_bodies_take_no_place_of_others(running):
    instance = await running(MAX_CONCURRENT_REQUESTS="8")
    body = post("/api/auth/login", {"email": "ada@example.org", "password": "correct horse, battery & staple"})
    slow = [await instance.connect() for _ in range(30)]
    for wire in slow:
        wire.send(body[:-10])
    await asyncio.sleep(0.5)

    answers = [await instance.ask(body) for _ in range(3)]
    slow[0].send(body[-10:])
    late = await slow[0].reply()
    cut_off = [await wire.reply() for wire in slow[1:]]

    assert [answer.json["code"] for answer in (*answers, late)] == ["INVALID_CREDENTIALS"] * 4
    assert {(answer.status, answer.json["code"]) for answer in cut_off} == {(408, "REQUEST_TIMEOUT")}
    for wire in slow:
        wire.close()
