"""The connection that calls share: whose reply is whose, and what becomes of everybody when it goes wrong."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from service import metrics
from service.errors import StoreUnavailable
from service.store import Script, Single, Store, connect, patience, reach
from service.store.node import Failed, Node
from service.store.wire import MOST, WORDS
from tests.conftest import free_port
from tests.faults.processes import Authority


@pytest.fixture(autouse=True)
def patience_of_node(monkeypatch) -> None:
    """As `bounds_of_redis`: wide, and a test about silence says how long it is."""
    monkeypatch.setattr(Node.send, "__defaults__", (30.0, False))


@pytest.fixture
def hurry(monkeypatch) -> Callable[[Node, float], None]:
    """Gives a node's server so many seconds to answer."""

    def hurried(node: Node, seconds: float) -> None:
        node._wire.answer = seconds
        monkeypatch.setattr(Node.send, "__defaults__", (seconds, False))
        for module in ("node", "allowance", "store"):
            monkeypatch.setattr(f"service.store.{module}.ANSWER", seconds)

    return hurried


@pytest.fixture
async def node(proxy) -> AsyncIterator[Node]:
    its = Node(connect(proxy.url))
    await its.send((("GET", "first"),))
    proxy.sent.clear()
    yield its
    await its.close()


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def pretending() -> AsyncIterator[Callable[[Answering], Awaitable[Node]]]:
    """A node whose server greets as Redis does and then does as it is told: `await pretending(answer)`."""
    nodes: list[Node] = []
    servers: list[asyncio.Server] = []
    talking: set[asyncio.Task[None]] = set()

    async def made(answer: Answering) -> Node:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            talking.add(task := asyncio.current_task())
            task.add_done_callback(talking.discard)
            with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                await greet(reader, writer)
                await answer(reader, writer)
            writer.transport.abort()

        port = free_port()
        servers.append(await asyncio.start_server(talk, "127.0.0.1", port))
        nodes.append(its := Node(connect(f"redis://127.0.0.1:{port}")))
        return its

    yield made
    for its in nodes:
        await its.close()
    for server in servers:
        server.close()
    for task in list(talking):
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)


async def heard(reader: asyncio.StreamReader) -> list[bytes]:
    """The next command."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    return [(await reader.readexactly(int((await reader.readuntil(b"\r\n"))[1:]) + 2))[:-2] for _ in range(count)]


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(4):  # HELLO, SETNAME, and two of SETINFO
        command = await heard(reader)
        writer.write(b"%1\r\n+proto\r\n:3\r\n" if command[0] == b"HELLO" else b"+OK\r\n")


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each `GET key` with the key."""
    while True:
        _, key = await heard(reader)
        writer.write(b"$%d\r\n%s\r\n" % (len(key), key))


# Whose reply is whose


async def test_the_commands_of_one_turn_are_one_write(node, proxy):
    await asyncio.gather(*(node.send((("GET", f"{n}"), ("GET", f"and {n}"))) for n in range(50)))

    assert len(proxy.sent) == 1


async def test_each_call_has_its_own_replies_in_order(node, redis_server):
    for n in range(100):
        redis_server.cli("SET", f"key:{n}", n)

    replies = await asyncio.gather(
        *(node.send(tuple(("GET", f"key:{k}") for k in range(n, n + n % 3 + 1))) for n in range(97))
    )

    assert replies == [[str(k) for k in range(n, n + n % 3 + 1)] for n in range(97)]


async def test_a_call_without_commands_has_no_replies_and_leaves_the_order_alone(node):
    nothing, something = await asyncio.gather(node.send(()), node.send((("EXISTS", "a"),)))

    assert (nothing, something) == ([], [0])


