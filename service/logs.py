"""Logs: structured lines on standard output, JSON in production and readable in development.

Each line of a request carries its id. Values that could hold a line break are escaped by the renderers, so that
nobody writes a line of their own into the log.
"""

import asyncio
import logging
import sys
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.settings import Settings

_WHOLE = 4096  # bytes that a pipe takes as a whole, whoever else writes to it

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)  # in lines where `TRACES=on`
_of_this_process: dict[str, Any] = {}


def name_worker(number: int) -> None:
    """Write into every line which of several workers says it."""
    _of_this_process["worker"] = number


class Output:
    """Where lines go. One that cannot be written, for the disk is full or its reader gone, is lost and fails nobody."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class Lines:
    """JSON lines of requests, by a way of their own: those of one turn of the event loop are written together.

    There is one for every request, and on the common way it would cost as much as the rest of the answer.
    """

    def __init__(self, stream: Output) -> None:
        self._stream = stream
        self._unwritten: list[bytes] = []

    def write(self, event: str, **facts: Any) -> None:
        """A line as the others are, at the end of this turn."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {**facts, **_of_this_process, "event": event, "level": "info", "timestamp": now}
        self._unwritten.append(orjson.dumps(line))

    def _flush(self) -> None:
        lines, self._unwritten = self._unwritten, []
        together: list[bytes] = []
        size = 0
        for line in lines:
            size += len(line) + 1
            if size > _WHOLE:
                self._put(together)
                together, size = [], len(line) + 1
            together.append(line)
        self._put(together)

    def _put(self, lines: list[bytes]) -> None:
        if lines:
            self._stream.write(b"\n".join([*lines, b""]).decode())
            self._stream.flush()


class _TracedLines(Lines):
    """Those of requests that have a trace each."""

    def write(self, event: str, **facts: Any) -> None:
        super().write(event, **facts, trace_id=trace_id.get())


tells_requests = True  # whether `LOG_LEVEL` lets lines of single requests through
lines: Lines | None = None  # there are none where requests are logged on the common way


def configure(settings: Settings, stream: TextIO = sys.stdout) -> None:
    """Send every log line, those of the libraries too, through one pipe."""
    global lines, tells_requests
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    output = Output(stream)
    tells_requests = level <= logging.INFO
    kind = _TracedLines if settings.traces else Lines
    lines = kind(output) if settings.log_format == "json" and tells_requests else None
    structlog.configure(
        processors=[
            _with_origin,
            *([_with_trace] if settings.traces else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *_renderers(settings.log_format, stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line is one write, and stays whole among those of others.
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, output)),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(max(level, logging.INFO))


def tell(event: str, **facts: Any) -> None:
    """A line that no `LOG_LEVEL` silences."""
    structlog.get_logger().bind()._proxy_to_logger("info", event, **facts)


def _renderers(log_format: str, colors: bool) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.JSONRenderer(lambda line, **_: orjson.dumps(line, default=str).decode())]
    return [_on_one_line, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28)]


def _on_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """JSON escapes line breaks by itself; the readable form must not let a client write lines of its own."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception" and not value.isprintable():
            event[name] = repr(value)
    return event


def _with_origin(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if (current := request_id.get()) is not None:
        event["request_id"] = current
    event.update(_of_this_process)
    return event


def _with_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if (current := trace_id.get()) is not None:
        event["trace_id"] = current
    return event


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard logging."""

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.levelno >= logging.ERROR:
            facts["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **facts)
