"""Traces as a collector gets them from a real service: whole, in the caller's trace, and without a secret.

A person with recognisable secrets signs up, in and out again, here and at a provider; then what the collector was sent
is read, as spans and as bytes.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, CookieJar, web
from aiohttp.test_utils import TestServer

from service.settings import ROOT, SettingsError
from tests.conftest import RedisServer, free_port, in_ci, settings_for
from tests.faults.instances import Instance, get, post
from tests.mail.smtp_server import SmtpServer
from tests.oauth.github import GitHub, Person, email

try:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
except ImportError:
    if in_ci():
        raise
    pytest.skip("needs `make .venv/.otel`", allow_module_level=True)

SERVER, CLIENT, INTERNAL = 2, 3, 1
ERROR = 2
EMAIL = "canary.person@example.org"
PASSWORD, WRONG = "canary-one-password-1", "canary-wrong-password-3"
OF_COLLECTOR = "canary-key-of-the-collector"
TOKEN_MODE = {"X-Auth-Mode": "token"}

# What an interpreter with this directory in its path begins with: as if nobody had installed the extra.
WITHOUT_OTEL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@dataclass
class Span:
    """A span as it arrived."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    status: int
    events: int
    began: int  # nanoseconds, as the next
    ended: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """Takes OTLP over HTTP, as any collector does."""

    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)  # what came as `Authorization`
    _server: TestServer | None = None

    async def start(self, port: int | None = None, below: str = "") -> "Collector":
        app = web.Application(client_max_size=2**26)
        app.router.add_post(f"{below}/v1/traces", self._take)
        self._server = TestServer(app, port=port)
        await self._server.start_server()
        return self

    async def stop(self) -> None:
        if self._server:
            await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies.append(body := await request.read())
        self.keys.add(request.headers.get("Authorization", ""))
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for told in (span for scope in of_resource.scope_spans for span in scope.spans):
                self.spans.append(
                    Span(
                        trace=told.trace_id.hex(),
                        id=told.span_id.hex(),
                        parent=told.parent_span_id.hex(),
                        name=told.name,
                        kind=told.kind,
                        status=told.status.code,
                        events=len(told.events),
                        began=told.start_time_unix_nano,
                        ended=told.end_time_unix_nano,
                        attributes=_plain(told.attributes),
                        resource=resource,
                    )
                )
        return web.Response(body=ExportTraceServiceResponse().SerializeToString())


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class ListeningGitHub(GitHub):
    """Keeps what it was told of traces, by path."""

    def __init__(self, callback: str) -> None:
        super().__init__(callback)
        self.told: list[tuple[str, str | None, str | None, str | None]] = []

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        told = (request.headers.get(name) for name in ("traceparent", "tracestate", "baggage"))
        self.told.append((request.path, *told))
        return await super()._counted(request, handler)


@dataclass
class Journey:
    """What was done, what the collector was sent, and what was logged."""

    secrets: set[str]
    spans: list[Span]
    sent: bytes
    keys: set[str]
    lines: list[dict[str, Any]]
    text: str
    github: ListeningGitHub
    github_url: str
    url: str
    traces: dict[str, str]  # that the caller began, by what for
    answers: list[Any]
    status: int

    def request(self, name: str, status: int = 200, **having: Any) -> Span:
        """The one span of a request to a route that was answered so."""
        wanted = {"http.response.status_code": status, **having}
        (found,) = [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]
        return found

    def below(self, parent: Span) -> list[Span]:
        return sorted((span for span in self.spans if span.parent == parent.id), key=lambda span: span.began)


