"""Deletion: nothing is left but the audit trail, wherever it is cut off, whoever comes in between."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from service.accounts.deletion import Deletion
from service.accounts.lookups import Lookups
from service.accounts.once import Purpose
from service.accounts.user import Identity, User
from service.accounts.users import Linking, Users
from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.errors import IdentityInUse, InvalidOneTimeToken, NotFound, ServiceError
from service.http.body import arrived
from service.sessions.families import Families
from service.sessions.reauthentication import Reauthentication
from service.vault import Vault
from tests.conftest import PASSWORD, all_that_is_in, gather

HERE = Client("192.0.2.7", "curl/8")
GITHUB = Identity("github", "https://github.example", "4711", "ada@example.org")


async def everything(redis) -> dict[str, object]:
    """Every key and what it holds, but for what expires by itself and names nobody."""
    shared = ("outbox", "audit-trail", "signing-keys", "lookup-key")
    passing = ("limit:", "known:", "browser:", "burst:", "signals:")
    kept = await all_that_is_in(redis)
    return {key: what for key, what in kept.items() if key not in shared and not key.startswith(passing)}


async def posted(redis) -> None:
    """Wait until every letter is out."""
    async with asyncio.timeout(60):
        while await redis.xlen("outbox"):
            await asyncio.sleep(0.01)


async def ada(its) -> User:
    """Ada, with a password, an identity and a session."""
    password = await its.passwords.hash(PASSWORD)
    made = await its.users.register(User(id="", email="ada@example.org", password=password, identities=(GITHUB,)))
    await its.signin.begin(made, ("pwd",), HERE)
    return made


async def test_nothing_is_left_but_the_audit_trail(browser, serving, parts, redis):
    bob = await serving(at=browser)
    await bob.register("bob@example.org")
    await posted(redis)
    before = await everything(redis)
    made = (await browser.register()).json["user"]
    key = await browser("POST", "/api/auth/api-keys", {"name": "backup", "permissions": ["profile:read"]})
    assert key.status == 201
    await posted(redis)
    await parts.users.link(await parts.users.find(made["id"]), GITHUB, Linking.HOLDER)
    for _ in range(2):  # the later one takes the place of the one before
        assert await parts.once.issue(Purpose.RESET, made["id"], ("email", made["email"]))
    await browser("POST", "/api/auth/refresh")

    answer = await browser("DELETE", "/api/auth/me", {"password": PASSWORD})

    assert answer.status == 204
    assert not {name for name in browser.cookies() if "Token" in name}
    after = await everything(redis)
    epoch = after.pop(f"sessions:{{{made['id']}}}")
    assert epoch == {"epoch": "1"}
    assert 0 < await redis.ttl(f"sessions:{{{made['id']}}}") < 7200
    assert after == before
    assert made["id"] not in str(after)
    (last, *_), _ = await parts.audit.page(Wanted(made["id"]), None, 10)
    assert last.type == "accounts.user.deleted"


async def test_tokens_are_refused_at_once_and_the_email_is_free(browser, serving):
    signed = (await browser.register(headers={"X-Auth-Mode": "token"})).json
    bearer = {"Authorization": f"Bearer {signed['accessToken']}"}
    elsewhere = await serving(at=browser)
    await elsewhere.login()

    assert (await browser("DELETE", "/api/auth/me", {"password": PASSWORD}, headers=bearer)).status == 204

    assert (await browser("GET", "/api/auth/me", headers=bearer)).code == "TOKEN_REVOKED"
    assert (await elsewhere("GET", "/api/auth/me")).code == "TOKEN_REVOKED"
    assert (await elsewhere("POST", "/api/auth/refresh")).code == "SESSION_ENDED"
    assert (await browser.login()).code == "INVALID_CREDENTIALS"
    again = await browser.register()
    assert again.json["user"]["id"] != signed["user"]["id"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"password": "not the right one"}, "INVALID_CREDENTIALS"),
        ({}, "VALIDATION_ERROR"),
        (None, "VALIDATION_ERROR"),
        ({"password": PASSWORD, "id": "x"}, "VALIDATION_ERROR"),
    ],
)
async def test_without_the_password_nothing_is_deleted(browser, body, code):
    await browser.register()

    assert (await browser("DELETE", "/api/auth/me", body)).code == code
    assert (await browser("GET", "/api/auth/me")).status == 200


async def test_a_password_that_arrives_after_the_head_counts(browser, monkeypatch):
    token = (await browser.register()).json["accessToken"]
    waits = asyncio.Event()

    async def noticed(request):
        waits.set()
        return await arrived(request)

    monkeypatch.setattr("service.http.guard.arrived", noticed)
    reader, writer = await asyncio.open_connection("127.0.0.1", browser.client.server.port)
    body = orjson.dumps({"password": PASSWORD})
    head = ["DELETE /api/auth/me HTTP/1.1", "Host: localhost", "Connection: close", f"Authorization: Bearer {token}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]

    writer.write("\r\n".join(head).encode())
    await asyncio.wait_for(waits.wait(), 20)
    writer.write(body)

    assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 204 ")
    writer.close()


async def test_an_account_without_a_password_needs_a_recent_sign_in(parts):
    made = await parts.users.register(User(id="", email="ada@example.org", identities=(GITHUB,)))
    signed = await parts.signin.begin(made, ("fed",), HERE)
    principal = parts.access_tokens.read(signed.access.text)
    with pytest.raises(ServiceError) as refused:
        await parts.deletion.by_owner(replace(principal, auth_time=principal.auth_time - 3600), None, HERE)
    assert refused.value.code == "REAUTHENTICATION_REQUIRED"

    await parts.deletion.by_owner(principal, None, HERE)
    assert await parts.users.find(made.id) is None


class Crash(Exception):
    """The process is gone."""


class Dying:
    """A store that is cut off after so many calls."""

    def __init__(self, store, calls: int) -> None:
        self._store, self._left = store, calls

    async def one(self, command, **how):
        return (await self.run(command, **how))[0]

    async def run(self, *commands, **how):
        if self._left == 0:
            raise Crash
        self._left -= 1
        return await self._store.run(*commands, **how)

    def insist(self, command):
        self._store.insist(command)


@pytest.mark.parametrize("calls", range(16))
async def test_cut_off_anywhere_there_is_no_way_in_and_a_repeat_finishes_it(parts, redis, calls):
    before = await everything(redis)
    made = await ada(parts)
    removed: list[str] = []

    async def removal(user_id: str) -> None:
        removed.append(user_id)

    dying = Dying(parts.store, calls)
    users = Users(dying, parts.clock, Lookups(dying, Vault(parts.settings.secrets)))
    families = Families(dying, parts.clock, parts.settings)
    reauthentication = Reauthentication(parts.passwords, parts.signals, parts.audit)
    cut = Deletion(users, reauthentication, families, parts.audit, parts.clock, (removal,))
    try:
        await cut.delete(made.id, HERE)
        finished = True
    except Crash:
        finished = False

    if calls >= 2:  # doomed
        with pytest.raises(ServiceError):
            await parts.signin.with_password("ada@example.org", PASSWORD, HERE)
    whole = Deletion(parts.users, reauthentication, parts.families, parts.audit, parts.clock, (removal,))
    if not finished:
        try:
            await whole.delete(made.id, HERE)
        except NotFound:
            assert calls > 8  # only the very last step was missing
    after = await everything(redis)
    after.pop(f"sessions:{{{made.id}}}", None)
    assert {key: value for key, value in after.items() if value} == before
    assert removed[-1] == made.id
    told, _ = await parts.audit.page(Wanted(made.id, "accounts.user.deleted"), None, 10)
    assert len(told) == 1


@pytest.mark.parametrize("attempt", range(5))
async def test_whoever_comes_in_between_gets_nothing_that_lasts(parts, assembling, redis, attempt):
    """Sign-in, refresh and link race a deletion on two instances."""
    made, other = await ada(parts), await assembling()
    signed = await parts.signin.begin(made, ("pwd",), HERE)
    second = Identity("google", "https://accounts.google.com", "99")

    results = await gather(
        other.signin.with_password("ada@example.org", PASSWORD, HERE),
        other.signin.renew(other.refresh_tokens.read(signed.refresh_token), HERE),
        other.users.link(made, second, Linking.HOLDER),
        parts.deletion.delete(made.id, HERE),
        other.deletion.delete(made.id, HERE),
        other.signin.with_password("ada@example.org", PASSWORD, HERE),
        other.users.link(made, second, Linking.HOLDER),
    )
    await parts.audit.settled()
    await other.audit.settled()

    mistakes = [it for it in results if isinstance(it, Exception) and not isinstance(it, ServiceError)]
    assert mistakes == []
    assert await parts.users.find(made.id) is None
    assert await parts.families.of(made.id) == []
    assert (await everything(redis)).get(f"sessions:{{{made.id}}}", {}).keys() <= {"epoch"}
    assert not [key async for key in redis.scan_iter("email:*")]
    lookups = [await redis.hvals(key) async for key in redis.scan_iter("identity:*")]
    assert [value for values in lookups for value in values if " " not in value] == []  # but a claim
    indexes = {key: value for key, value in (await everything(redis)).items() if key.startswith("index:")}
    assert made.id not in str(indexes)
    told, _ = await parts.audit.page(Wanted(made.id, "accounts.user.deleted"), None, 10)
    assert len(told) == 1


async def test_a_link_that_is_overtaken_leaves_no_lookup(parts, redis):
    """The deletion comes between the identity's record and its lookup."""
    made = await ada(parts)
    second = Identity("google", "https://accounts.google.com", "99")

    class Overtaken(Lookups):
        async def settle(self, lookup, user_id):
            await parts.deletion.delete(made.id, HERE)
            return await super().settle(lookup, user_id)

    late = Users(parts.store, parts.clock, Overtaken(parts.store, Vault(parts.settings.secrets)))
    with pytest.raises(IdentityInUse):
        await late.link(made, second, Linking.HOLDER)

    assert [key async for key in redis.scan_iter("identity:*")] == []


