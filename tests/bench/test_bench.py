"""The measurements run: with numbers too small to tell anything, but on the real parts."""

import json
import subprocess
import sys

import pytest

from service.settings import ROOT

pytestmark = pytest.mark.timeout(240)


def figures(*arguments: str) -> dict[str, dict[str, dict[str, float]]]:
    """What a measurement writes, from a process of its own as by hand."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("created", ["any", "one"])
def test_accounts_are_imported_and_all_of_them_listed(created):
    importing, listing = figures("bench.accounts", "--users", "250", "--created", created).values()

    assert importing["import-users"]["users/s"] > 0
    assert importing["import-users"]["ratio"] > 0
    assert importing["import-users"]["Redis bytes/user"] > 0
    assert listing["all users"]["pages"] == 3
    assert listing["all users"]["p50 ms"] <= listing["all users"]["p95 ms"] <= listing["all users"]["longest ms"]


def test_everything_that_is_kept_is_weighed_under_both_configurations():
    ours, defaults = figures("bench.memory", "--users", "60").values()

    assert ours.keys() == defaults.keys()
    assert len(ours) >= 15
    assert all(row["key"] > 0 for row in ours.values() if "key" in row)
    assert ours["an account"]["key"] < defaults["an account"]["key"]
