"""docker-compose.yml, read with PyYAML: what it promises, and that its parts agree with one another."""

import ipaddress
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service import serving, settings

from .conftest import ROOT

INSTANCES = ("gatepost-1", "gatepost-2", "gatepost-3")
SENTINEL = ("redis-2", "redis-3", "sentinel-1", "sentinel-2", "sentinel-3")
CLUSTER = tuple(f"cluster-{number}" for number in range(1, 7))
WATCHERS = ("prometheus", "grafana")
STORES = ("redis", *SENTINEL, *CLUSTER)
GIVEN = {"AUTH_SECRET": "a-Long.and_random-Secret;0f-m0re/than+32*bytes", "REDIS_PASSWORD": "5f2c"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^${}]*))?\}")


class Missing(Exception):
    """A variable that docker compose would refuse to go on without."""


def filled(value, given):
    """Put variables in as docker compose does, innermost first."""
    if isinstance(value, dict):
        return {name: filled(inner, given) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, given) for inner in value]
    if not isinstance(value, str):
        return value

    def put(match):
        name, kind, rest = match.groups()
        if found := given.get(name):
            return found.replace("${", "$\0{")  # what a value holds is not looked at again
        if kind == ":?":
            raise Missing(f"{name} {rest}")
        return rest or ""

    while VARIABLE.search(value):
        value = VARIABLE.sub(put, value)
    assert "${" not in value, f"not a variable docker compose knows: {value}"
    return value.replace("$\0{", "${")


def compose(**given):
    return filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), given)


@pytest.fixture
def parts():
    return compose(**GIVEN)


@pytest.fixture
def services(parts):
    return parts["services"]


def address(service):
    return service["networks"]["edge"]["ipv4_address"]


def test_three_instances_run_the_same_image_with_the_same_settings(services):
    alike = [
        {name: value for name, value in services[instance].items() if name != "networks"} for instance in INSTANCES
    ]

    assert {name for name in services if name.startswith("gatepost")} == set(INSTANCES)
    assert alike[0] == alike[1] == alike[2]


def test_nginx_finds_each_instance_where_it_is(services):
    """Names are looked up once, at the start: the address must be the instance's for good."""
    upstreams = re.findall(r"server (gatepost-\d):8000", (ROOT / "config/nginx.conf").read_text())

    assert tuple(upstreams) == INSTANCES
    assert services["nginx"]["extra_hosts"] == [f"{name}:{address(services[name])}" for name in INSTANCES]
    assert {services[name]["environment"]["PORT"] for name in INSTANCES} == {"8000"}


def test_every_address_lies_in_the_network_of_the_edge(parts, services):
    (pool,) = parts["networks"]["edge"]["ipam"]["config"]
    network = ipaddress.ip_network(pool["subnet"])
    present = [name for name, service in services.items() if "edge" in service["networks"]]
    addresses = [address(services[name]) for name in present]

    assert set(present) == {"nginx", "prometheus", *INSTANCES}
    assert len(set(addresses)) == 5
    assert all(ipaddress.ip_address(each) in network for each in addresses)


def test_the_network_of_the_edge_can_be_moved_with_one_variable():
    moved = compose(**GIVEN, EDGE_NETWORK="192.168.99")

    assert "10.213.77" not in yaml.safe_dump(moved)


def test_nginx_alone_is_trusted_to_say_where_a_client_is(services):
    for name in INSTANCES:
        assert services[name]["environment"]["TRUSTED_PROXIES"] == f"{address(services['nginx'])}/32"


