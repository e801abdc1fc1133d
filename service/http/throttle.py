"""Limits at the edge: charge a request to its policies, and say in the answer what is left.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10, on allowed and on refused answers.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TypeVar

from aiohttp import web

from service.http.guard import Guard, Handler, client
from service.http.response import Answer
from service.limits.limiter import Allowance, Charge, Refused, Toll
from service.parts import kept, parts

T = TypeVar("T")

_ALLOWANCES = web.RequestKey("allowances", list[Allowance])


def limited(policy: str) -> Guard:
    """Charge each call of the route to the policy, for the address it comes from."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def charged(request: web.Request) -> web.StreamResponse:
            await charge(request, Charge(policy, (network(request),)))
            return await handler(request)

        charged.limited = policy  # type: ignore[attr-defined]
        return charged

    return decorate


async def charge(request: web.Request, *charges: Charge) -> None:
    """Charge this request to the policies, the narrowest first; raises `RateLimited`, and then to none."""
    try:
        request[_ALLOWANCES] = await parts(request).limiter.charge(*charges)
    except Refused as refusal:
        _tell(request, refusal)
        raise


def reauthenticating(request: web.Request, email: str) -> tuple[Charge, Charge]:
    """What it costs to show one's password while signed in: as a sign-in from here, and one of so many from anywhere.

    Those are counted apart from sign-ins, so that only who has a session can use them up, and an address that the
    account is known by is spared them: neither a stranger nor a thief keeps its owner from a new password.
    """
    here = network(request)
    account = Charge("login-account", ("signed in", email), quiet=True, spared=(email, here))
    return Charge("login", (here, email)), account


async def pay(request: web.Request, due: Charge, work: Callable[[Toll | None], Awaitable[T]]) -> T:
    """Charge this request along with the work that is paid for; raises `RateLimited`, and then nothing is done.

    The work gets what it has to settle, or `None` where nothing is due any more.
    """
    limiter = parts(request).limiter
    toll = limiter.toll(due)
    try:
        if limiter.is_due_before(toll):
            await limiter.collect(toll)
            return await work(None)
        return await work(toll)
    except Refused as refusal:
        _tell(request, refusal)
        raise
    finally:
        if toll.allowance is not None:
            request[_ALLOWANCES] = [toll.allowance]


def unless_used_up(policy: str) -> Guard:
    """Refuse a request of an address that has used the policy up, before anything else is read; charges nothing."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def looked(request: web.Request) -> web.StreamResponse:
            try:
                await parts(request).limiter.look(Charge(policy, (network(request),)))
            except Refused as refusal:
                _tell(request, refusal)
                raise
            return await handler(request)

        return looked

    return decorate


def _tell(request: web.Request, refusal: Refused) -> None:
    request[_ALLOWANCES] = [] if refusal.charge.quiet else [refusal.allowance]
    parts(request).signals.note_refusal(refusal.charge, client(request))


def network(request: web.Request) -> str:
    """Whom limits count: the address, or of IPv6 its /64."""
    return client(request).network


def tell_what_is_left(request: web.Request, answer: Answer) -> None:
    """The `RateLimit` headers of an answer."""
    if allowances := kept(request, _ALLOWANCES):
        left = ", ".join([allowance.limit_header for allowance in allowances])
        policies = ", ".join([allowance.policy_header for allowance in allowances])
        answer.lines += f"RateLimit: {left}\r\nRateLimit-Policy: {policies}\r\n"
