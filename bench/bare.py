"""The yardstick: aiohttp and nothing else, on uvloop as ours is. `python -m bench.bare PORT SIZE...`

For each size there are constant answers of so many bytes of JSON: to a GET, to a POST whose JSON body is read, and, to
see what the encoder takes, to a GET whose answer is bytes already.
"""

import contextlib
import sys

from aiohttp import web


def make_app(sizes: list[int]) -> web.Application:
    app = web.Application()
    for size in sizes:
        _add(app, size)
    return app


def _add(app: web.Application, size: int) -> None:
    content = {"name": "x" * (size - len('{"name": ""}'))}
    encoded = web.json_response(content).body

    async def get(_: web.Request) -> web.Response:
        return web.json_response(content)

    async def post(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response(content)

    async def get_bytes(_: web.Request) -> web.Response:
        return web.Response(body=encoded, content_type="application/json")

    app.router.add_get(f"/{size}", get)
    app.router.add_post(f"/{size}", post)
    app.router.add_get(f"/bytes/{size}", get_bytes)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    port, *sizes = map(int, sys.argv[1:])
    web.run_app(make_app(sizes), host="127.0.0.1", port=port, access_log=None, print=None)
