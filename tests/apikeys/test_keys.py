"""API keys, line by line: what they are, what they may do, and how they end."""

import asyncio
import re
from typing import Any

import pytest

from service.apikeys.keys import _ENTER, MOST
from service.app import look_after
from service.errors import Forbidden, ServiceError
from service.parts import Parts
from service.sessions.families import EndReason
from tests.conftest import PASSWORD, Answer, Browser, gather

TOKENS = {"X-Auth-Mode": "token"}
FORM = re.compile(r"ak_[A-Za-z0-9]{8}[A-Za-z0-9_-]{32}")
SHAPE = {"id", "name", "prefix", "permissions", "createdAt", "lastUsedAt", "expiresAt"}


def bearer(signed: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed.json['accessToken']}"}


class Owner:
    """A person who is signed in and makes keys."""

    def __init__(self, browser: Browser, parts: Parts, signed: Answer) -> None:
        self.browser, self.parts, self.signed = browser, parts, signed
        self.id = signed.json["user"]["id"]

    async def make(self, *permissions: str, **fields: Any) -> Answer:
        body = {"name": "nightly report", "permissions": list(permissions), **fields}
        return await self.browser("POST", "/api/auth/api-keys", body, headers=bearer(self.signed), csrf=None)

    async def key(self, *permissions: str, **fields: Any) -> str:
        made = await self.make(*permissions, **fields)
        assert made.status == 201, made
        return made.json["apiKey"]

    async def list(self) -> list[dict[str, Any]]:
        answer = await self.browser("GET", "/api/auth/api-keys", headers=bearer(self.signed), csrf=None)
        return answer.json["items"]

    async def revoke(self, key_id: str) -> Answer:
        path = f"/api/auth/api-keys/{key_id}"
        return await self.browser("DELETE", path, headers=bearer(self.signed), csrf=None)

    async def change(self, **fields: str | None) -> None:
        await self.parts.users.change(self.id, **fields)


async def owner(browser: Browser, parts: Parts, roles: str = "user admin", email: str = "ada@example.org") -> Owner:
    registered = await browser.register(email, headers=TOKENS)
    await parts.users.change(registered.json["user"]["id"], roles=roles)
    return Owner(browser, parts, await browser.login(email, headers=TOKENS))


@pytest.fixture
async def ada(browser: Browser, parts: Parts) -> Owner:
    return await owner(browser, parts)


async def verify(browser: Browser, key: str) -> Answer:
    return await browser("GET", "/api/auth/verify", headers={"X-API-Key": key}, csrf=None)


async def test_a_key_is_made_and_shown_once(ada):
    made = await ada.make("users:read", "stats:read")

    assert made.status == 201
    assert set(made.json) == SHAPE | {"apiKey"}
    assert FORM.fullmatch(made.json["apiKey"])
    assert made.json["apiKey"].startswith(made.json["prefix"])
    assert len(made.json["prefix"]) == 11
    assert made.json["permissions"] == ["stats:read", "users:read"]
    assert (made.json["lastUsedAt"], made.json["expiresAt"]) == (None, None)
    assert made.headers["Cache-Control"] == "no-store"
    (listed,) = await ada.list()
    assert listed == {name: value for name, value in made.json.items() if name != "apiKey"}


async def test_redis_has_no_key_and_no_part_of_one_but_its_prefix(ada, connecting):
    key = await ada.key()
    redis = connecting()
    dump = []
    async for name in redis.scan_iter(match="apikey*"):
        dump += [name, *(part for pair in (await redis.hgetall(name)).items() for part in pair)]
    await redis.aclose()

    assert len(dump) > 10
    assert key[11:] not in " ".join(dump)
    assert key[11:27] not in " ".join(dump)


async def test_a_key_says_whose_it_is_and_what_it_may(ada):
    answer = await verify(ada.browser, await ada.key("users:read"))

    assert answer.status == 200
    assert answer.json == {
        "active": True,
        "sub": ada.id,
        "sid": None,
        "roles": [],
        "permissions": ["users:read"],
        "expiresAt": None,
    }
    assert (answer.headers["X-Auth-User"], answer.headers["X-Auth-Permissions"]) == (ada.id, "users:read")
    assert answer.headers["X-Auth-Roles"] == ""


