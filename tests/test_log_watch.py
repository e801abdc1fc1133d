"""The watch over the log hears what it is there for; every other test relies on that."""

import logging

import pytest
import structlog

from tests.conftest import PASSWORD
from tests.log_watch import WATCH, overheard

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
SECRETS = [
    JWT,
    "rt_" + 72 * "a",
    "ak_" + 43 * "a",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA",
    "-----BEGIN PRIVATE KEY-----",
    "ada@example.org",
    "somebody.else+tag@mail.example.org",
]


@pytest.fixture
def heard():
    """What the watch complains about here; it is told no more of it when the test ends."""
    yield WATCH.complaints
    WATCH.begin()


@pytest.mark.parametrize("secret", SECRETS)
def test_what_a_secret_looks_like_is_heard_wherever_it_stands(heard, secret):
    structlog.get_logger().info("told", nested={"deep": [f"before {secret} after"]})

    assert len(heard()) == 1


def test_what_a_request_carried_is_heard_whatever_it_looks_like(heard):
    WATCH.hide_in({"user": {"items": [{"password": PASSWORD}]}})
    WATCH.hide_of_url("https://provider.example.org/?code=a-code-of-a-provider&x=1#token=a-token-of-a-mail")

    for secret in (PASSWORD, "a-code-of-a-provider", "a-token-of-a-mail"):
        structlog.get_logger().info(f"told {secret}")

    assert len(heard()) == 3


def test_a_trace_is_heard(heard):
    try:
        int(JWT)
    except ValueError:
        structlog.get_logger().exception("told")

    assert "ValueError" in heard()[0]


def test_libraries_are_heard(heard):
    logging.getLogger("some.library").warning("told %s", JWT)

    assert len(heard()) == 1


def test_a_security_event_that_a_request_tells_twice_is_heard(heard):
    for _ in range(2):
        structlog.get_logger().info("sessions.session.started", request_id="one", user_id="ada")
    structlog.get_logger().info("sessions.session.started", request_id="two", user_id="ada")

    assert len(heard()) == 1


def test_what_another_process_writes_is_heard_once(heard, tmp_path):
    output = tmp_path / "output"
    WATCH.follow(output)
    output.write_text("nothing yet\n")

    before = heard()
    with output.open("a") as file:
        file.write(f"told {JWT}\n")

    assert (before, len(heard()), heard()) == ([], 1, [])


def test_a_masked_email_is_none():
    assert overheard('{"to": "a***@example.org"}\n{"mail_from": "Gatepost <g***@example.org>"}') == []
