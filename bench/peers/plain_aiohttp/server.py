"""aiohttp with redis-py, PyJWT and bcrypt, written the obvious way, on uvloop.

A session is a key in Redis, and every check asks for it; a refresh token is random, kept as a digest and taken once.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import bcrypt
import jwt
import redis.asyncio
import uvloop
from aiohttp import web

SECRET = os.environ["SECRET"]
HASH_ROUNDS = int(os.environ.get("HASH_ROUNDS", "10"))
LOGIN_LIMIT = int(os.environ.get("LOGIN_LIMIT", "5"))
LOGIN_WINDOW = 15 * 60
ACCESS_LASTS = 6 * 3600
SESSION_LASTS = 7 * 24 * 3600

STORE = web.AppKey("store", redis.asyncio.Redis)
CLAIMS = web.RequestKey("claims", dict[str, Any])
routes = web.RouteTableDef()
Handler = Callable[[web.Request], Awaitable[web.Response]]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def refusal(status: int, error: str, **headers: str) -> web.Response:
    return web.json_response(
        {"error": error}, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def authenticated(handler: Handler) -> Handler:
    async def checked(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return refusal(401, "NO_TOKEN")
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"])
        except jwt.PyJWTError:
            return refusal(401, "INVALID_TOKEN")
        if not await request.app[STORE].exists(f"session:{claims['sid']}"):
            return refusal(401, "TOKEN_REVOKED")
        request[CLAIMS] = claims
        return await handler(request)

    return checked


async def signed_in(store: redis.asyncio.Redis, user_id: str, email: str, sid: str) -> web.Response:
    refresh_token = secrets.token_urlsafe(24)
    async with store.pipeline() as pipeline:
        pipeline.set(f"session:{sid}", user_id, ex=SESSION_LASTS)
        pipeline.set(f"refresh:{digest(refresh_token)}", f"{sid} {user_id} {email}", ex=SESSION_LASTS)
        await pipeline.execute()
    now = int(time.time())
    claims = {"sub": user_id, "sid": sid, "email": email, "iat": now, "exp": now + ACCESS_LASTS}
    access_token = jwt.encode(claims, SECRET, algorithm="HS256")
    return web.json_response(
        {"accessToken": access_token, "tokenType": "Bearer", "expiresIn": ACCESS_LASTS, "refreshToken": refresh_token}
    )


@routes.post("/api/auth/register")
async def register(request: web.Request) -> web.Response:
    store, sent = request.app[STORE], await request.json()
    user_id = secrets.token_urlsafe(16)
    hashed = await asyncio.to_thread(bcrypt.hashpw, sent["password"].encode(), bcrypt.gensalt(HASH_ROUNDS))
    if not await store.set(f"email:{sent['email']}", user_id, nx=True):
        return refusal(409, "EMAIL_EXISTS")
    user = {"id": user_id, "email": sent["email"], "firstName": "Ada", "lastName": "Lovelace", "roles": "user"}
    await store.hset(f"user:{user_id}", mapping={**user, "password": hashed.decode()})
    return web.json_response({"id": user_id}, status=201)


@routes.post("/api/auth/login")
async def login(request: web.Request) -> web.Response:
    store = request.app[STORE]
    limit = f"limit:{request.remote}"
    if (calls := await store.incr(limit)) == 1:
        await store.expire(limit, LOGIN_WINDOW)
    if calls > LOGIN_LIMIT:
        return refusal(429, "RATE_LIMITED", Retry_After=str(await store.ttl(limit)))
    sent = await request.json()
    user_id = await store.get(f"email:{sent['email']}")
    user = await store.hgetall(f"user:{user_id}") if user_id else None
    if not user or not await asyncio.to_thread(bcrypt.checkpw, sent["password"].encode(), user["password"].encode()):
        return refusal(401, "INVALID_CREDENTIALS")
    return await signed_in(store, user["id"], user["email"], secrets.token_urlsafe(16))


@routes.post("/api/auth/refresh")
async def refresh(request: web.Request) -> web.Response:
    store, sent = request.app[STORE], await request.json()
    kept = await store.getdel(f"refresh:{digest(sent['refreshToken'])}")
    if not kept:
        return refusal(401, "INVALID_REFRESH_TOKEN")
    sid, user_id, email = kept.split(" ")
    if not await store.exists(f"session:{sid}"):
        return refusal(401, "SESSION_ENDED")
    return await signed_in(store, user_id, email, sid)


@routes.post("/api/auth/logout")
@authenticated
async def logout(request: web.Request) -> web.Response:
    await request.app[STORE].delete(f"session:{request[CLAIMS]['sid']}")
    return web.Response(status=204)


@routes.get("/api/auth/verify")
@authenticated
async def verify(request: web.Request) -> web.Response:
    claims = request[CLAIMS]
    return web.json_response({"active": True, "sub": claims["sub"], "sid": claims["sid"], "expiresAt": claims["exp"]})


@routes.get("/api/auth/me")
@authenticated
async def me(request: web.Request) -> web.Response:
    user = await request.app[STORE].hgetall(f"user:{request[CLAIMS]['sub']}")
    del user["password"]
    return web.json_response({"user": user})


@routes.get("/ready")
async def ready(request: web.Request) -> web.Response:
    return web.json_response({"status": bool(await request.app[STORE].ping())})


def main() -> None:
    app = web.Application()
    app[STORE] = redis.asyncio.from_url(os.environ["REDIS_URL"], decode_responses=True)
    app.add_routes(routes)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
