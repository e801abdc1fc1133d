"""Repair: what was broken on purpose is found, mended, and found no more."""

import asyncio
from dataclasses import replace

import pytest

from service.accounts.once import Purpose
from service.accounts.user import Identity, User
from service.admin import repair
from service.admin.administration import COMMAND_LINE
from service.admin.repair import Repair
from service.audit.trail import Wanted
from service.client import Client
from service.errors import InvalidApiKey
from service.ids import new_id
from tests.conftest import SECRET

HERE = Client("192.0.2.7", "curl/8")
GITHUB = Identity("github", "https://github.example", "4711")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(repair, "_SETTLES", 0.01)


@pytest.fixture
async def ada(parts) -> User:
    """An admin with an identity and a session, beside one who is disabled and no `user`."""
    made = await parts.users.register(
        User(id="", email="ada@example.org", roles=("user", "admin"), identities=(GITHUB,))
    )
    await parts.users.register(User(id="", email="bob@example.org", roles=("moderator",), active=False))
    await parts.signin.begin(made, ("fed",), HERE)
    return made


async def run(its, dry_run=False) -> tuple[dict[str, int], list[str]]:
    told: list[str] = []
    found = await Repair(
        its.users, its.lookups, its.directory, its.families, its.deletion, its.api_keys, its.once, its.audit,
        lambda kind, what: told.append(f"{kind} {what}"), dry_run,
    ).run()  # fmt: skip
    return dict(found.found), told


async def test_a_service_that_nothing_befell_is_clean(parts, ada):
    assert await run(parts) == ({}, [])


async def lose(redis, lookup: str) -> None:
    part, _, rest = lookup.rpartition(":")
    assert await redis.hdel(part, rest)


async def held(redis, index: str):
    if await redis.type(index) == "set":
        return await redis.smembers(index)
    return await redis.zrange(index, 0, -1, withscores=True)


@pytest.mark.parametrize("index", ["index:users", "index:role:admin", "admins", "index:not-user"])
async def test_a_lost_index_is_made_again(parts, ada, redis, index):
    before = await held(redis, index)
    await redis.delete(index)

    found, _ = await run(parts)

    after = await held(redis, index)
    assert found.keys() == {"unindexed"}
    assert after == before
    assert await run(parts) == ({}, [])


async def test_after_a_secret_that_is_lost_for_good_everybody_signs_in_again(assembling, serving, redis):
    """Without what was sealed with it: the records say which emails there are."""
    before = await serving(await assembling())
    signed = (await before.register(headers={"X-Auth-Mode": "token"})).json
    await redis.delete("lookup-key", "signing-keys")

    after = await assembling(AUTH_SECRET="another-" + SECRET)
    found, _ = await run(after)
    browser = await serving(after)

    assert found == {"unfound": 1, "misled": 1}
    token = {"refreshToken": signed["refreshToken"]}
    assert (await browser("POST", "/api/auth/refresh", token)).code == "INVALID_REFRESH_TOKEN"
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    assert (await browser("GET", "/api/auth/verify", headers=bearer)).code == "INVALID_TOKEN"
    assert (await browser.login()).status == 200
    assert await run(after) == ({}, [])


async def test_entries_that_no_record_bears_out_are_removed(parts, ada, redis):
    nobody = new_id()
    await redis.zadd("index:users", {nobody: 1})
    await redis.zadd("index:role:moderator", {ada.id: 1})
    await redis.sadd("admins", nobody)
    await redis.sadd("index:disabled", ada.id)
    await redis.sadd("index:not-user", ada.id)

    found, _ = await run(parts)

    assert found == {"unlisted": 5}
    assert await redis.smembers("admins") == {ada.id}
    assert await run(parts) == ({}, [])


async def test_an_entry_at_the_wrong_place_is_moved(parts, ada, redis):
    right = await redis.zscore("index:users", ada.id)
    await redis.zadd("index:users", {ada.id: 5})

    assert (await run(parts))[0] == {"unindexed": 1}
    assert await redis.zscore("index:users", ada.id) == right


