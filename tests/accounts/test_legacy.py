"""Hashes of other systems: each known form is compared with, anything else matches nothing."""

import base64
import hashlib

import pytest

from service.accounts import legacy
from tests.conftest import cheap_passwords

GOOD = "correct horse, battery & staple"
SALT = b"SodiumChloride"


def b64(raw: bytes, alphabet: str = "+/") -> str:
    return base64.b64encode(raw, alphabet.encode()).decode().rstrip("=")


def scrypt(n: int = 16, r: int = 8, p: int = 1, size: int = 32) -> bytes:
    return hashlib.scrypt(GOOD.encode(), salt=SALT, n=n, r=r, p=p, dklen=size)


def pbkdf2(digest: str, rounds: int = 100) -> bytes:
    return hashlib.pbkdf2_hmac(digest, GOOD.encode(), SALT, rounds)


FORMS = {
    "scrypt, PHC": f"$scrypt$ln=4,r=8,p=1${b64(SALT)}${b64(scrypt())}",
    "scrypt, Werkzeug": f"scrypt:16:8:1${SALT.decode()}${scrypt(size=64).hex()}",
    "PBKDF2, PHC": f"$pbkdf2-sha256$i=100,l=32${b64(SALT)}${b64(pbkdf2('sha256'))}",
    "PBKDF2, PHC, SHA-512": f"$pbkdf2-sha512$i=100${b64(SALT)}${b64(pbkdf2('sha512'))}",
    "PBKDF2, passlib": f"$pbkdf2-sha256$100${b64(SALT, './')}${b64(pbkdf2('sha256'), './')}",
    "PBKDF2, Django": f"pbkdf2_sha256$100${SALT.decode()}${base64.b64encode(pbkdf2('sha256')).decode()}",
    "PBKDF2, Django, SHA-1": f"pbkdf2_sha1$100${SALT.decode()}${base64.b64encode(pbkdf2('sha1')).decode()}",
    "PBKDF2, Werkzeug": f"pbkdf2:sha256:100${SALT.decode()}${pbkdf2('sha256').hex()}",
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_password_is_known_by_the_hash_of_another_system(form):
    passwords = cheap_passwords()

    assert passwords.readable(FORMS[form])
    assert await passwords.verify(GOOD, FORMS[form])
    assert not await passwords.verify(GOOD + "!", FORMS[form])
    assert passwords.outdated(FORMS[form]), "to be replaced at the next sign-in"


def test_the_published_vectors_match():
    """RFC 7914, section 12, and RFC 6070, section 2."""
    scrypt = bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    pbkdf2 = bytes.fromhex("4b007901b765489abead49d926f721d065a429c1")

    assert legacy.read(f"$scrypt$ln=14,r=8,p=1${b64(SALT)}${b64(scrypt)}").matches("pleaseletmein")
    assert legacy.read(f"pbkdf2_sha1$4096$salt${base64.b64encode(pbkdf2).decode()}").matches("password")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "$scrypt$ln=4,r=8,p=1$$",
        f"$scrypt$ln=30,r=8,p=1${b64(SALT)}${b64(b'x' * 32)}",
        f"$scrypt$ln=14,r=999,p=99${b64(SALT)}${b64(b'x' * 32)}",
        "scrypt:17:8:1$salt$" + "00" * 32,
        "scrypt:0:8:1$salt$" + "00" * 32,
        "scrypt:16:8:1$salt$0",
        "pbkdf2_sha256$99999999$salt$" + b64(b"x" * 32),
        "pbkdf2_sha256$0$salt$" + b64(b"x" * 32),
        "pbkdf2_md5$100$salt$" + b64(b"x" * 16),
        "$pbkdf2-sha256$i=100$a$b",
        "$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$" + b64(b"x" * 32),
        "$2b$31$" + "a" * 53,
    ],
)
def test_what_is_unknown_broken_or_would_stop_a_server_is_not_readable(text):
    assert not cheap_passwords().readable(text)
