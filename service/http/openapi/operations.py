"""An operation: what is told of one route, from its path, guard, docstring and contract."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from service.http.body import FORM, JSON
from service.http.contract import TEXT, Contract, Parameter, Schema
from service.http.guard import Access
from service.http.openapi.responses import Responses
from service.http.openapi.route import Route
from service.http.openapi.schemas import Json, Schemas
from service.http.openapi.security import security

_IN_PATH: dict[str, tuple[str, Schema]] = {
    "id": ("The id.", TEXT),
    "provider": ("The name of a provider.", {"type": "string", "examples": ["google"]}),
}


def operation(route: Route, schemas: Schemas, responses: Responses) -> Json:
    """A route as OpenAPI tells it."""
    summary, _, more = docstring(route.handler).partition("\n\n")
    found: Json = {
        "operationId": route.name,
        "tags": [tag(route)],
        "summary": summary,
        "description": "\n\n".join(filter(None, (more, _who(route.access), _limited(route.limits)))),
        "parameters": [parameter(each) for each in (*_in_path(route), *route.contract.parameters)],
        "requestBody": _request_body(route.contract, schemas),
        "responses": responses.of(route),
    }
    told = {name: what for name, what in found.items() if what}
    return told | {"security": security(route.access, route.contract, route.method)}


def parameter(of: Parameter) -> Json:
    """A parameter as OpenAPI tells it."""
    required = {"required": True} if of.where == "path" else {}
    return {
        "name": of.name,
        "in": of.where,
        "description": of.description,
        **required,
        "schema": of.schema,
    }


def tag(route: Route) -> str:
    """Under which heading the operation is found."""
    return route.topic.capitalize()


def docstring(of: Any) -> str:
    """Its docstring without the indentation."""
    return "\n".join(line.strip() for line in (of.__doc__ or "").strip().splitlines())


def _in_path(route: Route) -> Iterator[Parameter]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield Parameter(name, *_IN_PATH[name], "path")


def _request_body(contract: Contract, schemas: Schemas) -> Json | None:
    model = contract.takes or contract.takes_form
    if model is None:
        return None
    kind = FORM if contract.takes_form else JSON
    return {"required": not contract.may_be_empty, "content": {kind: schemas.media(model)}}


def _who(access: Access) -> str:
    match access.who:
        case "user":
            return "For who is signed in; an API key does not do."
        case "user or API key":
            return "For who is signed in, and for API keys."
        case "optional user":
            return "With and without a user; a bad token counts as none."
        case "role":
            return f"For who has the role {' or '.join(f'`{role}`' for role in access.any_of)}."
        case "permission":
            return f"Takes the permission {' or '.join(f'`{each}`' for each in access.any_of)}; an API key may have it."
    return ""


def _limited(policies: Iterable[str]) -> str:
    named = ", ".join(f"`{policy}`" for policy in policies)
    return f"Limited by {named}; `RateLimit` and `RateLimit-Policy` tell what is left." if named else ""