async def test_lost_lookups_are_made_again(parts, ada, redis):
    await lose(redis, await parts.lookups.email(ada.email))
    await lose(redis, await parts.lookups.identity(GITHUB.issuer, GITHUB.subject))
    assert await parts.users.find_by_email(ada.email) is None

    assert (await run(parts))[0] == {"unfound": 2}
    assert await parts.users.find_by_email(ada.email) == await parts.users.find(ada.id)
    assert (await parts.users.find_by_identity(GITHUB.issuer, GITHUB.subject)).id == ada.id
    assert await run(parts) == ({}, [])


async def test_lookups_that_lead_nowhere_or_to_somebody_else_are_removed(parts, ada, redis):
    await redis.hset("email:AA", "nobodys", new_id())
    await redis.hset("email:AA", "somebody-elses", ada.id)
    await redis.hset("email:-_", "claimed", f"{new_id()} 1700000000000")
    await redis.hset("identity:AA", "nobodys", new_id())
    await redis.hset("email:AA", "being-claimed", f"{new_id()} 9999999999999")

    assert (await run(parts))[0] == {"misled": 4}
    assert await redis.hkeys("email:AA") == ["being-claimed"]
    assert await run(parts) == ({}, [])


async def test_a_lookup_that_leads_to_the_wrong_user_is_turned_round(parts, ada, redis):
    part, _, rest = (await parts.lookups.email(ada.email)).rpartition(":")
    await redis.hset(part, rest, new_id())

    assert (await run(parts))[0] == {"misled": 1}
    assert (await parts.users.find_by_email(ada.email)).id == ada.id


async def test_two_accounts_with_one_email_are_told_and_left_alone(parts, ada, redis):
    twin = new_id()
    await redis.hset(f"user:{{{twin}}}", mapping={"email": ada.email, "roles": "user", "at": "1700000000000"})

    found, told = await run(parts)

    assert found["contested"] == 1
    assert any(twin in line and ada.id in line for line in told)
    assert (await parts.users.find_by_email(ada.email)).id == ada.id
    assert (await run(parts))[0] == {"contested": 1}


async def test_a_deletion_that_was_cut_off_is_finished(parts, ada, redis):
    await parts.users.doom(await parts.users.find(ada.id))

    assert (await run(parts))[0]["unfinished"] == 1
    assert await parts.users.find(ada.id) is None
    assert await run(parts) == ({}, [])


async def test_the_count_of_sessions_is_put_right(parts, ada, redis):
    (part,) = await redis.keys("index:live:*")
    right = await redis.zrange(part, 0, -1)
    await redis.delete(part)
    await redis.zadd(part, {f"{ada.id}:{new_id()[:6]}": 9_999_999_999_999})

    assert (await run(parts))[0] == {"uncounted": 2}
    assert await redis.zrange(part, 0, -1) == right
    assert (await parts.administration.statistics()).active_sessions == 1


async def test_a_session_that_has_expired_by_itself_is_nothing_to_mend(parts, ada, redis):
    (part,) = await redis.keys("index:live:*")
    await redis.zadd(part, {f"{ada.id}:{new_id()[:6]}": 1_700_000_000_000})

    assert await run(parts) == ({}, [])
    assert (await parts.administration.statistics()).active_sessions == 1


async def test_what_belonged_to_somebody_gone_is_removed(parts, ada, redis):
    await redis.delete(f"user:{{{ada.id}}}")

    found, _ = await run(parts)

    assert found["unowned"] == 2
    assert not await redis.exists(f"events:{{{ada.id}}}")
    assert await parts.families.of(ada.id) == []
    assert await run(parts) == ({}, [])


async def test_a_dry_run_tells_the_same_and_changes_nothing(parts, ada, redis):
    await redis.delete("index:users", *await redis.keys("index:live:*"))
    await lose(redis, await parts.lookups.email(ada.email))
    await redis.hset("email:AA", "nobodys", new_id())
    keys = sorted([key async for key in redis.scan_iter()])

    first = await run(parts, dry_run=True)

    assert first[0].keys() == {"unindexed", "uncounted", "unfound", "misled"}
    assert sorted([key async for key in redis.scan_iter()]) == keys
    assert await run(parts, dry_run=True) == first
    assert (await run(parts))[0] == first[0]


