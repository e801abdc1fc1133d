"""What npm installs for a test, once for a folder and from its lock file."""

import contextlib
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import ROOT
from tests.conftest import in_ci


def install(folder: Path) -> None:
    """`npm ci` in the folder, once; without Node the test is skipped, but not in CI."""
    if not (shutil.which("node") and shutil.which("npm")):
        _do_without("Node.js is not installed")
    with _alone(folder):
        lock, done = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
        if not (done.exists() and done.stat().st_mtime >= lock.stat().st_mtime):
            _npm(folder, "ci")


def built_client() -> Path:
    """The modules of `gatepost-client`, as `make` builds them."""
    return _made("js")


def built_demo() -> Path:
    """The demo, as `make` builds it."""
    return _made("demo")


def _made(client: str) -> Path:
    folder = ROOT / "clients" / client
    if missing := [tool for tool in ("make", "node", "npm") if not shutil.which(tool)]:
        _do_without(f"needs {', '.join(missing)}")
    with _alone(ROOT / "clients" / "js"):  # the demo is built with the library
        installed = _make("clients/js/node_modules/.done", f"clients/{client}/node_modules/.done")
        if installed.returncode:
            _do_without(f"npm ci failed: {installed.stderr[-500:]}")
        built = _make(f"clients/{client}/dist/.done")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "dist"


def _make(*targets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *targets], cwd=ROOT, capture_output=True, text=True, timeout=140, check=False)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One test process at a time."""
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _npm(folder: Path, *command: str) -> None:
    try:
        subprocess.run(["npm", *command], cwd=folder, capture_output=True, text=True, timeout=100, check=True)
    except subprocess.SubprocessError as error:
        told = f"{getattr(error, 'stdout', '') or ''}{getattr(error, 'stderr', '') or ''}"
        _do_without(f"npm {' '.join(command)} failed: {error}; {told[-500:]}")


def _do_without(reason: str) -> None:
    if in_ci():
        pytest.fail(reason)
    pytest.skip(reason)
