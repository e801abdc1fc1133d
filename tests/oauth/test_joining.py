"""Requirement 30: whose account it is, and what is left to those who made one in somebody else's name."""

import asyncio

import pytest

from service.accounts.user import User
from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.errors import IdentityInUse
from service.oauth.joining import Joining
from service.oauth.provider import Person as PersonThere
from service.sessions.families import EndReason
from service.signals.signals import Signal
from tests.conftest import PASSWORD, parts_of
from tests.oauth.conftest import (
    APP,
    PAGE,
    TOKENS,
    come_back,
    enter,
    leave,
    make_account,
)
from tests.oauth.github import Person, email


async def user_of(browser) -> dict:
    return (await browser("GET", "/api/auth/me")).json["user"]


# The table of joining.py, line by line.


async def test_a_known_identity_leads_to_its_account_whatever_its_email_says(visiting, hostile, serving):
    browser = await visiting(hostile)
    first = await enter(browser, hostile)
    await make_account(await serving(at=browser), "bob@example.org")

    for email_now, verified in (("bob@example.org", True), ("bob@example.org", False), (None, False)):
        hostile.claims = {"email": email_now, "email_verified": verified}
        again = await enter(await serving(at=browser), hostile)
        assert again.json["user"]["id"] == first.json["user"]["id"]
        assert again.json["user"]["email"] == "ada@example.org"


async def test_an_email_verified_on_both_sides_joins_the_account(visiting, hostile, serving):
    owner = await visiting(hostile)
    user_id = await make_account(owner)
    elsewhere = await serving(at=owner)

    signed = await enter(elsewhere, hostile)

    assert signed.json["user"]["id"] == user_id
    assert [held["provider"] for held in signed.json["user"]["identities"]] == ["hostile"]
    assert (await owner("GET", "/api/auth/me")).status == 200
    assert (await (await serving(at=owner)).login()).status == 200


async def test_an_email_that_was_never_verified_here_gives_the_account_to_its_owner(visiting, hostile, serving):
    squatter = await visiting(hostile)
    user_id = await make_account(squatter, verified=False)
    owner = await serving(at=squatter)

    signed = await enter(owner, hostile)

    user = signed.json["user"]
    assert user["id"] == user_id
    assert (user["emailVerified"], user["provider"], user["name"]) == (True, "hostile", "Ada Lovelace")
    assert (await squatter("GET", "/api/auth/me")).status == 401


async def test_an_email_that_the_provider_does_not_vouch_for_must_sign_in_and_link(visiting, hostile, serving):
    owner = await visiting(hostile)
    user_id = await make_account(owner)
    for verified in (False, None, "false", 0, "yes"):
        hostile.claims = {"email_verified": verified}
        stranger = await serving(at=owner)

        refused = await enter(stranger, hostile)

        assert (refused.status, refused.code) == (409, "EMAIL_EXISTS")
        assert (await stranger("GET", "/api/auth/me")).code == "NO_TOKEN"
    assert (await parts_of(owner).users.find(user_id)).identities == ()


@pytest.mark.parametrize("registration", ["private", "closed"])
async def test_where_registration_hides_who_has_an_account_a_provider_that_proves_nothing_tells_no_more(
    visiting, hostile, serving, registration
):
    owner = await visiting(hostile, REGISTRATION=registration)
    await parts_of(owner).users.register(User(id="", email="ada@example.org", email_verified=True))

    refused = []
    for address in ("ada@example.org", "nobody@example.org"):
        hostile.claims = {"email": address, "email_verified": False}
        refused.append(await enter(await serving(at=owner), hostile))

    assert [(answer.status, answer.code) for answer in refused] == [(400, "OAUTH_EMAIL_UNVERIFIED")] * 2


async def test_a_person_learns_from_the_address_that_they_must_sign_in_and_link(visiting, hostile, serving):
    await make_account(browser := await visiting(hostile))
    hostile.claims = {"email_verified": False}
    stranger = await serving(at=browser)
    away = await stranger("GET", "/api/auth/hostile", params={"redirectTo": "/login"}, headers=PAGE)

    back = await come_back(stranger, hostile.come_back(away.headers["Location"]), PAGE)

    assert back.headers["Location"] == f"{APP}/login?error=EMAIL_EXISTS"


