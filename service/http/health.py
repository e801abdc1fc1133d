"""Is it alive, is it ready, and what is it."""

from datetime import UTC, datetime

from aiohttp import web

from service import __version__
from service.errors import StoreUnavailable
from service.http import answers, guard, shapes
from service.http.contract import Contract
from service.parts import parts

routes = web.RouteTableDef()


@routes.get("/health")
@guard.anyone
@Contract(gives={200: shapes.Health}, redis=False)
async def health(request: web.Request) -> web.Response:
    """Alive: the event loop turns. Asks nobody else."""
    now = datetime.now(UTC)
    uptime = (now - parts(request).state.started).total_seconds()
    return answers.answer({"status": "ok", "timestamp": answers.moment(now), "uptime": int(uptime)})


@routes.get("/ready")
@guard.anyone
@Contract(gives={200: shapes.Readiness, 503: shapes.Readiness}, redis=False)
async def ready(request: web.Request) -> web.Response:
    """Ready for traffic: Redis answers, the keys are there, and the instance is not about to stop."""
    its = parts(request)
    redis: dict[str, object] = {"reachable": True}
    try:
        await its.store.time()
        its.keys.signing()
    except StoreUnavailable:
        redis["reachable"] = False
    condition = its.state.condition
    redis |= {"version": condition.version, "warnings": list(condition.dangers)}
    unsafe = bool(condition.dangers) and its.settings.production and not its.settings.redis_allow_unsafe
    if its.state.draining:
        return answers.answer({"status": "draining", "redis": redis}, status=503)
    if not redis["reachable"] or unsafe:
        return answers.answer({"status": "unavailable", "redis": redis}, status=503, headers={"Retry-After": "1"})
    return answers.answer({"status": "ready", "redis": redis})


@routes.get("/")
@guard.anyone
@Contract(gives={200: shapes.Index}, redis=False)
async def index(request: web.Request) -> web.Response:
    """What this is and what it answers."""
    endpoints = sorted(
        f"{route.method} {route.resource.canonical}"
        for route in request.app.router.routes()
        if route.resource and route.method not in ("HEAD", "OPTIONS")
    )
    return answers.answer({"name": "gatepost", "version": __version__, "endpoints": endpoints})
