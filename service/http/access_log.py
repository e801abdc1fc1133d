"""One line for each request: what was asked, what it cost, and for whom, without query strings or bodies."""

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from service.http.guard import client, optional_principal
from service.http.problems import REQUEST_ID
from service.http.shedding import ALWAYS_ANSWERED
from service.parts import PARTS

log = structlog.get_logger("service.access")


class AccessLog(AbstractAccessLogger):
    """Health checks and Prometheus are left out: they would be most of the log."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        if not isinstance(request, web.Request) or REQUEST_ID not in request or request.path in ALWAYS_ANSWERED:
            return
        asking = optional_principal(request)
        log.info(
            "request",
            method=request.method,
            path=request.rel_url.raw_path,
            status=response.status,
            ms=round(time * 1000, 1),
            ip=client(request).address if PARTS in request.app else None,
            user_id=asking.user_id if asking else None,
            request_id=request[REQUEST_ID],
        )
