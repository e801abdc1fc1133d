"""docs/kubernetes: valid by Kubernetes' own schemas, and of one mind with the service."""

import importlib
import re

import pytest
import yaml

from service import serving, settings
from tests.conftest import in_ci

from .conftest import ROOT

FOLDER = ROOT / "docs" / "kubernetes"
PAGE = (FOLDER / "README.md").read_text()
MANIFESTS = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
EVERYTHING = {(each.values[0]["kind"], each.values[0]["metadata"]["name"]): each.values[0] for each in MANIFESTS}
DEPLOYMENT = EVERYTHING["Deployment", "gatepost"]["spec"]
STATEFUL = EVERYTHING["StatefulSet", "redis"]["spec"]
WORKLOADS = pytest.mark.parametrize("workload", [DEPLOYMENT, STATEFUL], ids=["gatepost", "redis"])


def pod(workload):
    return workload["template"]["spec"]


def container(workload):
    (only,) = pod(workload)["containers"]
    return only


@pytest.mark.parametrize("manifest", MANIFESTS)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_a_manifest_is_valid(manifest, version):
    try:
        schemas = importlib.import_module("kubernetes_validate")
    except ModuleNotFoundError:
        pytest.fail("needs kubernetes-validate") if in_ci() else pytest.skip("needs `make .venv/.e2e`")

    schemas.validate(manifest, version, strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_everything_is_in_one_namespace_and_there_is_no_secret_in_a_file(manifest):
    assert manifest["metadata"]["namespace"] == "gatepost"
    assert manifest["kind"] != "Secret"


@WORKLOADS
def test_selectors_find_the_pods(workload):
    labels = workload["template"]["metadata"]["labels"]
    name = labels["app.kubernetes.io/name"]
    selector = {"app.kubernetes.io/name": name}

    assert workload["selector"]["matchLabels"] == selector
    assert EVERYTHING["Service", name]["spec"]["selector"] == selector
    assert EVERYTHING["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"] == selector


@WORKLOADS
def test_a_pod_is_restricted(workload):
    """What the `restricted` Pod Security Standard asks for, and a file system that cannot be written."""
    its, own = pod(workload)["securityContext"], container(workload)["securityContext"]

    assert its["runAsNonRoot"] is True
    assert its["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod(workload)["automountServiceAccountToken"] is False
    assert pod(workload)["enableServiceLinks"] is False


def test_the_pods_run_as_the_user_of_the_image():
    (user,) = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert pod(DEPLOYMENT)["securityContext"]["runAsUser"] == int(user)


def test_a_pod_has_the_time_to_drain_and_to_finish():
    drain = int(EVERYTHING["ConfigMap", "gatepost"]["data"]["DRAIN_SECONDS"])

    assert pod(DEPLOYMENT)["terminationGracePeriodSeconds"] >= drain + serving.LINGER + serving.FINISH + 5


def test_life_is_asked_of_health_and_readiness_of_ready():
    probes = {name: probe["httpGet"]["path"] for name, probe in container(DEPLOYMENT).items() if name.endswith("Probe")}

    assert probes == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert container(DEPLOYMENT)["readinessProbe"]["timeoutSeconds"] > 2.5, "as long as /ready takes without Redis"


def test_one_instance_less_is_the_most_that_a_drained_node_costs():
    assert DEPLOYMENT["replicas"] == 3
    assert DEPLOYMENT["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert EVERYTHING["PodDisruptionBudget", "gatepost"]["spec"]["maxUnavailable"] == 1


def test_the_outside_reaches_neither_metrics_nor_health():
    (rule,) = EVERYTHING["Ingress", "gatepost"]["spec"]["rules"]

    assert [path["path"] for path in rule["http"]["paths"]] == ["/api", "/.well-known"]


def test_redis_starts_as_in_the_compose_file():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]
    given = {variable["name"] for variable in container(STATEFUL)["env"]}

    assert container(STATEFUL)["image"] == compose["image"]
    assert container(STATEFUL)["command"] == compose["command"]
    assert given == compose["environment"].keys()
    for file in compose["configs"]:
        assert f"--from-file=config/{file['source']}" in PAGE


def test_the_commands_of_the_page_make_what_the_manifests_ask_for():
    asked = [
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for entry in container(STATEFUL)["env"]
        if "valueFrom" in entry
    ]
    secrets = re.findall(r"create secret generic ([\w-]+)", PAGE)

    assert set(secrets) == {name for name, _ in asked} | {"gatepost"}
    assert all(f"--from-literal={key}=" in PAGE for _, key in asked)
    for command in re.findall(r"kubectl apply -f (\S+)", PAGE):
        assert (ROOT / command).is_file()


def test_the_service_accepts_these_settings(tmp_path):
    secret = dict(re.findall(r'--from-literal=([A-Z_]+)="([^"]+)"', PAGE))
    secret = {
        name: value.replace("$(random)", f"5f2c9e{number}" * 9 + "01ab").replace("$", "")
        for number, (name, value) in enumerate(secret.items())
    }
    data = EVERYTHING["ConfigMap", "gatepost"]["data"]
    accepted = settings.load({"ENVIRONMENT": "production", **data, **secret}, None, tmp_path)

    assert secret.keys() == {"AUTH_SECRET", "REDIS_URL", "METRICS_TOKEN"}
    assert data.keys() <= set(settings.NAMES)
    assert accepted.cookie_secure
    assert accepted.public_url == f"https://{EVERYTHING['Ingress', 'gatepost']['spec']['rules'][0]['host']}"
