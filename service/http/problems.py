"""The outermost layer: every request gets an id and its patience, every error becomes one kind of answer.

Errors are `application/problem+json` (RFC 9457). What the domain raises is translated here and nowhere else; what
nobody foresaw is a bare 500 with the request's id, and its trace goes to the log.
"""

import re
import secrets
import time
from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web

from service import logs, metrics
from service.errors import (
    ExpectationFailed,
    MethodNotAllowed,
    NotFound,
    OriginForbidden,
    PayloadTooLarge,
    RefreshRefused,
    ServiceError,
)
from service.http import shedding
from service.http.guard import Handler
from service.http.metrics import meter
from service.parts import PARTS, parts
from service.settings import Settings
from service.store import patience

log = structlog.get_logger("service.http")

REQUEST_ID = web.RequestKey("request_id", str)
REFRESHED_BY_COOKIE = web.RequestKey("refreshed_by_cookie", bool)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, check whether and from where it may come, answer it, and translate what goes wrong."""
    logs.request_id.set(_identify(request))
    its, began = parts(request), time.perf_counter()
    its.state.under_way += 1
    try:
        with patience():
            shedding.check(request, its)
            its.csrf.check_origin(request)
            response = await handler(request)
    except ServiceError as error:
        response = _problem(request, error)
    except web.HTTPException as error:
        if _asks_what_is_there(request, error):
            response = web.Response(status=204, headers={hdrs.ALLOW: ", ".join(sorted(await _methods(request)))})
        else:
            response = _problem(request, _in_our_words(error))
    except Exception:
        # Whatever it is, the client learns no more than that it is ours to mend.
        log.exception("http.unforeseen", method=request.method, path=request.path)
        response = _problem(request, ServiceError())
    finally:
        its.state.under_way -= 1
    meter(request, its).answered(response.status, time.perf_counter() - began)
    return response


def outside(request: web.Request, error: web.HTTPException) -> web.Response:
    """Answer what the framework refused before `edge` saw the request."""
    _identify(request)
    return _problem(request, _in_our_words(error))


def _identify(request: web.Request) -> str:
    sent = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = request_id = sent if _SANE_ID.fullmatch(sent) else secrets.token_hex(8)
    return request_id


def _asks_what_is_there(request: web.Request, error: web.HTTPException) -> bool:
    """Whether this is an `OPTIONS` that is no preflight, which is all that aiohttp-cors knows."""
    return (
        isinstance(error, web.HTTPForbidden)
        and request.method == hdrs.METH_OPTIONS
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers
    )


async def _methods(request: web.Request) -> set[str]:
    """The methods of everything at this path."""
    return set().union(*[(await resource.resolve(request))[1] for resource in request.app.router.resources()])


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
        case web.HTTPExpectationFailed():
            return ExpectationFailed()
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
    if error.status == 500:
        metrics.HTTP_ERRORS.inc()
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
    headers = security_headers(app[PARTS].settings)

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)
        response.headers["X-Request-Id"] = request.get(REQUEST_ID, "")
        if hdrs.CACHE_CONTROL not in response.headers:
            response.headers[hdrs.CACHE_CONTROL] = "no-store"
        if app[PARTS].state.draining:
            # Said and done: the header alone would leave it to the client to close.
            response.headers[hdrs.CONNECTION] = "close"
            response.force_close()

    app.on_response_prepare.append(complete)


def security_headers(settings: Settings) -> dict[str, str]:
    """What every answer says, whoever gives it."""
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
