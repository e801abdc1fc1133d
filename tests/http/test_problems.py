"""Bodies and errors: whatever is sent, the answer is a problem of ours and never an accident."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.web_urldispatcher import UrlDispatcher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.http import body as body_module
from tests.conftest import PASSWORD, Answer, Browser
from tests.http.conftest import SECRET_OF_THE_TRACE

TOKEN_MODE = {"X-Auth-Mode": "token"}
JSON = {"Content-Type": "application/json"}
MEMBERS = {"type", "title", "status", "detail", "code", "requestId"}
SECURITY = {
    "Server": "gatepost",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@pytest.fixture
async def browser(broken: Browser) -> Browser:
    return broken


def is_problem(answer: Answer, status: int, code: str, *more: str) -> None:
    """A problem of RFC 9457 with exactly the members that the contract names."""
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert set(problem) == MEMBERS | set(more)
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"]
    is_hardened(answer)


def is_hardened(answer: Answer) -> None:
    assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    assert answer.headers["X-Request-Id"]
    assert "X-Powered-By" not in answer.headers


async def post(browser: Browser, body: Any, path: str = "/api/auth/login", **headers: str) -> Answer:
    return await browser("POST", path, data=body, headers={**JSON, **headers})


# What is not there


async def test_who_asks_for_a_path_deeper_than_all_of_ours_costs_the_router_nothing(parts, serving, monkeypatch):
    """It looks once for each slash, at all that is before it: forty milliseconds for a path of 8 KB."""
    browser = await serving(parts)
    asked, resolve = [], UrlDispatcher.resolve

    async def resolved(self, request):
        asked.append(request.path)
        return await resolve(self, request)

    monkeypatch.setattr(UrlDispatcher, "resolve", resolved)
    for path in ("/a" * 3500, "/api/auth/me" + "/" * 7000):
        is_problem(await browser("GET", path), 404, "NOT_FOUND")
    assert asked == []
    mail = await browser("POST", "/api/admin/mail/parked/0-0/retry")
    assert (mail.code, asked) == ("NO_TOKEN", ["/api/admin/mail/parked/0-0/retry"])


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/api", "/api/", "/api/auth", "/api/auth/", "/api/nowhere", "/api/users", "/favicon.ico",
     "/.well-known/nothing", "/%00", "/%ff", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/" + "a" * 4000,
     "/a" * 3500, "/api/auth/me" + "/" * 7000, "/index.php?x=<script>"],
)  # fmt: skip
async def test_what_is_not_there_is_a_404(browser, path):
    for method in ("GET", "POST", "DELETE", "PUT"):
        answer = await browser(method, path)
        is_problem(answer, 404, "NOT_FOUND")
        assert "script" not in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/auth/login", {"POST"}),
        ("/api/auth/me", {"GET", "HEAD", "DELETE"}),
        ("/api/users/profile", {"GET", "HEAD", "PATCH"}),
        ("/api/auth/sessions/x", {"DELETE"}),
        ("/api/admin/mail/parked/x", {"DELETE"}),
        ("/api/admin/mail/parked/retry", {"POST"}),
        ("/health", {"GET", "HEAD"}),
        ("/", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_is_not_there_is_a_405_that_says_which_are(browser, path, allowed):
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - allowed:
        answer = await browser(method, path)
        is_problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed | {"OPTIONS"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/auth/login", "OPTIONS, POST"),
        ("/api/auth/me", "DELETE, GET, HEAD, OPTIONS"),
        ("/api/users/profile", "GET, HEAD, OPTIONS, PATCH"),
        ("/health", "GET, HEAD, OPTIONS"),
    ],
)
@pytest.mark.parametrize("origin", [{}, {"Origin": "http://localhost:5173"}, {"Origin": "https://evil.example"}])
async def test_options_without_a_preflight_says_which_methods_are_there(browser, path, allowed, origin):
    answer = await browser("OPTIONS", path, headers=origin)

    assert (answer.status, answer.headers["Allow"], answer.body) == (204, allowed, b"")
    is_hardened(answer)
    opened = answer.headers.get("Access-Control-Allow-Origin")
    assert opened == (origin.get("Origin") if "localhost" in str(origin) else None)


async def test_options_of_what_is_not_there_is_a_404(browser):
    is_problem(await browser("OPTIONS", "/nowhere"), 404, "NOT_FOUND")


# Too large, of another type, too slow


async def test_a_body_of_16_kib_is_taken_and_one_byte_more_is_not(browser):
    for size, status in ((16 * 1024, 400), (16 * 1024 + 1, 413), (20_000, 413)):
        exact = b'{"email": "' + b"a" * (size - 13) + b'"}'
        assert len(exact) == size
        assert (await post(browser, exact)).status == status


async def chunks(count: int, size: int = 1000) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


async def test_too_large_is_refused_whether_declared_or_not(browser):
    is_problem(await post(browser, b" " * 1_000_000), 413, "PAYLOAD_TOO_LARGE")
    is_problem(await post(browser, chunks(30)), 413, "PAYLOAD_TOO_LARGE")
    is_problem(await post(browser, chunks(16)), 400, "MALFORMED_JSON")
    assert (await browser.register()).status == 201


GOOD = json.dumps({"email": "ada@example.org", "password": PASSWORD}).encode()
UNKNOWN = json.dumps({"email": "nobody@example.org", "password": PASSWORD}).encode()


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/json",
     "application/jsonp", "application/json-patch+json", "application/problem+json", "application/xml", "*/*", "",
     "application", "application/json, text/plain", "text/plain; application/json", "application/json; charset=utf-16",
     "application/json; charset=latin-1", "application/json; charset=utf-7", "application/json; charset=nonsense",
     'application/json; charset="utf-16le"', "application/json;charset=utf-8;charset=utf-16"],
)  # fmt: skip
async def test_a_body_of_another_type_is_a_415_and_does_nothing(browser, content_type):
    answer = await browser("POST", "/api/auth/register", data=GOOD, headers={"Content-Type": content_type})

    if content_type.endswith("utf-8;charset=utf-16"):
        assert answer.status in (201, 400, 415)  # the standards do not say which of two counts
        return
    is_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["Accept"] == "application/json"
    assert (await browser.login()).code == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (";a" * 4000, 401),
        ("; a=b" * 1500, 401),
        ("; charset=utf-8" * 500, 401),
        ("(" * 8000, 415),
        (";" + "(" * 240, 401),
    ],
    ids=["names", "pairs", "charsets", "brackets", "few brackets"],
)
async def test_a_type_of_kilobytes_is_read_like_any_other(browser, told, status):
    """The framework's reader once took half a second for one, in which nobody else was answered, or gave a 500."""
    answer = await post(browser, UNKNOWN, **{"Content-Type": "application/json" + told})

    assert answer.status == status


