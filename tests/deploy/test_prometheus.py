"""Prometheus as `config/` sets it up: it takes the files, finds every metric that they name, and two real instances."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
import yaml

from service import metrics
from service.audit import trail
from tests.conftest import PASSWORD, free_port
from tests.docs.test_docs import anchors
from tests.faults.instances import Instance

from .conftest import ROOT, running, tool

CONFIG = ROOT / "config"
SCRAPING = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
(GROUP,) = yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
DASHBOARD = json.loads((CONFIG / "grafana/dashboards/gatepost.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
ADA = {"email": "ada@example.org", "password": PASSWORD}
TOKENS = {"X-Auth-Mode": "token"}
# What there is only once it has happened.
SILENT = {"Steps at providers", "Connections cut off", "Memory of the fullest server"}


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:gatepost|process)_\w+", expression))


def known() -> set[str]:
    families = list(metrics.REGISTRY.collect())
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name + end for family in families for end in ends.get(family.type, ("",))}


# The files


@pytest.mark.parametrize(("what", "expression"), [*QUERIES, *((name, rule["expr"]) for name, rule in ALERTS.items())])
def test_only_metrics_that_there_are_are_asked_for(what, expression):
    assert named(expression) - known() == set()


def test_every_metric_that_counts_something_is_watched():
    """On the dashboard, in an alert, or in this list of what is for a closer look."""
    asked = set().union(*(named(expression) for _, expression in QUERIES), *(named(a["expr"]) for a in ALERTS.values()))
    closer = {
        "gatepost_access_tokens_revoked",
        "gatepost_redis_given_up",
    }

    ours = {family.name for family in metrics.REGISTRY.collect() if family.name.startswith("gatepost_")}
    assert {name for name in ours if not any(each.startswith(name) for each in asked)} == closer


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_leads_to_a_section_that_names_it(name):
    page = (ROOT / "docs/operations.md").read_text()
    path, _, anchor = ALERTS[name]["annotations"]["runbook"].partition("#")
    (section,) = [
        part for part in re.split(r"^##+ ", page, flags=re.M) if anchors("# " + part.split("\n")[0]) == {anchor}
    ]

    assert path == "docs/operations.md"
    assert f"`{name}`" in section
    assert ALERTS[name]["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_answers_four_questions():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    (source,) = yaml.safe_load((CONFIG / "grafana/provisioning/datasources/gatepost.yml").read_text())["datasources"]

    assert rows == [
        "Are people getting in?",
        "Are we under attack?",
        "Is Redis well?",
        "Are we near a limit?",
    ]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    chosen = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    asked = [each for panel in PANELS for each in (panel, *panel["targets"])]
    assert {each["datasource"]["uid"] for each in asked} == {"${datasource}"}
    assert chosen["datasource"]["current"]["value"] == source["uid"]
    assert chosen["instance"]["allValue"] == ".*"
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_a_panel_shows_the_instances_that_were_chosen(title, expression):
    assert expression.count('instance=~"$instance"') == len(
        re.findall(r"\b(?:gatepost_\w+|process_\w+|up)\b", expression)
    )


def test_the_files_are_such_as_prometheus_takes():
    promtool = tool("promtool")
    for command in (["config", "--syntax-only", "prometheus.yml"], ["rules", "prometheus-rules.yml"]):
        done = subprocess.run(
            [promtool, "check", *command], cwd=CONFIG, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


# What it takes for each alert, as series in the notation of promtool (a step is 15 s), and when it has fired.
FIRES: dict[str, tuple[str, dict[str, str]]] = {
    "GatepostInstanceDown": (
        "2m",
        {
            'up{job="gatepost", instance="a:8000"}': "0x20",
        },
    ),
    "GatepostUnavailable": (
        "10m",
        {
            'gatepost_http_requests_total{route="/api/auth/me", status="503"}': "0+3x40",
            'gatepost_http_requests_total{route="/api/auth/me", status="200"}': "0+60x40",
            'gatepost_http_requests_total{route="/health", status="200"}': "0+600x40",
        },
    ),
    "GatepostErrors": (
        "3m",
        {
            'gatepost_http_errors_total{instance="a:8000"}': "0x10 1x10",
        },
    ),
    "GatepostSlow": (
        "12m",
        {
            'gatepost_http_request_duration_seconds_bucket{route="/api/auth/verify", le="0.25"}': "0+90x60",
            'gatepost_http_request_duration_seconds_bucket{route="/api/auth/verify", le="0.5"}': "0+100x60",
            'gatepost_http_request_duration_seconds_bucket{route="/api/auth/verify", le="+Inf"}': "0+100x60",
        },
    ),
    "GatepostLoopBehind": (
        "12m",
        {
            'gatepost_event_loop_lag_seconds_bucket{instance="a:8000", le="0.1"}': "0+13x60",
            'gatepost_event_loop_lag_seconds_bucket{instance="a:8000", le="0.25"}': "0+15x60",
            'gatepost_event_loop_lag_seconds_bucket{instance="a:8000", le="+Inf"}': "0+15x60",
        },
    ),
    "GatepostNobodySignsIn": (
        "16m",
        {
            'gatepost_sign_ins_total{method="pwd", result="success"}': "100x80",
            'gatepost_sign_ins_total{method="pwd", result="invalid_credentials"}': "0+1x80",
        },
    ),
    "GatepostProviderFails": (
        "16m",
        {
            'gatepost_oauth_calls_total{provider="github", step="start", result="success"}': "0+1x80",
            'gatepost_oauth_calls_total{provider="github", step="finish", result="provider_unavailable"}': "0+0.4x80",
            'gatepost_oauth_calls_total{provider="github", step="finish", result="oauth_exchange_failed"}': "0+0.2x80",
            'gatepost_oauth_calls_total{provider="github", step="finish", result="oauth_denied"}': "0+0.3x80",
        },
    ),
    "GatepostGuessing": (
        "12m",
        {
            'gatepost_sign_ins_total{method="pwd", result="success"}': "0+15x60",
            'gatepost_sign_ins_total{method="pwd", result="invalid_credentials"}': "0+150x60",
        },
    ),
    "GatepostSignInBursts": (
        "16m",
        {
            'gatepost_sign_in_bursts_total{by="account"}': "0x20 8x60",
        },
    ),
    "GatepostPasswordsGuessed": (
        "31m",
        {
            'gatepost_new_device_sign_ins_total{new="place"}': "0+0.25x140",
            'gatepost_new_device_sign_ins_total{new="device"}': "3x140",
            'gatepost_sign_ins_total{method="pwd", result="success"}': "0+0.3x140",
            'gatepost_sign_in_bursts_total{by="address"}': "0x80 2x60",
        },
    ),
    "GatepostLimitsRefuse": (
        "12m",
        {
            'gatepost_rate_limit_decisions_total{policy="login", decision="refused"}': "0+150x60",
        },
    ),
    "GatepostTokensReused": (
        "8m",
        {
            'gatepost_refreshes_total{verdict="reuse"}': "0x20 10x40",
        },
    ),
    "GatepostClientBroken": (
        "61m",
        {
            'gatepost_refresh_replays_total{verdict="recovered", looks_like="broken_client"}': "0+0.1x300",
        },
    ),
    "GatepostWorkersReplaced": (
        "31m",
        {
            'gatepost_workers_replaced_total{instance="a:8000"}': "0x20 1x20 2x20 3x60",
        },
    ),
    "GatepostWorkersHung": (
        "25m",
        {
            'gatepost_workers_hung_total{instance="a:8000"}': "0x20 1x60",
        },
    ),
    "GatepostRedisAway": (
        "2m",
        {
            'gatepost_redis_servers_given_up{instance="a:8000", kind="single"}': "1x20",
            'gatepost_redis_servers{instance="a:8000", kind="single"}': "1x20",
        },
    ),
    "GatepostRedisSlow": (
        "12m",
        {
            'gatepost_redis_round_trip_duration_seconds_bucket{le="0.1"}': "0+90x60",
            'gatepost_redis_round_trip_duration_seconds_bucket{le="0.25"}': "0+100x60",
            'gatepost_redis_round_trip_duration_seconds_bucket{le="+Inf"}': "0+100x60",
        },
    ),
    "GatepostRedisFull": (
        "12m",
        {
            'gatepost_redis_memory_used_bytes{instance="a:8000"}': "90x60",
            'gatepost_redis_memory_limit_bytes{instance="a:8000"}': "100x60",
        },
    ),
    "GatepostRedisUnsafe": (
        "12m",
        {
            'gatepost_redis_dangers{instance="a:8000"}': "1x60",
        },
    ),
    "GatepostUpkeepBehind": (
        "4m",
        {
            'gatepost_upkeep_timestamp_seconds{instance="a:8000"}': "0x60",
        },
    ),
    "GatepostNearLimit": (
        "3m",
        {
            'gatepost_hashing_waiting{instance="a:8000"}': "60x20",
            'gatepost_hashing_waiting_limit{instance="a:8000"}': "100x20",
        },
    ),
    "GatepostRefusesForRoom": (
        "8m",
        {
            'gatepost_http_requests_shed_total{instance="a:8000"}': "0+30x40",
            'gatepost_hashing_refused_total{instance="a:8000", reason="full"}': "0x40",
            'gatepost_http_connections_cut_off_total{instance="a:8000", reason="full"}': "0x40",
        },
    ),
    "GatepostMailParked": (
        "12m",
        {
            'gatepost_mail_parked{instance="a:8000"}': "3x80",
        },
    ),
    "GatepostMailWaits": (
        "16m",
        {
            'gatepost_mail_waiting{instance="a:8000"}': "101x80",
        },
    ),
    "GatepostMailFails": (
        "20m",
        {
            # One letter, which is tried again after one minute, two, five and fifteen.
            'gatepost_mail_failed_total{kind="reset", parked="no"}': "0x3 1x4 2x8 3x20 4x80",
            'gatepost_mail_sent_total{kind="reset"}': "7x100",
        },
    ),
    "GatepostAuditShort": (
        "26h",
        {
            'gatepost_audit_events_total{instance="a:8000", type="sessions.session.started"}': "0+5000x40",
        },
    ),
    "GatepostClocksDiffer": (
        "6m",
        {
            'gatepost_redis_clock_ahead_seconds{instance="a:8000"}': "-6x60",
        },
    ),
    "GatepostAuditUnwritten": (
        "4m",
        {
            'gatepost_audit_unwritten_total{instance="a:8000"}': "0x10 2x40",
        },
    ),
    "GatepostSigningKeyOld": (
        "1100h",
        {
            'gatepost_signing_key_timestamp_seconds{instance="a:8000"}': "1x1200",
            'gatepost_signing_key_rotation_seconds{instance="a:8000"}': f"{30 * 86400}x1200",
        },
    ),
}
CALM = {
    'up{job="gatepost", instance="a:8000"}': "1x400",
    'gatepost_http_requests_total{route="/api/auth/me", status="200"}': "0+600x400",
    'gatepost_http_requests_total{route="/api/auth/me", status="503"}': "0+1x400",
    'gatepost_http_errors_total{instance="a:8000"}': "3x400",
    'gatepost_http_request_duration_seconds_bucket{route="/api/auth/verify", le="0.25"}': "0+100x400",
    'gatepost_http_request_duration_seconds_bucket{route="/api/auth/verify", le="+Inf"}': "0+100x400",
    'gatepost_sign_ins_total{method="pwd", result="success"}': "0+20x400",
    'gatepost_sign_ins_total{method="pwd", result="invalid_credentials"}': "0+20x400",
    'gatepost_oauth_calls_total{provider="github", step="finish", result="success"}': "0+3x400",
    'gatepost_oauth_calls_total{provider="github", step="finish", result="provider_unavailable"}': "0+1x400",
    'gatepost_sign_in_bursts_total{by="account"}': "0x30 1x30 2x40 3x40 4x260",
    'gatepost_new_device_sign_ins_total{new="place"}': "0+6x400",
    'gatepost_refresh_replays_total{verdict="reuse", looks_like="broken_client"}': "0+0.05x400",
    'gatepost_refresh_replays_total{verdict="reuse", looks_like="theft"}': "0x100 1x300",
    'gatepost_workers_replaced_total{instance="a:8000"}': "0x100 1x300",
    'gatepost_workers_hung_total{instance="a:8000"}': "0x400",
    'gatepost_rate_limit_decisions_total{policy="login", decision="refused"}': "0+15x400",
    'gatepost_refreshes_total{verdict="reuse"}': "0x100 1x300",
    'gatepost_redis_servers_given_up{instance="a:8000", kind="single"}': "0x400",
    'gatepost_redis_servers{instance="a:8000", kind="single"}': "1x400",
    'gatepost_redis_round_trip_duration_seconds_bucket{le="0.1"}': "0+100x400",
    'gatepost_redis_round_trip_duration_seconds_bucket{le="+Inf"}': "0+100x400",
    'gatepost_redis_memory_used_bytes{instance="a:8000"}': "90x400",
    'gatepost_redis_memory_limit_bytes{instance="a:8000"}': "0x400",
    'gatepost_redis_dangers{instance="a:8000"}': "0x400",
    'gatepost_upkeep_timestamp_seconds{instance="a:8000"}': "0+15x400",
    'gatepost_hashing_waiting{instance="a:8000"}': "10x400",
    'gatepost_hashing_waiting_limit{instance="a:8000"}': "100x400",
    'gatepost_http_requests_shed_total{instance="a:8000"}': "5x400",
    'gatepost_hashing_refused_total{instance="a:8000", reason="full"}': "5x400",
    'gatepost_http_connections_cut_off_total{instance="a:8000", reason="full"}': "5x400",
    'gatepost_mail_parked{instance="a:8000"}': "0x400",
    'gatepost_mail_waiting{instance="a:8000"}': "20x400",
    'gatepost_audit_unwritten_total{instance="a:8000"}': "2x400",
    'gatepost_signing_key_timestamp_seconds{instance="a:8000"}': "0x400",
    'gatepost_signing_key_rotation_seconds{instance="a:8000"}': "0x400",
    'gatepost_redis_clock_ahead_seconds{instance="a:8000"}': "-0.2x400",
    'gatepost_event_loop_lag_seconds_bucket{instance="a:8000", le="0.1"}': "0+14x400",
    'gatepost_event_loop_lag_seconds_bucket{instance="a:8000", le="+Inf"}': "0+15x400",
    'gatepost_mail_failed_total{kind="reset", parked="no"}': "0+0.1x400",
    'gatepost_mail_sent_total{kind="reset"}': "0+0.02x400",
    'gatepost_audit_events_total{type="sessions.session.started"}': "0+15x400",
}
# At night: somebody looks after the instances, which are replaced one after another, and hardly anybody is there.
QUIET = {
    'up{job="gatepost", instance="a:8000"}': "1x400",
    'gatepost_http_requests_total{route="/health", status="200"}': "0+2x400",
    'gatepost_http_requests_total{route="/ready", status="503"}': "0x100 6x100 12x200",
    'gatepost_http_requests_total{route="/api/auth/me", status="200"}': "0x160 1x240",
    'gatepost_http_requests_total{route="/api/auth/me", status="503"}': "0x160 2x240",
    'gatepost_sign_ins_total{method="pwd", result="success"}': "0x400",
    'gatepost_sign_ins_total{method="pwd", result="invalid_credentials"}': "0x160 3x240",
    'gatepost_oauth_calls_total{provider="github", step="finish", result="oauth_exchange_failed"}': "0x160 2x240",
    'gatepost_mail_failed_total{kind="reset", parked="no"}': "0x160 2x240",
    'gatepost_mail_sent_total{kind="reset"}': "0x400",
    'gatepost_http_request_duration_seconds_bucket{route="/api/auth/me", le="0.25"}': "0x400",
    'gatepost_http_request_duration_seconds_bucket{route="/api/auth/me", le="0.5"}': "0x160 1x240",
    'gatepost_http_request_duration_seconds_bucket{route="/api/auth/me", le="+Inf"}': "0x160 1x240",
    # Whoever turns the key by hand once a year.
    'gatepost_signing_key_timestamp_seconds{instance="a:8000"}': "-9000000x400",
    'gatepost_signing_key_rotation_seconds{instance="a:8000"}': "0x400",
}


def firing(home: Path, series: dict[str, str], at: str, *names: str, step: str = "15s") -> None:
    """Fail unless these alerts, and no others, are firing at that time."""
    series = {'up{job="gatepost", instance="a:8000"}': "1x1200"} | series
    wanted = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
    asked = 'count by (alertname) (ALERTS{alertstate="firing"})'
    test = {
        "interval": step,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": asked, "eval_time": at, "exp_samples": wanted}],
    }
    rules = str(CONFIG / "prometheus-rules.yml")
    (home / "test.yml").write_text(
        yaml.safe_dump({"rule_files": [rules], "evaluation_interval": step, "tests": [test]})
    )
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(home / "test.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_something_that_makes_it_fire():
    assert FIRES.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_fires_alone_when_there_is_a_reason(tmp_path, name):
    at, series = FIRES[name]

    firing(tmp_path, series, at, name, step="1h" if at.endswith("h") else "15s")


SPREAD = {
    # Each guess at another account and from another address: no burst anywhere, and no limit that would refuse.
    "fast": ("12m", '0+24x60', '0+6x60'),
    # A guess every twenty seconds, day and night, where hardly anybody signs in.
    "slow": ("80m", '0+0.75x400', '0+0.1x400'),
}  # fmt: skip


@pytest.mark.parametrize("pace", SPREAD)
def test_guesses_that_are_spread_over_accounts_and_addresses_are_noticed(tmp_path, pace):
    at, wrong, right = SPREAD[pace]
    series = {
        'gatepost_sign_ins_total{method="pwd", result="success"}': right,
        'gatepost_sign_ins_total{method="pwd", result="invalid_credentials"}': wrong,
        'gatepost_sign_in_bursts_total{by="account"}': "0x400",
        'gatepost_rate_limit_decisions_total{policy="login", decision="refused"}': "0x400",
    }
    firing(tmp_path, series, at, "GatepostGuessing")


def test_no_alert_fires_while_all_is_well(tmp_path):
    firing(tmp_path, CALM, "90m")


@pytest.mark.parametrize("at", ["27m", "42m", "47m", "60m"])
def test_no_alert_fires_for_a_restart_and_a_mishap_at_night(tmp_path, at):
    firing(tmp_path, QUIET, at)


def test_that_there_is_nobody_to_ask_is_an_alert(tmp_path):
    """Where instances are found, rather than listed, none of them is no target that would not answer."""
    firing(tmp_path, {'up{job="gatepost", instance="a:8000"}': "1x8 stale"}, "10m", "GatepostInstanceDown")


def test_the_alert_on_a_short_trail_knows_how_long_it_is():
    assert str(trail._KEPT) in ALERTS["GatepostAuditShort"]["expr"]


# For real


class Prometheus:
    """A real one, over HTTP."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def __call__(self, path: str, **query: str) -> dict:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=query) as answer:
            told = await answer.json()
        assert told["status"] == "success", (query, told)
        return told["data"]

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            while True:
                async with self._session.get(f"{self._url}/-/ready") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.05)

    async def ask(self, expression: str) -> list[dict]:
        return (await self("query", query=expression.replace("$__rate_interval", "1m").replace("$instance", ".*")))[
            "result"
        ]

    async def until(self, expression: str, value: float) -> None:
        async with asyncio.timeout(30):
            while [float(each["value"][1]) for each in await self.ask(expression)] != [value]:
                await asyncio.sleep(0.1)


