"""The clock: Redis' time, whatever becomes of this machine's between two answers."""

import time

import pytest

from service import clock
from service.clock import Clock, running


def test_the_time_goes_on_while_the_machine_is_suspended(monkeypatch):
    """Its monotonic clock stands still then, on Linux."""
    its = Clock()
    its.anchor(1000.0)

    monkeypatch.setattr(clock, "running", lambda: running() + 3600)

    assert its.now() == pytest.approx(4600.0, abs=60)


def test_a_step_of_the_local_clock_is_not_noticed(monkeypatch):
    its = Clock()
    its.anchor(1000.0)

    monkeypatch.setattr(time, "time", lambda: 9e9)

    assert its.now() == pytest.approx(1000.0, abs=60)