async def test_an_email_that_nobody_vouches_for_makes_no_account(visiting, hostile, serving):
    browser = await visiting(hostile)
    for claims in ({"email_verified": False}, {"email": None}, {"email": "no address"}, {"email": ["ada@example.org"]}):
        hostile.claims = claims
        refused = await enter(await serving(at=browser), hostile)
        assert (refused.status, refused.code) == (400, "OAUTH_EMAIL_UNVERIFIED"), claims
    assert (await browser.register()).status == 201


async def test_the_same_subject_at_another_provider_is_somebody_else(visiting, making_hostile, serving):
    one, other = await making_hostile("one"), await making_hostile("other")
    other.claims = {"email": "bob@example.org"}
    browser = await visiting(one, other)

    first, second = await enter(browser, one), await enter(await serving(at=browser), other)

    assert first.json["user"]["id"] != second.json["user"]["id"]


async def test_a_second_identity_of_one_provider_does_not_join(visiting, hostile, serving):
    browser = await visiting(hostile)
    await enter(browser, hostile)
    hostile.claims = {"sub": "another"}

    refused = await enter(await serving(at=browser), hostile)

    assert (refused.status, refused.code) == (409, "IDENTITY_IN_USE")


async def test_an_account_made_elsewhere_has_no_password_to_guess(visiting, hostile, serving):
    browser = await visiting(hostile)
    await enter(browser, hostile)

    for password in (PASSWORD, "", " "):
        assert (await (await serving(at=browser)).login(password=password)).code == "INVALID_CREDENTIALS"


# The five pre-hijacking attacks (Sudhodanan and Paverd, 2022): the attacker comes first, then the owner.


async def test_a_password_set_beforehand_is_worth_nothing(visiting, github, serving):
    attacker = await visiting(github)
    await make_account(attacker, verified=False)
    await enter(await serving(at=attacker), github, "ada-l")

    assert (await (await serving(at=attacker)).login()).code == "INVALID_CREDENTIALS"
    changed = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}
    assert (await attacker("POST", "/api/auth/password/change", changed)).status == 401


async def test_a_session_opened_beforehand_is_over(visiting, github, serving):
    attacker = await visiting(github)
    opened = [await attacker.register(headers=TOKENS), await attacker.login(headers=TOKENS), await attacker.login()]
    await enter(await serving(at=attacker), github, "ada-l")

    for answer in opened:
        held = {"Authorization": f"Bearer {answer.json['accessToken']}"}
        assert (await attacker("GET", "/api/auth/me", headers=held)).status == 401
        assert (await attacker("GET", "/api/auth/verify", headers=held)).status == 401
        if "refreshToken" in answer.json:
            body = {"refreshToken": answer.json["refreshToken"]}
            assert (await attacker("POST", "/api/auth/refresh", body)).code == "SESSION_ENDED"
    assert (await attacker("POST", "/api/auth/refresh")).code == "SESSION_ENDED"


async def test_a_change_of_email_asked_for_beforehand_never_comes_about(visiting, github, mail, serving):
    """The fourth attack: the token was sent to the attacker, and the owner came before it was used."""
    attacker = await visiting(github, **mail.settings)
    user_id = await make_account(attacker, verified=False)
    body = {"newEmail": "mallory@example.com", "password": PASSWORD}
    assert (await attacker("POST", "/api/auth/email/change", body)).status == 202
    await mail.until(3)
    tokens = [received.token for received in mail.received if "#token=" in received.text]
    assert len(tokens) == 2  # to verify the account's own email, and the new one

    owner = await serving(at=attacker)
    assert (await enter(owner, github, "ada-l")).json["user"]["id"] == user_id

    for token in tokens:
        answer = await attacker("POST", "/api/auth/email/verify", {"token": token}, csrf=None)
        assert answer.code == "INVALID_ONE_TIME_TOKEN"
    assert (await user_of(owner))["email"] == "ada@example.org"
    assert (await parts_of(owner).users.find(user_id)).new_email is None
    assert (await attacker("POST", "/api/auth/email/change", body)).status == 401


