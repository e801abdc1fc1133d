"""What attackers do to access tokens (RFC 8725): every one of these is a plain 401, and no work for Redis."""

import asyncio
import base64
import hashlib
import hmac
import json
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import orjson
import pytest
import time_machine
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from service import metrics
from service.app import assemble, look_after, make_app
from service.parts import Parts
from service.serving import LARGEST_HEADER
from service.store import Single
from tests.conftest import Answer, Browser, Served, cheap_passwords, settings_for

TOKEN_MODE = {"X-Auth-Mode": "token"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Ada:
    """A person with a good access token, and our own signing key to forge others with."""

    browser: Browser
    parts: Parts
    token: str

    @property
    def header(self) -> dict[str, Any]:
        return json.loads(unb64(self.token.split(".")[0]))

    @property
    def claims(self) -> dict[str, Any]:
        return json.loads(unb64(self.token.split(".")[1]))

    def signed(self, payload: dict[str, Any] | bytes | None = None, header: dict[str, Any] | None = None) -> str:
        """A token with our real signature under whatever it says."""
        payload = self.claims if payload is None else payload
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        head = b64(json.dumps(header, separators=(",", ":")).encode()) if header else self.token.split(".")[0]
        message = f"{head}.{b64(body)}"
        key = self.parts.keys.signing()
        return f"{message}.{b64(jwt.get_algorithm_by_name(key.algorithm).sign(message.encode(), key.private))}"

    async def me(self, token: str) -> Answer:
        return await self.browser("GET", "/api/auth/me", headers={"Authorization": f"Bearer {token}"})

    async def is_refused(self, token: str, code: str = "INVALID_TOKEN") -> None:
        answer = await self.me(token)
        assert (answer.status, answer.code) == (401, code), token[:300]
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="gatepost", error="invalid_token"')
        assert "traceback" not in answer.body.decode().lower()


async def meet(browser: Browser, parts: Parts) -> Ada:
    registered = await browser.register(headers=TOKEN_MODE)
    return Ada(browser, parts, registered.json["accessToken"])


@pytest.fixture
async def ada(browser: Browser, parts: Parts) -> Ada:
    return await meet(browser, parts)


@pytest.fixture
async def roomy(parts: Parts) -> AsyncIterator[Ada]:
    """Ada at an instance that takes headers as long as `service.serving` does."""
    server = Served(make_app(parts))
    await server.start_server(max_field_size=LARGEST_HEADER, max_line_size=LARGEST_HEADER)
    async with TestClient(server) as client:
        yield await meet(Browser(client), parts)


async def test_a_token_forged_with_our_own_key_is_as_good_as_ours(ada):
    """The other tests would prove nothing if this were refused."""
    assert (await ada.me(ada.signed())).status == 200
    assert ada.token.split(".")[0] == ada.signed(header=ada.header).split(".")[0]


@pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
async def test_no_spelling_of_none_is_an_algorithm(serving, assembling, algorithm):
    parts = await assembling(JWT_ALGORITHM=algorithm)
    ada = await meet(await serving(parts), parts)
    signature = ada.token.split(".")[2]

    for spelling in ("none", "None", "NONE", "nOnE", "none ", "", None, "null", "false", 0, ["none"]):
        head = b64(json.dumps({**ada.header, "alg": spelling}).encode())
        for end in (".", "", f".{signature}", "..", ".."):
            await ada.is_refused(f"{head}.{ada.token.split('.')[1]}{end}")


async def test_an_empty_or_foreign_signature_is_refused(ada):
    head, body, signature = ada.token.split(".")
    stranger = ec.generate_private_key(ec.SECP256R1())
    foreign = jwt.get_algorithm_by_name("ES256").sign(f"{head}.{body}".encode(), stranger)

    for end in ("", ".", "." + "A" * 86, "." + b64(bytes(64)), "." + b64(b"\xff" * 64), "." + signature[:-4],
                "." + signature * 2, "." + b64(foreign)):  # fmt: skip
        await ada.is_refused(f"{head}.{body}{end}")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_the_public_key_is_no_hmac_secret(serving, assembling, algorithm):
    parts = await assembling(JWT_ALGORITHM=algorithm)
    ada = await meet(await serving(parts), parts)
    public, (jwk,) = parts.keys.signing().public, parts.keys.jwks()["keys"]
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, spki)
    secrets = [
        pem,
        pem.strip(),
        pem.replace(b"\n", b"\r\n"),
        public.public_bytes(serialization.Encoding.DER, spki),
        json.dumps(jwk).encode(),
        orjson.dumps(jwk, option=orjson.OPT_SORT_KEYS),
        jwk["kid"].encode(),
        b"",
    ]

    for secret in secrets:
        for hs in ("HS256", "HS384", "HS512"):
            for head in ({**ada.header, "alg": hs}, {"alg": hs, "typ": "JWT"}, ada.header):
                message = f"{b64(json.dumps(head, separators=(',', ':')).encode())}.{ada.token.split('.')[1]}"
                mac = hmac.digest(secret, message.encode(), getattr(hashlib, "sha" + hs[2:]))
                await ada.is_refused(f"{message}.{b64(mac)}")


