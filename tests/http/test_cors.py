"""Cross-origin requests: exact origins with credentials, on every answer, errors included."""

import re

import pytest

from service.settings import SettingsError
from tests.conftest import Answer, Browser, emails, settings_for

TOKEN_MODE = {"X-Auth-Mode": "token"}
FRONTEND = "http://localhost:5173"
HERE = {"Origin": FRONTEND}
ALLOW, CREDENTIALS, EXPOSE = (
    f"Access-Control-{name}" for name in ("Allow-Origin", "Allow-Credentials", "Expose-Headers")
)
FOREIGN = ["https://evil.example", "null", "http://localhost:5173.evil.example", "http://localhost:517", FRONTEND + "/",
           "https://localhost:5173", "http://LOCALHOST:5173", "http://sub.localhost:5173", "*", ""]  # fmt: skip
ROUTES = [
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/logout"),
    ("GET", "/api/auth/me"),
    ("GET", "/api/auth/verify"),
    ("DELETE", "/api/auth/sessions/x"),
    ("PATCH", "/api/users/profile"),
    ("GET", "/api/users/x"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/health"),
    ("GET", "/"),
    ("GET", "/api/admin"),
]


def is_open(answer: Answer, origin: str = FRONTEND) -> None:
    """The browser lets the page of this origin read the answer."""
    assert answer.headers.getall(ALLOW) == [origin], answer
    assert answer.headers.getall(CREDENTIALS) == ["true"]
    exposed = {name.strip() for name in answer.headers[EXPOSE].split(",")}
    assert {"X-Request-Id", "Retry-After", "Date", "RateLimit", "RateLimit-Policy", "WWW-Authenticate"} <= exposed
    varies(answer)


def is_shut(answer: Answer) -> None:
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")], answer
    varies(answer)


def varies(answer: Answer) -> None:
    names = {name.strip().lower() for header in answer.headers.getall("Vary") for name in header.split(",")}
    assert "origin" in names
    assert "*" not in names


async def preflight(
    browser: Browser, method: str, path: str, origin: str | None = FRONTEND, headers: str = ""
) -> Answer:
    asked = {"Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return await browser("OPTIONS", path, headers={**asked, **({} if origin is None else {"Origin": origin})})


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_preflight_of_an_allowed_origin_is_answered(browser, method, path):
    wanted = "content-type, authorization, x-csrf-token, x-auth-mode, x-request-id"

    answer = await preflight(browser, method, path, headers=wanted)

    assert answer.status == 200
    assert answer.headers[ALLOW] == FRONTEND
    assert answer.headers[CREDENTIALS] == "true"
    assert method in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert all(name.strip() in allowed for name in wanted.split(","))
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert "Set-Cookie" not in answer.headers
    varies(answer)


async def test_every_route_answers_preflights(browser):
    for endpoint in (await browser("GET", "/")).json["endpoints"]:
        method, path = endpoint.split()
        assert (await preflight(browser, method, re.sub(r"{\w+}", "x", path))).status == 200, endpoint


async def test_a_preflight_of_another_origin_gets_nothing(browser):
    for origin in FOREIGN:
        answer = await preflight(browser, "POST", "/api/auth/login", origin)
        assert (answer.status, answer.code) == (403, "ORIGIN_FORBIDDEN")
        is_shut(answer)


async def test_a_preflight_for_what_is_not_there_or_not_allowed_permits_nothing(browser):
    for method, path, headers in (
        ("DELETE", "/api/auth/login", ""),
        ("POST", "/api/auth/login", "X-Evil"),
        ("POST", "/api/auth/nowhere", ""),
    ):
        answer = await preflight(browser, method, path, headers=headers)
        assert answer.status in (403, 404, 405)
        assert "Access-Control-Allow-Methods" not in answer.headers
        assert "Access-Control-Allow-Headers" not in answer.headers


async def test_a_preflight_is_neither_limited_nor_guarded(serving):
    browser = await serving(RATE_LIMITS="login=1/15m,register=1/1h,login-address=1/15m")
    for path in ("/api/auth/login", "/api/auth/register", "/api/auth/logout-all"):
        for _ in range(5):
            answer = await preflight(browser, "POST", path)
            assert answer.status == 200
            assert "RateLimit" not in answer.headers

    assert (await browser.register()).status == 201


async def test_a_preflight_needs_no_redis(without_redis):
    assert (await preflight(without_redis, "POST", "/api/auth/login")).status == 200


async def test_every_successful_answer_is_open_to_the_frontend(browser):
    signed = await browser.register(headers={**HERE, **TOKEN_MODE})
    bearer = {**HERE, "Authorization": f"Bearer {signed.json['accessToken']}"}
    is_open(signed)

    paths = ("/api/auth/me", "/api/auth/verify", "/api/auth/sessions", "/api/users/profile", "/api/auth/csrf-token",
             "/", "/health", "/ready", "/.well-known/jwks.json", "/api/public", "/api/protected")  # fmt: skip
    for path in paths:
        for method in ("GET", "HEAD"):
            answer = await browser(method, path, headers=bearer)
            assert answer.status == 200
            is_open(answer)
    is_open(await browser("PATCH", "/api/users/profile", {"name": "Ada"}, headers=bearer))
    is_open(await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]}, headers=HERE))
    is_open(await browser("POST", "/api/auth/logout", headers=bearer))


