"""Client tracking: what is answered from memory, and everything that ends it."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import fakeredis
import pytest

from service.clock import running
from service.errors import StoreUnavailable
from service.store import Script, Single, Store, connect, reach
from service.store.memory import TRUSTED, Memory
from tests.conftest import free_port

KEY, READ = "sessions:{ada}", ("HMGET", "sessions:{ada}", "sid", "epoch")


@pytest.fixture
async def store(proxy, redis_server) -> AsyncIterator[Store]:
    redis_server.cli("HSET", KEY, "sid", "live")
    its = Store(reach(proxy.url), tracked=True)
    await its.recall(*READ)
    yield its
    await its.close()


@pytest.fixture
def ending(tmp_path) -> Script:
    path = tmp_path / "end.lua"
    path.write_text('return redis.call("HDEL", KEYS[1], "sid")')
    return Script(path)


async def until(seen: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not seen():
            await asyncio.sleep(0.005)


async def recalled(store: Store) -> Any:
    """What it says once Redis answers again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.recall(*READ)
            except StoreUnavailable:
                await asyncio.sleep(0.01)


def kept(store: Store) -> bool:
    return store._memory.recall(READ) is not None


async def test_what_redis_has_said_is_not_asked_again(store, proxy):
    await until(lambda: kept(store))
    proxy.sent.clear()

    for _ in range(1000):
        assert await store.recall(*READ) == ["live", None]

    assert not [sent for sent in proxy.sent if b"HMGET" in sent]


async def test_glances_and_calls_always_ask(store, proxy):
    proxy.sent.clear()

    for _ in range(3):
        await store.glance(*READ)
        await store.one(READ)

    assert b"".join(proxy.sent).count(b"HMGET") == 6


@pytest.mark.parametrize(
    "change",
    [
        ("HDEL", KEY, "sid"), ("HINCRBY", KEY, "epoch", 1), ("DEL", KEY), ("PEXPIRE", KEY, 100_000), ("FLUSHALL",),
        ("RENAME", KEY, "elsewhere"), ("EVAL", 'redis.call("HDEL", KEYS[1], "sid")', 1, KEY),
    ],
    ids=lambda change: change[0],
)  # fmt: skip
async def test_what_others_change_is_forgotten_when_redis_tells(store, redis_server, change):
    assert kept(store)

    redis_server.cli(*change)

    await until(lambda: not kept(store))
    assert await store.recall(*READ) == await store.glance(*READ)


async def test_a_key_that_expires_is_forgotten(store, redis_server):
    redis_server.cli("PEXPIRE", KEY, 1)
    await until(lambda: not kept(store))
    await until(lambda: not redis_server.cli("EXISTS", KEY))

    assert await store.recall(*READ) == [None, None]


async def test_what_redis_has_no_room_to_track_is_forgotten(store, redis_server):
    """Redis says so itself, when it gives up watching a key."""
    redis_server.cli("CONFIG", "SET", "tracking-table-max-keys", 1)
    try:
        for n in range(50):
            redis_server.cli("HSET", f"other:{n}", "a", 1)
            await store.recall("HMGET", f"other:{n}", "a")
        await until(lambda: len(store._memory) < 10)
    finally:
        redis_server.cli("CONFIG", "SET", "tracking-table-max-keys", 1_000_000)


async def test_an_own_change_is_seen_by_the_very_next_look(store, ending, redis_server):
    """On a connection of the pool, on the shared one, and in a script; while others fill the memory."""
    over = False

    async def look() -> None:
        while not over:
            await store.recall(*READ)
            await asyncio.sleep(0)

    looking = [asyncio.create_task(look()) for _ in range(20)]
    for n in range(300):
        await store.one(("HSET", KEY, "sid", "live"))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        assert (await store.recall(*READ))[0] == "live"

        await store.run((("HDEL", KEY, "sid"), ending(KEY), ("DEL", KEY))[n % 3], ("GET", "other"))

        assert (await store.recall(*READ))[0] is None
    over = True
    await asyncio.gather(*looking)


async def test_an_own_change_that_may_have_happened_is_not_passed_over(store, proxy, redis_server):
    """Its answer was lost, so nobody knows; Redis is asked."""
    proxy.lose(b"HDEL")
    with pytest.raises(StoreUnavailable):
        await store.one(("HDEL", KEY, "sid"))

    assert await store.recall(*READ) == [None, None]


