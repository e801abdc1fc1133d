"""The outermost layer: every request gets an id and its patience, finds its route, and gets one kind of answer.

What the framework would do between the connection and the handler is done here, for every request alike: routes without
a variable part are known beforehand, the head of the answer is made once (`response.py`), and nothing is asked twice.
"""

import random
import re
import time

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_urldispatcher import MatchInfoError

from service import logs
from service.errors import ExpectationFailed, ServiceError
from service.http import cors, problems, shedding
from service.http.access_log import path_of
from service.http.metrics import meter
from service.http.problems import REQUEST_ID
from service.http.response import Answer, Heads
from service.http.throttle import tell_what_is_left
from service.parts import PARTS, serve_with
from service.store import be_patient

log = structlog.get_logger("service.http")

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Edge:
    """Answers every request to the application; the server's request handler."""

    def __init__(self, app: web.Application) -> None:
        self._its = app[PARTS]
        self._app = app
        settings = self._its.settings
        self._heads = Heads(
            problems.security_headers(settings),
            {origin: cors.headers_for(origin) for origin in settings.cors_origins},
            problems.PAGE_HEADERS,
        )
        self._known: dict[tuple[str, str], web.UrlMappingMatchInfo] = {}
        # An absolute address, which only proxies are sent, has three more.
        self._most_slashes = 3 + max(resource.canonical.count("/") for resource in app.router.resources())
        for resource in app.router.resources():
            if isinstance(resource, web.PlainResource):
                for route in resource:
                    self._known.setdefault((route.method, resource.canonical), self._found(route))

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """The answer, whatever happens."""
        its, began = self._its, time.perf_counter()
        serve_with(request, its)
        sent = request.headers.get("X-Request-Id")
        request[REQUEST_ID] = request_id = sent if sent and _SANE_ID.fullmatch(sent) else _new_id()
        logs.request_id.set(request_id)
        be_patient()
        its.state.under_way += 1
        try:
            response = await self._handle(request)
        except ServiceError as error:
            response = problems.problem(request, error)
        except web.HTTPException as error:
            response = await problems.translate(request, error)
        except Exception:
            # Whatever it is, the client learns no more than that it is ours to mend.
            log.exception("http.unforeseen", method=request.method, path=path_of(request))
            response = problems.problem(request, ServiceError())
        finally:
            its.state.under_way -= 1
        answer = response if isinstance(response, Answer) else Answer.of(response)
        tell_what_is_left(request, answer)
        self._heads.complete(request, answer, request_id, last=its.state.draining)
        meter(request, its).answered(answer.status, time.perf_counter() - began)
        return answer

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        found = self._known.get((request.method, path))
        if found is None:
            # The router looks at the path once for each slash, which for 8 KB of them takes forty milliseconds.
            deep = path.count("/") > self._most_slashes
            found = MatchInfoError(web.HTTPNotFound()) if deep else await self._app.router.resolve(request)
            found.add_app(self._app)
            found.freeze()
        request._match_info = found
        shedding.check(request, self._its)
        self._its.csrf.check_origin(request)
        if (expected := request.headers.get(hdrs.EXPECT)) is not None:
            if request.version == HttpVersion11 and expected.lower() != "100-continue":
                raise ExpectationFailed  # the framework would repeat it, whatever letters it has, and fail at some
            await found.expect_handler(request)
        return await found.handler(request)

    def _found(self, route: web.AbstractRoute) -> web.UrlMappingMatchInfo:
        found = web.UrlMappingMatchInfo({}, route)
        found.add_app(self._app)
        found.freeze()
        return found


def _new_id() -> str:
    """An id for a request: no secret, only another one each time."""
    return f"{random.getrandbits(64):016x}"
