"""Requirement 19: one-time tokens are for one thing, once, for a while, and only the latest counts."""

import asyncio
from dataclasses import replace

import pytest

from service.accounts.once import NONE_LEFT, Purpose
from service.accounts.user import Identity, User
from service.errors import InvalidOneTimeToken
from service.store.node import Node
from tests.conftest import all_that_is_in, gather

EMAIL = ("email", "ada@example.org")
ADA = User(id="", email=EMAIL[1], password="$argon2id$old")


@pytest.fixture
async def ada(parts):
    return await parts.users.register(ADA)


@pytest.fixture
def once(parts):
    return parts.once


async def take(once, text: str, purpose: Purpose, **fields) -> None:
    await once.redeem(await once.find(text, purpose), fields or {"ok": "1"})


async def is_dead(once, text: str, *purposes: Purpose) -> bool:
    with pytest.raises(InvalidOneTimeToken):
        await once.find(text, *(purposes or tuple(Purpose)))
    return True


async def test_a_token_is_taken_once(once, ada, parts):
    text = await once.issue(Purpose.VERIFY, ada.id, EMAIL)

    await take(once, text, Purpose.VERIFY)

    assert (await parts.users.find(ada.id)).email_verified
    assert await is_dead(once, text)


async def test_of_fifty_uses_at_once_over_two_instances_one_succeeds(assembling):
    one, other = await assembling(), await assembling()
    ada = await one.users.register(ADA)
    text = await one.once.issue(Purpose.RESET, ada.id, EMAIL)
    found = [await (one, other)[turn % 2].once.find(text, Purpose.RESET) for turn in range(50)]

    results = await gather(
        *((one, other)[turn % 2].once.redeem(found[turn], {"pw": f"$argon2id${turn}"}) for turn in range(50))
    )

    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, InvalidOneTimeToken) for result in results) == 49
    assert (await one.users.find(ada.id)).password == f"$argon2id${results.index(None)}"


async def test_a_token_is_random_and_only_its_digest_is_kept(once, ada, redis):
    texts = {await once.issue(Purpose.RESET, ada.id, EMAIL) for _ in range(20)}

    kept = str(await all_that_is_in(redis))

    assert len(texts) == 20
    assert all(len(text) == len("ot_") + 32 and text.startswith("ot_") for text in texts)  # 192 bits
    assert not any(text in kept or text.removeprefix("ot_") in kept for text in texts)


async def test_a_newer_token_of_the_type_ends_the_older_and_no_other(once, ada):
    other = await once.issue(Purpose.VERIFY, ada.id, EMAIL)
    older = await once.issue(Purpose.RESET, ada.id, EMAIL)

    newer = await once.issue(Purpose.RESET, ada.id, EMAIL)

    assert await is_dead(once, older)
    assert (await once.find(newer, Purpose.RESET)).user_id == ada.id
    assert (await once.find(other, Purpose.VERIFY)).user_id == ada.id


@pytest.mark.parametrize("purpose", Purpose)
async def test_a_token_is_worth_nothing_for_anything_else(once, ada, purpose):
    text = await once.issue(purpose, ada.id, EMAIL)

    for other in set(Purpose) - {purpose}:
        assert await is_dead(once, text, other)
    assert (await once.find(text, *Purpose)).purpose is purpose


async def test_a_token_expires(assembling, later):
    its = await assembling(ONE_TIME_TOKEN_EXPIRY="10m")
    ada = await its.users.register(ADA)
    text = await its.once.issue(Purpose.RESET, ada.id, EMAIL)
    await later("9m")
    await its.once.find(text, Purpose.RESET)

    await later("2m")

    assert await is_dead(its.once, text)


async def test_a_new_password_or_email_ends_every_token(once, ada, parts):
    for fields in ({"pw": "$argon2id$new"}, {"email": "ada@example.org"}):
        texts = [await once.issue(purpose, ada.id, EMAIL) for purpose in Purpose]

        await parts.users.change(ada.id, **NONE_LEFT, **fields)

        for text in texts:
            assert await is_dead(once, text)


async def test_a_token_that_was_found_in_time_and_ended_since_is_not_taken(once, ada, parts):
    found = await once.find(await once.issue(Purpose.RESET, ada.id, EMAIL), Purpose.RESET)
    await parts.users.change(ada.id, pw="$argon2id$new", **NONE_LEFT)

    with pytest.raises(InvalidOneTimeToken):
        await once.redeem(found, {"pw": "$argon2id$stolen"})
    assert (await parts.users.find(ada.id)).password == "$argon2id$new"


async def test_no_token_goes_to_an_address_that_is_not_the_accounts_any_more(once, ada, parts, redis):
    await parts.users.change(ada.id, email="new@example.org")

    assert await once.issue(Purpose.RESET, ada.id, EMAIL) is None
    assert "once:" not in str(await all_that_is_in(redis))


async def test_a_disabled_account_takes_no_token(once, ada, parts):
    found = await once.find(await once.issue(Purpose.RESET, ada.id, EMAIL), Purpose.RESET)
    await parts.users.change(ada.id, off="1")

    with pytest.raises(InvalidOneTimeToken):
        await once.redeem(found, {"pw": "$argon2id$new"})


@pytest.mark.parametrize(
    "text", ["", "ot_", "ot_" + "x" * 32, "ot_" + "x" * 33, "x" * 35, "ot_" + "é" * 32, "ot_*" + "x" * 31, "\0" * 35]
)
async def test_rubbish_is_no_token(once, ada, text):
    assert await is_dead(once, text)


async def test_a_repeated_command_is_no_second_use(ada, parts, monkeypatch):
    """The first reply is lost: `Store` asks again with the same arguments."""
    text = await parts.once.issue(Purpose.VERIFY, ada.id, EMAIL)
    found = await parts.once.find(text, Purpose.VERIFY)
    send = Node.send

    async def twice(self, commands, within):
        await send(self, commands, within)
        return await send(self, commands, within)

    monkeypatch.setattr(Node, "send", twice)
    await parts.once.redeem(found, {"ok": "1"})

    assert (await parts.users.find(ada.id)).email_verified


@pytest.mark.parametrize("verified", [True, False])
async def test_who_proves_the_email_keeps_only_identities_of_a_verified_account(parts, verified):
    identity = Identity("github", "https://github.com", "1")
    ada = await parts.users.register(replace(ADA, email_verified=verified, identities=(identity,)))
    found = await parts.once.find(await parts.once.issue(Purpose.RESET, ada.id, EMAIL), Purpose.RESET)

    await parts.once.redeem(found, {"pw": "$argon2id$new", "ok": "1"}, proves_owner=True)

    assert len((await parts.users.find(ada.id)).identities) == int(verified)
    assert (await parts.users.find_by_identity("https://github.com", "1") is not None) is verified


async def test_two_tokens_asked_for_at_once_leave_one(once, ada):
    texts = await asyncio.gather(*(once.issue(Purpose.RESET, ada.id, EMAIL) for _ in range(10)))

    alive = 0
    for text in texts:
        try:
            await once.find(text, Purpose.RESET)
        except InvalidOneTimeToken:
            continue
        alive += 1
    assert alive == 1