async def failures(browser: Browser, headers: dict[str, str]) -> dict[int, Answer]:
    """An answer of every kind that goes wrong, by its status."""
    text, json_ = {**headers, "Content-Type": "text/plain"}, {**headers, "Content-Type": "application/json"}
    signed = await browser.register(email := next(emails), headers=TOKEN_MODE)
    bearer = {**headers, "Authorization": f"Bearer {signed.json['accessToken']}"}
    answers = [
        await browser("POST", "/api/auth/login", {}, headers=headers),
        await browser("GET", "/api/auth/me", headers=headers),
        await browser("GET", "/api/admin", headers=bearer),
        await browser("GET", "/api/nowhere", headers=headers),
        await browser("GET", "/api/auth/login", headers=headers),
        await browser.register(email, headers=headers),
        await browser("POST", "/api/auth/login", data=b" " * 20_000, headers=json_),
        await browser("POST", "/api/auth/login", data=b"{}", headers=text),
        await browser("POST", "/api/auth/broken", headers=headers),
    ]
    return {answer.status: answer for answer in answers}


KINDS = {400, 401, 403, 404, 405, 409, 413, 415, 500}


async def test_every_error_is_open_to_the_frontend(broken):
    answers = await failures(broken, HERE)

    assert set(answers) == KINDS
    for answer in answers.values():
        is_open(answer)


async def test_no_error_is_open_to_another_origin(broken):
    for origin in FOREIGN[:3]:
        answers = await failures(broken, {"Origin": origin})
        for answer in answers.values():
            is_shut(answer)


async def test_every_error_varies_by_origin_where_none_was_sent(broken):
    answers = await failures(broken, {})

    assert set(answers) == KINDS
    for answer in answers.values():
        is_shut(answer)


async def test_a_limit_and_an_outage_are_open_to_the_frontend(serving, without_redis):
    limited = await serving(RATE_LIMITS="login=1/15m")
    await limited.login(headers=HERE)
    refused = await limited.login(headers=HERE)
    outage = await without_redis.login(headers=HERE)

    assert (refused.status, outage.status) == (429, 503)
    is_open(refused)
    is_open(outage)


async def test_another_origin_reads_nothing(browser):
    await browser.register()
    for origin in FOREIGN:
        for path in ("/api/auth/me", "/api/auth/csrf-token", "/api/public", "/.well-known/jwks.json"):
            answer = await browser("GET", path, headers={"Origin": origin})
            assert answer.status == 200
            is_shut(answer)


async def test_the_configured_origins_are_the_only_ones(serving):
    browser = await serving(CORS_ORIGINS="https://app.example.org, https://admin.example.org:8443")

    for origin in ("https://app.example.org", "https://admin.example.org:8443"):
        is_open(await browser("GET", "/api/public", headers={"Origin": origin}), origin)
        assert (await preflight(browser, "POST", "/api/auth/login", origin)).headers[ALLOW] == origin
    for origin in (FRONTEND, "https://admin.example.org", "https://example.org"):
        is_shut(await browser("GET", "/api/public", headers={"Origin": origin}))


async def test_the_frontend_is_allowed_unless_told_otherwise(serving):
    browser = await serving(FRONTEND_URL="https://app.example.org:443/start")

    for origin in ("https://app.example.org", FRONTEND):
        is_open(await browser("GET", "/api/public", headers={"Origin": origin}), origin)


@pytest.mark.parametrize("origins", ["*", "https://app.example.org, *", "app.example.org", "https://a.example/path"])
def test_what_is_no_origin_stops_the_start(origins):
    with pytest.raises(SettingsError, match="CORS_ORIGINS must"):
        settings_for(CORS_ORIGINS=origins)


async def test_a_page_of_the_frontend_signs_in_and_stays_so_across_origins(browser):
    """As the browser does it: a preflight, then the request with credentials."""
    assert (await preflight(browser, "POST", "/api/auth/login", headers="content-type")).status == 200
    registered = await browser.register(headers=HERE)
    is_open(registered)

    assert (await preflight(browser, "POST", "/api/auth/refresh", headers="x-csrf-token")).status == 200
    refreshed = await browser("POST", "/api/auth/refresh", headers=HERE)
    assert refreshed.status == 200
    is_open(refreshed)
