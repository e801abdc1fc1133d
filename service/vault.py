"""What is made from `AUTH_SECRET`: one key for each purpose, and nothing that reveals the secret itself.

HKDF-SHA256 (RFC 5869) derives a key per purpose. `AUTH_SECRET_PREVIOUS` keeps what older secrets signed or sealed
readable: making uses the first secret, checking tries each in turn.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Unsealable(Exception):
    """Sealed with a secret that is not among ours, or not what was sealed."""


class Hmac:
    """HMAC-SHA256 with one key (RFC 2104), for many short messages.

    The two hashes that it is made of have the key in them from the beginning, and each message goes on from a copy.
    The library's takes three times as long, to begin anew as well as to copy.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def of(self, message: bytes) -> bytes:
        """The MAC of a message, 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Vault:
    """The secrets of this installation, the current one first."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets)

    def __repr__(self) -> str:
        return f"<Vault of {len(self._secrets)}>"

    def key(self, purpose: str) -> "Key":
        """The key for one purpose, as 32 bytes derived from each secret."""
        return Key(
            tuple(
                HKDF(algorithm=hashes.SHA256(), length=32, salt=b"gatepost", info=purpose.encode()).derive(secret)
                for secret in self._secrets
            )
        )


class Key:
    """A derived key with its predecessors: makes with the first, checks against all."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys

    def raw(self) -> tuple[bytes, ...]:
        """The keys themselves, for an algorithm that takes them elsewhere."""
        return self._keys

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256, 32 bytes (RFC 2104)."""
        return self._macs[0].of(message)

    def verify(self, message: bytes, mac: bytes) -> bool:
        """True for a MAC of this message, possibly cut to 16 bytes, by any of the keys; in constant time each."""
        if len(mac) < 16:
            return False
        current, older = self._macs[0], self._macs[1:]
        return _is(current, message, mac) or any(_is(before, message, mac) for before in older)

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """AES-256-GCM with a random nonce in front; `context` is authenticated with it."""
        nonce = os.urandom(12)
        return nonce + self._ciphers[0].encrypt(nonce, plain, context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed for this context; raises `Unsealable`."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:12], sealed[12:], context)
            except (InvalidTag, ValueError):
                continue
        raise Unsealable

    def resealed(self, sealed: bytes, context: bytes) -> bytes | None:
        """The same sealed with the current key, `None` when it is already; raises `Unsealable`."""
        with suppress(InvalidTag, ValueError):
            self._ciphers[0].decrypt(sealed[:12], sealed[12:], context)
            return None
        return self.seal(self.unseal(sealed, context), context)

    @cached_property
    def _macs(self) -> "tuple[Hmac, ...]":
        return tuple(map(Hmac, self._keys))

    @cached_property
    def _ciphers(self) -> tuple[AESGCM, ...]:
        return tuple(AESGCM(key) for key in self._keys)


def _is(key: Hmac, message: bytes, mac: bytes) -> bool:
    return hmac.compare_digest(key.of(message)[: len(mac)], mac)
