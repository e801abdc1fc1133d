"""Families: what becomes of a session, decided in one step inside Redis."""

import asyncio
import re
from pathlib import Path

import pytest

from service import settings
from service.accounts.user import User
from service.app import look_after
from service.client import Client
from service.errors import RefreshTokenReused, SessionEnded, TokenRevoked, TokenStale
from service.limits.limiter import Charge, Refused
from service.sessions import families as owner
from service.sessions.families import EndReason, Family, Overtaken
from service.sessions.refresh_tokens import RefreshToken
from service.sessions.rule import Verdict
from service.store import Script, reach
from tests.conftest import gather

HERE = Client("192.0.2.7", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
ADA = "AdaAdaAdaAdaAdaAdaAdaA"
KEY = f"sessions:{{{ADA}}}"
HOUR = 3_600_000  # ms
DAY = 86_400_000  # ms

_folder = Path(owner.__file__).parent
START, ROTATE, END = (Script(_folder / f"{name}.lua") for name in ("start", "rotate", "end"))
LIFETIMES = (7 * DAY, 30 * DAY, 7 * DAY)  # idle, absolute, tombstones


@pytest.fixture
def families(parts):
    return parts.families


async def start(families, user_id=ADA, epoch=0, client=HERE) -> Family:
    return await families.start(user_id, epoch, ("pwd",), client)


async def rotate(families, token: RefreshToken) -> Family:
    family, _ = await families.rotate(token)
    return family


async def why_ended(families, token: RefreshToken) -> str | None:
    """The reason that the holder of a token is told."""
    with pytest.raises(SessionEnded) as ended:
        await families.rotate(token)
    return ended.value.members.get("reason")


async def live(families, user_id=ADA) -> set[str]:
    return {session.id for session in await families.of(user_id)}


# Rotation


async def test_a_rotation_gives_the_next_generation(families):
    first = await start(families)

    second = await rotate(families, first.token)

    assert second.verdict is Verdict.ROTATED
    assert second.token.generation == first.token.generation + 1
    assert (second.token.user_id, second.token.session_id) == (ADA, first.token.session_id)


async def test_a_replayed_token_ends_the_session(families, later):
    stolen = (await start(families)).token
    current = (await rotate(families, stolen)).token
    await later("11s")
    await rotate(families, current)

    with pytest.raises(RefreshTokenReused):
        await rotate(families, stolen)
    assert await why_ended(families, current) == EndReason.REUSE


async def test_reuse_leaves_the_other_sessions_alone(families):
    stolen, other = (await start(families)).token, (await start(families)).token
    for token in (stolen._replace(generation=generation) for generation in range(10)):
        await rotate(families, token)

    with pytest.raises(RefreshTokenReused):
        await rotate(families, stolen)
    assert (await rotate(families, other)).verdict is Verdict.ROTATED


async def test_a_lost_answer_is_recovered_however_late_the_client_retries(families, later):
    token = (await start(families)).token
    await rotate(families, token)
    await later("6d")

    again = await rotate(families, token)

    assert again.verdict is Verdict.RECOVERED
    assert again.token.generation == 2


async def test_without_recovery_a_late_retry_ends_the_session(assembling, later):
    families = (await assembling(REFRESH_RECOVERY="off")).families
    token = (await start(families)).token
    await rotate(families, token)
    await later("11s")

    with pytest.raises(RefreshTokenReused):
        await rotate(families, token)


async def test_a_rotation_that_redis_lost_is_healed(families):
    token = (await start(families)).token

    healed = await rotate(families, token._replace(generation=3))

    assert (healed.verdict, healed.token.generation) == (Verdict.HEALED, 4)


async def test_a_hundred_uses_at_once_over_two_instances_give_one_successor(assembling):
    one, other = (await assembling()).families, (await assembling()).families
    token = (await start(one)).token

    families = await gather(*(rotate(one, token) for _ in range(50)), *(rotate(other, token) for _ in range(50)))

    assert {family.token.generation for family in families} == {1}
    assert sorted(family.verdict for family in families).count(Verdict.ROTATED) == 1


async def test_what_travels_beside_a_rotation_is_read_after_it(families):
    token = (await start(families)).token

    family, (stored,) = await families.rotate(token, ("HGET", KEY, token.session_id))

    assert stored.startswith(f"{family.token.generation},")


async def test_a_session_is_not_opened_for_an_account_that_changed_meanwhile(families):
    await start(families)
    await families.end_all(ADA, EndReason.PASSWORD_CHANGED, account_changed=True)

    with pytest.raises(Overtaken):
        await start(families, epoch=0)


# Lifetimes


async def test_an_idle_session_expires_and_says_so(assembling, later):
    its = await assembling(JWT_REFRESH_EXPIRY="1h")
    families = its.families
    token = (await start(families)).token
    await later("61m")
    await look_after(its)

    assert not (await families.standing(ADA, token.session_id, "jti")).live
    assert await live(families) == set()
    assert await why_ended(families, token) == EndReason.EXPIRED
    assert await why_ended(families, token) == EndReason.EXPIRED


async def test_an_old_token_of_an_expired_session_is_expired_not_reused(assembling, later):
    families = (await assembling(JWT_REFRESH_EXPIRY="1h")).families
    token = (await start(families)).token
    for generation in range(10):
        await rotate(families, token._replace(generation=generation))
    await later("61m")

    assert await why_ended(families, token) == EndReason.EXPIRED


async def test_use_extends_the_idle_lifetime_and_never_the_absolute_one(assembling, later):
    families = (await assembling(JWT_REFRESH_EXPIRY="1h", SESSION_MAX_AGE="2h")).families
    first = family = await start(families)
    assert first.expires_at == first.started_at + HOUR

    for _ in range(2):
        await later("50m")
        family = await rotate(families, family.token)
    assert family.expires_at == family.started_at + 2 * HOUR

    await later("19m")
    family = await rotate(families, family.token)
    assert family.expires_at == family.started_at + 2 * HOUR
    await later("2m")
    assert await why_ended(families, family.token) == EndReason.EXPIRED


def due(token: RefreshToken) -> Charge:
    return Charge("refresh", (token.session_id,), token.user_id)


async def test_a_call_that_its_limit_refuses_exchanges_nothing(assembling, redis):
    its = await assembling(RATE_LIMITS="refresh=2/1m")
    first = (await start(its.families)).token
    second = (await its.families.rotate(first, toll=its.limiter.toll(due(first))))[0].token
    third = (await its.families.rotate(second, toll=its.limiter.toll(due(first))))[0].token
    before = await redis.hgetall(KEY)

    with pytest.raises(Refused) as refused:
        await its.families.rotate(third, toll=its.limiter.toll(due(first)))

    assert refused.value.allowance.remaining == 0
    assert await redis.hgetall(KEY) == before
    assert (await rotate(its.families, third)).token.generation == 3


async def test_no_more_get_through_than_allowed_when_all_come_at_once(assembling):
    its = await assembling(RATE_LIMITS="refresh=7/1m")
    token = (await start(its.families)).token

    async def passes() -> bool:
        try:
            await its.families.rotate(token, toll=its.limiter.toll(due(token)))
        except Refused:
            return False
        return True

    assert sum(await gather(*(passes() for _ in range(30)))) == 7


@pytest.mark.parametrize("known", ["neither", "limits/window.lua", "sessions/rotate.lua"])
async def test_a_toll_is_settled_once_when_redis_has_forgotten_a_script(parts, redis, known):
    token = (await start(parts.families)).token
    toll = parts.limiter.toll(due(token))
    await redis.script_flush()
    if known != "neither":
        await redis.script_load((Path(owner.__file__).parents[1] / known).read_text())

    family, _ = await parts.families.rotate(token, toll=toll)

    assert family.token.generation == 1
    assert toll.allowance is not None
    assert await redis.zcard(toll.window) == 1


async def test_a_call_whose_window_ended_at_that_very_moment_is_let_through_all_the_same(parts):
    token = (await start(parts.families)).token
    toll = parts.limiter.toll(due(token))
    toll.command = parts.limiter.counting("refresh", toll.window, "")  # allowed, and not to be found afterwards

    family, _ = await parts.families.rotate(token, toll=toll)

    assert family.verdict is Verdict.ROTATED


async def test_a_replay_extends_nothing(families, later):
    first = await start(families)
    second = await rotate(families, first.token)
    await later("5s")

    replayed = await rotate(families, first.token)

    assert replayed.verdict is Verdict.REPLAYED
    assert replayed.expires_at <= second.expires_at


async def test_a_shorter_absolute_lifetime_holds_for_the_sessions_there_are(assembling, later):
    before = (await assembling()).families
    token = (await start(before)).token
    await later("2h")
    after = (await assembling(JWT_REFRESH_EXPIRY="1h", SESSION_MAX_AGE="1h")).families

    assert await why_ended(after, token) == EndReason.EXPIRED


# Ends and their reasons

BY_END = sorted(set(EndReason) - {EndReason.EXPIRED, EndReason.REUSE, EndReason.REPLACED})


@pytest.mark.parametrize("reason", BY_END)
@pytest.mark.parametrize("every", [False, True], ids=["one", "every"])
async def test_an_ended_session_tells_why(families, reason, every):
    family = await start(families)
    token = (await rotate(families, family.token)).token

    if every:
        assert (await families.end_all(ADA, reason)).count == 1
    else:
        assert await families.end(ADA, token.session_id, reason)

    assert await why_ended(families, token) == reason
    assert await why_ended(families, family.token) == reason
    assert await live(families) == set()


async def test_a_session_is_told_why_it_ended_for_a_week(families, later):
    token = (await start(families)).token
    await families.end(ADA, token.session_id, EndReason.LOGOUT)

    await later("167h")
    assert await why_ended(families, token) == EndReason.LOGOUT
    await later("2h")
    await start(families)
    assert await why_ended(families, token) is None


async def test_a_session_that_never_was_has_no_reason(families):
    assert await why_ended(families, RefreshToken(ADA, "NeverNeverNeverNeverNA")) is None


async def test_one_session_too_many_replaces_the_oldest(assembling, later):
    families = (await assembling(MAX_SESSIONS_PER_USER="3")).families
    tokens = []
    for _ in range(5):
        tokens.append((await start(families)).token)
        await later("1s")

    assert await live(families) == {token.session_id for token in tokens[2:]}
    assert await why_ended(families, tokens[0]) == await why_ended(families, tokens[1]) == EndReason.REPLACED


async def test_the_oldest_is_the_one_signed_in_first_however_much_it_is_used(assembling, later):
    families = (await assembling(MAX_SESSIONS_PER_USER="2")).families
    oldest = await start(families)
    await later("1s")
    await start(families)
    await later("1s")
    token = (await rotate(families, oldest.token)).token

    await start(families)

    assert await why_ended(families, token) == EndReason.REPLACED


async def test_an_expired_session_takes_nobody_s_place(assembling, later):
    families = (await assembling(MAX_SESSIONS_PER_USER="2", JWT_REFRESH_EXPIRY="1h")).families
    await start(families)
    await later("40m")
    staying = (await start(families)).token
    await later("40m")

    await start(families)

    assert staying.session_id in await live(families)


async def test_ending_one_leaves_the_others(families):
    one, other = (await start(families)).token, (await start(families)).token

    await families.end(ADA, one.session_id, EndReason.REVOKED)

    assert await live(families) == {other.session_id}


async def test_ending_all_but_one_spares_that_one(families):
    tokens = [(await start(families)).token for _ in range(5)]

    ended = await families.end_all(ADA, EndReason.PASSWORD_CHANGED, spare=tokens[2].session_id)

    assert ended.count == 4
    assert await live(families) == {tokens[2].session_id}
    assert await why_ended(families, tokens[0]) == EndReason.PASSWORD_CHANGED
    assert (await rotate(families, tokens[2])).verdict is Verdict.ROTATED


async def test_ending_all_ends_nobody_else_s(families):
    bob = "BobBobBobBobBobBobBobA"
    await start(families)
    await start(families, bob)

    await families.end_all(ADA, EndReason.LOGOUT_ALL)

    assert await live(families) == set()
    assert len(await live(families, bob)) == 1


async def test_ending_what_never_was_says_so_and_leaves_nothing(families, redis):
    assert not await families.end(ADA, "NeverNeverNeverNeverNA", EndReason.LOGOUT, "jti", 2_000_000_000)
    assert (await families.end_all(ADA, EndReason.LOGOUT_ALL)).count == 0
    assert not await redis.exists(KEY)


async def test_a_user_sees_the_sessions_the_one_used_last_first(families, later):
    phone = Client("2001:db8::7", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1")
    first = await start(families)
    await later("10s")
    second = await start(families, client=phone)
    await later("10s")
    assert [session.id for session in await families.of(ADA)] == [second.token.session_id, first.token.session_id]

    used = await rotate(families, first.token)

    one, two = await families.of(ADA)
    assert (one.id, two.id) == (first.token.session_id, second.token.session_id)
    assert (two.ip, two.user_agent) == (phone.address, phone.user_agent)
    assert (one.ip, one.user_agent) == (HERE.address, HERE.user_agent)
    assert round(one.last_used_at.timestamp() * 1000) == used.now
    assert one.created_at < two.created_at == two.last_used_at
    assert round(one.expires_at.timestamp() * 1000) == used.expires_at


async def test_what_a_client_sends_as_its_name_cannot_be_taken_for_anything_else(families):
    odd = Client("192.0.2.7", "a 1@2,3@4 epoch .end -jti  with  spaces ")
    family = await start(families, client=odd)

    assert [session.user_agent for session in await families.of(ADA)] == [odd.user_agent]
    assert (await rotate(families, family.token)).verdict is Verdict.ROTATED


# Access tokens


@pytest.fixture
async def signed_in(parts):
    """Signs in somebody, once more at each call."""
    user = await parts.users.register(User(id="", email="ada@example.org"))

    async def begin():
        return await parts.signin.begin(user, ("pwd",), HERE)

    return begin


async def test_the_access_tokens_of_an_ended_session_are_refused_on_every_instance(parts, assembling, signed_in):
    ended, other, elsewhere = await signed_in(), await signed_in(), await assembling()
    renewed = await parts.signin.renew(parts.refresh_tokens.read(ended.refresh_token), HERE)
    await elsewhere.check.principal(ended.access.text)

    await parts.families.end(ended.user.id, ended.session_id, EndReason.LOGOUT)

    for its in (parts, elsewhere):
        for access in (ended.access, renewed.access):
            with pytest.raises(TokenRevoked):
                await its.check.principal(access.text)
        await its.check.principal(other.access.text)


async def test_a_logout_lists_the_access_token_that_it_came_with(families, redis):
    family = await start(families)
    expires = family.now / 1000 + 900

    await families.end(ADA, family.token.session_id, EndReason.LOGOUT, "jti-of-it", expires)

    assert (await families.standing(ADA, family.token.session_id, "jti-of-it")).revoked
    assert not (await families.standing(ADA, family.token.session_id, "another")).revoked
    assert await redis.hget(KEY, "-jti-of-it") == f"{int(expires * 1000)} logout"


async def test_an_account_that_changed_makes_older_access_tokens_stale_and_newer_ones_work(parts, signed_in):
    signed = await signed_in()

    await parts.families.outdate_tokens(signed.user.id)

    with pytest.raises(TokenStale):
        await parts.check.principal(signed.access.text)
    renewed = await parts.signin.renew(parts.refresh_tokens.read(signed.refresh_token), HERE)
    await parts.check.principal(renewed.access.text)
    await parts.check.principal((await signed_in()).access.text)


async def test_the_epoch_grows_only_when_the_account_changed(families):
    await start(families)
    await families.end_all(ADA, EndReason.LOGOUT_ALL)
    assert (await families.standing(ADA, "sid", "jti")).epoch == 0

    await families.end_all(ADA, EndReason.LOGOUT_ALL, account_changed=True)
    await families.outdate_tokens(ADA)
    assert (await families.standing(ADA, "sid", "jti")).epoch == 2


async def test_the_epoch_of_a_user_without_sessions_outlives_any_sign_in_under_way(assembling, redis, later):
    families = (await assembling(JWT_ACCESS_EXPIRY="15m")).families
    await families.outdate_tokens(ADA)

    assert await redis.pttl(KEY) > 75 * 60_000
    await later("75m")
    with pytest.raises(Overtaken):
        await start(families, epoch=0)
    await later("1h")
    assert not await redis.exists(KEY)


async def test_the_epoch_lives_as_long_as_any_session(families, later):
    await families.outdate_tokens(ADA)
    token = (await start(families, epoch=1)).token
    for _ in range(3):
        await later("6d")
        family = await rotate(families, token)
        token = family.token

    assert family.epoch == 1


# What Redis keeps


async def test_the_sessions_expire_and_never_before_the_last_session_and_its_tombstone(families, redis, later):
    async def holds():
        fields = await redis.hgetall(KEY)
        now, lasts = (await redis.time())[0] * 1000, await redis.pttl(KEY)
        times = [int(value.split(" ")[1]) + 7 * DAY for name, value in fields.items() if name in ("one", "two")]
        times += [int(value.split(" ")[0]) for name, value in fields.items() if name.endswith(".end") or name[0] == "-"]
        assert lasts > 0
        assert now + 2000 + lasts >= max(times)

    run = redis_runner(redis)
    await run(START(KEY, "one", 0, "pwd", 100, "ip ua", *LIFETIMES))
    await holds()
    await run(START(KEY, "two", 0, "pwd", 100, "ip ua", DAY, 2 * DAY, 7 * DAY))
    await holds()
    await run(ROTATE(KEY, "two", 0, 10_000, 1, DAY, 2 * DAY, 7 * DAY))
    await holds()
    await later("5d")
    await run(ROTATE(KEY, "one", 0, 10_000, 1, *LIFETIMES))
    await holds()
    await families.outdate_tokens(ADA)
    await holds()
    await run(END(KEY, "one", "", "logout", 7 * DAY, 0, "jti", 1_760_000_000_000, 3_600_000))
    await holds()
    await families.end_all(ADA, EndReason.LOGOUT_ALL, account_changed=True)
    await holds()


def redis_runner(redis):
    """Runs a script as it is, without what the owner makes of its answer."""

    async def run(command):
        await redis.script_load(next(script.text for script in (START, ROTATE, END) if script.sha == command[1]))
        return await redis.execute_command(*command)

    return run


@pytest.mark.parametrize("by", ["log-out", "reuse", "expiry", "log-out everywhere"])
async def test_what_is_left_of_the_only_session_expires_too(families, redis, by):
    """With its last field Redis removes the key, and its time to live with it."""
    run = redis_runner(redis)
    await run(START(KEY, "sid", 0, "pwd", 100, "ip ua", *LIFETIMES))
    match by:
        case "log-out":
            await run(END(KEY, "sid", "", "logout", 7 * DAY, 0, "", 0, 3_600_000))
        case "reuse":
            await redis.hset(KEY, "sid", (await redis.hget(KEY, "sid")).replace("0 ", "9 ", 1))
            assert (await run(ROTATE(KEY, "sid", 0, 10_000, 1, *LIFETIMES)))[0] == "reuse"
        case "expiry":
            assert (await run(ROTATE(KEY, "sid", 0, 10_000, 1, 0, 0, 7 * DAY)))[0] == "expired"
        case "log-out everywhere":
            await families.end_all(ADA, EndReason.LOGOUT_ALL, account_changed=True)

    assert await redis.hexists(KEY, "sid.end")
    assert 7 * DAY - 5000 < await redis.pttl(KEY) <= 14 * DAY


async def test_a_user_who_never_comes_back_leaves_nothing(families, redis, later):
    token = (await start(families)).token
    await families.end(ADA, token.session_id, EndReason.LOGOUT, "jti", 2_000_000_000)

    await later("15d")

    assert not await redis.exists(KEY)


async def test_a_sign_in_prunes_what_has_expired(assembling, redis, later):
    families = (await assembling(JWT_REFRESH_EXPIRY="2d")).families
    for number in range(3):
        family = await start(families)
        expires = family.now / 1000 + 900
        await families.end(ADA, family.token.session_id, EndReason.LOGOUT, f"jti{number}", expires)
    await start(families)
    await later("8d")
    await start(families)
    await later("36h")

    current = (await start(families)).token

    fields = set(await redis.hkeys(KEY))
    assert current.session_id in fields
    assert len(fields) == 2  # with the session of 36 hours ago


async def test_ten_thousand_expired_fields_are_pruned_at_once(families, redis):
    await start(families)
    await redis.hset(KEY, mapping={f"-jti{number}": "1700000000000 logout" for number in range(10_000)})

    await start(families)

    assert await redis.hlen(KEY) == 2


async def test_tombstones_are_no_more_than_the_sessions_a_user_may_have(assembling, redis, later):
    families = (await assembling(MAX_SESSIONS_PER_USER="3")).families
    for _ in range(10):
        await start(families)
        await later("1s")

    assert len([name for name in await redis.hkeys(KEY) if name.endswith(".end")]) <= 4


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_a_user_with_all_the_sessions_allowed_is_one_compact_block(assembling, own_redis):
    """With the limits of `config/redis.conf`."""
    for name, value in re.findall(r"^(hash-\S+) (\d+)$", (settings.CONFIG / "redis.conf").read_text(), re.MULTILINE):
        own_redis.cli("CONFIG", "SET", name, value)
    families = (await assembling(reach(own_redis.url))).families
    somebody = Client("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "x" * 256)
    tokens = [(await start(families, client=somebody)).token for _ in range(200)]
    for token in tokens[100:]:
        for generation in range(9):
            await rotate(families, token._replace(generation=generation))

    assert len(await live(families)) == 100
    assert own_redis.cli("OBJECT", "ENCODING", KEY) in ("listpack", "ziplist")


# Repeats


async def test_a_start_that_is_sent_twice_opens_one_session(redis):
    run = redis_runner(redis)
    command = START(KEY, "sid", 0, "pwd", 100, "ip ua", *LIFETIMES)

    first, fields = await run(command), await redis.hgetall(KEY)
    second = await run(command)

    assert (second[0], second[2]) == (first[0], first[2])
    assert await redis.hgetall(KEY) == fields


async def test_a_start_whose_answer_was_lost_is_not_overtaken_by_its_own_repeat(redis):
    run = redis_runner(redis)
    command = START(KEY, "sid", 0, "pwd", 1, "ip ua", *LIFETIMES)
    await run(command)
    await run(END(KEY, "", "", "revoked", 7 * DAY, 1, "", 0, 3_600_000))

    assert (await run(command))[0] == "started"
    assert await redis.hexists(KEY, "sid")


async def test_a_rotation_that_is_sent_twice_gives_the_same_successor(redis):
    run = redis_runner(redis)
    await run(START(KEY, "sid", 0, "pwd", 100, "ip ua", *LIFETIMES))
    command = ROTATE(KEY, "sid", 0, 10_000, 1, *LIFETIMES)

    first, fields = await run(command), await redis.hgetall(KEY)
    second = await run(command)

    assert (first[0], second[0]) == ("rotated", "replayed")
    assert first[1] == second[1]
    assert await redis.hgetall(KEY) == fields


async def test_a_session_may_be_ended_again_and_keeps_its_first_reason(families):
    family = await start(families)
    sid = family.token.session_id

    assert await families.end(ADA, sid, EndReason.LOGOUT, "jti", family.now / 1000 + 900)
    assert await families.end(ADA, sid, EndReason.REVOKED, "jti", family.now / 1000 + 900)

    assert await why_ended(families, family.token) == EndReason.LOGOUT
    assert (await families.standing(ADA, sid, "jti")).revoked


async def test_ending_all_again_ends_none_and_keeps_the_reasons(families):
    token = (await start(families)).token

    assert (await families.end_all(ADA, EndReason.LOGOUT_ALL)).count == 1
    assert (await families.end_all(ADA, EndReason.PASSWORD_CHANGED)).count == 0

    assert await why_ended(families, token) == EndReason.LOGOUT_ALL


# A Redis that has forgotten its scripts


async def test_a_redis_without_our_scripts_is_not_noticed(families, redis):
    await redis.script_flush()
    token = (await start(families)).token
    await redis.script_flush()
    token = (await rotate(families, token)).token
    await redis.script_flush()
    await families.outdate_tokens(ADA)
    await redis.script_flush()
    await families.end(ADA, token.session_id, EndReason.LOGOUT)

    assert await why_ended(families, token) == EndReason.LOGOUT


async def test_nor_where_commands_travel_together(families, redis):
    token = (await start(families)).token
    await redis.script_flush()

    family, (stored,) = await families.rotate(token, ("HGET", KEY, token.session_id))

    assert (family.verdict, family.token.generation) == (Verdict.ROTATED, 1)
    assert stored.startswith("1,")  # a read beside a script is a read after it


async def test_nor_where_many_callers_find_out_at_once(families, redis):
    tokens = [(await start(families)).token for _ in range(20)]
    await redis.script_flush()

    rotated = await asyncio.gather(*(rotate(families, token) for token in tokens for _ in range(3)))

    assert {family.token.generation for family in rotated} == {1}
