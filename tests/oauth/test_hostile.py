"""Requirement 32 and the checks of an ID token: whatever a provider does ends in time, and lets nobody in."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import pytest
from structlog.testing import capture_logs

from service.oauth.providers import openid
from tests.faults.stopwatch import Stopwatch
from tests.oauth import mischief
from tests.oauth.conftest import APP, JSON, PAGE, come_back, enter, leave, make_account, query_of
from tests.oauth.hostile import ABSENT, CLIENT_SECRET, DISCOVERY, JWKS, TOKEN, USERINFO, Key
from tests.oauth.mischief import MB, SLOW, UNUSABLE, WRONG, an_error, failing, silent

WITHIN = 6.0  # seconds for an answer, whatever the provider does
MEANWHILE = 2.0  # seconds for everybody else; far below what one would wait for a provider, on a busy machine too


@pytest.fixture
def connecting(connecting_for_real):
    """What a provider does has nothing to do with Redis: once is enough."""
    return connecting_for_real


def part(content) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def hs256(claims, secret: bytes, **header) -> str:
    """Signed by hand: a library would refuse a public key as a secret."""
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', **header})}.{part(claims)}"
    mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def public_pem(key: Key) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


NOW = int(time.time())
ELSEWHERE = "https://accounts.evil.example"

BAD_CLAIMS = {
    "another issuer": {"iss": ELSEWHERE},
    "no issuer": {"iss": ABSENT},
    "a list of issuers": {"iss": [ELSEWHERE]},
    "for another client": {"aud": "somebody else"},
    "for no client": {"aud": ABSENT},
    "for nobody": {"aud": []},
    "for others too, without azp": {"aud": ["gatepost at hostile", "somebody else"]},
    "authorized for another": {"azp": "somebody else"},
    "authorized for nobody": {"azp": None},
    "expired": {"exp": NOW - 120},
    "without an end": {"exp": ABSENT},
    "an end in words": {"exp": str(NOW + 300)},
    "an end that is true": {"exp": True},
    "an end that is no number": {"exp": float("nan")},
    "issued tomorrow": {"iat": NOW + 86400},
    "never issued": {"iat": ABSENT},
    "issued in words": {"iat": "now"},
    "not yet good": {"nbf": NOW + 86400},
    "good from a word on": {"nbf": "tomorrow"},
    "another nonce": {"nonce": "n-0S6_WzA2Mj"},
    "no nonce": {"nonce": ABSENT},
    "an empty nonce": {"nonce": ""},
    "a null nonce": {"nonce": None},
    "a number for a nonce": {"nonce": 7},
    "half a surrogate for a nonce": {"nonce": "\ud800"},
    "about nobody": {"sub": ABSENT},
    "about an empty name": {"sub": ""},
    "about a number": {"sub": 248289761001},
    "about a very long name": {"sub": "s" * 256},
    "about half a surrogate": {"sub": "\ud800"},
    "an email with half a surrogate": {"email": "ada\ud800@example.org"},
    "a name with half a surrogate": {"name": "\udfff"},
}

FORGERIES = {
    "alg none": lambda it, claims: f"{part({'alg': 'none'})}.{part(claims)}.",
    "alg None": lambda it, claims: f"{part({'alg': 'None', 'kid': it.key.kid})}.{part(claims)}.",
    "no alg": lambda it, claims: f"{part({'typ': 'JWT'})}.{part(claims)}.",
    "HS256 with the client's secret": lambda it, claims: hs256(claims, CLIENT_SECRET.encode()),
    "HS256 with the public PEM": lambda it, claims: hs256(claims, public_pem(it.key), kid=it.key.kid),
    "HS256 with the public JWK": lambda it, claims: hs256(claims, json.dumps(it.key.jwk).encode(), kid=it.key.kid),
    "another key by the same name": lambda it, claims: Key().sign(claims, kid=it.key.kid),
    "another key with its own name": lambda it, claims: Key().sign(claims),
    "another key in the header": lambda it, claims: (key := Key()).sign(claims, jwk=key.jwk, jku=it.issuer + "/evil"),
    "another kind of key by the same name": lambda it, claims: Key("RS256").sign(claims, kid=it.key.kid),
    "a number for a kid": lambda it, claims: f"{part({'alg': 'ES256', 'kid': 7})}.{part(claims)}.AAAA",
    "no signature": lambda it, claims: it.key.sign(claims).rpartition(".")[0] + ".",
    "half a signature": lambda it, claims: it.key.sign(claims)[:-20],
    "other claims than were signed": lambda it, claims: ".".join(
        [(token := it.key.sign(claims).split("."))[0], part({**claims, "sub": "another"}), token[2]]
    ),
    "an encrypted token": lambda it, claims: ".".join([part({"alg": "RSA-OAEP", "enc": "A256GCM"}), *["AAAA"] * 4]),
    "an empty token": lambda it, claims: "",
    "no token": lambda it, claims: ABSENT,
    "a number": lambda it, claims: 7,
    "an object": lambda it, claims: claims,
    "a list of claims": lambda it, claims: it.key.sign({}).split(".")[0] + "." + part([claims]) + ".AAAA",
    "dots": lambda it, claims: "..",
    "no Unicode": lambda it, claims: "\x00.\x00.\x00",
}


async def test_an_honest_provider_is_let_in(visiting, hostile):
    assert (await enter(await visiting(hostile), hostile)).status == 200


@pytest.mark.parametrize("claims", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
async def test_an_id_token_that_is_not_for_this_sign_in_is_refused(visiting, hostile, claims):
    hostile.claims = claims
    browser = await visiting(hostile)

    refused = await enter(browser, hostile)

    assert (refused.status, refused.code) == (400, "OAUTH_EXCHANGE_FAILED")
    assert not refused.cookies
    assert (await browser("GET", "/api/auth/me")).code == "NO_TOKEN"


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_an_id_token_that_the_provider_did_not_sign_is_refused(visiting, hostile, forge):
    browser = await visiting(hostile)
    assert (await enter(browser, hostile)).status == 200
    hostile.write = lambda claims: forge(hostile, claims)
    hostile.tokens = {"id_token": ABSENT} if forge(hostile, {}) is ABSENT else {}
    if hostile.tokens:
        hostile.write = lambda claims: ""

    refused = await enter(browser, hostile)

    assert (refused.status, refused.code) == (400, "OAUTH_EXCHANGE_FAILED")
    assert hostile.calls["/evil"] == 0


async def test_an_algorithm_that_the_provider_does_not_announce_is_refused(visiting, hostile):
    hostile.metadata = {"id_token_signing_alg_values_supported": ["RS256"]}

    assert (await enter(await visiting(hostile), hostile)).code == "OAUTH_EXCHANGE_FAILED"


@pytest.mark.parametrize("announced", [["HS256"], ["none", "HS256"], [], "ES256", [None]])
async def test_a_provider_that_announces_no_good_algorithm_signs_nobody_in(visiting, hostile, announced):
    hostile.metadata = {"id_token_signing_alg_values_supported": announced}
    hostile.write = lambda claims: hs256(claims, CLIENT_SECRET.encode())

    assert (await enter(await visiting(hostile), hostile)).code == "OAUTH_EXCHANGE_FAILED"


@pytest.mark.parametrize(
    "claims",
    [
        lambda now: {"aud": ["gatepost at hostile"]},
        lambda now: {"aud": ["gatepost at hostile", "somebody else"], "azp": "gatepost at hostile"},
        lambda now: {"exp": now - 20, "iat": now - 320},
        lambda now: {"iat": now + 20, "nbf": now + 20},
        lambda now: {"exp": now + 3000.5},
        lambda now: {"email_verified": "true"},
    ],
    ids=["one audience in a list", "authorized for us", "a slow clock", "a fast clock", "a fraction", "a word"],
)
async def test_what_good_providers_do_is_accepted(visiting, hostile, claims):
    hostile.claims = claims(int(time.time()))

    assert (await enter(await visiting(hostile), hostile)).status == 200


async def test_a_single_key_needs_no_name_but_one_of_several_does(visiting, hostile):
    browser = await visiting(hostile)
    hostile.write = lambda claims: hostile.key.sign(claims, kid=ABSENT)
    assert (await enter(browser, hostile)).status == 200

    hostile.keys = [Key(), hostile.key]
    assert (await enter(await visiting(hostile), hostile)).code == "OAUTH_EXCHANGE_FAILED"


async def test_keys_of_unknown_kinds_do_not_hide_the_good_one(visiting, hostile):
    class Odd:
        def __init__(self, jwk):
            self.jwk = jwk

    odd = [{}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-9"}, None, "key", {"kid": []}]
    encryption = {**hostile.key.jwk, "use": "enc"}
    hostile.keys = [*map(Odd, odd), Odd(encryption), Key("RS256"), hostile.key]

    assert (await enter(await visiting(hostile), hostile)).status == 200


async def test_userinfo_about_another_person_does_not_count(visiting, hostile):
    hostile.claims = {"email": ABSENT}
    browser = await visiting(hostile)
    for told in ({"sub": "another"}, {"sub": ABSENT}, {"sub": 248289761001}):
        hostile.userinfo = told
        assert (await enter(browser, hostile)).code == "OAUTH_EXCHANGE_FAILED"

    hostile.userinfo = {}
    assert (await enter(browser, hostile)).status == 200


async def test_what_userinfo_says_does_not_overrule_the_id_token(visiting, hostile):
    hostile.claims = {"email": ABSENT, "name": "Ada, signed"}
    hostile.userinfo = {"name": "Eve", "iss": ELSEWHERE}

    assert (await enter(await visiting(hostile), hostile)).json["user"]["name"] == "Ada, signed"


async def test_a_header_hidden_in_the_providers_token_goes_nowhere(visiting, hostile):
    hostile.claims = {"email": ABSENT}
    hostile.tokens = {"access_token": "a\r\nHost: evil.example"}

    refused = await enter(await visiting(hostile), hostile)

    assert refused.status in (400, 502)
    assert hostile.calls[USERINFO] == 0


async def test_the_client_shows_its_secret_as_the_provider_wants_it(visiting, hostile):
    await enter(await visiting(hostile), hostile)
    hostile.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await enter(await visiting(hostile), hostile)
    await enter(await visiting(hostile, OIDC_HOSTILE_CLIENT_SECRET=""), hostile)

    basic, post, public = hostile.exchanged
    pair = "gatepost%20at%20hostile:" + CLIENT_SECRET.replace(" ", "%20")
    assert basic["Authorization"] == "Basic " + base64.b64encode(pair.encode()).decode()
    assert "client_secret" not in basic
    assert (post["Authorization"], post["client_id"], post["client_secret"]) == ("", hostile.client_id, CLIENT_SECRET)
    assert (public["Authorization"], public["client_id"]) == ("", hostile.client_id)
    assert "client_secret" not in public
    assert all(len(one["code_verifier"]) >= 43 for one in hostile.exchanged)


# Two instances: the one that a person comes back to has never spoken with the provider.


async def returning_elsewhere(browser, other, callback):
    """Come back to another instance, with the cookie of the browser that left."""
    return await come_back(other, callback, {**JSON, "Cookie": f"browser={browser.cookies()['browser']}"})


async def test_a_person_may_come_back_to_another_instance(visiting, hostile):
    one, other = await visiting(hostile), await visiting(hostile)
    callback = hostile.come_back(await leave(one, "hostile"))

    assert (await returning_elsewhere(one, other, callback)).status == 200
    assert (await returning_elsewhere(one, other, callback)).code == "OAUTH_STATE_INVALID"


async def test_another_instance_finds_out_that_the_issuer_is_missing(visiting, hostile):
    """RFC 9207: a provider that says it names itself must; the code is not sent anywhere without it."""
    hostile.metadata = {"authorization_response_iss_parameter_supported": True}
    one, other = await visiting(hostile), await visiting(hostile)

    silently = await returning_elsewhere(one, other, hostile.come_back(await leave(one, "hostile")))
    wrongly = await come_back(one, hostile.come_back(await leave(one, "hostile"), iss=ELSEWHERE))
    rightly = await come_back(one, hostile.come_back(await leave(one, "hostile"), iss=hostile.issuer))

    assert (silently.code, wrongly.code) == ("OAUTH_EXCHANGE_FAILED", "OAUTH_STATE_INVALID")
    assert rightly.status == 200
    assert hostile.calls[TOKEN] == 1


# Discovery.


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": ELSEWHERE},
        {"issuer": ABSENT},
        {"token_endpoint": ABSENT},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "/token"},
        {"token_endpoint": ["http://127.0.0.1/token"]},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "//evil.example/authorize"},
    ],
)
async def test_metadata_that_cannot_be_right_is_not_used(visiting, hostile, metadata):
    hostile.metadata = metadata
    browser = await visiting(hostile)

    refused = await browser("GET", "/api/auth/hostile", headers=JSON)

    assert (refused.status, refused.code) == (502, "PROVIDER_UNAVAILABLE")
    assert hostile.calls.total() == 1


async def test_endpoints_may_be_on_other_hosts_as_those_of_google_are(visiting, hostile, making_hostile):
    other = await making_hostile("other")
    other.key, other.keys = hostile.key, hostile.keys
    hostile.metadata = {"jwks_uri": other.issuer + JWKS}

    assert (await enter(await visiting(hostile), hostile)).status == 200
    assert (hostile.calls[JWKS], other.calls[JWKS]) == (0, 1)


async def test_an_authorization_endpoint_keeps_its_own_query(visiting, hostile):
    hostile.metadata = {"authorization_endpoint": hostile.issuer + "/authorize?tenant=7"}

    auth_url = await leave(await visiting(hostile), "hostile")

    assert query_of(auth_url)["tenant"] == "7"
    assert query_of(auth_url)["client_id"] == hostile.client_id


async def test_the_last_good_metadata_and_keys_are_kept_while_the_provider_has_none(visiting, hostile, monkeypatch):
    monkeypatch.setattr(openid, "_DISCOVERY_LASTS", 0.0)
    browser = await visiting(hostile)
    assert (await enter(browser, hostile)).status == 200

    hostile.mischief = {DISCOVERY: failing, JWKS: failing}
    assert (await enter(browser, hostile)).status == 200
    asked = hostile.calls[DISCOVERY]
    assert (await enter(browser, hostile)).status == 200
    assert hostile.calls[DISCOVERY] == asked


@pytest.mark.parametrize("broken", [failing, mischief.an_array, mischief.page])
async def test_a_look_for_new_keys_that_fails_counts_as_one(visiting, hostile, broken):
    browser = await visiting(hostile)
    await enter(browser, hostile)
    old, unknown = hostile.key, Key()
    hostile.mischief = {JWKS: broken}
    hostile.key = unknown

    statuses = [(await enter(browser, hostile)).status for _ in range(4)]

    assert statuses[0] in (400, 502)
    assert statuses[1:] == [400] * 3
    assert hostile.calls[JWKS] == 2
    hostile.key = old
    assert (await enter(browser, hostile)).status == 200


async def test_a_provider_recovers_at_once_after_its_first_keys_could_not_be_had(visiting, hostile):
    browser = await visiting(hostile)
    hostile.mischief = {JWKS: failing}
    assert (await enter(browser, hostile)).status == 502
    hostile.mischief = {}

    assert (await enter(browser, hostile)).status == 200


# Requirement 32: answers that are no answers.


@pytest.mark.parametrize("place", [DISCOVERY, TOKEN, JWKS, USERINFO])
async def test_a_useless_answer_is_a_502_in_time(visiting, making_hostile, place):
    providers = [await making_hostile(f"p{number}") for number in range(len(UNUSABLE))]
    for provider, useless in zip(providers, UNUSABLE, strict=True):
        provider.mischief = {place: useless}
        provider.claims = {"email": ABSENT}
    browser = await visiting(*providers)

    for provider, useless in zip(providers, UNUSABLE, strict=True):
        answer, took = await timed(attempt(browser, provider))
        assert (answer.status, answer.code) == (502, "PROVIDER_UNAVAILABLE"), useless.__name__
        assert took < WITHIN
        assert provider.calls["/elsewhere"] == 0
        assert provider.calls[place] <= 2  # aiohttp asks once more where a connection broke
    assert mischief.sent[place] < 20 * MB


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_an_answer_to_another_question_lets_nobody_in(visiting, making_hostile, wrong):
    for place, status in ((DISCOVERY, 502), (TOKEN, 400), (JWKS, 502), (USERINFO, 400)):
        provider = await making_hostile()
        provider.mischief = {place: wrong}
        provider.claims = {"email": ABSENT}

        assert (await attempt(await visiting(provider), provider)).status == status, place


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("access_denied", "OAUTH_DENIED"),
        ("server_error", "PROVIDER_UNAVAILABLE"),
        ("temporarily_unavailable", "PROVIDER_UNAVAILABLE"),
        ("invalid_scope", "OAUTH_EXCHANGE_FAILED"),
        ("<script>", "OAUTH_EXCHANGE_FAILED"),
        ("", "OAUTH_EXCHANGE_FAILED"),
    ],
)
async def test_an_error_instead_of_a_code_has_a_name_of_ours_and_makes_no_call(visiting, hostile, error, code):
    """RFC 6749, section 4.1.2.1; an error counts even beside a code."""
    browser = await visiting(hostile)
    callback = hostile.come_back(await leave(browser, "hostile"), error=error, error_description="Evil words")

    refused = await come_back(browser, callback)

    assert refused.code == code
    assert b"Evil" not in refused.body
    assert hostile.calls[TOKEN] == 0


async def test_an_empty_set_of_keys_is_a_502(visiting, hostile):
    hostile.keys = []

    assert (await enter(await visiting(hostile), hostile)).status == 502


async def test_slow_providers_are_given_up_and_slow_nobody_down(visiting, making_hostile, serving):
    """Eight of them at once, each slow in another place or another way."""
    cases = [(place, slow) for place in (DISCOVERY, TOKEN, JWKS, USERINFO) for slow in SLOW]
    providers = [await making_hostile(f"p{number}") for number in range(len(cases))]
    for provider, (place, slow) in zip(providers, cases, strict=True):
        provider.mischief = {place: slow}
        provider.claims = {"email": ABSENT}
    browser = await visiting(*providers)
    bystander = await serving(at=browser)
    await make_account(bystander, "bystander@example.org")

    people = [await serving(at=browser) for _ in providers]

    answers, slowest = await meanwhile(
        bystander,
        *(timed(attempt(person, provider)) for person, provider in zip(people, providers, strict=True)),
    )

    for case, (answer, took) in zip(cases, answers, strict=True):
        assert (answer.status, answer.code) == (502, "PROVIDER_UNAVAILABLE"), case
        assert took < WITHIN, case
    assert slowest < MEANWHILE


async def test_many_people_at_slow_providers_do_not_fill_the_way_to_another(visiting, making_hostile, serving):
    """More people wait for one provider than it gets connections, and as many for what one of them asks for all."""
    slow = {place: await making_hostile(f"p{number}") for number, place in enumerate((DISCOVERY, JWKS, TOKEN))}
    good = await making_hostile("good")
    for place, provider in slow.items():
        provider.mischief = {place: silent}
    browser = await visiting(good, *slow.values())
    people = [(await serving(at=browser), provider) for provider in slow.values() for _ in range(20)]
    newcomer, bystander = await serving(at=browser), await serving(at=browser)
    await make_account(bystander, "bystander@example.org")

    async def good_one():
        await asyncio.sleep(0.5)
        return await enter(newcomer, good)

    answers, slowest = await meanwhile(
        bystander, timed(good_one()), *(timed(attempt(person, provider)) for person, provider in people)
    )

    (entered, took), *waited = answers
    assert entered.status == 200
    assert took < 4
    assert {answer.status for answer, _ in waited} == {502}
    assert max(took for _, took in waited) < WITHIN + 3  # sixty people in one process, beside other tests
    assert slowest < MEANWHILE


@pytest.mark.parametrize("path", ["/login/oauth/access_token", "/api/v3/user", "/api/v3/user/emails"])
async def test_a_useless_github_is_a_502_and_a_wrong_one_a_400(visiting, github, path):
    browser = await visiting(github)
    for useless in UNUSABLE:
        github.mischief = {path: useless}
        answer = await enter(browser, github, "ada-l")
        assert (answer.status, answer.code) == (502, "PROVIDER_UNAVAILABLE"), useless.__name__
    github.mischief = {path: an_error}
    assert (await enter(browser, github, "ada-l")).code == "OAUTH_EXCHANGE_FAILED"
    assert github.calls["/elsewhere"] == 0


async def test_a_slow_github_is_given_up_and_slows_nobody_down(visiting, github, serving):
    browser = await visiting(github)
    bystander = await serving(at=browser)
    await make_account(bystander, "bystander@example.org")
    callbacks = []
    for person in (people := [await serving(at=browser) for _ in range(2)]):
        callbacks.append(await github.sign_in(await leave(person, "github"), "ada-l"))
    github.mischief = {"/login/oauth/access_token": silent, "/api/v3/user": mischief.trickling}

    answers, slowest = await meanwhile(
        bystander,
        *(timed(come_back(person, callback)) for person, callback in zip(people, callbacks, strict=True)),
    )

    assert {answer.status for answer, _ in answers} == {502}
    assert max(took for _, took in answers) < WITHIN
    assert slowest < MEANWHILE


async def test_a_provider_that_is_not_there_is_a_502(visiting, hostile):
    browser = await visiting(hostile)
    await hostile.stop()

    assert (await browser("GET", "/api/auth/hostile", headers=JSON)).code == "PROVIDER_UNAVAILABLE"


async def test_a_person_is_sent_back_to_the_app_when_the_provider_fails(visiting, hostile):
    browser = await visiting(hostile)
    away = await browser("GET", "/api/auth/hostile", params={"redirectTo": "/login"}, headers=PAGE)
    hostile.mischief = {TOKEN: failing}

    back = await come_back(browser, hostile.come_back(away.headers["Location"]), PAGE)

    assert (back.status, back.headers["Location"]) == (302, f"{APP}/login?error=PROVIDER_UNAVAILABLE")


async def test_a_person_whose_provider_cannot_be_reached_stays_in_the_app(visiting, hostile):
    hostile.mischief = {DISCOVERY: failing}
    browser = await visiting(hostile)

    away = await browser("GET", "/api/auth/hostile", params={"redirectTo": "/login"}, headers=PAGE)

    assert (away.status, away.headers["Location"]) == (302, f"{APP}/login?error=PROVIDER_UNAVAILABLE")


async def test_what_is_logged_of_a_failing_provider_holds_no_secret(visiting, hostile):
    browser = await visiting(hostile)
    hostile.metadata = {"token_endpoint": hostile.issuer + TOKEN + "?key=in-the-query"}
    hostile.mischief = {TOKEN: failing}
    callback = hostile.come_back(await leave(browser, "hostile"))

    with capture_logs() as logged:
        await come_back(browser, callback)

    told = [line for line in logged if line["event"] == "oauth.provider_failed"]
    assert told[0]["url"] == hostile.issuer + TOKEN
    secrets = [query_of(callback)["code"], query_of(callback)["state"], CLIENT_SECRET, "in-the-query"]
    secrets.append(hostile.exchanged[0]["code_verifier"] if hostile.exchanged else "nothing")
    assert not [secret for secret in secrets if secret in str(logged)]


async def attempt(browser, provider):
    """Sign in as far as it goes; the answer to the last step."""
    started = await browser("GET", f"/api/auth/{provider.name}", headers=JSON)
    if started.status != 200:
        return started
    return await come_back(browser, provider.come_back(started.json["authUrl"]))


async def timed(work):
    """What comes of the work, and how long it took, in seconds; a busy machine's part left out."""
    async with Stopwatch() as watch:
        result = await work
    return result, watch.held


async def meanwhile(bystander, *work):
    """The results of the work, and the longest that a bystander waited for an answer while it went on."""
    everything = asyncio.gather(*work)
    slowest = 0.0
    while not everything.done():
        answer, took = await timed(bystander("GET", "/api/auth/verify"))
        assert answer.status == 200
        slowest = max(slowest, took)
        await asyncio.sleep(0.02)
    return await everything, slowest