async def test_who_is_cancelled_before_or_after_the_write_shifts_no_reply(node, redis_server):
    for n in range(200):
        redis_server.cli("SET", f"key:{n}", n)
    chance = random.Random(7)

    for turns in (0, 1, 2, 3, 5):
        calls = [asyncio.create_task(node.send((("GET", f"key:{n}"), ("GET", f"key:{n}")))) for n in range(200)]
        for _ in range(turns):
            await asyncio.sleep(0)
        gone = set(chance.sample(range(200), 100))
        for n in gone:
            calls[n].cancel()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert [replies[n] for n in range(200) if n not in gone] == [[str(n)] * 2 for n in range(200) if n not in gone]


async def test_who_is_cancelled_before_the_write_has_nothing_done(node, redis_server):
    call = asyncio.create_task(node.send((("SADD", "done", "it"),)))
    await asyncio.sleep(0)  # it is said, and would be written at the end of this turn

    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await node.send((("GET", "a"),))

    assert redis_server.cli("EXISTS", "done") == 0


async def test_what_cannot_be_said_is_the_mistake_of_one(node, redis_server):
    redis_server.cli("SET", "name", "Ada")

    told = await asyncio.gather(node.send((("GET", object()),)), node.send((("GET", "name"),)), return_exceptions=True)

    assert isinstance(told[0], TypeError)
    assert told[1] == ["Ada"]


async def test_a_reply_that_is_no_text_is_told_to_who_asked(node, redis_server):
    redis_server.cli("SET", "name", "Ada")
    redis_server.cli("EVAL", r"return redis.call('SET', KEYS[1], '\255')", 1, "odd")

    replies = await asyncio.gather(node.send((("GET", "odd"),)), node.send((("GET", "name"),)))

    assert isinstance(replies[0][0], UnicodeDecodeError)
    assert replies[1] == ["Ada"]


async def test_a_huge_reply_arrives_whole_and_small_ones_after_it(node, redis_server):
    redis_server.cli("SET", "huge", "x" * 30_000_000)
    redis_server.cli("SET", "small", "y")

    huge, small = await asyncio.gather(node.send((("GET", "huge"),)), node.send((("GET", "small"),)))

    assert len(huge[0]) == 30_000_000
    assert small == ["y"]


@pytest.mark.parametrize("word", sorted(WORDS - {"ASKING", "EVALSHA"}))
async def test_a_reply_is_the_one_that_the_library_would_give(node, redis_server, word):
    """So that nobody has to know which way a command has gone."""
    redis_server.cli("ZADD", "ranked", 1.5, "a")
    redis_server.cli("HSET", "hash", "a", "1")
    redis_server.cli("SADD", "set", "a")
    command = {
        "DEL": ("DEL", "nothing"),
        "EXISTS": ("EXISTS", "hash"),
        "GET": ("GET", "nothing"),
        "HGET": ("HGET", "hash", "a"),
        "HGETALL": ("HGETALL", "hash"),
        "HMGET": ("HMGET", "hash", "a", "b"),
        "SADD": ("SADD", "set", "a"),
        "SREM": ("SREM", "set", "b"),
        "ZADD": ("ZADD", "ranked", 2.5, "a"),
        "ZCOUNT": ("ZCOUNT", "ranked", "(1", "+inf"),
        "ZREM": ("ZREM", "ranked", "b"),
        "ZREMRANGEBYSCORE": ("ZREMRANGEBYSCORE", "ranked", "-inf", 1),
    }[word]

    assert await node.send((command,)) == await node._pipeline((command,))


# What Redis does not know, or does not want


@pytest.fixture
def doubling(tmp_path) -> Script:
    path = tmp_path / "double.lua"
    path.write_text("return ARGV[1] * 2")
    return Script(path)


async def test_a_script_that_redis_has_forgotten_is_told_again(node, doubling, redis_server):
    for _ in range(2):
        replies = await asyncio.gather(*(node.send((("GET", "a"), doubling("k", n))) for n in range(20)))
        assert replies == [[None, 2 * n] for n in range(20)]
        redis_server.cli("SCRIPT", "FLUSH")


async def test_a_refusal_is_a_reply(node, redis_server):
    redis_server.cli("SET", "name", "Ada")

    refused, there = await node.send((("HGETALL", "name"), ("GET", "name")))

    assert isinstance(refused, ResponseError)
    assert there == "Ada"


