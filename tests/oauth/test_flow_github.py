"""Signing in at GitHub, whose email and name need a second look."""

import pytest
from structlog.testing import capture_logs

from tests.conftest import all_that_is_in
from tests.oauth.conftest import APP, JSON, PAGE, come_back, enter, leave, query_of
from tests.oauth.github import Person, email
from tests.oauth.mischief import an_error, failing


async def test_a_private_verified_email_is_found_through_the_api(visiting, github):
    browser = await visiting(github)

    signed = await enter(browser, github, "ada-l")

    user = signed.json["user"]
    assert github.people["ada-l"].public_email is None
    assert (user["email"], user["emailVerified"], user["provider"]) == ("ada@example.org", True, "github")
    assert (user["name"], user["picture"]) == ("Ada Lovelace", "https://avatars.example.org/u/1")
    assert [held["provider"] for held in user["identities"]] == ["github"]


async def test_without_a_name_the_login_is_the_name(visiting, github):
    github.add(Person(7, "grace", name=None, emails=[email("grace@example.org")]))
    browser = await visiting(github)

    assert (await enter(browser, github, "grace")).json["user"]["name"] == "grace"


async def test_somebody_who_renamed_themselves_there_is_the_same_person_here(visiting, github, serving):
    browser = await visiting(github)
    first = await enter(browser, github, "ada-l")
    github.people["countess"] = github.people.pop("ada-l")
    github.people["countess"].login = "countess"
    github.people["countess"].emails = [email("another@example.org")]

    again = await enter(await serving(at=browser), github, "countess")

    assert again.json["user"]["id"] == first.json["user"]["id"]
    assert again.json["user"]["email"] == "ada@example.org"


async def test_whoever_takes_the_old_login_is_somebody_else(visiting, github, serving):
    browser = await visiting(github)
    first = await enter(browser, github, "ada-l")
    github.people["ada-l"] = Person(999, "ada-l", emails=[email("mallory@example.org")])

    other = await enter(await serving(at=browser), github, "ada-l")

    assert other.json["user"]["id"] != first.json["user"]["id"]


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [email("ada@example.org", verified=False)],
        [email("old@example.org", primary=False)],
        [email("ada@example.org", verified=False), email("old@example.org", primary=False)],
        [email("no address")],
        [{"email": "ada@example.org", "primary": "true", "verified": "true"}],
        [{"email": None, "primary": True, "verified": True}],
        ["ada@example.org"],
    ],
    ids=["none", "unverified", "not primary", "verified but not primary", "no address", "strings", "null", "text"],
)
async def test_without_a_primary_verified_email_there_is_no_account(visiting, github, emails):
    github.add(Person(8, "eve", public_email="ada@example.org", emails=emails))
    browser = await visiting(github)

    refused = await enter(browser, github, "eve")

    assert (refused.status, refused.code) == (400, "OAUTH_EMAIL_UNVERIFIED")


async def test_of_several_emails_the_primary_one_counts(visiting, github):
    work = email("work@example.org", primary=False)
    github.add(Person(9, "lin", public_email="work@example.org", emails=[work, email("lin@example.org")]))
    browser = await visiting(github)

    assert (await enter(browser, github, "lin")).json["user"]["email"] == "lin@example.org"


async def test_github_is_asked_for_what_is_needed_and_no_more(visiting, github):
    browser = await visiting(github)
    asked = query_of(await leave(browser, "github"))

    assert asked["scope"] == "read:user user:email"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["state"]) >= 43
    assert set(asked) == {"client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"}


async def test_a_sign_in_costs_three_calls(visiting, github):
    browser = await visiting(github)

    await enter(browser, github, "ada-l")

    paths = ("/login/oauth/access_token", "/api/v3/user", "/api/v3/user/emails")
    assert {path: github.calls[path] for path in paths} == dict.fromkeys(paths, 1)
    assert github.called_by_us == 3


async def test_a_token_without_the_scope_for_emails_is_no_sign_in(visiting, github):
    github.granting = "read:user"
    browser = await visiting(github)

    assert (await enter(browser, github, "ada-l")).code == "OAUTH_EXCHANGE_FAILED"


async def test_saying_no_is_a_clean_refusal_and_makes_no_call(visiting, github):
    browser = await visiting(github)

    denied = await come_back(browser, await github.sign_in(await leave(browser, "github"), "ada-l", consent=False))
    away = await browser("GET", "/api/auth/github", headers=PAGE)
    person = await come_back(browser, await github.sign_in(away.headers["Location"], "ada-l", consent=False), PAGE)

    assert (denied.status, denied.code) == (403, "OAUTH_DENIED")
    assert (person.status, person.headers["Location"]) == (302, f"{APP}?error=OAUTH_DENIED")
    assert github.called_by_us == 0