def test_reading_a_type_takes_no_longer_than_receiving_it():
    for sign in (";", "a=", '"', "(", "; charset=", '\\"'):
        assert not body_module._is("application/json", "text/plain;" + sign * 1_000_000)


async def test_a_form_is_a_415_on_every_route_that_takes_a_body(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    routes = [("POST", "/api/auth/login"), ("POST", "/api/auth/register"), ("POST", "/api/auth/refresh"),
              ("POST", "/api/auth/logout"), ("POST", "/api/auth/password/change"),
              ("PATCH", "/api/users/profile")]  # fmt: skip
    for method, path in routes:
        for form in ({"email": "a", "refreshToken": signed.json["refreshToken"]}, "email=a&password=b"):
            answer = await browser(method, path, data=form, headers=bearer)
            is_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await browser("GET", "/api/auth/me", headers=bearer)).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
     'application/json; charset="utf-8"', "application/json; charset=utf8", "application/json; odata=verbose"],
)  # fmt: skip
async def test_json_in_utf_8_is_taken_however_it_is_called(browser, content_type):
    answer = await browser("POST", "/api/auth/register", data=GOOD, headers={"Content-Type": content_type})

    assert answer.status == 201


async def test_compressed_bodies_are_refused(browser):
    packed, bomb = gzip.compress(GOOD), gzip.compress(b" " * 10_000_000)

    for encoding in ("gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip", "GZIP", "nonsense"):
        for data in (packed, GOOD, bomb[:16_000]):
            answer = await post(browser, data, **{"Content-Encoding": encoding})
            is_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    is_problem(await post(browser, packed), 400, "MALFORMED_JSON")
    assert (await browser.register()).status == 201


