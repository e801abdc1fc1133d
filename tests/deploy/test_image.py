"""The Dockerfile and .dockerignore, read line by line: no Docker is needed to know what they promise."""

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from aiohttp import web

from tests.conftest import free_port

from .conftest import ROOT


def instructions():
    """Each instruction of the Dockerfile, comments dropped and continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            yield word, rest


def final_stage():
    """The instructions after the last FROM: what the image is, once built."""
    everything = list(instructions())
    last = max(number for number, (word, _) in enumerate(everything) if word == "FROM")
    return everything[last:]


def only(word, within):
    (rest,) = [rest for name, rest in within if name == word]
    return rest


def copied():
    """What COPY takes from the checkout, each source by itself."""
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            yield from rest.split()[:-1]


def test_every_stage_starts_from_the_same_small_python():
    """Which a build argument may name by digest, for both at once."""
    assert [rest for word, rest in instructions() if word == "ARG"] == [
        "PYTHON_IMAGE=python:3.13-slim",
        "LOCK=run",
        "LOCK",
    ]
    assert [rest.split()[0] for word, rest in instructions() if word == "FROM"] == ["${PYTHON_IMAGE}"] * 2


def test_packages_are_installed_from_the_lock_by_hash_and_nothing_else():
    (install,) = [rest for word, rest in instructions() if word == "RUN" and " install " in rest]

    assert {"--require-hashes", "--no-deps", "-r"} <= set(install.split())
    assert install.endswith("-r /build/${LOCK}.lock")
    assert {"requirements/run.lock", "requirements/otel.lock"} <= set(copied())


@pytest.mark.parametrize("name", ["run", "otel"])
def test_every_package_of_the_lock_has_a_hash(name):
    lock = (ROOT / f"requirements/{name}.lock").read_text().replace("\\\n", " ")
    unhashed = [line for line in lock.splitlines() if re.match(r"[\w.-]+==", line) and "--hash=sha256:" not in line]

    assert not unhashed


def test_with_opentelemetry_the_image_has_the_same_packages_and_more():
    run, otel = (
        set(re.findall(r"^[\w.-]+==\S+", (ROOT / f"requirements/{name}.lock").read_text(), re.M))
        for name in ("run", "otel")
    )

    assert run < otel


def test_nothing_runs_as_root():
    stage = final_stage()
    words = [word for word, _ in stage]
    user, group = only("USER", stage).split(":")

    assert int(user) > 0
    assert int(group) > 0
    assert words.index("USER") < words.index("CMD")
    assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])


def test_the_service_is_process_one_and_gets_the_signal():
    stage = final_stage()

    assert json.loads(only("CMD", stage)) == ["python", "-m", "service"]
    assert only("STOPSIGNAL", stage) == "SIGTERM"
    assert "ENTRYPOINT" not in [word for word, _ in stage]


def test_the_image_is_set_up_for_production():
    settings = dict(pair.split("=", 1) for pair in only("ENV", final_stage()).split())

    assert settings["ENVIRONMENT"] == "production"
    assert settings["PORT"] == only("EXPOSE", final_stage()) == "8000"
    assert not [name for name in settings if "SECRET" in name or "PASSWORD" in name]


def test_what_is_copied_is_there():
    assert {"service", "config", "requirements/run.lock", "requirements/otel.lock"} == set(copied())
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def compiled(home):
    """The service as the image has it, made with the command of the Dockerfile and this Python."""
    (command,) = [rest for word, rest in instructions() if word == "RUN" and "compileall" in rest]
    shutil.copytree(ROOT / "service", home / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "config", home / "config", ignore=shutil.ignore_patterns(*ignored_config()))
    assert command.endswith(" /opt/venv/lib /app/service")
    command = command.replace("python ", f"{sys.executable} ", 1).replace(" /opt/venv/lib /app/service", " service")
    subprocess.run(command, shell=True, cwd=home, check=True, timeout=60)
    return {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def ignored_config():
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    return [rule.removeprefix("config/") for rule in rules if rule.startswith("config/")]


def test_the_same_source_compiles_to_the_same_bytes_whatever_its_date(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    made = compiled(first)
    for path in (first / "service").rglob("*.py"):
        os.utime(path, (1, 1))
    shutil.rmtree(first)
    again = compiled(second)

    # The path of the source is in a compiled file, and is /app/service in every image.
    assert again.keys() == made.keys()
    assert [path for path in made if made[path] != again[path]] == []
    assert any(path.suffix == ".pyc" for path in made)


def test_the_service_needs_no_more_of_the_checkout_than_the_image_has(tmp_path, redis_server):
    """And writes nothing there, with a home that does not exist."""
    files = compiled(tmp_path)
    env = dict(pair.split("=", 1) for pair in only("ENV", final_stage()).split())
    env |= {"PATH": os.environ["PATH"], "AUTH_SECRET": secrets.token_urlsafe(48), "REDIS_URL": redis_server.url}
    made = subprocess.run(
        [sys.executable, "-m", "service", "create-admin", "root@example.org"],
        cwd=tmp_path,
        env=env,
        input="a long and private sentence\n",
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert made.returncode == 0, made.stdout + made.stderr
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == set(files)


def test_nothing_but_what_is_copied_reaches_the_builder():
    """So that neither .env nor the secret under var/ can end up in a layer."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    assert any(fnmatch("service/.env", rule) for rule in rules[1:] if not rule.startswith("!"))


def check_health(port, **env):
    """Run the health check of the image exactly as it stands there, with this Python; its exit code."""
    command = json.loads(re.search(r"CMD (\[.*\])", only("HEALTHCHECK", final_stage()))[1])
    return subprocess.run(
        [sys.executable, *command[1:]], env=os.environ | {"PORT": str(port)} | env, capture_output=True, timeout=20
    ).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
async def test_health_is_what_the_service_says(backend, status, healthy):
    server = await backend()
    server.answer = lambda _: web.Response(status=status)
    code = await asyncio.to_thread(check_health, server.port, http_proxy="http://127.0.0.1:9", no_proxy="")

    assert [request.target for request in server.seen] == ["/health"]
    assert (code == 0) is healthy


def test_a_service_that_does_not_listen_is_not_healthy():
    assert check_health(free_port()) != 0
