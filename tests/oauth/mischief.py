"""What a provider may answer instead of what was asked for."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

from aiohttp import web

MB = 1024 * 1024
_NAPS = 300  # of a tenth of a second each; far longer than anybody should wait

Mischief = Callable[[web.Request], Awaitable[web.StreamResponse]]
sent: dict[str, int] = {}  # bytes of the latest huge answer, by path, that the other side has taken


async def silent(_: web.Request) -> web.StreamResponse:
    """Takes the request and says nothing."""
    await asyncio.sleep(_NAPS / 10)
    return web.Response(status=200)


async def trickling(request: web.Request) -> web.StreamResponse:
    """Answers a blank at a time, so that no pause is long."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(_NAPS):
        await asyncio.sleep(0.1)
        await response.write(b" ")
    return response


async def huge(request: web.Request) -> web.StreamResponse:
    """Fifty megabytes that would be JSON in the end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    sent[request.path] = 0
    for _ in range(50):
        await response.write(b" " * MB)
        sent[request.path] += MB
    await response.write(b"{}")
    return response


async def bomb(_: web.Request) -> web.StreamResponse:
    """Fifty kilobytes that unpack to fifty megabytes."""
    return web.Response(body=_BOMB, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})


async def unlabelled_bomb(_: web.Request) -> web.StreamResponse:
    return web.Response(body=_BOMB, content_type="application/json")


async def failing(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": "server_error"}, status=500)


async def away(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text="<h1>Service Unavailable</h1>", content_type="text/html")


async def redirecting(_: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<!doctype html><title>Welcome</title>", content_type="text/html")


async def nothing(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"", content_type="application/json")


async def half(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"keys": [', content_type="application/json")


async def nested(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"[" * 100_000, content_type="application/json")


async def no_unicode(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"issuer": "\xff\xfe"}', content_type="application/json")


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def an_array(_: web.Request) -> web.StreamResponse:
    return web.json_response([1, 2, 3])


async def null(_: web.Request) -> web.StreamResponse:
    return web.json_response(None)


async def an_error(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": "access_denied", "error_description": "no"}, status=400)


_BOMB = gzip.compress(b" " * 50 * MB)

SLOW = (silent, trickling)
UNUSABLE = (
    failing, away, huge, bomb, unlabelled_bomb, redirecting, page, nothing, half, nested, no_unicode, hanging_up,
)  # fmt: skip
WRONG = (an_array, null, an_error)  # JSON, but not what was asked for