async def raw(browser: Browser, sent: bytes, *, end: bool = False) -> bytes:
    """What comes back for these very bytes until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", browser.client.server.port)
    writer.write(sent)
    await writer.drain()
    if end:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


LOGIN_HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_a_body_that_trickles_is_cut_off(browser, monkeypatch):
    monkeypatch.setattr(body_module, "ARRIVES_WITHIN", 0.05)

    for head in (LOGIN_HEAD + b"Content-Length: 500\r\n\r\n", LOGIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n"):
        answer = await raw(browser, head + b'{"em')
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"REQUEST_TIMEOUT"' in answer
        assert b"connection: close" in answer.lower()
        assert b"Server: gatepost" in answer
    assert body_module.ARRIVES_WITHIN < 10


def test_a_body_has_ten_seconds():
    assert body_module.ARRIVES_WITHIN == 10


@pytest.mark.parametrize("expected", [b"tea", b"tea\xff", "th\u00e9".encode()], ids=["ASCII", "no text", "UTF-8"])
@pytest.mark.parametrize("path", ["/api/auth/login", "/health", "/nowhere"])
async def test_an_expectation_that_nobody_knows_is_a_417(browser, path, expected):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: order-66\r\nConnection: close\r\nExpect: "

    head, _, body = (await raw(browser, head.encode() + expected + b"\r\n\r\n")).partition(b"\r\n\r\n")

    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    is_problem(Answer(int(head.split()[1]), fields, {}, body), 417, "EXPECTATION_FAILED")
    assert fields["X-Request-Id"] == "order-66"
    assert b"tea" not in body


async def test_a_client_that_asks_first_is_told_to_go_on(browser):
    head = LOGIN_HEAD + b"Connection: close\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD)

    answer = await raw(browser, head + GOOD)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 ")


async def test_a_client_that_hangs_up_in_its_body_breaks_nothing(browser):
    await raw(browser, LOGIN_HEAD + b"Content-Length: 500\r\n\r\n{", end=True)
    await raw(browser, LOGIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", end=True)
    await raw(browser, LOGIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n{", end=True)

    assert (await browser("GET", "/health")).status == 200


async def test_a_body_where_none_is_expected_is_not_looked_at(browser):
    for data in (b"{", b"\xff" * 100, GOOD):
        answer = await browser("GET", "/health", data=data)
        assert answer.status == 200


# JSON


def nested(depth: int, by: str = "[") -> bytes:
    inside = depth - 1  # the object around it is the first level
    middle = "[" * inside + "]" * inside if by == "[" else '{"a":' * inside + "1" + "}" * inside
    return f'{{"email": {middle or 1}}}'.encode()


MALFORMED = {
    "nothing": b"",
    "white space": b"  \n",
    "an array": b"[]",
    "an array of objects": b'[{"email": "a"}]',
    "a string": b'"text"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "half": b'{"email": ',
    "no quotes": b"{email: 1}",
    "single quotes": b"{'email': 'a'}",
    "a comma too many": b'{"email": "a",}',
    "a comment": b'{"email": "a" /* b */}',
    "two objects": b"{}{}",
    "something after": b"{} x",
    "NaN": b'{"email": NaN}',
    "Infinity": b'{"email": Infinity}',
    "-Infinity": b'{"email": -Infinity}',
    "a name twice": b'{"email": "a@example.org", "email": "b@example.org", "password": "x"}',
    "a name twice inside": b'{"email": {"a": 1, "a": 2}}',
    "a name twice, escaped": b'{"email": "a", "\\u0065mail": "b"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"email": "a"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"email": "a"}'.encode("utf-16-le"),
    "UTF-32": '{"email": "a"}'.encode("utf-32"),
    "latin-1": '{"email": "jürgen@example.org"}'.encode("latin-1"),
    "bad UTF-8": b'{"email": "\xff\xfe"}',
    "overlong UTF-8": b'{"email": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"email": "\xed\xa0\x80"}',
    "a cut character": b'{"email": "\xe2\x82"}',
    "a control character": b'{"email": "a\nb"}',
    "a NUL byte": b'{"email": "a\x00b"}',
    "a NUL at the end": b"{}\x00",
    "a bad escape": b'{"email": "\\x41"}',
    "half an escape": b'{"email": "\\u00"}',
    "17 arrays deep": nested(17),
    "17 objects deep": nested(17, "{"),
    "8,000 deep": b'{"a":' * 2700 + b"1" + b"}" * 2700,
    "8,000 arrays": b"[" * 8000 + b"]" * 8000,
    "only brackets": b"[" * 16_000,
    "only braces": b"{" * 16_000,
    "a string without end": b'{"email": "' + b"[" * 16_000,
    "5,000 digits": b'{"email": ' + b"9" * 5000 + b"}",
    "a leading zero": b'{"email": 01}',
    "a hexadecimal number": b'{"email": 0x1}',
    "form data": b"email=a&password=b",
    "quoted JSON": json.dumps(GOOD.decode()).encode(),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_no_json_object_is_malformed(browser, kind):
    for path in ("/api/auth/login", "/api/auth/register", "/api/auth/refresh", "/api/auth/logout"):
        body = MALFORMED[kind]
        if not body and path not in ("/api/auth/login", "/api/auth/register"):
            continue  # an empty body is none, and there it may be missing
        is_problem(await post(browser, body, path), 400, "MALFORMED_JSON")


@pytest.mark.parametrize("by", ["[", "{"])
async def test_sixteen_levels_are_taken_and_seventeen_are_not(browser, by):
    taken, refused = await post(browser, nested(16, by)), await post(browser, nested(17, by))

    is_problem(taken, 400, "VALIDATION_ERROR", "errors")
    is_problem(refused, 400, "MALFORMED_JSON")
    assert "16" in refused.json["detail"]


async def test_brackets_in_a_string_are_no_levels(browser):
    body = json.dumps({"email": "[{" * 500, "password": '\\"[[' * 50}).encode()

    is_problem(await post(browser, body), 400, "VALIDATION_ERROR", "errors")


def test_counting_levels_takes_no_longer_than_reading():
    """A string that never ends once made this quadratic: 16 KiB for most of a second of everybody's time."""
    body_module._parse('{"a": "[[[[[[[[[[[[[[[[["}')
    for text in ("[" * 17 + '"' + '\\"' * 1_000_000, "[" * 17 + '"\\' * 1_000_000):
        assert body_module._depth(text) == 17


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"email", "password"}),
        ({"email": "ada@example.org"}, {"password"}),
        ({"email": None, "password": None}, {"email", "password"}),
        ({"email": 1, "password": 2}, {"email", "password"}),
        ({"email": 1e400, "password": True}, {"email", "password"}),
        ({"email": ["ada@example.org"], "password": {"$ne": ""}}, {"email", "password"}),
        ({"email": "ada@example.org", "password": 12345678}, {"password"}),
        ({"email": "no address", "password": "x"}, {"email"}),
        ({"email": "a\0@example.org", "password": "x"}, {"email"}),
        ({"email": "a@example.org\r\nBcc: b@example.org", "password": "x"}, {"email"}),
        ({"email": "\ud800@example.org", "password": "x"}, {"email"}),
        ({"email": "a" * 10_000 + "@example.org", "password": "x"}, {"email"}),
        ({"email": "ada@example.org", "password": "x", "remember": True}, {"remember"}),
        ({"email": "ada@example.org", "password": "x", "Email": "eve@example.org"}, {"Email"}),
        (
            {"email": "ada@example.org", "password": "x", "__proto__": {}, "constructor": 1},
            {"__proto__", "constructor"},
        ),
        ({"email": "ada@example.org", "password": "x", "": 1}, {""}),
    ],
)
async def test_fields_that_are_missing_unknown_or_wrong_are_named(browser, body, fields):
    encoded = json.dumps(body).replace("Infinity", "1e400").encode()

    answer = await post(browser, encoded)

    is_problem(answer, 400, "VALIDATION_ERROR", "errors")
    assert {error["field"] for error in answer.json["errors"]} == fields
    assert all(set(error) == {"field", "message"} and error["message"] for error in answer.json["errors"])


