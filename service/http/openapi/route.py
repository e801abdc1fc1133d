"""A route, and what it says of itself: path and method, and on its handler the guard, the contract and the limits."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from aiohttp import web

from service.http.contract import Contract
from service.http.guard import Access


class Route(NamedTuple):
    """A route that is told; the method is in lower case."""

    path: str
    method: str
    handler: Any

    @property
    def contract(self) -> Contract:
        contract: Contract = self.handler.contract
        return contract

    @property
    def access(self) -> Access:
        access: Access = self.handler.access
        return access

    @property
    def limits(self) -> tuple[str, ...]:
        """The policies that a call is charged to, by the handler or by what is wrapped around it."""
        return (*self.contract.limits, *filter(None, [getattr(self.handler, "limited", None)]))

    @property
    def has_browser_session(self) -> bool:
        """Whether it may set the cookie of a browser before anybody has signed in."""
        return getattr(self.handler, "browser_session", False)

    @property
    def topic(self) -> str:
        """What it is about: its feature, or of the edge its module."""
        where: str = self.handler.__module__
        _, package, module = where.split(".")
        return package if module == "routes" else module

    @property
    def name(self) -> str:
        """A name that no other route has, in camel case."""
        first, *rest = f"{self.topic}_{self.handler.__name__}".split("_")
        return first + "".join(map(str.capitalize, rest))


def told(app: web.Application) -> Iterator[Route]:
    """Every route that is told; what the framework adds is not."""
    for route in app.router.routes():
        if route.resource is not None and hasattr(route.handler, "contract") and route.method != "HEAD":
            yield Route(route.resource.canonical, route.method.lower(), route.handler)
