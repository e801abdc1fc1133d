"""Connections: how many there may be, how long each may take, and what never becomes a request.

A whole head has 10 s and 64 KiB, an answer is taken within 10 s, and who comes when all places are taken is told so at
once. Once a second all connections are looked at; a request costs no timer of its own. (Bodies: `body.py`.)

Bytes that are not HTTP get the same kind of answer as everything else. The framework would answer in plain text, name
its version and log a trace for each stray byte of a port scan.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from service import metrics
from service.client import network_of
from service.errors import Crowded, RequestTimeout, ServiceError
from service.http import problems
from service.http.edge import Edge
from service.parts import PARTS, Parts

log = structlog.get_logger("service.http")

HEAD_WITHIN = 10.0  # seconds, from the connection or, when it is kept alive, from the first byte
TAKEN_WITHIN = 10.0  # seconds in which a client takes what was written for it; 64 KiB or so wait here at most
LARGEST_HEAD = 64 * 1024  # bytes that may come before a head is complete
SWEEP = 1.0  # seconds between two looks at all connections
PARTING = 1.0  # seconds in which who is turned away may read why
MOST_PARTING = 256  # connections that are given that time

_FULL, _NOT_HTTP, _SLOW, _UNREAD = (metrics.HTTP_CUT_OFF.labels(why) for why in ("full", "not_http", "slow", "unread"))


class Protocol(RequestHandler):
    """A connection that complains in our words."""

    __slots__ = ("_counted_as", "_head_bytes", "_head_since", "_refused", "_unread_since")

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """Begin, or say at once that there is no place."""
        transport, server = cast(asyncio.Transport, made), self._manager  # uvloop's only behave like one
        assert isinstance(server, Server)
        self._head_since, self._head_bytes, self._unread_since = self._loop.time(), 0, 0.0
        self._refused = False
        self._counted_as = server.seat(transport)
        if self._counted_as is None:
            self.transport, self._force_close = transport, True  # whatever it says is not listened to
            server.turn_away(transport)
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(server := self._manager, Server) and self._counted_as:
            server.unseat(self._counted_as)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the bytes, and note whether a head is still on its way."""
        if self._refused:
            return
        requests = self._request_count
        super().data_received(data)
        if self._request_count != requests:
            self._head_since, self._head_bytes = 0.0, 0
            if isinstance(latest := self._messages[-1][0], _ErrInfo):
                # What follows would be refused piece by piece. And each refusal knows by its traceback the frame that
                # has all that was received, which knows it: some hundred KB until the garbage collector comes.
                self._refused, latest.exc.__traceback__ = True, None
        elif (waiter := self._waiter) is not None and not waiter.done():
            self._head_since = self._head_since or self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD:
                self._give_up(_NotHttp())

    def look(self, transport: asyncio.Transport, now: float) -> None:
        """Cut off what has been slow for too long; called once a second."""
        if self._head_since and now - self._head_since >= HEAD_WITHIN:
            self._give_up(RequestTimeout())
        elif not transport.get_write_buffer_size():
            self._unread_since = 0.0
        elif not self._unread_since:
            self._unread_since = now
        elif now - self._unread_since >= TAKEN_WITHIN:
            log.info("http.unread", peer=_peer(transport))
            _UNREAD.inc()
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; nothing of it, nor of the parser's opinion, goes back."""
        request_id = secrets.token_hex(8)
        if status >= 500:
            log.error("http.unforeseen", request_id=request_id, exc_info=exc)
        else:
            _NOT_HTTP.inc()
            log.info("http.malformed", status=status, error=type(exc).__name__, request_id=request_id)
        error = ServiceError("The connection is closed.") if status >= 500 else _NotHttp()
        headers, body = self._problem(error, request_id)
        response = web.Response(body=body, status=error.status, headers=headers)
        response.force_close()
        return response

    def _give_up(self, error: ServiceError) -> None:
        """Answer without having a request, and close."""
        server, transport = self._manager, self.transport
        self._head_since = 0.0
        if not isinstance(server, Server) or transport is None or transport.is_closing():
            return
        request_id = secrets.token_hex(8)
        (_SLOW if isinstance(error, RequestTimeout) else _NOT_HTTP).inc()
        log.info("http.cut_off", status=error.status, peer=_peer(transport), request_id=request_id)
        self.close()
        server.part(transport, _written(error.status, *self._problem(error, request_id)))

    def _problem(self, error: ServiceError, request_id: str) -> tuple[Mapping[str, str], bytes]:
        server = self._manager
        return _problem(error, request_id, server.headers if isinstance(server, Server) else {})