async def _travel(directory: Path) -> Journey:
    redis, smtp, collector = RedisServer(directory), await SmtpServer().start(), await Collector().start()
    redis.start()
    port = free_port()
    url = f"http://localhost:{port}"
    github = ListeningGitHub(f"{url}/api/auth/github/callback")
    github.add(Person(101, "canary-login", "Canary Name", emails=[email("canary.other@example.org")]))
    await github.start()
    github_url = github.url
    # Where spans go is in .env; the last of them are sent at the end, or never.
    (directory / ".env").write_text(f"TRACES=on\nOTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
    settings = {
        "PUBLIC_URL": url,
        "LOG_LEVEL": "info",
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2048",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{OF_COLLECTOR}",
    }
    instance = Instance(directory, redis.url, port=port, **settings, **github.settings, **smtp.settings)
    traces = {name: secrets.token_hex(16) for name in ("sign-up", "provider", "untold")}
    canaries: set[str] = {"canary", PASSWORD, WRONG}
    answers: list[Any] = []
    jar = CookieJar(unsafe=True, treat_as_secure_origin=url)
    try:
        await instance.ready()
        async with ClientSession(url, cookie_jar=jar) as session:

            async def ask(method: str, path: str, body: Any = None, expect: int = 200, **headers: str) -> Any:
                csrf = next((cookie.value for cookie in jar if cookie.key.endswith("csrfToken")), None)
                sent = {"X-CSRF-Token": csrf} if csrf else {}
                sent |= {name.replace("_", "-"): value for name, value in headers.items()}
                async with session.request(method, path, json=body, headers=sent, allow_redirects=False) as answer:
                    text = await answer.text()
                    assert answer.status == expect, (path, answer.status, text)
                    answers.append(answer.headers)
                found = json.loads(text) if text else {}
                canaries.update(found[name] for name in ("accessToken", "refreshToken", "csrfToken") if name in found)
                canaries.update(cookie.value for cookie in jar if cookie.value)
                return found

            def parent(name: str, flags: str = "01") -> dict[str, str]:
                return {"traceparent": f"00-{traces[name]}-00f067aa0ba902b7-{flags}", "tracestate": "shop=1"}

            async def at_github(name: str, flags: str) -> None:
                told = {**parent(name, flags), "baggage": "canary=1", "Accept": "application/json"}
                auth_url = (await ask("GET", "/api/auth/github", **told))["authUrl"]
                back = urlsplit(await github.sign_in(auth_url, "canary-login"))
                canaries.update(value.partition("=")[2] for value in (auth_url + "&" + back.query).split("&"))
                await ask("GET", f"{back.path}?{back.query}", **told)

            account = {"email": EMAIL, "password": PASSWORD}
            malformed = "00-00000000000000000000000000000000-00f067aa0ba902b7-01"
            await ask("POST", "/api/auth/register", account, 201, **parent("sign-up"))
            await smtp.until(1)
            canaries.add(smtp.received[0].token)
            await ask("POST", "/api/auth/login", {**account, "password": WRONG}, 401, traceparent=malformed)
            await ask("POST", "/api/auth/login", account, traceparent="canary", User_Agent="canary")
            await ask("POST", "/api/auth/refresh")
            await ask("GET", f"/api/auth/me?access_token={WRONG}&email={EMAIL}")
            key = await ask("POST", "/api/auth/api-keys", {"name": "canary-key", "permissions": []}, 201)
            canaries.add(key["apiKey"])
            await ask("GET", "/api/auth/verify", X_API_Key=key["apiKey"])
            await ask("GET", "/api/users/canary-in-a-path", expect=403)
            await ask("GET", f"/canary/in-a-path?code={WRONG}", expect=404)
            await ask("OPTIONS", "/api/auth/me", expect=204)
            await at_github("provider", "01")
            await at_github("untold", "00")
            redis.kill()
            await ask("GET", "/api/auth/me", expect=503)
        status = await instance.stop()
    finally:
        await instance.clean_up()
        redis.stop()
        await asyncio.gather(github.stop(), smtp.stop(), collector.stop())
    log = instance.said
    canaries -= {"", "S256", "code", "github"}
    return Journey(
        secrets={canary for canary in canaries if len(canary) > 5 and not canary.startswith("http")},
        spans=collector.spans,
        sent=b"".join(collector.bodies),
        keys=collector.keys,
        lines=[json.loads(line) for line in log.splitlines() if line.startswith("{")],
        text=log,
        github=github,
        github_url=github_url,
        url=url,
        traces=traces,
        answers=answers,
        status=status,
    )


@pytest.fixture(scope="module")
def journey() -> Any:
    """The journey; what was still to be sent at its end was sent then."""
    directory = Path(tempfile.mkdtemp(prefix="gp-"))
    try:
        yield asyncio.run(_travel(directory))
    finally:
        shutil.rmtree(directory)


def test_what_is_left_is_sent_when_the_service_ends(journey):
    assert journey.status == 0
    assert len(journey.spans) > 30
    assert journey.keys == {f"Bearer {OF_COLLECTOR}"}


def test_the_service_says_who_it_is(journey):
    (resource,) = {json.dumps(span.resource, sort_keys=True) for span in journey.spans}

    told = json.loads(resource)
    assert told["service.name"] == "gatepost"
    assert {"service.version", "service.instance.id", "process.pid", "telemetry.sdk.version"} <= told.keys()


def test_a_request_is_a_span_by_its_route(journey):
    span = journey.request("POST /api/auth/register", 201)
    (line,) = [line for line in journey.lines if line.get("path") == "/api/auth/register"]

    assert span.kind == SERVER
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/auth/register",
        "http.response.status_code": 201,
        "url.scheme": "http",
        "url.path": "/api/auth/register",
        "server.address": "localhost",
        "server.port": urlsplit(journey.url).port,
        "client.address": line["ip"],
        "gatepost.request_id": line["request_id"],
    }
    assert span.ended > span.began