async def test_either_header_does_and_wins_over_cookies(serving, browser, parts):
    ada = await owner(browser, parts)
    key = await ada.key()
    eve = await serving(at=browser)
    await eve.register("eve@example.org")

    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
        assert (await eve("GET", "/api/auth/verify", headers=headers)).json["sub"] == ada.id
    both = {"X-API-Key": key, "Authorization": f"Bearer {key}"}
    assert (await eve("GET", "/api/auth/verify", headers=both)).json["sub"] == ada.id
    wrong = await eve("GET", "/api/auth/verify", headers={"X-API-Key": "ak_wrong"})
    assert (wrong.status, wrong.code) == (401, "INVALID_API_KEY")


async def test_two_credentials_that_differ_are_none(ada):
    one, two = await ada.key(), await ada.key()

    for other in (two, ada.signed.json["accessToken"], "x", ""):
        headers = {"X-API-Key": one, "Authorization": f"Bearer {other}"}
        answer = await ada.browser("GET", "/api/auth/verify", headers=headers, csrf=None)
        assert (answer.status, answer.code) == (401, "INVALID_API_KEY"), other
    basic = {"X-API-Key": one, "Authorization": "Basic YTpi"}  # for a proxy in between
    assert (await ada.browser("GET", "/api/auth/verify", headers=basic, csrf=None)).status == 200


@pytest.mark.parametrize(
    "sent", ["", "ak_", "ak_" + "x" * 39, "ak_" + "x" * 41, "ak_" + "é" * 40, "rt_" + "x" * 72, "x" * 5000, "null"]
)
async def test_what_is_no_key_is_a_plain_401(browser, sent):
    answer = await browser("GET", "/api/auth/verify", headers={"X-API-Key": sent}, csrf=None)

    assert (answer.status, answer.code) == (401, "INVALID_API_KEY")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="gatepost", error="invalid_token"')


async def test_a_key_that_differs_by_a_letter_is_refused(ada):
    key = await ada.key()
    for position in (5, 15, len(key) - 1):
        other = "A" if key[position] != "A" else "B"
        answer = await verify(ada.browser, key[:position] + other + key[position + 1 :])
        assert answer.code == "INVALID_API_KEY"


async def test_nobody_gives_a_key_what_they_lack(browser, parts):
    eve = await owner(browser, parts, roles="user")

    answer = await eve.make("profile:read", "users:write", "no:such")

    assert (answer.status, answer.code) == (403, "FORBIDDEN")
    assert answer.json["required"] == ["no:such", "users:write"]
    assert await eve.list() == []


async def test_a_key_loses_what_its_owner_loses_at_once(ada):
    key = await ada.key("users:read", "profile:read")

    await ada.change(roles="user")

    assert (await verify(ada.browser, key)).json["permissions"] == ["profile:read"]
    refused = await ada.browser("GET", f"/api/users/{ada.id}", headers={"X-API-Key": key}, csrf=None)
    assert (refused.status, refused.json["required"]) == (403, ["users:read"])


async def test_permissions_are_enforced(ada):
    with_it, without = await ada.key("users:read"), await ada.key("profile:read")

    async def asks(key: str, path: str) -> Answer:
        return await ada.browser("GET", path, headers={"X-API-Key": key}, csrf=None)

    assert (await asks(with_it, f"/api/users/{ada.id}")).status == 200
    assert (await asks(without, f"/api/users/{ada.id}")).status == 403  # a key has no self
    assert (await asks(with_it, "/api/auth/verify?permission=users:read")).status == 200
    assert (await asks(without, "/api/auth/verify?permission=users:read")).status == 403
    assert (await asks(with_it, "/api/auth/verify?role=admin")).status == 403
    assert (await asks(with_it, "/api/admin")).status == 403  # asks for a role, and a key has none
    assert (await asks(with_it, "/api/optional")).json["authenticated"] is False