async def test_a_change_of_email_racing_the_owner_is_not_left_pending(visiting, hostile, serving):
    for _ in range(5):
        attacker = await visiting(hostile)
        await parts_of(attacker).store.one(("FLUSHALL",))
        user_id = await make_account(attacker, verified=False)
        owner = await serving(at=attacker)
        callback = hostile.come_back(await leave(owner, "hostile"))
        body = {"newEmail": "mallory@example.com", "password": PASSWORD}

        entered, *_ = await asyncio.gather(
            come_back(owner, callback), *(attacker("POST", "/api/auth/email/change", body) for _ in range(6))
        )

        assert entered.status == 200
        assert (await parts_of(owner).users.find(user_id)).new_email is None


async def test_closed_registration_is_closed_for_those_from_a_provider_too(visiting, hostile, serving):
    browser = await visiting(hostile, REGISTRATION="closed")

    refused = await enter(browser, hostile)

    assert (refused.status, refused.code) == (403, "FORBIDDEN")


async def test_an_identity_linked_beforehand_leads_to_the_account_no_more(visiting, github, hostile, serving):
    github.add(Person(666, "mallory", emails=[email("mallory@example.org")]))
    attacker = await visiting(github, hostile)
    user_id = await make_account(attacker, verified=False)
    linking = (await attacker("POST", "/api/auth/github/link")).json["authUrl"]
    assert (await come_back(attacker, await github.sign_in(linking, "mallory"))).status == 200

    owner = await serving(at=attacker)
    assert (await enter(owner, hostile)).json["user"]["id"] == user_id

    assert [held["provider"] for held in (await user_of(owner))["identities"]] == ["hostile"]
    back = await enter(await serving(at=attacker), github, "mallory")
    assert back.json["user"]["id"] != user_id


async def test_an_identity_of_the_same_provider_makes_way_too(visiting, github, serving):
    github.add(Person(666, "mallory", emails=[email("mallory@example.org")]))
    attacker = await visiting(github)
    user_id = await make_account(attacker, verified=False)
    linking = (await attacker("POST", "/api/auth/github/link")).json["authUrl"]
    await come_back(attacker, await github.sign_in(linking, "mallory"))

    assert (await enter(await serving(at=attacker), github, "ada-l")).json["user"]["id"] == user_id
    assert (await enter(await serving(at=attacker), github, "mallory")).json["user"]["id"] != user_id


async def test_a_link_begun_beforehand_does_not_come_back(visiting, github, hostile, serving):
    github.add(Person(666, "mallory", emails=[email("mallory@example.org")]))
    attacker = await visiting(github, hostile)
    await make_account(attacker, verified=False)
    linking = (await attacker("POST", "/api/auth/github/link")).json["authUrl"]
    owner = await serving(at=attacker)
    await enter(owner, hostile)

    late = await come_back(attacker, await github.sign_in(linking, "mallory"))

    assert (late.status, late.code) == (403, "REAUTHENTICATION_REQUIRED")
    assert [held["provider"] for held in (await user_of(owner))["identities"]] == ["hostile"]


async def test_a_provider_that_does_not_verify_gets_no_foot_in(visiting, making_hostile, serving):
    """The attacker has the victim's email at a provider that checks none; then the owner comes through a good one."""
    careless, good = await making_hostile("careless"), await making_hostile("good")
    careless.claims = {"email_verified": False, "sub": "mallory"}
    attacker = await visiting(careless, good)
    assert (await enter(attacker, careless)).code == "OAUTH_EMAIL_UNVERIFIED"

    owner = await serving(at=attacker)
    await enter(owner, good)

    assert (await enter(attacker, careless)).code == "EMAIL_EXISTS"
    assert [held["provider"] for held in (await user_of(owner))["identities"]] == ["good"]


async def test_a_name_and_a_picture_put_there_beforehand_are_gone(visiting, hostile, serving):
    attacker = await visiting(hostile)
    await make_account(attacker, verified=False)
    planted = {"firstName": "Evil", "lastName": "Evil", "name": "Evil", "picture": "https://evil.example/p.png"}
    assert (await attacker("PATCH", "/api/users/profile", planted)).status == 200
    owner = await serving(at=attacker)

    await enter(owner, hostile)

    user = await user_of(owner)
    assert (user["firstName"], user["lastName"], user["name"], user["picture"]) == (None, None, "Ada Lovelace", None)


