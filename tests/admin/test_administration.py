"""Administration over HTTP: who may do what to whom, and that it is in force at once."""

import asyncio

import pytest

from service.accounts.directory import Place
from service.accounts.roles import Roles
from service.admin.administration import COMMAND_LINE, Actor
from service.audit.trail import Wanted
from service.errors import Forbidden, StoreUnavailable
from tests.conftest import PASSWORD, gather


async def events(its, kind):
    await its.audit.settled()
    return [event for event in (await its.audit.page(Wanted(), None, 500))[0] if event.type == kind]


async def test_users_are_listed_newest_first_and_a_page_follows_a_page(joined):
    root = await joined("root@example.org", "admin")
    for number in range(5):
        await joined(f"ada{number}@example.org")

    listed, cursor = [], ""
    while cursor is not None:
        answer = await root("GET", f"/api/admin/users?limit=2{cursor and '&cursor=' + cursor}")
        assert len(answer.json["items"]) <= 2
        listed += [user["email"] for user in answer.json["items"]]
        cursor = answer.json["nextCursor"]

    assert listed == [*(f"ada{number}@example.org" for number in reversed(range(5))), "root@example.org"]


async def test_a_cursor_stays_right_while_users_come_and_go(joined):
    root = await joined("root@example.org", "admin")
    people = [await joined(f"ada{number}@example.org") for number in range(6)]
    first = (await root("GET", "/api/admin/users?limit=2")).json

    await root("DELETE", f"/api/admin/users/{people[4].id}")  # on the first page
    await root("DELETE", f"/api/admin/users/{people[2].id}")  # on the next one
    await joined("late@example.org")
    second = (await root("GET", f"/api/admin/users?limit=2&cursor={first['nextCursor']}")).json

    assert [user["email"] for user in first["items"]] == ["ada5@example.org", "ada4@example.org"]
    assert [user["email"] for user in second["items"]] == ["ada3@example.org", "ada1@example.org"]


async def test_users_of_one_millisecond_are_all_listed_once(parts):
    its = parts
    people = [f"{letter * 22}" for letter in "abcdefgh"]
    for person in people:
        await its.store.run(*its.directory.entering(person, 1_700_000_000_000, ["user"], active=True))
    seen, after = [], None
    while batch := await its.directory.page(None, after, 3):
        seen += [place.id for place in batch]
        after = batch[-1]

    assert seen == sorted(people, reverse=True)


async def test_a_page_goes_on_after_one_who_has_left_however_many_share_the_millisecond(parts):
    moment, directory = 1_700_000_000_000, parts.directory
    crowd = {f"{letter}{'x' * 21}": moment for letter in "-09AZ_az"}  # in the order of their bytes
    people = {"B" + "x" * 21: moment + 1, **crowd, "C" + "x" * 21: moment - 1}
    for person, made in people.items():
        await parts.store.run(*directory.entering(person, made, ["user"], active=True))
    in_order = sorted(people, key=lambda person: (people[person], person), reverse=True)

    for number, person in enumerate(in_order):
        place = Place(people[person], person)
        assert [next_one.id for next_one in await directory.page(None, place, 3)] == in_order[number + 1 :][:3]
        await parts.store.run(*directory.leaving(person, ["user"]))
        assert [next_one.id for next_one in await directory.page(None, place, 3)] == in_order[number + 1 :][:3]


async def test_users_are_found_by_email_in_any_spelling_and_by_role(joined):
    root = await joined("root@example.org", "admin")
    mod = await joined("mod@example.org", "moderator")
    await joined("ada@example.org")

    async def emails(query):
        return [user["email"] for user in (await root("GET", f"/api/admin/users?{query}")).json["items"]]

    assert await emails("email=ADA@Example.org") == ["ada@example.org"]
    assert await emails("email=nobody@example.org") == []
    assert await emails("role=moderator") == ["mod@example.org"]
    assert await emails("role=moderator&email=ada@example.org") == []
    await root("PATCH", f"/api/admin/users/{mod.id}", {"roles": ["user"]})
    assert await emails("role=moderator") == []


