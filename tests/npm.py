"""What npm installs for a test, once for a folder and from its lock file."""

import contextlib
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import in_ci

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "js"


def install(folder: Path) -> None:
    """`npm ci` in the folder, once; without Node the test is skipped, but not in CI."""
    if not (shutil.which("node") and shutil.which("npm")):
        _do_without("Node.js is not installed")
    with _alone(folder):
        lock, done = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
        if not (done.exists() and done.stat().st_mtime >= lock.stat().st_mtime):
            _npm(folder, "ci")


def built_client() -> Path:
    """The modules of `gatepost-client`, built once from what is there."""
    install(CLIENT)
    with _alone(CLIENT):
        built = CLIENT / "dist" / "index.js"
        sources = [*(CLIENT / "src").iterdir(), CLIENT / "tsconfig.build.json"]
        if not (built.exists() and built.stat().st_mtime >= max(each.stat().st_mtime for each in sources)):
            _npm(CLIENT, "run", "build")
    return CLIENT / "dist"


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
