"""Access tokens: JWTs that say who is asking, for a quarter of an hour (RFC 9068).

A token names its session (`sid`), itself (`jti`) and the state of the account it was made for (`ver`), so that
`check.py` can refuse it the moment any of these is over. Nothing here asks Redis.
"""

import asyncio
import base64
import hashlib
import random
import re
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from service.accounts.roles import Roles
from service.accounts.user import Rights, User
from service.clock import Clock
from service.errors import InvalidToken, ReauthenticationRequired, TokenExpired
from service.ids import is_id, new_id
from service.sessions.families import Family
from service.settings import Settings
from service.tokens.keys import Keys, SigningKey

LONGEST = 8192  # characters
REMEMBERED = 10_000  # tokens
_RECENT = 600  # seconds after a sign-in, for what somebody who has only found a session open must not do
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_LATEST = 253_402_300_800  # the year 10000, in seconds since the epoch; no clock that we meet goes further
_TYPES: dict[str, type] = {
    "iss": str, "aud": str, "sub": str, "sid": str, "jti": str, "type": str, "email": str,
    "iat": int, "exp": int, "ver": int, "auth_time": int,
    "roles": list, "permissions": list, "amr": list,
}  # fmt: skip


@dataclass(frozen=True)
class AccessToken:
    """A token as it is handed out."""

    text: str
    expires_in: int  # seconds


@dataclass(frozen=True, eq=False)
class Principal:
    """Who is asking, as an access token says it, or an API key. Times are seconds since the epoch.

    The holder of an API key has no session, no roles and no address of their own: `email` is the key's owner's.
    """

    user_id: str
    session_id: str
    jti: str
    email: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    amr: tuple[str, ...]
    auth_time: int
    issued_at: int
    expires_at: int
    epoch: int
    kid: str
    key_id: str = ""  # of an API key; its `expires_at` may be 0, for never

    def check_recent(self, now: float) -> None:
        """Raise `ReauthenticationRequired` unless the sign-in is a matter of minutes (RFC 9470, in spirit)."""
        if now - self.auth_time > _RECENT:
            raise ReauthenticationRequired


class AccessTokens:
    """Makes access tokens, and reads those that this installation has made."""

    def __init__(self, keys: Keys, clock: Clock, roles: Roles, settings: Settings) -> None:
        self._keys = keys
        self._clock = clock
        self._roles = roles
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._lifetime = settings.jwt_access_expiry.total_seconds()
        self._tolerance = settings.clock_tolerance.total_seconds()
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        self._unsigned: list[tuple[SigningKey, bytes, asyncio.Future[bytes]]] = []
        self._remembered: dict[bytes, Principal] = {}

    async def make(self, user: User | Rights, family: Family) -> AccessToken:
        """A token for this session of the user, made with the rights that the user has now.

        It lives up to 5 % shorter than `JWT_ACCESS_EXPIRY`, by chance, so that clients do not refresh in step.
        """
        key = self._keys.signing()
        lifetime = int(self._lifetime * (1 - random.random() * 0.05))  # noqa: S311
        now = family.now // 1000
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "sid": family.token.session_id,
            "jti": new_id(),
            "ver": family.epoch,
            "iat": now,
            "exp": now + lifetime,
            "type": "access",
            "email": user.email,
            "roles": user.roles,
            "permissions": self._roles.permissions(user.roles),
            "amr": family.amr,
            "auth_time": family.started_at // 1000,
        }
        # Written as the library writes it, but for the header, which is the same for all tokens of a key.
        message = f"{key.header}.{_segment(orjson.dumps(claims))}"
        signed = message.encode("ascii")
        signature = key.sign(signed) if key.quick else await self._signature(key, signed)
        return AccessToken(f"{message}.{_segment(signature)}", lifetime)

    def read(self, text: str, expired: bool = False) -> Principal:
        """What an authentic token says; raises `InvalidToken` or, unless `expired` ones will do, `TokenExpired`.

        A signature that was checked once is remembered, by a digest of the very token, until it expires.
        """
        if len(text) > LONGEST or (key := self._keys.by_header(text.partition(".")[0])) is None or not text.isascii():
            raise InvalidToken
        digest = hashlib.sha256(text.encode("ascii")).digest()
        principal = self._remembered.get(digest)
        if principal is None or principal.kid != key.kid:
            if not _FORM.fullmatch(text):
                raise InvalidToken
            principal = self._verified(text, key.kid, key.public, key.algorithm)
            self._remember(digest, principal)
        now = self._clock.now()
        if principal.issued_at > now + self._tolerance:
            raise InvalidToken
        if principal.expires_at + self._tolerance <= now and not expired:
            raise TokenExpired
        return principal

    def _signature(self, key: SigningKey, message: bytes) -> asyncio.Future[bytes]:
        """What `key.sign` gives, at the end of this turn of the event loop.

        All of a turn are made one after another: between other work each would find the curve's tables gone from the
        processor's caches, and take three times as long.
        """
        loop = asyncio.get_running_loop()
        signature: asyncio.Future[bytes] = loop.create_future()
        if not self._unsigned:
            loop.call_soon(self._sign)
        self._unsigned.append((key, message, signature))
        return signature

    def _sign(self) -> None:
        unsigned, self._unsigned = self._unsigned, []
        for key, message, signature in unsigned:
            if signature.done():
                continue  # whoever wanted it has gone
            try:
                signature.set_result(key.sign(message))
            except Exception as error:
                signature.set_exception(error)

    def _verified(self, text: str, kid: str, public: Any, algorithm: str) -> Principal:
        try:
            claims = self._jwt.decode(
                text,
                key=public,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                # The times are compared with Redis' clock, in `read`.
                options={"require": list(_TYPES), "strict_aud": True, "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidToken from error
        if any(type(claims[name]) is not kind for name, kind in _TYPES.items()) or claims["type"] != "access":
            raise InvalidToken
        if any(type(word) is not str for name in ("roles", "permissions", "amr") for word in claims[name]):
            raise InvalidToken
        if not all(is_id(claims[name]) for name in ("sub", "sid", "jti")):
            raise InvalidToken
        if not all(0 <= claims[name] < _LATEST for name in ("iat", "exp", "ver", "auth_time")):
            raise InvalidToken
        return Principal(
            user_id=claims["sub"],
            session_id=claims["sid"],
            jti=claims["jti"],
            email=claims["email"],
            roles=tuple(claims["roles"]),
            permissions=tuple(claims["permissions"]),
            amr=tuple(claims["amr"]),
            auth_time=claims["auth_time"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            epoch=claims["ver"],
            kid=kid,
        )

    def _remember(self, digest: bytes, principal: Principal) -> None:
        """First in, first out: a token is asked about for minutes after it was made, and then no more."""
        self._remembered[digest] = principal
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


def _segment(raw: bytes) -> str:
    """A part of a token: base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