async def test_a_server_that_is_not_ready_is_no_answer(pretending):
    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await heard(reader)
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")

    store = Store(topology := Single((await pretending(loading))._redis))

    with pytest.raises(StoreUnavailable):
        await store.glance("GET", "a")
    with pytest.raises(StoreUnavailable):
        await store.one(("GET", "a"))
    await topology.close()


# Loss


async def test_all_who_wait_on_a_lost_connection_hear_it_and_the_next_call_has_another(node, proxy):
    proxy.lose(b"GET")

    told = await asyncio.gather(*(node.send((("GET", f"{n}"),)) for n in range(20)), return_exceptions=True)

    assert {type(each) for each in told} == {Failed}
    assert {type(each.cause) for each in told} == {RedisConnectionError}
    assert await node.send((("GET", "a"),)) == [None]


async def test_a_connection_that_died_between_two_calls_costs_one_second_try(proxy, redis_server):
    store = Store(reach(proxy.url))
    for _ in range(10):
        await store.glance("GET", "a")
        redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        assert await store.glance("GET", "a") is None
        assert await store.one(("GET", "a")) is None
    await store.close()


async def test_the_loss_of_a_connection_that_many_share_is_one_failure(node, proxy, hurry):
    hurry(node, 0.5)
    for _ in range(2):
        proxy.lose(b"GET", silently=True)
        calls = [asyncio.create_task(node.send((("GET", f"{n}"),))) for n in range(50)]
        assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {Failed}
        hurry(node, 20)
        assert await node.send((("GET", "a"),)) == [None]
        hurry(node, 0.5)

    assert not node.given_up


async def test_a_silent_server_is_told_in_time_however_many_wait(node, proxy, hurry):
    hurry(node, 0.5)
    proxy.freeze()
    began = time.monotonic()

    async def call() -> float:
        with pytest.raises(Failed):
            await node.send((("GET", "a"),))
        return time.monotonic() - began

    took = await asyncio.gather(*(call() for _ in range(1000)))

    assert min(took) >= 0.4
    proxy.thaw()


async def test_who_has_little_time_is_told_then_and_spoils_nothing_for_the_others(node, proxy):
    proxy.delay = 0.5
    line = node._wire.line

    hasty = asyncio.create_task(node.send((("GET", "a"),), 0.1))
    patient = asyncio.create_task(node.send((("GET", "a"),)))

    with pytest.raises(Failed):
        await hasty
    assert not patient.done()
    assert await patient == [None]
    assert node._wire.line is line


async def test_after_a_call_that_got_no_answer_in_its_full_time_another_connection_is_used(node, proxy, hurry):
    """The second try must not wait where the first one did."""
    proxy.lose(b"lost", silently=True)
    line = node._wire.line
    hurry(node, 0.5)
    with pytest.raises(Failed):
        await node.send((("GET", "lost"),))
    hurry(node, 30)

    assert await node.send((("GET", "a"),)) == [None]
    assert node._wire.line not in (None, line)
    assert len(node._wire._lines) == 1


async def test_a_server_that_accepts_and_never_greets_is_told_in_time():
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", port := free_port())
    node = Node(connect(f"redis://127.0.0.1:{port}"))

    told = await asyncio.gather(*(node.send((("GET", "a"),), 1.0) for _ in range(20)), return_exceptions=True)

    assert {type(each.cause) for each in told} == {TimeoutError}
    await node.close()
    server.close()
    await asyncio.sleep(0.1)


async def test_a_frozen_redis_that_goes_on_is_used_again(own_redis, hurry):
    store = Store(reach(own_redis.url))
    await store.glance("GET", "a")
    hurry(store._topology.node(None), 0.5)
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        with patience(), pytest.raises(StoreUnavailable):
            await store.glance("GET", "a")
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)

    hurry(store._topology.node(None), 30)
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                assert await store.glance("GET", "a") is None
                break
            await asyncio.sleep(0.01)
    await store.close()


