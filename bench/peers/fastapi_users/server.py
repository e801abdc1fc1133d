"""FastAPI-Users as its guide has it: bearer transport, Redis strategy, its own routers; users are kept in Redis too.

It has no refresh tokens and no rate limits. Passwords are hashed as it does by default; with HASH_ROUNDS it takes
bcrypt of that cost, so that many can be signed in at once.
"""

import json
import os
import uuid
from typing import Any

import redis.asyncio
import uvicorn
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, RedisStrategy
from fastapi_users.db import BaseUserDatabase
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.bcrypt import BcryptHasher
from pydantic import BaseModel

LASTS = 6 * 3600
store = redis.asyncio.from_url(os.environ["REDIS_URL"], decode_responses=True)


class User(BaseModel):
    id: uuid.UUID
    email: str
    hashed_password: str
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False


class UserRead(schemas.BaseUser[uuid.UUID]):
    pass


class UserCreate(schemas.BaseUserCreate):
    pass


class Users(BaseUserDatabase[User, uuid.UUID]):
    """A record for each user, and one to find it by the email."""

    async def get(self, id: uuid.UUID) -> User | None:
        found = await store.get(f"user:{id}")
        return User.model_validate_json(found) if found else None

    async def get_by_email(self, email: str) -> User | None:
        found = await store.get(f"email:{email.lower()}")
        return await self.get(uuid.UUID(found)) if found else None

    async def create(self, create_dict: dict[str, Any]) -> User:
        return await self._keep(User(id=uuid.uuid4(), **create_dict))

    async def update(self, user: User, update_dict: dict[str, Any]) -> User:
        return await self._keep(user.model_copy(update=update_dict))

    async def _keep(self, user: User) -> User:
        await store.set(f"user:{user.id}", json.dumps(user.model_dump(mode="json")))
        await store.set(f"email:{user.email.lower()}", str(user.id))
        return user


class Manager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = os.environ["SECRET"]
    verification_token_secret = os.environ["SECRET"]


async def managed() -> Manager:
    if rounds := os.environ.get("HASH_ROUNDS"):
        return Manager(Users(), PasswordHelper(PasswordHash((BcryptHasher(rounds=int(rounds)),))))
    return Manager(Users())


backend = AuthenticationBackend(
    name="redis",
    transport=BearerTransport(tokenUrl="api/auth/login"),
    get_strategy=lambda: RedisStrategy(store, lifetime_seconds=LASTS),
)
fastapi_users = FastAPIUsers[User, uuid.UUID](managed, [backend])

app = FastAPI()
app.include_router(fastapi_users.get_auth_router(backend), prefix="/api/auth")
app.include_router(fastapi_users.get_register_router(UserRead, UserCreate), prefix="/api/auth")


@app.get("/api/auth/verify")
async def verify(user: User = Depends(fastapi_users.current_user(active=True))) -> dict[str, Any]:  # noqa: B008
    return {"active": True, "sub": str(user.id)}


@app.get("/ready")
async def ready() -> dict[str, bool]:
    return {"status": bool(await store.ping())}


app.include_router(fastapi_users.get_users_router(UserRead, UserCreate), prefix="/api/auth")

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=False, log_level="warning")
