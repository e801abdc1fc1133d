"""Recovery as people live it, with a real mail server: verify, forget, reset, move; and those who try to abuse it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from service.accounts.user import User
from tests.conftest import PASSWORD, Browser, all_that_is_in, parts_of

NEW = "another battery & stapled horse"
TOKENS = {"X-Auth-Mode": "token"}
ADA, MOVED = "ada@example.org", "ada@example.com"


@pytest.fixture
def visiting(serving, mail):
    """A browser at an instance that sends mail: `await visiting(REGISTRATION="private")`."""

    async def visit(at: Browser | None = None, **changes: str) -> Browser:
        return await serving(at=at) if at else await serving(**mail.settings, **changes)

    return visit


async def forgot(browser, email=ADA, **kwargs):
    return await browser("POST", "/api/auth/password/forgot", {"email": email}, **kwargs)


async def reset(browser, token, password=NEW):
    return await browser("POST", "/api/auth/password/reset", {"token": token, "newPassword": password}, csrf=None)


async def verify(browser, token):
    return await browser("POST", "/api/auth/email/verify", {"token": token}, csrf=None)


async def move(browser, new=MOVED, password=PASSWORD, **kwargs):
    return await browser("POST", "/api/auth/email/change", {"newEmail": new, "password": password}, **kwargs)


async def letter(mail, subject, to=ADA, count=1):
    """The latest letter with this subject, once there are so many."""
    async with asyncio.timeout(60):
        while len(found := [it for it in mail.to(to) if it.message["Subject"] == subject]) < count:
            await asyncio.sleep(0.01)
    return found[-1]


async def settled(browser):
    """Until the post has done what there was to do."""
    async with asyncio.timeout(60):
        while await parts_of(browser).store.one(("XLEN", "outbox")):
            await asyncio.sleep(0.01)


async def me(browser, **kwargs):
    return (await browser("GET", "/api/auth/me", **kwargs)).json["user"]


# Verifying


async def test_registration_sends_a_mail_that_verifies(visiting, mail):
    browser = await visiting()
    await browser.register()
    assert (await me(browser))["emailVerified"] is False
    token = (await letter(mail, "Verify your email")).token

    assert (await verify(await visiting(at=browser), token)).status == 204

    assert (await me(browser))["emailVerified"] is True
    assert (await verify(browser, token)).code == "INVALID_ONE_TIME_TOKEN"


async def test_a_mail_asked_for_again_ends_the_one_before_and_a_verified_account_gets_none(visiting, mail):
    browser = await visiting()
    await browser.register()
    first = (await letter(mail, "Verify your email")).token
    assert (await browser("POST", "/api/auth/email/resend")).status == 202
    second = (await letter(mail, "Verify your email", count=2)).token

    assert (await verify(browser, first)).status == 400
    assert (await verify(browser, second)).status == 204

    assert (await browser("POST", "/api/auth/email/resend")).status == 202
    await settled(browser)
    assert len(mail.received) == 2


async def test_a_mail_scanner_that_opens_every_link_burns_nothing(visiting, mail):
    browser = await visiting()
    await browser.register()
    token = (await letter(mail, "Verify your email")).token

    for path in ("/api/auth/email/verify", "/api/auth/password/reset"):
        for method in ("GET", "HEAD"):
            assert (await browser(method, f"{path}?token={token}")).status == 405
        assert (await browser("OPTIONS", f"{path}?token={token}")).headers["Allow"] == "OPTIONS, POST"

    assert (await verify(browser, token)).status == 204


@pytest.mark.parametrize("mode", [TOKENS, {}])
async def test_where_emails_must_be_verified_nobody_signs_in_before(visiting, mail, mode):
    browser = await visiting(REQUIRE_VERIFIED_EMAIL="on")

    registered = await browser.register(headers=mode)
    await letter(mail, "Verify your email")  # two at once may arrive in any order
    early = await browser.login(headers=mode)
    wrong = await browser.login(password="wrong and more", headers=mode)

    assert (registered.status, registered.body, dict(registered.cookies)) == (202, b"", {})
    assert (early.status, early.code) == (403, "FORBIDDEN")
    assert "Verify your email" in early.json["detail"]
    assert wrong.code == "INVALID_CREDENTIALS"
    assert (await verify(browser, (await letter(mail, "Verify your email", count=2)).token)).status == 204
    assert (await browser.login(headers=mode)).status == 200


# Forgetting


async def test_a_forgotten_password_is_set_anew_and_every_session_ends(visiting, mail):
    browser = await visiting()
    signed = (await browser.register(headers=TOKENS)).json
    other = await visiting(at=browser)
    await other.login()
    assert (await forgot(await visiting(at=browser))).status == 202
    token = (await letter(mail, "Set a new password")).token

    assert (await reset(await visiting(at=browser), token)).status == 204

    held = {"Authorization": f"Bearer {signed['accessToken']}"}
    assert (await browser("GET", "/api/auth/me", headers=held)).status == 401
    assert (await other("GET", "/api/auth/me")).status == 401
    assert (await other("POST", "/api/auth/refresh")).code == "SESSION_ENDED"
    assert (await browser.login(headers=TOKENS)).code == "INVALID_CREDENTIALS"
    assert (await browser.login(password=NEW, headers=TOKENS)).json["user"]["emailVerified"] is True
    assert (await reset(browser, token)).code == "INVALID_ONE_TIME_TOKEN"
    assert "changed" in (await letter(mail, "Your password was changed")).text


async def test_one_token_used_forty_times_at_once_over_two_instances_sets_one_password(visiting, mail):
    one, other = await visiting(), await visiting()
    await one.register()
    await forgot(one)
    token = (await letter(mail, "Set a new password")).token

    answers = await asyncio.gather(*(reset((one, other)[n % 2], token, f"{NEW} {n}") for n in range(40)))

    statuses = [answer.status for answer in answers]
    assert statuses.count(204) == 1
    assert {answer.code for answer in answers if answer.status != 204} == {"INVALID_ONE_TIME_TOKEN"}
    assert (await other.login(password=f"{NEW} {statuses.index(204)}")).status == 200


async def test_a_weak_password_does_not_burn_the_token(visiting, mail):
    browser = await visiting()
    await browser.register()
    await forgot(browser)
    token = (await letter(mail, "Set a new password")).token

    for weak in ("short", "password1", ADA, "x" * 1025):
        assert (await reset(browser, token, weak)).json["errors"][0]["field"] == "newPassword"

    assert (await reset(browser, token)).status == 204


async def test_whoever_is_asked_for_the_answer_is_the_same(visiting, mail):
    browser = await visiting()
    await browser.register()
    disabled = (await browser.register("off@example.org")).json["user"]["id"]
    await parts_of(browser).users.change(disabled, off="1")
    stranger = await visiting(at=browser)

    answers = [await forgot(stranger, email) for email in (ADA, "off@example.org", "nobody@example.org")]

    assert {(answer.status, answer.body) for answer in answers} == {(202, b"")}
    assert len({frozenset(set(answer.headers) - {"X-Request-Id"}) for answer in answers}) == 1
    await settled(browser)
    assert [it.recipients for it in mail.received if it.message["Subject"] == "Set a new password"] == [[ADA]]


async def test_asking_makes_the_same_calls_to_redis_for_anybody(visiting, monkeypatch):
    browser = await visiting()
    await browser.register()
    await settled(browser)
    store, counts = parts_of(browser).store, []
    for email in (ADA, "nobody@example.org"):
        said = []
        run = type(store).run

        async def counting(self, *commands, said=said, run=run, **kwargs):
            if commands[0][0] == "XADD" or "limit:" in str(commands[0]):
                said.append(commands[0][0])
            return await run(self, *commands, **kwargs)

        monkeypatch.setattr(type(store), "run", counting)
        await forgot(browser, email)
        monkeypatch.setattr(type(store), "run", run)
        counts.append(said)

    assert counts[0] == counts[1] == ["EVALSHA", "EVALSHA", "XADD", "XADD"]


async def test_an_account_without_a_password_gets_one(visiting, mail):
    browser = await visiting()
    user_id = (await browser.register()).json["user"]["id"]
    await parts_of(browser).users.change(user_id, pw=None)
    await forgot(browser)

    assert (await reset(browser, (await letter(mail, "Set a new password")).token)).status == 204

    assert (await browser.login(password=NEW)).status == 200


async def test_a_new_password_ends_the_mails_of_before(visiting, mail):
    browser = await visiting()
    await browser.register()
    await forgot(browser)
    tokens = [(await letter(mail, subject)).token for subject in ("Verify your email", "Set a new password")]
    changed = await browser("POST", "/api/auth/password/change", {"currentPassword": PASSWORD, "newPassword": NEW})
    assert changed.status == 204

    assert (await verify(browser, tokens[0])).code == "INVALID_ONE_TIME_TOKEN"
    assert (await reset(browser, tokens[1], PASSWORD)).code == "INVALID_ONE_TIME_TOKEN"


async def test_a_dead_token_ends_no_session(visiting, mail):
    browser = await visiting()
    await browser.register()
    await forgot(browser)
    old = (await letter(mail, "Set a new password")).token
    await forgot(browser)
    await letter(mail, "Set a new password", count=2)

    assert (await reset(browser, old)).status == 400

    assert (await browser("GET", "/api/auth/me")).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost:5173.evil.example"])
async def test_links_are_never_built_from_what_a_client_sends(visiting, mail, host):
    browser = await visiting(FRONTEND_URL="https://app.example.org")
    await browser.register()

    await forgot(browser, headers={"Host": host, "X-Forwarded-Host": host, "Forwarded": f"host={host}"})

    sent = await letter(mail, "Set a new password")
    assert "https://app.example.org/reset-password#token=ot_" in sent.text
    assert "evil" not in sent.text + sent.html


async def test_asking_is_limited_for_the_address_it_goes_to(visiting):
    browser = await visiting(RATE_LIMITS="forgot=3/1h", TRUSTED_PROXIES="127.0.0.1")

    answers = [await forgot(browser, headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(4)]
    other = await forgot(browser, "bob@example.org", headers={"X-Forwarded-For": "192.0.2.9"})

    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    assert "RateLimit" not in answers[3].headers
    assert other.status == 202


async def test_no_token_and_no_link_is_in_redis_or_in_the_log(visiting, mail, redis):
    with capture_logs() as logged:
        browser = await visiting()
        await browser.register()
        await forgot(browser)
        await move(browser)
        subjects = [("Verify your email", ADA), ("Set a new password", ADA), ("Confirm your new email", MOVED)]
        tokens = [(await letter(mail, subject, to)).token for subject, to in subjects]
        kept = str(await all_that_is_in(redis))
        await verify(browser, tokens[0])

    for token in tokens:
        assert token.removeprefix("ot_") not in kept
        assert token.removeprefix("ot_") not in str(logged)
    assert ADA not in str(logged)


# Moving


async def test_an_email_changes_when_the_new_one_is_verified_and_the_old_one_is_told(visiting, mail):
    browser = await visiting()
    await browser.register()
    assert (await move(browser)).status == 202
    assert (await me(browser))["email"] == ADA
    told = await letter(mail, "Your account is to move to another email")
    assert "a***@example.com" in told.text

    assert (await verify(browser, (await letter(mail, "Confirm your new email", MOVED)).token)).status == 204

    assert (await browser("GET", "/api/auth/me")).code == "TOKEN_STALE"
    assert (await browser("POST", "/api/auth/refresh")).status == 200
    user = await me(browser)
    assert (user["email"], user["emailVerified"]) == (MOVED, True)
    await letter(mail, "Your account has moved to another email", ADA)
    stranger = await visiting(at=browser)
    assert (await stranger.login(MOVED, headers=TOKENS)).status == 200
    assert (await stranger.login(ADA, headers=TOKENS)).code == "INVALID_CREDENTIALS"
    assert (await stranger.register(ADA)).status == 201
    assert (await stranger.register(MOVED)).code == "EMAIL_EXISTS"


async def test_moving_needs_the_password(visiting, mail):
    browser = await visiting()
    await browser.register()

    assert (await move(browser, password="wrong and more")).code == "INVALID_CREDENTIALS"

    await settled(browser)
    assert mail.to(MOVED) == []


async def test_a_move_verified_many_times_at_once_happens_once_and_loses_no_lookup(visiting, mail):
    browser = await visiting()
    await browser.register()
    await move(browser)
    token = (await letter(mail, "Confirm your new email", MOVED)).token

    answers = await asyncio.gather(*(verify(browser, token) for _ in range(20)))

    assert [answer.status for answer in answers].count(204) == 1
    assert (await browser.login(MOVED)).status == 200


async def test_an_email_taken_in_the_meantime_stays_whose_it_is(visiting, mail):
    browser = await visiting()
    await browser.register()
    await move(browser)
    token = (await letter(mail, "Confirm your new email", MOVED)).token
    other = await visiting(at=browser)
    theirs = (await other.register(MOVED)).json["user"]["id"]

    assert (await verify(browser, token)).code == "EMAIL_EXISTS"

    assert (await me(browser))["email"] == ADA
    assert (await other.login(MOVED)).json["user"]["id"] == theirs


async def test_moving_to_a_taken_email_tells_no_more_than_registering(visiting, mail):
    for registration, expected in (("open", 409), ("private", 202)):
        await parts_of(browser := await visiting(REGISTRATION=registration)).store.one(("FLUSHALL",))
        for email in (ADA, MOVED):
            await browser.register(email)
            await settled(browser)
        await verify(browser, mail.to(ADA)[-1].token)
        await browser.login()

        assert (await move(browser)).status == expected
    sent = await letter(mail, "You have an account already", MOVED)
    assert "token" not in sent.text


async def test_the_unexpired_change_of_email_attack(visiting, mail):
    """Sudhodanan and Paverd, 2022: made before the owner came, confirmed after they have reset the password."""
    attacker = await visiting()
    await attacker.register()
    await move(attacker, "mallory@example.com")
    held = (await letter(mail, "Confirm your new email", "mallory@example.com")).token
    owner = await visiting(at=attacker)
    await forgot(owner)
    assert (await reset(owner, (await letter(mail, "Set a new password")).token)).status == 204

    assert (await verify(attacker, held)).code == "INVALID_ONE_TIME_TOKEN"

    assert (await owner.login(password=NEW)).json["user"]["email"] == ADA
    assert (await attacker("GET", "/api/auth/me")).status == 401


# Beside an admin who vouches for the email, or withdraws that


@pytest.fixture
def administering(visiting, mail):
    """An admin's browser, and Ada's with her id; every mail has left: `root, ada, id = await administering()`."""

    async def made():
        root = await visiting()
        its = parts_of(root)
        await its.users.change((await root.register("root@example.org")).json["user"]["id"], roles="user admin", ok="1")
        await root.login("root@example.org")
        ada = await visiting(at=root)
        id_ = (await ada.register()).json["user"]["id"]
        await settled(root)
        return root, ada, id_

    return made


async def vouch(root, user_id, verified):
    return await root("PATCH", f"/api/admin/users/{user_id}", {"emailVerified": verified})


async def test_an_admin_who_vouches_ends_the_mail_that_would_verify(administering, mail):
    root, ada, id_ = await administering()
    token = (await letter(mail, "Verify your email")).token

    assert (await vouch(root, id_, True)).json["user"]["emailVerified"] is True

    assert (await verify(ada, token)).code == "INVALID_ONE_TIME_TOKEN"
    assert (await me(ada))["emailVerified"] is True
    assert (await ada("POST", "/api/auth/email/resend")).status == 202
    await settled(root)
    assert len(mail.to(ADA)) == 1


async def test_an_admin_who_withdraws_ends_every_mail_that_would_verify_again(administering, mail):
    root, ada, id_ = await administering()
    await forgot(ada)
    tokens = [(await letter(mail, subject)).token for subject in ("Verify your email", "Set a new password")]

    assert (await vouch(root, id_, False)).json["user"]["emailVerified"] is False

    assert (await verify(ada, tokens[0])).code == "INVALID_ONE_TIME_TOKEN"
    assert (await reset(ada, tokens[1])).code == "INVALID_ONE_TIME_TOKEN"
    assert (await me(ada))["emailVerified"] is False
    await ada("POST", "/api/auth/email/resend")
    assert (await verify(ada, (await letter(mail, "Verify your email", count=2)).token)).status == 204
    assert (await me(ada))["emailVerified"] is True


@pytest.mark.parametrize("verified", [True, False])
async def test_a_proof_that_came_first_is_followed_by_the_admins_word(administering, mail, verified):
    root, ada, id_ = await administering()
    token = (await letter(mail, "Verify your email")).token
    assert (await verify(ada, token)).status == 204

    assert (await vouch(root, id_, verified)).json["user"]["emailVerified"] is verified

    assert (await verify(ada, token)).code == "INVALID_ONE_TIME_TOKEN"
    assert (await me(ada))["emailVerified"] is verified


@pytest.mark.parametrize("verified", [True, False])
async def test_a_proof_beside_the_admins_word_leaves_what_the_admin_said_and_no_token(administering, mail, verified):
    root, ada, id_ = await administering()
    for count in range(1, 9):
        if count > 1:
            await parts_of(root).users.change(id_, ok=None)
            await ada("POST", "/api/auth/email/resend")
        token = (await letter(mail, "Verify your email", count=count)).token

        proofs = [verify(ada, token) for _ in range(3)]
        *answers, patched = await asyncio.gather(*proofs, vouch(root, id_, verified))

        assert patched.status == 200
        assert [answer.status for answer in answers].count(204) <= 1
        assert {answer.code for answer in answers if answer.status != 204} <= {"INVALID_ONE_TIME_TOKEN"}
        assert (await me(ada))["emailVerified"] is verified
        assert (await verify(ada, token)).code == "INVALID_ONE_TIME_TOKEN"


async def test_an_admin_who_speaks_of_other_things_undoes_no_proof(administering, mail, monkeypatch):
    """The admin's call has read the account before the proof, and writes after it."""
    root, ada, id_ = await administering()
    token = (await letter(mail, "Verify your email")).token
    administer = type(parts_of(root).users).administer

    async def late(self, user, **wanted):
        assert not user.email_verified
        assert (await verify(ada, token)).status == 204
        return await administer(self, user, **wanted)

    monkeypatch.setattr(type(parts_of(root).users), "administer", late)
    assert (await root("PATCH", f"/api/admin/users/{id_}", {"roles": ["user", "moderator"]})).status == 200

    found = await parts_of(root).users.find(id_)
    assert (found.email_verified, found.roles) == (True, ("user", "moderator"))


