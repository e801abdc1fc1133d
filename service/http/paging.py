"""Lists in pages: `?limit=` and `?cursor=` in, `{items, nextCursor}` out."""

from typing import Any

from aiohttp import web

from service.errors import InvalidField
from service.http.answers import answer

_FEWEST, _MOST, _USUAL = 1, 100, 20


def limit(request: web.Request) -> int:
    """How many items a page is to have; raises `ValidationFailed`."""
    if (sent := asked(request, "limit")) is None:
        return _USUAL
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 3 and _FEWEST <= int(sent) <= _MOST):
        raise InvalidField("limit", f"must be a number from {_FEWEST} to {_MOST}")
    return int(sent)


def asked(request: web.Request, name: str) -> str | None:
    """A parameter of the query, `None` where it is not there; raises `ValidationFailed` when it is there twice."""
    if len(values := request.query.getall(name, [])) > 1:
        raise InvalidField(name, "is there more than once")
    return values[0] if values else None


def page(items: list[Any], next_cursor: str | None) -> web.Response:
    """A page of a list."""
    return answer({"items": items, "nextCursor": next_cursor})
