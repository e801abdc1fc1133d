"""The forms that fields of an account may have, for the bodies that bring them."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from service.accounts.emails import LONGEST, canonical
from service.accounts.passwords import LONGEST as LONGEST_PASSWORD
from service.accounts.passwords import SHORTEST as SHORTEST_PASSWORD


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


# What `Passwords.check` decides is only told here: it knows the person as well.
_STRONG = {"format": "password", "minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD}

Email = Annotated[
    str,
    AfterValidator(canonical),
    Field(examples=["ada@example.org"], json_schema_extra={"format": "email", "maxLength": LONGEST}),
]
Name = Annotated[str, Field(max_length=100, examples=["Ada"]), AfterValidator(_printable)]
Picture = Annotated[
    str,
    Field(max_length=2048, examples=["https://example.org/ada.jpg"], json_schema_extra={"format": "uri"}),
    AfterValidator(_web_address),
]
Password = Annotated[str, Field(examples=["a long and private sentence"], json_schema_extra={"format": "password"})]
NewPassword = Annotated[str, Field(examples=["a long and private sentence"], json_schema_extra=_STRONG)]
MailedToken = Annotated[str, Field(examples=["ot_an-example-that-opens-nothing"])]