async def test_an_admin_who_gives_a_role_does_not_enable_whom_another_disables(administering, mail, monkeypatch):
    root, _, id_ = await administering()
    its = parts_of(root)
    administer = type(its.users).administer

    async def late(self, user, **wanted):
        monkeypatch.undo()
        assert (await root("PATCH", f"/api/admin/users/{id_}", {"active": False})).status == 200
        return await administer(self, user, **wanted)

    monkeypatch.setattr(type(its.users), "administer", late)
    assert (await root("PATCH", f"/api/admin/users/{id_}", {"roles": ["user", "moderator"]})).status == 200

    found = await its.users.find(id_)
    assert (found.active, found.roles) == (False, ("user", "moderator"))
    assert (await its.administration.statistics()).active_users == 1


async def test_an_admins_word_leaves_a_move_to_another_email_as_it_is(administering, mail):
    root, ada, id_ = await administering()
    await move(ada)
    token = (await letter(mail, "Confirm your new email", MOVED)).token

    await vouch(root, id_, False)

    assert (await verify(ada, token)).status == 204
    found = await parts_of(root).users.find(id_)
    assert (found.email, found.email_verified) == (MOVED, True)


# Registration that hides, and none


async def test_a_private_registration_says_the_same_of_a_taken_email(visiting, mail):
    browser = await visiting(REGISTRATION="private")

    fresh = await browser.register()
    await settled(browser)
    taken = await browser.register(password=NEW)
    await settled(browser)

    assert (fresh.status, fresh.body) == (taken.status, taken.body) == (202, b"")
    assert set(fresh.headers) == set(taken.headers)
    assert [it.message["Subject"] for it in mail.to(ADA)] == ["Verify your email", "You have an account already"]
    assert (await verify(browser, mail.to(ADA)[0].token)).status == 204
    assert (await browser.login(headers=TOKENS)).status == 200
    assert (await browser.login(password=NEW, headers=TOKENS)).code == "INVALID_CREDENTIALS"