async def test_a_sign_in_racing_the_owner_is_not_left_open(visiting, hostile, serving):
    for _ in range(5):
        attacker = await visiting(hostile)
        await parts_of(attacker).store.one(("FLUSHALL",))
        await make_account(attacker, verified=False)
        owner = await serving(at=attacker)
        callback = hostile.come_back(await leave(owner, "hostile"))

        entered, *raced = await asyncio.gather(
            come_back(owner, callback),
            *(attacker.login(headers=TOKENS) for _ in range(8)),
        )

        assert entered.status == 200
        for answer in raced:
            if answer.status == 200:
                held = {"Authorization": f"Bearer {answer.json['accessToken']}"}
                assert (await attacker("GET", "/api/auth/me", headers=held)).status == 401


# Faults, races and odd spellings.


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_takeover_that_broke_off_is_completed_when_the_owner_comes_again(visiting, hostile, serving, steps):
    squatter = await visiting(hostile)
    user_id = await make_account(squatter, verified=False)
    its = parts_of(squatter)
    await its.users.strip(user_id)
    if steps > 1:
        await its.families.end_all(user_id, EndReason.TAKEN_OVER, account_changed=True)
    if steps > 2:
        await its.users.change(user_id, via="hostile", name="Ada")
    assert (await (await serving(at=squatter)).login()).code == "INVALID_CREDENTIALS"

    signed = await enter(await serving(at=squatter), hostile)

    assert signed.json["user"]["id"] == user_id
    assert signed.json["user"]["emailVerified"] is True
    assert (await squatter("GET", "/api/auth/me")).status == 401
    assert (await squatter("POST", "/api/auth/refresh")).status == 401


async def test_the_squatters_last_session_cannot_undo_a_takeover_that_broke_off(visiting, github, hostile, serving):
    """The password is gone, the session still open: what is linked with it goes when the owner comes again."""
    github.add(Person(666, "mallory", emails=[email("mallory@example.org")]))
    squatter = await visiting(github, hostile)
    user_id = await make_account(squatter, verified=False)
    await parts_of(squatter).users.strip(user_id)
    linking = (await squatter("POST", "/api/auth/github/link")).json["authUrl"]
    await come_back(squatter, await github.sign_in(linking, "mallory"))

    owner = await serving(at=squatter)
    await enter(owner, hostile)

    assert [held["provider"] for held in (await user_of(owner))["identities"]] == ["hostile"]
    assert (await enter(await serving(at=squatter), github, "mallory")).json["user"]["id"] != user_id


async def test_parallel_first_sign_ins_of_one_identity_make_one_account(visiting, hostile, serving):
    browser = await visiting(hostile)
    tabs = [await serving(at=browser) for _ in range(6)]
    callbacks = [hostile.come_back(await leave(tab, "hostile")) for tab in tabs]

    answers = await asyncio.gather(*(come_back(tab, callback) for tab, callback in zip(tabs, callbacks, strict=True)))

    assert [answer.status for answer in answers] == [200] * 6
    assert len({answer.json["user"]["id"] for answer in answers}) == 1
    assert len(await parts_of(browser).families.of(answers[0].json["user"]["id"])) == 6


async def test_a_first_sign_in_racing_a_registration_leaves_one_account(visiting, hostile, serving):
    browser = await visiting(hostile)
    other = await serving(at=browser)
    callback = hostile.come_back(await leave(browser, "hostile"))

    entered, registered = await asyncio.gather(come_back(browser, callback), other.register())

    assert 200 in (entered.status, registered.status - 1)
    assert entered.status in (200, 409)
    assert (await enter(await serving(at=browser), hostile)).status == 200
    assert (await (await serving(at=browser)).register()).code == "EMAIL_EXISTS"


