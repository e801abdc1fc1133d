"""A Cluster of six behind two instances: slots move, scripts are flushed, masters die and wake up again."""

import asyncio
import time

import pytest

from tests.faults.deployment import deployed
from tests.faults.ledger import traffic
from tests.faults.processes import Sharded


@pytest.fixture(scope="module")
def _sharded(home):
    formation = Sharded(home)
    try:
        formation.start()
        yield formation
    finally:
        formation.stop()


@pytest.fixture
def sharded(_sharded):
    """Whole before each test."""
    _sharded.heal()
    return _sharded


@pytest.fixture(scope="module")
def deployment(home, _sharded):
    with deployed(home, _sharded.url, formation=_sharded) as its:
        yield its


def slot_of(sharded, browser):
    return sharded.slot_of(f"sessions:{{{browser.session.user_id}}}")


async def test_slots_that_move_are_not_noticed(deployment, sharded, gathering):
    async with gathering(deployment, 12, devices=2) as crowd:
        slots = dict.fromkeys(slot_of(sharded, browser) for browser in crowd.browsers)
        before = sharded.redirections()
        async with traffic(crowd.browsers, pause=0.05):
            for slot in list(slots)[:6]:
                source, target = await asyncio.to_thread(sharded.begin_to_move, slot)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(sharded.move, slot, source, target)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(sharded.finish_moving, slot, source, target)
                await asyncio.sleep(0.2)

        seen = {word: count - before[word] for word, count in sharded.redirections().items()}
        assert seen["ASK"] > 0
        assert seen["MOVED"] > 0
        assert crowd.ledger.noticed() == []
        await crowd.settle(f"6 slots moved, {seen['ASK']} ASK and {seen['MOVED']} MOVED", 0.0)


async def test_flushed_scripts_are_not_noticed(deployment, sharded, gathering):
    async with gathering(deployment, 10) as crowd:
        async with traffic(crowd.browsers, pause=0.03):
            for _ in range(10):
                for node in sharded.nodes:
                    await node.ask("SCRIPT", "FLUSH")
                await asyncio.sleep(0.1)

        assert crowd.ledger.noticed() == []
        await crowd.settle("scripts flushed on all nodes", 0.0)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_lost_master_costs_answers_until_its_replica_is_promoted_and_nothing_else(
    deployment, sharded, gathering, fault
):
    async with gathering(deployment, 12, devices=2) as crowd:
        slot = slot_of(sharded, crowd.browsers[0])
        victim = sharded.master_of(slot)
        async with traffic(crowd.browsers, pause=0.1):
            await asyncio.sleep(1)
            lost_at = time.monotonic()
            crowd.ledger.master_dies()
            victim.kill() if fault == "killed" else victim.freeze()
            await asyncio.to_thread(sharded.until_another_than, victim, slot)
            promoted = time.monotonic()
            recovered = await crowd.recovers(promoted)
            await asyncio.to_thread(sharded.heal)
            await crowd.recovers(time.monotonic())

        await crowd.settle(f"master of a third {fault}, another after {promoted - lost_at:.1f} s", recovered)


async def test_a_third_that_is_gone_is_a_503_for_its_own_people_alone_where_the_rest_may_go_on(
    deployment, sharded, gathering
):
    """A master and its replica, with nobody to take over."""
    async with gathering(deployment, 18) as crowd:
        slot = slot_of(sharded, crowd.browsers[0])
        masters = {browser: sharded.master_of(slot_of(sharded, browser)) for browser in crowd.browsers}
        theirs = [browser for browser in crowd.browsers if masters[browser] is sharded.master_of(slot)]
        others = [browser for browser in crowd.browsers if browser not in theirs]
        assert theirs
        assert others
        await asyncio.to_thread(sharded.lose, slot)
        asked = time.monotonic()
        for browser in others:
            await browser.verify()
        assert crowd.ledger.noticed(asked) == []
        for browser in theirs:
            await browser.verify()
            await browser.refresh()
        assert len(crowd.ledger.lost(asked)) == 2 * len(theirs)
        asked = time.monotonic()
        for browser in others:
            await browser.refresh()
        assert crowd.ledger.noticed(asked) == []
        await asyncio.to_thread(sharded.heal)
        recovered = await crowd.deployment.until_ready()

        await crowd.settle("a third of the Cluster gone, and back", recovered)