@pytest.mark.parametrize("algorithm", ["ES384", "ES512", "PS256", "RS256", "EdDSA", "HS256", "es256", "ES256K"])
async def test_another_algorithm_than_ours_is_refused_whatever_signed_it(ada, algorithm):
    await ada.is_refused(ada.signed(header={**ada.header, "alg": algorithm}))


async def test_keys_named_in_a_header_are_neither_used_nor_fetched(ada):
    calls = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response({"keys": [own]})

    trap = web.Application()
    trap.router.add_route("*", "/{any:.*}", count)
    server = TestServer(trap)
    await server.start_server()
    key = ec.generate_private_key(ec.SECP256R1())
    own = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": ada.header["kid"]}
    url = str(server.make_url("/keys"))

    for extra in ({"jwk": own}, {"jku": url}, {"x5u": url}, {"x5c": ["MIIB"]}, {"x5t": "A"}, {"jku": url, "kid": url},
                  {"jwk": own, "kid": "mine"}, {"x5t#S256": "A"}):  # fmt: skip
        head = {**ada.header, **extra}
        message = f"{b64(json.dumps(head).encode())}.{ada.token.split('.')[1]}"
        await ada.is_refused(f"{message}.{b64(jwt.get_algorithm_by_name('ES256').sign(message.encode(), key))}")
        await ada.is_refused(ada.signed(header=head))
    await asyncio.sleep(0.05)
    await server.close()

    assert calls == 0


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
        {"unknown": "member"},
    ],
    ids=str,
)
async def test_a_header_with_anything_more_than_ours_is_refused(ada, extra):
    await ada.is_refused(ada.signed(header={**ada.header, **extra}))


async def test_an_odd_kid_is_refused(ada):
    odd = ("", " ", "../../../dev/null", "/etc/passwd", "' OR 1=1 --", "a\0b", 1, 1.5, None, True, [], {}, ["x"],
           "*", "signing-keys", ada.header["kid"] + "=", ada.header["kid"].swapcase(), "x" * 2000)  # fmt: skip
    for kid in odd:
        await ada.is_refused(ada.signed(header={**ada.header, "kid": kid}))
    without = {name: value for name, value in ada.header.items() if name != "kid"}
    await ada.is_refused(ada.signed(header=without))


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "at+JWT", "AT+JWT", "application/at+jwt", "id+jwt", "ott+jwt", "logout+jwt", "", None, 1]
)
async def test_only_at_jwt_is_an_access_token(ada, typ):
    await ada.is_refused(ada.signed(header={**ada.header, "typ": typ}))


@pytest.mark.parametrize("kind", ["refresh", "id", "verify-email", "password-reset", "pending", "Access", "", None])
async def test_a_token_of_another_type_is_no_access_token(ada, kind):
    await ada.is_refused(ada.signed({**ada.claims, "type": kind}))


async def test_a_refresh_token_is_no_access_token_and_the_other_way_round(browser, parts):
    signed = (await browser.register(headers=TOKEN_MODE)).json
    ada = Ada(browser, parts, signed["accessToken"])

    await ada.is_refused(signed["refreshToken"])
    swapped = await browser("POST", "/api/auth/refresh", {"refreshToken": signed["accessToken"]})
    assert (swapped.status, swapped.code) == (401, "INVALID_REFRESH_TOKEN")


CLAIMS = ("iss", "aud", "exp", "iat", "sub", "jti", "sid", "type", "ver", "email", "roles", "permissions", "amr",
          "auth_time")  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
async def test_every_claim_is_needed(ada, claim):
    await ada.is_refused(ada.signed({name: value for name, value in ada.claims.items() if name != claim}))


