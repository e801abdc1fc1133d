"""Request bodies: one JSON object of known fields, or a clear refusal. Nothing is coerced, nothing is guessed.

The endpoints of OAuth's own standards take a form instead, and leave unknown fields alone, as those demand.
"""

import asyncio
import json
import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from service.errors import (
    InvalidField,
    MalformedJson,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http.shedding import waiting_for_client

LARGEST = 16 * 1024  # bytes
DEEPEST = 16
ARRIVES_WITHIN = 10.0  # seconds
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
_MOST_FIELDS = 32  # of a form
_UTF_8 = {"utf-8", "utf8"}

M = TypeVar("M", bound="Body")
# Possessive, and content without the closing quote: a string that never ends must not be tried from each of its quotes.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class Body(BaseModel):
    """A body's fields, in camelCase on the wire. Unknown fields are refused, types are taken strictly."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, hide_input_in_errors=True
    )


async def read(request: web.Request, model: type[M]) -> M:
    """The body as this model; raises a 400, 408, 413 or 415 of `service.errors`."""
    fields = _parse(await _text(request))
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        # Only the place and the sentence: what was sent may be a password.
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise ValidationFailed(
            [
                {"field": ".".join(map(str, problem["loc"])), "message": _sentence(problem["type"], problem["msg"])}
                for problem in found
            ]
        ) from None


async def read_optional(request: web.Request, model: type[M]) -> M | None:
    """The body as this model, `None` where there is none."""
    # A body that the guard has waited for cannot be read from the connection any more, but it was there.
    return await read(request, model) if request.can_read_body or await arrived(request) else None


async def read_form(request: web.Request, *needed: str) -> dict[str, str]:
    """The fields of a form; raises a 400, 408, 413 or 415, also where a field is there twice (RFC 6749, 3.1)."""
    text = await _text(request, FORM)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidField("", "The body is not a form, or has too many fields") from None
    fields = dict(pairs)
    names = [name for name, _ in pairs]
    wrong = [{"field": name, "message": "is there more than once"} for name in fields if names.count(name) > 1]
    wrong += [{"field": name, "message": "is required"} for name in needed if not fields.get(name)]
    if wrong:
        raise ValidationFailed(wrong)
    return fields


async def _text(request: web.Request, kind: str = JSON) -> str:
    if (told := request.headers.get(hdrs.CONTENT_TYPE, "")) != kind and not _is(kind, told):
        raise UnsupportedMediaType(f"The body must be {kind} in UTF-8", accept=kind)
    if any(coding.lower() != "identity" for coding in request.headers.getall(hdrs.CONTENT_ENCODING, ())):
        raise UnsupportedMediaType("Compressed bodies are not accepted", accept=kind)
    if (request.content_length or 0) > LARGEST:
        raise PayloadTooLarge
    try:
        return (await arrived(request)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson("The body is not UTF-8") from error


def _is(kind: str, told: str) -> bool:
    """Whether a `Content-Type` says that the body is of this kind, in UTF-8.

    The framework reads it as a header of a mail: 8 KB of parameters take it half a second of everybody's time, and a
    few hundred brackets are too many for it.
    """
    media_type, *parameters = (part.strip().lower() for part in told.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    charsets = {value.strip().strip('"') for name, _, value in pairs if name.strip() == "charset"}
    return media_type == kind and charsets <= _UTF_8


def at_hand(request: web.Request) -> bytes:
    """A body that came with the head and is plain JSON, as it was sent; empty for any other, which is for `read`."""
    headers, content = request.headers, request.content
    if headers.get(hdrs.CONTENT_TYPE) != JSON or hdrs.CONTENT_ENCODING in headers:
        return b""
    return _taken(request) if content.is_eof() and content.exception() is None else b""


async def arrived(request: web.Request) -> bytes:
    """The whole body, as soon as it is here; raises a 400, 408 or 413."""
    try:
        if request.content.is_eof():
            return _taken(request)
        async with asyncio.timeout(ARRIVES_WITHIN):
            with waiting_for_client(request):
                return await request.read()
    except TimeoutError as error:
        raise RequestTimeout from error
    except web.HTTPRequestEntityTooLarge as error:
        raise PayloadTooLarge from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise MalformedJson("The body ended early") from error


def _taken(request: web.Request) -> bytes:
    """A body that is here already; the framework would come back twice to see whether there is more."""
    if request._read_bytes is None:
        body = request.content.read_nowait()
        if len(body) > LARGEST:
            raise PayloadTooLarge
        request._read_bytes = body
    return request._read_bytes


def _parse(text: str) -> dict[str, Any]:
    if text.count("{") + text.count("[") > DEEPEST and _depth(text) > DEEPEST:
        raise MalformedJson(f"The body nests deeper than {DEEPEST}")
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedJson from error
    if not isinstance(value, dict):
        raise MalformedJson
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in _STRING.sub("", text):
        if sign in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "}]":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _sentence(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field"
    return message.removeprefix("Value error, ")


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
