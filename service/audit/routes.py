"""The audit trail over HTTP: my own events, and for those who may, everybody's."""

from aiohttp import web

from service.audit.events import Event
from service.audit.own import own
from service.audit.trail import AuditEvent, Wanted
from service.errors import InvalidField
from service.http import answers, guard, paging, shapes
from service.http.contract import PAGE, Contract, Parameter
from service.http.guard import principal
from service.http.paging import asked
from service.parts import parts

routes = web.RouteTableDef()

AUDIT_READ = "audit:read"
_SESSION = Parameter("sessionId", "The history of one session.")
_USER = Parameter("userId", "Events of one account.")
_TYPE = Parameter("type", "Events of one type.", {"type": "string", "enum": list(Event)})


@routes.get("/api/auth/events")
@guard.user
@Contract(gives={200: shapes.AuditEventList}, parameters=(_SESSION, *PAGE))
async def own_events(request: web.Request) -> web.Response:
    """What happened to my account, newest first; `?sessionId=` for the history of one session.

    Of what an admin has done it tells who did it and not from where.
    """
    events, cursor = await parts(request).audit.own(
        principal(request).user_id, asked(request, "sessionId"), asked(request, "cursor"), paging.limit(request)
    )
    return paging.page([_shape(own(event)) for event in events], cursor)


@routes.get("/api/admin/audit")
@guard.permission(AUDIT_READ)
@Contract(gives={200: shapes.AuditEventList}, parameters=(_USER, _SESSION, _TYPE, *PAGE))
async def trail(request: web.Request) -> web.Response:
    """Everybody's events, newest first; `?userId=`, `?sessionId=` and `?type=` choose some.

    A page may be short, or empty, and have a next one: rare events are looked for in steps.
    """
    wanted = Wanted(asked(request, "userId"), asked(request, "type"), asked(request, "sessionId"))
    if wanted.type is not None and wanted.type not in set(Event):
        raise InvalidField("type", "is not a known type of event")
    events, cursor = await parts(request).audit.page(wanted, asked(request, "cursor"), paging.limit(request))
    return paging.page([_shape(event) for event in events], cursor)


def _shape(event: AuditEvent) -> shapes.AuditEvent:
    return {
        "id": event.id,
        "at": answers.moment(event.at),
        "type": event.type,
        "userId": event.user_id,
        "sessionId": event.session_id,
        "ip": event.ip,
        "userAgent": event.user_agent,
        "requestId": event.request_id,
        "outcome": event.outcome,
        "detail": event.detail,
    }
