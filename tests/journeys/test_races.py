"""Races over HTTP: two instances on one real Redis, and everything at once."""

import asyncio
import random
from dataclasses import replace

import jwt
import pytest

from service.accounts.passwords import ARGON2ID
from service.sessions.families import EndReason
from tests.conftest import PASSWORD, cheap_passwords

pytestmark = pytest.mark.parametrize("connecting", ["redis"], indirect=True)

TOKENS = {"X-Auth-Mode": "token"}
NEW_PASSWORD = "another horse, another staple"


@pytest.fixture
async def instances(serving):
    """A browser for each of two instances."""
    return [await serving(), await serving()]


class Client:
    """A client in token mode that asks any instance, and keeps every token it was ever given."""

    def __init__(self, instances, signed) -> None:
        self._instances = instances
        self.access = signed.json["accessToken"]
        self.refresh = signed.json["refreshToken"]
        self.given = [(self.access, self.refresh)]

    @property
    def session_id(self) -> str:
        return claims(self.access)["sid"]

    async def ask(self, method, path, json=None, at=None, bearer=None):
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return await (at or random.choice(self._instances))(method, path, json, headers=headers, csrf=None)

    async def renew(self, refresh=None, at=None):
        """Refreshes, and keeps what comes back."""
        answer = await self.ask("POST", "/api/auth/refresh", {"refreshToken": refresh or self.refresh}, at)
        if answer.status == 200:
            self.given.append((answer.json["accessToken"], answer.json["refreshToken"]))
        return answer

    async def logout(self):
        return await self.ask("POST", "/api/auth/logout", {"refreshToken": self.refresh})

    async def nothing_works(self) -> None:
        """None of the tokens that this client was ever given does, on any instance."""
        for instance in self._instances:
            for access, refresh in set(self.given):
                assert (await self.ask("GET", "/api/auth/me", at=instance, bearer=access)).status == 401
                assert (await self.renew(refresh, at=instance)).code == "SESSION_ENDED"


def claims(access: str) -> dict:
    return jwt.decode(access, options={"verify_signature": False})


async def sign_up(instances, email="ada@example.org") -> Client:
    return Client(instances, await instances[0].register(email, headers=TOKENS))


async def sign_in(instances, email="ada@example.org", password=PASSWORD) -> Client:
    signed = await random.choice(instances).login(email, password, headers=TOKENS)
    assert signed.status == 200, signed
    return Client(instances, signed)


async def after(ms: float, work):
    """Starts a little later, so that rounds cross at different points."""
    await asyncio.sleep(ms / 1000)
    return await work


# Refresh


async def test_a_hundred_refreshes_of_one_token_give_one_successor(instances):
    client = await sign_up(instances)

    answers = await asyncio.gather(*(client.renew(at=instances[turn % 2]) for turn in range(100)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["refreshToken"] for answer in answers}) == 1
    assert len({claims(answer.json["accessToken"])["jti"] for answer in answers}) == 100


async def test_a_hundred_refreshes_of_one_cookie_leave_with_one_cookie(instances):
    one, _ = instances
    await one.register()
    kept = one.cookies()
    sent = {
        "headers": {
            "Cookie": "; ".join(f"{name}={value}" for name, value in kept.items()),
            "X-CSRF-Token": kept["csrfToken"],
        }
    }

    answers = await asyncio.gather(*(instances[turn % 2]("POST", "/api/auth/refresh", **sent) for turn in range(100)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.cookies["refreshToken"].value for answer in answers}) == 1
    assert kept["refreshToken"] not in {answer.cookies["refreshToken"].value for answer in answers}
    assert not any("refreshToken" in answer.json for answer in answers)
    assert (await one("POST", "/api/auth/refresh")).status == 200


async def test_reuse_on_one_instance_ends_the_session_on_the_other_and_no_other_session(instances):
    stolen, other = await sign_up(instances), await sign_in(instances)
    first = stolen.refresh
    for _ in range(10):  # more than are remembered
        answer = await stolen.renew(stolen.refresh, at=instances[0])
        stolen.refresh = answer.json["refreshToken"]
    access = stolen.given[-1][0]
    assert (await stolen.ask("GET", "/api/auth/me", at=instances[1], bearer=access)).status == 200

    assert (await stolen.renew(first, at=instances[0])).code == "REFRESH_TOKEN_REUSED"

    assert (await stolen.ask("GET", "/api/auth/me", at=instances[1], bearer=access)).code == "TOKEN_REVOKED"
    await stolen.nothing_works()
    assert (await other.ask("GET", "/api/auth/me", bearer=other.access)).status == 200
    assert (await other.renew()).status == 200


# Log-out


async def test_nothing_survives_a_logout_that_races_refreshes(instances):
    """200 rounds: what any racing answer handed out is dead once the 204 has arrived, and later answers too."""
    await sign_up(instances)
    chance = random.Random(1)

    async def a_round():
        client = await sign_in(instances)
        racing = [asyncio.create_task(after(chance.uniform(0, 30), client.renew())) for _ in range(4)]
        out = await after(chance.uniform(0, 30), client.logout())
        assert out.status == 204
        for access, refresh in set(client.given):  # while others may still be under way
            assert (await client.ask("GET", "/api/auth/me", bearer=access)).code == "TOKEN_REVOKED"
            assert (await client.renew(refresh)).code == "SESSION_ENDED"
        assert {answer.status for answer in await asyncio.gather(*racing)} <= {200, 401}
        await client.nothing_works()
        return len(client.given) - 1

    overtaken = [await asyncio.gather(*(a_round() for _ in range(10))) for _ in range(20)]
    assert 0 < sum(map(sum, overtaken)) < 800, "some refreshes came before and some after the log-out"


