"""`REVOCATION=tracked`: what one instance ends, another refuses once Redis has told it; itself, at once."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from service.accounts.user import User
from service.client import Client
from service.errors import TokenRevoked, TokenStale
from service.sessions.families import EndReason
from tests.conftest import PASSWORD

pytestmark = pytest.mark.parametrize("connecting", ["redis"], indirect=True)
HERE = Client("192.0.2.1", "a browser")


@pytest.fixture
async def instances(assembling):
    return [await assembling(REVOCATION="tracked") for _ in range(2)]


async def signed_in(its):
    """A principal as a request brings it, of a new account."""
    user = await its.users.register(User(id="", email="ada@example.org", password=await its.passwords.hash(PASSWORD)))
    signed = await its.signin.begin(user, ("pwd",), HERE)
    return its.access_tokens.read(signed.access.text)


async def known(principal, *instances) -> None:
    """Have it in the memory of each."""
    for its in instances:
        async with asyncio.timeout(20):
            while not len(its.store._memory):
                await its.check.still(principal, lately=True)


async def refused(its, principal) -> type[Exception]:
    """Ask until the token is refused, and say how."""
    async with asyncio.timeout(20):
        while True:
            try:
                await its.check.still(principal, lately=True)
            except (TokenRevoked, TokenStale) as error:
                return type(error)
            await asyncio.sleep(0)


ENDINGS = {
    "log-out": lambda its, who: its.families.end(who.user_id, who.session_id, EndReason.LOGOUT),
    "everywhere": lambda its, who: its.families.end_all(who.user_id, EndReason.LOGOUT_ALL),
    "a revoked token": lambda its, who: its.families.revoke(who.user_id, who.session_id, who.jti, who.expires_at),
    "changed rights": lambda its, who: its.families.outdate_tokens(who.user_id),
    "a deleted account": lambda its, who: its.families.forget(who.user_id),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_what_one_instance_ends_is_refused_there_at_once_and_elsewhere_when_redis_has_told(instances, ending):
    here, elsewhere = instances
    principal = await signed_in(here)
    await known(principal, here, elsewhere)

    await ending(here, principal)

    with pytest.raises((TokenRevoked, TokenStale)):
        await here.check.still(principal, lately=True)
    assert await refused(elsewhere, principal) in (TokenRevoked, TokenStale)


async def test_one_message_is_enough(instances, connecting):
    """As soon as the other instance has read what Redis sent it, and nothing else has to happen."""
    here, elsewhere = instances
    principal = await signed_in(here)
    await known(principal, elsewhere)
    told = asyncio.Event()
    forget = elsewhere.store._memory.forget
    elsewhere.store._memory.forget = lambda key: (forget(key), told.set())

    await here.families.end(principal.user_id, principal.session_id, EndReason.LOGOUT)
    async with asyncio.timeout(20):
        await told.wait()

    with pytest.raises(TokenRevoked):
        await elsewhere.check.still(principal, lately=True)


async def test_a_session_in_memory_ends_with_its_time_and_needs_no_message(instances, connecting, monkeypatch):
    here, _ = instances
    principal = await signed_in(here)
    await known(principal, here)
    now = here.clock.now
    monkeypatch.setattr(here.clock, "now", lambda: now() + 40 * 86400)

    with pytest.raises(TokenRevoked):
        await here.check.still(principal, lately=True)


async def test_a_flushed_redis_signs_everybody_out(instances, connecting):
    here, elsewhere = instances
    principal = await signed_in(here)
    await known(principal, here, elsewhere)
    redis: Redis = connecting()
    await redis.flushall()
    await redis.aclose()

    assert await refused(here, principal) is TokenRevoked
    assert await refused(elsewhere, principal) is TokenRevoked


async def test_over_http_a_log_out_here_is_a_401_there(serving, instances):
    here, elsewhere = [await serving(its) for its in instances]
    signed = (await here.register(headers={"X-Auth-Mode": "token"})).json
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    for browser in (here, elsewhere, here, elsewhere):
        assert (await browser("GET", "/api/auth/verify", headers=bearer)).status == 200

    assert (await here("POST", "/api/auth/logout", headers=bearer)).status == 204

    assert (await here("GET", "/api/auth/verify", headers=bearer)).status == 401
    deadline = time.monotonic() + 20
    while (await elsewhere("GET", "/api/auth/verify", headers=bearer)).status != 401:
        assert time.monotonic() < deadline


async def test_strict_is_the_default_and_keeps_nothing(assembling):
    its = await assembling()

    assert its.settings.revocation == "strict"
    assert its.store._memory is None
