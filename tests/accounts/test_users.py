"""Users: one account to an email, whatever comes in between."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from service.accounts.lookups import Holder, Lookups
from service.accounts.user import Identity, User
from service.accounts.users import Users
from service.errors import EmailExists, IdentityInUse, StoreUnavailable
from service.ids import new_id
from service.vault import Vault
from tests.conftest import gather

OLD_SECRET, NEW_SECRET = "the secret of last year 55e0c1d2", "the secret of this year 93bd17aa"
ADA = User(id="", email="ada@bücher.example", password="$argon2id$old", first_name="Ada")
SPELLINGS = (
    "ada@bücher.example",
    "Ada@Bücher.example",
    "ADA@BÜCHER.EXAMPLE",
    "ada@xn--bcher-kva.example",
    "ADA@XN--BCHER-KVA.EXAMPLE",
    "ada@bu\u0308cher.example",
    "\uff41da@bücher.example",
    "ada@bücher.example.",
)


@pytest.fixture
def users(parts):
    return parts.users


class Crash(Exception):
    """The process is gone."""


class Dying:
    """A store that is cut off after so many calls, as by a crash between two steps."""

    def __init__(self, store, calls: int) -> None:
        self._store, self._left = store, calls

    async def one(self, command, durable=False):
        return (await self.run(command, durable=durable))[0]

    async def run(self, *commands, **how):
        if self._left == 0:
            raise Crash
        self._left -= 1
        return await self._store.run(*commands, **how)


async def cut_off(its, user: User, after: int) -> bool:
    """Registers on an instance that crashes after so many calls to Redis; whether it came to the end."""
    dying = Dying(its.store, after)
    users = Users(dying, its.clock, Lookups(dying, Vault(its.settings.secrets)))
    try:
        await users.register(user)
    except Crash:
        return False
    return True


async def records(redis) -> list[str]:
    return [key async for key in redis.scan_iter("user:*")]


async def lookups(redis) -> dict[str, str]:
    """What every lookup of an email holds."""
    parts = {part: await redis.hgetall(part) async for part in redis.scan_iter("email:*")}
    return {f"{part}:{rest}": value for part, held in parts.items() for rest, value in held.items()}


async def claimed(redis) -> list[str]:
    """The lookups of emails that are not for good."""
    return [lookup for lookup, value in (await lookups(redis)).items() if " " in value]


async def lose_lookups(redis) -> None:
    await redis.delete(*[part async for part in redis.scan_iter("email:*")])


async def test_what_was_registered_is_found_in_any_spelling(users):
    made = await users.register(replace(ADA, name="Ada L.", email_verified=True, roles=("user", "admin")))

    assert await users.find(made.id) == made
    for spelling in SPELLINGS:
        assert await users.find_by_email(spelling) == made
    assert await users.find_by_email("bob@example.org") is None
    assert await users.find(new_id()) is None


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_an_account_registered_in_any_spelling_has_the_canonical_email(users, spelling):
    made = await users.register(replace(ADA, email=spelling))

    assert made.email == ADA.email
    assert await users.find_by_email(ADA.email) == made


async def test_an_email_belongs_to_one_account(users, redis):
    made = await users.register(ADA)

    with pytest.raises(EmailExists):
        await users.register(ADA)
    assert await users.find_by_email(ADA.email) == made
    assert len(await records(redis)) == 1


async def test_fifty_registrations_at_once_over_two_instances_make_one_account(assembling, redis):
    one, other = (await assembling()).users, (await assembling()).users

    results = await gather(
        *(
            (one, other)[turn % 2].register(replace(ADA, email=SPELLINGS[turn % len(SPELLINGS)], first_name=f"{turn}"))
            for turn in range(50)
        )
    )

    made = [result for result in results if isinstance(result, User)]
    assert len(made) == 1
    assert sum(isinstance(result, EmailExists) for result in results) == 49
    assert await one.find_by_email(ADA.email) == await other.find_by_email(ADA.email) == made[0]
    assert len(await records(redis)) == len(await lookups(redis)) == 1
    assert await claimed(redis) == []


@pytest.mark.parametrize("calls", range(8))
async def test_a_registration_cut_off_anywhere_leaves_one_account_or_none_and_no_email_lost(parts, redis, later, calls):
    finished = await cut_off(parts, ADA, after=calls)
    await later("61s")

    if (found := await parts.users.find_by_email(ADA.email)) is None:
        found = await parts.users.register(ADA)
    assert (await parts.users.find_by_email(ADA.email)) == found
    with pytest.raises(EmailExists):
        await parts.users.register(ADA)
    assert len(await lookups(redis)) == 1
    assert await claimed(redis) == []
    assert finished or calls < 7  # the last of these crashes comes too late


async def test_a_registration_that_is_refused_for_its_identity_keeps_no_email(users, redis):
    identity = Identity("github", "https://github.com", "1")
    await users.register(replace(ADA, identities=(identity,)))

    with pytest.raises(IdentityInUse):
        await users.register(replace(ADA, email="eve@example.org", identities=(identity,)))
    assert len(await lookups(redis)) == 1


PEOPLE = tuple(replace(ADA, email=f"person{number}@example.org") for number in range(3))


async def test_many_are_registered_together_but_for_those_whose_email_is_taken(users, redis):
    before = await users.register(PEOPLE[1])

    made = await users.register_all([*PEOPLE, replace(PEOPLE[0], email="Person0@Example.org")])

    assert [user and user.email for user in made] == [PEOPLE[0].email, None, PEOPLE[2].email, None]
    assert [await users.find_by_email(user.email) for user in PEOPLE] == [made[0], before, made[2]]
    assert len(await records(redis)) == len(await lookups(redis)) == 3
    assert await claimed(redis) == []
    assert await users.register_all([]) == []


@pytest.mark.parametrize("calls", range(6))
async def test_registering_many_cut_off_anywhere_loses_no_email(parts, redis, later, calls):
    dying = Dying(parts.store, calls)
    users = Users(dying, parts.clock, Lookups(dying, Vault(parts.settings.secrets)))
    with suppress(Crash):
        await users.register_all(PEOPLE)
    await later("61s")

    for user in PEOPLE:
        found = await parts.users.find_by_email(user.email) or await parts.users.register(user)
        assert await parts.users.find_by_email(user.email) == found
        with pytest.raises(EmailExists):
            await parts.users.register(user)
    assert await claimed(redis) == []


async def test_of_many_the_one_whose_claim_lapsed_yields(parts, redis):
    class HeldUp:
        one = parts.store.one

        async def run(self, *commands, **how):
            if commands[-1][0] == "HSET":
                await lose_lookups(redis)
                self.won = await parts.users.register(PEOPLE[1])
            return await parts.store.run(*commands, **how)

    store = HeldUp()
    made = await Users(store, parts.clock, Lookups(store, Vault(parts.settings.secrets))).register_all(PEOPLE)

    assert [user is not None for user in made] == [True, False, True]
    assert await parts.users.find_by_email(PEOPLE[1].email) == store.won
    assert len(await records(redis)) == 3


async def test_a_claim_that_lapsed_is_taken_over_and_the_late_comer_yields(parts, redis):
    """The first registration is held up for longer than its claim, at its last step but one."""
    in_time, store = parts.users, parts.store

    class HeldUp:
        async def run(self, *commands, **how):
            if commands[-1][0] == "HSET":
                await lose_lookups(redis)  # its minute is over
                self.won = await in_time.register(ADA)
            return await store.run(*commands, **how)

        one = store.one

    held_up = HeldUp()
    late = Users(held_up, parts.clock, Lookups(held_up, Vault(parts.settings.secrets)))

    with pytest.raises(EmailExists):
        await late.register(ADA)
    assert await in_time.find_by_email(ADA.email) == held_up.won
    assert await records(redis) == [f"user:{{{held_up.won.id}}}"]


# Changes


async def test_a_change_changes_what_it_names_and_an_empty_value_removes_the_field(users):
    made = await users.register(replace(ADA, last_name="Lovelace"))

    assert await users.change(made.id, first="Augusta", last=None)

    changed = await users.find(made.id)
    assert (changed.first_name, changed.last_name, changed.email) == ("Augusta", None, made.email)
    assert changed.updated_at >= made.updated_at


async def test_a_user_who_is_gone_is_not_brought_back_by_a_change(parts, redis):
    assert not await parts.users.change(new_id(), first="Nobody")
    assert await parts.store.one(parts.users.noting_login(new_id())) == "absent"

    assert await records(redis) == []


async def test_a_password_changes_only_if_it_still_is_what_was_read(users):
    made = await users.register(ADA)

    assert await users.change(made.id, password_was="$argon2id$old", pw="$argon2id$new")
    assert not await users.change(made.id, password_was="$argon2id$old", pw="$argon2id$other")
    assert (await users.find(made.id)).password == "$argon2id$new"


async def test_a_password_change_that_is_sent_twice_is_no_conflict(users):
    made = await users.register(ADA)

    assert await users.change(made.id, password_was="$argon2id$old", pw="$argon2id$new")
    assert await users.change(made.id, password_was="$argon2id$old", pw="$argon2id$new")


async def test_of_fifty_password_changes_at_once_one_wins(assembling):
    one, other = (await assembling()).users, (await assembling()).users
    made = await one.register(ADA)

    changed = await gather(
        *(
            (one, other)[turn % 2].change(made.id, password_was="$argon2id$old", pw=f"$argon2id${turn}")
            for turn in range(50)
        )
    )

    assert sum(changed) == 1
    assert (await other.find(made.id)).password == f"$argon2id${changed.index(True)}"


async def test_a_first_password_is_set_only_where_there_is_none(users):
    made = await users.register(replace(ADA, password=""))

    assert await users.change(made.id, password_was="", pw="$argon2id$first")
    assert not await users.change(made.id, password_was="", pw="$argon2id$second")


# The lookup key


async def test_two_instances_racing_for_the_first_account_share_one_lookup_key(assembling, redis):
    its = [await assembling() for _ in range(4)]
    await redis.delete("lookup-key")

    await gather(*(each.users.register(replace(ADA, email=f"{turn}@example.org")) for turn, each in enumerate(its)))

    for turn in range(len(its)):
        assert {(await each.users.find_by_email(f"{turn}@example.org")).email for each in its} == {
            f"{turn}@example.org"
        }


async def test_a_new_secret_with_the_previous_one_keeps_every_account(assembling):
    made = await (await assembling(AUTH_SECRET=OLD_SECRET)).users.register(ADA)

    after = await assembling(AUTH_SECRET=NEW_SECRET, AUTH_SECRET_PREVIOUS=OLD_SECRET)

    assert await after.users.find_by_email(ADA.email) == made
    with pytest.raises(EmailExists):
        await after.users.register(ADA)


async def test_a_new_secret_without_the_previous_one_is_an_outage_and_not_an_empty_service(assembling, redis):
    before = await assembling(AUTH_SECRET=OLD_SECRET)
    await before.users.register(ADA)
    after = Users(before.store, before.clock, Lookups(before.store, Vault([NEW_SECRET])))

    with pytest.raises(StoreUnavailable):
        await after.find_by_email(ADA.email)
    with pytest.raises(StoreUnavailable):
        await after.register(ADA)
    assert len(await records(redis)) == 1


async def test_a_redis_that_came_back_empty_takes_registrations_again(users, redis):
    await users.register(ADA)
    await redis.flushall()

    made = await users.register(ADA)

    assert await users.find_by_email(ADA.email) == made


async def test_no_key_names_an_email(users, redis):
    await users.register(ADA)

    for key in [*[key async for key in redis.scan_iter()], *await lookups(redis)]:
        assert not any(part in key.lower() for part in ("ada", "cher", "@", "example"))
    assert [len(key) for key in await lookups(redis)] == [len("email:") + 25]


# Moving to another email


@pytest.mark.parametrize("calls", range(15))
async def test_a_move_cut_off_anywhere_leaves_an_account_that_its_email_leads_to(parts, later, calls):
    made = await parts.users.register(ADA)
    dying = Dying(parts.store, calls)
    users = Users(dying, parts.clock, Lookups(dying, Vault(parts.settings.secrets)))
    finished = False
    try:
        async with users.moving(made, "ada@example.com"):
            await users.change_if(made.id, ("email", made.email), {"email": "ada@example.com"})
        finished = True
    except Crash:
        pass
    await later("61s")

    now = await parts.users.find(made.id)
    assert now.email == "ada@example.com" if finished else now.email in (made.email, "ada@example.com")
    assert await parts.users.find_by_email(now.email) == now
    other = ({made.email, "ada@example.com"} - {now.email}).pop()
    assert (await parts.users.register(replace(ADA, email=other))).email == other
    assert (await parts.users.find_by_email(now.email)).id == made.id
    assert finished or calls < 14  # the last of these crashes comes too late


async def test_a_move_that_is_called_off_gives_the_new_email_back(users, redis):
    made = await users.register(ADA)

    with pytest.raises(EmailExists):
        async with users.moving(made, "ada@example.com"):
            raise EmailExists

    assert await users.find_by_email(ADA.email) == made
    assert len(await lookups(redis)) == 1


async def test_who_claims_an_email_at_the_moment_when_another_has_moved_to_it_comes_second(assembling, monkeypatch):
    """The claim was decided when the lookup led nowhere yet, and is made when it leads to the other."""
    one, other = (await assembling()).users, (await assembling()).users
    ada, bob = [await one.register(replace(ADA, email=f"{turn}@example.org")) for turn in range(2)]
    decided, moved, claim = asyncio.Event(), asyncio.Event(), other._lookups.claim

    async def late(lookup, user_id, instead_of=None):
        if instead_of:
            decided.set()
            await moved.wait()
        return await claim(lookup, user_id, instead_of)

    async def move(users, user, when):
        async with users.moving(user, ADA.email):
            await when.wait()
            await users.change_if(user.id, ("email", user.email), {"email": ADA.email})

    monkeypatch.setattr(other._lookups, "claim", late)
    first = asyncio.create_task(move(one, ada, decided))
    while await one._lookups.holder(await one._lookups.email(ADA.email)) is None:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(move(other, bob, moved))
    await first
    moved.set()

    with pytest.raises(EmailExists):
        await second
    assert (await one.find_by_email(ADA.email)).id == ada.id
    assert (await one.find(bob.id)).email == bob.email


async def test_while_it_is_decided_whose_an_email_is_nobody_else_claims_it(assembling):
    its = await assembling()
    lookup = await its.lookups.email(ADA.email)
    await its.lookups.claim(lookup, "ada")
    await its.lookups.settle(lookup, "ada")

    assert await its.lookups.claim(lookup, "bob", instead_of=await its.lookups.holder(lookup))
    assert not await its.lookups.claim(lookup, "eve", instead_of=await its.lookups.holder(lookup))
    await its.lookups.give_back(lookup, "bob", Holder("ada", for_good=True))

    assert await its.lookups.holder(lookup) == Holder("ada", for_good=True)


async def test_of_two_accounts_that_move_to_one_email_one_gets_it(assembling):
    one, other = (await assembling()).users, (await assembling()).users
    people = [await one.register(replace(ADA, email=f"{turn}@example.org")) for turn in range(10)]

    async def move(users, user):
        async with users.moving(user, ADA.email):
            await users.change_if(user.id, ("email", user.email), {"email": ADA.email})

    results = await gather(*(move((one, other)[turn % 2], user) for turn, user in enumerate(people)))

    found = await one.find_by_email(ADA.email)
    assert found
    assert [result for result in results if not isinstance(result, EmailExists)] == [None]
    for user in people:
        assert (await one.find(user.id)).email == (ADA.email if user.id == found.id else user.email)
