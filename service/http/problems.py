"""The outermost layer: every request gets an id and its patience, every error becomes one kind of answer.

Errors are `application/problem+json` (RFC 9457). What the domain raises is translated here and nowhere else; what
nobody foresaw is a bare 500 with the request's id, and its trace goes to the log.
"""

import re
import secrets
from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web

from service import logs
from service.errors import (
    MethodNotAllowed,
    NotFound,
    OriginForbidden,
    PayloadTooLarge,
    RefreshRefused,
    ServiceError,
)
from service.http.guard import Handler
from service.parts import PARTS, parts
from service.settings import Settings
from service.store import patience

log = structlog.get_logger("service.http")

REQUEST_ID = web.RequestKey("request_id", str)
REFRESHED_BY_COOKIE = web.RequestKey("refreshed_by_cookie", bool)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, check where it comes from, answer it, and translate what goes wrong."""
    sent = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = request_id = sent if _SANE_ID.fullmatch(sent) else secrets.token_hex(8)
    logs.request_id.set(request_id)
    try:
        with patience():
            parts(request).csrf.check_origin(request)
            return await handler(request)
    except ServiceError as error:
        return _problem(request, error)
    except web.HTTPException as error:
        return _problem(request, _in_our_words(error))
    except Exception:
        # Whatever it is, the client learns no more than that it is ours to mend.
        log.exception("http.unforeseen", method=request.method, path=request.path)
        return _problem(request, ServiceError())


def _in_our_words(error: web.HTTPException) -> ServiceError:
    """What the framework raises by itself."""
    match error:
        case web.HTTPNotFound():
            return NotFound()
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(sorted(error.allowed_methods))
        case web.HTTPRequestEntityTooLarge():
            return PayloadTooLarge()
        case web.HTTPForbidden():
            return OriginForbidden()  # a preflight that aiohttp-cors refused
    return ServiceError()


def _problem(request: web.Request, error: ServiceError) -> web.Response:
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "requestId": request[REQUEST_ID],
        **error.members,
    }
    response = web.Response(
        body=orjson.dumps(members),
        status=error.status,
        headers=error.headers,
        content_type="application/problem+json",
    )
    if isinstance(error, RefreshRefused) and request.get(REFRESHED_BY_COOKIE):
        parts(request).cookies.sign_out(response)
    return response


def harden(app: web.Application) -> None:
    """Put the security headers, the request id and the cache rules on every answer."""
    headers = _headers(app[PARTS].settings)

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)
        response.headers["X-Request-Id"] = request.get(REQUEST_ID, "")
        if hdrs.CACHE_CONTROL not in response.headers:
            response.headers[hdrs.CACHE_CONTROL] = "no-store"
        if app[PARTS].state.draining:
            response.headers[hdrs.CONNECTION] = "close"

    app.on_response_prepare.append(complete)


def _headers(settings: Settings) -> dict[str, str]:
    headers = {
        "Server": "gatepost",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if settings.production and settings.public_url.startswith("https:"):
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    return headers
