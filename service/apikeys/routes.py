"""API keys over HTTP: make one, see them, revoke one. Only a person who is signed in does that, never a key."""

from datetime import timedelta
from typing import Annotated

from aiohttp import web
from pydantic import Field

from service.accounts.fields import Name
from service.apikeys.keys import ApiKey
from service.audit.events import Event
from service.errors import NotFound, TooManyKeys
from service.http import answers, guard, shapes
from service.http.body import Body, read
from service.http.contract import Contract
from service.http.guard import client, principal
from service.http.throttle import charge
from service.limits.limiter import Charge
from service.parts import parts

routes = web.RouteTableDef()

Permission = Annotated[str, Field(max_length=64, pattern=r"^[!-~]+$")]
_LONGEST = int(timedelta(days=3650).total_seconds())


class NewKey(Body):
    name: Name
    permissions: Annotated[list[Permission], Field(max_length=100, examples=[["profile:read"]])]
    expires_in: Annotated[int, Field(ge=1, le=_LONGEST, description="Seconds.", examples=[86400])] | None = None


@routes.post("/api/auth/api-keys")
@guard.user
@Contract(takes=NewKey, gives={201: shapes.NewApiKey}, raises=(TooManyKeys,), limits=("apikey",))
async def make(request: web.Request) -> web.Response:
    """Make an API key; this answer is the only one that shows it."""
    asking, wanted = principal(request), await read(request, NewKey)
    await charge(request, Charge("apikey", (asking.user_id,)))
    lifetime = None if wanted.expires_in is None else timedelta(seconds=wanted.expires_in)
    key, text = await parts(request).api_keys.make(asking, wanted.name, wanted.permissions, lifetime)
    await _tell(Event.API_KEY_CREATED, request, key.id)
    return answers.answer({**_shape(key), "apiKey": text}, status=201)


@routes.get("/api/auth/api-keys")
@guard.user
@Contract(gives={200: shapes.ApiKeyList})
async def keys(request: web.Request) -> web.Response:
    """My API keys."""
    found = await parts(request).api_keys.of(principal(request).user_id)
    return answers.answer({"items": [_shape(key) for key in found], "nextCursor": None})


@routes.delete("/api/auth/api-keys/{id}")
@guard.user
@Contract(gives={204: None}, raises=(NotFound,))
async def revoke(request: web.Request) -> web.Response:
    """Revoke one of my API keys."""
    key_id = request.match_info["id"]
    if not await parts(request).api_keys.revoke(principal(request).user_id, key_id):
        raise NotFound("There is no such key")
    await _tell(Event.API_KEY_REVOKED, request, key_id)
    return answers.nothing()


async def _tell(event: Event, request: web.Request, key_id: str) -> None:
    asking = principal(request)
    await parts(request).audit.record(
        event, user_id=asking.user_id, session_id=asking.session_id, client=client(request), key_id=key_id
    )


def _shape(key: ApiKey) -> shapes.ApiKey:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "permissions": key.permissions,
        "createdAt": answers.moment(key.created_at),
        "lastUsedAt": answers.moment(key.last_used_at),
        "expiresAt": answers.moment(key.expires_at),
    }