async def test_a_disabled_account_stays_disabled_whichever_way_one_comes(visiting, hostile, serving):
    browser = await visiting(hostile)
    user_id = (await enter(browser, hostile)).json["user"]["id"]
    await parts_of(browser).users.change(user_id, off="1")

    known = await enter(await serving(at=browser), hostile)
    hostile.claims = {"sub": "another"}
    by_email = await enter(await serving(at=browser), hostile)

    for refused in (known, by_email):
        assert (refused.status, refused.code) == (403, "ACCOUNT_DISABLED")
        assert "accessToken" not in refused.cookies
    assert len((await parts_of(browser).users.find(user_id)).identities) == 1


async def test_whoever_comes_from_a_provider_and_is_refused_is_an_event_and_a_failed_sign_in(
    visiting, hostile, serving
):
    browser = await visiting(hostile)
    its = parts_of(browser)
    user_id = (await enter(browser, hostile)).json["user"]["id"]
    await its.users.change(user_id, off="1")

    await enter(await serving(at=browser), hostile)
    hostile.claims = {"sub": "another"}
    await enter(await serving(at=browser), hostile)
    hostile.claims = {"sub": "a third", "email_verified": False}
    await enter(await serving(at=browser), hostile)

    await its.signals.settled()
    refused, _ = await its.audit.page(Wanted(type=Event.SIGN_IN_REFUSED), None, 10)
    assert [(event.user_id, event.detail["reason"]) for event in reversed(refused)] == [
        (user_id, "ACCOUNT_DISABLED"),
        (user_id, "ACCOUNT_DISABLED"),
        (None, "EMAIL_EXISTS"),
    ]
    assert (await its.signals.told()).hour[Signal.FAILED] == 3


async def test_a_disabled_account_that_was_never_verified_is_not_taken_over(visiting, hostile, serving):
    browser = await visiting(hostile)
    user_id = await make_account(browser, verified=False)
    await parts_of(browser).users.change(user_id, off="1")

    assert (await enter(await serving(at=browser), hostile)).code == "ACCOUNT_DISABLED"

    left = await parts_of(browser).users.find(user_id)
    assert (left.active, left.email_verified, left.identities) == (False, False, ())
    assert left.password


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("o\ufb03ce@example.org", "office@example.org"),
        ("\uff41da@example.org", "ada@example.org"),
        ("ad\u00aa@example.org", "ada@example.org"),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
async def test_an_email_that_only_looks_the_same_joins_nothing(visiting, hostile, serving, theirs, ours, verified):
    """One account here, but it may be two mailboxes there."""
    owner = await visiting(hostile)
    user_id = await make_account(owner, ours, verified)
    hostile.claims = {"email": theirs}

    refused = await enter(await serving(at=owner), hostile)

    assert (refused.status, refused.code) == (409, "EMAIL_EXISTS")
    assert (await owner("GET", "/api/auth/me")).json["user"]["id"] == user_id
    assert (await user_of(owner))["identities"] == []


@pytest.mark.parametrize("theirs", ["Ada@Example.ORG", "ADA@example.org", "ada@example.org."])
async def test_an_email_in_another_case_is_the_same(visiting, hostile, serving, theirs):
    owner = await visiting(hostile)
    user_id = await make_account(owner)
    hostile.claims = {"email": theirs}

    assert (await enter(await serving(at=owner), hostile)).json["user"]["id"] == user_id


async def test_a_providers_words_stay_within_our_bounds(visiting, hostile):
    hostile.claims = {
        "name": "A" * 5000 + "\u202e\x00\r\n",
        "given_name": "\x00\r\n",
        "family_name": ["Lovelace"],
        "picture": "javascript:alert(1)",
        "roles": ["admin"],
        "role": "admin",
    }
    browser = await visiting(hostile)

    user = (await enter(browser, hostile)).json["user"]

    assert user["name"] == "A" * 100
    assert (user["firstName"], user["lastName"], user["picture"], user["roles"]) == (None, None, None, ["user"])


@pytest.mark.parametrize("picture", ["http://example.org/p.png", "https://e.org/" + "p" * 2048, "https://e.org/\n", 7])
async def test_a_picture_that_is_no_plain_https_address_is_left_out(visiting, hostile, picture):
    hostile.claims = {"picture": picture}

    assert (await enter(await visiting(hostile), hostile)).json["user"]["picture"] is None


