"""The forms that fields of an account may have, for the bodies that bring them."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from service.accounts.emails import canonical


def _printable(text: str) -> str:
    if not text.strip() or not all(sign.isprintable() for sign in text):
        raise ValueError("must have letters and no control characters")
    return text


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("https", "http") or not parts.hostname or not text.isprintable():
        raise ValueError("must be an http or https address")
    return text


Email = Annotated[str, AfterValidator(canonical)]
Name = Annotated[str, Field(max_length=100), AfterValidator(_printable)]
Picture = Annotated[str, Field(max_length=2048), AfterValidator(_web_address)]
