"""Cross-origin requests: exact origins, with credentials, on every answer, errors included.

aiohttp-cors answers preflights. The lines of all other answers are the same for an origin whatever the route, 404 and
405 included, so they are made once (`headers_for`). Every answer says `Vary: Origin`, so that no cache mixes origins.
"""

from collections.abc import Mapping

import aiohttp_cors
from aiohttp import hdrs, web

from service.parts import PARTS

_ALLOWED_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Auth-Mode", "X-CSRF-Token", "X-Request-Id")
_TRACE_HEADERS = ("traceparent", "tracestate")  # where `TRACES=on`, from a page that has begun the trace
# `Date` tells a page how far a time of ours lies ahead, whatever its own clock says.
_EXPOSED_HEADERS = ("Date", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id")


def allow_origins(app: web.Application) -> None:
    """Open every route to the configured origins; call it when all routes are there."""
    settings = app[PARTS].settings
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=True,
        allow_headers=_ALLOWED_HEADERS + (_TRACE_HEADERS if settings.traces else ()),
        expose_headers=_EXPOSED_HEADERS,
        max_age=600,
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(settings.cors_origins, options))
    for route in list(app.router.routes()):
        cors.add(route)


def headers_for(origin: str) -> Mapping[str, str]:
    """What an answer says to a page of an allowed origin."""
    return {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
        hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: ",".join(_EXPOSED_HEADERS),
    }
