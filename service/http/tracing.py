"""Spans of requests, and their traces in the access log. Imported only where `TRACES=on`.

Whoever sends `traceparent` (W3C Trace Context) has begun the trace, and says whether it is kept, as far as
`OTEL_TRACES_SAMPLER` listens to them. What cannot be read as one begins a trace of its own. Nothing of it is answered.
"""

from urllib.parse import urlsplit

from aiohttp import web
from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, Tracer, format_trace_id, set_span_in_context

from service import logs
from service.http.access_log import AccessLog
from service.http.edge import Edge
from service.http.guard import address
from service.http.metrics import METHODS
from service.http.problems import REQUEST_ID
from service.http.shedding import ALWAYS_ANSWERED
from service.settings import Settings
from service.tracing import W3C, Attributes, failed

_TRACE_ID = "gatepost.trace_id"


class TracedEdge(Edge):
    """Gives each request a span, from its head until its answer is made.

    Health checks and Prometheus are left out, as in the access log. The path is told as its route is written in the
    code, and not at all where there is none: what stands there may be anything, and the access log has it by the
    request's id.
    """

    def __init__(self, tracer: Tracer, settings: Settings, app: web.Application) -> None:
        super().__init__(app)
        self._tracer = tracer
        public = urlsplit(settings.public_url)
        self._always: Attributes = {
            "url.scheme": public.scheme,
            "server.address": public.hostname or "",
            "server.port": public.port or (443 if public.scheme == "https" else 80),
        }

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path in ALWAYS_ANSWERED:
            return await super().__call__(request)
        method = request.method if request.method in METHODS else "_OTHER"
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            W3C.extract(request.headers),
            SpanKind.SERVER,
            {"http.request.method": method, **self._always},
        )
        request[_TRACE_ID] = trace_id = format_trace_id(span.get_span_context().trace_id)
        logs.trace_id.set(trace_id)
        token = attach(set_span_in_context(span))
        try:
            answer = await super().__call__(request)
        except BaseException as error:  # nobody waits for an answer any more
            failed(span, type(error).__name__)
            raise
        else:
            if span.is_recording():
                _tell(span, request, answer.status, method)
            return answer
        finally:
            detach(token)
            span.end()


def _tell(span: Span, request: web.Request, status: int, method: str) -> None:
    told: Attributes = {
        "http.response.status_code": status,
        "client.address": address(request),
        "gatepost.request_id": request[REQUEST_ID],
    }
    if (resource := request.match_info.route.resource) is not None:
        route = resource.canonical
        told |= {"http.route": route, "url.path": route}
        span.update_name(f"{'HTTP' if method == '_OTHER' else method} {route}")
    span.set_attributes(told)
    if status >= 500:
        failed(span, str(status))


class TracedAccessLog(AccessLog):
    """Lines that say which trace a request belongs to."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        token = logs.trace_id.set(request.get(_TRACE_ID))
        try:
            super().log(request, response, time)
        finally:
            logs.trace_id.reset(token)