async def test_the_role_that_nearly_everybody_has_is_listed_and_counted_from_the_records(joined, parts):
    root, mod = await joined("root@example.org", "admin"), await joined("mod@example.org", "moderator")
    for number in range(5):
        await joined(f"ada{number}@example.org")

    async def listed():
        found, cursor = [], ""
        while cursor is not None:
            page = (await root("GET", f"/api/admin/users?role=user&limit=2{cursor and '&cursor=' + cursor}")).json
            found, cursor = found + [user["email"][:4] for user in page["items"]], page["nextCursor"]
        return found, (await root("GET", "/api/admin/stats")).json["roles"]["user"]

    everybody = await parts.users.find_all([root.id, mod.id])
    with_it = [f"ada{number}" for number in reversed(range(5))]
    before = [user.email[:4] for user in reversed(everybody) if "user" in user.roles]
    assert await listed() == ([*with_it, *before], 5 + len(before))
    await root("PATCH", f"/api/admin/users/{mod.id}", {"roles": ["moderator"]})
    without = [name for name in before if name != "mod@"]
    assert await listed() == ([*with_it, *without], 5 + len(without))
    await root("PATCH", f"/api/admin/users/{mod.id}", {"roles": ["moderator", "user"]})
    assert "mod@" in (await listed())[0]
    assert (await listed())[1] == 5 + len({*before, "mod@"})


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "role=king", "email=x", "limit=1&limit=2"]
)
async def test_a_query_that_makes_no_sense_is_refused(joined, query):
    root = await joined("root@example.org", "admin")

    assert (await root("GET", f"/api/admin/users?{query}")).code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/admin/users"),
        ("GET", "/api/admin/users/{id}"),
        ("PATCH", "/api/admin/users/{id}"),
        ("DELETE", "/api/admin/users/{id}"),
        ("POST", "/api/admin/users/{id}/logout"),
        ("GET", "/api/admin/mail/parked"),
        ("POST", "/api/admin/mail/parked/retry"),
        ("POST", "/api/admin/mail/parked/1-1/retry"),
        ("DELETE", "/api/admin/mail/parked/1-1"),
        ("GET", "/api/admin/stats"),
        ("GET", "/api/admin/audit"),
    ],
)
async def test_without_the_permission_nothing_is_told_or_done(joined, browser, method, path):
    ada, mod = await joined("ada@example.org"), await joined("mod@example.org", "moderator")

    for asking in (ada, mod):
        answer = await asking(method, path.format(id=ada.id), {"active": False} if method == "PATCH" else None)
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
    assert (await browser(method, path.format(id=ada.id))).status == 401
    assert (await ada("GET", "/api/auth/me")).json["user"]["active"]


async def test_a_change_of_roles_is_in_force_at_once(joined):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")

    changed = await root("PATCH", f"/api/admin/users/{ada.id}", {"roles": ["user", "moderator"]})
    stale = await ada("GET", "/api/moderate")
    await ada("POST", "/api/auth/refresh")
    after = await ada("GET", "/api/moderate")

    assert changed.json["user"]["roles"] == ["user", "moderator"]
    assert stale.code == "TOKEN_STALE"
    assert after.status == 200


async def test_disabling_ends_every_session_at_once_and_enabling_lets_in_again(joined):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")

    disabled = await root("PATCH", f"/api/admin/users/{ada.id}", {"active": False})

    assert disabled.json["user"]["active"] is False
    assert (await ada("GET", "/api/auth/me")).code == "TOKEN_REVOKED"
    assert (await ada("POST", "/api/auth/refresh")).json["reason"] == "account_disabled"
    assert (await ada.login()).code == "ACCOUNT_DISABLED"
    assert (await root("PATCH", f"/api/admin/users/{ada.id}", {"active": True})).json["user"]["active"] is True
    assert (await ada.login()).status == 200


async def test_an_admin_signs_somebody_out(joined):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")

    assert (await root("POST", f"/api/admin/users/{ada.id}/logout")).status == 204

    assert (await ada("GET", "/api/auth/me")).code == "TOKEN_REVOKED"
    assert (await ada.login()).status == 200


async def test_an_admin_vouches_for_an_email(joined, parts):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")

    answer = await root("PATCH", f"/api/admin/users/{ada.id}", {"emailVerified": True})

    assert answer.json["user"]["emailVerified"] is True
    assert [event.detail["by"] for event in await events(parts, "admin.email.verified")] == [root.id]


