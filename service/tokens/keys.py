"""The keys that sign access tokens, and the public halves that others check them with.

Redis
    signing-keys  hash  <kid>  algorithm, when it was made (ms), the private key sealed with `AUTH_SECRET`; no TTL

A key of one's own (`JWT_PRIVATE_KEY_PATH`, or `JWT_ACCESS_SECRET` for HS256) is used as it is, and HS256 has one
derived from `AUTH_SECRET` otherwise: neither touches Redis. Any other algorithm gets a generated key that all
instances share through Redis. It stays in the memory of each: should Redis come back empty, they put it back.

A `kid` is the thumbprint of the public key (RFC 7638), so that every instance calls a key by the same name.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.clock import Clock
from service.errors import StoreUnavailable
from service.settings import Settings, SettingsError
from service.store import Script, Store
from service.vault import Unsealable, Vault

log = structlog.get_logger("service.tokens")

_RING = "signing-keys"
_INSTALL = Script(Path(__file__).with_name("install.lua"))
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


@dataclass(frozen=True)
class SigningKey:
    """A key, its one algorithm, and the JWT header that names them both."""

    kid: str
    algorithm: str
    private: Any = field(repr=False)
    public: Any = field(repr=False)
    header: str = ""
    jwk: dict[str, str] | None = None
    made: int = 0

    @classmethod
    def asymmetric(cls, algorithm: str, private: Any, made: int = 0) -> "SigningKey":
        """A key pair; raises `ValueError` when it does not suit the algorithm."""
        _check_suits(algorithm, private)
        maker: Any = {"ES256": ECAlgorithm, "RS256": RSAAlgorithm, "EdDSA": OKPAlgorithm}[algorithm]
        # The public half only: the library would export the private members of a private key.
        members = maker.to_jwk(private.public_key(), as_dict=True)
        public = {name: str(members[name]) for name in _MEMBERS[members["kty"]]}
        canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
        kid = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
        jwk = {**public, "kid": kid, "alg": algorithm, "use": "sig"}
        return cls(kid, algorithm, private, private.public_key(), _header(kid, algorithm, private), jwk, made)

    @classmethod
    def symmetric(cls, secret: bytes) -> "SigningKey":
        kid = hashlib.sha256(b"gatepost kid" + secret).hexdigest()[:24]
        return cls(kid, "HS256", secret, secret, _header(kid, "HS256", secret))


class Keys:
    """The ring: one key signs, all of them check."""

    def __init__(self, store: Store, clock: Clock, vault: Vault, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._vault_key = vault.key("signing-keys")
        self._algorithm = settings.jwt_algorithm
        own = _own_keys(vault, settings)
        self._shared = not own
        self._ring = {key.header: key for key in own}
        self._signing = own[0] if own else None

    def signing(self) -> SigningKey:
        """The key that signs now; `StoreUnavailable` until Redis has told it once."""
        if self._signing is None:
            raise StoreUnavailable
        return self._signing

    def by_header(self, header: str) -> SigningKey | None:
        """The key of a token, known by the very header that we write with it.

        A header that differs by a letter is not ours. So there is no algorithm to confuse, no `kid` to look
        up, and no `jwk`, `jku`, `x5u`, `crit` or `b64` to fall for (RFC 8725, sections 2 and 3).
        """
        if self._signing is None:
            raise StoreUnavailable
        return self._ring.get(header)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys (RFC 7517); none for HS256, whose key is a secret."""
        self.signing()
        return {"keys": [key.jwk for key in self._ring.values() if key.jwk]}

    async def refresh(self) -> None:
        """Read the ring from Redis, and put a key into it where one is missing; every few seconds is enough."""
        if not self._shared:
            return
        signing = self._signing or SigningKey.asymmetric(
            self._algorithm, _generate(self._algorithm), int(self._clock.now() * 1000)
        )
        sealed = base64.b64encode(self._vault_key.seal(_pem(signing.private), signing.kid.encode())).decode("ascii")
        flat = await self._store.one(_INSTALL(_RING, signing.kid, self._algorithm, f"{signing.made} {sealed}"))
        entries = dict(zip(flat[::2], flat[1::2], strict=True))
        await self._reseal(entries)
        known = {key.kid: key for key in self._ring.values()} | {signing.kid: signing}
        keys = [known.get(kid) or self._opened(kid, entry) for kid, entry in entries.items()]
        mine = [key for key in keys if key.algorithm == self._algorithm]
        self._ring = {key.header: key for key in keys}
        self._signing = max(mine, key=lambda key: key.made)

    async def _reseal(self, entries: dict[str, str]) -> None:
        """Seal every key with the current `AUTH_SECRET`, so that the one before can go."""
        for kid, entry in entries.items():
            algorithm, made, sealed = entry.split(" ")
            with suppress(Unsealable):
                if renewed := self._vault_key.resealed(base64.b64decode(sealed), kid.encode()):
                    text = base64.b64encode(renewed).decode("ascii")
                    await self._store.one(("HSET", _RING, kid, f"{algorithm} {made} {text}"))

    def _opened(self, kid: str, entry: str) -> SigningKey:
        algorithm, made, sealed = entry.split(" ")
        try:
            pem = self._vault_key.unseal(base64.b64decode(sealed), kid.encode())
        except Unsealable as error:
            log.error("keys.sealed", kid=kid, remedy="AUTH_SECRET changed: put the old one in AUTH_SECRET_PREVIOUS")
            raise StoreUnavailable from error
        private = serialization.load_pem_private_key(pem, None)
        return SigningKey.asymmetric(algorithm, private, int(made))


