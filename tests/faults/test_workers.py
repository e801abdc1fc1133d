"""Several workers on one port: what one process promises, they promise together, and none of them is missed."""

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from service import supervisor
from service.settings import ROOT, SettingsError
from tests.conftest import settings_for
from tests.faults.instances import Instance, get, post
from tests.journeys.test_metrics import Scrape

PASSWORD = "correct horse, battery & staple"
LIBRARIES = "aiohttp, aiohttp_cors, aiohttp_session, argon2, cryptography, jwt, orjson, redis.asyncio, structlog"
TOKEN = "Wq3pV9xQ2mT7wR4yB8nL1cF6hJ5sD0gA-metrics"

# What an interpreter with this directory in its path begins with: there is room for a process unless `full` is there.
NO_PROCESS_LEFT = """
import errno, os
from pathlib import Path
_fork, _full = os.fork, Path(__file__).with_name("full")
def fork():
    if _full.exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()
os.fork = fork
"""
# The same with a shorter patience than half a minute, and workers that stand still when they are asked to.
IMPATIENT = """
import signal, time
from service import serving, supervisor
serving.BEAT, supervisor.LOOK = 0.3, 1.0
def stand_still(*_):
    time.sleep(60)
signal.signal(signal.SIGUSR1, stand_still)
"""
ENDED_BY = """
import signal
from service.serving import end_by
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if %r else ())
end_by(signal.SIGTERM)
"""


