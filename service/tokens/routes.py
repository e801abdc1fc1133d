"""Tokens over HTTP: check one, end one, and what is needed to check them elsewhere."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

import orjson
from aiohttp import web

from service.errors import Forbidden, InvalidField, StoreUnavailable
from service.http import answers, guard, shapes
from service.http.body import read_form
from service.http.contract import Contract, Parameter
from service.http.guard import client, principal
from service.http.response import Answer, header_lines
from service.parts import parts
from service.tokens import discovery
from service.tokens.access import REMEMBERED, Principal
from service.tokens.keys import JWKS_FRESH

routes = web.RouteTableDef()

INTROSPECT = "tokens:introspect"
_MANY = {"type": "array", "items": {"type": "string"}}
_ROLE = Parameter("role", "Roles, any of which will do.", _MANY)
_PERMISSION = Parameter("permission", "Permissions, any of which will do.", _MANY)
_TOLD = {
    "X-Auth-User": "The id of who is asking.",
    "X-Auth-Email": "Their email.",
    "X-Auth-Roles": "Their roles, with commas between.",
    "X-Auth-Permissions": "Their permissions, with commas between.",
}
_FRESH = {"Cache-Control": "How long it may be kept."}
_CACHEABLE = {"Cache-Control": f"public, max-age={int(JWKS_FRESH.total_seconds())}"}


@routes.get("/api/auth/verify")
@guard.caller
@Contract(gives={200: shapes.Verified}, parameters=(_ROLE, _PERMISSION), raises=(Forbidden,), headers=_TOLD)
async def verify(request: web.Request) -> web.Response:
    """Whether the caller is signed in or has an API key, for a proxy that asks before it lets a request through.

    `?role=` and `?permission=`, repeated for "any of", refuse those who have none of them; any other parameter is
    refused. The headers are for the application behind the proxy.
    """
    asking = principal(request)
    if request.query_string:
        _refuse_unknown(request.query)
        _require(asking.roles, request.query.getall("role", []))
        _require(asking.permissions, request.query.getall("permission", []))
    body, lines = _identity(asking) if asking.key_id else _remembered_identity(asking)
    return Answer(body, content_type=answers.JSON, lines=lines)


@routes.post("/api/auth/introspect")
@guard.permission(INTROSPECT)
@Contract(takes_form=shapes.TokenForm, gives={200: shapes.Introspection})
async def introspect(request: web.Request) -> web.Response:
    """Whether a token is live and what it says (RFC 7662): `token` in a form."""
    sent = await read_form(request, "token")
    return answers.answer(await parts(request).inspection.introspect(sent["token"]))


@routes.post("/api/auth/revoke")
@guard.anyone
@Contract(takes_form=shapes.TokenForm, gives={200: None})
async def revoke(request: web.Request) -> web.Response:
    """End a token (RFC 7009): `token` in a form. Whoever has it may; no cookie vouches, so none can be abused."""
    sent = await read_form(request, "token")
    await parts(request).inspection.revoke(sent["token"], client(request))
    return Answer()


@routes.get("/.well-known/oauth-authorization-server")
@guard.anyone
@Contract(gives={200: shapes.Metadata}, headers=_FRESH, redis=False)
async def oauth_metadata(request: web.Request) -> web.Response:
    """What this service is for software (RFC 8414)."""
    return answers.answer(discovery.metadata(parts(request).settings), headers=_CACHEABLE)


@routes.get("/.well-known/openid-configuration")
@guard.anyone
@Contract(gives={200: shapes.Metadata}, headers=_FRESH, redis=False)
async def openid_metadata(request: web.Request) -> web.Response:
    """The same where OpenID clients look for it; no ID tokens are issued here."""
    return answers.answer(discovery.metadata(parts(request).settings), headers=_CACHEABLE)


@routes.get("/.well-known/jwks.json")
@guard.anyone
@Contract(gives={200: shapes.Keys}, headers=_FRESH, raises=(StoreUnavailable,), redis=False)
async def jwks(request: web.Request) -> web.Response:
    """The public keys (RFC 7517)."""
    return answers.answer(parts(request).keys.jwks(), headers=_CACHEABLE)


def _refuse_unknown(asked: Iterable[str]) -> None:
    """Raise `ValidationFailed` for a demand that is not understood: a yes to `?roles=admin` would let everybody in."""
    known = (_ROLE.name, _PERMISSION.name)
    if unknown := [name for name in asked if name not in known]:
        raise InvalidField(unknown[0], f"is not known here; what can be asked for is {' and '.join(known)}")


def _require(held: tuple[str, ...], any_of: list[str]) -> None:
    if any_of and not set(any_of) & set(held):
        raise Forbidden(required=any_of)


def _identity(asking: Principal) -> tuple[bytes, str]:
    """Who is asking, as the body and the headers of an answer."""
    told = {
        "active": True,
        "sub": asking.user_id,
        "sid": asking.session_id or None,
        "roles": asking.roles,
        "permissions": asking.permissions,
        "expiresAt": answers.moment(datetime.fromtimestamp(asking.expires_at, UTC) if asking.expires_at else None),
    }
    headers = {
        "X-Auth-User": asking.user_id,
        "X-Auth-Email": asking.email,
        "X-Auth-Roles": ",".join(asking.roles),
        "X-Auth-Permissions": ",".join(asking.permissions),
    }
    return orjson.dumps(told), header_lines(headers)


# A token is asked about again and again, and what it says stays the same; whether it is still good is not kept here.
_remembered_identity = lru_cache(maxsize=REMEMBERED)(_identity)