async def test_a_refusal_repeats_no_value(browser):
    for body in (
        {"email": "hunter2hunter2", "password": ["hunter2"]},
        {"password": {"hunter2": "hunter2"}, "email": 1},
    ):
        answer = await post(browser, json.dumps(body).encode())
        assert answer.status == 400
        assert b"hunter2" not in answer.body


async def test_lone_surrogates_and_nul_are_no_accident_anywhere(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    for odd in ("\\ud800", "\\udfff\\ud800", "\\u0000", "a\\u0000b", "\\ufffe", "\\u202e", "\\u001b[2J"):
        for path, body in (
            ("/api/auth/login", f'{{"email": "ada@example.org", "password": "{odd}12345678"}}'),
            ("/api/auth/login", f'{{"email": "{odd}@example.org", "password": "x"}}'),
            ("/api/auth/login", f'{{"{odd}": 1}}'),
            ("/api/auth/register", f'{{"email": "b@example.org", "password": "{odd}", "firstName": "{odd}"}}'),
            ("/api/auth/register", f'{{"email": "b@example.org", "password": "a good long one", "name": "{odd}"}}'),
            ("/api/auth/refresh", f'{{"refreshToken": "{odd}"}}'),
            ("/api/auth/logout", f'{{"{odd}": "{odd}"}}'),
        ):
            answer = await post(browser, body.encode(), path)
            assert answer.status in (400, 401), (path, odd, answer)
        for field in ("firstName", "lastName", "name", "picture"):
            patch = f'{{"{field}": "{odd}"}}'.encode()
            answer = await browser("PATCH", "/api/users/profile", data=patch, headers={**JSON, **bearer})
            is_problem(answer, 400, "VALIDATION_ERROR", "errors")


# What nobody foresaw


async def test_what_nobody_foresaw_is_a_bare_500(broken, capfd):
    for method in ("GET", "POST", "DELETE"):
        answer = await broken(method, "/api/auth/broken")
        is_problem(answer, 500, "INTERNAL_ERROR")
        assert SECRET_OF_THE_TRACE not in answer.body.decode()
        assert "RuntimeError" not in answer.body.decode()
        assert answer.headers["Cache-Control"] == "no-store"
    assert (await broken("GET", "/api/auth/broken/ada@example.org")).status == 500  # nor is the email in the log
    assert (await broken("GET", "/health")).status == 200


# On every answer


async def every_kind(browser: Browser) -> list[Answer]:
    signed = await browser.register(headers=TOKEN_MODE)
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    answers = [
        signed,
        await browser("GET", "/api/auth/me", headers=bearer),
        await browser("HEAD", "/api/auth/me", headers=bearer),
        await browser("GET", "/api/auth/csrf-token"),
        await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]}),
        await browser("GET", "/api/admin", headers=bearer),
        await browser("GET", "/api/auth/me"),
        await browser("GET", "/api/auth/nowhere"),
        await browser("GET", "/api/auth/login"),
        await post(browser, b"{"),
        await browser("POST", "/api/auth/broken"),
        await browser("OPTIONS", "/api/auth/me"),
        await browser("POST", "/api/auth/logout", headers=bearer),
    ]
    paths = ("/", "/health", "/ready", "/.well-known/jwks.json", "/api/public", "/nowhere")
    answers += [await browser("GET", path) for path in paths]
    preflight = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "GET"}
    answers.append(await browser("OPTIONS", "/api/auth/me", headers=preflight))
    return answers