def workers(instance: Instance) -> list[int]:
    """The processes below the supervisor."""
    supervisor = instance.process.pid
    return [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def until(held, within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not held():
            await asyncio.sleep(0.02)


def lines(instance: Instance, event: str) -> list[dict]:
    """What the log has of this event."""
    told = [json.loads(line) for line in instance.said.splitlines() if line.startswith("{")]
    return [line for line in told if line["event"] == event]


async def serving(instance: Instance, count: int) -> list[int]:
    """Wait until so many times a worker began to serve; their processes."""
    await until(lambda: len(lines(instance, "serving")) == count)
    return workers(instance)


async def metrics(instance: Instance) -> Scrape:
    reply = await instance.ask(get("/metrics", f"Authorization: Bearer {TOKEN}", "Connection: close"))
    return Scrape(reply.body.decode())


@pytest.fixture
async def two(running):
    """Starts an instance with two workers, and waits for both."""

    async def started(**changes: str) -> Instance:
        instance = await running(**{"WORKERS": "2", "LOG_LEVEL": "info", "METRICS_TOKEN": TOKEN, **changes})
        await serving(instance, int(changes.get("WORKERS", "2")))
        return instance

    return started


async def test_all_answer_on_one_port_and_every_line_says_who(two):
    instance: Instance = await two(WORKERS="3")

    wires = [await instance.connect() for _ in range(90)]
    for wire in wires:
        wire.send(get("/api/auth/me"))
    answers = Counter([(await wire.reply()).status for wire in wires])

    assert answers == {401: 90}
    assert len(workers(instance)) == 3
    assert Counter(line["worker"] for line in lines(instance, "serving")) == {1: 1, 2: 1, 3: 1}
    # By chance, as the kernel spreads them: that one of three gets fewer than ten of 90 does not happen.
    shares = Counter(line["worker"] for line in lines(instance, "request"))
    assert sorted(shares) == [1, 2, 3]
    assert min(shares.values()) > 9
    assert await instance.stop() == 0


async def test_one_worker_is_one_process(running):
    instance: Instance = await running(WORKERS="1", LOG_LEVEL="info")

    assert workers(instance) == []
    assert "worker" not in lines(instance, "serving")[0]
    assert await instance.stop() == 0


async def test_what_one_instance_may_is_shared(two):
    instance: Instance = await two(MAX_CONNECTIONS="501", MAX_CONCURRENT_REQUESTS="100")

    # The second worker looks at itself before it serves, and every five seconds.
    told = await metrics(instance)

    assert told("http_connections_limit") == 502
    assert told("http_requests_in_flight_limit") == 100
    assert told("hashing_threads") == max(2, os.cpu_count() + os.cpu_count() % 2)
    assert told("workers") == 2


async def test_a_worker_that_is_killed_is_replaced_and_who_stood_at_its_door_is_answered(two):
    """Connected and asked while it stood still, accepted by nobody: its successor answers."""
    instance: Instance = await two()
    first, second = workers(instance)

    os.kill(first, signal.SIGSTOP)
    waiting = [await instance.connect() for _ in range(40)]
    for wire in waiting:
        wire.send(get("/health"))
    os.kill(first, signal.SIGKILL)

    assert Counter([(await wire.reply()).status for wire in waiting]) == {200: 40}
    (ended,) = lines(instance, "worker.ended")
    assert (ended["worker"], ended["pid"], ended["how"], ended["again_in"]) == (1, first, "SIGKILL", 0.0)
    assert second in await serving(instance, 3)
    assert first not in workers(instance)
    assert await instance.stop() == 0


@pytest.fixture
def impatient(tmp_path) -> dict[str, str]:
    """Settings with which a worker that stands still is replaced after six seconds."""
    path = tmp_path / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(IMPATIENT)
    return {"PYTHONPATH": f"{path}:{ROOT}"}


async def test_a_worker_that_stands_still_says_where_and_is_replaced(two, impatient):
    instance: Instance = await two(**impatient)
    first, second = workers(instance)

    os.kill(first, signal.SIGUSR1)
    await asyncio.sleep(0.3)
    waiting = [await instance.connect() for _ in range(40)]
    for wire in waiting:
        wire.send(get("/health"))

    assert Counter([(await wire.reply()).status for wire in waiting]) == {200: 40}
    for event in ("worker.silent", "worker.stood", "worker.hung", "worker.ended"):
        (told,) = lines(instance, event)
        assert (told["worker"], told["pid"]) == (1, first)
    (stood,) = lines(instance, "worker.stood")
    assert " in stand_still" in stood["traceback"].splitlines()[1]  # the innermost call of the main thread
    assert "told" not in lines(instance, "worker.hung")[0]
    assert [line for line in instance.said.splitlines() if not line.startswith("{")] == []
    assert second in await serving(instance, 3)
    assert (await metrics(instance))("workers_hung_total") == 1
    assert await instance.stop() == 0


async def test_a_worker_that_is_stopped_is_replaced_too(two, impatient):
    instance: Instance = await two(**impatient)
    first, second = workers(instance)

    os.kill(first, signal.SIGSTOP)
    await serving(instance, 3)

    assert not alive(first)
    assert second in workers(instance)
    assert lines(instance, "worker.stood") == []
    assert "it is stopped" in lines(instance, "worker.hung")[0]["told"]
    assert [line["how"] for line in lines(instance, "worker.ended")] == ["SIGKILL"]
    assert await instance.stop() == 0


async def test_who_was_paused_together_goes_on_together(two, impatient):
    """As a container is, or a machine whose lid is closed; whoever wakes up first."""
    instance: Instance = await two(**impatient)
    pids = workers(instance)
    everybody = [instance.process.pid, *pids]

    for order in (everybody, everybody[::-1]):
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(8)
        for pid in order:
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.3)
    await asyncio.sleep(2)

    assert workers(instance) == pids
    assert lines(instance, "worker.silent") == []
    assert (await instance.ask(get("/ready"))).status == 200
    assert await instance.stop() == 0


async def test_a_worker_that_leaves_alone_is_replaced_and_nobody_notices(two):
    instance: Instance = await two(DRAIN_SECONDS="60")
    first = workers(instance)[0]
    statuses: Counter[int] = Counter()

    async def asks() -> None:
        while not lines(instance, "worker.ended"):
            for _ in range(20):
                statuses[(await instance.ask(get("/health", "Connection: close"))).status] += 1

    asking = asyncio.gather(*(asks() for _ in range(4)))
    os.kill(first, signal.SIGTERM)
    await asking
    await serving(instance, 3)

    assert statuses.keys() == {200}
    assert [line["how"] for line in lines(instance, "worker.ended")] == ["status 0"]
    assert Counter([(await instance.ask(get("/ready"))).status for _ in range(20)]) == {200: 20}


async def test_a_worker_that_dies_again_and_again_is_waited_for_and_the_other_answers_everybody(two):
    instance: Instance = await two()
    (victim, other), begun = workers(instance), 2
    for pause in (0.0, 0.5, 1.0):
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not alive(victim))  # noqa: B023
        if pause:
            await until(lambda: lines(instance, "worker.ended")[-1]["again_in"] == pause)  # noqa: B023
            assert Counter([(await instance.ask(get("/health"), 0.4)).status for _ in range(20)]) == {200: 20}
        begun += 1
        (victim,) = set(await serving(instance, begun)) - {other}

    assert [line["again_in"] for line in lines(instance, "worker.ended")] == [0.0, 0.5, 1.0]
    assert Counter([(await instance.ask(get("/health"))).status for _ in range(20)]) == {200: 20}
    assert await instance.stop() == 0


