"""`make demo`, as far as node goes: the service and the demo start and end together, or it is said why not."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import NAMES, ROOT
from tests.conftest import SECRET, free_port

Starting = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def making(dist: Path, own_redis, tmp_path) -> Iterator[Starting]:
    """Starts both: `making(PORT="8001")`. What they say is one text."""
    node = shutil.which("node")
    assert node
    started: list[subprocess.Popen[str]] = []

    def start(**changes: str) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if name not in NAMES}
        environ |= {"PORT": str(free_port()), "DEMO_PORT": str(free_port()), "AUTH_SECRET": SECRET}
        environ |= {"REDIS_URL": own_redis.url, "PYTHONPATH": str(ROOT), **changes}
        started.append(
            subprocess.Popen(
                [node, str(ROOT / "clients" / "demo" / "start.js"), sys.executable],
                cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        with process:
            process.terminate()


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield str(door.getsockname()[1])


def test_both_start_and_end_together(making):
    ports = str(free_port()), str(free_port())
    began = making(PORT=ports[0], DEMO_PORT=ports[1])
    until = time.monotonic() + 60
    said = ""
    while f"The demo is ready at http://localhost:{ports[1]}" not in said:
        assert time.monotonic() < until, said
        line = began.stdout.readline()
        assert line, said
        said += line

    for url in (f"http://localhost:{ports[1]}/", f"http://localhost:{ports[0]}/health"):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            assert answer.status == 200
    began.send_signal(signal.SIGINT)
    assert began.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(ports[0])), timeout=5)


@pytest.mark.parametrize("name", ["PORT", "DEMO_PORT"])
def test_a_port_of_somebody_else_is_said_and_nothing_called_ready(making, taken, name):
    said, _ = (began := making(**{name: taken})).communicate(timeout=60)

    assert began.returncode == 1
    assert said == (f"The demo did not start: Port {taken} is already in use. Try: make demo {name}={int(taken) + 1}\n")


@pytest.mark.parametrize(("name", "port"), [("DEMO_PORT", "five"), ("PORT", "70000")])
def test_a_port_that_is_none_is_said(making, name, port):
    said, _ = (began := making(**{name: port})).communicate(timeout=60)

    assert began.returncode == 1
    assert f"{name} must be a number from 1 to 65535" in said
