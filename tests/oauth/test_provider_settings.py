"""Providers by settings alone, and mistakes in them told in plain words."""

import pytest

from service import errors
from service.settings import NAMES, RESERVED, ROOT, OpenIDClient, SettingsError, load
from tests.conftest import settings_for
from tests.oauth.conftest import JSON, PAGE, leave, query_of

GOOGLE = {"GOOGLE_CLIENT_ID": "g-id", "GOOGLE_CLIENT_SECRET": "g-secret"}
GITHUB = {"GITHUB_CLIENT_ID": "h-id", "GITHUB_CLIENT_SECRET": "h-secret"}
EXAMPLE = {"OIDC_EXAMPLE_ISSUER": "https://id.example.org/realms/main", "OIDC_EXAMPLE_CLIENT_ID": "e-id"}


async def providers_with(assembling, **settings):
    return (await assembling(**settings)).oauth.providers


def mistakes_of(**settings: str) -> str:
    with pytest.raises(SettingsError) as refused:
        settings_for(**settings)
    return str(refused.value)


async def test_without_settings_there_is_no_provider(browser):
    assert (await browser("GET", "/api/auth/providers")).json == {"providers": []}
    for path in ("google", "github", "example"):
        for ask in (("GET", f"/api/auth/{path}"), ("GET", f"/api/auth/{path}/callback?code=a&state=b")):
            answer = await browser(*ask, headers=JSON)
            assert (answer.status, answer.code) == (404, "PROVIDER_NOT_CONFIGURED")


async def test_each_provider_is_listed_with_its_name_and_its_start(serving):
    browser = await serving(**GOOGLE, **GITHUB, **EXAMPLE, PUBLIC_URL="https://auth.example.org")

    listed = (await browser("GET", "/api/auth/providers")).json["providers"]

    assert listed == [
        {"name": "google", "displayName": "Google", "startUrl": "https://auth.example.org/api/auth/google"},
        {"name": "github", "displayName": "GitHub", "startUrl": "https://auth.example.org/api/auth/github"},
        {"name": "example", "displayName": "Example", "startUrl": "https://auth.example.org/api/auth/example"},
    ]


async def test_people_come_back_to_the_public_address_unless_the_operator_says_otherwise(assembling):
    found = await providers_with(assembling, **GOOGLE, **GITHUB, **EXAMPLE, PUBLIC_URL="https://auth.example.org")
    own = await providers_with(
        assembling,
        **{**GOOGLE, "GOOGLE_REDIRECT_URI": "https://app.example.org/back/google"},
        **{**GITHUB, "GITHUB_REDIRECT_URI": "https://app.example.org/back/github"},
        **{**EXAMPLE, "OIDC_EXAMPLE_REDIRECT_URI": "https://app.example.org/back/example"},
    )

    for name in ("google", "github", "example"):
        assert found[name].redirect_uri == f"https://auth.example.org/api/auth/{name}/callback"
        assert own[name].redirect_uri == f"https://app.example.org/back/{name}"


async def test_the_redirect_uri_of_the_settings_is_what_the_provider_is_told(visiting, github):
    browser = await visiting(github, GITHUB_REDIRECT_URI="https://app.example.org/back")

    assert query_of(await leave(browser, "github"))["redirect_uri"] == "https://app.example.org/back"


async def test_google_is_an_openid_provider_at_its_own_issuer(visiting, making_hostile):
    provider = await making_hostile("google")
    browser = await visiting(**GOOGLE, GOOGLE_ISSUER=provider.issuer)

    auth_url = await leave(browser, "google")

    assert settings_for(**GOOGLE).google_issuer == "https://accounts.google.com"
    assert auth_url.startswith(provider.issuer + "/authorize?")
    assert query_of(auth_url)["client_id"] == "g-id"
    assert query_of(auth_url)["scope"] == "openid email profile"