async def test_a_system_without_room_for_a_process_costs_no_worker_that_lives(two, tmp_path):
    path = tmp_path / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(NO_PROCESS_LEFT)
    instance: Instance = await two(PYTHONPATH=f"{path}:{ROOT}")
    victim, other = workers(instance)

    (path / "full").touch()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: lines(instance, "worker.not_begun"))
    statuses = Counter([(await instance.ask(get("/ready"))).status for _ in range(20)])
    (path / "full").unlink()
    now = await serving(instance, 3)

    assert statuses == {200: 20}
    (told,) = lines(instance, "worker.not_begun")
    assert (told["worker"], told["again_in"]) == (1, supervisor.LONGEST_PAUSE)
    assert other in now
    assert len(now) == 2
    assert await instance.stop() == 0


async def test_a_log_that_nobody_reads_any_more_ends_no_supervisor(running):
    reads, writes = os.pipe()
    instance: Instance = await running(before=lambda: [os.dup2(writes, output) for output in (1, 2)], WORKERS="2")
    os.close(writes)
    await until(lambda: len(workers(instance)) == 2)
    (victim, other) = workers(instance)

    os.close(reads)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: len(workers(instance)) == 2 and victim not in workers(instance))

    assert other in workers(instance)
    assert (await instance.ask(get("/ready"))).status == 200


async def test_who_cleans_up_old_files_takes_neither_metrics_nor_workers(two, tmp_path):
    counts = tmp_path / "counts"
    counts.mkdir()
    instance: Instance = await two(PROMETHEUS_MULTIPROC_DIR=str(counts))
    (folder,) = counts.iterdir()

    shutil.rmtree(folder)
    alone = await metrics(instance)
    os.kill(workers(instance)[0], signal.SIGKILL)
    await serving(instance, 3)
    after = await metrics(instance)

    assert alone("workers") == after("workers") == 1, "whoever still can tells"
    assert after("workers_replaced_total") == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert await instance.stop() == 0
    assert list(counts.iterdir()) == []


async def test_what_a_worker_counted_outlives_it(two):
    instance: Instance = await two()
    for _ in range(40):
        assert (await instance.ask(get("/api/auth/me", "Connection: close"))).status == 401
    before = await metrics(instance)
    victim = workers(instance)[0]

    os.kill(victim, signal.SIGKILL)
    await serving(instance, 3)
    for _ in range(10):
        await instance.ask(get("/api/auth/me", "Connection: close"))
    after = await metrics(instance)

    assert before("http_requests_total", route="/api/auth/me", status="401") == 40
    assert after("http_requests_total", route="/api/auth/me", status="401") == 50
    assert after("workers") == 2
    assert after("workers_replaced_total") == 1
    (spent_before,), (spent,) = (each.of("process_cpu_seconds_total") for each in (before, after))
    assert spent >= spent_before > 0
    assert after.of("process_resident_memory_bytes")[0] > 2 * 40e6
    assert after("build_info") == 1


@pytest.mark.parametrize("count", ["1", "2"])
async def test_what_cannot_be_served_is_said_once_and_ends_all_with_the_status_of_one(own_redis, tmp_path, count):
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    instance = Instance(tmp_path, own_redis.url, WORKERS=count, REDIS_ALLOW_UNSAFE="off")

    status = await instance.ended()

    assert status == 3
    assert [line for line in instance.said.splitlines() if not line.startswith("{")] == [
        "Gatepost cannot start:",
        "  - maxmemory-policy is volatile-lru: Redis may forget sessions and accounts; set noeviction.",
        "  - config/redis.conf has the lines. A provider that keeps data safe another way: REDIS_ALLOW_UNSAFE=on.",
    ]


