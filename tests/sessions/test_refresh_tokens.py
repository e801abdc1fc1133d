"""Refresh tokens: one spelling each, and nothing that we did not write."""

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.accounts.user import User
from service.client import Client
from service.errors import InvalidRefreshToken, StoreUnavailable
from service.ids import id_text, new_id
from service.sessions.refresh_tokens import RefreshToken, RefreshTokens
from service.store import reach
from service.vault import Vault
from tests.conftest import SECRET

HERE = Client("192.0.2.7", "Firefox")
OLD_SECRET, NEW_SECRET = "the secret of last year 55e0c1d2", "the secret of this year 93bd17aa"
OURS = RefreshTokens(Vault([SECRET]))
TOKEN = RefreshToken(new_id(), new_id(), 7)
TEXT = OURS.write(TOKEN)
IDS = st.binary(min_size=16, max_size=16).map(id_text)


@settings(deadline=None, derandomize=True, database=None)
@given(user=IDS, session=IDS, generation=st.integers(0, 2**40 - 1))
def test_a_token_says_what_was_written(user, session, generation):
    token = RefreshToken(user, session, generation)

    text = OURS.write(token)

    assert OURS.read(text) == token
    assert text == OURS.write(token)
    assert text.startswith("rt_")
    assert len(text) == len("rt_") + 72


def test_every_generation_has_another_mac():
    macs = {OURS.write(RefreshToken(TOKEN.user_id, TOKEN.session_id, generation))[-21:] for generation in range(100)}

    assert len(macs) == 100


@pytest.mark.parametrize("place", range(len("rt_"), len(TEXT)))
def test_a_token_has_one_spelling(place):
    """There are no spare bits at the end: any other character anywhere is another token, and none of ours."""
    for sign in string.ascii_letters + string.digits + "-_":
        other = TEXT[:place] + sign + TEXT[place + 1 :]
        if other != TEXT:
            with pytest.raises(InvalidRefreshToken):
                OURS.read(other)


def another_version() -> str:
    """Authentic, but of a format that we do not know."""
    body = b"\x02" + base64.urlsafe_b64decode(TEXT[3:])[1:-16]
    return "rt_" + base64.urlsafe_b64encode(body + Vault([SECRET]).key("refresh-token").mac(body)[:16]).decode()


GARBAGE = {
    "nothing": "",
    "the prefix alone": "rt_",
    "no prefix": TEXT[3:],
    "another prefix": "RT_" + TEXT[3:],
    "another kind of secret": "gp_" + TEXT[3:],
    "zeros": "rt_" + "A" * 72,
    "cut by one": TEXT[:-1],
    "cut by four": TEXT[:-4],
    "one more": TEXT + "A",
    "four more": TEXT + "AAAA",
    "padded": TEXT + "==",
    "a space before": " " + TEXT,
    "a space behind": TEXT + " ",
    "a new line behind": TEXT + "\n",
    "a NUL behind": TEXT + "\0",
    "the alphabet of plain base64": TEXT[:-1] + "+",
    "percent-encoded": TEXT.replace("_", "%5F"),
    "not ASCII": "rt_" + "é" * 72,
    "digits of another script": "rt_" + "\u0663" * 72,
    "full-width letters": "rt_" + TEXT[3:-1] + "\uff21",
    "a lone surrogate": "rt_" + "\udcff" * 72,
    "ten kilobytes": "rt_" + "A" * 10_240,
    "a JWT": "eyJhbGciOiJub25lIn0.e30.",
    "another version": another_version(),
    "another secret": RefreshTokens(Vault([NEW_SECRET])).write(TOKEN),
    "another purpose": "rt_"
    + base64.urlsafe_b64encode(
        (body := base64.urlsafe_b64decode(TEXT[3:])[:-16]) + Vault([SECRET]).key("csrf").mac(body)[:16]
    ).decode(),
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_we_did_not_write_is_refused(text):
    with pytest.raises(InvalidRefreshToken):
        OURS.read(text)


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_garbage_is_refused_without_asking_redis(assembling, own_redis):
    its = await assembling(reach(own_redis.url))
    own_redis.kill()

    for text in GARBAGE.values():
        with pytest.raises(InvalidRefreshToken):
            await its.signin.renew(its.refresh_tokens.read(text), HERE)
    with pytest.raises(StoreUnavailable):
        await its.signin.renew(its.refresh_tokens.read(TEXT), HERE)


async def test_a_new_secret_takes_the_tokens_of_the_previous_one_and_writes_its_own(assembling):
    before = await assembling(AUTH_SECRET=OLD_SECRET)
    user = await before.users.register(User(id="", email="ada@example.org"))
    old = (await before.signin.begin(user, ("pwd",), HERE)).refresh_token
    after = await assembling(AUTH_SECRET=NEW_SECRET, AUTH_SECRET_PREVIOUS=OLD_SECRET)

    successor = (await after.signin.renew(after.refresh_tokens.read(old), HERE)).refresh_token

    assert RefreshTokens(Vault([NEW_SECRET])).read(successor).generation == 1
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens(Vault([OLD_SECRET])).read(successor)


def test_without_the_previous_secret_its_tokens_are_refused():
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens(Vault([NEW_SECRET])).read(TEXT)