async def test_a_reply_that_an_own_change_has_overtaken_is_not_kept():
    memory, current = Memory(), Connection()
    noted = memory.changes
    memory.wrote(KEY)

    memory.keep(READ, ["live", None], current, noted)
    assert memory.recall(READ) is None
    memory.keep(READ, [None, None], current, memory.changes)
    assert memory.recall(READ) == [None, None]


async def test_what_was_under_way_when_everything_was_forgotten_is_not_kept():
    memory, current = Memory(), Connection()
    noted = memory.changes
    memory.clear()

    memory.keep(READ, ["live", None], current, noted)

    assert memory.recall(READ) is None


async def test_changes_that_are_too_many_to_note_stop_the_filling_and_not_the_truth(monkeypatch):
    monkeypatch.setattr("service.store.memory._MOST_CHANGES", 3)
    memory, current = Memory(), Connection()
    noted = memory.changes
    for key in (KEY, "a", "b", "c", "d"):
        memory.wrote(key)

    memory.keep(READ, ["live", None], current, noted)

    assert memory.recall(READ) is None


class Connection:
    current = True


async def test_the_memory_is_bounded():
    memory, current = Memory(most=10), Connection()
    for n in range(100):
        memory.keep(("HMGET", f"key:{n}", "a"), [n], current, 0)
    for n in range(1000):
        memory.keep(("HMGET", "key:99", f"{n}"), [n], current, 0)

    assert len(memory) == 10
    assert memory.recall(("HMGET", "key:98", "a")) == [98]
    assert memory.recall(("HMGET", "key:1", "a")) is None
    assert len(memory._kept["key:99"]) <= 200


# Loss and silence


async def test_a_lost_connection_takes_everything_with_it(store, redis_server):
    assert kept(store)

    redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    await until(lambda: len(store._memory) == 0)
    assert await store.recall(*READ) == ["live", None]


async def test_while_redis_cannot_be_reached_nothing_is_answered_from_memory(store, proxy, redis_server):
    await proxy.stop()
    await until(lambda: not kept(store))
    redis_server.cli("HDEL", KEY, "sid")

    with pytest.raises(StoreUnavailable):
        await store.recall(*READ)
    await proxy.start()

    assert await recalled(store) == [None, None]


async def test_behind_a_cut_cable_nothing_is_older_than_two_seconds(store, proxy, redis_server):
    """Redis changes and its message does not arrive."""
    assert kept(store)
    proxy.freeze()
    redis_server.cli("HDEL", KEY, "sid")
    began = latest = time.monotonic()

    while time.monotonic() - began < TRUSTED + 1.5:
        asked = time.monotonic()
        if store._memory.recall(READ) is not None:
            latest = asked
        await asyncio.sleep(0.005)

    print(f"\nanswered from memory for {latest - began:.2f} s")
    assert latest - began <= TRUSTED
    proxy.thaw()


async def test_behind_a_slow_network_nothing_is_older_than_two_seconds(store, proxy, redis_server):
    """Messages arrive, and steadily, but all are late: what counts is when Redis was asked, not when it was heard."""
    proxy.delay = TRUSTED + 0.5
    await asyncio.sleep(TRUSTED + 0.2)
    redis_server.cli("HDEL", KEY, "sid")
    began = latest = time.monotonic()

    while time.monotonic() - began < TRUSTED + 1:
        asked = time.monotonic()
        if store._memory.recall(READ) == ["live", None]:
            latest = asked
        await asyncio.sleep(0.005)

    assert latest - began <= TRUSTED


async def test_a_redis_that_stands_still_is_believed_for_two_seconds_and_again_when_it_goes_on(own_redis):
    own_redis.cli("HSET", KEY, "sid", "live")
    store = Store(reach(own_redis.url), tracked=True)
    await store.recall(*READ)
    await until(lambda: kept(store))
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    began = latest = time.monotonic()
    try:
        while time.monotonic() - began < TRUSTED + 1:
            asked = time.monotonic()
            if store._memory.recall(READ) is not None:
                latest = asked
            await asyncio.sleep(0.01)
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)

    assert latest - began <= TRUSTED
    assert await store.recall(*READ) == ["live", None]
    await until(lambda: kept(store))
    await store.close()


async def test_an_instance_that_was_asleep_asks_before_it_answers(store, redis_server):
    """The message lies unread in its socket."""
    assert kept(store)
    redis_server.cli("HDEL", KEY, "sid")

    time.sleep(TRUSTED + 0.1)

    assert store._memory.recall(READ) is None
    assert await store.recall(*READ) == [None, None]


