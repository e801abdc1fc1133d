"""Administration over HTTP."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from service.accounts.emails import InvalidEmail, canonical
from service.admin.administration import Actor
from service.admin.parked_mail import Shown
from service.client import device
from service.errors import Forbidden, InvalidField, NotFound
from service.http import answers, guard, paging, shapes
from service.http.body import Body, read
from service.http.contract import PAGE, Contract, Parameter
from service.http.guard import client, principal
from service.http.paging import asked
from service.parts import parts
from service.signals.signals import Signal, Told

routes = web.RouteTableDef()

USERS_READ, USERS_WRITE, STATS_READ = "users:read", "users:write", "stats:read"
_EMAIL = Parameter("email", "A whole address.", {"type": "string", "format": "email"})
_ROLE = Parameter("role", "A role of the table.")


class UserChange(Body):
    """What is not there stays as it is."""

    roles: Annotated[list[str], Field(examples=[["user", "moderator"]])] | None = None
    active: bool | None = None
    email_verified: bool | None = None


@routes.get("/api/admin/users")
@guard.permission(USERS_READ)
@Contract(gives={200: shapes.UserList}, parameters=(_EMAIL, _ROLE, *PAGE))
async def users(request: web.Request) -> web.Response:
    """Accounts, newest first; `?email=` is a whole address, `?role=` a role."""
    its, email, role = parts(request), asked(request, "email"), asked(request, "role")
    if email is not None:
        try:
            email = canonical(email)
        except InvalidEmail as error:
            raise InvalidField("email", str(error)) from error
    if role is not None and role not in its.roles.table:
        raise InvalidField("role", "is not a known role")
    found, cursor = await its.administration.list(email, role, asked(request, "cursor"), paging.limit(request))
    return paging.page([answers.user(user, its) for user in found], cursor)


@routes.get("/api/admin/users/{id}")
@guard.permission(USERS_READ)
@Contract(gives={200: shapes.Account}, raises=(NotFound,))
async def user(request: web.Request) -> web.Response:
    """An account."""
    found = await parts(request).administration.find(request.match_info["id"])
    return answers.answer({"user": answers.user(found, parts(request))})


@routes.patch("/api/admin/users/{id}")
@guard.permission(USERS_WRITE)
@Contract(takes=UserChange, gives={200: shapes.Account}, raises=(NotFound, Forbidden))
async def change_user(request: web.Request) -> web.Response:
    """Give and take roles, disable, enable, vouch for the email; in force at once. Nobody disables themselves."""
    its, wanted = parts(request), await read(request, UserChange)
    changed = await its.administration.change(
        _actor(request),
        request.match_info["id"],
        roles=wanted.roles,
        active=wanted.active,
        email_verified=wanted.email_verified,
    )
    return answers.answer({"user": answers.user(changed, its)})


@routes.delete("/api/admin/users/{id}")
@guard.permission(USERS_WRITE)
@Contract(gives={204: None}, raises=(NotFound, Forbidden))
async def delete_user(request: web.Request) -> web.Response:
    """Delete an account, not one's own: nothing is left of it but the audit trail."""
    await parts(request).administration.delete(_actor(request), request.match_info["id"])
    return answers.nothing()


@routes.post("/api/admin/users/{id}/logout")
@guard.permission(USERS_WRITE)
@Contract(gives={204: None}, raises=(NotFound, Forbidden))
async def sign_out_user(request: web.Request) -> web.Response:
    """End every session of an account."""
    await parts(request).administration.sign_out(_actor(request), request.match_info["id"])
    return answers.nothing()


@routes.get("/api/admin/stats")
@guard.permission(STATS_READ)
@Contract(gives={200: shapes.Statistics})
async def statistics(request: web.Request) -> web.Response:
    """How many accounts and sessions there are, how much mail has not left, and what looks like an attack."""
    counts = await parts(request).administration.statistics()
    return answers.answer(
        {
            "totalUsers": counts.total_users,
            "activeUsers": counts.active_users,
            "disabledUsers": counts.total_users - counts.active_users,
            "newUsers": counts.new_users,
            "activeSessions": counts.active_sessions,
            "roles": counts.roles,
            "waitingMail": counts.waiting_mail,
            "parkedMail": counts.parked_mail,
            "security": _security(counts.signals),
        }
    )


@routes.get("/api/admin/mail/parked")
@guard.permission(USERS_READ)
@Contract(gives={200: shapes.ParkedMailList}, parameters=PAGE)
async def parked_mail(request: web.Request) -> web.Response:
    """Mail that was given up, the latest first, with the reason; no link, no token, no whole address."""
    found, cursor = await parts(request).parked_mail.page(asked(request, "cursor"), paging.limit(request))
    return paging.page([_shape(mail) for mail in found], cursor)


@routes.post("/api/admin/mail/parked/retry")
@guard.permission(USERS_WRITE)
@Contract(gives={202: shapes.Retried})
async def retry_all_mail(request: web.Request) -> web.Response:
    """Have all parked mail tried again now."""
    count = await parts(request).parked_mail.retry_all(_actor(request))
    return answers.answer({"retried": count}, status=202)


@routes.post("/api/admin/mail/parked/{id}/retry")
@guard.permission(USERS_WRITE)
@Contract(gives={202: None}, raises=(NotFound,))
async def retry_mail(request: web.Request) -> web.Response:
    """Have a parked mail tried again now; asked for twice it is sent once."""
    await parts(request).parked_mail.retry(_actor(request), request.match_info["id"])
    return answers.accepted()


@routes.delete("/api/admin/mail/parked/{id:(?!retry$)[^/]+}")  # so that `Allow` of that one is its own
@guard.permission(USERS_WRITE)
@Contract(gives={204: None}, raises=(NotFound,))
async def drop_mail(request: web.Request) -> web.Response:
    """Forget a parked mail."""
    await parts(request).parked_mail.drop(_actor(request), request.match_info["id"])
    return answers.nothing()


def _shape(mail: Shown) -> dict[str, object]:
    """`ParkedMail`."""
    told = mail.told()
    return told | {name: answers.moment(told[name]) for name in ("createdAt", "parkedAt")}


def _actor(request: web.Request) -> Actor:
    return Actor.of(principal(request), client(request))


_TOLD_AS = {
    Signal.FAILED: "failedSignIns",
    Signal.LIMITED: "limitedSignIns",
    Signal.BURST_BY_ACCOUNT: "burstsByAccount",
    Signal.BURST_BY_ADDRESS: "burstsByAddress",
    Signal.REUSED: "refreshTokensReused",
    Signal.BROKEN_CLIENT: "brokenClientReplays",
    Signal.NEW_DEVICE: "newDeviceSignIns",
}


def _security(told: Told) -> dict[str, object]:
    """The signals of the last hour and day, and the user agents behind the replays that look like a broken client."""
    return {
        "lastHour": {name: told.hour[signal] for signal, name in _TOLD_AS.items()},
        "lastDay": {name: told.day[signal] for signal, name in _TOLD_AS.items()},
        "brokenClients": [
            {"userAgent": agent.user_agent, "device": device(agent.user_agent), "replays": agent.count}
            for agent in told.agents
        ],
    }