def test_a_path_is_told_as_its_route_is_written_and_one_without_a_route_not_at_all(journey):
    known = journey.request("GET /api/users/{id}", 403)
    unknown = journey.request("GET", 404)

    assert known.attributes["url.path"] == "/api/users/{id}"
    assert {"url.path", "http.route"} & unknown.attributes.keys() == set()


def test_what_a_request_waits_for_is_below_it(journey):
    span = journey.request("POST /api/auth/login")
    below = journey.below(span)
    (hashing,) = [each for each in below if each.name == "hash password"]

    assert {each.kind for each in below if each is not hashing} == {CLIENT}
    assert all(each.trace == span.trace for each in below)
    assert all(span.began <= each.began for each in below)
    assert hashing.kind == INTERNAL
    assert 0 <= hashing.attributes["gatepost.hashing.waited"] < (hashing.ended - hashing.began) / 1e9
    assert {"window", "start"} <= {word for each in below for word in each.name.split()}


def test_a_refresh_is_one_round_trip(journey):
    (everything,) = journey.below(journey.request("POST /api/auth/refresh"))

    assert everything.name.split()[:2] == ["window", "rotate"]
    assert everything.attributes["db.operation.name"] == "PIPELINE"
    assert everything.attributes["db.operation.batch.size"] == len(everything.name.split())


def test_a_command_that_comes_alone_is_told_by_its_own_name(journey):
    alone = [span for span in journey.below(journey.request("POST /api/auth/login")) if span.name == "window"]

    assert alone
    for limit in alone:
        assert limit.attributes["db.stored_procedure.name"] == "window"
        assert limit.attributes["db.operation.name"] == "EVALSHA"


def test_calls_to_redis_name_commands_and_scripts_and_nothing_else(journey):
    words = {path.stem for path in (ROOT / "service").rglob("*.lua")} | {"..."}
    found = [span for span in journey.spans if span.attributes.get("db.system.name") == "redis"]

    assert len(found) > 20
    for span in found:
        assert [word for word in span.name.split() if word not in words and not re.fullmatch(r"[A-Z]+", word)] == []
        assert span.attributes["db.query.summary"] == span.name
        assert span.attributes["server.address"].endswith("/s")
        assert span.attributes.keys() <= {
            "db.system.name", "db.query.summary", "db.operation.name", "db.operation.batch.size",
            "db.stored_procedure.name", "server.address", "server.port", "error.type",
        }  # fmt: skip


def test_the_trace_of_the_caller_goes_on_with_us_and_with_the_provider(journey):
    start = journey.request("GET /api/auth/{provider}")
    finish = journey.request("GET /api/auth/{provider}/callback")
    calls = [span for span in journey.below(finish) if "url.full" in span.attributes]
    told = [each for each in journey.github.told if each[1] and journey.traces["provider"] in each[1]]

    assert start.trace == finish.trace == journey.traces["provider"]
    assert start.parent == finish.parent == "00f067aa0ba902b7"
    assert [path for path, *_ in told] == ["/login/oauth/access_token", "/api/v3/user", "/api/v3/user/emails"]
    by_id = {f"00-{span.trace}-{span.id}": span for span in calls}
    for path, traceparent, tracestate, _ in told:
        assert traceparent.endswith("-01")
        assert tracestate == "shop=1"
        assert by_id[traceparent[:-3]].attributes["url.full"] == journey.github_url + path


def test_a_call_to_a_provider_names_its_host_and_no_code(journey):
    finish = journey.request("GET /api/auth/{provider}/callback")
    call = next(span for span in journey.below(finish) if span.name.startswith("POST "))
    github = urlsplit(journey.github_url)

    assert call.kind == CLIENT
    assert call.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": github.hostname,
        "server.port": github.port,
        "url.full": f"{journey.github_url}/login/oauth/access_token",
    }


def test_a_caller_who_keeps_no_trace_gets_none_and_the_provider_is_told_so(journey):
    trace = journey.traces["untold"]
    told = [traceparent for _, traceparent, *_ in journey.github.told if traceparent and trace in traceparent]

    assert [span for span in journey.spans if span.trace == trace] == []
    assert len(told) == 3
    assert all(traceparent.endswith("-00") for traceparent in told)


