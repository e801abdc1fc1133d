"""Signing in at a certified OpenID provider, as a script and as a person."""

from tests.oauth.conftest import APP, JSON, PAGE, TOKENS, come_back, enter, leave, query_of


async def test_a_stranger_becomes_a_user_with_what_the_provider_knows(visiting, openid_provider):
    browser = await visiting(openid_provider)

    signed = await enter(browser, openid_provider)

    assert signed.status == 200
    user = signed.json["user"]
    assert (user["email"], user["emailVerified"], user["provider"]) == ("ada@example.org", True, "example")
    assert (user["firstName"], user["lastName"], user["name"]) == ("Ada", "Lovelace", "Ada Lovelace")
    assert user["picture"] == "https://pictures.example.org/ada.png"
    assert [(held["provider"], held["email"]) for held in user["identities"]] == [("example", "ada@example.org")]
    assert (await browser("GET", "/api/auth/me")).json["user"]["id"] == user["id"]
    assert "refreshToken" not in signed.json
    assert {"accessToken", "refreshToken", "csrfToken"} <= signed.cookies.keys()


async def test_the_same_person_comes_back_to_the_same_account(visiting, openid_provider, serving):
    browser = await visiting(openid_provider)
    first = await enter(browser, openid_provider)
    elsewhere = await serving(at=browser)

    again = await enter(elsewhere, openid_provider)

    assert again.json["user"]["id"] == first.json["user"]["id"]
    assert again.json["user"]["lastLoginAt"] >= first.json["user"]["lastLoginAt"]
    sessions = (await elsewhere("GET", "/api/auth/sessions")).json["items"]
    assert len(sessions) == 2


async def test_a_client_may_have_its_tokens_in_the_body(visiting, openid_provider):
    browser = await visiting(openid_provider)

    signed = await enter(browser, openid_provider, headers=TOKENS)

    assert signed.json["refreshToken"].startswith("rt_")
    assert "accessToken" not in signed.cookies
    renewed = await browser("POST", "/api/auth/refresh", {"refreshToken": signed.json["refreshToken"]})
    assert renewed.status == 200


async def test_a_person_goes_and_comes_back_by_redirects_alone(visiting, openid_provider):
    browser = await visiting(openid_provider)

    away = await browser("GET", "/api/auth/example", params={"redirectTo": "/inbox?tab=2#top"}, headers=PAGE)
    assert away.status == 302
    assert away.body == b""
    callback = await openid_provider.sign_in(away.headers["Location"], "ada")
    back = await come_back(browser, callback, PAGE)

    assert back.status == 302
    assert back.headers["Location"] == f"{APP}/inbox?tab=2#top"
    assert back.headers["Referrer-Policy"] == "no-referrer"
    assert (await browser("GET", "/api/auth/me")).json["user"]["email"] == "ada@example.org"


async def test_without_a_place_to_go_a_person_comes_to_the_app(visiting, openid_provider):
    browser = await visiting(openid_provider)

    away = await browser("GET", "/api/auth/example", headers=PAGE)
    back = await come_back(browser, await openid_provider.sign_in(away.headers["Location"], "ada"), PAGE)

    assert back.headers["Location"] == APP


async def test_saying_no_at_the_provider_is_a_clean_refusal(visiting, openid_provider):
    browser = await visiting(openid_provider)

    denied = await come_back(
        browser, await openid_provider.sign_in(await leave(browser, "example"), "ada", consent=False)
    )
    away = await browser("GET", "/api/auth/example", params={"redirectTo": "/login"}, headers=PAGE)
    callback = await openid_provider.sign_in(away.headers["Location"], "ada", consent=False)
    denied_person = await come_back(browser, callback, PAGE)

    assert (denied.status, denied.code) == (403, "OAUTH_DENIED")
    assert denied_person.headers["Location"] == f"{APP}/login?error=OAUTH_DENIED"
    assert (await browser("GET", "/api/auth/me")).code == "NO_TOKEN"


async def test_every_departure_has_its_own_state_challenge_and_nonce(visiting, openid_provider):
    browser = await visiting(openid_provider)

    asked = [query_of(await leave(browser, "example")) for _ in range(3)]

    for name in ("state", "code_challenge", "nonce"):
        assert len({one[name] for one in asked}) == 3
        assert all(len(one[name]) >= 32 for one in asked)
    assert {one["code_challenge_method"] for one in asked} == {"S256"}
    assert {one["response_type"] for one in asked} == {"code"}
    assert {one["scope"] for one in asked} == {"openid email profile"}


