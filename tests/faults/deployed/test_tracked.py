"""Client tracking where the servers change: slots that move in a Cluster, and another master behind Sentinels."""

import asyncio
import time

import pytest

from service.errors import StoreUnavailable
from service.store import Store, reach
from service.store.memory import TRUSTED
from tests.faults.processes import Sharded, Watched


def started(formation):
    try:
        formation.start()
        yield formation
    finally:
        formation.stop()


@pytest.fixture(scope="module")
def sharded(home):
    yield from started(Sharded(home / "sharded"))


@pytest.fixture(scope="module")
def watched(home):
    yield from started(Watched(home / "watched"))


async def looked(store: Store, key: str) -> list[str | None] | None:
    """What an instance says now; `None` while it cannot."""
    try:
        return await store.recall("HMGET", key, "sid")
    except StoreUnavailable:
        return None


async def until(store: Store, key: str, value: str | None) -> None:
    async with asyncio.timeout(30):
        while await looked(store, key) != [value]:
            await asyncio.sleep(0.01)


async def test_a_slot_that_moves_there_and_back_leaves_nothing_stale(sharded):
    """Also where nobody has told this instance, for it asks for nothing: the key leaves, and Redis says so."""
    here, elsewhere = (Store(reach(sharded.url), tracked=True) for _ in range(2))
    for n in range(8):
        key = f"sessions:{{moving-{n}}}"
        slot = sharded.slot_of(key)
        await elsewhere.one(("HSET", key, "sid", "live"))
        await until(here, key, "live")
        assert await looked(here, key) == ["live"]

        source, target = await asyncio.to_thread(sharded.begin_to_move, slot)
        await asyncio.to_thread(sharded.move, slot, source, target)
        await asyncio.to_thread(sharded.finish_moving, slot, source, target)
        await elsewhere.one(("HDEL", key, "sid"))
        await until(here, key, None)

        back, again = await asyncio.to_thread(sharded.begin_to_move, slot)
        await asyncio.to_thread(sharded.move, slot, back, again)
        await asyncio.to_thread(sharded.finish_moving, slot, back, again)
        await elsewhere.one(("HSET", key, "sid", "another"))
        await until(here, key, "another")
    for store in (here, elsewhere):
        await store.close()


async def test_while_slots_move_an_own_change_is_seen_by_the_very_next_look(sharded):
    store, key = Store(reach(sharded.url), tracked=True), "sessions:{own}"
    slot, over = sharded.slot_of(key), False

    async def change() -> int:
        count = 0
        while not over:
            count += 1
            await store.one(("HSET", key, "sid", str(count)))
            assert await store.recall("HMGET", key, "sid") == [str(count)]
            assert await store.recall("HMGET", key, "sid") == [str(count)]
        return count

    changing = asyncio.create_task(change())
    for _ in range(4):
        source, target = await asyncio.to_thread(sharded.begin_to_move, slot)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(sharded.move, slot, source, target)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(sharded.finish_moving, slot, source, target)
        await asyncio.sleep(0.1)
    over = True

    assert await changing > 0
    await store.close()


async def test_a_master_that_has_been_replaced_in_its_cluster_is_not_believed(sharded):
    """Found out by asking it: this instance does not look who serves what."""
    store, key = Store(reach(sharded.url), tracked=True), "sessions:{replaced}"
    await store.one(("HSET", key, "sid", "live"))
    await until(store, key, "live")
    master = sharded.master_of(sharded.slot_of(key))
    replica = next(
        node
        for node in sharded.nodes
        if node.info("replication")["role"] == "slave" and node.info("replication")["master_port"] == str(master.port)
    )

    assert replica.cli("CLUSTER", "FAILOVER") == "OK"
    async with asyncio.timeout(30):
        while master.info("replication")["role"] != "slave":
            await asyncio.sleep(0.01)
    async with asyncio.timeout(TRUSTED):
        while len(store._memory):
            await asyncio.sleep(0.01)

    await until(store, key, "live")
    await store.close()


async def test_after_a_failover_nothing_of_the_old_master_is_believed(watched):
    """It is frozen: it can tell nobody of anything, and wakes up with what it knew."""
    store, key = Store(reach(watched.url), tracked=True), "sessions:{ada}"
    watching = asyncio.create_task(store.watch())
    async with asyncio.timeout(20):
        while True:
            try:
                await store.one(("HSET", key, "sid", "live"))
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    await until(store, key, "live")
    former = watched.master
    await asyncio.sleep(0.5)
    former.freeze()
    frozen = latest = time.monotonic()
    try:
        async with asyncio.timeout(60):
            while True:
                asked = time.monotonic()
                if store._memory.recall(("HMGET", key, "sid")) is not None and watched_is(former, store):
                    latest = asked
                if not watched_is(former, store):
                    break
                await looked(store, key)
                await asyncio.sleep(0.01)
        assert latest - frozen <= TRUSTED
        await until(store, key, "live")
        await store.one(("HDEL", key, "sid"))
        assert await looked(store, key) == [None]
    finally:
        former.thaw()
    for _ in range(100):
        assert await looked(store, key) in ([None], None)
        await asyncio.sleep(0.02)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await store.close()


def watched_is(node, store) -> bool:
    """Whether the instance still takes it for the master."""
    return store._topology.node(None).name.endswith(f":{node.port}")