class Server(web.Server):
    """All connections of an instance."""

    headers: Mapping[str, str]

    def __call__(self) -> RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)

    def open(self, its: Parts) -> None:
        """Begin to watch over the connections."""
        self._most, self._most_each = its.settings.max_connections, its.settings.max_connections_per_address
        self._proxies, self.headers = its.proxies, problems.security_headers(its.settings)
        self._from: Counter[str] = Counter()
        self._parting: dict[asyncio.Transport, float] = {}
        self._turned_away = 0
        its.state.connections = lambda: len(self._connections)
        self._sweep_soon()

    def seat(self, transport: asyncio.Transport) -> str | None:
        """What the connection counts as: an address, or nothing but itself (""); None when there is no place."""
        if len(self._connections) >= self._most:
            return None
        if not self._most_each or self._proxies.trusts(peer := _peer(transport)):
            return ""
        address = network_of(peer)
        if self._from[address] >= self._most_each:
            return None
        self._from[address] += 1
        return address

    def unseat(self, address: str) -> None:
        """The connection from this address has ended."""
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Say that there is no place."""
        self._turned_away += 1
        _FULL.inc()
        error = Crowded()
        self.part(transport, _written(error.status, *_problem(error, secrets.token_hex(8), self.headers)))

    def part(self, transport: asyncio.Transport, words: bytes) -> None:
        """Write the last words, and leave time to read them: closing on unread bytes would take them back."""
        transport.write(words)
        if len(self._parting) >= MOST_PARTING:
            transport.close()
            return
        transport.write_eof()
        self._parting[transport] = self._loop.time()

    async def shutdown(self, timeout: float | None = None) -> None:
        self._next_sweep.cancel()
        for transport in self._parting:
            transport.abort()
        await super().shutdown(timeout)

    def _sweep_soon(self) -> None:
        self._next_sweep = self._loop.call_later(SWEEP, self._sweep)
        self._sweep_due = time.monotonic() + SWEEP

    def _sweep(self) -> None:
        metrics.LOOP_LAG.observe(max(time.monotonic() - self._sweep_due, 0))
        self._sweep_soon()
        now = self._loop.time()
        for connection, transport in list(self._connections.items()):
            connection.look(transport, now)  # type: ignore[attr-defined]
        for transport, since in list(self._parting.items()):
            if transport.is_closing() or now - since >= PARTING:
                transport.abort()
                del self._parting[transport]
        if self._turned_away:
            log.warning("http.turned_away", connections=self._turned_away, open=len(self._connections))
            self._turned_away = 0


class Runner(web.AppRunner):
    """An `AppRunner` whose connections are `Protocol`s; the framework has no setting for that."""

    def __init__(self, app: web.Application, edge: Callable[[web.Application], Edge] = Edge, **options: Any) -> None:
        # Compressed bodies are refused, so nothing is unpacked first, and rubbish that calls itself gzip is no fault of
        # ours. Who is refused in the middle of a body may finish for a second, to read why; not for ten more.
        super().__init__(app, auto_decompress=False, lingering_time=1.0, **options)
        self._edge = edge

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Server
        assert isinstance(server, Server)
        server.request_handler = self._edge(self.app)  # type: ignore[assignment]
        server.open(self.app[PARTS])
        return server


class _NotHttp(ServiceError):
    status = 400
    code = "VALIDATION_ERROR"
    title = "The request is not valid HTTP"

    def __init__(self) -> None:
        super().__init__("The connection is closed.")


def _problem(error: ServiceError, request_id: str, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of an answer to no request."""
    known = {"Content-Type": problems.PROBLEM, "Cache-Control": "no-store", "X-Request-Id": request_id}
    return {**headers, **known, **error.headers}, orjson.dumps(problems.members(error, request_id))


def _written(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """The answer as it goes over the wire, the last on its connection."""
    fields = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _peer(transport: asyncio.Transport) -> str:
    """The address at the other end; empty over a unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
