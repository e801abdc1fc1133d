"""`/openapi.json`: everything here, as OpenAPI 3.1, made of the routes that serve and the models that check.

A route gives its path, method, guard and docstring, its `Contract` the rest (`contract.py`). What follows from these is
worked out here and told nowhere else: which errors a guard, a body, a limit or Redis brings, and their headers. The
document is made when somebody first asks for it, and once; routes that are off are not in it.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from service import __version__, errors
from service.errors import ServiceError
from service.http import problems, shapes
from service.http.contract import (
    API_KEY,
    BEARER,
    BROWSER,
    COOKIE,
    CSRF,
    METRICS,
    REFRESH,
    TEXT,
    Contract,
    Parameter,
    Raw,
    Schema,
)
from service.http.csrf import HEADER, SAFE
from service.http.guard import Access
from service.parts import PARTS, Parts

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PLACE = "#/components/schemas/"

Json = dict[str, Any]

_ABOUT = """Accounts, sign-in, sessions, tokens and API keys.

Every error is `application/problem+json` (RFC 9457) with a stable `code`. Paths and methods that are not here answer
404 `NOT_FOUND` and 405 `METHOD_NOT_ALLOWED`, the latter with `Allow`. A `GET` can be asked as `HEAD`, but for the two
that leave for a provider and come back. `OPTIONS` answers 204: with `Allow`, or to a preflight.

