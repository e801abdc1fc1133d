"""A disk that takes no more of the append-only file: Redis refuses writes, and takes them again once there is room."""

import asyncio
import resource
import time

import pytest

from tests.deploy.conftest import tool
from tests.faults.deployment import deployed
from tests.faults.ledger import traffic
from tests.faults.processes import SECRET, Single, until


@pytest.fixture(scope="module")
def redis(home):
    single = Single(home)
    # A file that may not grow shall be an error for Redis, as a full disk is, and no signal that ends it.
    single.node.stand_in([tool("env"), "--ignore-signal=XFSZ"])
    single.start()
    yield single.node
    single.stop()


@pytest.fixture(scope="module")
def deployment(home, redis):
    with deployed(home, f"redis://:{SECRET}@127.0.0.1:{redis.port}/0") as its:
        yield its


async def test_a_full_disk_costs_changes_and_nothing_else(deployment, redis, gathering):
    async with gathering(deployment, 10, devices=2) as crowd:
        async with traffic(crowd.browsers):
            await asyncio.sleep(1)
            soft, hard = resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            await asyncio.to_thread(until, lambda: "err" in redis.info("persistence")["aof_last_write_status"])
            refused = time.monotonic()
            await asyncio.sleep(2)
            ready = await asyncio.to_thread(deployment.instances[0].status, "/ready")
            still = time.monotonic()
            resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (soft, hard))
            recovered = await crowd.recovers(time.monotonic())

        meanwhile = [call for call in crowd.ledger.calls if refused <= call.asked and call.answered <= still]
        assert ready == 200
        assert [call for call in meanwhile if call.what in ("verify", "me") and call.lost] == []
        assert {call.status for call in meanwhile if call.what in ("refresh", "logout")} == {503}
        await crowd.settle("disk of the append-only file full", recovered)