def test_github_enterprise_has_its_api_below_its_own_address():
    assert settings_for(**GITHUB).github_api_url == "https://api.github.com"
    enterprise = settings_for(**GITHUB, GITHUB_URL="https://git.example.org/")
    assert enterprise.github_api_url == "https://git.example.org/api/v3"
    apart = settings_for(**GITHUB, GITHUB_URL="https://git.example.org", GITHUB_API_URL="https://api.git.example.org")
    assert apart.github_api_url == "https://api.git.example.org"


async def test_an_issuer_keeps_the_slash_at_its_end(visiting, hostile):
    """Some providers have one in their name, and an issuer is compared to the letter."""
    slashed = hostile.issuer + "/"
    hostile.metadata = {"issuer": slashed}
    browser = await visiting(hostile, OIDC_HOSTILE_ISSUER=slashed)

    assert (await leave(browser, "hostile")).startswith(slashed)
    assert hostile.calls["/.well-known/openid-configuration"] == 1


async def test_the_scopes_are_the_operators(visiting, hostile):
    browser = await visiting(hostile, OIDC_HOSTILE_SCOPES="openid,email")

    assert query_of(await leave(browser, "hostile"))["scope"] == "openid email"


async def test_two_openid_providers_stand_side_by_side(visiting, making_hostile):
    one, other = await making_hostile("one"), await making_hostile("other")
    browser = await visiting(one, other)

    assert (await leave(browser, "one")).startswith(one.issuer)
    assert (await leave(browser, "other")).startswith(other.issuer)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"GOOGLE_CLIENT_ID": "id"}, "GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET need each other; one is missing."),
        ({"GITHUB_CLIENT_SECRET": "s"}, "GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET need each other; one is missing."),
        ({"OIDC_EXAMPLE_ISSUER": "https://id.example.org"}, "OIDC_EXAMPLE_CLIENT_ID is missing."),
        ({"OIDC_EXAMPLE_CLIENT_ID": "id"}, "OIDC_EXAMPLE_ISSUER is missing."),
        ({**EXAMPLE, "OIDC_EXAMPLE_ISSUER": "id.example.org"}, "OIDC_EXAMPLE_ISSUER must be an address such as"),
        ({**EXAMPLE, "OIDC_EXAMPLE_ISSUER": "https://id.example.org/?a=b"}, "OIDC_EXAMPLE_ISSUER must be an address"),
        ({**EXAMPLE, "OIDC_EXAMPLE_REDIRECT_URI": "/back"}, "OIDC_EXAMPLE_REDIRECT_URI must be an address such as"),
        ({**EXAMPLE, "OIDC_EXAMPLE_SCOPES": "email"}, "OIDC_EXAMPLE_SCOPES must have openid among its scopes"),
        ({**GOOGLE, "GOOGLE_REDIRECT_URI": "javascript:alert(1)"}, "GOOGLE_REDIRECT_URI must be an address such as"),
        ({**GITHUB, "GITHUB_URL": "git.example.org"}, "GITHUB_URL must be an address such as"),
    ],
)
def test_a_mistake_is_told_in_plain_words(settings, sentence):
    assert sentence in mistakes_of(**settings)


PRODUCTION = {
    "ENVIRONMENT": "production",
    "PUBLIC_URL": "https://auth.example.org",
    "REDIS_URL": "redis://redis:6379/0",
    "AUTH_SECRET": "rT7-vQ2m_Zx9Lk4Wb6Yp1Ns8Dc3Hf5Jg",
}


@pytest.mark.parametrize("name", ["GOOGLE_ISSUER", "GITHUB_URL", "GITHUB_API_URL", "OIDC_EXAMPLE_ISSUER"])
def test_in_production_nobody_listens_to_what_a_provider_says(name):
    assert f"{name} must be https:// in production" in mistakes_of(
        **PRODUCTION, **{**EXAMPLE, name: "http://id.example.org"}
    )
    settings_for(**PRODUCTION, **{**EXAMPLE, name: "https://id.example.org"})
    settings_for(**PRODUCTION, **{**EXAMPLE, name: "http://127.0.0.1:8080"})
    settings_for(**{**EXAMPLE, name: "http://id.example.org"})


