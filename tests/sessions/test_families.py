"""Families: what becomes of a session, decided in one step inside Redis."""

import pytest

from service.client import Client
from service.errors import RefreshTokenReused, SessionEnded
from service.sessions.families import EndReason, Family, Overtaken
from service.sessions.refresh_tokens import RefreshToken
from service.sessions.rule import Verdict

HERE = Client("192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
ADA = "AdaAdaAdaAdaAdaAdaAdaA"


@pytest.fixture
def families(parts):
    return parts.families


async def start(families, user_id=ADA, epoch=0) -> Family:
    return await families.start(user_id, epoch, ("pwd",), HERE)


async def rotate(families, token: RefreshToken) -> Family:
    family, _ = await families.rotate(token)
    return family


async def test_a_rotation_gives_the_next_generation(families):
    first = await start(families)

    second = await rotate(families, first.token)

    assert second.verdict is Verdict.ROTATED
    assert second.token.generation == first.token.generation + 1
    assert (second.token.user_id, second.token.session_id) == (ADA, first.token.session_id)


async def test_a_replayed_token_ends_the_session(families, later):
    stolen = (await start(families)).token
    current = (await rotate(families, stolen)).token
    await later("11s")
    await rotate(families, current)

    with pytest.raises(RefreshTokenReused):
        await rotate(families, stolen)
    with pytest.raises(SessionEnded) as ended:
        await rotate(families, current)
    assert ended.value.members["reason"] == EndReason.REUSE


async def test_a_session_is_not_opened_for_an_account_that_changed_meanwhile(families):
    await start(families)
    await families.end_all(ADA, EndReason.PASSWORD_CHANGED, account_changed=True)

    with pytest.raises(Overtaken):
        await start(families, epoch=0)
