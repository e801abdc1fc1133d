"""What Prometheus asks: `/metrics`, for whoever has the `METRICS_TOKEN`.

Nothing is asked of Redis for it: what all instances share is read with the upkeep, every five seconds, and
live sessions are counted once a minute.
"""

import asyncio
import hmac
import time
from datetime import datetime

from aiohttp import web

from service import metrics
from service.errors import InvalidToken, NotFound, NoToken
from service.http import guard
from service.http.contract import METRICS, Contract, Raw
from service.http.response import Answer
from service.metrics import Meter
from service.parts import Parts, parts

routes = web.RouteTableDef()

COUNT_EVERY = 60.0  # seconds between two counts of all live sessions

# What no route answers. Its path, or a method that somebody has made up, would be a new series with each request.
_NOWHERE, _ODD = "none", "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@routes.get("/metrics")
@guard.anyone
@Contract(
    gives={200: Raw(metrics.CONTENT_TYPE)},
    raises=(NoToken, InvalidToken, NotFound),
    credentials=((METRICS,), ()),
    redis=False,
)
async def everything(request: web.Request) -> web.Response:
    """Every metric of this instance, in Prometheus' text format; what other workers are doing is up to 5 s old."""
    _check(request)
    observe(parts(request))
    body = await asyncio.to_thread(metrics.written)  # ten milliseconds, once every route has been asked for
    return Answer(body, content_type=metrics.CONTENT_TYPE)


def meter(request: web.Request, its: Parts) -> Meter:
    """What the request is counted with: its route, as it is written in the code."""
    route = request.match_info.route
    if (known := its.state.meters.get(route)) is not None:
        return known
    if route.resource is not None:
        known = its.state.meters[route] = Meter(route.resource.canonical, route.method)
        return known
    method = request.method if request.method in METHODS else _ODD
    if (known := its.state.meters.get(method)) is None:  # the route was made for this request, and is not kept
        known = its.state.meters[method] = Meter(_NOWHERE, method)
    return known


def tell_requests(its: Parts) -> None:
    """Make metrics of the requests that were answered since the last time."""
    for known in its.state.meters.values():
        known.tell()


def observe(its: Parts) -> None:
    """Read what this instance knows by itself."""
    state, settings, threads = its.state, its.settings, its.passwords.threads
    tell_requests(its)
    metrics.HTTP_IN_FLIGHT.set(state.under_way)
    metrics.HTTP_IN_FLIGHT_LIMIT.set(settings.max_concurrent_requests)
    metrics.HTTP_CONNECTIONS.set(state.connections())
    metrics.HTTP_CONNECTIONS_LIMIT.set(settings.max_connections)
    metrics.HASHING_THREADS.set(threads.workers)
    metrics.HASHING_BUSY.set(threads.running)
    metrics.HASHING_WAITING.set(threads.waiting)
    metrics.HASHING_WAITING_LIMIT.set(threads.queue)
    its.store.observe()
    metrics.observe_process()


async def observe_shared(its: Parts) -> None:
    """Read what all instances share: one round trip, and some dozens in each minute. Raises `StoreUnavailable`."""
    if (now := time.monotonic()) >= its.state.count_sessions_at:
        its.state.count_sessions_at = now + COUNT_EVERY  # whether it works or not
        metrics.SESSIONS.set(await its.directory.live_count(int(its.clock.now() * 1000)))
    waiting, parked = await its.outbox.counts()
    metrics.MAIL_WAITING.set(waiting)
    metrics.MAIL_PARKED.set(parked)
    metrics.REDIS_MEMORY.set(its.state.condition.memory)
    metrics.REDIS_MEMORY_LIMIT.set(its.state.condition.memory_limit)
    metrics.REDIS_DANGERS.set(len(its.state.condition.dangers))
    since = its.keys.signing_since()
    metrics.SIGNING_SINCE.set(_seconds(since))
    metrics.SIGNING_FOR.set(its.settings.key_rotation.total_seconds() if since else 0)
    metrics.CLOCK_AHEAD.set(its.clock.now() - time.time())
    metrics.UPKEEP.set(time.time())
    observe(its)


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0


def _check(request: web.Request) -> None:
    """Raise `NoToken` or `InvalidToken`; without a `METRICS_TOKEN`, `NotFound` but in development on this machine."""
    settings = parts(request).settings
    if settings.metrics_token is None:
        if settings.production or not guard.from_here(request):
            raise NotFound
        return
    sent = guard.bearer_token(request)
    if sent is None:
        raise NoToken("Metrics are for those who have the METRICS_TOKEN")
    expected = settings.metrics_token.get_secret_value()
    if not hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), expected.encode()):
        raise InvalidToken("This is not the METRICS_TOKEN")
