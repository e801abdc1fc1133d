"""An API that checks Gatepost's access tokens itself, with FastAPI and PyJWT: uvicorn app:app

Needs fastapi, uvicorn and pyjwt[crypto] 2.15 or newer.
"""

import os
from collections.abc import Callable
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

ISSUER = os.environ.get("GATEPOST_ISSUER", "http://localhost:8000")  # JWT_ISSUER there
AUDIENCE = os.environ.get("GATEPOST_AUDIENCE", ISSUER)  # JWT_AUDIENCE there
JWKS = os.environ.get("GATEPOST_JWKS", f"{ISSUER}/.well-known/jwks.json")

FRESH = 300  # seconds that the keys may be kept
COOL_DOWN = 30  # seconds between two fetches, whatever `kid` strangers invent


class Keys(jwt.PyJWKClient):
    """PyJWT's own, but while no newer keys are to be had it goes on with those it has."""

    _last: dict[str, Any] | None = None

    def fetch_data(self) -> dict[str, Any]:
        try:
            self._last = super().fetch_data()
        except jwt.PyJWKClientConnectionError:
            if self._last is None:
                raise
        return self._last


keys = Keys(JWKS, lifespan=FRESH, cooldown_duration=COOL_DOWN, timeout=5)


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a Gatepost access token; raises `jwt.PyJWTError`."""
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    key = keys.get_signing_key(header.get("kid", ""))
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


def user(
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> dict[str, Any]:
    """Who is asking. A plain function: FastAPI runs it in a thread, as fetching the keys waits."""
    if shown is None:
        raise HTTPException(401, "no token", {"WWW-Authenticate": "Bearer"})
    try:
        return claims_of(shown.credentials)
    except jwt.PyJWKClientConnectionError as error:
        raise HTTPException(503, "the keys cannot be fetched", {"Retry-After": "1"}) from error
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise HTTPException(401, "invalid token", {"WWW-Authenticate": 'Bearer error="invalid_token"'}) from error


User = Annotated[dict[str, Any], Depends(user)]


def role(name: str) -> Callable[[User], None]:
    """Lets in only who has this role."""

    def check(user: User) -> None:
        if name not in user["roles"]:
            raise HTTPException(403, f"needs the role {name}")

    return check


app = FastAPI()


@app.get("/orders")
def orders(user: User) -> dict[str, Any]:
    return {"user": user["sub"], "orders": []}


@app.get("/reports", dependencies=[Depends(role("admin"))])
def reports(user: User) -> dict[str, Any]:
    return {"user": user["sub"], "reports": []}
