"""Sessions over HTTP: sign in, refresh, sign out, and see where one is signed in."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import Field

from service.accounts.fields import Email, Password
from service.errors import (
    AccountDisabled,
    CsrfFailed,
    EmailUnverified,
    InvalidCredentials,
    InvalidRefreshToken,
    InvalidToken,
    NoRefreshToken,
    NotFound,
    NotSignedIn,
    Overloaded,
    RefreshTokenReused,
    SessionEnded,
)
from service.http import answers, browser, guard, shapes
from service.http.body import Body, at_hand, read, read_optional
from service.http.browser import with_browser_session
from service.http.contract import BEARER, BROWSER, COOKIE, CSRF, MODE, REFRESH, Contract
from service.http.csrf import HEADER
from service.http.guard import bearer_token, client, principal
from service.http.problems import REFRESHED_BY_COOKIE
from service.http.signing_in import goodbye, greet, wants_cookies, welcome
from service.http.throttle import charge, network, pay, unless_used_up
from service.limits.limiter import Charge
from service.parts import parts
from service.sessions.families import EndReason, Session
from service.sessions.refresh_tokens import RefreshToken
from service.tokens.access import Principal

routes = web.RouteTableDef()

# What nearly every client sends: this one member, and a string without escapes. `Refresh` has the say over all else.
_USUAL = re.compile(rb'\s*{\s*"refreshToken"\s*:\s*"([\w-]*)"\s*}\s*'.replace(rb"\s", rb"[ \t\r\n]"), re.ASCII)


class Credentials(Body):
    email: Email
    password: Password


class Refresh(Body):
    refresh_token: Annotated[str, Field(examples=["rt_an-example-that-opens-nothing"])] | None = None


@dataclass(frozen=True)
class Presented:
    """A refresh token; it goes back the way it came."""

    token: RefreshToken
    in_cookie: bool


@routes.post("/api/auth/login")
@guard.anyone
@unless_used_up("login-address")
@with_browser_session
@Contract(
    takes=Credentials,
    gives={200: shapes.SignedIn},
    parameters=(MODE,),
    raises=(InvalidCredentials, AccountDisabled, EmailUnverified, Overloaded),
    limits=("login", "login-address", "login-account"),
    sets_cookies=(200,),
)
async def login(request: web.Request) -> web.Response:
    """Sign in with an email and a password."""
    cookies = wants_cookies(request)
    sent, here = await read(request, Credentials), network(request)
    await charge(
        request,
        Charge("login", (here, sent.email)),
        Charge("login-address", (here,)),
        Charge("login-account", (sent.email,), quiet=True, spared=(sent.email, here)),
    )
    signed = await parts(request).signin.with_password(sent.email, sent.password, client(request))
    await greet(request, signed)
    return await welcome(request, signed, in_cookies=cookies)


@routes.post("/api/auth/refresh")
@guard.anyone
@Contract(
    takes=Refresh,
    may_be_empty=True,
    gives={200: shapes.Tokens},
    raises=(NoRefreshToken, InvalidRefreshToken, RefreshTokenReused, SessionEnded, CsrfFailed),
    limits=("refresh",),
    sets_cookies=(200, 401),
    credentials=((REFRESH, CSRF), ()),
)
async def refresh(request: web.Request) -> web.Response:
    """Trade the refresh token for a new access token and its successor."""
    presented = await _presented(request)
    due = Charge("refresh", (presented.token.session_id,), presented.token.user_id)
    signed = await pay(request, due, partial(parts(request).signin.renew, presented.token, client(request)))
    # The loser of a race gets the current cookie too: both tabs must leave with the same successor.
    return answers.with_tokens(request, signed, in_cookies=presented.in_cookie)


@routes.post("/api/auth/logout")
@guard.anyone
@Contract(
    takes=Refresh,
    may_be_empty=True,
    gives={204: None},
    raises=(CsrfFailed, InvalidToken),
    sets_cookies=(204,),
    credentials=((BEARER,), (COOKIE, CSRF), (REFRESH, CSRF), ()),
)
async def logout(request: web.Request) -> web.Response:
    """Sign out with whatever credential is left; once out, it is out everywhere."""
    for (user_id, session_id), holder in (await _held(request)).items():
        await parts(request).signin.end(user_id, session_id, EndReason.LOGOUT, client(request), holder)
    return goodbye(request)


@routes.post("/api/auth/logout-all")
@guard.user
@Contract(gives={204: None}, sets_cookies=(204,))
async def logout_all(request: web.Request) -> web.Response:
    """Sign out everywhere."""
    await parts(request).signin.end_all(principal(request).user_id, EndReason.LOGOUT_ALL, client(request))
    return goodbye(request)


@routes.get("/api/auth/sessions")
@guard.user
@Contract(gives={200: shapes.SessionList})
async def sessions(request: web.Request) -> web.Response:
    """Where I am signed in."""
    asking = principal(request)
    found = await parts(request).families.of(asking.user_id)
    return answers.answer(
        {"items": [_shape(session, asking.session_id) for session in found], "nextCursor": None},
    )


@routes.delete("/api/auth/sessions/{id}")
@guard.user
@Contract(gives={204: None}, raises=(NotFound,), sets_cookies=(204,))
async def end_session(request: web.Request) -> web.Response:
    """Sign out one of my devices."""
    asking, session_id = principal(request), request.match_info["id"]
    if not await parts(request).signin.end(asking.user_id, session_id, EndReason.REVOKED, client(request)):
        raise NotFound("There is no such session")
    return goodbye(request) if session_id == asking.session_id else answers.nothing()


@routes.get("/api/auth/csrf-token")
@guard.anyone
@with_browser_session
@Contract(
    gives={200: shapes.Csrf},
    limits=("browser",),
    sets_cookies=(200,),
    credentials=((COOKIE,), (REFRESH,), (BROWSER,), ()),
)
async def csrf_token(request: web.Request) -> web.Response:
    """The CSRF token of this browser: of its session, or of its visit where nobody has signed in."""
    its = parts(request)
    if (bound_to := await _cookie_session(request)) is None:
        if await browser.known_binding(request) is None:
            await charge(request, Charge("browser", (network(request),)))
        bound_to = await browser.binding(request)
    token = its.csrf.token(bound_to)
    response = answers.answer({"csrfToken": token})
    its.cookies.set_csrf(response, token)
    return response


async def _presented(request: web.Request) -> Presented:
    """The refresh token of this request, from its body or else its cookie; raises `RefreshRefused`."""
    its, text = parts(request), await _in_body(request)
    if text is not None:
        return Presented(its.refresh_tokens.read(text), in_cookie=False)
    request[REFRESHED_BY_COOKIE] = True
    if not (texts := its.cookies.refresh_tokens(request)):
        raise NoRefreshToken
    found = [Presented(token, in_cookie=True) for token in _authentic(request, texts)]
    if not found:
        raise InvalidRefreshToken
    sent = request.headers.get(HEADER, "")
    if not (confirmed := [each for each in found if its.csrf.confirms(sent, each.token.session_id)]):
        raise CsrfFailed
    return confirmed[0]


async def _in_body(request: web.Request) -> str | None:
    """The refresh token of the body, `None` where it has none."""
    if usual := _USUAL.fullmatch(at_hand(request)):
        return usual[1].decode("ascii")
    body = await read_optional(request, Refresh)
    return body.refresh_token if body else None


async def _held(request: web.Request) -> dict[tuple[str, str], Principal | None]:
    """The sessions that this request holds a credential of, with its access token where there is one.

    Only what is authentic counts; whether it is still valid does not matter to somebody who wants out. A session that
    only a cookie vouches for must be confirmed by its CSRF token.
    """
    its, text = parts(request), await _in_body(request)
    brought: dict[tuple[str, str], Principal | None] = {}
    kept: dict[tuple[str, str], Principal | None] = {}
    with suppress(InvalidRefreshToken):
        if text is not None:
            token = its.refresh_tokens.read(text)
            brought[token.user_id, token.session_id] = None
    for token in _authentic(request, its.cookies.refresh_tokens(request)):
        kept[token.user_id, token.session_id] = None
    for held, text in ((brought, bearer_token(request)), (kept, its.cookies.access_token(request))):
        with suppress(NotSignedIn):
            if text is not None:
                holder = its.access_tokens.read(text, expired=True)
                held[holder.user_id, holder.session_id] = holder
    sent = request.headers.get(HEADER, "")
    confirmed = {session: holder for session, holder in kept.items() if its.csrf.confirms(sent, session[1])}
    if kept and not confirmed and not brought:
        raise CsrfFailed
    return confirmed | brought


async def _cookie_session(request: web.Request) -> str | None:
    """The session of this browser's cookies.

    A sibling domain can plant a refresh cookie, which has no `__Host-` name, and with a CSRF token for it would sign
    this browser in as somebody else. So it counts only beside a CSRF cookie that goes with it, which nobody can plant.
    """
    its = parts(request)
    with suppress(NotSignedIn):
        if text := its.cookies.access_token(request):
            return its.access_tokens.read(text, expired=True).session_id
    beside = its.cookies.csrf_token(request)
    for token in _authentic(request, its.cookies.refresh_tokens(request)):
        if not its.cookies.host_bound or its.csrf.confirms(beside, token.session_id):
            return token.session_id
    return None


def _authentic(request: web.Request, texts: list[str]) -> Iterator[RefreshToken]:
    """Those of these refresh tokens that we have written."""
    for text in texts:
        with suppress(InvalidRefreshToken):
            yield parts(request).refresh_tokens.read(text)


def _shape(session: Session, current: str) -> shapes.Session:
    return {
        "id": session.id,
        "current": session.id == current,
        "device": session.device,
        "ip": session.ip,
        "userAgent": session.user_agent,
        "createdAt": answers.moment(session.created_at),
        "lastUsedAt": answers.moment(session.last_used_at),
        "expiresAt": answers.moment(session.expires_at),
    }
