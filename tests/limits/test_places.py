"""Places: a sign-in from where, or with what, nobody has signed in lately is told apart from the others."""

import pytest

from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.limits.places import Seen
from tests.conftest import parts_of

ADA = "ada@example.org"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)


@pytest.fixture
def signing_in(serving):
    """Signs Ada up or in, from an address and with a user agent, and gives what the trail says is new about it."""
    opened = []

    async def sign_in(address: str, user_agent: str, email: str = ADA) -> set[str]:
        its_own = await serving(TRUSTED_PROXIES="127.0.0.1", **({"at": opened[0]} if opened else {}))
        opened.append(its_own)
        its = parts_of(its_own)
        headers = {"X-Forwarded-For": address, "User-Agent": user_agent}
        answer = await its_own.login(email, headers=headers)
        if answer.status == 401:
            answer = await its_own.register(email, headers=headers)
        user = answer.json["user"]["id"]
        (event, *_), _ = await its.audit.page(Wanted(user, type=Event.SIGNED_IN), None, 1)
        assert event.ip == address
        return {name for name, fact in event.detail.items() if name.startswith("new_") and fact is True}

    return sign_in


async def test_what_is_new_about_a_sign_in_is_in_its_event(signing_in):
    assert await signing_in("192.0.2.1", FIREFOX) == set()  # the account is new itself
    assert await signing_in("192.0.2.1", FIREFOX) == set()
    assert await signing_in("192.0.2.1", CHROME) == {"new_device"}
    assert await signing_in("192.0.2.1", CHROME) == set()
    assert await signing_in("198.51.100.7", CHROME) == {"new_device", "new_place"}
    assert await signing_in("198.51.100.7", CHROME) == set()
    assert await signing_in("192.0.2.1", FIREFOX) == set()


async def test_a_new_version_and_another_address_of_the_same_network_are_nothing_new(signing_in):
    await signing_in("2001:db8::1", FIREFOX)

    assert await signing_in("2001:db8::2", FIREFOX.replace("140", "141")) == set()
    assert await signing_in("2001:db8:0:1::1", FIREFOX) == {"new_device", "new_place"}


async def test_a_place_and_a_device_are_forgotten_after_thirty_days(signing_in, later):
    await signing_in("192.0.2.1", FIREFOX)
    await later("29d")
    assert await signing_in("192.0.2.1", FIREFOX) == set()

    await later("31d")

    assert await signing_in("192.0.2.1", FIREFOX) == {"new_device", "new_place"}


async def test_each_account_has_places_of_its_own(signing_in):
    await signing_in("192.0.2.1", FIREFOX)
    await signing_in("198.51.100.7", FIREFOX, "bob@example.org")

    assert await signing_in("192.0.2.1", FIREFOX, "bob@example.org") == {"new_device", "new_place"}


async def test_a_place_that_an_earlier_version_has_noted_is_known_with_any_device(parts, redis):
    here = Client("192.0.2.1", FIREFOX)
    await parts.places.remember(ADA, here, Seen(None))
    (key,) = [key async for key in redis.scan_iter("known:*")]
    await redis.set(key, "1")

    seen = parts.places.read(await parts.store.one(parts.places.reading(ADA, here)))
    await parts.places.remember(ADA, here, seen)

    assert not seen.is_new_place
    assert not seen.is_new(here.device)
    assert await redis.get(key) == "Firefox on Linux"


async def test_a_client_that_changes_its_name_each_time_takes_no_more_room(parts, redis):
    names = [f"{browser} {system}" for browser in ("Firefox/1", "OPR/1", "Edg/1") for system in
             ("iPhone", "iPad", "Android", "Windows", "Macintosh", "CrOS", "X11")]  # fmt: skip
    seen = Seen(None)
    for name in names:
        here = Client("192.0.2.1", name)
        await parts.places.remember(ADA, here, seen)
        seen = parts.places.read(await parts.store.one(parts.places.reading(ADA, here)))

    (key,) = [key async for key in redis.scan_iter("known:*")]
    assert len((await redis.get(key)).split(",")) == 12
    assert not seen.is_new("Edge on Linux")
    assert seen.is_new("Firefox on iPhone")
    assert 0 < await redis.ttl(key) <= 30 * 24 * 3600
    for told in ("ada", "192.0.2", "example"):
        assert told not in key