async def test_a_key_does_nothing_that_only_a_person_does(ada):
    key = await ada.key("users:read", "users:write", "profile:read", "profile:write")
    routes = [
        f"{route.method} {route.resource.canonical}"
        for route in ada.browser.client.app.router.routes()
        if route.method not in ("HEAD", "OPTIONS") and route.handler.access.who == "user"
    ]
    bodies = {
        "POST /api/auth/api-keys": {"name": "n", "permissions": []},
        "POST /api/auth/password/change": {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"},
        "PATCH /api/users/profile": {"firstName": "Eve"},
    }

    for name in routes:
        method, path = name.split(" ")
        path = path.replace("{id}", "x" * 22).replace("{provider}", "github")
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            answer = await ada.browser(method, path, bodies.get(name), headers=headers, csrf=None)
            assert (answer.status, answer.code) == (403, "FORBIDDEN"), name

    assert len(routes) >= 12
    assert bodies.keys() <= set(routes)
    assert (await ada.browser.login(headers=TOKENS)).status == 200
    assert len(await ada.list()) == 1


async def test_a_revoked_key_is_dead_on_every_instance_at_once(serving, assembling, browser, parts):
    ada, there = await owner(browser, parts), await serving(await assembling())
    key, other = await ada.key(), await ada.key()
    assert (await verify(there, key)).status == 200
    listed = next(item for item in await ada.list() if key.startswith(item["prefix"]))

    assert (await ada.revoke(listed["id"])).status == 204

    assert [(await verify(at, key)).code for at in (there, browser)] == ["INVALID_API_KEY"] * 2
    assert (await verify(there, other)).status == 200
    assert (await ada.revoke(listed["id"])).status == 404
    assert [item["id"] for item in await ada.list()] != [listed["id"]]


async def test_nobody_revokes_or_sees_the_keys_of_others(ada, serving):
    key = await ada.key()
    (listed,) = await ada.list()
    eve = await owner(await serving(at=ada.browser), ada.parts, email="eve@example.org")

    assert await eve.list() == []
    for wanted in (listed["id"], "x" * 22, "epoch", "*", "%00"):
        assert (await eve.revoke(wanted)).status == 404
    assert (await verify(ada.browser, key)).status == 200


async def test_a_key_expires_and_leaves_nothing_behind(ada, later, connecting):
    key, kept = await ada.key(expiresIn=60), await ada.key(expiresIn=3600)
    told = (await verify(ada.browser, key)).json["expiresAt"]
    assert told
    assert (await ada.list())[1]["expiresAt"][:19] == told[:19]

    await later("61s")

    assert (await verify(ada.browser, key)).code == "INVALID_API_KEY"
    assert (await verify(ada.browser, kept)).status == 200
    await look_after(ada.parts)
    assert len(await ada.list()) == 1
    await later("2h")
    redis = connecting()
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
    await redis.aclose()


async def test_the_key_of_a_disabled_or_deleted_owner_is_dead_at_once(ada, connecting):
    key = await ada.key("users:read")

    await ada.change(off="1")
    assert (await verify(ada.browser, key)).code == "INVALID_API_KEY"
    await ada.change(off=None)
    assert (await verify(ada.browser, key)).status == 200
    redis = connecting()
    await redis.delete(f"user:{{{ada.id}}}")
    await redis.aclose()
    assert (await verify(ada.browser, key)).code == "INVALID_API_KEY"


async def test_the_last_use_is_noted_but_not_at_every_call(ada, later, connecting):
    key = await ada.key()
    for _ in range(20):
        await verify(ada.browser, key)
    await look_after(ada.parts)
    first = (await ada.list())[0]["lastUsedAt"]
    assert first
    await asyncio.sleep(0.01)
    await verify(ada.browser, key)
    await look_after(ada.parts)

    assert (await ada.list())[0]["lastUsedAt"] == first


async def test_a_use_that_is_noted_late_does_not_bring_a_revoked_key_back(ada, connecting):
    key = await ada.key()
    await verify(ada.browser, key)
    (listed,) = await ada.list()
    await ada.revoke(listed["id"])

    await look_after(ada.parts)

    redis = connecting()
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
    await redis.aclose()


async def test_nobody_has_more_than_fifty_keys_however_many_are_made_at_once(ada):
    answers = await gather(*(ada.make() for _ in range(MOST + 8)))

    assert sorted(answer.status for answer in answers) == [201] * MOST + [409] * 8
    assert {answer.code for answer in answers if answer.status == 409} == {"TOO_MANY_KEYS"}
    listed = await ada.list()
    assert len(listed) == MOST
    assert (await ada.revoke(listed[0]["id"])).status == 204
    assert (await ada.make()).status == 201


async def test_a_creation_that_was_cut_off_is_forgotten(ada, connecting, later):
    key = await ada.key()
    redis = connecting()
    async for name in redis.scan_iter(match="apikey:*"):
        await redis.delete(name)

    assert await ada.list() == []
    assert (await verify(ada.browser, key)).code == "INVALID_API_KEY"
    assert await redis.exists(f"apikeys:{{{ada.id}}}")
    await later("2h")
    ada.signed = await ada.browser.login(headers=TOKENS)
    await look_after(ada.parts)
    assert await ada.list() == []
    assert not await redis.exists(f"apikeys:{{{ada.id}}}")
    await redis.aclose()


async def test_all_keys_of_an_account_go_together(ada, connecting):
    keys = [await ada.key() for _ in range(3)]

    await ada.parts.api_keys.revoke_all(ada.id)
    await ada.parts.api_keys.revoke_all(ada.id)

    assert {(await verify(ada.browser, key)).code for key in keys} == {"INVALID_API_KEY"}
    redis = connecting()
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
    await redis.aclose()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "n"},
        {"permissions": []},
        {"name": "", "permissions": []},
        {"name": " ", "permissions": []},
        {"name": "a\nb", "permissions": []},
        {"name": "n" * 101, "permissions": []},
        {"name": "n", "permissions": "users:read"},
        {"name": "n", "permissions": [1]},
        {"name": "n", "permissions": ["two words"]},
        {"name": "n", "permissions": ["x" * 65]},
        {"name": "n", "permissions": ["x"] * 101},
        {"name": "n", "permissions": [], "expiresIn": 0},
        {"name": "n", "permissions": [], "expiresIn": -1},
        {"name": "n", "permissions": [], "expiresIn": "60"},
        {"name": "n", "permissions": [], "expiresIn": 1.5},
        {"name": "n", "permissions": [], "expiresIn": True},
        {"name": "n", "permissions": [], "expiresIn": 10**12},
        {"name": "n", "permissions": [], "id": "x"},
        {"name": "n", "permissions": [], "user": "x"},
    ],
)
async def test_a_wrong_body_is_told(ada, body):
    path = "/api/auth/api-keys"
    answer = await ada.browser("POST", path, body, headers=bearer(ada.signed), csrf=None)

    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert await ada.list() == []