@pytest.mark.parametrize(
    "garbage", [b"what?\r\n", b"$-7\r\n", b"\x00" * 100, b"*1\r\n?1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
async def test_garbage_ends_the_connection_and_is_nobodys_answer(pretending, garbage):
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(garbage)
        await asyncio.sleep(30)

    node = await pretending(babble)

    told = await asyncio.gather(*(node.send((("GET", f"{n}"),)) for n in range(3)), return_exceptions=True)

    assert {type(each) for each in told} == {Failed}
    assert {type(each.cause) for each in told} == {RedisConnectionError}


async def test_an_answer_too_many_ends_the_connection_instead_of_shifting_the_others(pretending):
    async def too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(b"+one\r\n+another\r\n")
        await answers(reader, writer)

    node = await pretending(too_much)

    assert await node.send((("GET", "a"),)) == ["one"]
    with suppress(Failed):
        assert await node.send((("GET", "b"),)) != ["another"]


async def test_a_server_that_takes_nothing_more_is_told_in_time(pretending, hurry):
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await heard(reader))[1] == b"first":
            writer.write(b"+first\r\n")
        await asyncio.sleep(30)

    node = await pretending(deaf)
    await node.send((("GET", "first"),))
    hurry(node, 1.0)
    calls = [asyncio.create_task(node.send((("GET", "x" * 1_000_000),))) for _ in range(40)]
    await asyncio.sleep(0.1)
    calls += [asyncio.create_task(node.send((("GET", "late"),))) for _ in range(10)]

    told = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(each.cause) for each in told} == {TimeoutError}


async def test_a_slow_server_hears_all_that_did_not_fit_at_once(pretending):
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        while True:
            _, key = await heard(reader)
            writer.write(b":%d\r\n" % len(key))

    node = await pretending(slow)
    first = [asyncio.create_task(node.send((("GET", "x" * 1_000_000),))) for _ in range(20)]
    await asyncio.sleep(0.1)
    second = [asyncio.create_task(node.send((("GET", "x" * n),))) for n in range(20)]

    assert await asyncio.gather(*first) == [[1_000_000]] * 20
    assert await asyncio.gather(*second) == [[n] for n in range(20)]


async def test_there_is_a_bound_to_how_many_wait(node, proxy):
    proxy.freeze()
    calls = [asyncio.create_task(node.send((("GET", "a"),))) for _ in range(MOST + 5)]

    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 5:
        done, _ = await asyncio.wait(calls, timeout=0.05, return_when=asyncio.ALL_COMPLETED)

    assert all("No connection available" in str(call.exception()) for call in done)
    assert not node.given_up
    proxy.thaw()
    assert await asyncio.gather(*calls[:MOST]) == [[None]] * MOST


# Roles, and the end


async def test_a_connection_on_which_nobody_waits_any_more_for_an_answer_is_left_too(node, proxy, hurry):
    hurry(node, 0.3)
    proxy.lose(b"lost", silently=True)
    waiting = asyncio.create_task(node.send((("GET", "lost"),)))
    await asyncio.sleep(0.05)
    waiting.cancel()

    async with asyncio.timeout(10):
        while node._wire._lines:
            await asyncio.sleep(0.05)
    hurry(node, 30)
    assert await node.send((("GET", "a"),)) == [None]


async def test_after_a_drop_who_waits_still_hears_and_the_next_call_has_another_connection(node, proxy):
    proxy.delay = 0.2
    waiting = asyncio.create_task(node.send((("GET", "a"),)))
    await asyncio.sleep(0.05)
    line = node._wire.line

    await node.drop()

    assert await node.send((("GET", "b"),)) == [None]
    assert await waiting == [None]
    assert node._wire.line is not line
    assert len(node._wire._lines) == 1


