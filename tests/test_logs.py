"""The log of a whole journey, written by a real service: every event once, no secret ever, one event a line.

A person with recognisable secrets does everything there is to do, wrongly and rightly; then the log is read.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, CookieJar

from service.http.access_log import _without_secrets
from service.settings import ROOT
from tests.conftest import RedisServer, free_port

EMAIL, OTHER = "canary.person@example.org", "canary.typo@example.org"
PASSWORD, NEW, WRONG = "canary-one-password-1", "canary-two-password-2", "canary-wrong-password-3"
LOCAL_PARTS = ("canary.person", "canary.typo")


class Journey:
    """What was done and what was logged."""

    def __init__(self) -> None:
        self.secrets: set[str] = {PASSWORD, NEW, WRONG, "canary"}
        self.request_ids: set[str] = set()
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]


def start(
    redis: RedisServer, directory: Path, log_format: str, output: Path | None = None
) -> tuple[subprocess.Popen[bytes], str, Path]:
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "PORT": str(port),
        "REDIS_URL": redis.url,
        "AUTH_SECRET": "canary-root-secret-of-this-installation-9d",
        "LOG_FORMAT": log_format,
        "RATE_LIMITS": "login=8/15m",
        "REFRESH_LEEWAY": "0",
        "REFRESH_RECOVERY": "off",
        "PYTHONPATH": str(ROOT),
    }
    output = output or directory / f"log.{log_format}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=directory, env=environ, stdout=file, stderr=subprocess.STDOUT
        )
    return process, f"http://localhost:{port}", output


async def ready(session: ClientSession) -> None:
    """Until the service answers."""
    async with asyncio.timeout(60):
        while True:
            with suppress(ClientError):
                async with session.get("/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


async def live(url: str, journey: Journey) -> None:
    """Everything that can be done, and most of what can be done wrong."""
    jar = CookieJar(unsafe=True, treat_as_secure_origin=url)
    async with ClientSession(url, cookie_jar=jar) as session:
        await ready(session)

        async def ask(method: str, path: str, body: Any = None, expect: int | None = None, **kwargs: Any) -> dict:
            headers = {**kwargs.pop("headers", {})}
            csrf = next((cookie.value for cookie in jar if cookie.key.endswith("csrfToken")), None)
            if csrf:
                headers.setdefault("X-CSRF-Token", csrf)
            if body is not None:
                kwargs["json"] = body
            async with session.request(method, path, headers=headers, **kwargs) as answer:
                text = await answer.text()
                journey.request_ids.add(answer.headers["X-Request-Id"])
                assert expect in (None, answer.status), (path, answer.status, text)
            found = json.loads(text) if text else {}
            journey.secrets |= {found[name] for name in ("accessToken", "refreshToken", "csrfToken") if name in found}
            journey.secrets |= {cookie.value for cookie in jar if cookie.value}
            return found

        token_mode = {"X-Auth-Mode": "token"}
        mine, yours = {"email": EMAIL, "password": PASSWORD}, {"email": OTHER, "password": WRONG}
        await ask("GET", "/api/auth/csrf-token", expect=200)
        await ask("POST", "/api/auth/register", mine, expect=201, headers={"X-Request-Id": "journey-1"})
        await ask("POST", "/api/auth/register", mine, expect=409)
        await ask("POST", "/api/auth/register", {**mine, "password": "canary"}, expect=400)
        await ask("POST", "/api/auth/register", {**mine, "pasword": WRONG}, expect=400)
        await ask("POST", "/api/auth/register", {"email": f"{WRONG} {EMAIL}", "password": PASSWORD}, expect=400)
        await ask("GET", "/api/auth/me", expect=200)
        await ask("GET", f"/api/auth/me?access_token={WRONG}&email={EMAIL}", expect=200)
        await ask("GET", f"/api/users/{EMAIL}", expect=403)
        await ask("GET", f"/api/users/{EMAIL.replace('@', '%40')}/canary.person%40", expect=404)
        await ask("POST", "/api/auth/login", yours, expect=401)
        await ask("POST", "/api/auth/login", {**mine, "password": WRONG}, expect=401)
        await ask("POST", "/api/auth/login", data=json.dumps(mine)[:-5], expect=415)
        await ask(
            "POST", "/api/auth/login", data=json.dumps(mine)[:-5], expect=400,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        await ask("POST", "/api/auth/refresh", expect=200)
        await ask("GET", "/api/auth/me", headers={"Authorization": f"Bearer {WRONG}"}, expect=401)
        await ask("GET", "/api/auth/me", headers={"Authorization": f"Basic {WRONG}"}, expect=200)
        await ask("GET", "/api/auth/me", headers={"X-CSRF-Token": WRONG, "Origin": f"https://{WRONG}"})
        await ask("POST", "/api/auth/logout-all", headers={"X-CSRF-Token": WRONG}, expect=403)
        await ask("GET", f"/api/nothing%0a%1b%5b31m%e2%80%a8forged?code={WRONG}", expect=404)
        await ask("PATCH", "/api/users/profile", {"firstName": "canary-first"}, expect=200)

        thief = await ask("POST", "/api/auth/login", mine, headers=token_mode, expect=200)
        stolen = {"refreshToken": thief["refreshToken"]}
        await ask("POST", "/api/auth/refresh", stolen, expect=200)
        await asyncio.sleep(0.01)
        await ask("POST", "/api/auth/refresh", stolen, expect=401)
        await ask("POST", "/api/auth/refresh", {"refreshToken": WRONG}, expect=401)

        change = {"currentPassword": WRONG, "newPassword": NEW}
        await ask("POST", "/api/auth/password/change", change, expect=401)
        await ask("POST", "/api/auth/password/change", {**change, "currentPassword": PASSWORD}, expect=204)
        await ask("POST", "/api/auth/refresh", expect=200)
        agent = {"User-Agent": "canary\u2028\x85{}".encode().decode("latin-1"), **token_mode}
        again = await ask("POST", "/api/auth/login", {**mine, "password": NEW}, headers=agent, expect=200)
        await ask("POST", "/api/auth/logout", {"refreshToken": again["refreshToken"]}, expect=204)
        await ask("POST", "/api/auth/login", {**mine, "password": NEW}, expect=200)
        await ask("POST", "/api/auth/logout-all", expect=204)
        for _ in range(9):
            limited = await ask("POST", "/api/auth/login", yours)
        assert limited["code"] == "RATE_LIMITED"

    host, port = url.removeprefix("http://").split(":")
    for raw in (
        b"GET /api/auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-raw\x00\x01\r\n\r\n",
        b"GET /api/auth/me HTTP/1.1\r\nHost: x\r\ncanary-raw no colon\r\n\r\n",
        b"canary-raw\r\n\r\n",
        b"GET /api/auth/me HTTP/1.1\r\nHost: x\r\nX-Long: " + b"canary-raw" * 5000 + b"\r\n\r\n",
        b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: canary-raw\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw)
        try:
            async with asyncio.timeout(60):
                refused = await reader.readline()
        finally:
            writer.close()
        assert refused.split()[1].startswith(b"4"), (raw[:100], refused)


def travel(log_format: str) -> Journey:
    directory, journey = Path(tempfile.mkdtemp(prefix="gp-")), Journey()
    redis = RedisServer(directory)
    redis.start()
    process, url, output = start(redis, directory, log_format)
    try:
        asyncio.run(live(url, journey))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        journey.lines = output.read_text().split("\n")
        if log_format == "json":
            found = [line for line in journey.lines if line.startswith("{")]
            journey.events = [json.loads(line) for line in found]
    finally:
        process.kill()
        process.wait()
        redis.stop()
        shutil.rmtree(directory)
    return journey


@pytest.fixture(scope="module")
def journey() -> Journey:
    """The journey, logged as in production."""
    return travel("json")


@pytest.fixture(scope="module")
def told_in_text() -> Journey:
    """The same journey, logged as in development."""
    return travel("text")


def test_every_line_is_json_with_a_time_a_level_and_an_event(journey):
    welcome_ends = next(n for n, line in enumerate(journey.lines) if "How to go on" in line)

    assert [line for line in journey.lines[welcome_ends + 1 :] if line and not line.startswith("{")] == []
    assert len(journey.events) > 40
    for line in journey.events:
        assert {"event", "timestamp"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"])
        assert line.get("level", "info") in ("info", "warning"), line


def test_every_request_has_one_line_with_its_id(journey):
    told = Counter(line["request_id"] for line in journey.named("request"))

    assert told.keys() >= journey.request_ids
    assert "journey-1" in told
    assert max(told.values()) == 1


def test_checks_of_health_leave_no_line(journey):
    assert [line for line in journey.named("request") if line["path"] in ("/health", "/ready", "/metrics")] == []


def test_what_belongs_to_a_request_carries_its_id(journey):
    registered = journey.named("accounts.user.registered")

    assert [line["request_id"] for line in registered] == ["journey-1"]
    for name in (
        "sessions.session.started",
        "sessions.session.ended",
        "sessions.sign_in.refused",
        "sessions.reauthentication.refused",
        "accounts.password.changed",
    ):
        assert all(line.get("request_id") in journey.request_ids for line in journey.named(name))


def test_every_security_event_is_told_exactly_once(journey):
    counted = Counter(line["event"] for line in journey.events)

    assert counted["accounts.user.registered"] == 1
    assert counted["sessions.session.started"] == 4
    # Two wrong passwords, and seven more until the limit.
    assert counted["sessions.sign_in.refused"] == 2 + 7
    assert counted["sessions.reauthentication.refused"] == 1
    assert counted["sessions.refresh_token.reused"] == 1
    assert counted["accounts.password.changed"] == 1
    # One log-out with two credentials, the token in the body and the cookie.
    assert [line["reason"] for line in journey.named("sessions.session.ended")] == ["logout", "logout"]
    assert len({line["session_id"] for line in journey.named("sessions.session.ended")}) == 2
    assert counted["sessions.all.ended"] == 1
    for line in journey.events:
        if re.match(r"(sessions|accounts)\.", line["event"]):
            assert line["ip"] == "127.0.0.1"


def test_no_password_token_or_cookie_is_in_any_line(journey, told_in_text):
    for told in (journey, told_in_text):
        assert len(told.secrets) > 15
        secrets = {secret for secret in told.secrets if secret != "canary"} | {"canary-root", "canary-raw"}
        assert [(secret, line) for line in told.lines for secret in secrets if secret in line] == []


def test_no_email_is_in_clear_in_any_line(journey, told_in_text):
    """But for `mail.shown`, a mail as a developer without a mail server reads it: never in production."""
    for told in (journey, told_in_text):
        # In development, without a mail server, letters are shown in the log.
        lines = [line for line in told.lines if "mail.shown" not in line]
        assert [line for line in lines for name in LOCAL_PARTS if name in line.lower()] == []


def test_nothing_of_a_query_is_in_the_log(journey):
    for line in journey.named("request"):
        assert "?" not in line["path"]
        assert "code=" not in json.dumps(line)
        assert "access_token" not in json.dumps(line)


def test_looking_for_emails_in_a_path_takes_no_longer_than_reading_it():
    """It once was quadratic: a path of 8 KB held up everybody for most of half a second."""
    for sign in ("@", "%40", "%252540"):
        assert _without_secrets("/" + "a" * 1_000_000 + f"/b{sign}c/d") == "/" + "a" * 1_000_000 + "/***/d"
        assert _without_secrets(f"/{sign}" * 100_000) == "/***" * 100_000
    assert _without_secrets("/%" + "25" * 1_000_000) == "/%" + "25" * 1_000_000


@pytest.mark.parametrize("secret", ["ak_Zk3pV9xQ2mT7", "rt_Zk3pV9xQ2mT7", "eyJhbGciOiJFUzI1NiJ9.e30.x"])
def test_a_credential_where_an_id_belongs_is_not_told(secret):
    assert _without_secrets(f"/api/auth/api-keys/{secret}") == "/api/auth/api-keys/***"
    assert _without_secrets("/api/auth/break_/me") == "/api/auth/break_/me"


def test_names_and_bodies_are_nobodys_business(journey):
    assert "canary-first" not in "\n".join(journey.lines)


def test_nobody_writes_a_line_of_their_own(journey, told_in_text):
    agents = [
        line["user_agent"] for line in journey.named("sessions.session.started") if "canary" in line["user_agent"]
    ]
    assert len(agents) == 1
    assert agents[0].isprintable()
    for told in (journey, told_in_text):
        log = [line for line in told.lines if line]
        assert not [line for line in log if line.startswith(("forged", '{"event":"forged'))]
        assert [line for line in log if not line.isprintable()] == []
        for text in log:
            assert text.splitlines() == [text]


def test_a_line_with_whatever_in_it_stays_one_line():
    code = (
        "import sys, structlog; from service import logs; from tests.conftest import settings_for;"
        "logs.configure(settings_for(LOG_FORMAT=sys.argv[1]));"
        "structlog.get_logger().info('told', value='a\\r\\n\\x1b[2J\\x85\\u2028b', other='c')"
    )
    for log_format in ("json", "text"):
        said = subprocess.run(
            [sys.executable, "-c", code, log_format], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert len(said.splitlines()) == 1 or log_format == "json"
        assert said.count("\n") == 1
        assert "\x1b" not in said


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_a_log_that_takes_nothing_stops_nobody(own_redis, tmp_path, log_format):
    process, url, _ = start(own_redis, tmp_path, log_format, Path("/dev/full"))
    try:
        async with ClientSession(url) as session, asyncio.timeout(60):
            await ready(session)
            for _ in range(3):
                account = {"email": EMAIL, "password": PASSWORD}
                async with session.post("/api/auth/register", json=account, headers={"X-Auth-Mode": "token"}) as answer:
                    assert answer.status in (201, 409)
                async with session.get("/api/auth/me") as answer:
                    assert answer.status == 401
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) in (0, 120)  # Python's own word for output that is lost
    finally:
        process.kill()
        process.wait()
