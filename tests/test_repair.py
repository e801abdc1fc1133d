"""Repair: what was broken on purpose is found, mended, and found no more."""

import pytest

from service.accounts.users import Identity, User
from service.admin import repair
from service.admin.repair import Repair
from service.audit.trail import Wanted
from service.client import Client
from service.ids import new_id

HERE = Client("192.0.2.7", "curl/8")
GITHUB = Identity("github", "https://github.example", "4711")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(repair, "_SETTLES", 0.01)


@pytest.fixture
async def redis(connecting):
    """Redis as an onlooker sees it."""
    client = connecting()
    yield client
    await client.aclose()


@pytest.fixture
async def ada(parts) -> User:
    """An admin with an identity and a session, beside one who is disabled."""
    made = await parts.users.register(
        User(id="", email="ada@example.org", roles=("user", "admin"), identities=(GITHUB,))
    )
    await parts.users.register(User(id="", email="bob@example.org", active=False))
    await parts.signin.begin(made, ("fed",), HERE)
    return made


async def run(its, dry_run=False) -> tuple[dict[str, int], list[str]]:
    told: list[str] = []
    found = await Repair(
        its.users, its.lookups, its.directory, its.families, its.deletion, its.audit,
        lambda kind, what: told.append(f"{kind} {what}"), dry_run,
    ).run()  # fmt: skip
    return dict(found.found), told


async def test_a_service_that_nothing_befell_is_clean(parts, ada):
    assert await run(parts) == ({}, [])


async def held(redis, index: str):
    if await redis.type(index) == "set":
        return await redis.smembers(index)
    return await redis.zrange(index, 0, -1, withscores=True)


@pytest.mark.parametrize("index", ["index:users", "index:role:admin", "admins", "index:role:user"])
async def test_a_lost_index_is_made_again(parts, ada, redis, index):
    before = await held(redis, index)
    await redis.delete(index)

    found, _ = await run(parts)

    after = await held(redis, index)
    assert found.keys() == {"unindexed"}
    assert after == before
    assert await run(parts) == ({}, [])


async def test_entries_that_no_record_bears_out_are_removed(parts, ada, redis):
    nobody = new_id()
    await redis.zadd("index:users", {nobody: 1})
    await redis.zadd("index:role:moderator", {ada.id: 1})
    await redis.sadd("admins", nobody)
    await redis.sadd("index:disabled", ada.id)

    found, _ = await run(parts)

    assert found == {"unlisted": 4}
    assert await redis.smembers("admins") == {ada.id}
    assert await run(parts) == ({}, [])


async def test_an_entry_at_the_wrong_place_is_moved(parts, ada, redis):
    right = await redis.zscore("index:users", ada.id)
    await redis.zadd("index:users", {ada.id: 5})

    assert (await run(parts))[0] == {"unindexed": 1}
    assert await redis.zscore("index:users", ada.id) == right


async def test_lost_lookups_are_made_again(parts, ada, redis):
    await redis.delete(
        await parts.lookups.email(ada.email), await parts.lookups.identity(GITHUB.issuer, GITHUB.subject)
    )
    assert await parts.users.find_by_email(ada.email) is None

    assert (await run(parts))[0] == {"unfound": 2}
    assert await parts.users.find_by_email(ada.email) == await parts.users.find(ada.id)
    assert (await parts.users.find_by_identity(GITHUB.issuer, GITHUB.subject)).id == ada.id
    assert await run(parts) == ({}, [])


async def test_lookups_that_lead_nowhere_or_to_somebody_else_are_removed(parts, ada, redis):
    await redis.set("email:nobodys", new_id())
    await redis.set("email:somebody-elses", ada.id)
    await redis.set("identity:nobodys", new_id())
    await redis.set("email:being-claimed", new_id(), px=60_000)

    assert (await run(parts))[0] == {"misled": 3}
    assert await redis.exists("email:being-claimed")
    assert await run(parts) == ({}, [])


async def test_a_lookup_that_leads_to_the_wrong_user_is_turned_round(parts, ada, redis):
    await redis.set(await parts.lookups.email(ada.email), new_id())

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
    await parts.users.doom(ada.id)

    assert (await run(parts))[0]["unfinished"] == 1
    assert await parts.users.find(ada.id) is None
    assert await run(parts) == ({}, [])


async def test_the_count_of_sessions_is_put_right(parts, ada, redis):
    right = {member async for member, _ in redis.zscan_iter("index:live")}
    await redis.delete("index:live")
    await redis.zadd("index:live", {f"{ada.id}:{new_id()}": 9_999_999_999_999})

    assert (await run(parts))[0] == {"uncounted": 2}
    assert {member async for member, _ in redis.zscan_iter("index:live")} == right


async def test_what_belonged_to_somebody_gone_is_removed(parts, ada, redis):
    await redis.delete(f"user:{{{ada.id}}}")

    found, _ = await run(parts)

    assert found["unowned"] == 2
    assert not await redis.exists(f"events:{{{ada.id}}}")
    assert await parts.families.of(ada.id) == []
    assert await run(parts) == ({}, [])


async def test_a_dry_run_tells_the_same_and_changes_nothing(parts, ada, redis):
    await redis.delete("index:users", "index:live", await parts.lookups.email(ada.email))
    await redis.set("email:nobodys", new_id())
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
