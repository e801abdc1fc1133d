"""`python -m service user …`, `audit tail` and `repair`, as an operator or a script calls them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from service.accounts.user import User
from service.settings import ROOT
from tests.conftest import PASSWORD, SECRET


@pytest.fixture
def connecting(connecting_for_real):
    """Other processes look at this Redis too."""
    return connecting_for_real


@pytest.fixture
def command(redis_server, tmp_path):
    """Runs a command to its end: `command("user", "show", "ada@example.org")`."""
    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REDIS_URL": redis_server.url, "AUTH_SECRET": SECRET,
    }  # fmt: skip

    def run(*arguments: str, said: str = "", background: bool = False):
        called = [sys.executable, "-m", "service", *arguments]
        if background:
            return subprocess.Popen(called, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
        return subprocess.run(called, cwd=tmp_path, env=environ, input=said, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
async def ada(browser):
    return (await browser.register()).json["user"]["id"]


async def test_an_account_is_shown_by_email_and_by_id(browser, command, ada):
    by_email = command("user", "show", "Ada@Example.org", "--json")
    by_id = command("user", "show", ada)

    shown = json.loads(by_email.stdout)
    assert (by_email.returncode, by_id.returncode) == (0, 0)
    assert (shown["id"], shown["email"], shown["roles"], len(shown["sessions"])) == (
        ada,
        "ada@example.org",
        ["user"],
        1,
    )
    assert "ada@example.org" in by_id.stdout
    assert "argon2" not in by_email.stdout + by_id.stdout


async def test_an_account_is_disabled_and_enabled(browser, command, ada):
    assert command("user", "disable", "ada@example.org").stdout == "ada@example.org is disabled now.\n"
    assert (await browser("GET", "/api/auth/me")).code == "TOKEN_REVOKED"
    assert (await browser.login()).code == "ACCOUNT_DISABLED"

    assert json.loads(command("user", "enable", ada, "--json").stdout) == {"active": True}
    assert (await browser.login()).status == 200


async def test_roles_are_printed_and_set(browser, command, ada):
    assert command("user", "roles", ada).stdout == "user\n"
    assert command("user", "roles", ada, "user", "moderator").stdout == "user moderator\n"
    assert (await browser("GET", "/api/auth/me")).code == "TOKEN_STALE"

    refused = command("user", "roles", ada, "king")
    assert refused.returncode == 1
    assert "king" in refused.stderr


async def test_somebody_is_signed_out(browser, command, ada):
    assert json.loads(command("user", "logout", ada, "--json").stdout) == {"ended": 1}
    assert (await browser("GET", "/api/auth/me")).code == "TOKEN_REVOKED"


async def test_an_account_is_deleted_only_when_that_is_said(browser, command, ada, parts):
    refused = command("user", "delete", ada)
    assert (refused.returncode, await parts.users.find(ada) is None) == (1, False)
    assert "--yes" in refused.stderr

    assert command("user", "delete", ada, "--yes").returncode == 0
    assert await parts.users.find(ada) is None
    assert command("user", "delete", ada, "--yes").returncode == 1


async def test_an_export_has_everything_and_no_hash(browser, command, ada, parts):
    key = (await browser("POST", "/api/auth/api-keys", {"name": "backup", "permissions": []})).json
    await parts.users.change(ada, new="ada@new.example")
    exported = command("user", "export", ada)

    content = json.loads(exported.stdout)
    assert content["email"] == "ada@example.org"
    assert {event["type"] for event in content["events"]} >= {"accounts.user.registered", "admin.user.exported"}
    assert "$argon2" not in exported.stdout
    assert [(held["id"], held["name"]) for held in content["apiKeys"]] == [(key["id"], "backup")]
    assert key["apiKey"] not in exported.stdout
    assert content["newEmail"] == "ada@new.example"


async def test_the_last_admin_stays_on_the_command_line_too(command):
    assert command("create-admin", "root@example.org", said=PASSWORD + "\n").returncode == 0

    for arguments in (("roles", "root@example.org", "user"), ("disable", "root@example.org")):
        refused = command("user", *arguments)
        assert refused.returncode == 1
        assert "last admin" in refused.stderr
    assert command("user", "delete", "root@example.org", "--yes").returncode == 1


def test_who_is_not_there_is_said(command):
    for who in ("nobody@example.org", "x" * 22, "not an email@", "*"):
        ended = command("user", "show", who)
        assert ended.returncode == 1
        assert ended.stderr
    assert command("user", "show").returncode == 2
    assert command("user").returncode == 2


async def test_each_act_is_in_the_trail_as_of_the_command_line(command, ada):
    command("user", "disable", ada)
    command("user", "enable", ada)

    tailed = [json.loads(line) for line in command("audit", "tail", "--user", ada, "--json").stdout.splitlines()]

    acts = [event["type"] for event in tailed if event["detail"].get("by") == "command line"]
    assert acts == ["admin.user.disabled", "admin.user.enabled"]
    readable = command("audit", "tail", "-n", "1").stdout
    assert "admin.user.enabled" in readable
    assert len(readable.splitlines()) == 1


async def test_a_trail_is_followed(browser, command, ada):
    following = command("audit", "tail", "-n", "1", "-f", background=True)
    assert "sessions.session.started" in following.stdout.readline()
    await browser("POST", "/api/auth/logout")

    assert "sessions.session.ended" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    assert following.wait(20) == 130
    following.stdout.close()


async def test_parked_mail_is_shown_retried_and_dropped(command, parts):
    ada = (await parts.users.register(User(id="", email="ada@example.org"))).id
    assert command("mail", "parked").stdout == "No mail is parked.\n"
    for reason in ("first", "second", "third"):
        await parts.outbox.put("email-taken", user=ada, email="b***@example.org")
        for errand in await parts.outbox.take(9):
            await parts.outbox.failed(errand, reason, for_good=True)

    listed = command("mail", "parked", "--json")
    third, second, first = [mail["id"] for mail in json.loads(listed.stdout)["parked"]]
    dropped = command("mail", "drop", first, "--json")
    retried = command("mail", "retry", second)
    missing = command("mail", "retry", first, "nonsense", "--json")
    everything = command("mail", "retry", "--all", "--json")

    assert '"recipient": "a***@example.org"' in listed.stdout
    assert "ada@" not in listed.stdout + command("mail", "parked").stdout
    assert json.loads(dropped.stdout) == {"dropped": 1, "missing": []}
    assert (retried.returncode, retried.stdout) == (0, "1 to be tried again by the running instances.\n")
    assert (missing.returncode, json.loads(missing.stdout)["missing"]) == (1, [first, "nonsense"])
    assert json.loads(everything.stdout) == {"retried": 2, "missing": []}
    assert {errand.parked_as for errand in await parts.outbox.take(9)} == {second, third}
    assert command("mail", "retry").returncode == 2
    assert command("mail", "retry", first, "--all").returncode == 2


async def test_a_reader_who_has_seen_enough_ends_a_command_without_a_word(command, ada):
    tail = command("audit", "tail", "-f", background=True)
    tail.stdout.readline()
    tail.stdout.close()
    command("user", "logout", "ada@example.org")

    assert tail.wait(60) == 128 + signal.SIGPIPE  # a traceback would end it with 1


async def test_repair_says_by_its_exit_code_what_it_found(command, ada, redis_server):
    assert command("repair").returncode == 0
    redis_server.cli("DEL", "index:users")

    dry = command("repair", "--dry-run", "--json")
    mended = command("repair")
    clean = command("repair", "--json")

    assert (dry.returncode, mended.returncode, clean.returncode) == (1, 1, 0)
    assert json.loads(dry.stdout.splitlines()[-1])["sum"] == {"unindexed": 1}
    assert ada in mended.stdout
    assert json.loads(clean.stdout) == {"users": 1, "sum": {}, "mended": False}
