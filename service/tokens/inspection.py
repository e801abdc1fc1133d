"""What others may ask of us about a token, and what its holder may: is it live (RFC 7662), and end it (RFC 7009).

Both take an access token or a refresh token and know it by its form, so a hint about the type is not needed.
"""

from typing import Any

from service.accounts.users import Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.errors import InvalidRefreshToken, InvalidToken, NotSignedIn
from service.sessions.families import EndReason, Families, Revoked
from service.sessions.refresh_tokens import RefreshTokens
from service.sessions.signin import SignIn
from service.settings import Settings
from service.tokens.access import AccessTokens
from service.tokens.check import Check

NOT_LIVE = {"active": False}


class Inspection:
    """Looks at tokens for those who have been handed one."""

    def __init__(
        self,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        check: Check,
        families: Families,
        users: Users,
        signin: SignIn,
        audit: Audit,
        settings: Settings,
    ) -> None:
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._check = check
        self._families = families
        self._users = users
        self._signin = signin
        self._audit = audit
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience

    async def introspect(self, text: str) -> dict[str, Any]:
        """The members of an introspection response; only `active`, false, for whatever is not live (section 2.2)."""
        try:
            return await (self._refresh_token(text) if text.startswith("rt_") else self._access_token(text))
        except NotSignedIn:
            return NOT_LIVE

    async def revoke(self, text: str, client: Client) -> None:
        """End what a token stands for: an access token itself, a refresh token's whole session. Safe to repeat.

        Whatever is no token of ours, or is over, needs no ending. `StoreUnavailable`: it could not be made sure.
        """
        try:
            if text.startswith("rt_"):
                refresh = self._refresh_tokens.read(text)
                await self._signin.end(refresh.user_id, refresh.session_id, EndReason.REVOKED, client)
                return
            access = self._access_tokens.read(text, expired=True)
        except (InvalidToken, InvalidRefreshToken):
            return
        match await self._families.revoke(access.user_id, access.session_id, access.jti, access.expires_at):
            case Revoked.OVER:
                return
            case Revoked.NOW:
                of: tuple[str, ...] = (access.jti,)
            case Revoked.AGAIN:
                # The first answer may have been lost, and the event with it. But a session has thousands of tokens.
                of = access.jti, access.session_id
        await self._audit.record_once(
            Event.ACCESS_TOKEN_REVOKED, of, user_id=access.user_id, session_id=access.session_id, client=client
        )

    async def _access_token(self, text: str) -> dict[str, Any]:
        found = await self._check.principal(text)
        return {
            "active": True,
            "token_type": "Bearer",
            "scope": " ".join(found.permissions),
            "username": found.email,
            "sub": found.user_id,
            "sid": found.session_id,
            "jti": found.jti,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": found.issued_at,
            "exp": found.expires_at,
            "auth_time": found.auth_time,
            "amr": found.amr,
            "roles": found.roles,
        }

    async def _refresh_token(self, text: str) -> dict[str, Any]:
        token = self._refresh_tokens.read(text)
        expires_at = await self._families.expiry(token)
        owner = await self._users.find(token.user_id) if expires_at else None
        if expires_at is None or owner is None or not owner.active:
            return NOT_LIVE
        return {
            "active": True,
            "token_type": "refresh_token",
            "username": owner.email,
            "sub": token.user_id,
            "sid": token.session_id,
            "iss": self._issuer,
            "exp": int(expires_at.timestamp()),
        }