@pytest.mark.parametrize(
    "body", [{"roles": ["king"]}, {"roles": []}, {"roles": "admin"}, {"role": "admin"}, {"active": 1}]
)
async def test_a_change_that_makes_no_sense_is_refused(joined, body):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")

    assert (await root("PATCH", f"/api/admin/users/{ada.id}", body)).code == "VALIDATION_ERROR"


async def test_who_is_not_there_is_not_found(joined):
    root = await joined("root@example.org", "admin")

    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/logout")):
        body = {"active": True} if method == "PATCH" else None
        assert (await root(method, f"/api/admin/users/{'x' * 22}{path}", body)).code == "NOT_FOUND"


# Nobody grants what they lack


@pytest.fixture
def support(parts, monkeypatch):
    """One who may look after users, and nothing else that an admin may."""
    table = {**parts.roles.table, "support": frozenset({"profile:read", "profile:write", "users:read", "users:write"})}
    monkeypatch.setattr(parts.roles, "table", table)
    return Actor("somebody in support", Roles(table).table["support"])


async def test_nobody_grants_what_they_lack(parts, support, joined):
    ada = await joined("ada@example.org")

    with pytest.raises(Forbidden) as refused:
        await parts.administration.change(support, ada.id, roles=["user", "admin"])

    assert "audit:read" in refused.value.members["required"]
    assert (await parts.administration.change(support, ada.id, roles=["user", "support"])).roles == ("user", "support")


async def test_a_role_that_permits_nothing_here_is_an_admins_to_give_and_to_take(parts, support, joined, monkeypatch):
    """The application goes by its name, and may let its bearer do anything: `?role=billing`."""
    monkeypatch.setitem(parts.roles.table, "billing", frozenset())
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    path = f"/api/admin/users/{ada.id}"

    with pytest.raises(Forbidden) as given:
        await parts.administration.change(support, ada.id, roles=["user", "billing"])
    assert (await root("PATCH", path, {"roles": ["user", "billing"]})).json["user"]["roles"] == ["user", "billing"]
    with pytest.raises(Forbidden) as taken:
        await parts.administration.change(support, ada.id, roles=["user"])

    assert given.value.members["required"] == taken.value.members["required"]
    assert "audit:read" in given.value.members["required"]
    # What leaves that role alone is theirs to do.
    assert not (await parts.administration.change(support, ada.id, active=False)).active
    changed = await parts.administration.change(support, ada.id, roles=["support", "user", "billing"])
    assert "support" in changed.roles


async def test_who_looks_after_users_takes_a_role_away_that_is_no_longer_in_the_table(parts, support, joined):
    ada = await joined("ada@example.org")
    await parts.users.change(ada.id, roles="user retired")

    assert (await parts.administration.change(support, ada.id, roles=["user"])).roles == ("user",)


async def test_nobody_touches_an_account_that_may_do_more_than_they(parts, support, joined):
    await joined("root@example.org", "admin")
    mod = await joined("mod@example.org", "moderator")
    administration = parts.administration

    for attempt in (
        lambda: administration.change(support, mod.id, roles=["user"]),
        lambda: administration.change(support, mod.id, active=False),
        lambda: administration.sign_out(support, mod.id),
        lambda: administration.delete(support, mod.id),
    ):
        with pytest.raises(Forbidden):
            await attempt()
    assert (await mod("GET", "/api/moderate")).status == 200


# The last admin stays


async def test_the_last_admin_stays(joined, parts):
    root = await joined("root@example.org", "admin")
    administration = parts.administration

    for attempt in (
        lambda: administration.change(COMMAND_LINE, root.id, roles=["user"]),
        lambda: administration.change(COMMAND_LINE, root.id, active=False),
        lambda: administration.delete(COMMAND_LINE, root.id),
    ):
        with pytest.raises(Forbidden, match="last admin"):
            await attempt()
    assert (await root("PATCH", f"/api/admin/users/{root.id}", {"roles": ["user"]})).code == "FORBIDDEN"
    assert (await root("DELETE", "/api/auth/me", {"password": PASSWORD})).code == "FORBIDDEN"
    assert (await root("GET", "/api/admin/stats")).status == 200


