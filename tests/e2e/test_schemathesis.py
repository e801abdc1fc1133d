"""Schemathesis reads `/openapi.json` and asks what no test of ours has thought of: no 5xx, nothing unpublished.

Some 1,600 cases for each caller, the same ones each time. More: `CASES=60 SEED=7 make test ARGS="-k schemathesis"`.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from service.accounts.user import User
from service.settings import ROOT
from tests.conftest import PASSWORD, in_ci

# Tokens of mails, identities and right passwords cannot be made up, so that what is valid may well be refused.
EXCEPT = "positive_data_acceptance"


def schemathesis() -> str:
    found = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if found is None:
        (pytest.fail if in_ci() else pytest.skip)("needs schemathesis: make .venv/.e2e")
    return str(found)


@pytest.fixture
async def people(parts):
    """Two admins, as the last one could not be changed, and a user."""
    hashed = await parts.passwords.hash(PASSWORD)
    for name, roles in {"root": ("user", "admin"), "other": ("user", "admin"), "ada": ("user",)}.items():
        await parts.users.register(
            User(id="", email=f"{name}@example.org", password=hashed, roles=roles, email_verified=True)
        )


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
@pytest.mark.parametrize("caller", ["nobody", "a user", "an admin", "an admin's API key"])
async def test_whatever_is_asked_the_answer_is_a_published_one(caller, browser, parts, people, tmp_path):
    program, url = schemathesis(), str(browser.client.make_url("")).rstrip("/")
    who = {}
    match caller:
        case "a user":
            who = {"CALLER_EMAIL": "ada@example.org", "CALLER_PASSWORD": PASSWORD}
        case "an admin":
            who = {"CALLER_EMAIL": "root@example.org", "CALLER_PASSWORD": PASSWORD}
        case "an admin's API key":
            await browser.login("root@example.org")
            wanted = {"name": "schemathesis", "permissions": sorted(parts.roles.table["admin"])}
            who = {"CALLER_API_KEY": (await browser("POST", "/api/auth/api-keys", wanted)).json["apiKey"]}
    environment = {**os.environ, **who, "SERVICE_URL": url, "NO_PROXY": "*", "PYTHONPATH": str(ROOT)}
    # Two of them go through every value at the edge of what is allowed as well.
    phases = "examples,coverage,fuzzing" if caller in ("nobody", "an admin") else "examples,fuzzing"
    arguments = [
        *(
            "run",
            f"{url}/openapi.json",
            "--url",
            url,
            "--phases",
            phases,
            "--exclude-checks",
            EXCEPT,
        ),
        *("--max-examples", os.environ.get("CASES", "4"), "--seed", os.environ.get("SEED", "1")),
        *("--generation-database", "none", "--warnings", "off", "--no-color"),
    ]

    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=tmp_path,
        env={**environment, "SCHEMATHESIS_HOOKS": "tests.e2e.callers"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()

    assert process.returncode == 0, told.decode()[-10_000:]
    print(told.decode()[-300:])