async def test_the_provider_insists_on_the_challenge_and_the_nonce_that_we_send(visiting, openid_provider):
    browser = await visiting(openid_provider)

    bare = (await leave(browser, "example")).replace("code_challenge", "dropped")
    refused = await come_back(browser, await openid_provider.sign_in(bare, "ada"))
    without_nonce = (await leave(browser, "example")).replace("nonce=", "dropped=")

    assert query_of(await openid_provider.sign_in(bare, "ada"))["error"] == "invalid_request"
    assert refused.code == "OAUTH_EXCHANGE_FAILED"
    async with browser.client.session.get(without_nonce) as response:
        assert response.status == 400


async def test_a_code_of_another_flow_is_refused_by_the_challenge(visiting, openid_provider, serving):
    """An attacker who injects a stolen code into a flow of their own has not its verifier (RFC 9700, 4.5)."""
    victim = await visiting(openid_provider)
    attacker = await serving(at=victim)
    stolen = await openid_provider.sign_in(await leave(victim, "example"), "ada")
    own = await openid_provider.sign_in(await leave(attacker, "example"), "bob")

    injected = await come_back(attacker, own.replace(query_of(own)["code"], query_of(stolen)["code"]))

    assert injected.code == "OAUTH_EXCHANGE_FAILED"
    assert (await attacker("GET", "/api/auth/me")).code == "NO_TOKEN"


async def test_an_answer_that_names_another_issuer_makes_no_call(visiting, openid_provider):
    """RFC 9207: the provider says who it is, so leaving that out is as wrong as another name."""
    browser = await visiting(openid_provider)
    for bend in (
        lambda callback: callback.replace("iss=", "iss=https%3A%2F%2Fevil.example&was="),
        lambda callback: callback.replace("iss=", "was="),
    ):
        callback = await openid_provider.sign_in(await leave(browser, "example"), "ada")
        before = openid_provider.called_by_us

        mixed_up = await come_back(browser, bend(callback))

        assert mixed_up.code == "OAUTH_STATE_INVALID"
        assert openid_provider.called_by_us == before


async def test_a_rotated_key_is_followed_but_looked_for_once_a_minute(visiting, openid_provider):
    browser = await visiting(openid_provider)
    before = openid_provider.calls("/jwks")
    assert (await enter(browser, openid_provider)).status == 200
    assert (await enter(browser, openid_provider)).status == 200
    assert openid_provider.calls("/jwks") == before + 1

    openid_provider.rotate()
    assert (await enter(browser, openid_provider)).status == 200
    assert openid_provider.calls("/jwks") == before + 2

    openid_provider.rotate()
    assert (await enter(browser, openid_provider)).code == "OAUTH_EXCHANGE_FAILED"
    assert (await enter(browser, openid_provider)).code == "OAUTH_EXCHANGE_FAILED"
    assert openid_provider.calls("/jwks") == before + 2


async def test_the_metadata_is_asked_for_once(visiting, openid_provider):
    browser = await visiting(openid_provider)
    before = openid_provider.calls("/.well-known/openid-configuration")

    for _ in range(3):
        await leave(browser, "example")

    assert openid_provider.calls("/.well-known/openid-configuration") == before + 1


async def test_the_email_comes_from_userinfo_where_the_id_token_has_none(visiting, openid_provider):
    browser = await visiting(openid_provider)
    before = openid_provider.calls("/me")

    signed = await enter(browser, openid_provider, "bob")

    assert signed.json["user"]["email"] == "bob@example.org"
    assert openid_provider.calls("/me") == before + 1


async def test_a_provider_without_a_verified_email_makes_no_account(visiting, openid_provider):
    browser = await visiting(openid_provider)

    assert (await enter(browser, openid_provider, "nameless")).code == "OAUTH_EMAIL_UNVERIFIED"
    assert (await enter(browser, openid_provider, "unverified")).code == "OAUTH_EMAIL_UNVERIFIED"


async def test_the_list_of_providers_says_where_to_start(visiting, openid_provider):
    browser = await visiting(openid_provider, OIDC_EXAMPLE_DISPLAY_NAME="Example & Sons")

    listed = await browser("GET", "/api/auth/providers", headers=JSON)

    start = "http://localhost:8000/api/auth/example"
    assert listed.json == {"providers": [{"name": "example", "displayName": "Example & Sons", "startUrl": start}]}