@pytest.mark.parametrize("verified_only", ["off", "on"])
async def test_the_password_of_a_private_registration_tells_nothing_before_the_email_is_verified(
    visiting, mail, verified_only
):
    """Whoever registers with an email and then signs in would learn whether it had an account."""
    browser = await visiting(REGISTRATION="private", REQUIRE_VERIFIED_EMAIL=verified_only)
    await parts_of(browser).users.register(User(id="", email=MOVED, email_verified=True))
    told = []
    for email in (ADA, MOVED):
        await browser.register(email)
        await settled(browser)
        told.append(await browser.login(email))
    await settled(browser)

    assert [(answer.status, answer.code) for answer in told] == [(401, "INVALID_CREDENTIALS")] * 2
    assert set(told[0].headers) == set(told[1].headers)
    assert [it.message["Subject"] for it in mail.to(ADA)] == ["Verify your email"]
    await forgot(browser)
    assert (await reset(browser, (await letter(mail, "Set a new password")).token)).status == 204
    assert (await browser.login(password=NEW)).status == 200


@pytest.mark.parametrize(("registration", "sent"), [("private", 3), ("open", 1 + 3)])
async def test_nobody_gets_more_mails_than_the_limit_however_often_somebody_registers_them(
    visiting, mail, registration, sent
):
    limits = {"RATE_LIMITS": "forgot=3/1h", "TRUSTED_PROXIES": "127.0.0.1", "REQUIRE_VERIFIED_EMAIL": "on"}
    browser = await visiting(REGISTRATION=registration, **limits)

    for n in range(6):
        elsewhere = {"X-Forwarded-For": f"192.0.2.{n}"}
        await browser.register(headers=elsewhere)
        await settled(browser)
        assert (await browser.login(headers=elsewhere)).status in (401, 403)
    await settled(browser)

    assert len(mail.to(ADA)) == sent


