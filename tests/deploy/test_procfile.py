"""The Procfile, started as a platform would: a command, PORT, and nothing else than settings."""

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import free_port

from .conftest import ROOT, running


def command():
    (line,) = (ROOT / "Procfile").read_text().splitlines()
    kind, _, rest = line.partition(":")
    assert kind == "web"
    return shlex.split(rest)


def test_the_procfile_starts_the_service_with_the_python_on_the_path():
    assert command() == ["python", "-m", "service"]


@pytest.fixture
def checkout():
    """A copy of what is deployed, so that neither an .env nor a var/ of this checkout has a say."""
    with tempfile.TemporaryDirectory(prefix="deployed-") as home:
        for folder in ("service", "config"):
            shutil.copytree(ROOT / folder, Path(home, folder), ignore=shutil.ignore_patterns("__pycache__"))
        yield Path(home)


async def until_ready(url, log, client):
    deadline = time.monotonic() + 60
    while True:
        async with client.get(f"{url}/ready") as answer:
            if answer.status == 200:
                return
        assert time.monotonic() < deadline, log.read_text()
        await asyncio.sleep(0.05)


async def test_the_service_starts_in_production_and_leaves_in_peace(checkout, redis_server, client):
    port, log = free_port(), checkout / "log"
    env = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "ENVIRONMENT": "production",
        "AUTH_SECRET": secrets.token_urlsafe(48),
        "REDIS_URL": redis_server.url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DRAIN_SECONDS": "1",
    }

    with running(command(), port, log, cwd=checkout, env=env) as process:
        await until_ready(f"http://127.0.0.1:{port}", log, client)
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 60)

    assert code == 0, log.read_text()
    assert not (checkout / "var").exists(), "an instance holds no state"
    assert redis_server.password not in log.read_text()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(f"http://127.0.0.1:{port}/health")


def test_production_without_its_settings_does_not_start_and_says_why(checkout):
    env = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])), "ENVIRONMENT": "production"}

    ended = subprocess.run(command(), cwd=checkout, env=env, capture_output=True, text=True, timeout=20)

    assert ended.returncode != 0
    assert "AUTH_SECRET" in ended.stdout + ended.stderr
    assert "REDIS_URL" in ended.stdout + ended.stderr