@pytest.mark.parametrize("claim", CLAIMS)
async def test_every_claim_has_its_type(ada, claim):
    value = ada.claims[claim]
    wrong = [None, True, 1.5, {}, {"a": 1}, [value], [[value]]]
    wrong += ["", "x"] if claim != "email" else []
    wrong += [str(value), float(value)] if isinstance(value, int) else [7, [1], [None], ["a", {}]]

    for other in wrong:
        await ada.is_refused(ada.signed({**ada.claims, claim: other}))


@pytest.mark.parametrize("claim", ["exp", "iat", "auth_time", "ver"])
async def test_a_number_that_is_no_time_is_refused_and_breaks_nothing(ada, claim):
    odd = ("9999999999", 9999999999.5, float("inf"), -float("inf"), float("nan"), 1e308, 10**308, 10**400, 2**63,
           -1, -(10**400), "Infinity", "1e308", False)  # fmt: skip
    for value in odd:
        await ada.is_refused(ada.signed({**ada.claims, claim: value}))


async def test_another_issuer_or_audience_is_refused(ada):
    ours = ada.claims["iss"]
    for other in (ours + "/", ours.upper(), "https://evil.example", "", ours + "\0", " " + ours):
        await ada.is_refused(ada.signed({**ada.claims, "iss": other}))
        await ada.is_refused(ada.signed({**ada.claims, "aud": other}))
    await ada.is_refused(ada.signed({**ada.claims, "aud": [ours]}))


async def test_ids_that_are_none_are_refused(ada):
    for claim in ("sub", "sid", "jti"):
        for odd in ("*", "epoch", "-" + ada.claims["jti"], ada.claims[claim][:-1], ada.claims[claim] + "A", "a}b{c",
                    "A" * 21 + "\n", "ä" * 22):  # fmt: skip
            await ada.is_refused(ada.signed({**ada.claims, claim: odd}))


async def test_a_payload_that_is_no_object_is_refused(ada):
    for payload in (b"null", b"[]", b'"text"', b"1", b"{", b"\xff\xfe", b"[" * 5000, b'{"a":' * 1000, b"9" * 5000):
        await ada.is_refused(ada.signed(payload))


async def test_tokens_of_another_installation_are_refused(serving, assembling):
    parts = await assembling(JWT_ALGORITHM="HS256")
    ada = await meet(await serving(parts), parts)
    stranger = await assembling(JWT_ALGORITHM="HS256", AUTH_SECRET="somebody else's secret: d91c77ab12ef")

    await ada.is_refused(Ada(ada.browser, stranger, ada.token).signed())


async def test_the_clock_is_given_its_tolerance_both_ways_and_no_more(ada):
    now = int(ada.parts.clock.now())

    assert (await ada.me(ada.signed({**ada.claims, "exp": now - 5}))).status == 200
    assert (await ada.me(ada.signed({**ada.claims, "iat": now + 8}))).status == 200
    await ada.is_refused(ada.signed({**ada.claims, "exp": now - 11}), "TOKEN_EXPIRED")
    await ada.is_refused(ada.signed({**ada.claims, "iat": now + 60}))
    await ada.is_refused(ada.signed({**ada.claims, "exp": 0}), "TOKEN_EXPIRED")


async def test_a_token_expires(browser, parts, later):
    ada = await meet(browser, parts)
    old = ada.signed({**ada.claims, "exp": int(parts.clock.now()) - 60})

    await ada.is_refused(old, "TOKEN_EXPIRED")
    await ada.is_refused(old, "TOKEN_EXPIRED")  # whose signature is remembered by now


async def test_instances_agree_on_the_time_however_far_apart_their_clocks_are(serving, connecting_for_real):
    async def started() -> Parts:
        its = assemble(settings_for(), Single(connecting_for_real()), cheap_passwords())
        await look_after(its)
        return its

    right = await started()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        ahead = await started()
        there = await meet(await serving(ahead), ahead)
    here = Ada(await serving(right), right, there.token)

    for one in (here, there):
        assert (await one.me(there.token)).status == 200
        await one.is_refused(one.signed({**there.claims, "exp": there.claims["iat"] - 60}), "TOKEN_EXPIRED")
        await one.is_refused(one.signed({**there.claims, "iat": there.claims["iat"] + 3600}))


async def test_a_token_in_a_query_string_or_a_body_is_nothing(ada):
    for name in ("access_token", "accessToken", "token", "bearer_token", "Authorization", "jwt"):
        answer = await ada.browser("GET", f"/api/auth/me?{name}={ada.token}")
        assert (answer.status, answer.code) == (401, "NO_TOKEN")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="gatepost"'
    form = await ada.browser("POST", "/api/auth/logout-all", data={"access_token": ada.token})
    assert form.code == "NO_TOKEN"


