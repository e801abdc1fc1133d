"""The signing keys: shared, sealed, published by their public half, and put back when Redis forgets them."""

import asyncio
import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from service.accounts.user import User
from service.app import assemble, look_after
from service.errors import StoreUnavailable
from service.ids import new_id
from service.sessions.families import Family
from service.sessions.refresh_tokens import RefreshToken
from service.settings import SettingsError
from service.store import Single, reach
from service.tokens.access import AccessToken
from tests.conftest import Browser, cheap_passwords, gather, settings_for

TOKEN_MODE = {"X-Auth-Mode": "token"}
OLD, NEW = "the secret of last year 5b1f09ce77", "the secret of this year 90d2ab4411"
ASYMMETRIC = ["ES256", "RS256", "EdDSA"]
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


async def sign_up(browser: Browser, **kwargs: Any) -> dict[str, Any]:
    return (await browser.register(headers=TOKEN_MODE, **kwargs)).json


async def status_of(browser: Browser, token: str) -> tuple[int, str]:
    answer = await browser("GET", "/api/auth/me", headers={"Authorization": f"Bearer {token}"})
    return answer.status, "" if answer.status == 200 else answer.code


def pem_file(directory: Path, private: Any, form=serialization.PrivateFormat.PKCS8, password: bytes = b"") -> str:
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path = directory / "private.pem"
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, cipher))
    return str(path)