async def test_a_worker_that_may_not_begin_again_ends_the_instance(two, own_redis):
    instance: Instance = await two(REDIS_ALLOW_UNSAFE="off")
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "volatile-lru")

    os.kill(workers(instance)[1], signal.SIGKILL)

    assert await instance.ended() == 3
    assert instance.said.count("Gatepost cannot start:") == 1


async def test_a_second_signal_ends_those_at_once_who_leave_since_one_was_refused(two, own_redis):
    instance: Instance = await two(REDIS_ALLOW_UNSAFE="off", DRAIN_SECONDS="60")
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    os.kill(workers(instance)[1], signal.SIGKILL)
    await until(lambda: '"stopping"' in instance.said)
    began = time.monotonic()

    instance.signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert (await instance.ask(get("/health"))).status == 200
    instance.signal(signal.SIGTERM)

    assert await instance.ended() == -signal.SIGTERM
    assert time.monotonic() - began < 4


async def test_a_port_in_use_is_said_once(running, own_redis, tmp_path):
    instance: Instance = await running(WORKERS="2")

    second = Instance(tmp_path, own_redis.url, port=instance.port, WORKERS="2")

    assert await second.ended() == 3
    first, told = second.said.splitlines()
    assert first == "Gatepost cannot start:"
    assert told.startswith(f"  - Cannot listen on 127.0.0.1:{instance.port}: Gatepost runs there already, see http://")
    assert (await instance.ask(get("/ready"))).status == 200


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_all_leave_together_and_nothing_is_lost(two, sign):
    """No balancer and no drain time: clients that keep their connections, and clients that come anew each time."""
    instance: Instance = await two()
    person = {"email": "ada@example.org", "password": PASSWORD}
    signed = (await instance.ask(post("/api/auth/register", person, "X-Auth-Mode: token"))).json
    bearer = f"Authorization: Bearer {signed['accessToken']}"
    statuses: Counter[int] = Counter()

    async def stays() -> None:
        wire = await instance.connect()
        while True:
            wire.send(get("/api/auth/verify", bearer))
            reply = await wire.reply()
            statuses[reply.status] += 1
            if reply.headers.get("connection") == "close":
                return

    async def comes_again() -> None:
        while True:
            try:
                wire = await instance.connect()
            except ConnectionRefusedError:
                return  # before it was asked anything
            wire.send(get("/api/auth/verify", bearer, "Connection: close"))
            statuses[(await wire.reply()).status] += 1
            wire.close()

    asking = asyncio.gather(*(stays() for _ in range(24)), *(comes_again() for _ in range(8)))
    await asyncio.sleep(1)
    instance.signal(sign)
    await asking

    assert statuses.keys() == {200}
    assert await instance.ended() == 0
    print(f"\n{statuses[200]} requests, none lost")


async def test_while_they_drain_all_say_so_and_answer(two):
    instance: Instance = await two(DRAIN_SECONDS="3")

    instance.signal(signal.SIGTERM)
    await until(lambda: len(lines(instance, "stopping")) == 2)
    ready = [await instance.ask(get("/ready")) for _ in range(16)]

    assert {(reply.status, reply.headers["connection"]) for reply in ready} == {(503, "close")}
    assert await instance.ended() == 0


async def test_a_second_signal_ends_all_at_once(two):
    instance: Instance = await two(DRAIN_SECONDS="60")
    pids = workers(instance)
    instance.signal(signal.SIGTERM)
    await asyncio.sleep(1)
    assert (await instance.ask(get("/health"))).status == 200
    began = time.monotonic()

    instance.signal(signal.SIGTERM)

    assert await instance.ended() == -signal.SIGTERM
    assert time.monotonic() - began < 3
    assert not any(map(alive, pids))