Cookies vouch for whoever sends them, so what changes something with a cookie needs the header `X-CSRF-Token` as well.
A header wins over a cookie. Bodies are 16 KiB at most; unknown fields are refused and nothing is coerced."""

_NOT_SIGNED_IN = (
    *(errors.NoToken, errors.InvalidToken, errors.TokenExpired, errors.TokenRevoked, errors.TokenStale),
    errors.InvalidApiKey,
)
# What any request may meet, whatever it asks for: bytes that are not HTTP, too slow, too much at once, our own fault.
_ALWAYS = (errors.BadRequest, errors.RequestTimeout, errors.ExpectationFailed, errors.Crowded, ServiceError)
_BEFORE_LIMITS = frozenset({408, 413, 415, 417})
_BODY = (errors.ValidationFailed, errors.MalformedJson, errors.PayloadTooLarge)

_SAMPLES: dict[type[ServiceError], Callable[[], ServiceError]] = {
    errors.ValidationFailed: lambda: errors.ValidationFailed(
        [{"field": "limit", "message": "is there more than once"}]
    ),
    errors.Forbidden: lambda: errors.Forbidden(required=["users:read"]),
    errors.RateLimited: lambda: errors.RateLimited(60),
    errors.SessionEnded: lambda: errors.SessionEnded(reason="logout"),
}
_HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Request-Id": ("The id of the request, in the log too; a sane one that was sent is kept.", TEXT),
    "WWW-Authenticate": ("The challenge (RFC 6750, section 3).", TEXT),
    "Retry-After": ("Seconds to wait before asking again.", {"type": "integer", "minimum": 0}),
    "RateLimit": ("What the limits still allow (draft-ietf-httpapi-ratelimit-headers-10).", TEXT),
    "RateLimit-Policy": ("The limits themselves, from the same draft.", TEXT),
    "Accept": ("The type that the body must have.", TEXT),
    "Location": ("Where to go on.", TEXT),
    "Connection": ("`close`: the connection ends with this answer.", TEXT),
}
_SHARED = (
    "X-Request-Id",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
)  # the others are always there, where they are


def written(app: web.Application) -> tuple[bytes, str]:
    """The document and its ETag."""
    body = orjson.dumps(document(app))
    return body, etag(body)


def etag(body: bytes) -> str:
    """The name of this version of something (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def document(app: web.Application) -> Json:
    """The whole document."""
    return _Document(app).whole()


def told(app: web.Application) -> Iterator[tuple[str, str, Any]]:
    """Path, method in lower case, and handler of every route that is told; what the framework adds is not."""
    for route in app.router.routes():
        if route.resource is not None and hasattr(route.handler, "contract") and route.method != "HEAD":
            yield route.resource.canonical, route.method.lower(), route.handler


class _Document:
    def __init__(self, app: web.Application) -> None:
        self._its: Parts = app[PARTS]
        self._routes = list(told(app))
        self._schemas, self._named = _models(handler.contract for *_, handler in self._routes)
        self._responses: dict[str, Json] = {}
        self._headers: dict[str, Json] = {
            name: {"description": description, "schema": schema} for name, (description, schema) in _HEADERS.items()
        }

    def whole(self) -> Json:
        its, paths = self._its, dict[str, Json]()
        common = [{"$ref": "#/components/parameters/X-Request-Id"}]
        for path, method, handler in self._routes:
            paths.setdefault(path, {"parameters": common})[method] = self._operation(path, method, handler)
        # The examples come first among the routes, as one of them lies below a path that takes anything.
        modules = sorted(
            {handler.__module__: None for *_, handler in self._routes}, key=lambda module: "examples" in module
        )
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
            "tags": [{"name": _tag(module), "description": _first(sys.modules[module].__doc__)} for module in modules],
            "paths": paths,
            "components": {
                "schemas": self._schemas,
                "responses": self._responses,
                "headers": {name: self._headers[name] for name in _SHARED},
                "parameters": {"X-Request-Id": _parameter(_REQUEST_ID)},
                "securitySchemes": self._schemes(),
            },
        }

    def _operation(self, path: str, method: str, handler: Any) -> Json:
        contract: Contract = handler.contract
        summary, _, more = _text(handler.__doc__).partition("\n\n")
        access: Access = handler.access
        parameters = [_parameter(Parameter(name, *_IN_PATH[name], "path")) for name in re.findall(r"{(\w+)}", path)]
        parameters += [_parameter(each) for each in contract.parameters]
        limits = (*contract.limits, *filter(None, [getattr(handler, "limited", None)]))
        return _without_nothing(
            {
                "operationId": _operation_id(handler),
                "tags": [_tag(handler.__module__)],
                "summary": summary,
                "description": "\n\n".join(filter(None, (more, _who(access), _limited(limits)))),
                "parameters": parameters,
                "requestBody": self._request_body(contract),
                "responses": self._answers(handler, method, contract, bool(limits)),
            }
        ) | {"security": _security(access, contract, method)}

    def _request_body(self, contract: Contract) -> Json | None:
        model = contract.takes or contract.takes_form
        if model is None:
            return None
        kind = FORM if contract.takes_form else JSON
        return {"required": not contract.may_be_empty, "content": {kind: self._media(model)}}

    def _answers(self, handler: Any, method: str, contract: Contract, limited: bool) -> Json:
        visited = getattr(handler, "browser_session", False)
        found = {str(status): self._given(status, contract, limited, visited) for status in contract.gives}
        by_status: dict[int, dict[str, type[ServiceError]]] = {}
        for error in _errors(handler.access, contract, method, limited):
            by_status.setdefault(error.status, {}).setdefault(error.code, error)
        for status, codes in sorted(by_status.items()):
            counted = limited and status not in _BEFORE_LIMITS
            refused = self._refused(status, codes, counted, status in contract.sets_cookies)
            if str(status) in found:  # an answer of another kind with the same status
                found[str(status)]["content"] |= self._responses[refused]["content"]
            else:
                found[str(status)] = {"$ref": f"#/components/responses/{refused}"}
        return dict(sorted(found.items()))

    def _given(self, status: int, contract: Contract, limited: bool, visited: bool) -> Json:
        """An answer that the contract names."""
        names = ["X-Request-Id"]
        names += ["RateLimit", "RateLimit-Policy"] if limited else []
        names += ["Retry-After"] if status == 503 else []
        headers: Json = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        headers |= {
            name: {"description": text, "required": True, "schema": TEXT} for name, text in contract.headers.items()
        }
        if status == 302:
            headers["Location"] = {**self._headers["Location"], "required": True}
        if status in contract.sets_cookies or visited:
            headers["Set-Cookie"] = self._set_cookie(visited, status in contract.sets_cookies)
        content = self._content(contract.gives[status])
        return _without_nothing({"description": _PHRASES[status], "headers": headers, "content": content})

    def _content(self, shape: Any) -> Json | None:
        if shape is None:
            return None
        if isinstance(shape, Raw):
            return {shape.media_type: {"schema": shape.schema}}
        return {JSON: self._media(shape)}

    def _media(self, shape: Any) -> Json:
        schema = self._named[shape]
        return {"schema": schema, "example": example(schema, self._schemas)}

    def _refused(self, status: int, codes: Mapping[str, type[ServiceError]], limited: bool, cookies: bool) -> str:
        """The name of the shared answer that says any of these codes."""
        kinds = sorted(kind.__name__ for kind in codes.values())
        name = "-".join([str(status), *kinds, *["limited"] * limited, *["cookies"] * cookies])
        if name in self._responses:
            return name
        samples = {code: _SAMPLES.get(codes[code], codes[code])() for code in sorted(codes)}
        headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
        for header in next(iter(samples.values())).headers:
            headers[header] = {**self._headers[header], "required": True}
        if limited:
            headers |= {each: {"$ref": f"#/components/headers/{each}"} for each in ("RateLimit", "RateLimit-Policy")}
        if cookies:
            headers["Set-Cookie"] = self._set_cookie(visited=False, signs=True)
        told_by_status = {"properties": {"status": {"const": status}, "code": {"enum": sorted(codes)}}}
        self._responses[name] = {
            "description": _PHRASES[status],
            "headers": headers,
            "content": {
                problems.PROBLEM: {
                    "schema": {"allOf": [{"$ref": f"{PLACE}Problem"}, told_by_status]},
                    "examples": {
                        code: {"summary": sample.title, "value": problems.members(sample, "3f69822e046e7fa3")}
                        for code, sample in samples.items()
                    },
                }
            },
        }
        return name

    def _set_cookie(self, visited: bool, signs: bool) -> Json:
        cookies = self._its.cookies
        names = [*cookies.names] * signs + [cookies.host_only("browser")] * visited
        named = ", ".join(f"`{name}`" for name in names)
        return {"description": f"Sets or removes {named}.", "schema": TEXT}

    def _schemes(self) -> Json:
        access, refresh, csrf = self._its.cookies.names
        browser = self._its.cookies.host_only("browser")
        metrics = "The `METRICS_TOKEN`; in development without one, this machine may look."
        return {
            BEARER: {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The access token, or where `apiKey` will do an API key.",
            },
            API_KEY: {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key, `ak_...`."},
            COOKIE: {"type": "apiKey", "in": "cookie", "name": access, "description": "The access token in a cookie."},
            REFRESH: {
                "type": "apiKey",
                "in": "cookie",
                "name": refresh,
                "description": "The refresh token in a cookie, which only paths under `/api/auth` receive.",
            },
            BROWSER: {
                "type": "apiKey",
                "in": "cookie",
                "name": browser,
                "description": "A browser before anybody has signed in.",
            },
            CSRF: {
                "type": "apiKey",
                "in": "header",
                "name": HEADER,
                "description": f"Goes with a cookie: the CSRF token of its session, which the cookie `{csrf}` has too.",
                "x-cookie": csrf,
            },
            METRICS: {"type": "http", "scheme": "bearer", "description": metrics},
        }


def _errors(access: Access, contract: Contract, method: str, limited: bool) -> Iterator[type[ServiceError]]:
    """What a call of the route may be refused with."""
    yield from contract.raises
    guarded = access.who not in ("anyone", "optional user")
    if guarded:
        yield from _NOT_SIGNED_IN
        if access.who != "user or API key":
            yield errors.Forbidden
    if method.upper() not in SAFE:
        yield errors.OriginForbidden
        if guarded:
            yield errors.CsrfFailed
    if guarded or contract.takes or contract.takes_form:
        yield from _BODY
    elif contract.parameters:
        yield errors.ValidationFailed
    if contract.takes or contract.takes_form:
        yield errors.UnsupportedMediaType
    if limited:
        yield errors.RateLimited
    if contract.redis:
        yield errors.StoreUnavailable
    yield from _ALWAYS


def _security(access: Access, contract: Contract, method: str) -> list[Json]:
    """The ways to prove who one is; any of them will do. `{}` is none."""
    if contract.credentials is not None:
        return [{scheme: [] for scheme in schemes} for schemes in contract.credentials]
    if access.who == "anyone":
        return []
    ways = [(BEARER,), (COOKIE,) if method.upper() in SAFE else (COOKIE, CSRF)]
    ways += [(API_KEY,)] if access.who in ("user or API key", "permission") else []
    needed = [[each] for each in access.any_of] or [list[str]()]
    found: list[Json] = [{way[0]: roles} | {scheme: [] for scheme in way[1:]} for roles in needed for way in ways]
    return [*found, {}] if access.who == "optional user" else found


def _who(access: Access) -> str:
    match access.who:
        case "user":
            return "For who is signed in; an API key does not do."
        case "user or API key":
            return "For who is signed in, and for API keys."
        case "optional user":
            return "With and without a user; a bad token counts as none."
        case "role":
            return f"For who has the role {' or '.join(f'`{role}`' for role in access.any_of)}."
        case "permission":
            return f"Takes the permission {' or '.join(f'`{each}`' for each in access.any_of)}; an API key may have it."
    return ""


def _limited(policies: Iterable[str]) -> str:
    named = ", ".join(f"`{policy}`" for policy in policies)
    return f"Limited by {named}; `RateLimit` and `RateLimit-Policy` tell what is left." if named else ""


def _models(contracts: Iterable[Contract]) -> tuple[dict[str, Json], dict[Any, Json]]:
    """The schemas of all models by their names, and what refers to each."""
    from pydantic import TypeAdapter  # by the first who asks for the document, not at every start

    wanted: dict[Any, None] = {shapes.Problem: None}
    for contract in contracts:
        told_here = (contract.takes, contract.takes_form, *contract.gives.values())
        wanted |= {shape: None for shape in told_here if shape is not None and not isinstance(shape, Raw)}
    inputs = [(shape, "validation", TypeAdapter(shape)) for shape in wanted]
    found, shared = TypeAdapter.json_schemas(inputs, ref_template=PLACE + "{model}")  # type: ignore[arg-type]
    named = {shape: _tidied(found[shape, "validation"]) for shape in wanted}
    return _tidied(shared["$defs"]), named


def _tidied(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, and docstrings on one line."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _tidied(each) for name, each in schema.items() if name != "title" or isinstance(each, dict)}
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    return found


def example(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    """An example of what a schema describes, put together of the examples of its parts."""
    if reference := schema.get("$ref"):
        return example(schemas[reference.removeprefix(PLACE)], schemas)
    if examples := schema.get("examples"):
        return examples[0]
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return choices[0]
    if ways := schema.get("anyOf"):
        return example(ways[0], schemas)
    match schema.get("type"):
        case "object":
            needed = schema.get("required", ())
            members = schema.get("properties", {})
            return {
                name: example(each, schemas) for name, each in members.items() if name in needed or "examples" in each
            }
        case "array":
            return [example(schema["items"], schemas)]
        case "boolean":
            return True
        case "integer":
            return schema.get("minimum", 1)
        case "string":
            return "text"
    return None


def _parameter(parameter: Parameter) -> Json:
    required = {"required": True} if parameter.where == "path" else {}
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        **required,
        "schema": parameter.schema,
    }


def _operation_id(handler: Any) -> str:
    first, *rest = f"{_package(handler.__module__)}_{handler.__name__}".split("_")
    return first + "".join(map(str.capitalize, rest))


def _tag(module: str) -> str:
    return _package(module).capitalize()


def _package(module: str) -> str:
    """What the routes of a module are about: the feature, or of the edge the module itself."""
    _, package, module = module.split(".")
    return package if module == "routes" else module


def _text(docstring: str | None) -> str:
    return "\n".join(line.strip() for line in (docstring or "").strip().splitlines())


def _first(docstring: str | None) -> str:
    return _text(docstring).partition("\n\n")[0].replace("\n", " ")


def _without_nothing(told_of: Json) -> Json:
    return {name: what for name, what in told_of.items() if what}


_REQUEST_ID = Parameter(
    "X-Request-Id",
    "An id for the request: 64 of `A-Z a-z 0-9 . _ -` at most. Another one is made where it is anything else.",
    where="header",
)
_IN_PATH: dict[str, tuple[str, Schema]] = {
    "id": ("The id.", TEXT),
    "provider": ("The name of a provider.", {"type": "string", "examples": ["google"]}),
}
_PHRASES = {
    200: "Done.",
    201: "Made.",
    202: "Taken on; a mail may be on its way.",
    204: "Done; there is nothing to say.",
    302: "Go on elsewhere.",
    304: "Nothing has changed.",
    400: "The request is not valid.",
    401: "Not signed in.",
    403: "Not allowed.",
    404: "Not there.",
    408: "Too slow.",
    409: "It collides with what is there.",
    413: "Too large.",
    415: "Not the type that is needed.",
    417: "An expectation that is not met.",
    429: "Too many requests.",
    500: "Our own fault.",
    502: "A provider's fault.",
    503: "Not now; nothing is lost.",
}
