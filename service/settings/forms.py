"""The forms that values have: what `15m`, `on`, `10.0.0.0/8` or an address becomes, or why it cannot be one.

Each takes what the operator wrote and returns the value, or raises `ValueError` with the rest of a sentence that begins
with the variable's name. What is no text comes from code, and is left as it is.
"""

import ipaddress
import re
from datetime import timedelta
from email.utils import formataddr, parseaddr
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr

_UNITS = {"": "seconds", "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def duration(text: Any) -> Any:
    """`15m` as a timedelta."""
    if isinstance(text, str):
        if match := re.fullmatch(r"(\d{1,9})\s*(ms|[smhd]?)", text.strip().lower()):
            return timedelta(**{_UNITS[match[2]]: int(match[1])})
        raise ValueError("must be a duration: write seconds as 900, or 15m, 2h, 7d")
    return text


def _words(text: Any) -> Any:
    """`one, two` as a tuple."""
    return tuple(word for part in text.split(",") if (word := part.strip())) if isinstance(text, str) else text


def _switch(text: Any) -> Any:
    """`on` or `off`, in the words for them that there are."""
    if isinstance(text, str):
        match text.strip().lower():
            case "on" | "true" | "yes" | "1":
                return True
            case "off" | "false" | "no" | "0":
                return False
        raise ValueError("must be on or off")
    return text


def _base_url(text: Any) -> Any:
    """An http(s) address without query or trailing slash."""
    parts = urlsplit(str(text).strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an address such as https://auth.example.org")
    _ = parts.port  # refuses one that is none
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _issuer(text: Any) -> Any:
    """An issuer as its provider writes it: a slash at the end belongs to its name (OpenID Connect Discovery, 4.3)."""
    _base_url(text)
    return str(text).strip()


def _scopes(text: Any) -> Any:
    """`openid email profile`, separated by blanks or commas."""
    scopes = str(text).replace(",", " ").split()
    if "openid" not in scopes:
        raise ValueError("must have openid among its scopes, such as: openid email profile")
    return " ".join(scopes)


def _smtp_url(text: Any) -> Any:
    """`smtp://user:password@host:587` or `smtps://`, with `?starttls=on` or `off` for the first."""
    try:
        parts = urlsplit(str(text).strip())
        known = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        known = False
    if not known or parts.query not in ("", "starttls=on", "starttls=off"):
        raise ValueError(
            "must be an address such as smtp://user:password@mail.example.org:587 or smtps://…; write / # ? @ and % in "
            "a password as %2F %23 %3F %40 %25"
        )
    return str(text).strip()


def _sender(text: Any) -> Any:
    """One address with a name or without."""
    name, address = parseaddr(str(text).strip())
    local_part, _, domain = address.rpartition("@")
    if not local_part or not domain or not str(text).isprintable() or not address.isascii():
        raise ValueError("must be one address, such as: Example <no-reply@example.org>")
    return formataddr((name, address))


def origin_of(url: str) -> str:
    """The origin of an address, as browsers write it (RFC 6454, section 6.2): no default port, lower case."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def _origins(text: Any) -> Any:
    """Origins as browsers write them; never `*`."""
    for word in (words := _words(text)):
        if word == "*":
            raise ValueError("must name each origin: with credentials '*' would let every site act as your users")
        parts = urlsplit(word)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/") or parts.query:
            raise ValueError(f"must list origins such as https://app.example.org, without a path; '{word}' is none")
    return tuple(origin_of(word) for word in words)


def _networks(text: Any) -> Any:
    """Networks as CIDR, or single addresses."""
    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in _words(text))
    except ValueError as error:
        raise ValueError(f"must list networks such as 10.0.0.0/8: {error}") from None


def _limits(text: Any) -> Any:
    """`login=5/15m,register=10/1h` as {name: (calls, window)}."""
    if not isinstance(text, str):
        return text
    table = {}
    for word in _words(text):
        match = re.fullmatch(r"([a-z-]+)\s*=\s*(\d{1,6})\s*/\s*(\d{1,9}[smhdSMHD]?)", word)
        if not match or int(match[2]) < 1 or not (window := duration(match[3])):
            raise ValueError(f"must list limits such as login=5/15m; '{word}' is none")
        table[match[1]] = (int(match[2]), window)
    return table


def _lower(text: Any) -> Any:
    """One of several words, in any case."""
    return str(text).lower()


AnyCase = BeforeValidator(_lower)
Duration = Annotated[timedelta, BeforeValidator(duration)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_words)]
Url = Annotated[str, BeforeValidator(_base_url)]
Issuer = Annotated[str, BeforeValidator(_issuer)]
Scopes = Annotated[str, BeforeValidator(_scopes)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
SmtpUrl = Annotated[SecretStr, BeforeValidator(_smtp_url)]
Sender = Annotated[str, BeforeValidator(_sender)]
Limits = Annotated[dict[str, tuple[int, timedelta]], BeforeValidator(_limits)]
