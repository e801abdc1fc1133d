"""An API that checks Gatepost's access tokens itself, with aiohttp and PyJWT: python app.py

Needs aiohttp and pyjwt[crypto].
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import jwt
from aiohttp import ClientError, ClientSession, ClientTimeout, web

ISSUER = os.environ.get("GATEPOST_ISSUER", "http://localhost:8000")  # JWT_ISSUER there
AUDIENCE = os.environ.get("GATEPOST_AUDIENCE", ISSUER)  # JWT_AUDIENCE there
JWKS = os.environ.get("GATEPOST_JWKS", f"{ISSUER}/.well-known/jwks.json")

FRESH = 300  # seconds that the keys may be kept
COOL_DOWN = 30  # seconds between two fetches, whatever `kid` strangers invent

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KeysAway(Exception):
    """No key was ever fetched."""


class Keys:
    """Gatepost's public keys by their `kid`. While no newer ones are to be had, those here serve."""

    def __init__(self, http: ClientSession) -> None:
        self._http = http
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def get(self, kid: str) -> jwt.PyJWK | None:
        if self._is_due(kid):
            async with self._one_at_a_time:
                if self._is_due(kid):
                    await self._fetch()
        if not self._keys:
            raise KeysAway
        return self._keys.get(kid)

    def _is_due(self, kid: str) -> bool:
        pause = FRESH if kid in self._keys else COOL_DOWN if self._keys else 1
        return time.monotonic() - self._asked > pause

    async def _fetch(self) -> None:
        try:
            async with self._http.get(JWKS, allow_redirects=False, raise_for_status=True) as answer:
                found = jwt.PyJWKSet.from_dict(json.loads(await answer.read()))
            self._keys = {key.key_id: key for key in found.keys if key.key_id}
        except (ClientError, TimeoutError, ValueError, jwt.PyJWTError):
            pass  # the next one in a while
        self._asked = time.monotonic()


KEYS = web.AppKey("KEYS", Keys)


async def keys(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(timeout=ClientTimeout(total=5)) as http:
        app[KEYS] = Keys(http)
        yield


async def claims_of(token: str, keys: Keys) -> dict[str, Any]:
    """The claims of a Gatepost access token; raises `jwt.PyJWTError` or `KeysAway`."""
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    key = await keys.get(header.get("kid", ""))
    if key is None:
        raise jwt.InvalidTokenError("an unknown key")
    claims = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],  # the key's own alone: never HS256, never none
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=10,  # seconds
        options={"require": ["iss", "aud", "sub", "sid", "jti", "iat", "exp"], "strict_aud": True},
    )
    if claims.get("type") != "access":
        raise jwt.InvalidTokenError("not an access token")
    return claims


def signed_in(role: str | None = None) -> Callable[[Handler], Handler]:
    """Lets in who has a token, and if a role is named who has that; `request["user"]` are the claims."""

    def guard(handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            shown = re.fullmatch(r"Bearer +(\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
            if not shown:
                return refusal(401, "no token", {"WWW-Authenticate": "Bearer"})
            try:
                request["user"] = await claims_of(shown[1], request.app[KEYS])
            except KeysAway:
                return refusal(503, "the keys cannot be fetched", {"Retry-After": "1"})
            except (jwt.PyJWTError, ValueError, RecursionError):
                return refusal(401, "invalid token", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
            if role and role not in request["user"]["roles"]:
                return refusal(403, f"needs the role {role}")
            return await handler(request)

        return guarded

    return guard


def refusal(status: int, error: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": error}, status=status, headers=headers)


@signed_in()
async def orders(request: web.Request) -> web.Response:
    return web.json_response({"user": request["user"]["sub"], "orders": []})


@signed_in("admin")
async def reports(request: web.Request) -> web.Response:
    return web.json_response({"user": request["user"]["sub"], "reports": []})


app = web.Application()
app.cleanup_ctx.append(keys)
app.add_routes([web.get("/orders", orders), web.get("/reports", reports)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3000")))
