"""Hashes of other systems, to be checked and, after a sign-in, replaced. None is made here.

    scrypt          PHC        $scrypt$ln=15,r=8,p=1$<salt>$<hash>
                    Werkzeug   scrypt:32768:8:1$<salt, as it is>$<hash, hex>
    PBKDF2          PHC        $pbkdf2-sha256$i=600000,l=32$<salt>$<hash>          (also -sha1, -sha512)
                    passlib    $pbkdf2-sha256$600000$<salt>$<hash>                 (with `.` for `+`)
                    Django     pbkdf2_sha256$600000$<salt, as it is>$<hash>        (also _sha1)
                    Werkzeug   pbkdf2:sha256:600000$<salt, as it is>$<hash, hex>   (also sha1, sha512)

Salts and hashes are base64 unless said otherwise. Costs are bounded, so that no imported hash can stop a server.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

_MOST_MEMORY = 256 * 1024 * 1024  # bytes, scrypt
_MOST_ROUNDS = 10_000_000  # PBKDF2

_SCRYPT_PHC = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_SCRYPT_WERKZEUG = re.compile(r"scrypt:(\d{1,8}):(\d{1,3}):(\d{1,2})\$([^$]+)\$([0-9a-f]+)")
_PBKDF2_PHC = re.compile(
    r"\$pbkdf2-(sha1|sha256|sha512)\$(?:i=)?(\d{1,8})(?:,l=\d+)?\$([A-Za-z0-9+/.=]+)\$([A-Za-z0-9+/.=]+)"
)
_PBKDF2_DJANGO = re.compile(r"pbkdf2_(sha1|sha256)\$(\d{1,8})\$([^$]+)\$([A-Za-z0-9+/=]+)")
_PBKDF2_WERKZEUG = re.compile(r"pbkdf2:(sha1|sha256|sha512):(\d{1,8})\$([^$]+)\$([0-9a-f]+)")


@dataclass(frozen=True)
class LegacyHash:
    """A hash that was made elsewhere, and how to make it again."""

    expected: bytes
    make: Callable[[bytes], bytes]

    def matches(self, spelling: str) -> bool:
        """Whether this is the password; keeps a core busy."""
        return hmac.compare_digest(self.make(spelling.encode()), self.expected)


def read(text: str) -> LegacyHash | None:
    """A hash in one of these forms, `None` for any other and for one that costs too much."""
    try:
        return _scrypt(text) or _pbkdf2(text)
    except ValueError:  # base64 or hex that is none
        return None


def _scrypt(text: str) -> LegacyHash | None:
    if match := _SCRYPT_PHC.fullmatch(text):
        cost, salt, expected = 1 << int(match[1]), _base64(match[4]), _base64(match[5])
    elif match := _SCRYPT_WERKZEUG.fullmatch(text):
        cost, salt, expected = int(match[1]), match[4].encode(), bytes.fromhex(match[5])
    else:
        return None
    block, lanes = int(match[2]), int(match[3])
    memory = 128 * cost * block * max(1, lanes)
    if not (cost > 1 and cost & (cost - 1) == 0 and block and lanes and memory <= _MOST_MEMORY and expected):
        return None

    def make(password: bytes) -> bytes:
        return hashlib.scrypt(
            password, salt=salt, n=cost, r=block, p=lanes, maxmem=2 * _MOST_MEMORY, dklen=len(expected)
        )

    return LegacyHash(expected, make)


def _pbkdf2(text: str) -> LegacyHash | None:
    if match := _PBKDF2_PHC.fullmatch(text):
        salt, expected = _base64(match[3]), _base64(match[4])
    elif match := _PBKDF2_DJANGO.fullmatch(text):
        salt, expected = match[3].encode(), _base64(match[4])
    elif match := _PBKDF2_WERKZEUG.fullmatch(text):
        salt, expected = match[3].encode(), bytes.fromhex(match[4])
    else:
        return None
    digest, rounds = match[1], int(match[2])
    if not 0 < rounds <= _MOST_ROUNDS or not expected:
        return None
    return LegacyHash(expected, lambda password: hashlib.pbkdf2_hmac(digest, password, salt, rounds, len(expected)))


def _base64(text: str) -> bytes:
    """Base64 as PHC strings and passlib write it: without padding, and `.` for `+`."""
    text = text.replace(".", "+").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
