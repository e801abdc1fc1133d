"""Who is asking. Every route says who may: `anyone`, `optional_user`, `user`, `person`, `caller`, `role(...)` or
`permission(...)`.

    @routes.get("/api/users/{id}")
    @guard.user
    async def ...

A header wins over a cookie. An API key does where permissions are asked for, and for a `caller`; a `user` is a person
who is signed in, and a key has no roles. Whoever was recognised by a cookie must bring the session's CSRF token for
anything that is not safe.
"""

import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps

from aiohttp import hdrs, web

from service.accounts.user import User
from service.apikeys.keys import PREFIX
from service.client import Client
from service.errors import Forbidden, InvalidApiKey, InvalidToken, NoToken, NotSignedIn
from service.http.body import arrived
from service.http.csrf import SAFE
from service.parts import kept, parts
from service.settings import LOOPBACK
from service.tokens.access import Principal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guard = Callable[[Handler], Handler]

_ACCOUNT = web.RequestKey("account", User)
_PRINCIPAL = web.RequestKey("principal", Principal)
_CLIENT = web.RequestKey("client", Client)
_USER_AGENT_LONGEST = 256


@dataclass(frozen=True)
class Access:
    """Who may use a route; kept on its handler as `access`, for the documentation and the tests."""

    who: str
    any_of: tuple[str, ...] = ()


def principal(request: web.Request) -> Principal:
    """Who is asking, on a route that needs to know."""
    return request[_PRINCIPAL]


def optional_principal(request: web.Request) -> Principal | None:
    return kept(request, _PRINCIPAL)


def account(request: web.Request) -> User:
    """The account of who is asking, on a route for a `person`."""
    return request[_ACCOUNT]


def client(request: web.Request) -> Client:
    """Where the request comes from and what sent it."""
    if (known := kept(request, _CLIENT)) is None:
        sent = request.headers.get(hdrs.USER_AGENT, "")[:_USER_AGENT_LONGEST]
        agent = sent if sent.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in sent)
        known = request[_CLIENT] = Client(address(request), agent)
    return known


def address(request: web.Request) -> str:
    """The address that the request comes from."""
    return parts(request).proxies.address(request.remote, request.headers.getall(hdrs.X_FORWARDED_FOR, ()))


def from_here(request: web.Request) -> bool:
    """Whether this machine asks, under a name of its own: a page elsewhere could give its name our address."""
    try:
        peer = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return False
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    named = host.strip("[]") in LOOPBACK
    return peer.is_loopback and named and hdrs.X_FORWARDED_FOR not in request.headers


def bearer_token(request: web.Request) -> str | None:
    """The token of the `Authorization` header (RFC 6750, section 2.1); raises `InvalidToken` for a broken one."""
    headers = request.headers.getall(hdrs.AUTHORIZATION, ())
    if len(headers) > 1:
        raise InvalidToken("More than one Authorization header was sent")
    scheme, _, token = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() != "bearer":
        return None  # another scheme is for somebody else, a proxy with a password of its own
    return token.strip(" ")


def api_key(request: web.Request, bearer: str | None) -> str | None:
    """The API key of the request, from either header; raises `InvalidApiKey` where they say different things."""
    sent = request.headers.getall("X-API-Key", ())
    if not sent:
        return bearer if bearer and bearer.startswith(PREFIX) else None
    if len(sent) > 1 or bearer not in (None, sent[0]):
        raise InvalidApiKey("More than one credential was sent")
    return sent[0]


async def identify(request: web.Request, with_account: bool = False) -> Principal:
    """Who is asking, a person or an API key; raises `NotSignedIn` or `CsrfFailed`."""
    its, bearer = parts(request), bearer_token(request)
    if (key := api_key(request, bearer)) is not None:
        return await its.api_keys.holder(key)
    token = bearer if bearer is not None else its.cookies.access_token(request)
    if token is None:
        raise NoToken
    if with_account:
        found, request[_ACCOUNT] = await its.check.person(token)
    else:
        found = await its.check.principal(token, lately=request.method in SAFE)
    if bearer is None:
        its.csrf.check(request, found.session_id)
    return found


def anyone(handler: Handler) -> Handler:
    """The route asks nobody who they are."""
    handler.access = Access("anyone")  # type: ignore[attr-defined]
    return handler


def user(handler: Handler) -> Handler:
    """The route is for those who are signed in themselves; an API key does not do."""
    return _guarded(handler, Access("user"), lambda _: ())


def person(handler: Handler) -> Handler:
    """As `user`, for a route that needs their account: `account` has it, read in one round trip with the check."""
    return _guarded(handler, Access("user"), lambda _: (), with_account=True)


def caller(handler: Handler) -> Handler:
    """The route is for those who are signed in, and for API keys."""
    return _guarded(handler, Access("user or API key"), lambda _: ())


def role(*roles: str) -> Guard:
    """The route is for those with any of these roles."""
    return lambda handler: _guarded(handler, Access("role", roles), lambda found: found.roles)


def permission(*permissions: str) -> Guard:
    """The route is for those with any of these permissions."""
    return lambda handler: _guarded(handler, Access("permission", permissions), lambda found: found.permissions)


def optional_user(handler: Handler) -> Handler:
    """The route works with and without a user; a bad token counts as none, and so does an API key."""

    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        with suppress(NotSignedIn):
            found = await identify(request)
            if not found.key_id:
                request[_PRINCIPAL] = found
        return await handler(request)

    guarded.access = Access("optional user")  # type: ignore[attr-defined]
    return guarded


def _guarded(
    handler: Handler, access: Access, has: Callable[[Principal], tuple[str, ...]], with_account: bool = False
) -> Handler:
    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        request[_PRINCIPAL] = admitted(await identify(request, with_account))
        if not request.content.is_eof():
            # Who may is decided when all of the request is here. Otherwise somebody who sends it slowly, and is put out
            # meanwhile, would still have their way at the end of it.
            await arrived(request)
            request[_PRINCIPAL] = admitted(await identify(request, with_account))
        return await handler(request)

    def admitted(found: Principal) -> Principal:
        if found.key_id and access.who == "user":
            raise Forbidden("An API key cannot do this: it takes a person who is signed in")
        if access.any_of and not set(access.any_of) & set(has(found)):
            raise Forbidden(required=list(access.any_of))
        return found

    guarded.access = access  # type: ignore[attr-defined]
    return guarded
