"""What never becomes a request: bytes that are not HTTP get the same kind of answer as everything else.

The framework would answer in plain text, name its version and log a trace for each stray byte of a port scan.
"""

import secrets
from typing import Any

import orjson
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = structlog.get_logger("service.http")


class Protocol(RequestHandler):
    """A connection that complains in our words."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; nothing of it, nor of the parser's opinion, goes back."""
        request_id = secrets.token_hex(8)
        ours = status >= 500
        if ours:
            log.error("http.unforeseen", request_id=request_id, exc_info=exc)
        else:
            log.info("http.malformed", status=status, error=type(exc).__name__, request_id=request_id)
        problem = {
            "type": "about:blank",
            "title": "Something went wrong on our side" if ours else "The request is not valid HTTP",
            "status": status,
            "detail": "The connection is closed.",
            "code": "INTERNAL_ERROR" if ours else "VALIDATION_ERROR",
            "requestId": request_id,
        }
        response = web.Response(
            body=orjson.dumps(problem),
            status=status,
            content_type="application/problem+json",
            headers={"Server": "gatepost", "Cache-Control": "no-store", "X-Request-Id": request_id},
        )
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """An `AppRunner` whose connections are `Protocol`s; the framework has no setting for that."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        # Compressed bodies are refused, so nothing is unpacked first, and rubbish that calls itself gzip is no fault of
        # ours. Who is refused in the middle of a body may finish for a second, to read why; not for ten more.
        super().__init__(app, auto_decompress=False, lingering_time=1.0, **options)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server
