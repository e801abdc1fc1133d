"""config/redis-users.acl: the service may do all that it does, and nothing that it does not."""

import os
import re
import secrets
import subprocess
import sys

import pytest
import redis

from service.admin.administration import COMMAND_LINE
from tests.conftest import PASSWORD, in_ci

from .conftest import ROOT

on_redis = pytest.mark.parametrize("connecting", ["redis"], indirect=True)


def commands():
    """Every command in the source: the first word of a tuple that is sent, and what the Lua scripts call."""
    found = set()
    for path in (ROOT / "service").rglob("*.lua"):
        found |= set(re.findall(r"""redis\.p?call\(\s*["']([A-Za-z]+)["']""", path.read_text()))
    for path in (ROOT / "service").rglob("*.py"):
        found |= set(re.findall(r"""\(\s*"([A-Z]{3,})",""", path.read_text()))
        found |= set(re.findall(r"""glance\(\s*"([A-Z]+)\"""", path.read_text()))
    return {name.upper() for name in found}


def test_every_command_in_the_source_is_allowed(redis_server):
    """Asked of Redis itself, which knows its commands; words that are none do not matter."""
    needs_dry_runs(redis_server)
    arities = {name.upper(): abs(info["arity"]) for name, info in redis_server.cli("COMMAND").items()}
    known = commands() & arities.keys()
    refused = {
        name
        for name in known - WITH_SUBCOMMANDS
        if redis_server.cli("ACL", "DRYRUN", "gatepost", name, *["1"] * (arities[name] - 1)) != "OK"
    }

    assert {"EVALSHA", "HGETALL", "XADD", "GETDEL"} <= known
    assert not refused, f"config/redis-users.acl lacks {refused}"


WITH_SUBCOMMANDS = {"SCRIPT", "XGROUP", "CLIENT", "CLUSTER"}

ALLOWED = """
    SCRIPT LOAD x | XGROUP CREATE outbox post 0 | CLIENT SETNAME n | CLIENT TRACKING ON OPTIN | CLIENT CACHING YES
    CLUSTER SLOTS | CLUSTER SHARDS | READONLY
"""
FORBIDDEN = """
    FLUSHALL | FLUSHDB | KEYS * | CONFIG GET * | CONFIG SET appendonly no | SHUTDOWN | DEBUG SLEEP 1 | MONITOR
    ACL LIST | REPLICAOF h 1 | CLIENT KILL ID 1 | CLIENT LIST | MIGRATE h 1 k 0 1 | SAVE | BGSAVE | EVAL return 0
    SCRIPT FLUSH | SORT k | RENAME a b | SWAPDB 0 1 | PUBLISH c m | SUBSCRIBE c | CLUSTER RESET | FAILOVER
    DUMP k | XGROUP DESTROY k g
"""


def listed(text):
    return [command.split() for command in re.split(r"[|\n]", text) if command.strip()]


def needs_dry_runs(server):
    version = server.cli("INFO", "server")["redis_version"]
    if int(version.split(".")[0]) < 7:
        missing = f"needs Redis 7 or newer, which can say what it would refuse; this is {version}"
        pytest.fail(missing) if in_ci() else pytest.skip(missing)


def test_the_service_may_do_this_and_no_more(redis_server):
    needs_dry_runs(redis_server)
    allowed = {" ".join(each): redis_server.cli("ACL", "DRYRUN", "gatepost", *each) for each in listed(ALLOWED)}
    forbidden = {" ".join(each): redis_server.cli("ACL", "DRYRUN", "gatepost", *each) for each in listed(FORBIDDEN)}

    assert set(allowed.values()) == {"OK"}, allowed
    assert not [command for command, said in forbidden.items() if "no permissions" not in said]