def public_file(directory: Path, private: Any) -> str:
    path = directory / "public.pem"
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return str(path)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_two_instances_that_start_at_once_share_one_key(assembling, serving, algorithm):
    one, two = await gather(assembling(JWT_ALGORITHM=algorithm), assembling(JWT_ALGORITHM=algorithm))
    here, there = await serving(one), await serving(two)

    signed = await sign_up(here)

    assert jwt.get_unverified_header(signed["accessToken"])["alg"] == algorithm
    assert await status_of(there, signed["accessToken"]) == (200, "")
    assert (await here("GET", "/.well-known/jwks.json")).json == (await there("GET", "/.well-known/jwks.json")).json
    refreshed = await there("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]})
    assert await status_of(here, refreshed.json["accessToken"]) == (200, "")


async def test_es256_is_the_default(browser):
    assert jwt.get_unverified_header((await sign_up(browser))["accessToken"])["alg"] == "ES256"


async def test_a_late_instance_signs_with_the_key_that_is_there(assembling, serving):
    first = await assembling()
    await look_after(first)
    late = await assembling()

    assert first.keys.signing().kid == late.keys.signing().kid


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_the_jwks_publishes_public_members_only(serving, algorithm):
    browser = await serving(JWT_ALGORITHM=algorithm)

    answer = await browser("GET", "/.well-known/jwks.json")

    (jwk,) = answer.json["keys"]
    public = {"ES256": {"crv", "x", "y"}, "RS256": {"n", "e"}, "EdDSA": {"crv", "x"}}[algorithm]
    assert set(jwk) == {"kty", "kid", "alg", "use"} | public
    assert not PRIVATE_MEMBERS & set(jwk)
    assert (jwk["alg"], jwk["use"]) == (algorithm, "sig")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_others_verify_our_tokens_with_the_jwks_alone(serving, algorithm):
    browser = await serving(JWT_ALGORITHM=algorithm, PUBLIC_URL="http://localhost:8123")
    token = (await sign_up(browser))["accessToken"]

    found = jwt.PyJWKSet.from_dict((await browser("GET", "/.well-known/jwks.json")).json)

    key = found[jwt.get_unverified_header(token)["kid"]]
    ours = "http://localhost:8123"
    claims = jwt.decode(token, key, algorithms=[algorithm], audience=ours, issuer=ours, options={"strict_aud": True})
    assert claims["email"] == "ada@example.org"


async def test_the_kid_is_the_thumbprint_of_the_key(browser):
    (jwk,) = (await browser("GET", "/.well-known/jwks.json")).json["keys"]
    needed = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    digest = hashlib.sha256(needed.encode()).digest()

    assert jwk["kid"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


async def test_hs256_publishes_no_key(serving):
    browser = await serving(JWT_ALGORITHM="HS256")
    token = (await sign_up(browser))["accessToken"]

    assert (await browser("GET", "/.well-known/jwks.json")).json == {"keys": []}
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    assert await status_of(browser, token) == (200, "")


async def test_hs256_signs_with_the_secret_that_it_is_given(serving):
    secret = "shared with the old application, 7f21ce90"
    browser = await serving(JWT_ALGORITHM="HS256", JWT_ACCESS_SECRET=secret)
    token = (await sign_up(browser))["accessToken"]

    assert jwt.decode(token, secret, algorithms=["HS256"], audience="http://localhost:8000")["type"] == "access"
    assert await status_of(browser, token) == (200, "")


async def everything_in(redis: Any) -> str:
    found = []
    async for key in redis.scan_iter():
        match await redis.type(key):
            case "string":
                found += [key, await redis.get(key)]
            case "hash":
                found += [key, *(part for pair in (await redis.hgetall(key)).items() for part in pair)]
            case "zset":
                found += [key, *await redis.zrange(key, 0, -1)]
            case "set":
                found += [key, *await redis.smembers(key)]
            case "list":
                found += [key, *await redis.lrange(key, 0, -1)]
            case "stream":
                entries = await redis.xrange(key)
                found += [key, *(part for _, fields in entries for pair in fields.items() for part in pair)]
            case kind:
                raise AssertionError(f"{key} is a {kind}: read it here too")
    return "\n".join(found)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_the_private_key_is_sealed_in_redis(assembling, serving, connecting, algorithm):
    its = await assembling(JWT_ALGORITHM=algorithm)
    signed = await sign_up(await serving(its))
    private = its.keys.signing().private
    redis = connecting()
    dump = await everything_in(redis)
    await redis.aclose()

    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if algorithm == "EdDSA":
        numbers = [int.from_bytes(private.private_bytes_raw(), "big")]
    elif algorithm == "RS256":
        numbers = [private.private_numbers().d, private.private_numbers().p, private.private_numbers().q]
    else:
        numbers = [private.private_numbers().private_value]
    for number in numbers:
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        spellings = [str(number), f"{number:x}", f"{number:X}"]
        spellings += [encode(raw).decode().rstrip("=")[:-2] for encode in (base64.b64encode, base64.urlsafe_b64encode)]
        assert not any(spelling in dump for spelling in spellings)
        for word in dump.split():
            assert raw not in decoded(word)
    assert "PRIVATE" not in dump
    assert base64.b64encode(der).decode()[:60] not in dump
    assert "signing-keys" in dump
    # And what would let a thief in is not there either (ASVS 7.2.3).
    for secret in (signed["refreshToken"], signed["accessToken"], signed["csrfToken"], "battery"):
        assert secret not in dump


def decoded(word: str) -> bytes:
    try:
        return base64.b64decode(word, altchars=b"-_" if set(word) & set("-_") else None)
    except ValueError:
        return b""


async def test_a_redis_that_forgot_the_key_is_given_it_back(assembling, serving, connecting):
    one, two = await assembling(), await assembling()
    here, there = await serving(one), await serving(two)
    old = (await sign_up(here))["accessToken"]
    kid = one.keys.signing().kid
    redis = connecting()
    await redis.flushall()
    await redis.aclose()

    await gather(look_after(two), look_after(one))
    three = await assembling()

    assert {its.keys.signing().kid for its in (one, two, three)} == {kid}
    assert len({json.dumps(its.keys.jwks()) for its in (one, two, three)}) == 1
    assert await status_of(here, old) == (401, "TOKEN_REVOKED")  # everyone is signed out, nobody is signed in
    new = (await sign_up(here))["accessToken"]
    assert await status_of(there, new) == (200, "")


async def test_a_new_secret_keeps_everyone_signed_in_while_the_old_one_is_named(assembling, serving):
    before = await serving(AUTH_SECRET=OLD)
    signed = await sign_up(before)
    after = await serving(AUTH_SECRET=NEW, AUTH_SECRET_PREVIOUS=OLD)

    assert await status_of(after, signed["accessToken"]) == (200, "")
    refreshed = await after("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]})
    assert refreshed.status == 200
    assert await status_of(before, refreshed.json["accessToken"]) == (200, "")  # while instances are replaced
    assert (await after.login(headers=TOKEN_MODE)).status == 200


async def test_a_new_secret_for_hs256_takes_old_tokens_and_makes_new_ones(assembling, serving):
    before = await serving(JWT_ALGORITHM="HS256", AUTH_SECRET=OLD)
    signed = await sign_up(before)
    after = await serving(JWT_ALGORITHM="HS256", AUTH_SECRET=NEW, AUTH_SECRET_PREVIOUS=OLD)
    refreshed = (await after("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]})).json

    assert await status_of(after, signed["accessToken"]) == (200, "")
    assert await status_of(after, refreshed["accessToken"]) == (200, "")
    assert await status_of(before, refreshed["accessToken"]) == (401, "INVALID_TOKEN")


async def test_a_new_secret_alone_is_not_ready_and_overwrites_nothing(assembling, serving, connecting):
    before = await assembling(AUTH_SECRET=OLD)
    await sign_up(await serving(before))
    stranger = assemble(settings_for(AUTH_SECRET=NEW), Single(connecting()), cheap_passwords())

    with pytest.raises(StoreUnavailable):
        await look_after(stranger)
    browser = await serving(stranger)
    assert (await browser("GET", "/ready")).status == 503
    assert (await browser.login()).status == 503

    await look_after(before)
    again = await assembling(AUTH_SECRET=OLD)
    assert again.keys.signing().kid == before.keys.signing().kid


async def test_a_change_of_algorithm_signs_with_the_new_one_and_takes_the_old(assembling, serving):
    signed = await sign_up(await serving(JWT_ALGORITHM="ES256"))
    after = await serving(JWT_ALGORITHM="EdDSA")
    refreshed = (await after("POST", "/api/auth/refresh", {"refreshToken": signed["refreshToken"]})).json

    assert await status_of(after, signed["accessToken"]) == (200, "")
    assert jwt.get_unverified_header(refreshed["accessToken"])["alg"] == "EdDSA"
    assert await status_of(after, refreshed["accessToken"]) == (200, "")
    assert {key["alg"] for key in (await after("GET", "/.well-known/jwks.json")).json["keys"]} == {"ES256", "EdDSA"}


async def test_before_redis_has_told_the_key_there_are_503s_and_no_401s(serving, tmp_path):
    its = assemble(settings_for(), reach(f"unix://{tmp_path}/nobody"), cheap_passwords())
    browser = await serving(its)

    for path in ("/.well-known/jwks.json", "/api/auth/me", "/api/auth/verify"):
        answer = await browser("GET", path, headers={"Authorization": "Bearer a.b.c"})
        assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"


GOOD = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_key_file_of_ones_own_signs(assembling, serving, connecting, tmp_path, algorithm):
    private = GOOD[algorithm]()
    files = {"JWT_PRIVATE_KEY_PATH": pem_file(tmp_path, private), "JWT_PUBLIC_KEY_PATH": public_file(tmp_path, private)}
    browser = await serving(JWT_ALGORITHM=algorithm, **files)

    token = (await sign_up(browser))["accessToken"]

    ours = "http://localhost:8000"
    assert jwt.decode(token, private.public_key(), algorithms=[algorithm], audience=ours, issuer=ours)
    (jwk,) = (await browser("GET", "/.well-known/jwks.json")).json["keys"]
    assert jwk["kid"] == jwt.get_unverified_header(token)["kid"]
    redis = connecting()
    assert not await redis.exists("signing-keys")
    await redis.aclose()


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_both_forms_of_pem_are_read(tmp_path, form):
    path = pem_file(tmp_path, GOOD["ES256"](), form)

    refused = refusal(JWT_PRIVATE_KEY_PATH=path)

    assert refused is None


def refusal(**changes: str) -> str | None:
    """What the operator reads when the service does not start; `None` when it would."""
    passwords = cheap_passwords()
    try:
        assemble(settings_for(**changes), reach("unix:///nobody"), passwords)
    except SettingsError as error:
        return str(error)
    finally:
        passwords.close()
    return None


@pytest.mark.parametrize(
    ("algorithm", "make", "needs"),
    [
        ("ES256", lambda: ec.generate_private_key(ec.SECP384R1()), "ES256 needs a P-256 key"),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256K1()), "ES256 needs a P-256 key"),
        ("ES256", GOOD["RS256"], "ES256 needs a P-256 key"),
        ("ES256", GOOD["EdDSA"], "ES256 needs a P-256 key"),
        ("RS256", GOOD["ES256"], "RS256 needs an RSA key of 2048 bits or more"),
        ("RS256", lambda: rsa.generate_private_key(65537, 1024), "RS256 needs an RSA key of 2048 bits or more"),
        ("EdDSA", GOOD["ES256"], "EdDSA needs an Ed25519 key"),
        ("ES256", lambda: dsa.generate_private_key(1024), "ES256 needs a P-256 key"),
    ],
)
def test_a_key_that_does_not_suit_the_algorithm_stops_the_start(tmp_path, algorithm, make, needs):
    told = refusal(JWT_ALGORITHM=algorithm, JWT_PRIVATE_KEY_PATH=pem_file(tmp_path, make()))

    assert told == f"JWT_PRIVATE_KEY_PATH cannot be used for {algorithm}: {needs}"


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", b"\x00\xff" * 100, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
    ids=["empty", "text", "binary", "broken"],
)
def test_a_file_that_holds_no_key_stops_the_start_in_plain_words(tmp_path, content):
    path = tmp_path / "private.pem"
    path.write_bytes(content)

    told = refusal(JWT_PRIVATE_KEY_PATH=str(path))

    assert told == "JWT_PRIVATE_KEY_PATH must hold a private key in PEM form, without a password."


def test_a_key_behind_a_password_or_of_the_wrong_half_stops_the_start(tmp_path):
    private = GOOD["ES256"]()
    for path in (pem_file(tmp_path, private, password=b"secret"), public_file(tmp_path, private)):
        told = refusal(JWT_PRIVATE_KEY_PATH=path)

        assert told == "JWT_PRIVATE_KEY_PATH must hold a private key in PEM form, without a password."


def test_a_key_file_that_cannot_be_read_stops_the_start(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.pem"):
        told = refusal(JWT_PRIVATE_KEY_PATH=str(path))

        assert str(told).startswith("JWT_PRIVATE_KEY_PATH cannot be read: ")


def test_a_public_key_file_must_be_the_other_half(tmp_path):
    mine, other = GOOD["ES256"](), GOOD["ES256"]()
    private = pem_file(tmp_path, mine)

    told = refusal(JWT_PRIVATE_KEY_PATH=private, JWT_PUBLIC_KEY_PATH=public_file(tmp_path, other))
    assert told == "JWT_PUBLIC_KEY_PATH is not the public half of JWT_PRIVATE_KEY_PATH."
    told = refusal(JWT_PRIVATE_KEY_PATH=private, JWT_PUBLIC_KEY_PATH=private)
    assert told == "JWT_PUBLIC_KEY_PATH must hold a public key in PEM form, without a password."
    told = refusal(JWT_PUBLIC_KEY_PATH=public_file(tmp_path, mine))
    assert "JWT_PUBLIC_KEY_PATH needs JWT_PRIVATE_KEY_PATH" in str(told)


def test_settings_for_another_algorithm_stop_the_start(tmp_path):
    private = pem_file(tmp_path, GOOD["ES256"]())

    assert "not with key files" in str(refusal(JWT_ALGORITHM="HS256", JWT_PRIVATE_KEY_PATH=private))
    assert "is for JWT_ALGORITHM=HS256" in str(refusal(JWT_ACCESS_SECRET="a secret that is long enough, 42 b"))
    assert "too short" in str(refusal(JWT_ALGORITHM="HS256", JWT_ACCESS_SECRET="short"))
    for algorithm in ("none", "HS512", "es256", "RS512"):
        assert "JWT_ALGORITHM must be one of" in str(refusal(JWT_ALGORITHM=algorithm))


async def test_tokens_made_in_one_turn_are_each_their_own_and_who_goes_away_holds_up_nobody(parts):
    """They are signed together."""
    people = [await parts.users.register(User("", f"ada{number}@example.org", "")) for number in range(20)]
    now = int(time.time() * 1000)

    def make(user: User) -> asyncio.Task[AccessToken]:
        family = Family(RefreshToken(user.id, new_id()), 0, now, now + 86_400_000, now, ("pwd",))
        return asyncio.create_task(parts.access_tokens.make(user, family))

    making = [make(user) for user in people]
    await asyncio.sleep(0)
    making[3].cancel()
    made = await asyncio.gather(*making, return_exceptions=True)

    assert isinstance(made.pop(3), asyncio.CancelledError)
    assert [parts.access_tokens.read(token.text).user_id for token in made] == [
        user.id for user in people if user is not people[3]
    ]