async def test_making_keys_is_limited_per_person(serving, assembling):
    its = await assembling(RATE_LIMITS="apikey=2/1h")
    browser = await serving(its)
    ada = await owner(browser, its)
    eve = await owner(browser, its, email="eve@example.org")

    assert [(await ada.make()).status for _ in range(3)] == [201, 201, 429]
    assert (await eve.make()).status == 201


async def test_a_cookie_needs_its_csrf_token_to_make_a_key(browser):
    await browser.register()
    body = {"name": "n", "permissions": []}

    assert (await browser("POST", "/api/auth/api-keys", body, csrf=None)).code == "CSRF_FAILED"
    assert (await browser("POST", "/api/auth/api-keys", body)).status == 201


async def test_a_page_elsewhere_may_send_a_key_if_its_origin_is_allowed(browser):
    headers = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "X-API-Key",
    }
    answer = await browser("OPTIONS", "/api/auth/verify", headers=headers)

    assert answer.status == 200
    assert "x-api-key" in answer.headers["Access-Control-Allow-Headers"].lower()


async def test_no_key_is_logged(ada, capsys):
    key = await ada.key()
    await verify(ada.browser, key)

    told = capsys.readouterr()
    assert "apikeys.key.created" in told.out + told.err
    assert key[11:] not in told.out + told.err


# What a crash or a lost reply leaves


