"""Example routes: how a route says who may call it. On with `EXAMPLES=true`."""

from aiohttp import web

from service.accounts.roles import ADMIN, MODERATOR
from service.http import guard, shapes
from service.http.answers import answer
from service.http.contract import Contract
from service.http.guard import optional_principal, principal

routes = web.RouteTableDef()


@routes.get("/api/public")
@guard.anyone
@Contract(gives={200: shapes.Greeting}, redis=False)
async def public(request: web.Request) -> web.Response:
    """For everybody."""
    return answer({"message": "Hello, whoever you are."})


@routes.get("/api/optional")
@guard.optional_user
@Contract(gives={200: shapes.OptionalGreeting})
async def optional(request: web.Request) -> web.Response:
    """With and without a user."""
    asking = optional_principal(request)
    return answer({"message": f"Hello, {asking.email if asking else 'stranger'}.", "authenticated": bool(asking)})


@routes.get("/api/protected")
@guard.user
@Contract(gives={200: shapes.Greeting})
async def protected(request: web.Request) -> web.Response:
    """For those who are signed in."""
    return answer({"message": f"Hello, {principal(request).email}. You are signed in."})


@routes.get("/api/moderate")
@guard.role(MODERATOR, ADMIN)
@Contract(gives={200: shapes.Greeting})
async def moderate(request: web.Request) -> web.Response:
    """For moderators and admins."""
    return answer({"message": f"Hello, {principal(request).email}. You may moderate."})


@routes.get("/api/admin")
@guard.role(ADMIN)
@Contract(gives={200: shapes.Greeting})
async def admin(request: web.Request) -> web.Response:
    """For admins."""
    return answer({"message": f"Hello, {principal(request).email}. You are an admin."})


@routes.get("/api/users/dashboard")
@guard.user
@Contract(gives={200: shapes.Dashboard})
async def dashboard(request: web.Request) -> web.Response:
    """The caller's own greeting."""
    asking = principal(request)
    return answer({"message": f"Welcome back, {asking.email}.", "userId": asking.user_id, "roles": asking.roles})
