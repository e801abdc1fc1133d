"""One Redis with AOF behind two instances and nginx: killed, frozen, cut off, deaf, under the traffic of browsers."""

import asyncio
import shutil
import time

import pytest

from tests.faults.deployment import deployed
from tests.faults.ledger import traffic
from tests.faults.processes import SECRET, Single
from tests.faults.proxy import Network


@pytest.fixture(scope="module")
def redis(home):
    single = Single(home)
    single.start()
    yield single.node
    single.stop()


@pytest.fixture(scope="module")
def network(redis):
    between = Network(redis.port)
    yield between
    between.close()


@pytest.fixture(scope="module")
def deployment(home, redis, network):
    with deployed(home, f"redis://:{SECRET}@127.0.0.1:{network.port}/0") as its:
        yield its


async def test_without_a_fault_nothing_is_lost(deployment, gathering):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(2)

        assert crowd.ledger.noticed() == []
        await crowd.settle("no fault at all", 0.0)


@pytest.mark.parametrize("fault", ["killed", "frozen for 5 s", "cut off", "silent"])
async def test_an_outage_under_load_costs_answers_and_nothing_else(deployment, redis, network, gathering, fault):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(1)
            match fault:
                case "killed":
                    redis.kill()
                    await asyncio.sleep(2)
                    await asyncio.to_thread(redis.start)
                case "frozen for 5 s":
                    redis.freeze()
                    await asyncio.sleep(5)
                    redis.thaw()
                case "cut off":
                    await asyncio.to_thread(network.cut)
                    await asyncio.sleep(3)
                    await asyncio.to_thread(network.mend)
                case "silent":
                    network.freeze()
                    await asyncio.sleep(3)
                    network.thaw()
            recovered = await crowd.recovers(time.monotonic())

        assert crowd.ledger.lost()
        await crowd.settle(f"Redis {fault}", recovered)


async def test_lost_replies_are_asked_for_again_and_nothing_happens_twice(deployment, network, gathering):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            for n in range(30):
                network.lose(times=1 + n % 2, skip=n % 3)
                await asyncio.sleep(0.1)
            network.lose(times=0)
            recovered = await crowd.recovers(time.monotonic())

        await crowd.settle("30 replies of Redis lost", recovered)


async def test_flushed_scripts_are_not_noticed(deployment, redis, gathering):
    async with gathering(deployment, 10) as crowd:
        async with traffic(crowd.browsers, pause=0.03):
            for _ in range(20):
                await redis.ask("SCRIPT", "FLUSH")
                await asyncio.sleep(0.1)

        assert crowd.ledger.noticed() == []
        await crowd.settle("scripts flushed 20 times", 0.0)


async def test_an_instance_that_is_killed_takes_its_own_requests_with_it_and_no_more(deployment, gathering):
    victim = deployment.instances[0]
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(1)
            victim.kill()
            ended = time.monotonic()
            await asyncio.sleep(2)
            await asyncio.to_thread(deployment.restart, victim)
            await crowd.recovers(time.monotonic())
            recovered = crowd.ledger.recovered(ended)

        await crowd.settle("an instance killed and started again", recovered)


async def test_an_instance_that_stands_still_holds_up_its_own_requests_and_no_more(deployment, gathering):
    victim = deployment.instances[0]
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(1)
            victim.freeze()
            await asyncio.sleep(1.5)
            thawed = time.monotonic()
            victim.thaw()
            recovered = await crowd.recovers(thawed)

        # What it held up may be late for its own bounds: a new password that waited for Redis meanwhile is a 503.
        assert [call for call in crowd.ledger.noticed() if not call.asked < thawed < call.answered] == []
        await crowd.settle("an instance frozen for 1.5 s", recovered)


async def test_a_full_redis_takes_no_sign_in_and_still_lets_everybody_out(deployment, redis, gathering):
    async with gathering(deployment, 6) as crowd:
        verifying, leaving, everywhere, refreshing, *_ = crowd.browsers
        refused, tokens = crowd.browsers[4], refreshing.session.refresh_token
        await refused.log_out()
        await redis.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            since = time.monotonic()
            assert not await refused.sign_in()
            await refreshing.refresh()
            lost = [call.what for call in crowd.ledger.lost(since)]
            await verifying.verify()
            await leaving.log_out()
            await everywhere.log_out_all()
        finally:
            await redis.ask("CONFIG", "SET", "maxmemory", "0")

        assert lost == ["login", "refresh"]
        assert [browser.session is None for browser in (verifying, leaving, everywhere)] == [False, True, True]
        assert len(crowd.ledger.lost(since)) == 2
        await refreshing.refresh()
        assert refreshing.session.refresh_token != tokens
        await crowd.settle("Redis full", 0.0)


async def test_a_redis_that_comes_back_empty_signs_everybody_out_and_nobody_in(deployment, redis, gathering):
    async with gathering(deployment, 6, devices=2) as crowd:
        before = {browser: browser.session for browser in crowd.browsers}
        redis.kill()
        shutil.rmtree(redis.home / "appendonlydir")
        await asyncio.to_thread(redis.start)
        back = await deployment.until_ready(3)

        for browser in crowd.browsers:
            assert not await browser.sign_in()
            await browser.try_tokens_of(before[browser])
        assert {call.status for call in crowd.ledger.calls[-3 * len(before) :]} == {401}
        assert [told for told in crowd.ledger.wrong if "accepted" in told] == []

        await asyncio.to_thread(deployment.bring_accounts)
        crowd.ledger.forget()
        for browser in crowd.browsers:
            assert await browser.sign_in()
            await browser.try_tokens_of(before[browser])
        assert crowd.ledger.wrong == []
        crowd.tell("Redis back empty: everybody signed out", back)
