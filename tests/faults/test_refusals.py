"""Redis answers, and says no: it is full, it was demoted, or its replicas are not there."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from service.store import reach
from tests.conftest import PASSWORD, Answer, free_port, until_replicated
from tests.faults.conftest import (
    BACK_WITHIN,
    ENDLESS,
    TOKENS,
    back_to_normal,
    bearer,
    in_time,
    is_unavailable,
    joined,
    refresh,
)
from tests.faults.stopwatch import Stopwatch


async def test_a_full_redis_takes_no_sign_in_and_still_lets_everybody_out(own_redis, serving):
    browser = await serving()
    people = [await joined(browser, f"ada{n}@example.org") for n in range(3)]
    cookies = await serving(at=browser)
    await cookies.register("bob@example.org")
    held = cookies.cookies()
    own_redis.cli("CONFIG", "SET", "maxmemory", "1")

    for refused in (
        await browser.login("ada0@example.org", headers=TOKENS),
        await browser.register("new@example.org", headers=TOKENS),
        await refresh(browser, people[0]),
        await cookies("POST", "/api/auth/refresh"),
    ):
        assert is_unavailable(refused), refused
    assert cookies.cookies() == held
    assert (await browser("GET", "/api/auth/verify", headers=bearer(people[0]), csrf=None)).status == 200
    assert (await browser("POST", "/api/auth/logout", headers=bearer(people[0]), csrf=None)).status == 204
    assert (await browser("POST", "/api/auth/logout", headers=bearer(people[0]), csrf=None)).status == 204
    assert (await browser("POST", "/api/auth/logout-all", headers=bearer(people[1]), csrf=None)).status == 204
    assert (await cookies("POST", "/api/auth/logout")).status == 204
    for signed in people[:2]:
        assert (await browser("GET", "/api/auth/me", headers=bearer(signed), csrf=None)).code == "TOKEN_REVOKED"

    own_redis.cli("CONFIG", "SET", "maxmemory", "0")

    assert (await refresh(browser, people[0])).code == "SESSION_ENDED"
    assert (await refresh(browser, people[2])).status == 200
    assert (await browser.login("ada0@example.org", headers=TOKENS)).status == 200
    assert (await browser.register("new@example.org", headers=TOKENS)).status == 201


async def test_a_demoted_master_is_a_503_for_changes_until_there_is_a_master_again(own_redis, serving):
    browser = await serving()
    await browser.register()
    held = browser.cookies()
    own_redis.cli("REPLICAOF", "127.0.0.1", "1")

    for path in ("/api/auth/refresh", "/api/auth/logout", "/api/auth/logout-all"):
        answer, _ = await in_time(browser("POST", path))
        assert is_unavailable(answer), (path, answer)
    stranger = await serving(at=browser)
    assert is_unavailable((await in_time(stranger.login()))[0])
    assert browser.cookies() == held

    own_redis.cli("REPLICAOF", "NO", "ONE")

    back = await back_to_normal(browser)
    assert (await browser("POST", "/api/auth/refresh")).status == 200
    assert (await stranger.login()).status == 200
    print(f"\ndemoted master: back after {back:.2f} s")


async def test_a_redis_that_still_loads_its_data_is_a_503(own_redis, serving):
    browser = await serving()
    signed = await joined(browser, "ada@example.org")
    for n in range(500):
        own_redis.cli("SET", f"filler:{n}", "x" * 100)
    own_redis.kill()
    # Microseconds for each key that is loaded: a second and a half in all.
    loading = asyncio.create_task(
        asyncio.to_thread(
            own_redis.start, "--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"
        )
    )
    asked = []
    while not loading.done():
        asked.append((await in_time(browser("GET", "/api/auth/me", headers=bearer(signed), csrf=None)))[0])
        await asyncio.sleep(0.02)

    await loading
    await back_to_normal(browser, signed["accessToken"])
    assert {answer.status for answer in asked} <= {200, 503}
    assert (await browser("GET", "/api/auth/me", headers=bearer(signed), csrf=None)).status == 200


@pytest.fixture
async def replicated(another_redis, serving, assembling):
    """A master, and two instances that want one replica to confirm."""
    master = another_redis("--port", str(port := free_port()), "--repl-diskless-sync-delay", "0")
    replica = another_redis("--replicaof", "127.0.0.1", str(port))
    await until_replicated(master)
    its = [await assembling(reach(master.url), REDIS_WAIT_REPLICAS="1") for _ in range(2)]
    return master, replica, port, [await serving(one) for one in its]


async def confirmed(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The first answer that says how things stand, for a replica that writes its file may be late for a moment."""
    async with asyncio.timeout(ENDLESS):
        while is_unavailable(answer := await ask()):
            pass
    return answer


async def test_a_revocation_waits_for_the_replica_and_can_be_repeated_when_it_is_back(replicated):
    master, replica, port, (browser, _) = replicated
    await browser.register()
    assert (await confirmed(lambda: browser("POST", "/api/auth/logout"))).status == 204
    await browser.login()
    held = browser.cookies()
    replica.kill()

    refused, took = await in_time(browser("POST", "/api/auth/logout"))
    assert is_unavailable(refused)
    assert browser.cookies() == held
    assert is_unavailable((await in_time(browser("POST", "/api/auth/logout")))[0])

    replica.start("--replicaof", "127.0.0.1", str(port))
    await until_replicated(master)
    assert (await confirmed(lambda: browser("POST", "/api/auth/logout"))).status == 204
    assert browser.cookies() == {}
    print(f"\nlog-out without its replica: 503 after {took:.2f} s")


async def test_a_password_change_waits_for_the_replica_and_can_be_repeated_when_it_is_back(replicated):
    master, replica, port, (browser, _) = replicated
    await browser.register()
    body = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!!"}
    replica.kill()

    async def change() -> Answer:
        if (await browser("GET", "/api/auth/me")).status == 401:
            await browser("POST", "/api/auth/refresh")
        return (await in_time(browser("POST", "/api/auth/password/change", body)))[0]

    for _ in range(2):
        assert is_unavailable(await change())

    replica.start("--replicaof", "127.0.0.1", str(port))
    await until_replicated(master)
    assert (await confirmed(change)).status == 204
    assert (await browser.login()).code == "INVALID_CREDENTIALS"
    assert (await browser.login(password=PASSWORD + "!!")).status == 200


async def test_a_repeated_log_out_on_another_instance_is_not_confirmed_by_a_replica_that_stands_still(replicated):
    _, replica, _, (one, two) = replicated
    signed = await joined(one, "ada@example.org")
    await two("GET", "/api/auth/me", headers=bearer(signed))
    os.kill(replica.process.pid, signal.SIGSTOP)
    try:
        first = await one("POST", "/api/auth/logout", headers=bearer(signed), csrf=None)
        again = await two("POST", "/api/auth/logout", headers=bearer(signed), csrf=None)
    finally:
        os.kill(replica.process.pid, signal.SIGCONT)

    assert is_unavailable(first)
    assert is_unavailable(again)
    async with asyncio.timeout(ENDLESS), Stopwatch() as watch:
        while (await two("POST", "/api/auth/logout", headers=bearer(signed), csrf=None)).status != 204:
            pass
    assert watch.held < BACK_WITHIN