async def test_a_token_of_more_than_8_kb_is_refused_before_it_is_looked_at(roomy):
    head, body, signature = roomy.token.split(".")

    await roomy.is_refused(roomy.signed({**roomy.claims, "padding": "x" * 8192}))
    await roomy.is_refused(roomy.signed(header={**roomy.header, "kid": "k" * 10_000}))
    await roomy.is_refused(f"{head}.{body}.{signature}{'A' * 9000}")
    await roomy.is_refused("." * 9000)
    await roomy.is_refused("A" * 12_000)
    assert (await roomy.me(roomy.signed({**roomy.claims, "padding": "x" * 3000}))).status == 200


async def test_other_serialisations_are_refused(ada):
    head, body, signature = ada.token.split(".")
    flattened = {"protected": head, "payload": body, "signature": signature}
    general = {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
    jwe = b64(b'{"alg":"dir","enc":"A256GCM"}')

    for text in (json.dumps(flattened), json.dumps(general), f"{jwe}..AAAA.BBBB.CCCC", f"{jwe}.A.B.C.D",
                 b64(json.dumps(flattened).encode()), f"{head}.{body}.{signature}.{signature}", f"{head}..{signature}",
                 "undefined", "null", "[object Object]", "a.b.c", "...", "..", "-", "é.é.é"):  # fmt: skip
        await ada.is_refused(text)


def other_spellings(token: str) -> list[str]:
    head, body, signature = token.split(".")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(signature[-1])
    r, s = unb64(signature)[:32], int.from_bytes(unb64(signature)[32:], "big")
    twin = b64(r + (P256_ORDER - s).to_bytes(32, "big"))
    der = utils.encode_dss_signature(int.from_bytes(r, "big"), s)
    return [
        f"{head}.{body}.{twin}",
        f"{head}.{body}.{b64(der)}",
        *(f"{head}.{body}.{signature[:-1]}{alphabet[last ^ bits]}" for bits in range(1, 16)),
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature}==",
        f"{head}.{body}=.{signature}",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature.replace('-', '+').replace('_', '/')}=",
        f"{head}. {body}.{signature}",
        f"{head}.{body}.{signature[:40]} {signature[40:]}",
        f"  {token}  ",
        f"\t{token}",
        f'"{token}"',
        f"{token},",
        f"{token}.",
        f"{head}.{body}.{signature[:40]}\t{signature[40:]}",
        f"{head}.{body}.{signature[:40]}%2D{signature[40:]}",
        f"{head}.{b64(unb64(body) + b' ')}.{signature}",
        f"{b64(b' ' + unb64(head))}.{body}.{signature}",
    ]


async def test_another_spelling_of_a_token_meets_the_same_revocation(ada):
    spellings = other_spellings(ada.token)
    before = [(await ada.me(spelling)).status for spelling in spellings]
    assert (await ada.me(ada.token)).status == 200

    signed_out = await ada.browser("POST", "/api/auth/logout", headers={"Authorization": f"Bearer {ada.token}"})

    assert signed_out.status == 204
    assert set(before) <= {200, 401}
    for spelling in (ada.token, *spellings):
        answer = await ada.me(spelling)
        assert (answer.status, answer.code) in {(401, "TOKEN_REVOKED"), (401, "INVALID_TOKEN")}, spelling


async def test_signing_out_with_another_spelling_ends_the_session_too(ada):
    twin = other_spellings(ada.token)[0]
    known = (await ada.me(twin)).status == 200

    await ada.browser("POST", "/api/auth/logout", headers={"Authorization": f"Bearer {twin}"})

    assert (await ada.me(ada.token)).status == (401 if known else 200)


async def test_a_good_token_does_not_vouch_for_a_forged_one_with_the_same_words(ada):
    head, body, signature = ada.token.split(".")
    assert (await ada.me(ada.token)).status == 200

    await ada.is_refused(f"{head}.{body}.{signature[:-10]}{'A' * 10}")
    promoted = b64(json.dumps({**ada.claims, "roles": ["admin"]}).encode())
    await ada.is_refused(f"{head}.{promoted}.{signature}")
    assert (await ada.me(ada.token)).status == 200


