"""The key ring: a new key is published, signs, checks and goes, and nobody notices; a retired one is refused."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from service.app import assemble, look_after
from service.errors import NotFound, StoreUnavailable
from service.parts import Parts
from service.settings import ROOT, SettingsError
from service.store import Single
from service.tokens.keys import _TURN, KeysOfOnesOwn, SigningKey, State, signs_now
from tests.conftest import PASSWORD, SECRET, Browser, cheap_passwords, gather, settings_for
from tests.oauth import openid_provider

TOKENS = {"X-Auth-Mode": "token"}
OURS = "http://localhost:8000"
NEW_SECRET = "the secret that comes next 77c01e5ab2"


async def sign_up(browser: Browser, email: str = "ada@example.org") -> dict[str, Any]:
    return (await browser.register(email, headers=TOKENS)).json


async def renewed(browser: Browser, signed: dict[str, Any]) -> dict[str, Any]:
    answer = await browser("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]}, csrf=None)
    assert answer.status == 200, answer
    return signed | answer.json


async def me(browser: Browser, signed: dict[str, Any]) -> str:
    headers = {"Authorization": f"Bearer {signed['accessToken']}"}
    answer = await browser("GET", "/api/auth/me", headers=headers, csrf=None)
    return "" if answer.status == 200 else answer.code


def kid_of(signed: dict[str, Any]) -> str:
    return jwt.get_unverified_header(signed["accessToken"])["kid"]


async def published(browser: Browser) -> set[str]:
    return {key["kid"] for key in (await browser("GET", "/.well-known/jwks.json")).json["keys"]}


async def the_rest(*instances: Parts) -> None:
    for its in instances:
        await look_after(its)


# The schedule


async def test_a_new_key_is_published_before_it_signs_and_stays_until_its_last_token_is_over(
    assembling, serving, later
):
    one, two = await assembling(), await assembling()
    here, there = await serving(one), await serving(two)
    signed = await sign_up(here)
    old = kid_of(signed)

    new = (await one.keys.rotate()).kid
    await the_rest(one, two)
    assert await published(here) == await published(there) == {old, new}
    await later("9m")
    await the_rest(one, two)
    assert {kid_of(await renewed(at, signed)) for at in (here, there)} == {old}

    await later("2m")
    await the_rest(one, two)
    signed = await renewed(here, signed)
    assert kid_of(signed) == new
    assert await me(there, signed) == ""
    await later("14m")
    await the_rest(one, two)
    assert await published(there) == {old, new}

    await later("3m")
    await the_rest(two, one)
    assert await published(here) == await published(there) == {new}


async def test_an_old_token_is_good_to_its_end_while_the_ring_turns(assembling, serving, later):
    its = await assembling()
    browser = await serving(its)
    await its.keys.rotate()
    await later("9m")
    last = await sign_up(browser)
    await later("2m")
    await the_rest(its)
    assert kid_of(last) != its.keys.signing().kid

    await later("9m")
    await the_rest(its)
    assert await me(browser, last) == ""


async def test_the_ring_turns_by_itself_once_however_many_look(assembling, later):
    instances = [await assembling() for _ in range(4)]
    first = instances[0].keys.signing().kid

    await later("29d")
    await gather(*(look_after(its) for its in instances))
    assert [key.kid for key in instances[0].keys.all()] == [first]
    await later("1d")
    await gather(*(look_after(its) for its in instances))
    await the_rest(*instances)

    assert len({json.dumps(its.keys.jwks(), sort_keys=True) for its in instances}) == 1
    listed = instances[0].keys.all()
    assert [key.state for key in listed] == [State.WAITING, State.SIGNING]
    assert listed[1].kid == first
    await later("11m")
    await the_rest(*instances)
    assert {its.keys.signing().kid for its in instances} == {listed[0].kid}


async def test_with_rotation_off_the_key_stays(assembling, later):
    its = await assembling(KEY_ROTATION="0")
    kid = its.keys.signing().kid

    await later("365d")
    await look_after(its)

    assert [key.kid for key in its.keys.all()] == [kid]


async def test_instances_that_rotate_at_once_make_one_new_key(assembling):
    instances = [await assembling() for _ in range(4)]

    made = await gather(*(its.keys.rotate() for its in instances for _ in range(2)))

    assert len({key.kid for key in made}) == 1
    await the_rest(*instances)
    assert [len(its.keys.all()) for its in instances] == [2] * 4


async def test_a_ring_of_the_version_before_goes_on(assembling, connecting, later, serving):
    """Its entries had the time when a key was made in the place of the time when it begins to sign."""
    its = await assembling()
    signed = await sign_up(await serving(its))
    redis = connecting()
    ((kid, entry),) = (await redis.hgetall("signing-keys")).items()
    algorithm, made, sealed = entry.split(" ")
    assert (algorithm, kid) == ("ES256", kid_of(signed))
    assert made.isdigit()
    assert len(sealed) > 100
    await redis.aclose()

    newcomer = await assembling()
    assert await me(await serving(newcomer), signed) == ""
    assert newcomer.keys.signing().kid == kid
    await later("30d")
    await look_after(newcomer)
    assert len(newcomer.keys.all()) == 2


async def test_a_turn_whose_reply_was_lost_can_be_repeated(parts):
    await parts.keys.rotate()
    new = SigningKey.asymmetric("ES256", ec.generate_private_key(ec.SECP256R1()))
    ring = "a ring of its own"
    begin, asked = (ring, "ES256", "", 0, "", 0, 600_000, 960_000, 0), (ring, "ES256", new.kid, 0, "s", 0, 1, 1, 1)

    assert (await parts.store.one(_TURN(*begin)))[0] == "make"
    told = [await parts.store.one(_TURN(*asked)) for _ in range(3)]

    assert [answer[0] for answer in told] == ["added"] * 3
    assert told[0][2:] == told[1][2:] == told[2][2:]
    assert len(told[0]) == 4


async def test_each_algorithm_has_a_ring_of_its_own(assembling, later):
    before = await assembling(JWT_ALGORITHM="ES256")
    after = await assembling(JWT_ALGORITHM="EdDSA")
    await before.keys.rotate()
    await later("30m")
    await the_rest(before, after)

    assert [key.algorithm for key in after.keys.all()].count("ES256") == 1
    assert before.keys.signing().algorithm == "ES256"
    assert after.keys.signing().algorithm == "EdDSA"


def test_of_several_keys_the_one_that_began_last_signs():
    first, second, third = (SigningKey(str(at), "ES256", None, None, signs_from=at) for at in (10, 20, 30))

    told = [signs_now([third, first, second], now).kid for now in (5, 10, 19, 20, 29, 30, 99)]

    assert told == ["10", "10", "10", "20", "20", "30", "30"]


def test_a_rotation_by_the_minute_is_refused():
    for value in ("1s", "59m"):
        with pytest.raises(SettingsError, match="KEY_ROTATION is too short"):
            settings_for(KEY_ROTATION=value)


async def test_who_has_a_wrong_secret_adds_nothing_to_the_ring(assembling, connecting, later):
    its = await assembling()
    await later("31d")
    stranger = assemble(settings_for(AUTH_SECRET=NEW_SECRET), Single(connecting()), cheap_passwords())

    with pytest.raises(StoreUnavailable):
        await look_after(stranger)

    await stranger.store.close()
    stranger.passwords.close()
    await look_after(its)
    assert its.keys.all()[0].state is State.WAITING


# Retiring


async def test_what_a_retired_key_has_signed_is_refused_everywhere_and_another_signs_at_once(assembling, serving):
    one, two = await assembling(), await assembling()
    here, there = await serving(one), await serving(two)
    signed = await sign_up(here)
    assert [await me(at, signed) for at in (here, there)] == ["", ""]  # the signature is remembered now

    await one.keys.retire(kid_of(signed))
    await the_rest(two)

    assert [await me(at, signed) for at in (here, there)] == ["INVALID_TOKEN"] * 2
    assert kid_of(signed) not in await published(here) | await published(there)
    again = await renewed(there, signed)
    assert kid_of(again) == one.keys.signing().kid == two.keys.signing().kid
    assert [await me(at, again) for at in (here, there)] == ["", ""]


async def test_a_key_that_waits_takes_the_place_of_a_retired_one(assembling):
    its = await assembling()
    old = its.keys.signing().kid
    waiting = (await its.keys.rotate()).kid

    await its.keys.retire(old)

    assert [(key.kid, key.state) for key in its.keys.all()] == [(waiting, State.SIGNING)]


async def test_a_key_that_waits_or_only_checks_can_be_retired_too(assembling, serving, later):
    its = await assembling()
    first = its.keys.signing().kid
    waiting = (await its.keys.rotate()).kid
    await its.keys.retire(waiting)
    assert [(key.kid, key.state) for key in its.keys.all()] == [(first, State.SIGNING)]

    second = (await its.keys.rotate()).kid
    await later("11m")
    await look_after(its)
    assert {key.kid: key.state for key in its.keys.all()} == {first: State.CHECKING, second: State.SIGNING}
    await its.keys.retire(first)
    assert [(key.kid, key.state) for key in its.keys.all()] == [(second, State.SIGNING)]


async def test_no_instance_puts_a_retired_key_back(assembling):
    one, two = await assembling(), await assembling()
    old = one.keys.signing().kid

    await one.keys.retire(old)
    await gather(*(look_after(its) for its in (two, two, one)))

    assert {key.kid for its in (one, two) for key in its.keys.all()} == {one.keys.signing().kid} != {old}


async def test_resealing_does_not_bring_a_key_back(assembling, connecting):
    before = await assembling()
    old = before.keys.signing().kid
    after = await assembling(AUTH_SECRET=NEW_SECRET, AUTH_SECRET_PREVIOUS=SECRET)
    await gather(after.keys.retire(old), look_after(after), look_after(after))

    redis = connecting()
    assert old not in await redis.hgetall("signing-keys")
    await redis.aclose()


async def test_only_what_is_in_a_ring_can_be_turned_or_retired(assembling):
    its, symmetric = await assembling(), await assembling(JWT_ALGORITHM="HS256")

    with pytest.raises(NotFound):
        await its.keys.retire("x" * 43)
    with pytest.raises(KeysOfOnesOwn):
        await symmetric.keys.rotate()
    with pytest.raises(KeysOfOnesOwn):
        await symmetric.keys.retire(symmetric.keys.signing().kid)
    assert [key.state for key in symmetric.keys.all()] == [State.SIGNING]


# The command line


def command(url: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": url, "AUTH_SECRET": SECRET, **environ}
    called = [sys.executable, "-m", "service", "keys", *arguments]
    return subprocess.run(called, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def test_the_ring_is_shown_and_turned_by_command(redis_server):
    async def keys(*arguments: str) -> list[dict[str, Any]]:
        done = await asyncio.to_thread(command, redis_server.url, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["keys"]

    (first,) = await keys("list")
    assert (first["state"], first["algorithm"], first["until"]) == ("signing", "ES256", None)
    second, same = await keys("rotate")
    assert (second["state"], same["kid"]) == ("waiting", first["kid"])
    assert [key["kid"] for key in await keys("rotate")] == [second["kid"], first["kid"]]
    (left,) = await keys("retire", first["kid"])
    assert (left["kid"], left["state"]) == (second["kid"], "signing")
    plain = await asyncio.to_thread(command, redis_server.url, "list")
    assert plain.stdout.startswith(f"{second['kid']}  ES256  signs since 2")
    assert "PRIVATE" not in plain.stdout + plain.stderr


async def test_a_command_that_cannot_be_done_says_why(redis_server):
    unknown = await asyncio.to_thread(command, redis_server.url, "retire", "nothing")
    own = await asyncio.to_thread(command, redis_server.url, "rotate", JWT_ALGORITHM="HS256")
    wrong = await asyncio.to_thread(command, redis_server.url, "turn")

    assert (unknown.returncode, own.returncode, wrong.returncode) == (1, 1, 2)
    assert "The ring has no key nothing" in unknown.stderr
    assert "There is no key ring" in own.stderr


# Clients that nobody here wrote, and traffic that never stops


async def age_the_ring(redis: Any, minutes: int) -> None:
    """Only the ring grows older: the sessions of those who are calling meanwhile do not."""
    for kid, entry in (await redis.hgetall("signing-keys")).items():
        algorithm, at, sealed = entry.split(" ")
        await redis.hset("signing-keys", kid, f"{algorithm} {int(at) - minutes * 60_000} {sealed}")


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_a_rotation_and_a_new_secret_under_traffic_refuse_nobody(assembling, serving, connecting):
    instances = [await assembling(), await assembling()]
    at = [await serving(its) for its in instances]
    redis, stop = connecting(), asyncio.Event()
    refused: list[Any] = []
    kids: set[str] = set()
    under_way: Counter[Any] = Counter()
    calls = 0

    async def goes_on(email: str) -> None:
        nonlocal calls
        signed = await sign_up(at[0], email)
        body = {"name": "n", "permissions": ["profile:read"]}
        headers = {"Authorization": f"Bearer {signed['accessToken']}"}
        key = (await at[1]("POST", "/api/auth/api-keys", body, headers=headers, csrf=None)).json["apiKey"]
        while not stop.is_set():
            for method, path, json_, headers in (
                ("GET", "/api/auth/me", None, {"Authorization": f"Bearer {signed['accessToken']}"}),
                ("GET", "/api/auth/verify", None, {"X-API-Key": key}),
                ("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]}, {}),
            ):
                asked = random.choice(at)
                under_way[asked] += 1
                answer = await asked(method, path, json_, headers=headers, csrf=None)
                under_way[asked] -= 1
                calls += 1
                if answer.status != 200:
                    refused.append(answer)
                elif method == "POST":
                    signed |= answer.json
                    kids.add(kid_of(signed))

    async def browses(email: str) -> None:
        """The same in a browser: cookies, and a CSRF token that the secret of before may have made."""
        nonlocal calls
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as tab:
            cookies: dict[str, str] = {}
            csrf, number = "", 0

            async def asks(method: str, path: str, body: Any = None) -> None:
                nonlocal calls, csrf
                url = random.choice(at).client.make_url(path)
                shown = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
                async with tab.request(method, url, json=body, headers={**shown, "X-CSRF-Token": csrf}) as answer:
                    told = await answer.json()
                calls += 1
                if answer.status not in (200, 201):
                    refused.append((method, path, told))
                    return
                cookies.update({name: cookie.value for name, cookie in answer.cookies.items()})
                csrf = told.get("csrfToken", csrf)

            await asks("POST", "/api/auth/register", {"email": email, "password": PASSWORD})
            while not stop.is_set():
                number += 1
                await asks("GET", "/api/auth/me")
                await asks("PATCH", "/api/users/profile", {"name": f"Ada {number}"})
                await asks("POST", "/api/auth/refresh")  # each time: the ring is aged, and the tokens are not

    async def passes(minutes: int = 0) -> None:
        if minutes:
            await age_the_ring(redis, minutes)
        await the_rest(*instances)
        await asyncio.sleep(0.4)

    async def replaced(number: int, **settings: str) -> None:
        before = at[number]
        instances[number] = await assembling(**settings)
        at[number] = await serving(instances[number])
        while under_way[before]:
            await asyncio.sleep(0.01)
        await before.client.close()  # it would seal the keys with its own secret again, sooner or later
        await passes()

    async def turned() -> None:
        await gather(*(its.keys.rotate() for its in instances))
        await passes()
        await passes(11)
        await passes(17)

    traffic = asyncio.gather(
        *(goes_on(f"person{number}@example.org") for number in range(4)),
        *(browses(f"browser{number}@example.org") for number in range(2)),
    )
    await passes()
    await turned()
    for settings in (
        {"AUTH_SECRET_PREVIOUS": NEW_SECRET},
        {"AUTH_SECRET": NEW_SECRET, "AUTH_SECRET_PREVIOUS": SECRET},
        {"AUTH_SECRET": NEW_SECRET},
    ):
        await replaced(0, **settings)
        await passes()
        await replaced(1, **settings)
    await turned()
    stop.set()
    await traffic
    await redis.aclose()

    assert refused == []
    assert len(kids) == 3
    assert calls > 100
    assert [len(its.keys.all()) for its in instances] == [1, 1]


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_pyjwt_follows_the_ring(assembling, serving, connecting):
    its = await assembling()
    browser, redis = await serving(its), connecting()
    url = str(browser.client.make_url("/.well-known/jwks.json"))
    # The one looks before there is a new key, and may ask again; the other looks while it waits, and does not.
    early, late = jwt.PyJWKClient(url, cooldown_duration=0), jwt.PyJWKClient(url)

    async def checked(client: jwt.PyJWKClient, signed: dict[str, Any]) -> str:
        key = await asyncio.to_thread(client.get_signing_key_from_jwt, signed["accessToken"])
        claims = jwt.decode(signed["accessToken"], key, algorithms=["ES256"], issuer=OURS, audience=OURS)
        return claims["email"]

    before = await sign_up(browser)
    assert await checked(early, before) == "ada@example.org"
    await its.keys.rotate()
    assert await checked(late, before) == "ada@example.org"
    await age_the_ring(redis, 11)
    await look_after(its)
    after = await renewed(browser, before)
    await redis.aclose()

    assert kid_of(after) != kid_of(before)
    told = [await checked(client, signed) for client in (early, late) for signed in (after, before)]
    assert told == ["ada@example.org"] * 4


JOSE = """
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, issuer] = process.argv.slice(1);
const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 0 });
for await (const token of createInterface({ input: process.stdin })) {
  try {
    const options = { issuer, audience: issuer, typ: "at+jwt", algorithms: ["ES256"] };
    const { payload, protectedHeader } = await jwtVerify(token, keys, options);
    console.log(`${payload.email} ${protectedHeader.kid}`);
  } catch (error) {
    console.log(error.code);
  }
}
"""


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_jose_follows_the_ring(assembling, serving, connecting):
    await asyncio.to_thread(openid_provider.install)
    its = await assembling()
    browser, redis = await serving(its), connecting()
    node = await asyncio.create_subprocess_exec(
        *(
            "node",
            "--input-type=module",
            "-e",
            JOSE,
            "--",
            str(browser.client.make_url("/.well-known/jwks.json")),
            OURS,
        ),
        cwd=ROOT / "tests" / "oauth" / "openid",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def checked(token: str) -> str:
        node.stdin.write(token.encode() + b"\n")
        return (await asyncio.wait_for(node.stdout.readline(), 60)).decode().strip()

    before = await sign_up(browser)
    first = await checked(before["accessToken"])
    await its.keys.rotate()
    await age_the_ring(redis, 11)
    await look_after(its)
    after = await renewed(browser, before)
    told = [await checked(signed["accessToken"]) for signed in (after, before)]
    head, body, signature = after["accessToken"].split(".")
    forged = await checked(f"{head}.{body}.{signature[::-1]}")
    node.stdin.close()
    await node.wait()
    await redis.aclose()

    assert first == f"ada@example.org {kid_of(before)}"
    assert told == [f"ada@example.org {kid_of(signed)}" for signed in (after, before)]
    assert kid_of(after) != kid_of(before)
    assert forged.startswith("ERR_")
