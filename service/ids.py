"""Identifiers: 16 random bytes, written as 22 characters of base64url."""

import base64
import re
import secrets

_FORM = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)


def new_id() -> str:
    """An opaque identifier of a user, a session or a token.

    The first character is a letter or a digit, so that an id is never taken for a command-line option and never
    meets the `-<jti>` fields of a sessions hash; that costs less than a twentieth of one of its 128 bits.
    """
    while not (text := secrets.token_urlsafe(16))[0].isalnum():
        pass
    return text


def is_id(text: str) -> bool:
    """Whether a text that came from outside has the form of an id; the name of another field has not."""
    return _FORM.fullmatch(text) is not None


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id."""
    return base64.urlsafe_b64decode(text + "==")


def id_text(raw: bytes) -> str:
    """The id of 16 bytes."""
    return base64.urlsafe_b64encode(raw)[:22].decode("ascii")