@pytest.mark.parametrize("told", [True, False])
async def test_a_deletion_whose_beginning_was_not_told_is_told_by_who_finishes_it(parts, redis, told):
    made = await ada(parts)
    await parts.users.doom(await parts.users.find(made.id))
    if told:
        await parts.audit.record(Event.USER_DELETED, user_id=made.id)
    since, _, mark = (await redis.hget(f"user:{{{made.id}}}", "gone")).partition(" ")
    await redis.hset(f"user:{{{made.id}}}", "gone", f"{int(since) - 6000} {mark}")

    await parts.deletion.delete(made.id, None, "repair")

    events, _ = await parts.audit.page(Wanted(made.id, Event.USER_DELETED), None, 10)
    assert [event.detail.get("by") for event in events] == [None if told else "repair"]


# What mail does to an account that is going


async def asked_to_move(its, user: User) -> str:
    """The token of a mail to the address that the user wants to move to."""
    await its.users.change(user.id, new="ada@new.example")
    token = await its.once.issue(Purpose.CHANGE, user.id, ("new", "ada@new.example"))
    assert token
    return token


@pytest.mark.parametrize("purpose", Purpose)
async def test_a_token_from_a_mail_opens_nothing_once_the_deletion_has_begun(parts, redis, purpose):
    made = await ada(parts)
    token = await asked_to_move(parts, made)
    if purpose is not Purpose.CHANGE:
        token = await parts.once.issue(purpose, made.id, ("email", made.email))
    await parts.users.doom(await parts.users.find(made.id))

    with pytest.raises(InvalidOneTimeToken):
        await (
            parts.recovery.reset(token, "another correct horse", HERE)
            if purpose is Purpose.RESET
            else parts.recovery.verify(token, HERE)
        )
    with pytest.raises(InvalidOneTimeToken):
        await parts.once.redeem(await parts.once.find(token, purpose), {"ok": "1"})
    assert await parts.once.issue(purpose, made.id, ("email", made.email)) is None

    await parts.deletion.delete(made.id, HERE)
    assert [key async for key in redis.scan_iter("once:*")] == []
    assert [key async for key in redis.scan_iter("email:*")] == []


async def test_a_move_to_another_email_beside_a_deletion_leaves_no_lookup(parts, redis, monkeypatch):
    """The deletion comes between the writing of the record and the last look."""
    made = await ada(parts)
    token = await asked_to_move(parts, made)
    redeem = parts.once.redeem

    async def redeemed_and_deleted(*args, **kwargs):
        await redeem(*args, **kwargs)
        await parts.deletion.delete(made.id, HERE)

    monkeypatch.setattr(parts.once, "redeem", redeemed_and_deleted)
    with pytest.raises(InvalidOneTimeToken):
        await parts.recovery.verify(token, HERE)

    assert await parts.users.find(made.id) is None
    assert [key async for key in redis.scan_iter("email:*")] == []
