"""The keys that sign access tokens, and the public halves that others check them with.

Redis
    signing-keys  hash  <kid>  algorithm, when it begins to sign (ms), the private key sealed with `AUTH_SECRET`; no TTL

A key of one's own (`JWT_PRIVATE_KEY_PATH`, or `JWT_ACCESS_SECRET` for HS256) is used as it is, and HS256 has one
derived from `AUTH_SECRET` otherwise: neither touches Redis. Any other algorithm gets generated keys that all
instances share through Redis. They stay in the memory of each: should Redis come back empty, they put theirs back.

The life of a generated key follows from when it begins to sign, and from nothing else: published `LEAD` before, so
that caches of the JWKS know it in time; signing until its successor does; kept until the last token that it signed
has expired. `turn.lua` decides with Redis' clock, so that many instances make one rotation.

A `kid` is the thumbprint of the public key (RFC 7638), so that every instance calls a key by the same name.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.audit.events import Event
from service.audit.trail import Audit
from service.clock import Clock, milliseconds, moment
from service.errors import NotFound, ServiceError, StoreUnavailable
from service.settings import Settings, SettingsError
from service.store import Script, Store
from service.vault import Hmac, Unsealable, Vault

log = structlog.get_logger("service.tokens")

_RING = "signing-keys"
_HERE = Path(__file__).parent
_TURN = Script(_HERE / "turn.lua")
_RETIRE = Script(_HERE / "retire.lua")
_RENEW = Script(_HERE / "renew.lua")
JWKS_FRESH = timedelta(minutes=5)  # how long a cache may keep the JWKS
LEAD = 2 * JWKS_FRESH  # a new key is published so long before it signs
_MARGIN = timedelta(minutes=1)  # an instance that stands still may sign a little longer
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
    signs_from: int = 0  # ms of Redis' clock

    @property
    def quick(self) -> bool:
        """Whether a signature takes no longer than waiting for one would."""
        return self.algorithm == "HS256"

    @cached_property
    def sign(self) -> Callable[[bytes], bytes]:
        """What makes the signature of a JWS (RFC 7515), raw.

        The library would look the algorithm up and check the key for each token, which costs more than HS256 does.
        """
        if self.algorithm == "HS256":
            return Hmac(self.private).of
        return partial(jwt.get_algorithm_by_name(self.algorithm).sign, key=self.private)

    @classmethod
    def asymmetric(cls, algorithm: str, private: Any, signs_from: int = 0) -> "SigningKey":
        """A key pair; raises `ValueError` when it does not suit the algorithm."""
        _check_suits(algorithm, private)
        maker: Any = {"ES256": ECAlgorithm, "RS256": RSAAlgorithm, "EdDSA": OKPAlgorithm}[algorithm]
        # The public half only: the library would export the private members of a private key.
        members = maker.to_jwk(private.public_key(), as_dict=True)
        public = {name: str(members[name]) for name in _MEMBERS[members["kty"]]}
        canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
        kid = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
        jwk = {**public, "kid": kid, "alg": algorithm, "use": "sig"}
        return cls(kid, algorithm, private, private.public_key(), _header(kid, algorithm, private), jwk, signs_from)

    @classmethod
    def symmetric(cls, secret: bytes) -> "SigningKey":
        """A secret for HS256, which signs and checks."""
        kid = hashlib.sha256(b"gatepost kid" + secret).hexdigest()[:24]
        return cls(kid, "HS256", secret, secret, _header(kid, "HS256", secret))


class State(StrEnum):
    """Where a key of the ring is in its life."""

    WAITING = "waiting"
    SIGNING = "signing"
    CHECKING = "checking"


@dataclass(frozen=True)
class Listed:
    """A key as an operator sees it. `until` is when a key that no longer signs is dropped."""

    kid: str
    algorithm: str
    state: State
    signs_from: datetime | None
    until: datetime | None


class KeysOfOnesOwn(ServiceError):
    """The installation signs with a key that it was given, or with `AUTH_SECRET`: there is no ring to turn."""

    title = "There is no key ring: with JWT_PRIVATE_KEY_PATH or HS256 the key is changed in the settings"


class Keys:
    """The ring: one key signs, all of them check."""

    def __init__(self, store: Store, clock: Clock, vault: Vault, audit: Audit, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._vault_key = vault.key("signing-keys")
        self._audit = audit
        self._algorithm = settings.jwt_algorithm
        self._rotation = settings.key_rotation
        self._afterwards = settings.jwt_access_expiry + settings.clock_tolerance + _MARGIN
        own = _own_keys(vault, settings)
        self._shared = not own
        self._adopt(own)

    def signing(self) -> SigningKey:
        """The key that signs now; `StoreUnavailable` until Redis has told it once."""
        if not self._mine:
            raise StoreUnavailable
        return self._mine[0] if len(self._mine) == 1 or not self._shared else signs_now(self._mine, self._now())

    def signing_since(self) -> datetime | None:
        """When the key that signs now began to; `None` for one of the operator's own."""
        return moment(since) if (since := self.signing().signs_from) else None

    def by_header(self, header: str) -> SigningKey | None:
        """The key of a token, known by the very header that we write with it.

        A header that differs by a letter is not ours. So there is no algorithm to confuse, no `kid` to look
        up, and no `jwk`, `jku`, `x5u`, `crit` or `b64` to fall for (RFC 8725, sections 2 and 3).
        """
        if not self._mine:
            raise StoreUnavailable
        return self._ring.get(header)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys (RFC 7517), the one that signs and those before and after it; none for HS256."""
        self.signing()
        return {"keys": [key.jwk for key in self._ring.values() if key.jwk]}

    def all(self) -> list[Listed]:
        """Every key of the ring, the newest first."""
        found = []
        for key in sorted(self._ring.values(), key=lambda key: key.signs_from, reverse=True):
            family = [other for other in self._ring.values() if other.algorithm == key.algorithm]
            signing = signs_now(family, self._now()) if self._shared else self.signing()
            state = State.SIGNING if key is signing else State.CHECKING
            if self._shared and key.signs_from > signing.signs_from:
                state = State.WAITING
            later = [other.signs_from for other in family if other.signs_from > key.signs_from]
            found.append(
                Listed(
                    key.kid,
                    key.algorithm,
                    state,
                    moment(key.signs_from) if key.signs_from else None,
                    moment(min(later)) + self._afterwards if later else None,
                )
            )
        return found

    async def refresh(self) -> None:
        """Read the ring from Redis, and turn it where that is due; every few seconds is enough."""
        if self._shared:
            await self._turn()

    async def rotate(self) -> Listed:
        """Have a new key sign as soon as all caches know it; the one that waits already, if one does.

        Raises `KeysOfOnesOwn`.
        """
        if not self._shared:
            raise KeysOfOnesOwn
        await self._turn(asked=True)
        return self.all()[0]

    async def retire(self, kid: str) -> None:
        """Refuse whatever this key has signed, on every instance within seconds; another key signs at once.

        Raises `NotFound` or `KeysOfOnesOwn`.
        """
        if not self._shared:
            raise KeysOfOnesOwn
        successor = await self._made()
        command = _RETIRE(_RING, kid, self._algorithm, successor.kid, self._sealed(successor))
        # A second try would not find it, and say so.
        if await self._store.one(command, durable=True, once=True) == "unknown":
            raise NotFound(f"The ring has no key {kid}")
        await self._audit.record(Event.SIGNING_KEY_RETIRED, kid=kid)
        await self._turn()

    async def _turn(self, asked: bool = False) -> None:
        candidate = self.signing() if self._mine else None
        if await self._turned(candidate, asked) != "make":
            return
        # A ring that cannot be opened is not added to: the others could not read what a wrong secret has sealed.
        candidate = await self._made()
        await self._turned(candidate, asked)
        if added := self._found(candidate.kid):
            await self._audit.record(
                Event.SIGNING_KEY_ADDED, kid=added.kid, signs_from=moment(added.signs_from).isoformat()
            )

    async def _turned(self, candidate: SigningKey | None, asked: bool) -> str:
        given = (candidate.kid, candidate.signs_from, self._sealed(candidate)) if candidate else ("", 0, "")
        verdict, now, *flat = await self._store.one(
            _TURN(
                _RING,
                self._algorithm,
                *given,
                milliseconds(self._rotation),
                milliseconds(LEAD),
                milliseconds(self._afterwards),
                int(asked),
            )
        )
        self._clock.anchor(int(now) / 1000)
        entries = dict(zip(flat[::2], flat[1::2], strict=True))
        await self._reseal(entries)
        known = {key.kid: key for key in (*self._ring.values(), *([candidate] if candidate else []))}
        self._adopt([self._opened(kid, entry, known.get(kid)) for kid, entry in entries.items()])
        return str(verdict)

    def _adopt(self, keys: list[SigningKey]) -> None:
        self._ring = {key.header: key for key in keys}
        self._mine = [key for key in keys if key.algorithm == self._algorithm]

    async def _made(self) -> SigningKey:
        """A new key; an RSA key takes a while."""
        return SigningKey.asymmetric(self._algorithm, await asyncio.to_thread(_generate, self._algorithm))

    def _sealed(self, key: SigningKey) -> str:
        return base64.b64encode(self._vault_key.seal(_pem(key.private), key.kid.encode())).decode("ascii")

    async def _reseal(self, entries: dict[str, str]) -> None:
        """Seal every key with the current `AUTH_SECRET`, so that the one before can go."""
        for kid, entry in entries.items():
            algorithm, signs_from, sealed = entry.split(" ")
            with suppress(Unsealable):
                if renewed := self._vault_key.resealed(base64.b64decode(sealed), kid.encode()):
                    text = base64.b64encode(renewed).decode("ascii")
                    await self._store.one(_RENEW(_RING, kid, entry, f"{algorithm} {signs_from} {text}"))

    def _opened(self, kid: str, entry: str, known: SigningKey | None) -> SigningKey:
        algorithm, signs_from, sealed = entry.split(" ")
        if known:
            return replace(known, signs_from=int(signs_from))
        try:
            pem = self._vault_key.unseal(base64.b64decode(sealed), kid.encode())
        except Unsealable as error:
            log.error("keys.sealed", kid=kid, remedy="AUTH_SECRET changed: put the old one in AUTH_SECRET_PREVIOUS")
            raise StoreUnavailable from error
        private = serialization.load_pem_private_key(pem, None)
        return SigningKey.asymmetric(algorithm, private, int(signs_from))

    def _found(self, kid: str) -> SigningKey | None:
        return next((key for key in self._ring.values() if key.kid == kid), None)

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


def signs_now(keys: list[SigningKey], now: int) -> SigningKey:
    """The one of these keys that began to sign last; where none has begun, the one that will first."""
    begun = [key for key in keys if key.signs_from <= now]
    if begun:
        return max(begun, key=lambda key: key.signs_from)
    return min(keys, key=lambda key: key.signs_from)


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