def test_only_nginx_can_be_reached_and_only_from_this_machine(services):
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "nginx": ["127.0.0.1:8080:8080"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_grafana_reaches_prometheus_and_nothing_else(services):
    (source,) = yaml.safe_load((ROOT / "config/grafana/provisioning/datasources/gatepost.yml").read_text())[
        "datasources"
    ]

    assert services["grafana"]["networks"] == ["watch"]
    assert {name for name, service in services.items() if "watch" in service["networks"]} == set(WATCHERS)
    assert source["url"] == "http://prometheus:9090"


def test_grafana_finds_its_files_and_shows_them_to_nobody_who_could_change_them(services):
    environment = services["grafana"]["environment"]
    (provider,) = yaml.safe_load((ROOT / "config/grafana/provisioning/dashboards/gatepost.yml").read_text())[
        "providers"
    ]
    here = {"/etc/gatepost/grafana": ROOT / "config/grafana"}

    assert services["grafana"]["volumes"][0] == "./config/grafana:/etc/gatepost/grafana:ro"
    for path in (
        environment["GF_PATHS_PROVISIONING"],
        environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
        provider["options"]["path"],
    ):
        root = here["/etc/gatepost/grafana"]
        assert (root / path.removeprefix("/etc/gatepost/grafana/")).exists()
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"


def test_prometheus_asks_each_instance_with_the_token_that_it_has(parts):
    services = compose(**GIVEN, METRICS_TOKEN="the-token")["services"]
    (job,) = yaml.safe_load((ROOT / "config/prometheus.yml").read_text())["scrape_configs"]
    files = {file["target"]: parts["configs"][file["source"]]["file"] for file in services["prometheus"]["configs"]}

    assert job["static_configs"] == [{"targets": [f"{name}:8000" for name in INSTANCES]}]
    assert {services[name]["environment"]["METRICS_TOKEN"] for name in ("prometheus", *INSTANCES)} == {"the-token"}
    assert services["prometheus"]["entrypoint"] == ["sh", "/etc/gatepost/prometheus-start.sh"]
    assert all((ROOT / file).is_file() for file in files.values())
    assert {Path(target).name for target in files} == {Path(file).name for file in files.values()}


def test_redis_can_be_reached_by_the_instances_alone(parts, services):
    assert parts["networks"]["store"]["internal"] is True
    assert {name for name, service in services.items() if "store" in service["networks"]} == {
        *(*STORES, "cluster-create", *INSTANCES)
    }
    assert all(list(services[name]["networks"]) == ["store"] for name in (*STORES, "cluster-create"))


def test_every_redis_has_an_address_that_nobody_else_can_get(parts, services):
    (pool,) = parts["networks"]["store"]["ipam"]["config"]
    network, others = (ipaddress.ip_network(pool[name]) for name in ("subnet", "ip_range"))
    addresses = [ipaddress.ip_address(services[name]["networks"]["store"]["ipv4_address"]) for name in STORES]

    assert len(set(addresses)) == len(STORES)
    assert all(each in network and each not in others for each in addresses)


def test_the_network_of_redis_can_be_moved_with_one_variable():
    moved = compose(**GIVEN, STORE_NETWORK="192.168.98")

    assert "10.213.78" not in yaml.safe_dump(moved)


def test_the_instances_come_as_a_user_who_may_do_what_they_need(services):
    for name in INSTANCES:
        assert services[name]["environment"]["REDIS_URL"] == f"redis://gatepost:{GIVEN['REDIS_PASSWORD']}@redis:6379/0"
    assert re.search(r"^user gatepost ", (ROOT / "config/redis-users.acl").read_text(), re.MULTILINE)


def test_no_secret_is_on_a_command_line(services):
    given = {
        "REDIS_PASSWORD": "the-password",
        "REDIS_ADMIN_PASSWORD": "the-other-password",
        "METRICS_TOKEN": "the-token-of-metrics",
    }
    for service in compose(**(GIVEN | given))["services"].values():
        shown = "".join(str(service.get(part, "")) for part in ("command", "entrypoint", "healthcheck"))
        assert not any(secret in shown for secret in given.values())


@pytest.mark.parametrize("name", STORES)
def test_redis_keeps_what_it_is_told(parts, services, name):
    """A volume of its own each; the file that it starts from is one of this repository, and says `appendonly yes`."""
    files = {file["target"]: parts["configs"][file["source"]]["file"] for file in services[name]["configs"]}
    shell, script, *_ = services[name]["command"]

    assert services[name]["volumes"] == [f"{name}:/data"]
    assert name in parts["volumes"]
    assert shell == "sh"
    assert files[script] in ("./config/redis-start.sh", "./config/sentinel-start.sh")
    assert all((ROOT / file).is_file() for file in files.values())


def test_a_profile_adds_to_what_runs_without_one(services):
    """So `docker compose up` needs no setting, and Sentinel takes the single Redis, accounts and all, as its master."""
    profiles = {name: " ".join(service["profiles"]) for name, service in services.items() if "profiles" in service}

    assert profiles == dict.fromkeys(SENTINEL, "sentinel") | dict.fromkeys((*CLUSTER, "cluster-create"), "cluster") | (
        dict.fromkeys(WATCHERS, "prometheus")
    )


@pytest.mark.parametrize("profile", ["sentinel", "cluster"])
def test_the_lines_for_a_profile_name_what_it_starts(services, profile):
    text = (ROOT / "docker-compose.yml").read_text()
    url = re.search(rf"^#   COMPOSE_PROFILES={profile}\n#   REDIS_URL=(\S+)$", text, re.MULTILINE)[1]
    user, _, rest = url.removeprefix(f"redis+{profile}://").partition(":")
    nodes = rest.partition("@")[2].partition("/")[0].split(",")

    assert user == "gatepost"
    assert len(nodes) == 3
    assert all(profile in services[node.partition(":")[0]]["profiles"] for node in nodes)
    assert compose(**GIVEN, REDIS_URL=url)["services"]["gatepost-1"]["environment"]["REDIS_URL"] == url


@pytest.mark.parametrize("name", ["AUTH_SECRET", "REDIS_PASSWORD"])
def test_a_missing_secret_stops_the_start_with_the_command_that_makes_one(name):
    with pytest.raises(Missing, match=rf'^{name} .*python3 -c "import secrets; print\(secrets\.token_\w+\(\d+\)\)"$'):
        compose(**(GIVEN | {name: ""}))


def test_everyone_has_a_health_check(services):
    """The instances' is in the image."""
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    for name in ("nginx", *WATCHERS, *STORES):
        assert services[name]["healthcheck"]["test"]


def test_nobody_starts_before_what_it_needs_is_healthy(services):
    healthy = {"condition": "service_healthy"}

    assert services["nginx"]["depends_on"] == dict.fromkeys(INSTANCES, healthy)
    for name in INSTANCES:
        assert services[name]["depends_on"] == {
            "redis": healthy,
            "sentinel-1": healthy | {"required": False},
            "cluster-create": {"condition": "service_completed_successfully", "required": False},
        }


@pytest.mark.parametrize("name", ["nginx", *WATCHERS, *STORES, "cluster-create", *INSTANCES])
def test_nobody_has_more_rights_than_it_needs(services, name):
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service.get("user", "the image's own") != "root"


@pytest.mark.parametrize("name", ["nginx", *WATCHERS, *STORES, *INSTANCES])
def test_everyone_comes_back_and_gets_time_to_finish(services, name):
    assert services[name]["restart"] == "unless-stopped"
    assert int(services[name]["stop_grace_period"].removesuffix("s")) >= 20


def test_an_instance_has_the_time_to_drain_and_to_finish(services, tmp_path):
    drain = settings.load(services["gatepost-1"]["environment"], None, tmp_path).drain_seconds.total_seconds()

    assert int(services["gatepost-1"]["stop_grace_period"].removesuffix("s")) > drain + serving.LINGER + serving.FINISH


def test_every_setting_is_one_that_the_service_has(services):
    documented = set(re.findall(r"^#?\s*([A-Z][A-Z0-9_]+)=", (ROOT / "config/example.env").read_text(), re.MULTILINE))

    assert services["gatepost-1"]["environment"].keys() <= documented


def test_the_service_accepts_these_settings_on_a_laptop(services, tmp_path):
    accepted = settings.load(services["gatepost-1"]["environment"], None, tmp_path)

    assert accepted.production
    assert (accepted.host, accepted.port) == ("0.0.0.0", 8000)
    assert accepted.public_url == "http://localhost:8080"
    assert accepted.cors_origins == ("http://localhost:5173",)
    assert not accepted.cookie_secure


def test_the_service_accepts_these_settings_on_the_internet(tmp_path):
    public = {"PUBLIC_URL": "https://auth.example.org", "FRONTEND_URL": "https://app.example.org"}
    environment = compose(**GIVEN, **public)["services"]["gatepost-1"]["environment"]
    accepted = settings.load(environment, None, tmp_path)

    assert accepted.cookie_secure
    assert accepted.cors_origins == ("https://app.example.org",)


def test_the_commands_that_make_secrets_work():
    """Run as they are written in the message, with this Python."""
    for code in set(re.findall(r'\?is missing\..*python3 -c "(.*?)"', (ROOT / "docker-compose.yml").read_text())):
        made = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ)
        )
        assert len(made.stdout.strip()) >= 64
