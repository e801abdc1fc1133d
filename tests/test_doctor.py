"""The doctor names what is wrong and what to do, and is quiet about what is well."""

import pytest

from service.doctor import Level, cookies_between, examine, same_site
from service.store import reach
from tests.conftest import settings_for


async def findings(its) -> dict[str, tuple[Level, str, str]]:
    found = await examine(its)
    for finding in found:
        assert finding.remedy or finding.level is Level.OK, f"{finding.about}: what is one to do?"
    return {finding.about: (finding.level, finding.told, finding.remedy) for finding in found}


@pytest.fixture
def on(assembling, own_redis):
    """Parts on a real Redis of the test's own."""

    async def joined(**changes):
        return await assembling(reach(own_redis.url), **changes)

    return joined


pytestmark = pytest.mark.parametrize("connecting", ["redis"], indirect=True)


async def test_a_well_installation_has_nothing_to_mend(on, connecting):
    found = await findings(await on())

    assert {level for level, _, _ in found.values()} == {Level.OK}
    assert {"redis", "redis persistence", "redis role", "clock", "redis latency", "keys", "lookup key"} <= found.keys()


async def test_a_redis_that_is_away_is_all_that_is_said_of_it(on, own_redis, connecting):
    its = await on()
    own_redis.kill()

    found = await findings(its)

    assert found["redis"][0] is Level.ERROR
    assert "keys" not in found


@pytest.mark.parametrize(("url", "taken"), [("redis://host", True), ("redis+sentinel://host/main", False), ("", False)])
async def test_redis_cli_is_named_where_it_takes_such_a_url(on, own_redis, connecting, url, taken):
    its = await on(REDIS_URL=url)
    own_redis.kill()

    level, _, remedy = (await findings(its))["redis"]

    assert (level, "redis-cli" in remedy) == (Level.ERROR, taken)


async def test_a_redis_that_may_forget_is_named(on, own_redis, connecting):
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    level, told, _ = (await findings(await on()))["redis persistence"]

    assert level is Level.WARNING
    assert "allkeys-lru" in told


async def test_a_replica_is_no_place_to_write(on, own_redis, connecting):
    its = await on()
    own_redis.cli("REPLICAOF", "127.0.0.1", "1")

    level, told, _ = (await findings(its))["redis role"]

    assert level is Level.ERROR
    assert "replica" in told


async def test_too_few_replicas_for_what_is_waited_for(on, connecting):
    level, told, _ = (await findings(await on(REDIS_WAIT_REPLICAS="2")))["redis role"]

    assert level is Level.ERROR
    assert "0 replicas" in told


async def test_keys_of_another_secret_are_named_with_the_way_back(on, connecting):
    its = await on()
    await its.lookups.email("ada@example.org")

    stranger = await on(AUTH_SECRET="another secret altogether: 77aa01", JWT_ALGORITHM="HS256")
    level, _, remedy = (await findings(stranger))["lookup key"]

    assert level is Level.ERROR
    assert "AUTH_SECRET_PREVIOUS" in remedy


async def test_a_provider_that_cannot_be_reached_is_named(on, connecting):
    nowhere = {"OIDC_EXAMPLE_ISSUER": "http://127.0.0.1:9", "OIDC_EXAMPLE_CLIENT_ID": "gatepost"}
    github = {
        "GITHUB_CLIENT_ID": "id",
        "GITHUB_CLIENT_SECRET": "secret",
        "GITHUB_REDIRECT_URI": "https://elsewhere.org/cb",
    }

    found = await findings(await on(**nowhere, **github))

    assert found["provider example"][0] is Level.ERROR
    level, told, _ = found["provider github"]
    assert level is Level.WARNING
    assert "https://elsewhere.org/cb" in told


async def test_a_mail_server_that_takes_no_connection_is_named(on, connecting):
    assert (await findings(await on()))["mail"][0] is Level.OK

    level, told, _ = (await findings(await on(SMTP_URL="smtp://127.0.0.1:9", MAIL_FROM="auth@example.org")))["mail"]

    assert level is Level.ERROR
    assert "127.0.0.1:9" in told


async def test_parked_mail_is_named_with_what_to_do(on, connecting):
    its = await on()
    await its.outbox.put("reset", email="ada@example.org")
    for errand in await its.outbox.take(1):
        await its.outbox.failed(errand, "the server refused the recipient: 550", for_good=True)

    level, told, remedy = (await findings(its))["parked mail"]

    assert level is Level.WARNING
    assert "1 mail" in told
    assert "550" in told
    assert "ada" not in told
    assert "mail parked" in remedy


async def test_an_app_on_another_site_is_told_why_nobody_stays_signed_in(connecting):
    https = {"PUBLIC_URL": "https://auth.example.org"}

    assert cookies_between(settings_for(**https), "https://app.example.org").level is Level.OK
    assert cookies_between(settings_for(**https), "https://app.example.com").level is Level.ERROR
    assert cookies_between(settings_for(**https), "http://app.example.org").level is Level.ERROR
    third_party = settings_for(COOKIE_SAMESITE="none", **https)
    assert cookies_between(third_party, "https://app.example.com").level is Level.WARNING


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:5173", "http://localhost:8000", True),
        ("http://127.0.0.1:5173", "http://localhost:8000", False),
        ("http://10.0.0.1", "http://11.0.0.1", False),
        ("http://10.0.0.1", "http://10.0.0.1:8000", True),
        ("https://example.org", "https://auth.example.org", True),
        ("https://a.example.org", "https://b.example.com", False),
        ("https://app", "https://auth", False),
    ],
)
async def test_what_a_site_is(one, other, same, connecting):
    assert same_site(one, other) is same
