"""Traces: what a request waited for, told to an OpenTelemetry collector. Imported only where `TRACES=on`.

A request (`http/tracing.py`) has a span, and below it each call to Redis, each password that is hashed and each call to
a provider. What nobody asked for, such as upkeep, has none; a mail, which leaves after its request, has one of its own.

A span holds words of ours: commands, names of scripts, templates of routes, hosts, statuses, types of errors. No key,
argument, query, body or header, and no message of an exception, for each of those may hold a secret or an email.

The conventions are OpenTelemetry's own for HTTP and databases. Where a trace goes and which ones are kept is decided by
its `OTEL_...` variables. Spans are sent by a thread; one that cannot be sent is lost, and no request waits for it.
"""

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.accounts.passwords import HashingThreads
from service.mail.smtp import Smtp
from service.oauth.outgoing import Outgoing, Unusable
from service.store import Store
from service.store.address import Host
from service.store.commands import Command, script_of

log = structlog.get_logger("service.tracing")

LAST = 2.0  # seconds at the end, in which what was not sent yet still is
_NAMED = 4  # commands of one call that its span names

T = TypeVar("T")
Attributes = dict[str, str | int]

# Only this: `baggage`, which the library would pass on as well, is for anybody to fill and for no provider to read.
W3C = TraceContextTextMapPropagator()


class Tracing:
    """The way out for spans, and the parts that make them."""

    def __init__(self) -> None:
        """Begin, as the environment says; raises `ValueError` for a variable that cannot be read."""
        self._exporter = _Calm(OTLPSpanExporter())
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("gatepost", __version__)
        self.store: Callable[..., Store] = partial(TracedStore, self.tracer)
        self.hashing: Callable[..., HashingThreads] = partial(TracedHashing, self.tracer)
        self.outgoing: Callable[[], Outgoing] = partial(TracedOutgoing, self.tracer)
        self.smtp: Callable[[str, str], Smtp] = partial(TracedSmtp, self.tracer)

    async def close(self) -> None:
        """Send what is left, if that can be done in time, and end."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def finish() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody has waited for so long
                loop.call_soon_threadsafe(done.set)

        # A thread that the end of the process does not wait for.
        threading.Thread(target=finish, name="last-spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await done.wait()
        self._exporter.shutdown()


def _resource() -> Resource:
    """Who sends these spans: `gatepost`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise."""
    ours: Attributes = {
        "service.name": "gatepost",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),  # of several workers, which one
    }
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())


class _Calm(SpanExporter):
    """Sends spans, and says once that it cannot, and once that it can again.

    The library would say it for each try. Its words are heard, and kept for our own line.
    """

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._heard = _Heard()
        self._ended = False
        library = logging.getLogger("opentelemetry")
        library.handlers, library.propagate = [logging.NullHandler()], False
        logging.getLogger("opentelemetry.exporter").handlers = [self._heard]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces.sent_again", lost=self._lost)
            self._lost = 0
            self._heard.first = ""
        else:
            if not self._lost:
                log.warning("traces.not_sent", reason=self._heard.first, told="spans are lost until they can be sent")
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class _Heard(logging.Handler):
    """The first thing that the library had to say of its sending.

    Of an exception it is the type: an address in its words may have a token in it.
    """

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        told = record.args if isinstance(record.args, tuple) else ()
        self.first = self.first or str(record.msg) % tuple(
            type(each).__name__ if isinstance(each, BaseException) else each for each in told
        )


def failed(span: Span, error: str) -> None:
    """Mark it as one that went wrong, by a type of error or a status."""
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


@contextmanager
def _watched(span: Span) -> Iterator[None]:
    """End the span with this block; what goes wrong is told by its type."""
    try:
        yield
    except BaseException as error:
        failed(span, type(error.__cause__ or error).__name__)
        raise
    finally:
        span.end()


class TracedStore(Store):
    """A store that tells of each call, as long as its caller waits: for a connection, for a second try, for replicas.

    Calls of one turn of the event loop share a round trip to Redis and have a span each. What is known from memory
    asks nobody and has none.
    """

    def __init__(self, tracer: Tracer, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracer = tracer
        self._told: dict[tuple[object, ...], tuple[str, Attributes]] = {}

    async def run(
        self, *commands: Command, hints: Iterable[Command] = (), aside: Iterable[Command] = (), **options: Any
    ) -> list[Any]:
        hints, aside = tuple(hints), tuple(aside)
        if not (told := (*commands, *hints) or aside) or not get_current_span().is_recording():
            return await super().run(*commands, hints=hints, aside=aside, **options)
        with _watched(self._span(told)):
            return await super().run(*commands, hints=hints, aside=aside, **options)

    async def _glance(self, command: Command, keep: bool = False) -> Any:
        if not get_current_span().is_recording():
            return await super()._glance(command, keep)
        with _watched(self._span((command,))):
            return await super()._glance(command, keep)

    def _span(self, commands: tuple[Command, ...]) -> Span:
        names = tuple(map(_name, commands[:_NAMED]))
        address = self.address_for(commands[0])
        key = (*names, len(commands), address)
        if (told := self._told.get(key)) is None:
            told = _of_call(commands, names, address)
            if len(self._told) < 1000:  # more than there are kinds of calls
                self._told[key] = told
        return self._tracer.start_span(told[0], kind=SpanKind.CLIENT, attributes=told[1])


def _name(command: Command) -> str:
    """A command's name, or that of the script it runs."""
    return script_of(command).name if command[0] == "EVALSHA" else str(command[0])


