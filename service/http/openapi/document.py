"""The whole document: what all operations share, and every one of them."""

import sys
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from service import __version__
from service.http.contract import Parameter
from service.http.openapi.operations import docstring, operation, parameter, tag
from service.http.openapi.responses import SHARED_HEADERS, Responses
from service.http.openapi.route import Route, told
from service.http.openapi.schemas import Json, Schemas
from service.http.openapi.security import schemes
from service.parts import PARTS

_ABOUT = """Accounts, sign-in, sessions, tokens and API keys.

Every error is `application/problem+json` (RFC 9457) with a stable `code`. Paths and methods that are not here answer
404 `NOT_FOUND` and 405 `METHOD_NOT_ALLOWED`, the latter with `Allow`. A `GET` can be asked as `HEAD`, but for the two
that leave for a provider and come back. `OPTIONS` answers 204: with `Allow`, or to a preflight.

Cookies vouch for whoever sends them, so what changes something with a cookie needs the header `X-CSRF-Token` as well.
A header wins over a cookie. Bodies are 16 KiB at most; unknown fields are refused and nothing is coerced."""
_REQUEST_ID = Parameter(
    "X-Request-Id",
    "An id for the request: 64 of `A-Z a-z 0-9 . _ -` at most. Another one is made where it is anything else.",
    where="header",
)


def written(app: web.Application) -> bytes:
    """The document as JSON."""
    return orjson.dumps(document(app))


def document(app: web.Application) -> Json:
    """All that an application serves, as OpenAPI 3.1."""
    its, routes = app[PARTS], list(told(app))
    schemas = Schemas(route.contract for route in routes)
    responses = Responses(schemas, its.cookies)
    paths: dict[str, Json] = {}
    for route in routes:
        common = {"parameters": [{"$ref": "#/components/parameters/X-Request-Id"}]}
        paths.setdefault(route.path, common)[route.method] = operation(route, schemas, responses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gatepost",
            "version": __version__,
            "summary": "Authentication for single-page apps and the APIs behind them.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": its.settings.public_url}],
        "tags": _tags(routes),
        "paths": paths,
        "components": {
            "schemas": schemas.shared,
            "responses": responses.shared,
            "headers": SHARED_HEADERS,
            "parameters": {"X-Request-Id": parameter(_REQUEST_ID)},
            "securitySchemes": schemes(its.cookies),
        },
    }


def _tags(routes: Iterable[Route]) -> list[Json]:
    """A heading for each module of routes, described by the first paragraph of its docstring."""
    modules: dict[str, Any] = {tag(route): sys.modules[route.handler.__module__] for route in routes}
    # The examples come first among the routes, as one of them lies below a path that takes anything.
    names = sorted(modules, key=lambda name: name == "Examples")
    return [
        {"name": name, "description": docstring(modules[name]).partition("\n\n")[0].replace("\n", " ")}
        for name in names
    ]
