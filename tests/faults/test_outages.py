"""Redis away: every route that needs it says 503 in time, nothing is taken away, and all is well again by itself."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp.test_utils import TestServer

from service.app import assemble, make_app
from service.store import Single, reach
from tests.conftest import PASSWORD, cheap_passwords, settings_for
from tests.faults.conftest import (
    ENDLESS,
    TOKENS,
    back_to_normal,
    bearer,
    frozen,
    in_time,
    is_unavailable,
    joined,
    refresh,
)

# Routes that are for anyone and need Redis are asked with these bodies.
BODIES = {
    "POST /api/auth/register": {"email": "new@example.org", "password": PASSWORD},
    "POST /api/auth/login": {"email": "ada@example.org", "password": PASSWORD},
    "POST /api/auth/password/forgot": {"email": "ada@example.org"},
    "POST /api/auth/password/reset": {"token": "ot_" + "x" * 32, "newPassword": PASSWORD},
    "POST /api/auth/email/verify": {"token": "ot_" + "x" * 32},
    "POST /api/auth/refresh": None,
    "POST /api/auth/logout": None,
    "GET /api/auth/csrf-token": None,
    "GET /api/auth/{provider}": None,
    "GET /api/auth/{provider}/callback": None,
}
FORMS = {"POST /api/auth/revoke", "POST /api/auth/introspect"}
BY_STRANGERS = {"POST /api/auth/register", "POST /api/auth/login", "GET /api/auth/csrf-token"}


def routes_that(browser, needed: bool) -> list[str]:
    """Every route that cannot answer without Redis, or every one that can, as `METHOD path`."""
    found = []
    for route in browser.client.app.router.routes():
        if route.method in ("HEAD", "OPTIONS"):
            continue
        name = f"{route.method} {route.resource.canonical}"
        if route.handler.contract.redis != needed:
            continue
        anyone = route.handler.access.who == "anyone"
        assert not needed or not anyone or name in BODIES or name in FORMS, f"{name} is new: add it to BODIES"
        found.append(name)
    return found


async def ask(browser, stranger, name: str):
    method, path = name.split(" ")
    asking = stranger if name in BY_STRANGERS else browser
    path = path.replace("{id}", "x" * 22).replace("{provider}", "github")
    if path.endswith("/callback"):
        path += "?code=c&state=s"
    if name in FORMS:
        token = next(value for name, value in browser.cookies().items() if name.endswith("refreshToken"))
        return await asking(method, path, data={"token": token})
    return await asking(method, path, BODIES.get(name), headers={"Accept": "application/json"})


@pytest.fixture(params=["killed", "frozen", "silent", "refusing"])
def outage(request, own_redis, proxy):
    """Takes Redis away in one way, for the length of the block."""

    @asynccontextmanager
    async def away():
        match request.param:
            case "killed":
                own_redis.kill()
                yield
                own_redis.start()
            case "frozen":
                with frozen(own_redis):
                    yield
            case "silent":
                proxy.freeze()
                yield
                proxy.thaw()
            case "refusing":
                await proxy.stop()
                yield
                await proxy.start()

    return away


async def test_every_route_says_503_in_time_takes_no_cookie_and_recovers_by_itself(
    outage, proxy, serving, assembling, request
):
    github = {"GITHUB_CLIENT_ID": "id", "GITHUB_CLIENT_SECRET": "secret"}
    browser = await serving(await assembling(reach(proxy.url), **github))
    stranger = await serving(at=browser)
    signed = (await browser.register()).json
    cookies = browser.cookies()
    names, others = routes_that(browser, needed=True), routes_that(browser, needed=False)

    async with outage():
        *asked, (ready, _) = await asyncio.gather(
            *(in_time(ask(browser, stranger, name)) for name in [*names, *others]), in_time(browser("GET", "/ready"))
        )
    asked, spared = asked[: len(names)], dict(zip(others, asked[len(names) :], strict=True))

    back = await back_to_normal(browser, signed["accessToken"])
    assert len(names) >= 25
    assert [name for name, (answer, _) in zip(names, asked, strict=True) if not is_unavailable(answer)] == []
    assert {name for name, (answer, _) in spared.items() if answer.status != 200} == {"GET /ready"}
    assert ready.status == 503
    assert ready.headers["Retry-After"] == "1"
    assert browser.cookies() == cookies
    assert stranger.cookies() == {}
    assert (await browser("POST", "/api/auth/refresh")).status == 200
    print(f"\n{request.node.name}: longest {max(took for _, took in asked):.2f} s, back after {back:.2f} s")


async def test_a_redis_frozen_in_the_middle_of_a_storm_harms_nobody(own_redis, serving):
    browser = await serving()
    people = [await joined(browser, f"storm{n}@example.org") for n in range(30)]

    with frozen(own_redis):
        # More than the pool has connections; each token twice, as of two tabs.
        stormed = await asyncio.gather(*(in_time(refresh(browser, signed)) for signed in [*people, *people]))
    await back_to_normal(browser, people[0]["accessToken"])

    assert all(is_unavailable(answer) for answer, _ in stormed)
    assert {(await refresh(browser, signed)).status for signed in people} == {200}


async def test_what_was_acknowledged_survives_a_kill_under_load(own_redis, serving):
    browser = await serving()
    registered, refreshed, ended, changed = [], [], [], []
    people = [await joined(browser, f"before{n}@example.org") for n in range(30)]
    stop = asyncio.Event()

    async def registers(n: int):
        while not stop.is_set():
            email = f"load{n}-{len(registered)}@example.org"
            if (await browser.register(email, headers=TOKENS)).status == 201:
                registered.append(email)

    async def refreshes(signed):
        while not stop.is_set():
            answer = await refresh(browser, signed)
            assert answer.status in (200, 503), answer
            if answer.status == 200:
                signed.update(answer.json)
        refreshed.append(signed)

    async def signs_out(signed):
        answer = await browser("POST", "/api/auth/logout", headers=bearer(signed), csrf=None)
        if answer.status == 204:
            ended.append(signed)

    async def changes(signed):
        body = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "2"}
        answer = await browser("POST", "/api/auth/password/change", body, headers=bearer(signed), csrf=None)
        if answer.status == 204:
            changed.append(signed["user"]["email"])

    async def one_after_another(act, some):
        for signed in some:
            await act(signed)
            await asyncio.sleep(0.03)

    working = asyncio.gather(
        *(registers(n) for n in range(3)),
        *(refreshes(signed) for signed in people[:5]),
        one_after_another(signs_out, people[5:15]),
        one_after_another(changes, people[15:25]),
    )
    async with asyncio.timeout(ENDLESS):
        while not (len(registered) > 3 and len(ended) > 3 and len(changed) > 3):
            await asyncio.sleep(0.01)
    own_redis.kill()
    await asyncio.sleep(0.3)
    own_redis.start()
    back = await back_to_normal(browser, people[25]["accessToken"])
    stop.set()
    await working

    assert {(await refresh(browser, signed)).status for signed in refreshed} == {200}
    assert {(await refresh(browser, signed)).code for signed in ended} == {"SESSION_ENDED"}
    assert {(await browser("GET", "/api/auth/me", headers=bearer(it), csrf=None)).code for it in ended} == {
        "TOKEN_REVOKED"
    }
    for email in registered:
        assert (await browser.login(email, headers=TOKENS)).status == 200
    for email in changed:
        assert (await browser.login(email, headers=TOKENS)).code == "INVALID_CREDENTIALS"
        assert (await browser.login(email, PASSWORD + "2", headers=TOKENS)).status == 200
    print(
        f"\nkill under load: {len(registered)} registered, {len(ended)} signed out, {len(changed)} passwords changed, "
        f"none lost; back after {back:.2f} s"
    )


async def test_a_redis_that_comes_back_empty_signs_everybody_out_and_nobody_in(own_redis, serving, assembling):
    one, two = await serving(), await serving()
    signed = await joined(one, "ada@example.org")
    other = await joined(one, "bob@example.org")
    await two("GET", "/api/auth/me", headers=bearer(signed))
    own_redis.kill()
    shutil.rmtree(own_redis.directory / "appendonlydir")

    own_redis.start()
    await asyncio.gather(back_to_normal(one), back_to_normal(two))

    for browser in (one, two):
        assert (await browser("GET", "/api/auth/me", headers=bearer(signed))).code == "TOKEN_REVOKED"
        assert (await refresh(browser, other)).code == "SESSION_ENDED"
        assert (await browser.login("ada@example.org", headers=TOKENS)).code == "INVALID_CREDENTIALS"
    again = await joined(one, "ada@example.org")
    assert (await two("GET", "/api/auth/me", headers=bearer(again))).status == 200
    assert (await two.login("ada@example.org", headers=TOKENS)).status == 200
    assert (await two.register("ada@example.org", headers=TOKENS)).code == "EMAIL_EXISTS"
    newcomer = await serving()
    assert (await newcomer("GET", "/api/auth/me", headers=bearer(again))).status in (200, 401)
    keys = [(await browser("GET", "/.well-known/jwks.json")).json for browser in (one, two)]
    assert keys[0] == keys[1]


async def test_an_instance_that_starts_while_redis_is_away_recovers_by_itself(own_redis, serving, connecting):
    own_redis.kill()
    browser = await serving(assemble(settings_for(), Single(connecting()), cheap_passwords()))
    early, _ = await in_time(browser.register())
    health, ready = await browser("GET", "/health"), await browser("GET", "/ready")
    keys = await browser("GET", "/.well-known/jwks.json")

    own_redis.start()
    back = await back_to_normal(browser)

    assert is_unavailable(early)
    assert is_unavailable(keys)
    assert (health.status, ready.status) == (200, 503)
    assert (await browser.register()).status == 201
    print(f"\nstarted without Redis: back after {back:.2f} s")


async def test_a_slow_redis_means_a_right_answer_or_503_and_both_in_time(serving, assembling, proxy):
    browser = await serving(await assembling(reach(proxy.url)))
    signed = await joined(browser, "ada@example.org")
    slow: dict[str, Callable[[], Awaitable]] = {
        "register": lambda: browser.register("new@example.org", headers=TOKENS),
        "login": lambda: browser.login(headers=TOKENS),
        "me": lambda: browser("GET", "/api/auth/me", headers=bearer(signed)),
        "refresh": lambda: refresh(browser, signed),
    }
    await asyncio.gather(*(slow["me"]() for _ in range(8)))  # connections are there already
    proxy.delay = 0.3

    asked = await asyncio.gather(*(in_time(asking()) for asking in slow.values()))
    proxy.delay = 0.0

    for answer, _ in asked:
        assert answer.status in (200, 201) or is_unavailable(answer), answer
    assert [answer.status for answer, _ in asked[2:]] == [200, 200]
    told = [f"{name} {answer.status} {took:.2f} s" for name, (answer, took) in zip(slow, asked, strict=True)]
    print(f"\nslow Redis: {', '.join(told)}")


async def test_a_redis_that_takes_almost_a_second_each_time_is_still_answered_in_time(serving, assembling, proxy):
    browser = await serving(await assembling(reach(proxy.url)))
    signed = await joined(browser, "ada@example.org")
    body = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}
    proxy.delay = 0.85

    answer, took = await in_time(browser("POST", "/api/auth/password/change", body, headers=bearer(signed), csrf=None))
    proxy.delay = 0.0

    assert is_unavailable(answer)
    print(f"\nRedis at 0.85 s an answer: password change {answer.status} after {took:.2f} s")


async def test_a_flushed_script_cache_is_not_noticed(own_redis, serving):
    browser = await serving()
    await browser.register()
    for method, path in (("POST", "/api/auth/refresh"), ("GET", "/api/auth/me"), ("POST", "/api/auth/logout")):
        own_redis.cli("SCRIPT", "FLUSH")

        assert (await browser(method, path)).status in (200, 204)
    own_redis.cli("SCRIPT", "FLUSH")
    assert (await browser.login()).status == 200


async def test_server_stops_while_redis_is_away(own_redis, assembling):
    its = await assembling()
    server = TestServer(make_app(its))
    await server.start_server()
    own_redis.kill()

    async with asyncio.timeout(ENDLESS):
        await server.close()
