"""How many requests are under way at once. What comes on top is told so at once, before its body is read.

A request that waits for its own body is not under way: slow clients hold connections, which have a limit of their own
(`protocol.py`), and no place that another could use.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from service import metrics
from service.errors import Crowded
from service.parts import Parts, parts

ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/metrics"})


def check(request: web.Request, its: Parts) -> None:
    """Raise `Crowded` when more requests are under way than may be, this one included."""
    if its.state.under_way > its.settings.max_concurrent_requests and request.path not in ALWAYS_ANSWERED:
        metrics.HTTP_SHED.inc()
        raise Crowded


@contextmanager
def waiting_for_client(request: web.Request) -> Iterator[None]:
    """Give the request's place away while its client is slow; raises `Crowded` when there is none afterwards."""
    its = parts(request)
    its.state.under_way -= 1
    try:
        yield
    finally:
        its.state.under_way += 1
    check(request, its)
