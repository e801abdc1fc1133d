"""What Prometheus is told: the true numbers, in a bounded number of series, and to nobody else."""

import asyncio
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import __version__, metrics
from service.count_files import CountFile
from service.http.metrics import observe_shared
from service.settings import ROOT
from tests.conftest import PASSWORD, WIDE, Browser, RedisServer
from tests.faults.instances import Instance
from tests.mail.smtp_server import SmtpServer

TOKEN = "scraper-9xQ2mT7wR4yB8nL1cF6hJ5sD0gA"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ADA = {"email": "ada@example.org", "password": PASSWORD}
TOKENS = {"X-Auth-Mode": "token"}
ENDLESS = 30.0


class Scrape:
    """The samples of one answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of those samples; of none it is 0."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"gatepost_{name}" and labels.items() <= sample.labels.items()
        )

    def of(self, name: str) -> list[float]:
        """The values of a metric by its whole name."""
        return [sample.value for sample in self.samples if sample.name == name]

    def values(self, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


class Watched:
    """A process of the service, seen from outside."""

    def __init__(self, instance: Instance, session: aiohttp.ClientSession) -> None:
        self.instance, self._session = instance, session
        self.url = f"http://127.0.0.1:{instance.port}"

    async def __call__(self, method: str, path: str, **options) -> tuple[int, dict, str]:
        async with self._session.request(method, self.url + path, **options) as answer:
            return answer.status, dict(answer.headers), await answer.text()

    async def json(self, method: str, path: str, **options) -> dict:
        async with self._session.request(method, self.url + path, **options) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async def scrape(self) -> Scrape:
        status, headers, text = await self("GET", "/metrics", headers=BEARER)
        assert status == 200, text
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Scrape(text)

    async def until(self, name: str, value: float, **labels: str) -> Scrape:
        """The first scrape in which a sum is this: some is read every five seconds only."""
        async with asyncio.timeout(ENDLESS):
            while (scrape := await self.scrape())(name, **labels) != value:
                await asyncio.sleep(0.1)
        return scrape


Watching = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def watching(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Watching]:
    """Starts a process in production: `await watching(RATE_LIMITS="login=2/1h")`."""
    started: list[Instance] = []
    async with aiohttp.ClientSession() as session:

        async def start(**changes: str) -> Watched:
            instance = Instance(tmp_path, redis_server.url, **({"METRICS_TOKEN": TOKEN} | changes))
            started.append(instance)
            return Watched(await instance.ready(), session)

        yield start
    for instance in started:
        await instance.clean_up()


async def test_the_numbers_after_a_journey_are_true(watching, mail: SmtpServer):
    ask = await watching(RATE_LIMITS=WIDE + ",login=3/1h", **mail.settings)

    await ask.json("POST", "/api/auth/register", json=ADA)
    first = await ask.json("POST", "/api/auth/login", json=ADA, headers=TOKENS)
    second = await ask.json("POST", "/api/auth/login", json=ADA, headers=TOKENS)
    wrong = await ask("POST", "/api/auth/login", json=ADA | {"password": PASSWORD + "!"})
    limited = await ask("POST", "/api/auth/login", json=ADA)
    for _ in range(3):
        await ask.json("GET", "/api/auth/verify", headers={"Authorization": f"Bearer {first['accessToken']}"})
    third = await ask.json("POST", "/api/auth/refresh", json={"refreshToken": first["refreshToken"]}, headers=TOKENS)
    replayed = await ask("POST", "/api/auth/refresh", json={"refreshToken": first["refreshToken"]}, headers=TOKENS)
    rubbish = await ask("POST", "/api/auth/refresh", json={"refreshToken": "rt_rubbish"}, headers=TOKENS)
    left = await ask("POST", "/api/auth/logout", headers={"Authorization": f"Bearer {second['accessToken']}"})
    assert [status for status, *_ in (wrong, limited, replayed, rubbish, left)] == [401, 429, 200, 401, 204]
    assert third["accessToken"]

    await (await watching()).until("sessions", 2)  # it is counted some seconds after a start, and then every minute
    told = await ask.scrape()

    assert told("http_requests_total", route="/api/auth/login") == 4
    assert told("http_requests_total", route="/api/auth/login", method="POST", status="200") == 2
    assert told("http_requests_total", route="/api/auth/login", method="POST", status="401") == 1
    assert told("http_requests_total", route="/api/auth/login", method="POST", status="429") == 1
    assert told("http_requests_total", route="/api/auth/verify", status="200") == 3
    assert told("http_request_duration_seconds_count", route="/api/auth/verify") == 3
    assert 0 < told("http_request_duration_seconds_sum", route="/api/auth/verify") < ENDLESS
    assert told("http_requests_in_flight") == 1
    assert told("http_connections") >= 1
    assert told("sign_ins_total", method="pwd", result="success") == 3
    assert told("sign_ins_total", method="pwd", result="invalid_credentials") == 1
    assert told("sign_ins_total") == 4
    assert told("refreshes_total", verdict="rotated") == 1
    assert told("refreshes_total", verdict="replayed") == 1
    assert told("refreshes_total") == 2  # rubbish was no token of ours
    assert told("http_requests_total", route="/api/auth/refresh", status="401") == 1
    assert told("sessions_ended_total", reason="logout") == told("sessions_ended_total") == 1
    assert told("rate_limit_decisions_total", policy="login", decision="allowed") == 3
    assert told("rate_limit_decisions_total", policy="login", decision="refused") == 1
    assert told("audit_events_total", type="sessions.session.started") == 3
    assert told("audit_events_total", type="accounts.user.registered") == 1
    assert told("audit_unwritten_total") == 0
    assert told("hashing_threads") >= 1
    assert told("hashing_threads_busy") == told("hashing_waiting") == told("hashing_refused_total") == 0
    assert told("redis_round_trip_duration_seconds_count", kind="single") > 20
    assert told("redis_servers", kind="single") == 1
    assert told("redis_servers_given_up") == told("redis_errors_total") == 0
    assert told("redis_memory_used_bytes") > 100_000
    assert told("build_info", version=__version__) == 1
    now = float(re.search(r"^gatepost_upkeep_timestamp_seconds (\S+)$", told.text, re.M)[1])
    assert 0 < told("signing_key_timestamp_seconds") <= now + 60
    assert told("signing_key_rotation_seconds") == 30 * 24 * 3600
    assert told("event_loop_lag_seconds_count") > 0
    told = await ask.until("mail_waiting", 0)
    assert told("mail_sent_total") == len(mail.received) > 0
    assert told("mail_parked") == told("mail_failed_total") == 0


async def test_a_redis_whose_clock_is_ahead_is_noticed(parts):
    parts.clock.anchor(time.time() + 1000)

    await observe_shared(parts)

    told = Scrape(metrics.written().decode())
    assert 900 < told("redis_clock_ahead_seconds") < 1100


async def test_a_theft_and_a_session_that_is_over_are_told_apart(watching):
    ask = await watching(REFRESH_LEEWAY="0", REFRESH_RECOVERY="off")
    stolen = await ask.json("POST", "/api/auth/register", json=ADA, headers=TOKENS)
    await ask.json("POST", "/api/auth/login", json=ADA, headers=TOKENS)
    await ask.json("POST", "/api/auth/refresh", json={"refreshToken": stolen["refreshToken"]}, headers=TOKENS)
    await asyncio.sleep(1.1)  # what comes within a second is the same client twice
    for _ in range(2):
        await ask("POST", "/api/auth/refresh", json={"refreshToken": stolen["refreshToken"]}, headers=TOKENS)

    await (await watching()).until("sessions", 1)
    told = await ask.scrape()

    assert told("refreshes_total", verdict="rotated") == 1
    assert told("refreshes_total", verdict="reuse") == 1
    assert told("refreshes_total", verdict="ended") == 1
    assert told("sessions_ended_total", reason="reuse") == told("sessions_ended_total") == 1


async def test_an_attack_and_a_broken_client_are_counted_once_whoever_sees_them(watching):
    limits = {"RATE_LIMITS": WIDE + ",burst-account=4/15m", "TRUSTED_PROXIES": "127.0.0.1"}
    one, two = [await watching(REFRESH_LEEWAY="0", REFRESH_RECOVERY="off", **limits) for _ in range(2)]
    home, away = ({"X-Forwarded-For": address} | TOKENS for address in ("192.0.2.7", "198.51.100.7"))
    kept = (await one.json("POST", "/api/auth/register", json=ADA, headers=home))["refreshToken"]
    for ask in (one, two, one, two, one, two):
        await ask("POST", "/api/auth/login", json=ADA | {"password": PASSWORD + "!"}, headers=home)
    await one.json("POST", "/api/auth/login", json=ADA, headers=home)
    await one.json("POST", "/api/auth/login", json=ADA, headers=home | {"User-Agent": "curl/8"})
    await two.json("POST", "/api/auth/login", json=ADA, headers=away)
    await one.json("POST", "/api/auth/refresh", json={"refreshToken": kept}, headers=home)
    await two("POST", "/api/auth/refresh", json={"refreshToken": kept}, headers=home)

    async with asyncio.timeout(ENDLESS):
        while True:
            told = [await ask.scrape() for ask in (one, two)]
            if sum(scrape("sign_in_bursts_total", by="account") for scrape in told) == 1:
                break
            await asyncio.sleep(0.1)  # it is not waited for

    def both(name: str, **labels: str) -> float:
        return sum(scrape(name, **labels) for scrape in told)

    assert both("sign_in_bursts_total") == both("audit_events_total", type="sessions.sign_in.burst") == 1
    assert both("new_device_sign_ins_total", new="device") == 1
    assert both("new_device_sign_ins_total", new="place") == 1
    assert both("refresh_replays_total") == 1
    assert both("refresh_replays_total", verdict="reuse", looks_like="broken_client") == 1
    assert "curl" not in told[0].text + told[1].text


async def test_nothing_that_a_client_sends_makes_a_series(watching):
    ask = await watching()
    await ask("GET", "/api/users/nobody-at-all")
    await ask("POST", "/api/auth/login", json=ADA)
    await ask("GET", "/nowhere")
    await ask("PURGE", "/nowhere")
    before = await ask.scrape()

    for number in range(50):
        odd = f"odd{number}"
        await ask("GET", f"/{odd}/{odd}?{odd}={odd}")
        await ask("PURGE" if number % 2 else "PROPFIND", f"/api/auth/{odd}")
        await ask("GET", f"/api/users/{odd}")
        await ask("POST", "/api/auth/login", json={"email": f"{odd}@example.org", "password": PASSWORD})
        await ask("POST", "/api/auth/login", json={"email": odd}, headers={"User-Agent": odd, "X-Request-Id": odd})
        await ask("GET", f"/api/auth/{odd}", headers={"Accept": "application/json"})
    after = await ask.scrape()

    assert after("http_requests_total", route="none", method="other") == 51
    assert "odd" not in after.text.lower()
    # The methods of what was there, the three statuses that were new, and the routes that were asked for first here.
    assert len(after.samples) - len(before.samples) < 60
    assert after.values("method") <= {"GET", "HEAD", "POST", "other", "pwd", "fed"}
    assert all(route == "none" or route.startswith("/") for route in after.values("route"))


async def test_no_secret_and_no_person_is_in_it(watching, mail: SmtpServer):
    ask = await watching(**mail.settings)
    signed = await ask.json("POST", "/api/auth/register", json=ADA, headers=TOKENS)
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    key = await ask.json("POST", "/api/auth/api-keys", json={"name": "r", "permissions": []}, headers=bearer)
    await ask.until("mail_sent_total", 1)

    text = (await ask.scrape()).text

    kept = [TOKEN, PASSWORD, signed["accessToken"], signed["refreshToken"], signed["user"]["id"], key["apiKey"]]
    for secret in (*kept, mail.received[0].token, "ada", "example.org", "127.0.0.1", signed["accessToken"][-20:]):
        assert secret not in text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer \xe9\xff"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Cookie": f"metrics={TOKEN}"}, 401),
        (BEARER, 200),
    ],
)
async def test_metrics_are_for_who_has_the_token(serving, sent, status):
    browser = await serving(METRICS_TOKEN=TOKEN)

    answer = await browser("GET", "/metrics", headers=sent)

    assert answer.status == status
    assert (b"gatepost_" in answer.body) == (status == 200)
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_token_in_the_query_does_not_count(serving):
    browser = await serving(METRICS_TOKEN=TOKEN)

    assert (await browser("GET", f"/metrics?token={TOKEN}&access_token={TOKEN}")).status == 401


async def test_without_a_token_production_has_no_metrics_and_says_so_at_the_start(watching):
    ask = await watching(METRICS_TOKEN="")

    assert (await ask("GET", "/metrics"))[0] == 404
    assert (await ask("GET", "/metrics", headers=BEARER))[0] == 404
    assert "metrics.off" in ask.instance.said
    assert "metrics.off" not in (await watching()).instance.said


async def test_without_a_token_development_tells_this_machine_alone(serving):
    browser = await serving()

    assert (await browser("GET", "/metrics")).status == 200
    assert (await browser("GET", "/metrics", headers={"Host": "evil.example.org"})).status == 404
    assert (await browser("GET", "/metrics", headers={"X-Forwarded-For": "192.0.2.7"})).status == 404


async def test_metrics_are_answered_when_there_is_no_room_for_others(serving, assembling):
    its = await assembling(MAX_CONCURRENT_REQUESTS="8")
    browser: Browser = await serving(its)
    shed = Scrape((await browser("GET", "/metrics")).body.decode())("http_requests_shed_total")
    its.state.under_way = 20
    assert (await browser("GET", "/")).code == "OVERLOADED"

    answer = await browser("GET", "/metrics")

    told = Scrape(answer.body.decode())
    assert answer.status == 200
    assert (told("http_requests_in_flight"), told("http_requests_in_flight_limit")) == (21, 8)
    assert told("http_requests_shed_total") == shed + 1


async def test_metrics_are_answered_while_redis_is_away(own_redis, tmp_path):
    instance = Instance(tmp_path, own_redis.url, METRICS_TOKEN=TOKEN)
    try:
        await instance.ready()
        own_redis.kill()
        async with aiohttp.ClientSession() as session:
            ask = Watched(instance, session)
            for _ in range(10):
                await ask("POST", "/api/auth/login", json=ADA)
            told = await ask.until("redis_servers_given_up", 1, kind="single")
    finally:
        await instance.clean_up()

    assert told("redis_given_up_total", kind="single") == 1
    assert told("redis_errors_total", error="connection") >= 5
    assert told("http_requests_total", route="/api/auth/login", status="503") == 10


async def test_a_cut_off_connection_is_counted_by_what_was_wrong_with_it(watching):
    ask = await watching()
    wire = await ask.instance.connect()
    wire.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    await wire.reply()

    assert (await ask.scrape())("http_connections_cut_off_total", reason="not_http") == 1


async def test_every_metric_is_named_and_told_as_prometheus_asks(watching):
    ask = await watching()
    scrape = await ask.scrape()

    ours = [family for family in scrape.families if family.name.startswith("gatepost_")]
    assert {family.name.partition("_")[0] for family in scrape.families} <= {"gatepost", "process"}
    assert len(ours) > 35
    for family in ours:
        assert re.fullmatch(r"gatepost(_[a-z]+)+", family.name)
        assert len(family.documentation) > 10
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|milliseconds|kb|minutes)(_|$)", family.name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


@contextmanager
def no_room() -> Iterator[None]:
    """No file may grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_counts_have_their_place_on_the_disk_before_they_are_written(tmp_path):
    """A file with holes is written until the disk is full; then the system kills who writes, and every successor."""
    counts = CountFile(str(tmp_path / "counter_1.db"))
    keys = [f"{number:0100}" for number in range(2000)]
    for key in keys[:1000]:
        counts.write_value(key, 1.0, 0.0)
    counts.close()

    (file,) = [path.stat() for path in tmp_path.iterdir()]
    assert file.st_blocks * 512 >= file.st_size >= 1000 * 100