@pytest.mark.parametrize("name", ["GOOGLE", "GITHUB", "LOGIN", "PROVIDERS", "IDENTITIES", "ME", "SESSIONS", "EVENTS"])
def test_a_provider_cannot_take_a_word_of_our_own_addresses(name):
    settings = {f"OIDC_{name}_ISSUER": "https://id.example.org", f"OIDC_{name}_CLIENT_ID": "id"}

    assert f"OIDC_{name}_* cannot be: '{name.lower()}' is a word of our own addresses" in mistakes_of(**settings)


def test_a_misspelt_name_in_the_file_is_told(tmp_path):
    file = tmp_path / ".env"
    for line in ("OIDC_EXAMPLE_CLIENTID=id", "OIDC_MY_IDP_ISSUER=https://id.example.org"):
        file.write_text(line)
        with pytest.raises(SettingsError, match=f"{line.partition('=')[0]} in .env is no setting: OIDC_<NAME>_ is"):
            load({}, file)


def test_a_client_secret_is_in_no_mistake_and_no_repr():
    secret = "do-not-show-me-4711"
    settings = settings_for(**EXAMPLE, OIDC_EXAMPLE_CLIENT_SECRET=secret, **{**GOOGLE, "GOOGLE_CLIENT_SECRET": secret})

    assert secret not in repr(settings)
    assert secret not in mistakes_of(**EXAMPLE, OIDC_EXAMPLE_CLIENT_SECRET=secret, OIDC_EXAMPLE_SCOPES="email")


async def test_our_own_words_stay_our_own(visiting, github):
    """A name of a provider never shadows, and never answers for, an address of ours."""
    browser = await visiting(github)

    refused = await browser("GET", "/api/auth/login")
    assert (refused.status, refused.code, refused.headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "OPTIONS, POST")
    for word in ("register", "refresh", "logout", "logout-all"):
        assert (await browser("GET", f"/api/auth/{word}")).status == 405
    assert (await browser("GET", "/api/auth/me")).code == "NO_TOKEN"
    assert (await browser("GET", "/api/auth/login/callback?code=a&state=b", headers=JSON)).code == "NOT_FOUND"
    assert (await browser("POST", "/api/auth/github")).status == 405


async def test_every_word_of_our_own_addresses_is_reserved(browser):
    paths = [resource.canonical for resource in browser.client.server.app.router.resources()]

    words = {path.split("/")[3] for path in paths if path.startswith("/api/auth/")}

    assert words - {"{provider}"} <= RESERVED


@pytest.mark.parametrize("path", ["nobody", "GITHUB", "github%2e", "loginx", "github-2"])
async def test_an_unknown_provider_is_not_there(visiting, github, path):
    browser = await visiting(github)

    for headers in (JSON, PAGE):
        assert (await browser("GET", f"/api/auth/{path}", headers=headers)).status == 404
    assert github.called_by_us == 0


def test_the_page_on_providers_tells_every_setting_and_every_failure():
    page = (ROOT / "docs/providers.md").read_text()
    failures = (
        errors.ProviderNotConfigured, errors.OAuthStateInvalid, errors.OAuthCodeMissing, errors.OAuthExchangeFailed,
        errors.OAuthEmailUnverified, errors.OAuthDenied, errors.AccountDisabled, errors.ReauthenticationRequired,
        errors.Forbidden, errors.EmailExists, errors.IdentityInUse, errors.RateLimited, errors.ProviderUnavailable,
    )  # fmt: skip

    told = [f"`{name}`" for name in NAMES if name.startswith(("GOOGLE_", "GITHUB_"))]
    told += [f"`OIDC_<NAME>_{field.upper()}`" for field in OpenIDClient.model_fields if field != "name"]
    told += [f"{failure.status} `{failure.code}`" for failure in failures]

    assert [one for one in told if one not in page] == []
