"""The schemas of what is sent and answered, as pydantic tells them, each with an example put together of its parts'."""

from collections.abc import Iterable, Mapping
from typing import Any

from service.http import shapes
from service.http.contract import Contract, Raw, Schema

PLACE = "#/components/schemas/"
Json = dict[str, Any]


class Schemas:
    """The schemas of all models that these contracts name."""

    def __init__(self, contracts: Iterable[Contract]) -> None:
        self.shared, self._named = _models(contracts)

    def media(self, shape: Any) -> Json:
        """The content of a body of this shape."""
        schema = self._named[shape]
        return {"schema": schema, "example": _example(schema, self.shared)}


def _models(contracts: Iterable[Contract]) -> tuple[dict[str, Json], dict[Any, Json]]:
    """The schemas of all models by their names, and what refers to each."""
    from pydantic import TypeAdapter  # by the first who asks for the document, not at every start

    wanted: dict[Any, None] = {shapes.Problem: None}
    for contract in contracts:
        told_here = (contract.takes, contract.takes_form, *contract.gives.values())
        wanted |= {shape: None for shape in told_here if shape is not None and not isinstance(shape, Raw)}
    inputs = [(shape, "validation", TypeAdapter(shape)) for shape in wanted]
    found, shared = TypeAdapter.json_schemas(inputs, ref_template=PLACE + "{model}")  # type: ignore[arg-type]
    named = {shape: _tidied(found[shape, "validation"]) for shape in wanted}
    return _tidied(shared["$defs"]), named


def _tidied(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, and docstrings on one line."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _tidied(each) for name, each in schema.items() if name != "title" or isinstance(each, dict)}
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    return found


def _example(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    """An example of what a schema describes, put together of the examples of its parts."""
    if reference := schema.get("$ref"):
        return _example(schemas[reference.removeprefix(PLACE)], schemas)
    if examples := schema.get("examples"):
        return examples[0]
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return choices[0]
    if ways := schema.get("anyOf"):
        return _example(ways[0], schemas)
    match schema.get("type"):
        case "object":
            needed = schema.get("required", ())
            members = schema.get("properties", {})
            return {
                name: _example(each, schemas) for name, each in members.items() if name in needed or "examples" in each
            }
        case "array":
            return [_example(schema["items"], schemas)]
        case "boolean":
            return True
        case "integer":
            return schema.get("minimum", 1)
        case "string":
            return "text"
    return None
