"""Access tokens over HTTP: check one, and the public keys to check them with elsewhere."""

from datetime import UTC, datetime

from aiohttp import web

from service.errors import Forbidden
from service.http import answers, guard
from service.http.guard import principal
from service.parts import parts
from service.tokens.access import Principal

routes = web.RouteTableDef()


@routes.get("/api/auth/verify")
@guard.user
async def verify(request: web.Request) -> web.Response:
    """Whether the caller is signed in, for a proxy that asks before it lets a request through.

    `?role=` and `?permission=`, repeated for "any of", refuse those who have none of them. The headers are for the
    application behind the proxy.
    """
    asking = principal(request)
    _require(asking.roles, request.query.getall("role", []))
    _require(asking.permissions, request.query.getall("permission", []))
    return answers.answer(
        {
            "active": True,
            "sub": asking.user_id,
            "sid": asking.session_id,
            "roles": asking.roles,
            "permissions": asking.permissions,
            "expiresAt": answers.moment(datetime.fromtimestamp(asking.expires_at, UTC)),
        },
        headers=_identity(asking),
    )


@routes.get("/.well-known/jwks.json")
@guard.anyone
async def jwks(request: web.Request) -> web.Response:
    """The public keys (RFC 7517)."""
    return answers.answer(parts(request).keys.jwks(), headers={"Cache-Control": "public, max-age=300"})


def _require(held: tuple[str, ...], any_of: list[str]) -> None:
    if any_of and not set(any_of) & set(held):
        raise Forbidden(required=any_of)


def _identity(asking: Principal) -> dict[str, str]:
    return {
        "X-Auth-User": asking.user_id,
        "X-Auth-Email": asking.email,
        "X-Auth-Roles": ",".join(asking.roles),
        "X-Auth-Permissions": ",".join(asking.permissions),
    }
