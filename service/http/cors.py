"""Cross-origin requests: exact origins, with credentials, on every answer, errors included.

aiohttp-cors answers preflights and serves the routes. What it leaves out is here: answers that belong to no route
(404, 405) get their headers, and every answer says `Vary: Origin`, so that no cache mixes origins up.
"""

import aiohttp_cors
from aiohttp import hdrs, web

from service.parts import PARTS

_ALLOWED_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Auth-Mode", "X-CSRF-Token", "X-Request-Id")
_EXPOSED_HEADERS = ("RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id")


def allow_origins(app: web.Application) -> None:
    """Open every route to the configured origins; call it when all routes are there."""
    origins = frozenset(app[PARTS].settings.cors_origins)
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=True, allow_headers=_ALLOWED_HEADERS, expose_headers=_EXPOSED_HEADERS, max_age=600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, options))
    for route in list(app.router.routes()):
        cors.add(route)

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in origins and hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in response.headers:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ",".join(_EXPOSED_HEADERS)

    app.on_response_prepare.append(complete)
