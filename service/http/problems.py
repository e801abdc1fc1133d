"""Errors as answers: one kind, `application/problem+json` (RFC 9457).

What the domain raises is translated here and nowhere else; what nobody foresaw is a bare 500 with the request's id.
"""

from typing import Any

import orjson
from aiohttp import hdrs, web

from service import metrics
from service.errors import (
    ExpectationFailed,
    MethodNotAllowed,
    NotFound,
    NotSignedIn,
    OriginForbidden,
    PayloadTooLarge,
    RateLimited,
    RefreshRefused,
    ServiceError,
)
from service.http.response import Answer, header_lines
from service.parts import parts
from service.settings import Settings

PROBLEM = "application/problem+json"
REQUEST_ID = web.RequestKey("request_id", str)
REFRESHED_BY_COOKIE = web.RequestKey("refreshed_by_cookie", bool)
_MOST_KNOWN = 4000  # problems: their kinds, and the seconds of an hour
_known: dict[tuple[type[ServiceError], int], tuple[bytes, str]] = {}  # how they begin, and their header lines

# A page of ours may load what lies beside it and ask us; nothing inline, nothing from elsewhere.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}


async def translate(request: web.Request, error: web.HTTPException) -> Answer:
    """What the framework raised or a library of it, in our words."""
    if _asks_what_is_there(request, error):
        return Answer(status=204, headers={hdrs.ALLOW: ", ".join(sorted(await _methods(request)))})
    return problem(request, _in_our_words(error))


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


def problem(request: web.Request, error: ServiceError) -> Answer:
    """The answer that this error is."""
    request_id = request[REQUEST_ID]
    if (beginning_and_lines := _ready(error)) is not None:
        beginning, lines = beginning_and_lines
        response = Answer(b'%b"%b"}' % (beginning, request_id.encode()), error.status, None, PROBLEM, lines)
    else:
        response = Answer(orjson.dumps(members(error, request_id)), error.status, error.headers, PROBLEM)
    if error.status == 500:
        metrics.HTTP_ERRORS.inc()
    if isinstance(error, RefreshRefused) and request.get(REFRESHED_BY_COOKIE):
        parts(request).cookies.sign_out(response)
    return response


def members(error: ServiceError, request_id: str) -> dict[str, Any]:
    """The problem that this error is (RFC 9457)."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
        "requestId": request_id,
    }


def _ready(error: ServiceError) -> tuple[bytes, str] | None:
    """A problem of a kind that is answered again and again, which is ready but for the request's id.

    That is its last member, and needs no escape. So here is all before it, and the header lines.
    """
    said: tuple[type[ServiceError], int]
    if isinstance(error, RateLimited):
        said = RateLimited, error.retry_after
    elif isinstance(error, NotSignedIn) and not error.members and error.detail is error.title:
        said = type(error), 0
    else:
        return None
    if (ready := _known.get(said)) is None:
        ready = orjson.dumps(members(error, "")).removesuffix(b'""}'), header_lines(error.headers)
        if len(_known) < _MOST_KNOWN:
            _known[said] = ready
    return ready


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
