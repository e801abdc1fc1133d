"""The store: what is repeated and what is not, what travels together, and how long anybody waits."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.store import LOST, Condition, Script, Store, patience, reach
from service.store.node import Breaker
from tests.conftest import free_port, until_replicated
from tests.faults.proxy import Proxy
from tests.faults.stopwatch import Stopwatch


@pytest.fixture
def bounds_of_redis() -> None:
    """Those of the service: they are what is tested here."""


@pytest.fixture
async def store(proxy) -> AsyncIterator[Store]:
    its = Store(reach(proxy.url))
    await its.time()
    proxy.sent.clear()
    yield its
    await its.close()


async def answering(store: Store) -> None:
    """Until Redis is asked again: it had been given up."""
    async with asyncio.timeout(10):
        while True:
            with suppress(StoreUnavailable):
                await store.time()
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def counting(tmp_path) -> Script:
    """A script that counts how often it ran; it is not harmless to repeat, which shows that it was."""
    path = tmp_path / "count.lua"
    path.write_text('return redis.call("INCR", KEYS[1])')
    return Script(path)


async def test_a_read_whose_answer_was_lost_is_asked_again(store, proxy, redis_server):
    redis_server.cli("SET", "name", "Ada")
    proxy.lose(b"GET")

    assert await store.one(("GET", "name")) == "Ada"
    assert len(proxy.sent) == 2


async def test_a_script_whose_answer_was_lost_runs_again(store, proxy, counting):
    await store.one(counting("runs"))
    proxy.lose(b"EVALSHA")

    assert await store.one(counting("runs")) == 3


async def test_a_write_whose_answer_was_lost_is_left_to_the_caller(store, proxy, redis_server):
    proxy.lose(b"INCR")

    with pytest.raises(StoreUnavailable):
        await store.one(("INCR", "count"))

    assert redis_server.cli("GET", "count") == "1"


async def test_a_write_beside_a_read_is_not_repeated_either(store, proxy, redis_server):
    proxy.lose(b"INCR")

    with pytest.raises(StoreUnavailable):
        await store.run(("GET", "name"), ("INCR", "count"))

    assert redis_server.cli("GET", "count") == "1"


async def test_a_second_try_is_the_last(store, proxy):
    proxy.lose(b"GET", times=3)

    with pytest.raises(StoreUnavailable):
        await store.one(("GET", "name"))

    assert len(proxy.sent) == 2


async def test_a_mistake_of_ours_stays_one(store, redis_server):
    redis_server.cli("SET", "name", "Ada")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.one(("HGETALL", "name"))


async def test_a_mistake_inside_a_script_stays_one(store, tmp_path):
    (tmp_path / "wrong.lua").write_text('return redis.call("HGETALL", KEYS[1] .. {})')

    with pytest.raises(ResponseError):
        await store.one(Script(tmp_path / "wrong.lua")("name"))


async def test_after_a_script_flush_every_command_still_comes_in_its_place(store, counting, redis_server):
    await store.one(counting("runs"))
    redis_server.cli("SCRIPT", "FLUSH")

    assert await store.run(("GET", "runs"), counting("runs"), ("GET", "runs")) == ["1", 2, "2"]


async def test_after_a_script_flush_nothing_that_has_happened_happens_again(store, counting, redis_server):
    await store.one(counting("runs"))
    redis_server.cli("SCRIPT", "FLUSH")

    counts = await store.run(("INCR", "a"), counting("runs"), ("HINCRBY", "b", "field", 1), ("GET", "runs"))

    assert counts == [1, 2, 1, "2"]
    assert (redis_server.cli("GET", "a"), redis_server.cli("HGET", "b", "field")) == ("1", "1")


async def test_after_a_script_flush_the_replicas_are_waited_for_again(another_redis, counting):
    master = another_redis("--port", str(port := free_port()), "--repl-diskless-sync-delay", "0")
    another_redis("--replicaof", "127.0.0.1", str(port))
    await until_replicated(master)
    between = Proxy(master.socket)
    await between.start()
    store = Store(reach(between.url), wait_replicas=1)

    assert await store.one(counting("runs"), durable=True) == 1

    await store.close()
    await between.stop()
    first, second = (sent for sent in between.sent if b"EVALSHA" in sent)
    assert b"WAIT" in first
    assert b"WAIT" in second.partition(b"EVALSHA")[2]


async def test_a_script_that_is_lacking_where_its_slot_is_going_to_runs_there(cluster, counting):
    """The server that takes the slot over answers only who says ASKING, each time."""
    source, target = cluster
    store = Store(reach(f"redis+cluster://127.0.0.1:{source.cli('CONFIG', 'GET', 'port')['port']}"))
    await store.look_around()
    slot = source.cli("CLUSTER", "KEYSLOT", "runs")
    target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.cli("CLUSTER", "MYID"))
    source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target.cli("CLUSTER", "MYID"))

    assert await store.one(counting("runs")) == 1

    await store.close()
    assert "NOSCRIPT" in str(target.cli("INFO", "errorstats"))


async def test_glances_of_one_turn_are_one_round_trip(store, proxy, redis_server):
    for n in range(50):
        redis_server.cli("HSET", f"person:{n}", "name", f"name{n}")

    names = await asyncio.gather(*(store.glance("HMGET", f"person:{n}", "name") for n in range(50)))

    assert names == [[f"name{n}"] for n in range(50)]
    assert len(proxy.sent) == 1


async def test_glances_of_another_turn_travel_for_themselves(store, proxy):
    await store.glance("GET", "one")
    await store.glance("GET", "two")

    assert len(proxy.sent) == 2


async def test_a_glance_that_fails_fails_for_everyone_who_waits(store, proxy):
    proxy.lose(b"GET", times=2)

    looked = await asyncio.gather(*(store.glance("GET", f"{n}") for n in range(10)), return_exceptions=True)

    assert [type(answer) for answer in looked] == [StoreUnavailable] * 10
    assert await store.glance("GET", "0") is None


async def test_a_wrong_glance_is_told_to_all_of_its_flight(store, redis_server):
    redis_server.cli("SET", "name", "Ada")

    looked = await asyncio.gather(store.glance("GET", "name"), store.glance("HGETALL", "name"), return_exceptions=True)

    assert isinstance(looked[1], ResponseError)


async def test_who_gives_up_on_a_glance_takes_nobody_with_them(store, redis_server):
    redis_server.cli("SET", "name", "Ada")
    impatient = asyncio.create_task(store.glance("GET", "name"))
    patient = asyncio.create_task(store.glance("GET", "name"))
    await asyncio.sleep(0)

    impatient.cancel()

    assert await patient == "Ada"


async def test_all_calls_of_a_request_share_its_patience(store, proxy):
    proxy.freeze()

    async with Stopwatch() as watch:
        with patience():
            for call in (
                lambda: store.glance("GET", "name"),
                lambda: store.one(("GET", "name")),
                lambda: store.one(("INCR", "count")),
                lambda: store.glance("GET", "name"),
            ):
                with pytest.raises(StoreUnavailable):
                    await call()

    print(f"\nfour calls to a silent Redis in one request: {watch.held:.2f} s")
    assert watch.held < 3  # two seconds of patience; the four alone would take six


async def test_a_call_outside_a_request_is_bounded_too(store, proxy):
    proxy.freeze()

    async with Stopwatch() as watch:
        with pytest.raises(StoreUnavailable):
            await store.one(("INCR", "count"))

    assert watch.held < 3


async def test_who_finds_every_connection_taken_is_told_in_time(store, proxy):
    proxy.freeze()

    async with Stopwatch() as watch:
        told = await asyncio.gather(*(store.one(("GET", "name")) for _ in range(200)), return_exceptions=True)

    assert {type(answer) for answer in told} == {StoreUnavailable}
    assert watch.held < 4
    proxy.thaw()
    await answering(store)
    assert await asyncio.gather(*(store.one(("GET", "name")) for _ in range(100))) == [None] * 100


async def test_a_call_that_was_cancelled_leaves_its_answer_to_nobody(store, redis_server):
    for n in range(300):
        redis_server.cli("SET", f"key:{n}", n)
    chance = random.Random(42)

    async def call(n: int) -> str | None:
        try:
            async with asyncio.timeout(5 if n % 3 else chance.uniform(0, 0.02)):
                return str(await store.one(("GET", f"key:{n}")))
        except (TimeoutError, StoreUnavailable):  # the second where this machine is too busy for 300 calls in a second
            return None

    for _ in range(3):
        answers = await asyncio.gather(*(call(n) for n in range(300)))
        assert all(answer in (None, str(n)) for n, answer in enumerate(answers))
        assert any(answers)


async def test_the_condition_of_a_safe_redis_names_its_version_and_no_danger(own_redis):
    store = Store(reach(own_redis.url))

    condition = await store.condition()
    await store.close()

    assert condition.memory > 0
    assert replace(condition, memory=0) == Condition(
        own_redis.cli("INFO", "server")["redis_version"], True, "noeviction", (), "master", 0
    )


async def test_the_condition_names_each_way_to_forget(own_redis):
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own_redis.cli("CONFIG", "SET", "appendonly", "no")
    store = Store(reach(own_redis.url))

    evicting, unsaved = (await store.condition()).dangers
    await store.close()

    assert "maxmemory-policy is allkeys-lru" in evicting
    assert "set noeviction" in evicting
    assert "appendonly is off" in unsaved


async def test_a_redis_that_does_not_tell_its_condition_is_a_danger_of_its_own(own_redis):
    own_redis.cli("ACL", "SETUSER", "default", "-info")
    store = Store(reach(own_redis.url))

    condition = await store.condition()
    await store.close()

    assert "cannot be checked" in condition.dangers[0]


async def test_too_few_replicas_are_a_503_although_the_change_is_made(redis_server):
    store = Store(reach(redis_server.url), wait_replicas=1)

    await store.one(("SET", "a", "1"))
    with pytest.raises(StoreUnavailable, match="could not be confirmed"):
        await store.one(("SET", "b", "2"), durable=True)
    await store.close()

    assert redis_server.cli("GET", "b") == "2"


# Given up for now


async def test_a_server_that_fails_again_and_again_is_not_asked_until_it_answers_a_probe(store, proxy):
    await proxy.stop()
    async with asyncio.timeout(10):
        while "given up" not in await reason(store):
            await asyncio.sleep(0.02)
    async with Stopwatch() as watch:
        shed = [await reason(store) for _ in range(500)]

    assert all("given up" in told for told in shed)
    assert watch.held < 1  # half a thousand connections that are refused take as long as that, waits many times that
    await proxy.start()
    await answering(store)


async def test_a_probe_that_goes_wrong_in_an_unknown_way_is_followed_by_another(store, proxy, monkeypatch):
    """Else nobody would be served until somebody starts the instance again."""
    redis, asked = store._topology.node(None)._redis, []

    async def unknown() -> None:
        asked.append(1)
        monkeypatch.undo()
        raise ValueError

    monkeypatch.setattr(redis, "ping", unknown)
    await proxy.stop()
    async with asyncio.timeout(10):
        while "given up" not in await reason(store):
            await asyncio.sleep(0.02)
        while not asked:
            await asyncio.sleep(0.01)
    await proxy.start()

    await answering(store)


def test_failures_at_once_give_nobody_up_and_failures_in_a_row_do(monkeypatch):
    """Twenty connections that die with a server which is back at once are no reason to wait for a probe."""
    breaker, now = Breaker(), 100.0
    monkeypatch.setattr("service.store.node.time.monotonic", lambda: now)

    assert not any(breaker.failed(began=now) for _ in range(20))
    breaker.succeeded()
    assert not any(breaker.failed(began=now) for _ in range(4))
    now += 1
    assert breaker.failed(began=now)
    assert breaker.open


async def reason(store: Store) -> str:
    """Why the store cannot answer; empty if it can."""
    try:
        await store.one(("INCR", "count"))
    except StoreUnavailable as unavailable:
        return str(unavailable.__cause__)
    return ""


# What travels aside


async def test_what_travels_aside_fails_nobody_and_gives_no_reply(store, redis_server):
    redis_server.cli("SET", "text", "no set")

    replies = await store.run(("SET", "a", "1"), ("GET", "a"), aside=[("ZADD", "text", 1, "x"), ("SET", "b", "2")])

    assert replies == [True, "1"]
    assert redis_server.cli("GET", "b") == "2"


async def test_a_hint_travels_with_the_others_and_may_be_lost(store, proxy, redis_server):
    redis_server.cli("SET", "name", "Ada")
    redis_server.cli("SADD", "names", "Ada")

    replies = await store.run(("GET", "name"), hints=[("GET", "names"), ("GET", "name"), ("GET", "nobody")])

    assert replies == ["Ada", LOST, "Ada", None]
    assert len(proxy.sent) == 2, "once more, since something was refused"
    proxy.sent.clear()
    assert await store.run(("GET", "name"), hints=[("GET", "name")], aside=[("SADD", "names", "Bob")]) == ["Ada", "Ada"]
    assert len(proxy.sent) == 1


async def test_a_hint_is_lost_with_its_redis(store, proxy):
    await proxy.stop()

    assert await store.run(hints=[("GET", "name")]) == [LOST]
    with pytest.raises(StoreUnavailable):
        await store.run(("GET", "name"), hints=[("GET", "name")])


# Another master


async def test_what_was_insisted_on_is_said_again_to_a_master_that_does_not_know_it(own_redis):
    store = Store(reach(own_redis.url))
    await store.look_around()
    await store.one(("SADD", "ended", "one"))
    store.insist(("SADD", "ended", "one"))
    await store.one(("SADD", "ended", "two"))
    own_redis.kill()
    shutil.rmtree(own_redis.directory / "appendonlydir", ignore_errors=True)
    (own_redis.directory / "appendonly.aof").unlink(missing_ok=True)
    own_redis.start()
    await answering(store)

    await store.look_around()
    await store.close()

    assert own_redis.cli("SMEMBERS", "ended") == {"one"}


async def test_who_repeats_one_thing_pushes_nothing_out_of_what_is_insisted_on(own_redis, monkeypatch):
    monkeypatch.setattr("service.store.watch._MOST_INSISTED", 2)
    store = Store(reach(own_redis.url))
    await store.look_around()
    store.insist(("SADD", "ended", "one"))
    for _ in range(5):
        store.insist(("SADD", "ended", "two"))

    await store._watch._say_again()
    store.insist(("SADD", "ended", "three"))
    own_redis.cli("DEL", "ended")
    await store._watch._say_again()
    await store.close()

    assert own_redis.cli("SMEMBERS", "ended") == {"two", "three"}


async def test_a_look_around_that_goes_wrong_in_an_unknown_way_is_not_the_last(own_redis, monkeypatch):
    store = Store(reach(own_redis.url))
    looked, look_around = asyncio.Event(), store._watch.look_around

    async def unknown() -> None:
        monkeypatch.setattr(store._watch, "look_around", again)
        raise ValueError

    async def again() -> None:
        await look_around()
        looked.set()

    monkeypatch.setattr(store._watch, "look_around", unknown)
    watching = asyncio.create_task(store.watch())

    async with asyncio.timeout(10):
        await looked.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await store.close()


async def test_a_look_around_while_nothing_changed_says_nothing_again(own_redis):
    store = Store(reach(own_redis.url))
    await store.look_around()
    store.insist(("INCR", "said"))

    for _ in range(3):
        await store.look_around()
    await store.close()

    assert own_redis.cli("GET", "said") is None


async def test_a_master_that_became_a_replica_is_noticed_before_the_first_write(another_redis):
    server = another_redis("--port", str(port := free_port()))
    store = Store(reach(f"redis://127.0.0.1:{port}"))
    await store.one(("SET", "a", "1"))
    server.cli("REPLICAOF", "127.0.0.1", free_port())

    await store.look_around()
    with pytest.raises(StoreUnavailable):
        await store.one(("GET", "a"))  # a replica would answer this, and late
    server.cli("REPLICAOF", "NO", "ONE")
    await store.look_around()

    assert await store.one(("GET", "a")) == "1"
    await store.close()


async def test_a_write_that_a_replica_refused_is_said_to_the_master_of_the_same_name(another_redis):
    """The address stays and leads elsewhere, as with a name or an address that moves with the master."""
    old, new = (another_redis("--port", str(free_port())) for _ in range(2))
    between = Proxy(old.socket)
    await between.start()
    store = Store(reach(between.url))
    await store.one(("SET", "a", "1"))
    old.cli("REPLICAOF", "127.0.0.1", free_port())
    between.lead_to(new.socket)

    assert await store.one(("INCR", "count")) == 1

    assert new.cli("GET", "count") == "1"
    await store.close()
    await between.stop()
