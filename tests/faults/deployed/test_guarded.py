"""A Redis that speaks only TLS, and to our user only what it needs."""

import asyncio
import time

import pytest

from tests.faults.deployment import Deployment, deployed
from tests.faults.ledger import traffic
from tests.faults.processes import PASSWORD, Authority, Guarded, until


@pytest.fixture(scope="module")
def guarded(home):
    formation = Guarded(home)
    formation.start()
    yield formation
    formation.stop()


@pytest.fixture(scope="module")
def deployment(home, guarded):
    with deployed(home, guarded.url) as its:
        yield its


async def test_it_serves_and_everything_works(deployment, gathering):
    async with gathering(deployment, 8) as crowd:
        async with traffic(crowd.browsers, pause=0.05):
            await asyncio.sleep(2)

        assert crowd.ledger.noticed() == []
        await crowd.settle("TLS and an ACL, no fault", 0.0)


async def test_a_changed_password_of_redis_is_a_503_until_it_is_right_again(deployment, guarded, gathering):
    async with gathering(deployment, 8) as crowd:
        async with traffic(crowd.browsers):
            for change in ("resetpass", f">{PASSWORD}"):
                await guarded.node.ask("ACL", "SETUSER", guarded.USER, change)
                await guarded.node.ask("CLIENT", "KILL", "USER", guarded.USER)
                ended = time.monotonic()
                await asyncio.sleep(1)
            recovered = await crowd.recovers(ended)

        assert crowd.ledger.lost()
        await crowd.settle("password of Redis wrong for a while", recovered)


async def test_a_command_that_the_acl_forbids_is_a_503_until_it_allows_it(deployment, guarded, gathering):
    async with gathering(deployment, 8) as crowd:
        async with traffic(crowd.browsers):
            for change in ("-evalsha", "+evalsha"):
                await guarded.node.ask("ACL", "SETUSER", guarded.USER, change)
                ended = time.monotonic()
                await asyncio.sleep(1)
            recovered = await crowd.recovers(ended)

        assert crowd.ledger.lost()
        await crowd.settle("an ACL that forbids scripts", recovered)


@pytest.mark.parametrize("mistake", ["another authority", "another password"])
def test_an_instance_that_cannot_come_in_says_so_and_is_not_ready(home, guarded, mistake):
    folder = home / mistake.replace(" ", "-")
    folder.mkdir()
    url = guarded.url_for(Authority(folder)) if "authority" in mistake else guarded.url_for(guarded.authority, "wrong")
    lonely = Deployment(folder, url, instances=1)
    try:
        lonely.start(accounts=0)
        (instance,) = lonely.instances

        until(lambda: instance.said("redis.away"), what="a line in the log")
        assert instance.status("/health") == 200
        assert instance.status("/ready") == 503
        assert instance.status("/api/auth/csrf-token") == 503
        assert instance.said("Traceback") == 0
    finally:
        lonely.stop()