async def test_every_answer_is_hardened(broken):
    for answer in await every_kind(broken):
        is_hardened(answer)
        assert not re.search(r"\d+\.\d+|aiohttp|python", answer.headers["Server"], re.IGNORECASE)
        cache = "public, max-age=300" if b'"keys"' in answer.body else "no-store"
        assert answer.headers["Cache-Control"] == cache
        assert "Strict-Transport-Security" not in answer.headers


async def test_in_production_over_https_browsers_are_told_to_stay_there(serving):
    live = {"ENVIRONMENT": "production", "REDIS_URL": "redis://localhost"}
    over_https = await serving(**live, PUBLIC_URL="https://auth.example.org")
    over_http = await serving(**live, PUBLIC_URL="http://auth.internal")

    for path in ("/health", "/nowhere", "/api/auth/me"):
        told = (await over_https("GET", path)).headers["Strict-Transport-Security"]
        assert int(re.findall(r"max-age=(\d+)", told)[0]) >= 31_536_000
        assert "Strict-Transport-Security" not in (await over_http("GET", path)).headers


@pytest.mark.parametrize("sane", ["a", "A-b_c.9", "x" * 64, "3fa85f64-5717-4562-b3fc-2c963f66afa6"])
async def test_a_sane_request_id_is_kept(browser, sane):
    for path in ("/health", "/nowhere", "/api/auth/me"):
        answer = await browser("GET", path, headers={"X-Request-Id": sane})
        assert answer.headers.getall("X-Request-Id") == [sane]
        if answer.status != 200:
            assert answer.json["requestId"] == sane


