"""Instances in trouble, for what the edge answers then."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient

from service.app import assemble, make_app
from service.serving import LARGEST_HEADER
from service.store import reach
from tests.conftest import Browser, Parts, Served, Serving, cheap_passwords, settings_for

SECRET_OF_THE_TRACE = "what only the trace may know"


@pytest.fixture
async def broken(parts: Parts) -> AsyncIterator[Browser]:
    """An instance as `service.serving` runs it, with a route of which nobody foresaw that it fails."""

    async def fail(_: web.Request) -> web.Response:
        raise RuntimeError(SECRET_OF_THE_TRACE)

    app = make_app(parts)
    app.router.add_route("*", "/api/auth/broken", fail)
    app.router.add_route("*", "/api/auth/broken/{who}", fail)
    server = Served(app)
    await server.start_server(max_field_size=LARGEST_HEADER, max_line_size=LARGEST_HEADER)
    jar = CookieJar(unsafe=True, treat_as_secure_origin=[server.make_url("/")])
    async with TestClient(server, cookie_jar=jar) as client:
        yield Browser(client)


@pytest.fixture
async def without_redis(serving: Serving, tmp_path: Path) -> Browser:
    """An instance that has never met its Redis."""
    return await serving(assemble(settings_for(), reach(f"unix://{tmp_path}/nobody"), cheap_passwords()))