async def test_an_instance_whose_machine_was_suspended_asks_before_it_answers(store, monkeypatch):
    """Time in which nothing ran, of which the monotonic clock knows nothing."""
    assert kept(store)

    monkeypatch.setattr("service.store.wire.running", lambda: running() + TRUSTED + 0.1)

    assert not kept(store)
    assert await store.recall(*READ) == ["live", None]
    assert kept(store)


async def test_a_peaceful_redis_is_believed_for_as_long_as_it_answers(store, proxy):
    await asyncio.sleep(TRUSTED + 1)
    proxy.sent.clear()

    assert await store.recall(*READ) == ["live", None]
    assert not [sent for sent in proxy.sent if b"HMGET" in sent]


async def test_a_redis_that_comes_back_as_another_is_asked(own_redis):
    own_redis.cli("HSET", KEY, "sid", "live")
    store = Store(reach(own_redis.url), tracked=True)
    await store.recall(*READ)

    own_redis.kill()
    await until(lambda: len(store._memory) == 0)
    own_redis.start()
    own_redis.cli("HDEL", KEY, "sid")

    assert await recalled(store) == [None, None]
    await store.close()


async def test_a_master_that_became_a_replica_is_not_believed(another_redis):
    server = another_redis("--port", str(port := free_port()))
    server.cli("HSET", KEY, "sid", "live")
    store = Store(reach(f"redis://127.0.0.1:{port}"), tracked=True)
    await store.recall(*READ)
    await store.recall(*READ)
    server.cli("REPLICAOF", "127.0.0.1", free_port())

    await store.look_around()

    assert len(store._memory) == 0
    with pytest.raises(StoreUnavailable):
        await store.recall(*READ)
    await store.close()


# Where nothing is tracked


@pytest.mark.parametrize("forbidden", ["-client|tracking", "-client|caching"])
async def test_a_redis_that_does_not_let_us_track_is_asked_each_time(own_redis, capsys, forbidden):
    own_redis.cli("ACL", "SETUSER", "default", forbidden)
    own_redis.cli("HSET", KEY, "sid", "live")
    store = Store(reach(own_redis.url), tracked=True)

    for value in ("live", "1", "2"):
        own_redis.cli("HSET", KEY, "sid", value)
        assert await store.recall(*READ) == [value, None]

    assert len(store._memory) == 0
    await store.close()
    assert "store.not_tracked" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["memory", "RESP2", "strict"])
async def test_elsewhere_every_look_asks_and_it_is_said(redis_server, way, capsys):
    redis = fakeredis.FakeAsyncRedis(decode_responses=True) if way == "memory" else connect(redis_server.url)
    topology = reach(redis_server.url + "?protocol=2") if way == "RESP2" else Single(redis)
    store = Store(topology, tracked=way != "strict")

    for value in ("live", "1", "2"):
        await store.one(("HSET", KEY, "sid", value))
        assert await store.recall(*READ) == [value, None]
        assert not (store._memory and len(store._memory))
    await store.close()
    assert ("store.not_tracked" in capsys.readouterr().out) is (way != "strict")


async def test_whatever_comes_in_whatever_order_no_look_is_older_than_an_acknowledged_own_change(store, proxy):
    """Many keys, readers that are cancelled, connections that are lost, by chance."""
    chance, truth = random.Random(5), dict.fromkeys(range(5), 0)

    async def look(n: int) -> None:
        before = truth[n]
        try:
            found = await store.recall("HMGET", f"sessions:{{{n}}}", "sid")
        except StoreUnavailable:
            return
        assert int(found[0] or 0) >= before

    async def write(n: int) -> None:
        value = truth[n] + 1
        try:
            await store.one(("HSET", f"sessions:{{{n}}}", "sid", value))
        except StoreUnavailable:
            value = int((await redis.hget(f"sessions:{{{n}}}", "sid")) or 0)
        truth[n] = max(truth[n], value)

    redis = connect(f"unix://{proxy._redis}")
    for turn in range(150):
        looks = [asyncio.create_task(look(chance.randrange(5))) for _ in range(20)]
        for task in chance.sample(looks, 5):
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.003), task.cancel)
        if turn % 20 == 19:
            proxy.lose(b"HMGET")
        await write(chance.randrange(5))
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
    await redis.aclose()
