"""The table of limits: the operator's file, the changes of RATE_LIMITS, and what is refused."""

from datetime import timedelta

import pytest

from service.limits import policies
from service.settings import SettingsError, load
from tests.conftest import SECRET, settings_for

# What the design promises, by name: calls, window.
PROMISED = {
    "login": (5, timedelta(minutes=15)),
    "login-address": (100, timedelta(minutes=15)),
    "login-account": (100, timedelta(hours=1)),
    "register": (10, timedelta(hours=1)),
    "refresh": (600, timedelta(minutes=1)),
    "forgot": (10, timedelta(hours=1)),
    "verify-email": (30, timedelta(minutes=15)),
}


def test_the_table_is_what_the_design_promises():
    table = policies.load(settings_for(RATE_LIMITS=""))

    assert {name: (policy.calls, policy.window) for name, policy in table.items()}.items() >= PROMISED.items()


def test_rate_limits_changes_single_lines():
    table = policies.load(settings_for(RATE_LIMITS="login=10/5m"))

    assert (table["login"].calls, table["login"].window) == (10, timedelta(minutes=5))
    assert table["register"].calls == 10


def test_a_name_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match=r"logni.*there are only .*login-account"):
        policies.load(settings_for(RATE_LIMITS="logni=10/5m"))


@pytest.mark.parametrize("word", ["login", "login=5", "login=0/15m", "login=5/0", "login=5/soon", "login=-5/15m"])
def test_a_limit_that_is_none_is_refused(word):
    with pytest.raises(SettingsError, match="RATE_LIMITS must list limits such as login=5/15m"):
        load({"AUTH_SECRET": SECRET, "RATE_LIMITS": word})


@pytest.mark.parametrize(
    "text",
    ["", "login = 5", 'login = { calls = "many", window = "15m" }', 'login = { calls = 5, window = "soon" }', "{{{"],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text):
    (tmp_path / "rate-limits.toml").write_text(text)

    with pytest.raises(SettingsError, match=r"rate-limits\.toml"):
        policies.load(settings_for(RATE_LIMITS=""), tmp_path / "rate-limits.toml")
