"""Importing: each line is an account or a reason, and the same file may come again."""

import asyncio
import json

import bcrypt
import pytest

from service.accounts.importing import Fate, Importing
from service.errors import StoreUnavailable
from service.store import reach
from tests.conftest import PASSWORD

HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def line(email: str, **fields) -> str:
    return json.dumps({"email": email, "passwordHash": HASH, **fields})


@pytest.fixture
def importing(parts):
    return Importing(parts.users, parts.passwords, parts.roles)


async def test_an_imported_person_signs_in_with_the_old_password_and_gets_a_new_hash(importing, parts, browser):
    summary = await importing.run(
        [
            line(
                "Ada@Example.org",
                firstName="Ada",
                emailVerified=True,
                roles=["user", "moderator"],
                createdAt="2019-05-04T10:00:00Z",
            )
        ]
    )
    assert (summary.imported, summary.refused) == (1, [])

    signed = await browser.login()

    user = signed.json["user"]
    assert (user["firstName"], user["emailVerified"], user["roles"]) == ("Ada", True, ["user", "moderator"])
    assert user["createdAt"] == "2019-05-04T10:00:00.000Z"
    assert (await parts.users.find(user["id"])).password.startswith("$argon2id$")
    assert (await browser.login()).status == 200


async def test_every_bad_line_is_told_with_its_number_and_its_reason_and_none_of_its_secrets(importing, parts):
    lines = [
        line("ada@example.org"),
        "{not json",
        "[]",
        "",
        line("no email"),
        line("bob@example.org", passwordHash="hunter2-in-clear"),
        line("eve@example.org", roles=["emperor"]),
        line("eve@example.org", nickname="Eve"),
        line("eve@example.org", firstName="\u202e" * 3),
        json.dumps({"passwordHash": HASH}),
        "x" * 70_000,
        line("ADA@example.org", passwordHash=HASH.replace("$2b$", "$2a$")),
    ]

    summary = await importing.run(lines)

    reasons = {outcome.line: outcome.reason for outcome in summary.refused}
    assert (summary.imported, summary.there_already) == (1, 0)
    assert list(reasons) == [2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    assert "not JSON" in reasons[2]
    assert "email" in reasons[5]
    assert "passwordHash: must be argon2id, bcrypt" in reasons[6]
    assert "emperor" in reasons[7]
    assert reasons[8] == "nickname: is not a known field"
    assert reasons[10] == "email: is required"
    assert "another password" in reasons[12]
    told = " ".join(reasons.values())
    assert "hunter2" not in told
    assert HASH not in told
    assert await parts.users.find_by_email("eve@example.org") is None


async def test_the_same_file_again_changes_nothing(importing, parts):
    lines = [line(f"person{n}@example.org") for n in range(100)]
    first = await importing.run(lines[:60])
    ids = [(await parts.users.find_by_email(f"person{n}@example.org")).id for n in range(60)]

    again = await importing.run(lines)

    assert (first.imported, again.imported, again.there_already, again.refused) == (60, 40, 60, [])
    assert [(await parts.users.find_by_email(f"person{n}@example.org")).id for n in range(60)] == ids


async def test_two_imports_at_once_make_each_account_once(assembling):
    one, two = await assembling(), await assembling()
    lines = [line(f"person{n}@example.org") for n in range(200)]

    summaries = await asyncio.gather(*(Importing(its.users, its.passwords, its.roles).run(lines) for its in (one, two)))

    for summary in summaries:
        assert {outcome.reason.partition(": ")[2] for outcome in summary.refused} <= {
            "the email is just being registered; try again"
        }
    assert 200 <= sum(summary.imported for summary in summaries) <= 200
    last = await Importing(one.users, one.passwords, one.roles).run(lines)
    assert (last.imported, last.there_already) == (0, 200)


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_a_redis_that_stays_away_ends_the_import_and_the_rest_may_follow(assembling, own_redis, monkeypatch):
    monkeypatch.setattr("service.accounts.importing.PATIENCE", 1)
    its = await assembling(reach(own_redis.url))
    importing = Importing(its.users, its.passwords, its.roles)
    lines = [line(f"person{n}@example.org") for n in range(50)]
    await importing.run(lines[:20])

    own_redis.kill()
    with pytest.raises(StoreUnavailable):
        await importing.run(lines)
    own_redis.start()

    rest = await importing.run(lines)
    assert (rest.imported, rest.there_already, rest.refused) == (30, 20, [])


async def test_each_outcome_is_told_as_it_comes(importing):
    told = []

    await importing.run([line("ada@example.org"), "{", line("ada@example.org")], told.append)

    assert {outcome.line for outcome in told} == {1, 2, 3}
    assert Fate.REFUSED in {outcome.fate for outcome in told}