@pytest.mark.parametrize("odd", ["", " ", "x" * 65, "a b", "<script>", "ü", "a;b", '"', "a/b", "%0d%0a", "a,b"])
async def test_an_odd_request_id_is_replaced(browser, odd):
    first, second = [await browser("GET", "/nowhere", headers={"X-Request-Id": odd}) for _ in range(2)]

    ids = {first.headers["X-Request-Id"], second.headers["X-Request-Id"]}
    assert len(ids) == 2
    assert odd not in ids
    assert all(re.fullmatch(r"[0-9a-f]{16}", found) for found in ids)


async def test_a_head_is_a_get_without_a_body(browser):
    signed = await browser.register(headers=TOKEN_MODE)
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    for path in ("/api/auth/me", "/api/auth/sessions", "/health", "/api/admin", "/nowhere", "/api/auth/verify?role=x"):
        get, head = await browser("GET", path, headers=bearer), await browser("HEAD", path, headers=bearer)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]


# Odd paths


@pytest.mark.parametrize(
    "path",
    ["//api/auth/me", "/api//auth/me", "/api/auth//me", "/api/auth/me/", "/api/auth/me//", "/API/AUTH/ME",
     "/Api/Auth/Me", "/api/auth/Me", "/api/./auth/me", "/api/auth/../auth/me", "/api/%2e/auth/me",
     "/api/auth/%2e%2e/auth/me", "/api%2fauth%2fme", "/api/auth%2Fme", "/api/auth/me%00", "/api/auth/me%20",
     "/api/auth/me;x=1", "/api/auth/me.json", "/api/auth/me%2f", "/api/auth/m%65", "/%61pi/auth/me", "\\api\\auth\\me",
     "/api/public/../auth/me", "/api/public/%2e%2e/auth/me", "/api/public;/../admin", "http://evil.example/api/auth/me",
     "/api/users/%64ashboard", "/api/users/..%2fprofile", "/api/users/profile%2f"],
)  # fmt: skip
async def test_an_odd_path_skips_no_check(browser, path):
    """Sent as it stands: it is another path, or the same one with the same guard, but never an open door."""
    for method in (b"GET", b"HEAD", b"POST", b"DELETE", b"PATCH"):
        line = method + b" " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        status = int((await raw(browser, line)).split()[1])
        assert status in (400, 401, 404, 405), (method, status)
    evil = (
        b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n"
    )
    assert int((await raw(browser, evil)).split()[1]) in (400, 403)


async def test_no_method_override_is_obeyed(browser):
    await browser.register()
    for header in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        answer = await browser("GET", "/api/users/profile", headers={header: "DELETE"}, csrf=None)
        assert answer.status == 200
    for header in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Host"):
        assert "endpoints" in (await browser("GET", "/", headers={header: "/api/auth/me"})).json