def _own_keys(vault: Vault, settings: Settings) -> list[SigningKey]:
    if settings.jwt_algorithm == "HS256":
        if settings.jwt_access_secret:
            return [SigningKey.symmetric(settings.jwt_access_secret.get_secret_value().encode())]
        return [SigningKey.symmetric(raw) for raw in vault.key("access-token").raw()]
    if not (path := settings.jwt_private_key_path):
        return []
    private = _read(
        "JWT_PRIVATE_KEY_PATH", path, lambda pem: serialization.load_pem_private_key(pem, None), "a private key"
    )
    try:
        key = SigningKey.asymmetric(settings.jwt_algorithm, private)
    except ValueError as error:
        raise SettingsError([f"JWT_PRIVATE_KEY_PATH cannot be used for {settings.jwt_algorithm}: {error}"]) from error
    if settings.jwt_public_key_path:
        _check_pair(settings.jwt_public_key_path, key)
    return [key]


def _check_pair(path: Path, key: SigningKey) -> None:
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = _read("JWT_PUBLIC_KEY_PATH", path, serialization.load_pem_public_key, "a public key")
    if public.public_bytes(*spki) != key.public.public_bytes(*spki):
        raise SettingsError(["JWT_PUBLIC_KEY_PATH is not the public half of JWT_PRIVATE_KEY_PATH."])


def _read(setting: str, path: Path, load: Callable[[bytes], Any], needed: str) -> Any:
    """The key in a file; raises `SettingsError` in our words, as the library's speak of its own insides."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise SettingsError([f"{setting} cannot be read: {error.strerror}."]) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError([f"{setting} must hold {needed} in PEM form, without a password."]) from error


def _check_suits(algorithm: str, private: Any) -> None:
    match algorithm, private:
        case "ES256", ec.EllipticCurvePrivateKey() if isinstance(private.curve, ec.SECP256R1):
            return
        case "RS256", rsa.RSAPrivateKey() if private.key_size >= 2048:
            return
        case "EdDSA", ed25519.Ed25519PrivateKey():
            return
    needed = {"ES256": "a P-256 key", "RS256": "an RSA key of 2048 bits or more", "EdDSA": "an Ed25519 key"}
    raise ValueError(f"{algorithm} needs {needed[algorithm]}")


def _generate(algorithm: str) -> PrivateKeyTypes:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def _pem(private: Any) -> bytes:
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _header(kid: str, algorithm: str, private: Any) -> str:
    """The first segment of every token that this key signs, exactly as the library writes it."""
    return jwt.encode({}, private, algorithm, headers={"kid": kid, "typ": "at+jwt"}).split(".")[0]
