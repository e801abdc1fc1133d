"""The house stands as the design draws it: who may import whom, who owns what, and who may call each route."""

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from service.app import assemble, make_app
from service.settings import ROOT
from service.store import reach
from tests.conftest import cheap_passwords, settings_for

SERVICE = ROOT / "service"
MODULES = sorted(SERVICE.rglob("*.py"))
SCRIPTS = sorted(SERVICE.rglob("*.lua"))
# They put the service together, each a layer above the next: whoever they import knows nothing of them.
ENTRY = (
    "service.__main__",
    "service.commands",
    "service.supervisor",
    "service.serving",
    "service.app",
    "service.doctor",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that this one imports, at any place in it; `from a import b` counts as `a` and as `a.b`."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@cache
def strings(path: Path) -> tuple[str, ...]:
    """Every string in the code, docstrings left out; of an f-string the part before its first value."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return tuple(
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    )


def is_core(path: Path) -> bool:
    """What decides, as against what speaks HTTP or puts the parts together."""
    name = name_of(path)
    return not name.startswith(("service.http", *ENTRY)) and path.name != "routes.py" and name not in ("service.parts",)


STORE = sorted(SERVICE.glob("store/*.py"))
METRICS = SERVICE / "metrics.py"
CORES = [path for path in MODULES if is_core(path)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "app.py"], ids=name_of)
def test_only_the_composition_root_imports_routes(path):
    assert {name for name in imports(path) if re.search(r"\.routes\b", name) and name.startswith("service")} == set()


@pytest.mark.parametrize("path", CORES, ids=name_of)
def test_no_core_speaks_http(path):
    assert {
        name for name in imports(path) if re.match(r"aiohttp\.web|aiohttp_|service\.http|service\.parts", name)
    } == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_imports_what_stands_above(path):
    name = re.sub(r"^service\.commands\..*", "service.commands", name_of(path))  # each command is one of them
    above = ENTRY[: ENTRY.index(name)] if name in ENTRY else ENTRY

    assert imports(path) & set(above) == set()


def test_http_does_not_know_the_features_routes_and_the_store_knows_no_feature():
    known = {name for path in STORE for name in imports(path) if name.startswith("service")}

    assert {name for name in known if not name.startswith("service.store")} - {"service"} == {
        "service.clock",
        "service.clock.running",
        "service.errors",
        "service.errors.StoreUnavailable",
        "service.metrics",
        "service.tasks",
    }


def test_metrics_are_below_everything_so_that_everybody_may_count():
    known = {name for name in imports(METRICS) if name.startswith("service")}

    assert known == {"service", "service.__version__", "service.count_files"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "metrics.py"], ids=name_of)
def test_one_module_owns_the_names_of_all_metrics(path):
    if path.name != "count_files.py":  # which keeps the numbers, whatever they are called
        assert {name for name in imports(path) if name.startswith("prometheus_client")} == set()
    assert [text for text in strings(path) if text.startswith("gatepost_")] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_opentelemetry_is_for_two_modules_that_nobody_imports_at_the_start(path):
    traced = {"service.tracing", "service.http.tracing"}
    body = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]

    if name_of(path) not in traced:
        assert {name for name in imports(path) if name.startswith("opentelemetry")} == set()
        assert {node.module for node in body if isinstance(node, ast.ImportFrom)} & traced == set()


@pytest.mark.parametrize("path", sorted(set(MODULES) - set(STORE)), ids=name_of)
def test_only_the_store_talks_to_redis(path):
    assert {name for name in imports(path) if name == "redis" or name.startswith("redis.")} == set()


# What is kept in Redis


def told_keys(path: Path) -> list[str]:
    """The keys that a module's docstring lists under `Redis`, up to the first part that varies."""
    doc = ast.get_docstring(tree(path)) or ""
    if "\nRedis\n" not in doc:
        return []
    section = doc.partition("\nRedis\n")[2].split("\n\n")[0]
    keys = re.findall(r"^    (\S.*?)\s\s+(?:hash|string|zset|stream|set|list)\b", section, re.MULTILINE)
    found = [re.split(r"[<{]", key)[0] for key in keys]
    return [key for key in found if not any(key != other and key.startswith(other) for other in found)]


KEYS = {key: path for path in MODULES for key in told_keys(path)}


def test_every_kind_of_key_is_told_by_one_module():
    told = Counter(key for path in MODULES for key in told_keys(path))

    assert {"user:", "email:", "sessions:", "limit:", "browser:", "signing-keys", "lookup-key"} | {
        "audit-trail",
        "events:",
        "index:users",
        "admins",
    } <= told.keys()
    assert {"audit-trail", "events:", "index:users", "admins"} <= told.keys()
    assert {key: times for key, times in told.items() if times > 1} == {}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_made_by_the_module_that_tells_of_it_and_by_no_other(key):
    def makes(path: Path) -> bool:
        return any(text.startswith(key) if key.endswith(":") else text == key for text in strings(path))

    makers = {name_of(path) for path in MODULES if makes(path)}

    # `vault.key("lookup-key")` and its like are purposes in the module that owns the key, so the rule holds for them.
    assert makers == {name_of(KEYS[key])}


def test_no_key_is_made_that_no_module_tells_of():
    commands = r"\b(GET|SET|DEL|HSET|HGET|HGETALL|HMGET|ZADD|XADD|EXISTS)\b"
    untold = [
        (name_of(path), text)
        for path in MODULES
        for text in strings(path)
        if re.fullmatch(r"[a-z-]+:\{?", text) and text.rstrip("{") not in KEYS and re.search(commands, path.read_text())
        if text != "id:"  # a field of a user, not a key
    ]

    assert untold == []


# Scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_has_one_owner_beside_it(script):
    owners = [path for path in MODULES if script.name in strings(path) and path.parent == script.parent]
    elsewhere = [path for path in MODULES if script.name in strings(path) and path.parent != script.parent]

    assert len(owners) == 1
    assert elsewhere == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_begins_with_its_signature_and_names_what_it_is_given(script):
    text = script.read_text()
    header, _, code = text.partition("]]\n")

    assert header.startswith("--[[\n")
    assert "KEYS[1]" in header
    assert re.search(r"^  Returns ", header, re.MULTILINE)
    assert code.splitlines()[0].startswith("local ")
    assert "KEYS[1]" in code.splitlines()[0]
    for argument in set(re.findall(r"ARGV\[\d+\]", code)):
        assert argument in header, f"{argument} is not in the signature"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_decides_on_the_one_key_it_is_given(script):
    code = script.read_text().partition("]]\n")[2]
    name = re.match(r"local (\w+)", code)[1]

    told = set(re.findall(r'redis\.call\("(?!TIME)\w+", ([^,)\s]+)', code))
    if script.name == "rotate.lua":  # where all keys are on one server, it looks whether its call has been counted
        assert re.findall(r'redis\.call\("(\w+)", paid_in', code) == ["ZSCORE"]
        assert code.count("KEYS[2]") == 1
        told.remove("paid_in")
    else:
        assert "KEYS[2]" not in code
    assert told == {name}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_folder_is_shipped_with_its_scripts(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert ".".join(path.parent.relative_to(ROOT).parts) in project["packages"]
    assert "*.lua" in project["package-data"]["*"]


# Routes


@pytest.fixture(scope="module")
def routes():
    its = assemble(settings_for(), reach("redis://127.0.0.1:1"), cheap_passwords())
    yield [route for route in make_app(its).router.routes() if route.method not in ("OPTIONS", "HEAD")]
    its.passwords.close()


def test_every_route_says_who_may_call_it(routes):
    assert len(routes) >= 20
    assert [str(route.resource) for route in routes if not hasattr(route.handler, "access")] == []


def test_every_route_says_what_it_does(routes):
    assert [str(route.resource) for route in routes if not route.handler.__doc__] == []


def test_only_these_routes_are_for_anyone(routes):
    """A new route that forgets its guard would have to be added here."""
    anyone = {f"{route.method} {route.resource.canonical}" for route in routes if route.handler.access.who == "anyone"}

    assert {path for path in anyone if "/api/" in path} <= {
        "POST /api/auth/register",
        "POST /api/auth/login",
        "POST /api/auth/refresh",
        "POST /api/auth/logout",
        "POST /api/auth/password/forgot",
        "POST /api/auth/password/reset",
        "POST /api/auth/email/verify",
        "GET /api/auth/csrf-token",
        "GET /api/auth/providers",
        "GET /api/auth/{provider}",
        "GET /api/auth/{provider}/callback",
        "POST /api/auth/revoke",
        "GET /api/public",
    }


def test_roles_and_permissions_that_routes_ask_for_exist(routes):
    its = assemble(settings_for(), reach("redis://127.0.0.1:1"), cheap_passwords())
    permissions = set().union(*its.roles.table.values())
    its.passwords.close()

    for route in routes:
        match route.handler.access.who:
            case "role":
                assert set(route.handler.access.any_of) <= its.roles.table.keys()
            case "permission":
                assert set(route.handler.access.any_of) <= permissions
            case who:
                assert who in ("anyone", "user", "user or API key", "optional user")