async def test_a_close_tells_those_who_wait_and_leaves_nothing_behind(proxy):
    before = asyncio.all_tasks()
    node = Node(connect(proxy.url))
    await node.send((("GET", "a"),))
    proxy.freeze()
    waiting = asyncio.create_task(node.send((("GET", "a"),)))
    await asyncio.sleep(0.05)

    await node.close()

    with pytest.raises(Failed):
        await waiting
    with pytest.raises(Failed):
        await node.send((("GET", "a"),))
    assert not node._wire._lines
    assert {task for task in asyncio.all_tasks() - before if "Proxy" not in repr(task)} == set()
    proxy.thaw()


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_close_while_connecting_cancels_nobody_who_waits(proxy, turns):
    node = Node(connect(proxy.url))
    proxy.freeze()
    waiting = asyncio.create_task(node.send((("GET", "a"),)))
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)

    await node.close()

    with pytest.raises(Failed):
        await waiting
    proxy.thaw()


async def test_nobody_is_asked_on_a_replica(another_redis):
    master, replica = (another_redis("--port", str(free_port())) for _ in range(2))
    port = replica.cli("CONFIG", "GET", "port")["port"]
    store = Store(reach(f"redis://127.0.0.1:{port}"))
    replica.cli("REPLICAOF", "127.0.0.1", master.cli("CONFIG", "GET", "port")["port"])

    with pytest.raises(StoreUnavailable):
        await store.glance("GET", "a")
    await store.close()


async def test_round_trips_are_counted_not_calls(proxy):
    def counted() -> float:
        name = "gatepost_redis_round_trip_duration_seconds_count"
        return metrics.REGISTRY.get_sample_value(name, {"kind": "single"}) or 0.0

    node = Node(connect(proxy.url))
    await node.send((("GET", "a"),))
    before = counted()

    await asyncio.gather(*(node.send((("GET", f"{n}"),)) for n in range(50)))
    await node.close()

    assert counted() == before + 1


# However Redis is reached


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
def test_it_works_on_every_loop_and_every_way(another_redis, tmp_path, loop, way):
    port = str(free_port())
    if way == "tls":
        authority = Authority(tmp_path)
        certificate, key = authority.issue("127.0.0.1")
        files = ("--tls-ca-cert-file", authority.certificate, "--tls-cert-file", certificate, "--tls-key-file", key)
        server = another_redis("--tls-port", port, "--tls-auth-clients", "no", *map(str, files))
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.certificate}"
    else:
        server = another_redis("--port", port)
        url = server.url if way == "unix" else f"redis://127.0.0.1:{port}"
    server.cli("SET", "huge", "x" * 3_000_000)

    async def use() -> list[Any]:
        store = Store(reach(url), tracked=True)
        assert await store.recall("HMGET", "hash", "a") == [None]
        server.cli("HSET", "hash", "a", "1")
        async with asyncio.timeout(20):
            while await store.recall("HMGET", "hash", "a") != ["1"]:
                await asyncio.sleep(0.001)
        found = [len(await store.glance("GET", "huge"))]
        found += await asyncio.gather(*(store.glance("EXISTS", "huge") for _ in range(100)))
        server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        found += await store.run(("EXISTS", "huge"), ("SADD", "set", "a"))
        await store.close()
        return found

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(use()) == [3_000_000, *[1] * 100, 1, 1]


def test_without_resp3_or_in_memory_nothing_is_shared(redis_server):
    import fakeredis

    assert not Node(connect(redis_server.url + "?protocol=2")).shared
    assert not Node(fakeredis.FakeAsyncRedis()).shared
    assert Node(connect(redis_server.url)).shared


async def test_a_connection_from_before_a_change_of_roles_is_left_when_a_new_one_is_refused(another_redis):
    server = another_redis("--port", str(port := free_port()))
    store = Store(reach(f"redis://127.0.0.1:{port}"))
    assert await store.glance("GET", "a") is None
    server.cli("REPLICAOF", "127.0.0.1", free_port())

    await store.look_around()  # there is no pooled connection yet

    with pytest.raises(StoreUnavailable):
        await store.glance("GET", "a")
    await store.close()