@pytest.mark.parametrize(("spared", "status"), [(False, -signal.SIGTERM), (True, 128 + signal.SIGTERM)])
def test_who_ends_by_a_signal_ends_where_the_system_spares_it_too(spared, status):
    """As it does the first process of a container."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", ENDED_BY % spared], env=environ, timeout=60).returncode == status


async def test_a_terminals_ctrl_c_and_the_word_of_a_process_manager_are_one_wish(two):
    """Everybody in the foreground gets the first, and a manager of a whole group tells everybody the second."""
    instance: Instance = await two(DRAIN_SECONDS="3")
    pids = [*workers(instance), instance.process.pid]
    began = time.monotonic()

    for sign in (signal.SIGINT, signal.SIGTERM):
        for pid in pids:
            os.kill(pid, sign)
    await asyncio.sleep(0.5)

    assert (await instance.ask(get("/health"))).status == 200
    assert await instance.ended() == 0
    assert time.monotonic() - began >= 3, "they have drained"
    assert lines(instance, "stopping.at_once") == []


async def test_no_other_signal_ends_it(two):
    instance: Instance = await two()
    pids = workers(instance)

    for sign in (signal.SIGHUP, signal.SIGPIPE, signal.SIGHUP):
        for pid in (instance.process.pid, *pids):
            os.kill(pid, sign)
        await asyncio.sleep(0.2)

    assert (await instance.ask(get("/ready"))).status == 200
    assert workers(instance) == pids
    assert await instance.stop() == 0


async def test_workers_whose_supervisor_is_killed_finish_and_leave_the_port(two):
    instance: Instance = await two(DRAIN_SECONDS="60")
    pids = workers(instance)
    body = post("/api/auth/login", {"email": "ada@example.org", "password": PASSWORD})
    asking = [await instance.connect() for _ in range(8)]
    for wire in asking:
        wire.send(body)

    instance.signal(signal.SIGKILL)

    replies = [await wire.reply() for wire in asking]
    codes = {reply.json["code"] for reply in replies}
    assert codes - {"OVERLOADED"} == {"INVALID_CREDENTIALS"}  # a busy machine has no core for all of them
    await until(lambda: not any(map(alive, pids)), 15)
    assert Counter(line["worker"] for line in lines(instance, "supervisor.gone")) == {1: 1, 2: 1}
    with socket.socket() as next_one:
        next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        next_one.bind(("127.0.0.1", instance.port))


@pytest.mark.parametrize("count", [1, 2])
async def test_a_start_and_an_idle_worker_cost_little(running, count):
    """In time of a core, beside what importing our libraries alone takes; memory as the system counts it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    imports = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    instance: Instance = await running(WORKERS=str(count), LOG_LEVEL="info")
    await until(lambda: len(lines(instance, "serving")) == count)
    pids = [instance.process.pid, *workers(instance)]
    ticks = os.sysconf("SC_CLK_TCK")
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    spent = sum((int(fields[11]) + int(fields[12])) / ticks for fields in stats)

    await asyncio.sleep(6)  # until the upkeep has been there
    resident = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 for pid in pids
    ]

    print(f"\n{count} worker(s): {spent:.2f} s of a core to begin, {[round(each) for each in resident]} MB")
    assert spent < 2 * imports
    assert max(resident) < 90


async def test_a_worker_begins_with_nothing_of_its_supervisors(two):
    """No file of another's, and numbers by chance that are its own."""
    instance: Instance = await two()
    doors = []
    for pid in workers(instance):
        listening = subprocess.run(["ls", "-l", f"/proc/{pid}/fd"], capture_output=True, text=True, check=True).stdout
        doors.append({word for word in listening.split() if word.startswith("socket:")})

    first, second = doors
    assert first & second == set()
    ids = [(await instance.ask(get("/health"))).headers["x-request-id"] for _ in range(40)]
    assert len(set(ids)) == 40


def test_a_family_of_addresses_that_the_system_does_not_know_is_left_out(monkeypatch):
    """A name such as localhost has an address of IPv6, too, where there is none."""
    unknown = (12, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))  # DECnet, which left Linux in 2022
    known = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))
    settings = settings_for(HOST="localhost")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown, known])
    doors = [door for each in supervisor._doors(settings, 2) for door in each]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown])
    with pytest.raises(SettingsError, match="Cannot listen on localhost"):
        supervisor._doors(settings, 2)

    assert [door.family for door in doors] == [socket.AF_INET] * 2
    for door in doors:
        door.close()
