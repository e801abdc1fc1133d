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

from service.accounts.users import User
from service.apikeys.keys import PREFIX
from service.client import Client
from service.errors import Forbidden, InvalidApiKey, InvalidToken, NoToken, NotSignedIn
from service.http.body import arrived
from service.parts import parts
from service.settings import LOOPBACK
from service.tokens.access import Principal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guard = Callable[[Handler], Handler]
Identify = Callable[[str], Awaitable[Principal]]

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
    return request.get(_PRINCIPAL)


def account(request: web.Request) -> User:
    """The account of who is asking, on a route for a `person`."""
    return request[_ACCOUNT]


def client(request: web.Request) -> Client:
    """Where the request comes from and what sent it."""
    if (known := request.get(_CLIENT)) is None:
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


def api_key(request: web.Request) -> str | None:
    """The API key of the request, from either header; raises `InvalidApiKey` where they say different things."""
    sent, bearer = request.headers.getall("X-API-Key", ()), bearer_token(request)
    if not sent:
        return bearer if bearer and bearer.startswith(PREFIX) else None
    if len(sent) > 1 or bearer not in (None, sent[0]):
        raise InvalidApiKey("More than one credential was sent")
    return sent[0]


async def identify(request: web.Request, check: Identify | None = None) -> Principal:
    """Who is asking, a person or an API key; raises `NotSignedIn` or `CsrfFailed`."""
    its = parts(request)
    check = check or its.check.principal
    if (key := api_key(request)) is not None:
        return await its.api_keys.holder(key)
    if (token := bearer_token(request)) is not None:
        return await check(token)
    if token := its.cookies.access_token(request):
        found = await check(token)
        its.csrf.check(request, found.session_id)
        return found
    raise NoToken


def anyone(handler: Handler) -> Handler:
    """The route asks nobody who they are."""
    handler.access = Access("anyone")  # type: ignore[attr-defined]
    return handler


def user(handler: Handler) -> Handler:
    """The route is for those who are signed in themselves; an API key does not do."""
    return _guarded(handler, Access("user"), lambda _: ())


def person(handler: Handler) -> Handler:
    """As `user`, for a route that needs their account: `account` has it, read in one round trip with the check."""

    async def identify_person(request: web.Request) -> Principal:
        async def check(token: str) -> Principal:
            found, request[_ACCOUNT] = await parts(request).check.person(token)
            return found

        return await identify(request, check)

    return _guarded(handler, Access("user"), lambda _: (), identify_person)


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
    handler: Handler,
    access: Access,
    has: Callable[[Principal], tuple[str, ...]],
    identify: Callable[[web.Request], Awaitable[Principal]] = identify,
) -> Handler:
    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        found = await admitted(request)
        if not request.content.is_eof():
            # Who may is decided when all of the request is here. Otherwise somebody who sends it slowly, and is put out
            # meanwhile, would still have their way at the end of it.
            await arrived(request)
            found = await admitted(request)
        request[_PRINCIPAL] = found
        return await handler(request)

    async def admitted(request: web.Request) -> Principal:
        found = await identify(request)
        if found.key_id and access.who == "user":
            raise Forbidden("An API key cannot do this: it takes a person who is signed in")
        if access.any_of and not set(access.any_of) & set(has(found)):
            raise Forbidden(required=list(access.any_of))
        return found

    guarded.access = access  # type: ignore[attr-defined]
    return guarded