def set_up(home: Path, instances: list[Instance], token: str) -> Path:
    """Our configuration, with addresses of this test and less patience; started by our script, paths aside."""
    quick = SCRAPING["global"] | {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (job,) = SCRAPING["scrape_configs"]
    targets = [f"127.0.0.1:{instance.port}" for instance in instances]
    kept = str(home / "metrics-token")
    job = job | {
        "static_configs": [{"targets": targets}],
        "authorization": job["authorization"] | {"credentials_file": kept},
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(SCRAPING | {"global": quick, "scrape_configs": [job]}))
    (home / "prometheus-rules.yml").write_text((CONFIG / "prometheus-rules.yml").read_text())
    script = (CONFIG / "prometheus-start.sh").read_text()
    assert script.count("/tmp/metrics-token") == 1
    assert job["authorization"]["type"] == "Bearer"
    (home / "prometheus-start.sh").write_text(
        script.replace("/tmp/metrics-token", kept)
        .replace("--storage.tsdb.path=/prometheus", f'--storage.tsdb.path={home}/data "$@"')
        .replace("exec prometheus", f"exec {tool('prometheus')}")
    )
    return home / "prometheus-start.sh"


def check(home: Path, token: str) -> None:
    """What `promtool` says of all of it, the file with the token among it."""
    (home / "metrics-token").write_text(token)
    done = subprocess.run(
        [tool("promtool"), "check", "config", str(home / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "metrics-token").unlink()


async def journey(session: aiohttp.ClientSession, url: str) -> None:
    status, signed = await signing_in(session, url, ADA)
    assert status == 200
    async with session.get(
        f"{url}/api/auth/verify", headers={"Authorization": f"Bearer {signed['accessToken']}"}
    ) as answer:
        assert answer.status == 200
    async with session.post(
        f"{url}/api/auth/refresh", json={"refreshToken": signed["refreshToken"]}, headers=TOKENS
    ) as answer:
        assert answer.status == 200
    status, _ = await signing_in(session, url, ADA | {"password": PASSWORD + "!"})
    assert status == 401


async def signing_in(session: aiohttp.ClientSession, url: str, body: dict[str, str]) -> tuple[int, dict]:
    """What comes of it; asked again where a busy machine has no core for the password."""
    async with asyncio.timeout(60):
        while True:
            async with session.post(f"{url}/api/auth/login", json=body, headers=TOKENS) as answer:
                if answer.status != 503:
                    return answer.status, await answer.json()
            await asyncio.sleep(float(answer.headers["Retry-After"]))


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_prometheus_finds_both_instances_and_everything_that_we_ask_it(redis_server, tmp_path, client, workers):
    tool("prometheus")
    token, port, log = secrets.token_urlsafe(48), free_port(), tmp_path / "log"
    instances = [Instance(tmp_path, redis_server.url, METRICS_TOKEN=token, WORKERS=workers) for _ in range(2)]
    try:
        for instance in instances:
            await instance.ready()
        first, second = (f"http://127.0.0.1:{instance.port}" for instance in instances)
        async with client.post(f"{first}/api/auth/register", json=ADA) as answer:
            assert answer.status == 201
        await asyncio.gather(journey(client, first), journey(client, second))
        script = set_up(tmp_path, instances, token)
        check(tmp_path, token)
        command = ["sh", str(script), f"--web.listen-address=127.0.0.1:{port}"]
        with running(command, port, log, env={"PATH": "/usr/bin:/bin", "METRICS_TOKEN": token}) as process:
            prometheus = Prometheus(f"http://127.0.0.1:{port}", client)
            await prometheus.ready()
            await prometheus.until('sum(up{job="gatepost"})', 2)
            await asyncio.gather(journey(client, first), journey(client, second))
            await prometheus.until('sum(gatepost_sign_ins_total{result="success"})', 5)
            await prometheus.until("sum(gatepost_workers)", 2 * int(workers))
            if workers == "2":
                await one_is_killed(prometheus, instances[0], client, first)
            answers = {(title, asked): await prometheus.ask(asked) for title, asked in QUERIES}
            alerts = {name: await prometheus.ask(rule["expr"]) for name, rule in ALERTS.items()}
            await rules_are_evaluated(prometheus)
            command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
    finally:
        for instance in instances:
            await instance.clean_up()

    empty = {title for (title, _), found in answers.items() if not found}
    assert empty <= SILENT
    assert (tmp_path / "metrics-token").stat().st_mode & 0o077 == 0
    assert token not in command_line + environment + log.read_text()
    # The tests' Redis has no AOF, as it is the tests' own; and a machine that runs other tests beside this may be slow.
    assert {name for name, found in alerts.items() if found} <= {
        "GatepostRedisUnsafe",
        "GatepostRedisSlow",
        "GatepostSlow",
        "GatepostLoopBehind",
    }


async def one_is_killed(prometheus: Prometheus, instance: Instance, client: aiohttp.ClientSession, url: str) -> None:
    """What it had counted and told stays, and what its successor counts comes on top."""
    verified = 'sum(gatepost_http_requests_total{route="/api/auth/verify",status="200"})'
    await prometheus.until(verified, 4)
    supervisor = instance.process.pid
    victim = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0]
    os.kill(int(victim), signal.SIGKILL)
    await prometheus.until("sum(gatepost_workers_replaced_total)", 1)
    await prometheus.until("sum(gatepost_workers)", 4)
    await prometheus.until('sum(gatepost_sign_ins_total{result="success"})', 5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(3):
            await asyncio.gather(journey(session, url), journey(session, url))
    await prometheus.until('sum(gatepost_sign_ins_total{result="success"})', 11)
    await prometheus.until(verified, 10)
    await prometheus.until("count(process_cpu_seconds_total) + count(process_resident_memory_bytes)", 4)
    await prometheus.until("sum(resets(process_cpu_seconds_total[5m]))", 0)


async def rules_are_evaluated(prometheus: Prometheus) -> None:
    """Wait until every alert was looked at once, and none of them is a mistake."""
    until = time.monotonic() + 30
    while True:
        (group,) = (await prometheus("rules"))["groups"]
        if {rule["health"] for rule in group["rules"]} == {"ok"}:
            assert len(group["rules"]) == len(ALERTS)
            return
        assert time.monotonic() < until, group
        await asyncio.sleep(0.1)
