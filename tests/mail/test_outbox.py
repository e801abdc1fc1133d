"""The outbox: each errand is done by one instance, and none is lost."""

import asyncio

import pytest

from service.errors import StoreUnavailable
from service.mail.outbox import Outbox
from service.store import Single, Store, reach
from service.vault import Vault
from tests.conftest import SECRET, all_that_is_in

WAITS = (60, 60)


@pytest.fixture
async def opening(connecting):
    """Opens the outbox as one more instance does."""
    stores = []

    def opened(secret: str = SECRET, waits=WAITS) -> Outbox:
        stores.append(store := Store(Single(connecting())))
        return Outbox(store, Vault([secret]), waits)

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
def outbox(opening):
    return opening()


async def test_an_errand_is_taken_once_and_gone_when_done(outbox, later):
    await outbox.put("reset", email="ada@example.org")

    (errand,) = await outbox.take(4)

    assert (errand.kind, errand.facts, errand.tries) == ("reset", {"email": "ada@example.org"}, 1)
    assert await outbox.take(4) == []
    await outbox.done(errand)
    await later("61s")
    assert await outbox.take(4) == []


async def test_two_instances_share_errands_and_do_none_twice(opening):
    one, other = opening(), opening()
    for number in range(60):
        await one.put("reset", email=f"{number}@example.org")

    taken = await asyncio.gather(*((one, other)[turn % 2].take(4) for turn in range(20)))

    emails = [errand.facts["email"] for errands in taken for errand in errands]
    assert len(emails) == len(set(emails)) == 60


async def test_what_an_instance_took_before_it_died_another_takes_after_a_while(opening, later):
    dying, other = opening(), opening()
    await dying.put("reset", email="ada@example.org")
    await dying.take(4)
    assert await other.take(4) == []

    await later("61s")
    (errand,) = await other.take(4)

    assert (errand.facts, errand.tries) == ({"email": "ada@example.org"}, 2)
    assert await dying.take(4) == []


async def test_an_errand_that_keeps_failing_is_parked_with_the_reason(outbox, later):
    await outbox.put("reset", email="ada@example.org")
    for tries in (1, 2, 3):
        (errand,) = await outbox.take(4)
        assert errand.tries == tries
        assert await outbox.parked() == []
        await outbox.failed(errand, "the server is away")
        await later("61s")

    assert await outbox.take(4) == []
    (parked,) = await outbox.parked()
    assert (parked.kind, parked.tries, parked.reason) == ("reset", 3, "the server is away")


async def test_waiting_errands_do_not_hold_up_new_ones(opening):
    outbox = opening()
    for number in range(150):
        await outbox.put("reset", email=f"{number}@example.org")
    assert len(await outbox.take(150)) == 150

    await outbox.put("reset", email="new@example.org")

    assert [errand.facts["email"] for errand in await outbox.take(4)] == ["new@example.org"]


async def test_one_that_is_due_is_found_behind_many_that_are_not(opening, later):
    for number in range(250):
        await opening().put("reset", email=f"{number}@example.org")
    outbox = opening()
    first = await outbox.take(249)
    await later("61s")
    again = await outbox.take(249)
    assert {errand.id for errand in again} == {errand.id for errand in first}

    (last,) = await outbox.take(4)

    assert last.facts["email"] == "249@example.org"


async def test_nothing_of_an_errand_can_be_read_in_redis(outbox, redis):
    await outbox.put("register", email="ada@example.org", password="$argon2id$x")

    kept = str(await all_that_is_in(redis))

    assert "outbox" in kept
    assert not any(word in kept for word in ("ada", "register", "argon2id"))


async def test_an_errand_sealed_with_a_lost_secret_is_parked_and_holds_nothing_up(opening):
    await opening("an older secret that is gone 1234").put("reset", email="ada@example.org")
    await opening().put("reset", email="bob@example.org")

    taken = await opening().take(4)

    assert [errand.facts["email"] for errand in taken] == ["bob@example.org"]
    assert "AUTH_SECRET" in (await opening().parked())[0].reason


async def test_a_redis_that_came_back_empty_takes_errands_again(outbox, connecting):
    await outbox.put("reset", email="ada@example.org")
    await outbox.take(1)
    redis = connecting()
    await redis.flushall()
    await redis.aclose()
    assert await outbox.take(4) == []

    await outbox.put("reset", email="bob@example.org")

    assert len(await outbox.take(4)) == 1


async def test_a_notice_fails_open_and_a_request_does_not():
    away = Outbox(Store(reach("unix:///nobody")), Vault([SECRET]))

    await away.tell("new-sign-in", user="x")
    with pytest.raises(StoreUnavailable):
        await away.put("reset", email="ada@example.org")
