"""A master, two replicas and three Sentinels behind two instances: the master changes and nobody is signed out."""

import asyncio
import time

import pytest

from tests.faults.conftest import BACK_WITHIN
from tests.faults.deployment import deployed
from tests.faults.ledger import STORM, TRAFFIC, traffic
from tests.faults.processes import Watched


@pytest.fixture(scope="module")
def _watched(home):
    formation = Watched(home)
    try:
        formation.start()
        yield formation
    finally:
        formation.stop()


@pytest.fixture
def watched(_watched):
    """Whole before each test."""
    _watched.heal()
    return _watched


@pytest.fixture(scope="module")
def deployment(home, _watched):
    with deployed(home, _watched.url, formation=_watched) as its:
        yield its


@pytest.fixture(scope="module")
def careful(home, deployment, _watched):
    """Instances that wait for a replica, beside the others."""
    home, settings = home / "careful", {"REDIS_WAIT_REPLICAS": "1"}
    home.mkdir()
    with deployed(home, _watched.url, accounts=0, formation=_watched, **settings) as its:
        its.share_accounts_with(deployment)
        yield its


async def test_a_killed_master_in_a_storm_of_refreshes_signs_nobody_out(deployment, watched, gathering):
    async with gathering(deployment, 20) as crowd:
        async with traffic(crowd.browsers, STORM, pause=0.05):
            await asyncio.sleep(1)
            took = await watched.fail_over()
            recovered = await crowd.recovers(time.monotonic())

        await crowd.settle(f"master killed, another after {took:.1f} s", recovered)


async def test_a_graceful_failover_in_a_storm_of_refreshes_is_not_noticed(deployment, watched, gathering):
    """There and back again. The old master goes on as if nothing had happened, until somebody tells it."""
    async with gathering(deployment, 20) as crowd:
        async with traffic(crowd.browsers, STORM, pause=0.05):
            for _ in range(2):
                await asyncio.sleep(1)
                took = await watched.fail_over(gracefully=True)
                recovered = await crowd.recovers(time.monotonic())
                await asyncio.to_thread(watched.heal)
            await crowd.recovers(time.monotonic())

        assert crowd.ledger.noticed() == []
        await crowd.settle(f"graceful failover, done after {took:.1f} s", recovered)


async def test_a_graceful_failover_loses_nothing_that_was_acknowledged(deployment, watched, gathering):
    """Nor accounts and passwords: nothing is written to the old master once its successor is there."""
    async with gathering(deployment, 20) as crowd:
        mix = TRAFFIC | {"change_password": 20, "register": 20, "log_out": 20}
        async with traffic(crowd.browsers, mix, pause=0.05):
            await asyncio.sleep(1)
            took = await watched.fail_over(gracefully=True)
            recovered = await crowd.recovers(time.monotonic())
            await asyncio.to_thread(watched.heal)
            await crowd.recovers(time.monotonic())

        await crowd.settle(f"graceful failover while much is written, {took:.1f} s", recovered)


async def test_a_master_that_wakes_up_after_its_successor_was_chosen_is_not_asked_any_more(
    deployment, watched, gathering
):
    async with gathering(deployment, 20) as crowd:
        browsers, was = crowd.browsers, watched.master
        was.freeze()
        await asyncio.to_thread(watched.until_another_than, was)
        chosen = time.monotonic()
        await deployment.until_ready(BACK_WITHIN)
        for browser in browsers[:10]:
            await browser.log_out()
        assert [browser.session for browser in browsers[:10]] == [None] * 10
        was.thaw()

        async with traffic(browsers[10:], pause=0.1):
            for browser in browsers[:10]:
                for _ in range(2):
                    await browser.look_back()
            await asyncio.to_thread(watched.heal)
            await crowd.recovers(time.monotonic())

        await crowd.settle("a master that was replaced while it slept", crowd.ledger.recovered(chosen))


async def test_a_log_out_that_the_new_master_missed_is_in_force_again_shortly_after(deployment, watched, gathering):
    async with gathering(deployment, 12) as crowd:
        watched.cut_off(*watched.replicas)
        for n, browser in enumerate(crowd.browsers[:8]):
            await (browser.log_out() if n % 2 else browser.log_out_all())
        over = [browser.account.sessions[0] for browser in crowd.browsers[:8]]
        assert [browser.session for browser in crowd.browsers[:8]] == [None] * 8

        await watched.fail_over()
        chosen = time.monotonic()
        for session in over:
            async with asyncio.timeout(BACK_WITHIN + 5):
                while await crowd.accepted(session):
                    await asyncio.sleep(0.05)
        again = time.monotonic() - chosen
        await crowd.settle("master lost with log-outs that no replica had", again)
        assert again - crowd.ledger.lateness.within(chosen, chosen + again) < BACK_WITHIN


async def test_with_a_replica_that_confirms_no_log_out_is_ever_lost(careful, watched, gathering):
    async with gathering(careful, 20, devices=2) as crowd:
        first, _ = watched.replicas
        watched.cut_off(first, eligible=False)
        async with traffic(crowd.browsers, {"log_out": 3, "log_out_all": 1, "refresh": 4}, pause=0.1):
            await asyncio.sleep(2)
            crowd.ledger.master_dies()
            took = await watched.fail_over()
            watched.let_in(first)  # the new master has no other to confirm anything
            recovered = await crowd.recovers(time.monotonic())

        assert watched.master is not first
        assert sum(call.what.startswith("logout") and call.status == 204 for call in crowd.ledger.calls) > 10
        await crowd.settle(f"master killed while log-outs wait, another after {took:.1f} s", recovered)


async def test_without_any_replica_a_log_out_is_not_confirmed(careful, watched, gathering):
    async with gathering(careful, 2) as crowd:
        watched.cut_off(*watched.replicas)
        since, (browser, _) = time.monotonic(), crowd.browsers

        await browser.log_out()

        assert browser.session is not None
        assert {call.status for call in crowd.ledger.calls if call.asked >= since} == {503}
        await asyncio.to_thread(watched.heal)
        await browser.log_out()
        assert browser.session is None
        await crowd.settle("a log-out without its replica", 0.0)


async def test_with_one_sentinel_away_the_others_choose_another_master(deployment, watched, gathering):
    async with gathering(deployment, 10) as crowd:
        was, away = watched.master, watched.sentinels.pop(0)
        away.freeze()
        try:
            async with traffic(crowd.browsers, pause=0.1):
                await asyncio.sleep(1)
                assert crowd.ledger.noticed() == []
                crowd.ledger.master_dies()
                was.kill()
                await asyncio.to_thread(watched.until_another_than, was)
                recovered = await crowd.recovers(time.monotonic())
        finally:
            away.thaw()
            watched.sentinels.insert(0, away)

        await crowd.settle("a Sentinel and the master away", recovered)


async def test_while_the_sentinels_stand_still_the_master_serves_on(deployment, watched, gathering):
    async with gathering(deployment, 10) as crowd:
        for sentinel in watched.sentinels:
            sentinel.freeze()
        try:
            async with traffic(crowd.browsers, pause=0.1):
                await asyncio.sleep(3)
        finally:
            for sentinel in watched.sentinels:
                sentinel.thaw()

        assert crowd.ledger.noticed() == []
        await crowd.settle("all Sentinels frozen", 0.0)
