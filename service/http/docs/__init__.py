"""The documentation: all calls as OpenAPI, and a page to read and try them. Nothing of it comes from elsewhere."""

import asyncio
import hashlib
from functools import cache
from pathlib import Path

from aiohttp import hdrs, web

from service.http import guard, openapi
from service.http.contract import Contract, Raw
from service.http.response import HTML, Answer
from service.parts import parts

routes = web.RouteTableDef()

_HERE = Path(__file__).parent
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_TOLD = {
    "ETag": "Which version it is; for `If-None-Match`.",
    "Cache-Control": "`no-cache`: ask whether it has changed.",
}


def _gives(kind: str, schema: dict[str, str] | None = None) -> Contract:
    raw = Raw(kind, schema) if schema else Raw(kind)
    return Contract(gives={200: raw, 304: None}, headers=_TOLD, redis=False)


@routes.get("/openapi.json")
@guard.anyone
@_gives("application/json", {"type": "object"})
async def document(request: web.Request) -> web.Response:
    """All of this as OpenAPI 3.1."""
    state = parts(request).state
    if (made := state.openapi) is None:
        made = state.openapi = await asyncio.to_thread(_openapi, request.app)  # forty milliseconds, once
    return _unless_known(request, *made, "application/json")


@routes.get("/docs")
@guard.anyone
@_gives(HTML)
async def page(request: web.Request) -> web.Response:
    """A page to read all of this and to try it."""
    return _file(request, "page.html", HTML)


@routes.get("/docs/page.js")
@guard.anyone
@_gives(_SCRIPT)
async def script(request: web.Request) -> web.Response:
    """What makes that page work."""
    return _file(request, "page.js", _SCRIPT)


@routes.get("/docs/page.css")
@guard.anyone
@_gives(_STYLE)
async def style(request: web.Request) -> web.Response:
    """What that page looks like."""
    return _file(request, "page.css", _STYLE)


def _file(request: web.Request, name: str, kind: str) -> web.Response:
    return _unless_known(request, *_read(name), kind)


@cache
def _read(name: str) -> tuple[bytes, str]:
    return _with_etag((_HERE / name).read_bytes())


def _openapi(app: web.Application) -> tuple[bytes, str]:
    return _with_etag(openapi.written(app))


def _with_etag(body: bytes) -> tuple[bytes, str]:
    """A body, and the name of this version of it (RFC 9110, section 8.8.3)."""
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _unless_known(request: web.Request, body: bytes, etag: str, kind: str) -> web.Response:
    """The content, or 304 for who has this version (RFC 9110, section 13.1.2)."""
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get(hdrs.IF_NONE_MATCH, "").split(",")]
    if etag in known or "*" in known:
        # With its type, as it decides about the policy of the page: the browser takes over what a 304 says.
        return Answer(status=304, headers=headers, content_type=kind)
    return Answer(body, headers=headers, content_type=kind)