# Fuzzing

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=10), inside, max_size=4),
    max_leaves=10,
)
FIELDS = ("email", "password", "firstName", "lastName", "name", "picture", "refreshToken", "currentPassword",
          "newPassword", "role", "id")  # fmt: skip
words = st.text(max_size=40) | st.sampled_from(
    ["ada@example.org", PASSWORD, "", "\0", "\ud800", "a" * 2000, "rt_" + "A" * 72, "https://[", "http://a:b@c:99999"]
)
known = st.dictionaries(st.sampled_from(FIELDS), words | anything, max_size=5)
bodies = st.binary(max_size=60) | (known | anything).map(lambda value: json.dumps(value).encode())
routes = st.sampled_from(
    [("POST", "/api/auth/login"), ("POST", "/api/auth/register"), ("POST", "/api/auth/refresh"),
     ("POST", "/api/auth/logout"), ("POST", "/api/auth/logout-all"), ("POST", "/api/auth/password/change"),
     ("PATCH", "/api/users/profile"), ("GET", "/api/auth/me"), ("GET", "/api/auth/verify"),
     ("GET", "/api/auth/csrf-token"), ("DELETE", "/api/auth/sessions/x"), ("GET", "/api/users/x"),
     ("OPTIONS", "/api/auth/login")]
)  # fmt: skip
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
values = latin | st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "text/plain", "gzip", "http://localhost:5173", "null",
     "cross-site", "token", "cookie", "Bearer a.b.c", "Bearer", "Basic eDp5", "accessToken=a.b.c; refreshToken=rt_x",
     "1.2.3.4, ::1", "[::1", "unknown", "bytes=0-1", "100-continue-not", "=;=;==", 'a="b; c', "$Version=1; a=b"]
)  # fmt: skip
headers = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Content-Encoding", "Origin", "Sec-Fetch-Site", "Authorization", "Cookie", "X-CSRF-Token",
         "X-Auth-Mode", "X-Request-Id", "X-Forwarded-For", "User-Agent", "Accept", "Accept-Encoding", "Range",
         "Access-Control-Request-Method", "Access-Control-Request-Headers", "If-None-Match", "Referer", "Forwarded"]
    ),
    values,
    max_size=5,
)  # fmt: skip
queries = st.text(max_size=15) | st.sampled_from(["role=%ff", "role=&permission=", "%", "a=b&a=c", "limit=-1"])
requests = st.lists(st.tuples(routes, bodies, headers, queries, st.booleans()), min_size=8, max_size=8)


async def test_no_fuzzed_request_is_a_500(browser, parts):
    """1,600 requests on each Redis; the same ones each time."""
    loop = asyncio.get_running_loop()
    bearer = {}

    async def ask(batch: list[Any]) -> None:
        if not bearer:
            signed = await browser.register("fuzz@example.org", headers=TOKEN_MODE)
            if signed.status == 409:
                signed = await browser.login("fuzz@example.org", headers=TOKEN_MODE)
            bearer["Authorization"] = f"Bearer {signed.json['accessToken']}"
        browser.client.session.cookie_jar.clear()
        for (method, path), body, sent, query, signed_in in batch:
            typed = {**JSON, **(bearer if signed_in else {}), **{name: value.strip() for name, value in sent.items()}}
            data = None if method in ("GET", "OPTIONS") else body
            answer = await browser(method, path, data=data, headers=typed, params={"q": query}, csrf=None)
            assert answer.status < 500, (method, path, body, sent, answer)
            assert answer.headers["Server"] == "gatepost", (method, path, sent, answer)
            if answer.status >= 400:
                assert method == "HEAD" or set(answer.json) >= MEMBERS, answer
            if answer.status == 204:
                bearer.clear()
                return

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def fuzz(batch: list[Any]) -> None:
        asyncio.run_coroutine_threadsafe(ask(batch), loop).result(30)

    await asyncio.to_thread(fuzz)
