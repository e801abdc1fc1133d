"""What a route may answer: what its contract gives, and the errors that follow from its guard and from what it takes.

Nobody tells those errors again at the route: a guard brings its refusals, and so do a body, a limit and Redis. Answers
that refuse alike are one, which the operations refer to.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service import errors
from service.errors import ServiceError
from service.http import problems
from service.http.body import JSON
from service.http.contract import TEXT, Raw
from service.http.cookies import Cookies
from service.http.csrf import SAFE
from service.http.openapi.route import Route
from service.http.openapi.schemas import PLACE, Json, Schemas

_NOT_SIGNED_IN = (
    *(errors.NoToken, errors.InvalidToken, errors.TokenExpired, errors.TokenRevoked, errors.TokenStale),
    errors.InvalidApiKey,
)
# What any request may meet, whatever it asks for: bytes that are not HTTP, too slow, too much at once, our own fault.
_ALWAYS = (errors.BadRequest, errors.RequestTimeout, errors.ExpectationFailed, errors.Crowded, ServiceError)
_BEFORE_LIMITS = frozenset({408, 413, 415, 417})  # are answered before a limit is asked
_BODY = (errors.ValidationFailed, errors.MalformedJson, errors.PayloadTooLarge)

_SAMPLES: dict[type[ServiceError], Callable[[], ServiceError]] = {
    errors.ValidationFailed: lambda: errors.ValidationFailed(
        [{"field": "limit", "message": "is there more than once"}]
    ),
    errors.Forbidden: lambda: errors.Forbidden(required=["users:read"]),
    errors.RateLimited: lambda: errors.RateLimited(60),
    errors.SessionEnded: lambda: errors.SessionEnded(reason="logout"),
}
_HEADERS: dict[str, Json] = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("X-Request-Id", "The id of the request, in the log too; a sane one that was sent is kept.", TEXT),
        ("WWW-Authenticate", "The challenge (RFC 6750, section 3).", TEXT),
        ("Retry-After", "Seconds to wait before asking again.", {"type": "integer", "minimum": 0}),
        ("RateLimit", "What the limits still allow (draft-ietf-httpapi-ratelimit-headers-10).", TEXT),
        ("RateLimit-Policy", "The limits themselves, from the same draft.", TEXT),
        ("Accept", "The type that the body must have.", TEXT),
        ("Location", "Where to go on.", TEXT),
        ("Connection", "`close`: the connection ends with this answer.", TEXT),
    )
}
_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
# The headers that operations refer to. The others are always there, where they are.
SHARED_HEADERS = {name: _HEADERS[name] for name in ("X-Request-Id", *_LIMIT_HEADERS, "Retry-After")}
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


class Responses:
    """The responses of all operations; `shared` has those that several may refer to."""

    def __init__(self, schemas: Schemas, cookies: Cookies) -> None:
        self._schemas = schemas
        self._cookies = cookies
        self.shared: dict[str, Json] = {}

    def of(self, route: Route) -> Json:
        """What a route may answer, by status."""
        contract, limited = route.contract, bool(route.limits)
        found = {str(status): self._given(status, route) for status in contract.gives}
        by_status: dict[int, dict[str, type[ServiceError]]] = {}
        for error in _errors(route):
            by_status.setdefault(error.status, {}).setdefault(error.code, error)
        for status, codes in sorted(by_status.items()):
            counted = limited and status not in _BEFORE_LIMITS
            refused = self._refused(status, codes, counted, status in contract.sets_cookies)
            if str(status) in found:  # an answer of another kind with the same status
                found[str(status)]["content"] |= self.shared[refused]["content"]
            else:
                found[str(status)] = {"$ref": f"#/components/responses/{refused}"}
        return dict(sorted(found.items()))

    def _given(self, status: int, route: Route) -> Json:
        """An answer that the contract names."""
        contract, signs = route.contract, status in route.contract.sets_cookies
        headers: Json = {"X-Request-Id": _shared("X-Request-Id")}
        if route.limits:
            headers |= {name: _shared(name) for name in _LIMIT_HEADERS}
        if status == 503:
            headers["Retry-After"] = _shared("Retry-After")
        headers |= {
            name: {"description": text, "required": True, "schema": TEXT} for name, text in contract.headers.items()
        }
        if status == 302:
            headers["Location"] = {**_HEADERS["Location"], "required": True}
        if signs or route.has_browser_session:
            headers["Set-Cookie"] = self._set_cookie(visited=route.has_browser_session, signs=signs)
        found = {"description": _PHRASES[status], "headers": headers}
        if content := self._content(contract.gives[status]):
            found["content"] = content
        return found

    def _content(self, shape: Any) -> Json | None:
        if shape is None:
            return None
        if isinstance(shape, Raw):
            return {shape.media_type: {"schema": shape.schema}}
        return {JSON: self._schemas.media(shape)}

    def _refused(self, status: int, codes: Mapping[str, type[ServiceError]], limited: bool, cookies: bool) -> str:
        """The name of the shared answer that says any of these codes."""
        kinds = sorted(kind.__name__ for kind in codes.values())
        name = "-".join([str(status), *kinds, *["limited"] * limited, *["cookies"] * cookies])
        if name in self.shared:
            return name
        samples = {code: _SAMPLES.get(codes[code], codes[code])() for code in sorted(codes)}
        headers: Json = {"X-Request-Id": _shared("X-Request-Id")}
        headers |= {name: {**_HEADERS[name], "required": True} for name in next(iter(samples.values())).headers}
        if limited:
            headers |= {name: _shared(name) for name in _LIMIT_HEADERS}
        if cookies:
            headers["Set-Cookie"] = self._set_cookie(visited=False, signs=True)
        told_by_status = {"properties": {"status": {"const": status}, "code": {"enum": sorted(codes)}}}
        self.shared[name] = {
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
        names = [*self._cookies.names] * signs + [self._cookies.host_only("browser")] * visited
        named = ", ".join(f"`{name}`" for name in names)
        return {"description": f"Sets or removes {named}.", "schema": TEXT}


def _shared(header: str) -> Json:
    return {"$ref": f"#/components/headers/{header}"}


def _errors(route: Route) -> Iterator[type[ServiceError]]:
    """What a call of the route may be refused with."""
    access, contract = route.access, route.contract
    yield from contract.raises
    guarded = access.who not in ("anyone", "optional user")
    if guarded:
        yield from _NOT_SIGNED_IN
        if access.who != "user or API key":
            yield errors.Forbidden
    if route.method.upper() not in SAFE:
        yield errors.OriginForbidden
        if guarded:
            yield errors.CsrfFailed
    if guarded or contract.takes or contract.takes_form:
        yield from _BODY
    elif contract.parameters:
        yield errors.ValidationFailed
    if contract.takes or contract.takes_form:
        yield errors.UnsupportedMediaType
    if route.limits:
        yield errors.RateLimited
    if contract.redis:
        yield errors.StoreUnavailable
    yield from _ALWAYS
