"""Holds every answer of the instances under test against `/openapi.json`.

An answer with a status, a code, a header, a member or a type that is not published is a complaint, and fails the test
in which it was given, whatever that test is about.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

import orjson
from aiohttp import web
from jsonschema import Draft202012Validator

from service.http import openapi
from service.http.edge import Edge
from service.http.protocol import Runner
from service.http.response import Answer

# What any answer may say besides: its frame, what hardens it, and what CORS is about.
UNTOLD = frozenset(
    {
        "cache-control",
        "connection",
        "content-length",
        "content-security-policy",
        "content-type",
        "date",
        "server",
        "vary",
    }
    | {"cross-origin-opener-policy", "referrer-policy", "strict-transport-security", "x-content-type-options"}
    | {"x-frame-options"}
)
ENOUGH = 100  # answers of one kind whose every member is looked at, in each process
NOWHERE = {404: {"NOT_FOUND"}, 405: {"METHOD_NOT_ALLOWED"}, 403: {"ORIGIN_FORBIDDEN"}, 503: {"OVERLOADED"}}

complaints: list[str] = []


class Published:
    """What one document says, ready to compare with."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = {**document["components"], "schemas": _strict(document["components"]["schemas"])}
        self._expected: dict[tuple[str, str, int], Expected | None] = {}

    def answer(self, path: str, method: str, status: int) -> "Expected | None":
        key = (path, method, status)
        if key not in self._expected:
            told = self.document["paths"][path][method]["responses"].get(str(status))
            self._expected[key] = Expected(self.resolved(told), self._components) if told else None
        return self._expected[key]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a reference refers to."""
        while reference := node.get("$ref"):
            node = self.document
            for part in reference.removeprefix("#/").split("/"):
                node = node[part]
        return node


class Expected:
    """What an operation says of one status."""

    def __init__(self, told: dict[str, Any], components: dict[str, Any]) -> None:
        self._told, self._components = told, components
        headers = told.get("headers", {})
        self._headers = UNTOLD | {name.lower() for name in headers}
        self._needed = {name.lower() for name, header in headers.items() if header.get("required")}
        self._seen: Counter[str] = Counter()

    @cached_property
    def _validators(self) -> dict[str, Draft202012Validator]:
        return {
            kind: Draft202012Validator({**media["schema"], "components": self._components})
            for kind, media in self._told.get("content", {}).items()
        }

    def faults(self, kind: str, headers: set[str], body: bytes, bodiless: bool) -> list[str]:
        found = [
            f"an untold header {name}" for name in headers - self._headers if not name.startswith("access-control-")
        ]
        found += [f"no header {name}" for name in self._needed - headers]
        if bodiless:
            return found
        if bool(body) != bool(self._validators):
            return [*found, "a body" if body else "no body"]
        if body and (validator := self._validators.get(kind)) is None:
            return [*found, f"an untold type {kind}"]
        if body and "json" in kind:
            content = orjson.loads(body)
            sort = str(content.get("code"))
            self._seen[sort] += 1
            if self._seen[sort] <= ENOUGH:
                found += [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(content)]
        return found


_published: dict[frozenset[tuple[str, str]], Published] = {}


def published(app: web.Application) -> Published:
    """What this application publishes; made once for each set of routes."""
    routes = frozenset((path, method) for path, method, _ in openapi.told(app))
    if routes not in _published:
        _published[routes] = Published(orjson.loads(openapi.written(app)))
    return _published[routes]


class Watched(Runner):
    """The service's own runner, with somebody who reads along what is answered."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        edge = server.request_handler
        assert isinstance(edge, Edge)
        server.request_handler = _reading_along(edge, self.app)  # type: ignore[assignment]
        return server


def _reading_along(edge: Edge, app: web.Application) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    contract = published(app)

    async def answered(request: web.Request) -> web.StreamResponse:
        answer = await edge(request)
        assert isinstance(answer, Answer)
        if fault := _fault(contract, request, answer):
            complaints.append(fault)
        return answer

    return answered


def _fault(contract: Published, request: web.Request, answer: Answer) -> str:
    route = request.match_info.route
    body = answer.body if isinstance(answer.body, bytes) else b""
    if request.method == "OPTIONS":
        return ""
    if route.resource is None:
        code = orjson.loads(body)["code"]
        known = code in {*NOWHERE.get(answer.status, ()), "EXPECTATION_FAILED", "VALIDATION_ERROR"}
        return "" if known else f"{request.method} {request.path}: {answer.status} {code}"
    if not hasattr(route.handler, "contract"):
        return ""  # of a test
    path, method = route.resource.canonical, request.method.lower()
    expected = contract.answer(path, "get" if method == "head" else method, answer.status)
    what = f"{request.method} {path} answered {answer.status} {answer.kind} {body[:300]!r}"
    if expected is None:
        return f"{what}: that status is not published"
    lines = answer.head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    headers = {line.partition(":")[0].lower() for line in lines}
    faults = expected.faults(answer.kind, headers, body, bodiless=method == "head")
    return f"{what}: {'; '.join(faults)}" if faults else ""


def _strict(schemas: dict[str, Any]) -> dict[str, Any]:
    """The same with nothing left open: clients must bear new members, the tests need not."""
    return {
        name: {**schema, "additionalProperties": False} if schema.get("properties") else schema
        for name, schema in schemas.items()
    }