async def test_what_was_mended_is_in_the_trail(parts, ada, redis):
    await redis.delete("index:users")
    await run(parts)

    (event,), _ = await parts.audit.page(Wanted(type="admin.indexes.repaired"), None, 10)
    assert event.detail == {"by": "command line", "unindexed": 2}


async def test_it_goes_over_more_users_than_a_batch(parts, redis, monkeypatch):
    monkeypatch.setattr(repair, "_BATCH", 7)
    for number in range(30):
        await parts.users.register(User(id="", email=f"ada{number}@example.org"))
    await redis.delete("index:users")

    assert (await run(parts))[0] == {"unindexed": 30}
    assert await redis.zcard("index:users") == 30


# API keys and one-time tokens


async def key_of(its, user: User) -> str:
    signed = await its.signin.begin(user, ("fed",), HERE)
    maker = its.access_tokens.read(signed.access.text)
    _, text = await its.api_keys.make(maker, "nightly report", ["profile:read"], None)
    return text


async def test_keys_and_tokens_of_users_there_are_are_left_alone(parts, ada):
    text = await key_of(parts, ada)
    assert await parts.once.issue(Purpose.RESET, ada.id, ("email", ada.email))

    assert await run(parts) == ({}, [])
    assert (await parts.api_keys.holder(text)).user_id == ada.id


async def test_a_key_that_its_owner_no_longer_sees_is_shown_again(parts, ada, redis):
    text = await key_of(parts, ada)
    before = await parts.api_keys.of(ada.id)
    await redis.delete(f"apikeys:{{{ada.id}}}")
    assert await parts.api_keys.of(ada.id) == []

    assert (await run(parts))[0] == {"unseen": 1}
    assert await parts.api_keys.of(ada.id) == before
    assert await run(parts) == ({}, [])
    assert await parts.api_keys.revoke(ada.id, before[0].id)
    with pytest.raises(InvalidApiKey):
        await parts.api_keys.holder(text)


async def test_an_entry_of_a_key_that_leads_nowhere_is_removed_in_time(parts, ada, redis):
    await key_of(parts, ada)
    listed, now = f"apikeys:{{{ada.id}}}", round(parts.clock.now() * 1000)
    old, young, expired = new_id(), new_id(), new_id()
    await redis.hset(listed, old, f"{'0' * 64} {now - 7_200_000} 0")
    await redis.hset(listed, young, f"{'1' * 64} {now} 0")
    await redis.hset(listed, expired, f"{'2' * 64} {now - 7_200_000} {now - 60_000}")

    found, told = await run(parts)

    assert found == {"unlisted": 1}
    assert old in told[0]
    assert await redis.hexists(listed, young)
    assert await run(parts) == ({}, [])


@pytest.mark.parametrize("listed", [True, False])
async def test_keys_and_tokens_of_somebody_gone_are_removed(parts, ada, redis, listed):
    bob = await parts.users.find_by_email("bob@example.org")
    await parts.users.change(bob.id, off=None)
    await key_of(parts, await parts.users.find(bob.id))
    assert await parts.once.issue(Purpose.RESET, bob.id, ("email", bob.email))
    if not listed:
        await redis.delete(f"apikeys:{{{bob.id}}}")
    await redis.delete(f"user:{{{bob.id}}}")

    found, told = await run(parts)

    assert found["unowned"] == 4  # sessions, events, a key and a token
    assert any("API key" in line for line in told)
    assert [key async for key in redis.scan_iter() if key.startswith(("apikey", "once:"))] == []
    assert await run(parts) == ({}, [])


# Beside the running service


async def test_a_deletion_that_is_finished_meanwhile_does_not_stop_the_rest(parts, ada, redis, monkeypatch):
    await parts.users.doom(await parts.users.find(ada.id))
    await redis.hset("email:AA", "nobodys", new_id())
    delete = parts.deletion.delete

    async def somebody_is_faster(*args, **kwargs):
        await delete(*args, **kwargs)
        await delete(*args, **kwargs)

    monkeypatch.setattr(parts.deletion, "delete", somebody_is_faster)

    assert (await run(parts))[0].keys() >= {"unfinished", "misled"}
    assert await run(parts) == ({}, [])


