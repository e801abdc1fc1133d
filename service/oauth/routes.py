"""Signing in elsewhere over HTTP. Each step answers a navigation with a redirect, and a script with JSON."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec

from aiohttp import hdrs, web

from service.errors import (
    AccountDisabled,
    EmailExists,
    IdentityInUse,
    NotFound,
    OAuthCodeMissing,
    OAuthDenied,
    OAuthEmailUnverified,
    OAuthExchangeFailed,
    OAuthStateInvalid,
    ProviderNotConfigured,
    ProviderUnavailable,
    ReauthenticationRequired,
    RegistrationClosed,
    ServiceError,
)
from service.http import answers, browser, guard, shapes
from service.http.browser import with_browser_session
from service.http.contract import MODE, Contract, Parameter
from service.http.guard import client, principal
from service.http.response import Answer
from service.http.signing_in import arrive, greet, wants_cookies, welcome
from service.http.throttle import limited
from service.oauth.redirects import with_error
from service.oauth.states import Flow
from service.parts import parts
from service.settings import RESERVED

routes = web.RouteTableDef()
P = ParamSpec("P")
Handler = Callable[Concatenate[web.Request, P], Awaitable[web.StreamResponse]]

_REDIRECT_TO = Parameter("redirectTo", "Where to come back to, below an allowed origin.")
_ANSWER = (
    Parameter("code", "What the provider gives for a yes."),
    Parameter("state", "What it was sent with."),
    Parameter("error", "What the provider says for a no."),
    Parameter("iss", "Which provider says so, where it tells (RFC 9207)."),
)
_CALLBACK = (
    NotFound,
    OAuthCodeMissing,
    OAuthStateInvalid,
    OAuthExchangeFailed,
    OAuthEmailUnverified,
    OAuthDenied,
    AccountDisabled,
    RegistrationClosed,
    ReauthenticationRequired,
    ProviderNotConfigured,
    EmailExists,
    IdentityInUse,
    ProviderUnavailable,
)
_RETURN_TO = web.RequestKey("return_to", str)
_OURS = "|".join(sorted(RESERVED - {"google", "github"}))
_NAMED = rf"/api/auth/{{provider:(?!(?:{_OURS})(?:/|$))[A-Za-z0-9_-]+}}"


def to_the_app(handler: Handler[P]) -> Handler[P]:
    """What goes wrong on a navigation sends the person back to the app, with `?error=<code>`, not to a dead end."""

    @wraps(handler)
    async def wrapped(request: web.Request, /, *args: P.args, **kwargs: P.kwargs) -> web.StreamResponse:
        try:
            return await handler(request, *args, **kwargs)
        except ServiceError as error:
            if _wants_json(request):
                raise
            target = request.get(_RETURN_TO) or parts(request).redirects.home
            return _redirect(with_error(target, error.code))

    return wrapped


@routes.get("/api/auth/providers")
@guard.anyone
@Contract(gives={200: shapes.Providers}, redis=False)
async def providers(request: web.Request) -> web.Response:
    """Where one can sign in."""
    its = parts(request)
    listed = [
        {
            "name": provider.name,
            "displayName": provider.display_name,
            "startUrl": f"{its.settings.public_url}/api/auth/{provider.name}",
        }
        for provider in its.oauth.providers.values()
    ]
    return answers.answer({"providers": listed})


@routes.get(_NAMED, allow_head=False)
@guard.anyone
@with_browser_session
@limited("oauth")
@Contract(
    gives={200: shapes.Departure, 302: None},
    parameters=(_REDIRECT_TO, MODE),
    raises=(NotFound, ProviderNotConfigured, ProviderUnavailable),
)
async def start(request: web.Request) -> web.StreamResponse:
    """Leave for a provider: an address for a script, a redirect for a person."""
    its, name = parts(request), request.match_info["provider"]
    its.oauth.provider(name)
    flow = Flow(
        provider=name,
        browser=await browser.depart(request),
        redirect_to=its.redirects.allowed(request.query.get("redirectTo")),
        in_cookies=wants_cookies(request),
    )
    return await _leave(request, flow)


@routes.post(_NAMED + "/link")
@guard.user
@with_browser_session
@limited("oauth")
@Contract(
    gives={200: shapes.Departure},
    parameters=(_REDIRECT_TO,),
    raises=(NotFound, ProviderNotConfigured, ReauthenticationRequired, ProviderUnavailable),
)
async def link(request: web.Request) -> web.Response:
    """Leave for a provider to link an account there with this one; the sign-in must be recent."""
    its, name, asking = parts(request), request.match_info["provider"], principal(request)
    its.oauth.provider(name)
    asking.check_recent(its.clock.now())
    flow = Flow(
        provider=name,
        browser=await browser.depart(request),
        redirect_to=its.redirects.allowed(request.query.get("redirectTo")),
        link_user=asking.user_id,
        link_session=asking.session_id,
    )
    departure = await its.oauth.leave(flow)
    return answers.answer({"authUrl": departure.url, "state": departure.state})


@routes.get(_NAMED + "/callback", allow_head=False)
@guard.anyone
@with_browser_session
@to_the_app
@Contract(
    gives={200: shapes.SignedIn | shapes.Account, 302: None},
    parameters=_ANSWER,
    raises=_CALLBACK,
    sets_cookies=(200, 302),
)
async def callback(request: web.Request) -> web.Response:
    """Come back from a provider: signed in, linked, or with the reason why not."""
    its, name, sent = parts(request), request.match_info["provider"], _once_each(request)
    back = await its.oauth.returned(name, sent, await browser.known_binding(request))
    flow = back.flow
    request[_RETURN_TO] = flow.redirect_to
    person = await its.oauth.person(back, sent)
    if flow.link_user:
        user = await its.joining.link(person, name, flow.link_user, flow.link_session, client(request))
        if _wants_json(request):
            return answers.answer({"user": answers.user(user, its)})
        return _redirect(flow.redirect_to)
    signed = await its.joining.enter(person, name, client(request))
    await greet(request, signed)
    if _wants_json(request):
        return await welcome(request, signed, in_cookies=flow.in_cookies)
    return await arrive(request, signed, _redirect(flow.redirect_to))


@routes.delete("/api/auth/identities/{provider}")
@guard.user
@Contract(gives={204: None}, raises=(ReauthenticationRequired,))
async def unlink(request: web.Request) -> web.Response:
    """Unlink an account elsewhere, unless it is the last way in; the sign-in must be recent."""
    await parts(request).joining.unlink(principal(request), request.match_info["provider"], client(request))
    return answers.nothing()


@to_the_app
async def _leave(request: web.Request, flow: Flow) -> web.Response:
    request[_RETURN_TO] = flow.redirect_to
    departure = await parts(request).oauth.leave(flow)
    if _wants_json(request):
        return answers.answer({"authUrl": departure.url, "state": departure.state})
    return _redirect(departure.url)


def _once_each(request: web.Request) -> Mapping[str, str]:
    """The callback's parameters; one that is there twice makes the whole not ours (RFC 6749, section 3.1)."""
    if len(request.query) != len(set(request.query)):
        raise OAuthStateInvalid
    return dict(request.query)


def _redirect(address: str) -> web.Response:
    return Answer(status=302, headers={hdrs.LOCATION: address})


def _wants_json(request: web.Request) -> bool:
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return "application/json" in accepted and "text/html" not in accepted