def test_baggage_is_passed_on_to_nobody(journey):
    assert {baggage for *_, baggage in journey.github.told} == {None}


def test_a_trace_that_cannot_be_read_is_another_one(journey):
    for status in (200, 401):
        span = journey.request("POST /api/auth/login", status)
        assert span.parent == ""
        assert span.trace.strip("0")


def test_a_mail_is_a_trace_of_its_own(journey):
    mail = [span for span in journey.spans if span.name == "send mail"]

    assert len(mail) >= 1
    for span in mail:
        assert (span.parent, span.kind) == ("", CLIENT)
        assert span.attributes["server.address"] == "127.0.0.1"


def test_only_what_is_ours_to_mend_is_an_error(journey):
    failed = journey.request("GET /api/auth/me", 503)
    below = journey.below(failed)

    assert (failed.status, failed.attributes["error.type"]) == (ERROR, "503")
    assert {span.status for span in below} == {ERROR}
    assert all(re.fullmatch(r"[A-Za-z]+", span.attributes["error.type"]) for span in below)
    refused = [span for span in journey.spans if 400 <= span.attributes.get("http.response.status_code", 0) < 500]
    assert len(refused) >= 3
    assert all(span.status != ERROR and "error.type" not in span.attributes for span in refused)


def test_checks_of_health_and_upkeep_leave_no_span(journey):
    names = {span.name for span in journey.spans}
    roots = {span.name.split()[0] for span in journey.spans if not span.parent}

    assert not [name for name in names if "/ready" in name or "/health" in name]
    assert roots <= {"GET", "POST", "OPTIONS", "send"}
    assert not [span for span in journey.spans if span.name in ("GET", "HGET") and "db.system.name" in span.attributes
                and not span.parent]  # fmt: skip


def test_no_secret_and_no_email_is_in_anything_that_was_sent(journey):
    assert len(journey.secrets) > 15
    assert [canary for canary in journey.secrets if canary.encode() in journey.sent] == []
    assert b"@example" not in journey.sent
    assert sum(span.events for span in journey.spans) == 0


def test_lines_say_which_trace_they_belong_to(journey):
    requests = [line for line in journey.lines if line["event"] == "request"]
    span = journey.request("POST /api/auth/register", 201)
    (registered,) = [line for line in journey.lines if line["event"] == "accounts.user.registered"][:1]

    assert all(re.fullmatch(r"[0-9a-f]{32}", line["trace_id"]) for line in requests)
    assert registered["trace_id"] == span.trace == journey.traces["sign-up"]
    for span in (span for span in journey.spans if span.kind == SERVER):
        (line,) = [line for line in requests if line["request_id"] == span.attributes["gatepost.request_id"]]
        assert line["trace_id"] == span.trace


def test_the_key_of_the_collector_is_in_no_line(journey):
    assert OF_COLLECTOR not in journey.text


def test_an_answer_says_nothing_of_its_trace(journey):
    assert [name for headers in journey.answers for name in headers if "trace" in name.lower()] == []


# Collectors that are away, or slow


async def _asked(instance: Instance, count: int) -> None:
    for _ in range(count):
        assert (await instance.ask(get("/api/auth/me", "Connection: close"))).status == 401


async def test_a_collector_that_is_away_costs_one_line_and_no_request(own_redis, tmp_path):
    port = free_port()
    instance = Instance(
        tmp_path,
        own_redis.url,
        TRACES="on",
        LOG_LEVEL="info",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}/{OF_COLLECTOR}",
        OTEL_EXPORTER_OTLP_TIMEOUT="2",  # one try, a second later another, and no third
        OTEL_BSP_SCHEDULE_DELAY="20",
        OTEL_BSP_MAX_QUEUE_SIZE="8",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4",
    )
    collector = Collector()
    try:
        await instance.ready()
        async with asyncio.timeout(60):
            while "traces.not_sent" not in instance.said:
                await _asked(instance, 1)
        await _asked(instance, 30)
        again = await instance.ask(post("/api/auth/register", {"email": EMAIL, "password": PASSWORD}))

        await collector.start(port, below=f"/{OF_COLLECTOR}")
        async with asyncio.timeout(60):
            while "traces.sent_again" not in instance.said:
                await _asked(instance, 1)
        status = await instance.stop()
    finally:
        await instance.clean_up()
        await collector.stop()

    lines = [json.loads(line) for line in instance.said.splitlines()]
    (warning,) = [line for line in lines if line["event"] == "traces.not_sent"]
    (over,) = [line for line in lines if line["event"] == "traces.sent_again"]
    assert again.status == 201
    assert status == 0
    assert "ConnectionError" in warning["reason"]
    assert over["lost"] >= 1
    assert OF_COLLECTOR not in instance.said
    assert len([line for line in lines if "opentelemetry" in json.dumps(line)]) == 0