def test_what_a_full_disk_has_no_room_for_is_written_later(tmp_path):
    counts = CountFile(str(tmp_path / "counter_1.db"))
    keys = [f"{number:0100}" for number in range(2000)]

    def written() -> dict[str, float]:
        return {key: value for key, value, _, _ in CountFile.read_all_values_from_file(tmp_path / "counter_1.db")}

    counts.write_value(keys[0], 1.0, 0.0)
    with no_room():
        for key in keys:
            assert counts.read_value(key)[0] in (0, 1)
            counts.write_value(key, 2.0, 0.0)
        late = CountFile(str(tmp_path / "counter_2.db"))
        late.write_value("late", 3.0, 0.0)
        meanwhile = written()
    assert 0 < len(meanwhile) < len(keys)
    assert set(meanwhile.values()) == {2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["counter_1.db"], "an empty file could not be read"

    for key in keys:
        counts.write_value(key, 4.0, 0.0)
    late.write_value("late", 5.0, 0.0)
    assert written() == dict.fromkeys(keys, 4.0)
    late.close()
    late = CountFile(str(tmp_path / "counter_2.db"))
    assert late.read_value("late")[0] == 5.0
    for file in (counts, late):
        file.close()


WORKER = """
import sys
from pathlib import Path
from service import metrics
number = int(sys.argv[1])
metrics.share(Path(sys.argv[2]), number)
metrics.Meter("/here", "GET").answered(200, 0.002)
metrics.HTTP_IN_FLIGHT.set(2)
metrics.SESSIONS.set(6 + number)
input()  # it lives until it is told
print(metrics.written().decode())
"""


def test_workers_are_added_up_and_one_that_begins_again_goes_on(tmp_path):
    """Counts add up, what all of them see alike is there once, and what is no more does not count."""
    began = time.time()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": "/nowhere"}

    def begin(number: int) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(number), str(tmp_path)], env=env, **pipes)
        until = time.monotonic() + 60
        while not list(tmp_path.glob(f"gauge_livesum_{number}.db")) and worker.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
        return worker

    first = begin(1)
    first.communicate("\n", timeout=60)
    metrics.forget(tmp_path, 1)
    again, second = begin(1), begin(2)
    again.communicate("\n", timeout=60)
    told = Scrape(second.communicate("\n", timeout=60)[0])

    assert told("http_requests_total", route="/here", method="GET", status="200") == 3
    assert told("http_request_duration_seconds_count", route="/here") == 3
    assert told("http_requests_in_flight") == 4
    assert told("workers") == 2
    assert told("sessions") in (7, 8)
    assert told("build_info", version=__version__) == 1
    assert told.of("process_cpu_seconds_total")[0] > 0
    assert told.of("process_open_fds")[0] >= 6
    # The least of all counts: a worker that has seen nothing yet must not say 1970.
    assert told("upkeep_timestamp_seconds") >= began
    assert told.of("process_start_time_seconds")[0] > began - 60