async def test_entering_a_key_twice_is_entering_it_once(parts, connecting):
    lifetime = 60_000
    told = [await parts.store.one(_ENTER("apikeys:{ada}", "k" * 22, "digest", lifetime, MOST)) for _ in range(2)]

    assert told[0] == told[1]
    verdict, made, expires = told[0]
    assert (verdict, int(expires) - int(made)) == ("entered", lifetime)
    redis = connecting()
    assert await redis.hlen("apikeys:{ada}") == 1
    await redis.aclose()


async def test_an_account_that_goes_while_its_key_is_made_leaves_no_key(ada, connecting):
    holder = await ada.parts.check.principal(ada.signed.json["accessToken"])
    await ada.change(off="1")

    with pytest.raises(Forbidden):
        await ada.parts.api_keys.make(holder, "report", ["users:read"], None)

    redis = connecting()
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
    await redis.aclose()


async def test_a_revocation_that_stopped_half_way_can_be_repeated(ada, connecting):
    key = await ada.key()
    (listed,) = await ada.list()
    redis = connecting()
    async for name in redis.scan_iter(match="apikey:*"):
        await redis.delete(name)

    assert (await verify(ada.browser, key)).code == "INVALID_API_KEY"
    assert (await ada.revoke(listed["id"])).status == 204
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
    await redis.aclose()


async def test_a_list_lives_as_long_as_its_last_key(ada, connecting):
    redis, name = connecting(), f"apikeys:{{{ada.id}}}"
    lives = []
    for expires in (60, 3600, 120, None, 60):
        await ada.key(**({"expiresIn": expires} if expires else {}))
        lives.append(await redis.ttl(name))
    await redis.aclose()

    assert [round(seconds, -1) for seconds in lives[:3]] == [60, 3600, 3600]
    assert lives[3:] == [-1, -1]


# Whoever is put out while a key is being made


async def _taken_over(its: Parts, user_id: str) -> None:
    await its.families.end_all(user_id, EndReason.TAKEN_OVER, account_changed=True)
    await its.api_keys.revoke_all(user_id)


async def _deleted(its: Parts, user_id: str) -> None:
    await its.deletion.delete(user_id, None)


async def _revoked(its: Parts, user_id: str) -> None:
    for key in await its.store.one(("HGETALL", f"apikeys:{{{user_id}}}")):
        await its.api_keys.revoke(user_id, key)


STEPS = ["before its entry", "after its entry", "after its record"]
MEANWHILE = [(happening, step) for happening in (_taken_over, _deleted, _revoked) for step in STEPS]
MEANWHILE.remove((_revoked, STEPS[0]))  # there is nothing to revoke yet


@pytest.mark.parametrize(("happening", "step"), MEANWHILE)
async def test_a_key_in_the_making_does_not_outlive_its_maker(browser, parts, redis, monkeypatch, happening, step):
    ada, its = await owner(browser, parts, roles="user"), parts
    maker = its.access_tokens.read(ada.signed.json["accessToken"])
    enter, one = its.api_keys._enter, its.store.one

    async def entered(*args):
        if step == "before its entry":
            await happening(its, ada.id)
        answer = await enter(*args)
        if step == "after its entry":
            await happening(its, ada.id)
        return answer

    async def written(command, **kwargs):
        answer = await one(command, **kwargs)
        if answer == "written" and step == "after its record":
            await happening(its, ada.id)
        return answer

    monkeypatch.setattr(its.api_keys, "_enter", entered)
    monkeypatch.setattr(its.store, "one", written)
    with pytest.raises(ServiceError) as refused:
        await its.api_keys.make(maker, "back door", ["profile:read"], None)

    assert refused.value.status in (401, 403)
    assert [name async for name in redis.scan_iter(match="apikey*")] == []


async def test_no_key_of_a_maker_who_is_put_out_works_however_many_are_being_made(ada, redis):
    makings = [asyncio.create_task(ada.make("profile:read")) for _ in range(30)]
    while not await redis.exists(f"apikeys:{{{ada.id}}}"):
        await asyncio.sleep(0)
    await _taken_over(ada.parts, ada.id)

    answers = [await making for making in makings]

    made = [answer.json["apiKey"] for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} <= {201, 401, 403}
    assert [(await verify(ada.browser, key)).code for key in made] == ["INVALID_API_KEY"] * len(made)
    assert [name async for name in redis.scan_iter(match="apikey*")] == []