async def test_no_admin_deletes_or_disables_themselves_without_the_password_that_it_takes(joined, parts, browser):
    root = await joined("root@example.org", "admin")
    await joined("other@example.org", "admin")
    path = f"/api/admin/users/{root.id}"
    made = await root(
        "POST", "/api/auth/api-keys", {"name": "provisioning", "permissions": [*Roles.load().table["admin"]]}
    )
    by_key = {"X-API-Key": made.json["apiKey"]}

    for asked in (
        await root("DELETE", path),
        await root("PATCH", path, {"active": False}),
        await root("PATCH", path, {"active": False, "roles": ["user"]}),
        await browser("DELETE", path, headers=by_key),
        await browser("PATCH", path, {"active": False}, headers=by_key),
    ):
        assert (asked.status, asked.code) == (403, "FORBIDDEN")
    assert "/api/auth/me" in (await root("DELETE", path)).json["detail"]

    assert (await root("PATCH", path, {"active": True})).json["user"]["active"]
    assert (await root("DELETE", "/api/auth/me", {"password": PASSWORD})).status == 204


async def test_a_disabled_admin_is_not_one_who_remains(joined):
    root, other = await joined("root@example.org", "admin"), await joined("other@example.org", "admin")
    assert (await root("PATCH", f"/api/admin/users/{other.id}", {"active": False})).status == 200

    assert (await root("PATCH", f"/api/admin/users/{root.id}", {"roles": ["user"]})).code == "FORBIDDEN"
    await root("PATCH", f"/api/admin/users/{other.id}", {"active": True})
    assert (await root("PATCH", f"/api/admin/users/{root.id}", {"roles": ["user"]})).status == 200


async def test_an_entry_that_no_record_bears_out_is_no_admin(joined, redis):
    root = await joined("root@example.org", "admin")
    await redis.sadd("admins", "x" * 22)

    assert (await root("DELETE", "/api/auth/me", {"password": PASSWORD})).code == "FORBIDDEN"


@pytest.mark.parametrize("attempt", range(5))
async def test_of_two_last_admins_who_put_each_other_out_at_once_one_stays(joined, parts, assembling, attempt):
    one, two = await joined("one@example.org", "admin"), await joined("two@example.org", "admin")
    other = await assembling()

    await gather(
        parts.administration.change(COMMAND_LINE, one.id, roles=["user"]),
        other.administration.change(COMMAND_LINE, two.id, active=False),
        parts.administration.delete(COMMAND_LINE, two.id),
        other.administration.change(COMMAND_LINE, one.id, roles=["user"]),
    )

    users = await parts.users.find_all([one.id, two.id])
    assert len([user for user in users if user and user.active and "admin" in user.roles]) == 1


# Counts and the trail


async def test_the_counts_are_those_of_what_there_is(joined, serving, browser):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    bob = await joined("bob@example.org")
    await (await serving(at=browser)).login()

    async def counts():
        told = (await root("GET", "/api/admin/stats")).json
        return told["totalUsers"], told["activeUsers"], told["activeSessions"], told["roles"]["admin"]

    assert await counts() == (3, 3, 4, 1)
    await bob("POST", "/api/auth/refresh")
    await bob("POST", "/api/auth/logout")
    assert await counts() == (3, 3, 3, 1)
    await root("PATCH", f"/api/admin/users/{ada.id}", {"active": False})
    assert await counts() == (3, 2, 1, 1)
    await root("DELETE", f"/api/admin/users/{bob.id}")
    assert await counts() == (2, 1, 1, 1)


async def test_sessions_that_expire_are_counted_no_more(parts, joined, later):
    await joined("ada@example.org")
    await later("8d")
    parts.clock.anchor(await parts.store.time())

    assert (await parts.administration.statistics()).active_sessions == 0


async def test_every_act_is_in_the_trail_with_who_did_it(joined, parts):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    path = f"/api/admin/users/{ada.id}"

    await root("PATCH", path, {"roles": ["user", "moderator"]})
    await root("PATCH", path, {"active": False})
    await root("PATCH", path, {"active": True, "emailVerified": True})
    await root("POST", path + "/logout")
    await root("DELETE", path)

    listed = (await root("GET", f"/api/admin/audit?userId={ada.id}&limit=100")).json["items"]
    acts = {event["type"]: event for event in listed if event["detail"].get("by") == root.id}
    assert acts.keys() == {
        "admin.roles.changed", "admin.user.disabled", "admin.user.enabled", "admin.email.verified",
        "sessions.all.ended", "accounts.user.deleted",
    }  # fmt: skip
    assert len([event for event in listed if event["detail"].get("by")]) == len(acts)
    assert {event["userId"] for event in listed} == {ada.id}
    assert acts["admin.roles.changed"]["detail"]["gained"] == ["moderator"]
    assert all(event["ip"] == "127.0.0.1" and event["requestId"] for event in acts.values())


