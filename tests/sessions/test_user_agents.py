"""User agents: kept in few letters, and given back as they came."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.sessions.user_agents import _PHRASES, restored, shortened

APPLE, KHTML = "AppleWebKit/605.1.15 (KHTML, like Gecko)", "AppleWebKit/537.36 (KHTML, like Gecko)"
BROWSERS = (
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KHTML} Chrome/120.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KHTML} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.0.0",
    f"Mozilla/5.0 (Linux; Android 10; K) {KHTML} Chrome/120.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {APPLE} Version/17.2 Safari/605.1.15",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) {APPLE} Version/17.2 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0",
)


@pytest.mark.parametrize("user_agent", BROWSERS)
def test_what_browsers_say_takes_a_third_at_most(user_agent):
    assert len(shortened(user_agent)) <= len(user_agent) / 3
    assert restored(shortened(user_agent)) == user_agent


@given(st.lists(st.sampled_from([*_PHRASES, *_PHRASES.values()]) | st.text(max_size=5)).map("".join))
@example("~M~~M")
@example("curl/8.5.0 ~ \n")
def test_every_user_agent_comes_back_as_it_was(user_agent):
    assert restored(shortened(user_agent)) == user_agent


def test_what_was_not_shortened_and_what_nobody_knows_stays():
    assert restored("curl/8.5.0") == "curl/8.5.0"
    assert restored("~?~") == "~?~"