async def test_a_code_works_once(visiting, github, serving):
    """The state protects the code; even with a fresh state a used code is refused by GitHub itself."""
    browser = await visiting(github)
    used = await github.sign_in(await leave(browser, "github"), "ada-l")
    assert (await come_back(browser, used)).status == 200
    fresh = query_of(await leave(browser, "github"))["state"]

    replayed = await come_back(browser, used.replace(query_of(used)["state"], fresh))

    assert replayed.code == "OAUTH_EXCHANGE_FAILED"


async def test_a_code_of_another_flow_is_refused_by_the_challenge(visiting, github, serving):
    victim = await visiting(github)
    attacker = await serving(at=victim)
    stolen = await github.sign_in(await leave(victim, "github"), "ada-l")
    own = query_of(await leave(attacker, "github"))["state"]

    injected = await come_back(attacker, stolen.replace(query_of(stolen)["state"], own))

    assert injected.code == "OAUTH_EXCHANGE_FAILED"
    assert (await attacker("GET", "/api/auth/me")).code == "NO_TOKEN"


async def test_wrong_credentials_of_the_app_are_told_without_them(visiting, github):
    browser = await visiting(github, GITHUB_CLIENT_SECRET="not the secret of the app")

    with capture_logs() as logged:
        refused = await enter(browser, github, "ada-l")

    assert refused.code == "OAUTH_EXCHANGE_FAILED"
    assert "incorrect_client_credentials" in str(logged)
    assert "not the secret" not in str(logged)


async def test_a_redirect_uri_that_github_does_not_know_comes_back_as_a_failure(visiting, github):
    browser = await visiting(github, GITHUB_REDIRECT_URI="http://localhost:8000/api/auth/elsewhere/callback")

    refused = await come_back(browser, await github.sign_in(await leave(browser, "github"), "ada-l"))

    assert query_of(await github.sign_in(await leave(browser, "github"), "ada-l"))["error"] == "redirect_uri_mismatch"
    assert refused.code == "OAUTH_EXCHANGE_FAILED"
    assert github.called_by_us == 0


async def test_codes_and_tokens_of_github_are_neither_logged_nor_kept_nor_told(visiting, github, redis):
    browser = await visiting(github)
    with capture_logs() as logged:
        callback = await github.sign_in(await leave(browser, "github"), "ada-l")
        signed, failed = await come_back(browser, callback), await come_back(browser, callback)
        github.mischief["/login/oauth/access_token"] = an_error
        await come_back(browser, await github.sign_in(await leave(browser, "github"), "ada-l"))
    secrets = [query_of(callback)["code"], query_of(callback)["state"], *github._tokens]

    assert {"sessions.session.started", "oauth.exchange_refused"} <= {line["event"] for line in logged}
    seen = [str(logged), str(await all_that_is_in(redis))]
    seen += [answer.body.decode() + str(answer.headers) for answer in (signed, failed)]
    assert not [(secret, text) for secret in secrets for text in seen if secret in text]


async def test_the_json_form_is_for_those_who_ask_for_json_only(visiting, github):
    browser = await visiting(github)

    for accept in ("text/html, application/json;q=0.9", "*/*", "text/html"):
        assert (await browser("GET", "/api/auth/github", headers={"Accept": accept})).status == 302
    assert (await browser("GET", "/api/auth/github", headers=JSON)).status == 200


async def test_what_comes_of_it_is_counted_by_provider_and_for_the_sign_in(visiting, github):
    browser = await visiting(github, REGISTRATION="closed")
    steps = [
        ("start", "success"),
        ("finish", "success"),
        ("finish", "oauth_denied"),
        ("finish", "provider_unavailable"),
    ]

    async def counts() -> list[float]:
        text = (await browser("GET", "/metrics")).body.decode()
        wanted = [
            f'gatepost_oauth_calls_total{{provider="github",result="{result}",step="{step}"}}' for step, result in steps
        ]
        wanted.append('gatepost_sign_ins_total{method="fed",result="forbidden"}')
        return [float(dict(line.rsplit(" ", 1) for line in text.splitlines()).get(name, 0)) for name in wanted]

    before = await counts()
    closed = await enter(browser, github, "ada-l")
    denied = await come_back(browser, await github.sign_in(await leave(browser, "github"), "ada-l", consent=False))
    github.mischief["/login/oauth/access_token"] = failing
    failed = await enter(browser, github, "ada-l")
    after = await counts()

    assert (closed.code, denied.code, failed.status) == ("FORBIDDEN", "OAUTH_DENIED", 502)
    assert [new - old for old, new in zip(before, after, strict=True)] == [3, 1, 1, 1, 1]