async def test_an_act_by_an_api_key_names_the_key(joined, parts, browser):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    may = (await root("GET", "/api/auth/me")).json["user"]["permissions"]
    key = (await root("POST", "/api/auth/api-keys", {"name": "helpdesk", "permissions": may})).json
    headers = {"X-API-Key": key["apiKey"]}

    await browser("PATCH", f"/api/admin/users/{ada.id}", {"roles": ["user", "moderator"]}, headers=headers)
    await browser("POST", f"/api/admin/users/{ada.id}/logout", headers=headers)
    await browser("DELETE", f"/api/admin/users/{ada.id}", headers=headers)

    listed = (await root("GET", f"/api/admin/audit?userId={ada.id}&limit=100")).json["items"]
    acts = [event["detail"].get("key_id") for event in listed if event["detail"].get("by") == root.id]
    assert acts == [key["id"]] * 3


async def test_a_user_is_told_who_acted_and_not_from_where(joined):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    await root("PATCH", f"/api/admin/users/{ada.id}", {"emailVerified": True})

    told = (await ada("GET", "/api/auth/events")).json["items"]

    (act,) = (event for event in told if event["type"] == "admin.email.verified")
    assert (act["detail"]["by"], act["ip"], act["userAgent"]) == (root.id, None, None)
    assert all(event["ip"] for event in told if event is not act)


@pytest.mark.parametrize(
    "odd", ["%ff", "%00", "%ED%A0%80", "{", "}", "x%7D", "*", "%2e%2e", "\u202e", "x" * 4000, "%0a"]
)
async def test_an_odd_id_is_nobody(joined, odd):
    root = await joined("root@example.org", "admin")

    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/logout")):
        body = {"active": True} if method == "PATCH" else None
        assert (await root(method, f"/api/admin/users/{odd}{path}", body)).status in (404, 405)
    for query in (f"audit?userId={odd}", f"audit?sessionId={odd}"):
        assert (await root("GET", f"/api/admin/{query}")).json["items"] == []
    for query in (f"audit?type={odd}", f"audit?cursor={odd}", f"users?role={odd}", f"users?email={odd}"):
        assert (await root("GET", f"/api/admin/{query}")).code == "VALIDATION_ERROR"
    assert (await root("GET", f"/api/admin/users?cursor={odd}")).code == "VALIDATION_ERROR"


# At the same moment


@pytest.fixture
def meanwhile(parts, monkeypatch):
    """Lets something happen, once, between what an admin's change has read and what it writes."""

    def let(method: str, happening, of=None):
        before = getattr(of or parts.users, method)

        async def after_it(*args, **kwargs):
            monkeypatch.setattr(of or parts.users, method, before)
            await happening()
            return await before(*args, **kwargs)

        monkeypatch.setattr(of or parts.users, method, after_it)

    return let


async def test_a_change_of_one_thing_takes_nothing_else_back(joined, parts, assembling, meanwhile):
    ada, other = await joined("ada@example.org"), await assembling()

    async def disabled():
        await other.administration.change(COMMAND_LINE, ada.id, active=False)

    async def verified():
        await other.users.change(ada.id, ok="1")

    meanwhile("administer", disabled)
    vouched = await parts.administration.change(COMMAND_LINE, ada.id, email_verified=True)
    await other.users.change(ada.id, ok=None)
    meanwhile("administer", verified)
    promoted = await parts.administration.change(COMMAND_LINE, ada.id, roles=["moderator"])

    assert (vouched.active, vouched.email_verified) == (False, True)
    assert (promoted.active, promoted.email_verified, promoted.roles) == (False, True, ("moderator",))