def _of_call(commands: tuple[Command, ...], names: tuple[str, ...], address: Host | None) -> tuple[str, Attributes]:
    """The name of a span, and its attributes."""
    summary = " ".join(names) + (" ..." if len(commands) > len(names) else "")
    told: Attributes = {"db.system.name": "redis", "db.query.summary": summary}
    if len(commands) > 1:
        told |= {"db.operation.name": "PIPELINE", "db.operation.batch.size": len(commands)}
    else:
        told["db.operation.name"] = str(commands[0][0])
        if commands[0][0] == "EVALSHA":
            told["db.stored_procedure.name"] = summary
    if address:
        told |= {"server.address": address[0], **({"server.port": address[1]} if address[1] else {})}
    return summary, told


class TracedHashing(HashingThreads):
    """Threads that tell how long a password waited for one of them, and how long it took."""

    def __init__(self, tracer: Tracer, **options: Any) -> None:
        super().__init__(**options)
        self._tracer = tracer

    async def run(self, work: Callable[[], T]) -> T:
        if not get_current_span().is_recording():
            return await super().run(work)
        span, asked = self._tracer.start_span("hash password"), time.perf_counter()
        waited: list[float] = []

        def begun() -> T:
            waited.append(time.perf_counter() - asked)
            return work()

        with _watched(span):
            try:
                return await super().run(begun)
            finally:
                span.set_attribute("gatepost.hashing.waited", waited[0] if waited else time.perf_counter() - asked)


class TracedOutgoing(Outgoing):
    """Calls to providers, which are told of the trace (W3C Trace Context) that they are part of."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    async def json(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        told: Attributes = {
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "url.full": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",  # no query, no password
        }
        span = self._tracer.start_span(f"{method} {host}", kind=SpanKind.CLIENT, attributes=told)
        sent = {**(headers or {})}
        W3C.inject(sent, set_span_in_context(span))
        try:
            status, answer = await super().json(method, url, form=form, headers=sent)
        except BaseException as error:
            cause = error.__cause__
            if isinstance(cause, Unusable) and cause.status:
                span.set_attribute("http.response.status_code", cause.status)
                failed(span, str(cause.status))
            else:
                failed(span, type(cause or error).__name__)
            raise
        else:
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                failed(span, str(status))
            return status, answer
        finally:
            span.end()


class TracedSmtp(Smtp):
    """A mail server, each delivery to which is a trace of its own: its request has long been answered."""

    def __init__(self, tracer: Tracer, url: str, hello: str) -> None:
        super().__init__(url, hello)
        self._tracer = tracer

    async def send(self, message: EmailMessage) -> None:
        told: Attributes = {"network.protocol.name": "smtp", "server.address": self._host, "server.port": self._port}
        with _watched(self._tracer.start_span("send mail", kind=SpanKind.CLIENT, attributes=told)):
            await super().send(message)