def test_nobody_is_let_in_without_a_name(redis_server):
    with redis.Redis(port=redis_server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with (
        redis.Redis(port=redis_server.port, password=redis_server.password) as nameless,
        pytest.raises(redis.AuthenticationError),
    ):
        nameless.ping()


def test_no_password_is_on_the_command_line_or_readable_by_others(redis_server):
    kept = [redis_server.home / name for name in ("users.acl", "node.conf")]
    lines = subprocess.run(["ps", "-Awwo", "args"], capture_output=True, text=True, check=True, timeout=10).stdout

    assert redis_server.password not in lines
    assert redis_server.admin_password not in lines
    assert [oct(path.stat().st_mode & 0o777) for path in kept] == ["0o600", "0o600"]
    assert redis_server.password not in "".join(path.read_text() for path in kept)


# Before 7.2 the library may not tell its version to Redis, and goes on without.
CLIENT_NAMES = {"client", "client|setinfo"}


def refusals(server):
    return [(entry["object"] if isinstance(entry, dict) else entry[7]) for entry in server.cli("ACL", "LOG")]


@on_redis
async def test_a_life_from_sign_up_to_deletion_meets_no_refusal(redis_server, serving, assembling, mail):
    its = await assembling(GITHUB_CLIENT_ID="id", GITHUB_CLIENT_SECRET="secret", **mail.settings)
    ada, admin = await serving(its), await serving(its)
    statuses = []

    async def ask(browser, method, path, json=None, **kwargs):
        answer = await browser(method, path, json, **kwargs)
        statuses.append((f"{method} {path}", answer.status))
        return answer

    await ask(ada, "GET", "/ready")
    await ask(ada, "GET", "/api/auth/github", headers={"Accept": "application/json"})
    await ada.register()
    await ada.login(password=PASSWORD + "!")
    await ada.login()
    await ask(ada, "POST", "/api/auth/refresh")
    user = (await ask(ada, "GET", "/api/auth/me")).json["user"]["id"]
    await ask(ada, "PATCH", "/api/users/profile", {"firstName": "Ada"})
    await ask(ada, "POST", "/api/auth/email/resend")
    await ask(ada, "POST", "/api/auth/password/forgot", {"email": "ada@example.org"})
    key = (await ask(ada, "POST", "/api/auth/api-keys", {"name": "k", "permissions": [], "expiresIn": 60})).json
    await ask(ada, "GET", "/api/auth/verify", headers={"X-API-Key": key["apiKey"]})
    await ask(ada, "GET", "/api/auth/api-keys")
    await ask(ada, "DELETE", f"/api/auth/api-keys/{key['id']}")
    await ask(ada, "GET", "/api/auth/sessions")
    await ask(ada, "GET", "/api/auth/events")
    change = {"currentPassword": PASSWORD, "newPassword": PASSWORD + " 2"}
    await ask(ada, "POST", "/api/auth/password/change", change)

    await admin.register("root@example.org")
    root = (await ask(admin, "GET", "/api/auth/me")).json["user"]["id"]
    await its.administration.change(COMMAND_LINE, root, roles=["user", "admin"])
    await ask(admin, "POST", "/api/auth/refresh")
    for path in ("users", "users?role=admin", "users?email=ada@example.org", "stats", "audit", f"audit?userId={user}"):
        await ask(admin, "GET", f"/api/admin/{path}")
    for body in ({"roles": ["moderator"]}, {"active": False}, {"active": True}, {"emailVerified": True}):
        await ask(admin, "PATCH", f"/api/admin/users/{user}", body)
    await ask(admin, "POST", f"/api/admin/users/{user}/logout")
    await ask(admin, "DELETE", f"/api/admin/users/{user}")
    await ask(admin, "POST", "/api/auth/logout")
    await admin.login("root@example.org")
    await ask(admin, "POST", "/api/auth/logout-all")

    assert [line for line in statuses if line[1] >= 300] == []
    assert set(refusals(redis_server)) <= CLIENT_NAMES


def test_every_command_line_meets_no_refusal(redis_server, tmp_path):
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "ENVIRONMENT": "production",
        "AUTH_SECRET": secrets.token_urlsafe(48),
        "REDIS_URL": redis_server.url,
    }

    def run(*words, text=""):
        program = [sys.executable, "-m", "service", *words]
        done = subprocess.run(program, env=env, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr

    (tmp_path / "people.jsonl").write_text('{"email": "bob@example.org"}\n')
    run("create-admin", "root@example.org", text="a long and private sentence\n")
    run("import-users", "people.jsonl")
    run("keys", "rotate")
    run("keys", "list")
    for verb in ("show", "disable", "enable", "logout", "export"):
        run("user", verb, "bob@example.org")
    run("user", "roles", "bob@example.org", "user", "moderator")
    run("audit", "tail")
    run("repair")
    run("user", "delete", "bob@example.org", "--yes")

    assert set(refusals(redis_server)) <= CLIENT_NAMES