async def test_every_access_token_has_its_own_jti_and_a_lifetime_shortened_by_chance(browser):
    signed = (await browser.register(headers=TOKEN_MODE)).json
    again = {"refreshToken": signed["refreshToken"]}
    answers = [signed, *[(await browser("POST", "/api/auth/refresh", again)).json for _ in range(30)]]

    claims = [jwt.decode(answer["accessToken"], options={"verify_signature": False}) for answer in answers]
    lifetimes = {said["exp"] - said["iat"] for said in claims}
    assert len({said["jti"] for said in claims}) == len(answers)
    assert len({said["sid"] for said in claims}) == 1
    assert [answer["expiresIn"] for answer in answers] == [said["exp"] - said["iat"] for said in claims]
    assert 855 <= min(lifetimes) < max(lifetimes) <= 900


async def test_a_token_says_what_the_contract_lists_and_no_more(ada):
    assert set(ada.header) == {"alg", "kid", "typ"}
    assert (ada.header["alg"], ada.header["typ"]) == ("ES256", "at+jwt")
    assert set(ada.claims) == set(CLAIMS)
    assert ada.claims["iss"] == ada.claims["aud"] == "http://localhost:8000"
    assert (ada.claims["email"], ada.claims["roles"], ada.claims["amr"]) == ("ada@example.org", ["user"], ["pwd"])


async def test_two_authorization_headers_are_refused(ada):
    for pair in ((ada.token, ada.token), (ada.token, "x"), ("x", ada.token)):
        headers = [("Authorization", f"Bearer {token}") for token in pair]
        async with ada.browser.client.request("GET", "/api/auth/me", headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json(content_type=None))["code"] == "INVALID_TOKEN"


async def test_the_scheme_has_no_case_and_a_bearer_without_a_token_is_invalid(ada):
    async def me(authorization: str) -> Answer:
        return await ada.browser("GET", "/api/auth/me", headers={"Authorization": authorization})

    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert (await me(f"{scheme} {ada.token}")).status == 200
    for empty in ("Bearer", "Bearer ", "bearer    "):
        assert (await me(empty)).code == "INVALID_TOKEN"
    for other in (f"Basic {ada.token}", ada.token, f"Token {ada.token}", f"Bearer:{ada.token}", ""):
        assert (await me(other)).code == "NO_TOKEN"


async def test_a_broken_header_is_not_replaced_by_a_good_cookie(browser):
    await browser.register()
    assert (await browser("GET", "/api/auth/me")).status == 200

    answer = await browser("GET", "/api/auth/me", headers={"Authorization": "Bearer broken"})

    assert answer.code == "INVALID_TOKEN"


async def test_garbage_in_the_cookie_is_refused_like_garbage_in_the_header(ada):
    for garbage in ("x", "a.b.c", ada.token[:-5], "%00", '"' + ada.token + '.x"'):
        answer = await ada.browser("GET", "/api/auth/me", headers={"Cookie": f"accessToken={garbage}"})
        assert (answer.status, answer.code) == (401, "INVALID_TOKEN")
    for empty in ("accessToken=", "accesstoken=" + ada.token, "__Host-accessToken=" + ada.token):
        answer = await ada.browser("GET", "/api/auth/me", headers={"Cookie": empty})
        assert (answer.status, answer.code) == (401, "NO_TOKEN")


def round_trips() -> float:
    """Round trips to Redis so far, of all that this process does."""
    name = "gatepost_redis_round_trip_duration_seconds_count"
    return metrics.REGISTRY.get_sample_value(name, {"kind": "single"}) or 0.0


async def test_garbage_costs_redis_nothing(serving, assembling):
    parts = await assembling()
    ada = await meet(await serving(parts), parts)
    head, body, signature = ada.token.split(".")
    garbage = [ada.signed(header={**ada.header, "kid": kid}) for kid in ("", "/etc/passwd", "' OR 1", 1, "x" * 500)]
    garbage += [f"{head}.{body}.{'A' * 86}", "a.b.c", "x", f"{head}.{body}.", ada.signed({**ada.claims, "exp": 1})]
    garbage += [ada.signed({**ada.claims, "aud": "x"}), signature, ada.signed(b"[]")]

    before = round_trips()
    for number in range(10):
        for token in garbage:
            assert (await ada.me(token)).status == 401
            refused = await ada.browser("POST", "/api/auth/refresh", {"refreshToken": f"rt_{token[:72]}"})
            assert refused.code == "INVALID_REFRESH_TOKEN", number
    upkeep = 12  # every five seconds an instance looks after its keys in three round trips

    assert round_trips() - before <= upkeep
    before = round_trips()
    assert (await ada.me(ada.token)).status == 200
    assert round_trips() > before