async def test_takeovers_and_links_are_in_the_audit_log_once(visiting, hostile, serving):
    from structlog.testing import capture_logs

    squatter = await visiting(hostile)
    await make_account(squatter, verified=False)
    with capture_logs() as logged:
        await enter(await serving(at=squatter), hostile)

    told = [line["event"] for line in logged]
    assert [
        told.count(event)
        for event in ("accounts.user.taken_over", "accounts.identity.linked", "sessions.session.started")
    ] == [1, 1, 1]
    # Without a mail server letters are shown in the log.
    assert "ada@example.org" not in str([line for line in logged if line["event"] != "mail.shown"])


class Interrupted:
    """Families as they are, with something that happens just after, or just before, one of their steps."""

    def __init__(self, families, step, happens, before=False):
        self._families, self._step, self._happens, self._before = families, step, happens, before

    def __getattr__(self, name):
        return getattr(self._families, name) if name != self._step else self._interrupted

    async def _interrupted(self, *args, **kwargs):
        if self._before:
            await self._happens()
        answer = await getattr(self._families, self._step)(*args, **kwargs)
        if not self._before:
            await self._happens()
        return answer


MALLORY = PersonThere("https://github.com", "666", "mallory@example.org", True)
ADA = PersonThere("https://id.example.org", "1", "ada@example.org", True)
NOBODYS = Client("192.0.2.1", "")


async def test_a_takeover_between_the_look_at_a_session_and_the_link_prevents_the_link(parts):
    its = parts
    made = await its.users.register(User(id="", email="ada@example.org", password="$argon2id$of mallory"))
    session = (await its.signin.begin(made, ("pwd",), NOBODYS)).session_id

    async def owner_comes():
        await its.joining.enter(ADA, "example", NOBODYS)

    families = Interrupted(its.families, "standing", owner_comes)
    slow = Joining(its.users, families, its.api_keys, its.signin, its.clock, its.audit)
    with pytest.raises(IdentityInUse):
        await slow.link(MALLORY, "github", made.id, session, NOBODYS)

    assert [held.provider for held in (await its.users.find(made.id)).identities] == ["example"]
    assert await its.users.find_by_identity(MALLORY.issuer, MALLORY.subject) is None


async def test_a_link_in_the_middle_of_a_takeover_does_not_outlive_it(parts):
    its = parts
    made = await its.users.register(User(id="", email="ada@example.org", password="$argon2id$of mallory"))
    session = (await its.signin.begin(made, ("pwd",), NOBODYS)).session_id

    async def attacker_links():
        await its.joining.link(MALLORY, "github", made.id, session, NOBODYS)

    slow = Joining(
        its.users,
        Interrupted(its.families, "end_all", attacker_links, before=True),
        its.api_keys,
        its.signin,
        its.clock,
        its.audit,
    )
    await slow.enter(ADA, "example", NOBODYS)

    assert [held.provider for held in (await its.users.find(made.id)).identities] == ["example"]
    assert await its.users.find_by_identity(MALLORY.issuer, MALLORY.subject) is None
    assert (await its.users.find_by_identity(ADA.issuer, ADA.subject)).id == made.id
    assert len(await its.families.of(made.id)) == 1


async def test_the_api_keys_of_a_squatter_die_with_the_takeover(visiting, openid_provider, serving):
    squatter = await visiting(openid_provider)
    await squatter.register("ada@example.org")
    made = await squatter("POST", "/api/auth/api-keys", {"name": "backdoor", "permissions": ["profile:read"]})
    key = {"X-API-Key": made.json["apiKey"]}
    owner = await serving(at=squatter)
    assert (await owner("GET", "/api/auth/verify", headers=key)).status == 200

    await enter(owner, openid_provider)

    stranger = await serving(at=squatter)
    assert (await stranger("GET", "/api/auth/verify", headers=key)).code == "INVALID_API_KEY"
    told = (await owner("GET", "/api/auth/events?limit=100")).json["items"]
    (revoked,) = (event["detail"] for event in told if event["type"] == "apikeys.key.revoked")
    assert revoked == {"key_id": made.json["id"], "reason": "taken_over"}