async def test_a_collector_that_never_answers_holds_up_nobody(own_redis, tmp_path):
    silent = socket.create_server(("127.0.0.1", 0))  # the system takes connections, and nobody reads
    instance = Instance(
        tmp_path,
        own_redis.url,
        TRACES="on",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
        OTEL_EXPORTER_OTLP_TIMEOUT="600",
        OTEL_BSP_SCHEDULE_DELAY="20",
    )
    try:
        await instance.ready()
        await _asked(instance, 20)
        status = await instance.stop()  # which waits for less than the collector would take
    finally:
        await instance.clean_up()
        silent.close()

    assert status == 0


async def test_each_worker_sends_what_it_did(own_redis, tmp_path):
    collector = await Collector().start()
    instance = Instance(
        tmp_path,
        own_redis.url,
        TRACES="on",
        WORKERS="2",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    try:
        await instance.ready()
        async with asyncio.timeout(60):
            while len({span.resource["process.pid"] for span in collector.spans}) < 2:
                await _asked(instance, 1)
        await _asked(instance, 10)
        status = await instance.stop()
    finally:
        await instance.clean_up()
        await collector.stop()

    assert status == 0
    assert len({span.resource["service.instance.id"] for span in collector.spans}) == 2
    assert {span.name for span in collector.spans} == {"GET /api/auth/me"}


# Off, and what cannot be


OFF = """
import asyncio, sys
from service.app import assemble, make_app
from service.commands import main
from service.http.protocol import Runner
from service.store import reach
from tests.conftest import settings_for
async def run():
    runner = Runner(make_app(assemble(settings_for(), reach("redis://127.0.0.1:1"))))
    await runner.setup()
    await runner.cleanup()
asyncio.run(run())
print(*(name for name in sys.modules if name.startswith(("service.", "opentelemetry", "requests"))))
"""


@pytest.mark.parametrize("installed", [True, False])
def test_off_nothing_of_it_is_imported(tmp_path, installed):
    """But for what redis-py imports by itself, for metrics that nobody asks it for, where it is installed."""
    (tmp_path / "sitecustomize.py").write_text("" if installed else WITHOUT_OTEL)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    said = subprocess.run([sys.executable, "-c", OFF], env=environ, capture_output=True, text=True, check=True).stdout

    imported = set(said.splitlines()[-1].split())
    assert "service.http.edge" in imported
    assert imported & {"service.tracing", "service.http.tracing", "opentelemetry.exporter", "requests"} == set()
    assert installed or not [name for name in imported if name.startswith("opentelemetry")]


def test_on_without_the_extra_the_start_is_refused_with_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_OTEL)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}", "TRACES": "on"}
    ended = subprocess.run(
        [sys.executable, "-m", "service"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 3
    assert "TRACES=on needs OpenTelemetry, which is not installed." in ended.stderr
    assert "requirements/otel.lock" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol_than_ours_is_refused(name):
    with pytest.raises(SettingsError, match=f"http/protobuf .*leave {name} out"):
        settings_for(TRACES="on", **{name: "grpc"})

    assert settings_for(TRACES="on", **{name: "http/protobuf"}).traces
    assert not settings_for(**{name: "grpc"}).traces


def test_a_variable_of_opentelemetry_that_cannot_be_read_is_named(tmp_path, redis_server):
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TRACES": "on",
        "REDIS_URL": redis_server.url,
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "service"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 3
    assert "OpenTelemetry" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_pages_may_begin_a_trace_where_there_are_traces(serving):
    here = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "GET"}
    asked = {**here, "Access-Control-Request-Headers": "traceparent,tracestate"}

    on = await (await serving(TRACES="on"))("OPTIONS", "/api/auth/me", headers=asked)
    off = await (await serving())("OPTIONS", "/api/auth/me", headers=asked)

    allowed = {name.strip().lower() for name in on.headers["Access-Control-Allow-Headers"].split(",")}
    assert (on.status, off.status) == (200, 403)
    assert {"traceparent", "tracestate"} <= allowed
