"""Redis at the other end of a cable, in a network of its own: the cable is pulled, and has a loose contact."""

import asyncio
import time

import pytest

from tests.deploy.conftest import tool
from tests.faults.deployment import deployed
from tests.faults.ledger import traffic
from tests.faults.processes import Namespace, NotPermitted, Single


@pytest.fixture(scope="module")
def cable():
    namespace = Namespace(tool("ip"))
    try:
        namespace.__enter__()
    except NotPermitted as refusal:
        pytest.skip(f"this system lets us make no network: {refusal}")
    yield namespace
    namespace.__exit__()


@pytest.fixture(scope="module")
def redis(home, cable):
    single = Single(home, host=cable.inside)
    cable.put(single.node)
    single.start()
    yield single
    single.stop()


@pytest.fixture(scope="module")
def deployment(home, redis):
    with deployed(home, redis.url) as its:
        yield its


async def test_a_cable_that_is_pulled_costs_answers_and_nothing_else(deployment, cable, gathering):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(1)
            cable.cut()
            await asyncio.sleep(5)
            cable.mend()
            recovered = await crowd.recovers(time.monotonic())

        assert crowd.ledger.lost()
        await crowd.settle("cable to Redis pulled for 5 s", recovered)


async def test_a_loose_contact_costs_answers_and_nothing_else(deployment, cable, gathering):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            for _ in range(12):
                cable.cut()
                await asyncio.sleep(0.15)
                cable.mend()
                await asyncio.sleep(0.25)
            recovered = await crowd.recovers(time.monotonic())

        await crowd.settle("cable to Redis with a loose contact", recovered)
