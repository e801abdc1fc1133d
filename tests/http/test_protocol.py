"""Bytes that are not HTTP get an answer like any other, and teach nobody which server this is."""

import asyncio
import gc
import json
from contextlib import suppress
from types import FrameType

import pytest
from aiohttp import web

from service.app import make_app
from service.http.protocol import Runner


@pytest.fixture
async def port(parts):
    runner = Runner(make_app(parts), max_field_size=16384)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def say(port: int, sent: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    return head, body


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 20000 + b"\r\n\r\n",
    ],
    ids=["TLS", "two hosts", "two lengths", "long header"],
)
async def test_what_is_not_http_gets_a_problem_without_the_servers_name(port, sent):
    head, body = await say(port, sent)

    assert head.split(b" ", 2)[1] == b"400"
    assert json.loads(body)["code"] == "VALIDATION_ERROR"
    assert b"aiohttp" not in head.lower() + body.lower()
    assert b"python" not in head.lower() + body.lower()


@pytest.fixture
def nothing_collected():
    """What is held by a circle of references stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ",
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n",
    ],
    ids=["long header", "upgrade", "chunk of no length"],
)
async def test_nothing_is_kept_of_what_follows_bytes_that_are_not_http(port, head, nothing_collected):
    """Each piece that came in before the end was refused for itself, and kept by its refusal: megabytes a sender."""
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            writer.write(head + b"x" * 2_000_000)
            await asyncio.wait_for(reader.read(), 60)
        writer.close()
    await asyncio.sleep(0.1)

    frames = [found for found in gc.get_objects() if isinstance(found, FrameType)]
    assert [frame for frame in frames if frame.f_code.co_name == "data_received"] == []


async def test_a_proper_request_on_the_same_port_is_answered(port):
    head, body = await say(port, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["status"] == "ok"
