"""Where a person may be sent after a sign-in: only below an allowed origin, by exact comparison (RFC 9700, 2.1)."""

import re
from urllib.parse import urlencode, urlsplit, urlunsplit

from service.errors import InvalidField
from service.settings import Settings, origin_of

LONGEST = 2048
# What browsers read in surprising ways is refused, not interpreted: backslashes, blanks, controls, and the slash or
# backslash in disguise right after the first.
_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]+", re.ASCII)
_DISGUISED = re.compile(r"/(/|%2f|%5c)", re.IGNORECASE)


class Redirects:
    """The places that may be returned to."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.frontend_url
        self._origins = frozenset(
            {origin_of(settings.frontend_url), origin_of(settings.public_url), *settings.cors_origins}
        )

    @property
    def home(self) -> str:
        """The single-page app's own address."""
        return self._home

    def allowed(self, wanted: str | None) -> str:
        """The address as wanted, or the app's; a path is below the app's origin. Raises `ValidationFailed`."""
        if not wanted:
            return self._home
        if len(wanted) <= LONGEST and _PLAIN.fullmatch(wanted):
            if wanted.startswith("/") and not _DISGUISED.match(wanted):
                return origin_of(self._home) + wanted
            if self._is_below_an_origin(wanted):
                return wanted
        raise InvalidField("redirectTo", "must be below an allowed origin")

    def _is_below_an_origin(self, wanted: str) -> bool:
        for origin in self._origins:
            rest = wanted.removeprefix(origin)
            if rest != wanted and (not rest or rest[0] in "/?#"):
                return True
        return False


def with_error(address: str, code: str) -> str:
    """The address with `error=<code>` in its query."""
    parts = urlsplit(address)
    query = "&".join(filter(None, (parts.query, urlencode({"error": code}))))
    return urlunsplit(parts._replace(query=query))
