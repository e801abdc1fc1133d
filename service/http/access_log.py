"""One line for each request: what was asked, what it cost, and for whom, without query strings or bodies."""

import re

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from service import logs
from service.http.guard import address, optional_principal
from service.http.problems import REQUEST_ID
from service.http.shedding import ALWAYS_ANSWERED

log = structlog.get_logger("service.access")

# An @, encoded however often, and how API keys, refresh tokens and JWTs begin.
_SECRET = re.compile(r"@|%(?:25)*40|^(?:ak_|rt_|eyJ)")


class AccessLog(AbstractAccessLogger):
    """Health checks and Prometheus are left out: they would be most of the log."""

    @property
    def enabled(self) -> bool:
        """Whether `LOG_LEVEL` lets these lines through; where it does not, nothing is put together for them."""
        return logs.tells_requests

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        request_id = request.get(REQUEST_ID)
        if request_id is None or not isinstance(request, web.Request) or request.path in ALWAYS_ANSWERED:
            return
        asking = optional_principal(request)
        tell = logs.lines.write if logs.lines else log.info
        tell(
            "request",
            method=request.method,
            path=path_of(request),
            status=response.status,
            ms=round(time * 1000, 1),
            ip=address(request),
            user_id=asking.user_id if asking else None,
            request_id=request_id,
        )


def path_of(request: web.Request) -> str:
    """The path as it was sent, but for a part of it that may be an email, or a credential where an id belongs."""
    return _without_secrets(request.rel_url.raw_path)


def _without_secrets(path: str) -> str:
    if "@" not in path and "40" not in path and "_" not in path and "eyJ" not in path:
        return path
    return "/".join("***" if _SECRET.search(part) else part for part in path.split("/"))
