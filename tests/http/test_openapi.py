"""`/openapi.json`: valid, complete, and the same as what serves. That answers are as it says, every test shows."""

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from service import errors
from service.app import assemble, make_app
from service.http import openapi
from service.http.body import Body
from service.store import reach
from tests.conftest import cheap_passwords, in_ci, settings_for
from tests.contract import Published


def application(**changes: str) -> Any:
    its = assemble(settings_for(**changes), reach("redis://127.0.0.1:1"), cheap_passwords())
    its.passwords.close()
    return make_app(its)


APP = application()
DOCUMENT = openapi.document(APP)
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
}
HANDLERS = {f"{method.upper()} {path}": handler for path, method, handler in openapi.told(APP)}
resolved = Published(DOCUMENT).resolved


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}, format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def below(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from below(child)


# Valid and whole


def test_the_document_is_valid_openapi():
    found = None if in_ci() else pytest.importorskip("openapi_spec_validator")
    if found is None:
        import openapi_spec_validator as found

    found.validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_route_is_in_it_and_nothing_else():
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in APP.router.routes()
        if route.resource and route.method not in ("HEAD", "OPTIONS")
    }

    assert OPERATIONS.keys() == routes


def test_every_code_is_in_it_with_its_status_and_no_other():
    told = {
        (code, int(status))
        for operation in OPERATIONS.values()
        for status, reference in operation["responses"].items()
        for code in resolved(reference).get("content", {}).get("application/problem+json", {}).get("examples", {})
    }
    ours = {(kind.code, kind.status) for kind in below(errors.ServiceError) if kind.__module__ == errors.__name__}

    assert told == ours - {("METHOD_NOT_ALLOWED", 405)}  # of no operation, and so in the description
    assert "METHOD_NOT_ALLOWED" in DOCUMENT["info"]["description"]


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does():
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    tags = {tag["name"] for tag in DOCUMENT["tags"]}

    assert len(set(names)) == len(names)
    for name, operation in OPERATIONS.items():
        assert operation["summary"].endswith("."), name
        assert "\n" not in operation["summary"], f"{name}: the first paragraph of a docstring is one line"
        assert set(operation["tags"]) <= tags


def test_every_scheme_that_an_operation_names_is_there():
    schemes = DOCUMENT["components"]["securitySchemes"].keys()

    assert {scheme for operation in OPERATIONS.values() for way in operation["security"] for scheme in way} == schemes


# Examples


def media() -> Iterator[Any]:
    for name, operation in OPERATIONS.items():
        for what, told in {"body": operation.get("requestBody", {}), **operation["responses"]}.items():
            for kind, each in resolved(told).get("content", {}).items():
                yield pytest.param(kind, each, id=f"{name} {what} {kind}")


@pytest.mark.parametrize(("kind", "told"), list(media()))
def test_every_example_is_what_its_schema_asks_for(kind, told):
    examples = [each["value"] for each in told.get("examples", {}).values()]
    examples += [told["example"]] if "example" in told else []

    assert examples or not kind.endswith("json") or told["schema"] == {"type": "object"}
    for example in examples:
        validator(told["schema"]).validate(example)
        assert "text" not in re.findall(r"'(\w+)'", str(example)), "a string has no example"


def test_every_example_of_a_body_is_one_that_the_service_takes():
    for name, handler in HANDLERS.items():
        if model := handler.contract.takes:
            model.model_validate(OPERATIONS[name]["requestBody"]["content"]["application/json"]["example"])


# What is told is what the code does


def source(handler: Any) -> ast.AST:
    """The handler as it is written, without its decorators."""
    function = ast.parse(inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(handler)))).body[0]
    assert isinstance(function, ast.AsyncFunctionDef)
    function.decorator_list = []
    return function


def called(tree: ast.AST, *names: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (getattr(node.func, "id", None) or getattr(node.func, "attr", "")) in names
    ]


@pytest.mark.parametrize("name", HANDLERS)
def test_a_body_is_told_by_the_model_that_checks_it(name):
    handler = HANDLERS[name]
    bodies = [call.args[1].id for call in called(source(handler), "read", "read_optional")]

    if name not in ("POST /api/auth/refresh", "POST /api/auth/logout"):  # they read it in a function of both
        assert bodies == ([handler.contract.takes.__name__] if handler.contract.takes else [])
    assert bool(called(source(handler), "read_form")) == bool(handler.contract.takes_form)
    assert handler.contract.takes is None or issubclass(handler.contract.takes, Body)


@pytest.mark.parametrize("name", HANDLERS)
def test_every_parameter_and_limit_is_told(name):
    tree, contract = source(HANDLERS[name]), HANDLERS[name].contract
    query = {parameter.name for parameter in contract.parameters if parameter.where == "query"}
    read = [call.args[1] for call in called(tree, "asked")]
    read += [call.args[0] for call in called(tree, "get", "getall") if "query" in ast.unparse(call.func)]
    charged = {call.args[0].value for call in called(tree, "Charge")}

    if name != "GET /api/auth/{provider}/callback":  # it takes whatever a provider sends
        assert {node.value for node in read} | ({"limit"} if called(tree, "limit") else set()) == query
    assert charged <= set(contract.limits)
    assert bool(called(tree, "wants_cookies")) == ("X-Auth-Mode" in {each.name for each in contract.parameters})