async def test_a_private_registration_that_was_cut_off_is_not_taken_for_a_taken_email(visiting, mail):
    browser = await visiting(REGISTRATION="private")
    its = parts_of(browser)
    phc = await its.passwords.hash(PASSWORD)
    for _ in range(2):  # the same errand, done again by another instance
        await its.outbox.put("register", email=ADA, password=phc)
        await settled(browser)

    assert {it.message["Subject"] for it in mail.to(ADA)} == {"Verify your email"}


async def test_a_closed_registration_is_closed(visiting):
    browser = await visiting(REGISTRATION="closed")

    refused = await browser.register()

    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    assert "closed" in refused.json["detail"]


# Notices


async def test_a_sign_in_from_a_new_place_or_with_a_new_device_is_told_once(visiting, mail):
    browser = await visiting(TRUSTED_PROXIES="127.0.0.1")
    home, away = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "198.51.100.7", "User-Agent": "curl/8"}
    await browser.register(headers=home)
    await browser.login(headers=home)

    for _ in range(2):
        await browser.login(headers=away)
        await browser.login(headers=home | {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"})
    await browser.login(headers=away | {"User-Agent": "backup/1"})
    await settled(browser)

    told = [it.text for it in mail.to(ADA) if it.message["Subject"] == "A new sign-in to your account"]
    assert len(told) == 3
    assert sum("198.51.100.7" in text and "with an unknown device" in text for text in told) == 1
    assert sum("198.51.100.7" in text and "curl" in text for text in told) == 1
    assert sum("192.0.2.1" in text and "Firefox on Linux" in text for text in told) == 1


async def test_a_copied_refresh_token_is_told(visiting, mail):
    browser = await visiting(REFRESH_LEEWAY="0", REFRESH_RECOVERY="off")
    stolen = (await browser.register(headers=TOKENS)).json["refreshToken"]
    await browser("POST", "/api/auth/refresh", {"refreshToken": stolen}, csrf=None)
    await asyncio.sleep(0.01)

    refused = await browser("POST", "/api/auth/refresh", {"refreshToken": stolen}, csrf=None)

    assert refused.code == "REFRESH_TOKEN_REUSED"
    await letter(mail, "A session of yours was ended")
