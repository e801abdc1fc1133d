"""What npm installs for a test, once for a folder and from its lock file."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import in_ci


def install(folder: Path) -> None:
    """`npm ci` in the folder, once; without Node the test is skipped, but not in CI."""
    if not (shutil.which("node") and shutil.which("npm")):
        _do_without("Node.js is not installed")
    lock, done = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with lock.open() as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
            return
        try:
            subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=100, check=True)
        except subprocess.SubprocessError as error:
            _do_without(f"npm ci failed: {error}; {(getattr(error, 'stderr', '') or '')[-500:]}")


def _do_without(reason: str) -> None:
    if in_ci():
        pytest.fail(reason)
    pytest.skip(reason)