async def test_who_has_just_become_an_admin_who_can_act_is_the_last_one_too(joined, parts, assembling, meanwhile):
    """Their roles are taken by somebody who has seen them disabled."""
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org", "admin")
    other = await assembling()
    await parts.administration.change(COMMAND_LINE, ada.id, active=False)

    async def enabled_and_alone():
        await other.administration.change(COMMAND_LINE, ada.id, active=True)
        await other.administration.change(COMMAND_LINE, root.id, roles=["user"])

    meanwhile("administer", enabled_and_alone)
    with pytest.raises(Forbidden):
        await parts.administration.change(COMMAND_LINE, ada.id, roles=["user"])

    assert (await parts.users.find(ada.id)).is_admin


async def test_an_admin_who_is_being_put_out_is_not_counted_again_by_another_change(
    joined, parts, assembling, meanwhile, redis
):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org", "admin")
    other = await assembling()

    async def vouched():
        await other.administration.change(COMMAND_LINE, ada.id, email_verified=True)

    meanwhile("administer", vouched)
    await parts.administration.change(COMMAND_LINE, ada.id, roles=["user"])

    assert await redis.smembers("admins") == {root.id}


async def test_a_role_that_is_given_back_at_the_same_moment_is_found(joined, parts, assembling, meanwhile):
    mod, other = await joined("mod@example.org", "moderator"), await assembling()

    async def given_back():
        await other.administration.change(COMMAND_LINE, mod.id, roles=["user", "moderator"])

    meanwhile("_take_out", given_back)
    await parts.administration.change(COMMAND_LINE, mod.id, roles=["user"])

    assert [user.id for user in (await parts.administration.list(None, "moderator", None, 10))[0]] == [mod.id]


async def test_who_is_promoted_while_being_deleted_may_be_the_last_admin(joined, parts, assembling, meanwhile):
    root, ada = await joined("root@example.org", "admin"), await joined("ada@example.org")
    other = await assembling()

    async def promoted_and_alone():
        await other.administration.change(COMMAND_LINE, ada.id, roles=["user", "admin"])
        await other.administration.change(COMMAND_LINE, root.id, roles=["user"])

    meanwhile("doom", promoted_and_alone)
    with pytest.raises(Forbidden):
        await parts.administration.delete(COMMAND_LINE, ada.id)

    assert (await parts.users.find(ada.id)).is_admin


async def test_who_is_promoted_while_being_deleted_may_do_more_than_the_actor(
    joined, parts, assembling, meanwhile, support
):
    ada, other = await joined("ada@example.org"), await assembling()

    async def promoted():
        await other.administration.change(COMMAND_LINE, ada.id, roles=["user", "moderator"])

    meanwhile("doom", promoted)
    with pytest.raises(Forbidden):
        await parts.administration.delete(support, ada.id)

    assert not (await parts.users.find(ada.id)).leaving


async def test_an_act_is_told_of_although_a_later_step_failed(joined, parts, meanwhile):
    ada = await joined("ada@example.org")

    async def away():
        raise StoreUnavailable

    meanwhile("end_all", away, of=parts.families)
    with pytest.raises(StoreUnavailable):
        await parts.administration.change(COMMAND_LINE, ada.id, active=False)
    await parts.administration.change(COMMAND_LINE, ada.id, active=False)

    assert len(await events(parts, "admin.user.disabled")) == 1
    assert (await ada("GET", "/api/auth/me")).code == "TOKEN_REVOKED"


async def test_who_sends_slowly_and_is_put_out_meanwhile_does_nothing_any_more(joined, parts):
    await joined("root@example.org", "admin")
    mallory, ada = await joined("mallory@example.org", "admin"), await joined("ada@example.org")
    put_out = asyncio.Event()

    async def slowly(text: bytes):
        yield text[:5]
        await put_out.wait()
        yield text[5:]

    def sends(method, path, text):
        headers = {"Content-Type": "application/json"}
        return asyncio.create_task(mallory(method, path, data=slowly(text), headers=headers))

    promoting = sends("PATCH", f"/api/admin/users/{ada.id}", b'{"roles": ["user", "admin"]}')
    making = sends("POST", "/api/auth/api-keys", b'{"name": "back door", "permissions": []}')
    await asyncio.sleep(0.3)
    await parts.administration.change(COMMAND_LINE, mallory.id, roles=["user"])
    put_out.set()

    assert [(await sent).code for sent in (promoting, making)] == ["TOKEN_STALE"] * 2
    assert (await parts.users.find(ada.id)).roles == ("user",)
    assert await parts.api_keys.of(mallory.id) == []