async def test_what_begins_to_look_wrong_while_something_else_is_looked_at_again_is_left_alone(
    parts, ada, redis, monkeypatch
):
    """An entry is written before its record."""
    await redis.zadd("index:users", {new_id(): 1})
    under_way, sleep = new_id(), asyncio.sleep

    async def slept(seconds):
        await sleep(seconds)
        await redis.zadd("index:users", {under_way: 2})

    with monkeypatch.context() as patched:
        patched.setattr(repair.asyncio, "sleep", slept)
        found, _ = await run(parts)

    assert found == {"unlisted": 1}
    assert await redis.zscore("index:users", under_way) == 2


async def test_a_lookup_that_is_just_being_made_is_not_told_of(parts, ada, redis, monkeypatch):
    lookup, sleep = await parts.lookups.email(ada.email), asyncio.sleep
    part, _, rest = lookup.rpartition(":")
    await redis.hset(part, rest, f"{ada.id} 9999999999999")  # the record is there, the claim is not yet permanent

    async def slept(seconds):
        await sleep(seconds)
        await redis.hset(part, rest, ada.id)

    with monkeypatch.context() as patched:
        patched.setattr(repair.asyncio, "sleep", slept)
        assert await run(parts) == ({}, [])


# Cut off anywhere


class Crash(Exception):
    """The process is gone."""


async def register(its, ada, bob):
    await its.users.register(User(id="", email="eve@example.org", identities=(replace(GITHUB, subject="eve"),)))


async def promote(its, ada, bob):
    await its.administration.change(COMMAND_LINE, bob.id, roles=["user", "admin"])


async def put_out(its, ada, bob):
    await its.administration.change(COMMAND_LINE, ada.id, roles=["moderator"], active=False)


async def enable(its, ada, bob):
    await its.administration.change(COMMAND_LINE, ada.id, active=True)


async def move(its, ada, bob):
    await its.users.change(bob.id, new="bob@new.example")
    token = await its.once.issue(Purpose.CHANGE, bob.id, ("new", "bob@new.example"))
    await its.recovery.verify(token, HERE)


async def make_key(its, ada, bob):
    await key_of(its, bob)


async def delete(its, ada, bob):
    await its.deletion.delete(ada.id, None)


# On the real Redis alone: every run of repair reads 12,288 parts, for which fakeredis computes half a second.
@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
@pytest.mark.parametrize("act", [register, promote, put_out, enable, move, make_key, delete])
async def test_whatever_was_cut_off_anywhere_is_whole_after_one_run(parts, redis, monkeypatch, act):
    """Each act, cut off before its first, second, third command and so on, until it gets through."""
    run_for_real = parts.store.run
    for calls in range(100):
        await redis.flushall()
        admin = User(id="", email="ada@example.org", roles=("user", "admin"), identities=(GITHUB,))
        ada = await parts.users.register(admin)
        bob = await parts.users.register(User(id="", email="bob@example.org"))
        root = await parts.users.register(User(id="", email="root@example.org", roles=("admin",)))
        await parts.signin.begin(ada, ("fed",), HERE)
        if act is enable:
            await parts.administration.change(COMMAND_LINE, ada.id, active=False)
        await parts.audit.settled()
        left = [calls]

        async def dying(*commands, left=left, **how):
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return await run_for_real(*commands, **how)

        monkeypatch.setattr(parts.store, "run", dying)
        try:
            await act(parts, ada, bob)
            through = left[0] >= 0
        except Crash:
            through = False
        await parts.audit.settled()
        monkeypatch.setattr(parts.store, "run", run_for_real)

        await run(parts)

        assert await run(parts) == ({}, []), calls
        listed, _ = await parts.administration.list(None, None, None, 100)
        records = [key async for key in redis.scan_iter("user:*")]
        assert sorted(f"user:{{{user.id}}}" for user in listed) == sorted(records)
        assert root.id in await redis.smembers("admins")
        for user in listed:
            assert (await parts.users.find_by_email(user.email)).id == user.id
            assert (user.id in await redis.smembers("admins")) == user.is_admin
        if through:
            return
    raise AssertionError("it never got through")