def test_bodies_say_that_they_refuse_unknown_fields_and_how_long_a_field_may_be():
    schemas = DOCUMENT["components"]["schemas"]
    bodies = {handler.contract.takes.__name__ for handler in HANDLERS.values() if handler.contract.takes}

    assert {name for name in bodies if schemas[name].get("additionalProperties") is not False} == set()
    assert schemas["Registration"]["properties"]["email"]["maxLength"] == 254
    assert schemas["Registration"]["properties"]["password"]["minLength"] == 8


# As it is configured


def test_what_is_off_is_not_there():
    paths = openapi.document(application(EXAMPLES="off", SMTP_URL="smtp://127.0.0.1", MAIL_FROM="a@example.org"))[
        "paths"
    ]

    assert DOCUMENT["paths"].keys() - paths.keys() == {
        *("/api/public", "/api/optional", "/api/protected", "/api/moderate", "/api/admin", "/api/users/dashboard"),
        "/dev/mail",
    }


def test_the_address_and_the_cookies_are_those_of_the_configuration():
    secure = openapi.document(application(PUBLIC_URL="https://auth.example.org"))

    assert secure["servers"] == [{"url": "https://auth.example.org"}]
    schemes = secure["components"]["securitySchemes"]
    assert schemes["accessTokenCookie"]["name"] == "__Host-accessToken"
    assert schemes["refreshTokenCookie"]["name"] == "__Secure-refreshToken"
    assert schemes["csrfToken"]["x-cookie"] == "__Host-csrfToken"
    assert schemes["browserCookie"]["name"] == "__Host-browser"


# As it is served


async def test_it_is_made_once_and_told_to_be_unchanged(browser, parts):
    first = await browser("GET", "/openapi.json")
    made = parts.state.openapi
    again = await browser("GET", "/openapi.json", headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})

    assert first.json["servers"] == [{"url": parts.settings.public_url}]
    assert parts.state.openapi is made
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/docs", "/docs/page.js", "/docs/page.css"])
async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(browser, path):
    answer = await browser("GET", path)
    text = answer.body.decode()

    assert answer.status == 200
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|innerHTML|eval\(", text)
    assert [link for link in re.findall(r"https?://[^\s\"']+", text) if link != "http://www.w3.org/2000/svg"] == []


async def test_the_policy_of_the_page_is_its_own_and_comes_with_a_304_too(browser):
    """What a 304 says replaces what the browser has kept of the page."""
    page = await browser("GET", "/docs")
    again = await browser("GET", "/docs", headers={"If-None-Match": page.headers["ETag"]})
    policy = page.headers["Content-Security-Policy"]

    assert again.status == 304
    assert again.headers["Content-Security-Policy"] == policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert (
        (await browser("GET", "/openapi.json")).headers["Content-Security-Policy"].startswith("default-src 'none'; f")
    )


# Those who read along in every test


@pytest.mark.parametrize(
    ("body", "headers", "fault"),
    [
        (b'{"status":"ok","timestamp":"2026-03-14T09:26:53.589Z","uptime":1}', {"x-request-id"}, None),
        (b'{"status":"ok","timestamp":"2026-03-14T09:26:53.589Z","uptime":"1"}', {"x-request-id"}, "not of type"),
        (b'{"status":"ok","timestamp":"2026-03-14T09:26:53.589Z"}', {"x-request-id"}, "required property"),
        (b'{"status":"ok","timestamp":"x","uptime":1,"more":1}', {"x-request-id"}, "'more' was unexpected"),
        (b'{"status":"ok","timestamp":"x","uptime":1}', {"x-request-id", "set-cookie"}, "an untold header set-cookie"),
        (b"", {"x-request-id"}, "no body"),
    ],
)
def test_an_answer_that_is_not_as_published_is_complained_of(body, headers, fault):
    expected = Published(DOCUMENT).answer("/health", "get", 200)

    (told,) = expected.faults("application/json", headers, body, bodiless=False) or [None]

    assert (told is None) if fault is None else (fault in told)


def test_a_status_or_a_code_that_is_not_published_is_complained_of():
    contract = Published(DOCUMENT)
    refused = contract.answer("/api/auth/login", "post", 401)
    headers = {"x-request-id", "www-authenticate"}

    def faults(code: str) -> list[str]:
        problem = {"type": "about:blank", "title": "t", "detail": "d", "requestId": "r", "status": 401, "code": code}
        return refused.faults("application/problem+json", headers, orjson.dumps(problem), bodiless=False)

    assert contract.answer("/api/auth/login", "post", 404) is None
    assert faults("INVALID_CREDENTIALS") == []
    assert "is not one of" in faults("TOKEN_STALE")[0]
    assert refused.faults("text/html", headers, b"<p>", bodiless=False) == ["an untold type text/html"]