async def test_a_logout_everywhere_ends_every_session_that_had_begun_before_it(instances):
    """A log-in that comes after it works; one that came before it is over, however the answers cross."""
    await sign_up(instances)
    chance = random.Random(2)
    for _ in range(15):
        earlier = [await sign_in(instances) for _ in range(3)]
        racing = [asyncio.create_task(after(chance.uniform(0, 30), client.renew())) for client in earlier * 3]
        signing_in = [asyncio.create_task(after(chance.uniform(0, 20), sign_in(instances))) for _ in range(3)]
        out = await after(
            chance.uniform(0, 30), earlier[0].ask("POST", "/api/auth/logout-all", bearer=earlier[0].access)
        )
        assert out.status == 204
        await asyncio.gather(*racing)
        new = await asyncio.gather(*signing_in)

        for client in earlier:
            await client.nothing_works()
        # A session of the same second, opened after it, works; nothing in between.
        epoch = claims((await sign_in(instances)).access)["ver"]
        for client in new:
            if claims(client.access)["ver"] == epoch:
                assert (await client.ask("GET", "/api/auth/me", bearer=client.access)).status == 200
                assert (await client.renew()).status == 200
            else:
                await client.nothing_works()


async def test_a_password_change_leaves_its_own_session_and_none_that_the_old_password_opened(instances):
    owner, password = await sign_up(instances), PASSWORD
    chance = random.Random(3)
    for turn in range(15):
        others = [await sign_in(instances, password=password) for _ in range(2)]
        racing = [asyncio.create_task(after(chance.uniform(0, 30), client.renew())) for client in others * 3]
        owners = [asyncio.create_task(after(chance.uniform(0, 30), owner.renew())) for _ in range(2)]
        intruders = [
            asyncio.create_task(
                after(chance.uniform(0, 20), random.choice(instances).login(password=password, headers=TOKENS))
            )
            for _ in range(3)
        ]
        fresh = f"{NEW_PASSWORD} {turn}"
        changed = await owner.ask(
            "POST",
            "/api/auth/password/change",
            {"currentPassword": password, "newPassword": fresh},
            bearer=owner.access,
        )
        assert changed.status == 204, changed
        earlier = owner.access
        await asyncio.gather(*racing, *owners)

        for client in others:
            await client.nothing_works()
        for signed in await asyncio.gather(*intruders):
            if signed.status == 200:
                await Client(instances, signed).nothing_works()
            else:
                assert signed.code == "INVALID_CREDENTIALS"
        assert (await owner.ask("GET", "/api/auth/me", bearer=earlier)).code == "TOKEN_STALE"
        renewed = await owner.renew(owner.given[-1][1])
        owner.access, owner.refresh = renewed.json["accessToken"], renewed.json["refreshToken"]
        owner.given = [(owner.access, owner.refresh)]
        assert (await owner.ask("GET", "/api/auth/me", bearer=owner.access)).status == 200
        password = fresh


@pytest.fixture
async def slow(assembling):
    """An instance whose password hashes take a tenth of a second to check, so that things happen meanwhile."""
    return await assembling(passwords=cheap_passwords(parameters=replace(ARGON2ID, memory_cost=8192, time_cost=20)))


async def test_a_password_that_changed_while_it_was_checked_signs_nobody_in(slow, serving):
    browser = await serving(slow)
    user_id = (await browser.register(headers=TOKENS)).json["user"]["id"]
    new = await cheap_passwords().hash(NEW_PASSWORD)

    signing_in = asyncio.create_task(browser.login(headers=TOKENS))
    await asyncio.sleep(0.03)
    await slow.users.change(user_id, pw=new)
    await slow.families.end_all(user_id, EndReason.PASSWORD_CHANGED, account_changed=True)

    assert (await signing_in).code == "INVALID_CREDENTIALS"
    assert await slow.families.of(user_id) == []
    assert (await browser.login(password=NEW_PASSWORD, headers=TOKENS)).status == 200


async def test_rights_that_changed_while_a_password_was_checked_are_in_the_token(slow, serving):
    browser = await serving(slow)
    user_id = (await browser.register(headers=TOKENS)).json["user"]["id"]

    signing_in = asyncio.create_task(browser.login(headers=TOKENS))
    await asyncio.sleep(0.03)
    await slow.users.change(user_id, roles="user admin")
    await slow.families.outdate_tokens(user_id)

    signed = await signing_in
    assert signed.status == 200
    assert claims(signed.json["accessToken"])["roles"] == ["user", "admin"]
    bearer = {"Authorization": f"Bearer {signed.json['accessToken']}"}
    assert (await browser("GET", "/api/auth/me", headers=bearer)).status == 200


# Registration


async def test_fifty_registrations_in_different_spellings_make_one_account(instances, redis_server):
    spellings = ["ada@example.org", "Ada@Example.org", "ADA@EXAMPLE.ORG", "\uff41da@example.org", "ada@example.org."]

    answers = await asyncio.gather(
        *(
            instances[turn % 2].register(spellings[turn % len(spellings)], f"{PASSWORD} {turn}", headers=TOKENS)
            for turn in range(50)
        )
    )

    assert sorted(answer.status for answer in answers) == [201] + [409] * 49
    assert {answer.code for answer in answers if answer.status == 409} == {"EMAIL_EXISTS"}
    (turn,) = [turn for turn, answer in enumerate(answers) if answer.status == 201]
    assert answers[turn].json["user"]["email"] == "ada@example.org"
    assert len(redis_server.cli("KEYS", "user:*")) == len(redis_server.cli("KEYS", "email:*")) == 1
    assert (await instances[1].login(password=f"{PASSWORD} {turn}", headers=TOKENS)).status == 200
