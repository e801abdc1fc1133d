"""Cross-site request forgery: a request that a cookie vouches for must prove that our own page sent it.

Two rules. An unsafe request whose caller was recognised by a cookie sends `X-CSRF-Token`, which is bound to the
session: no other site can read it, and a token of another session does not do. And no unsafe request at all is taken
from an origin that is neither ours nor allowed, sign-in included (login CSRF).
"""

import base64
import binascii
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from service.errors import CsrfFailed, OriginForbidden
from service.settings import Settings, origin_of
from service.vault import Vault

HEADER = "X-CSRF-Token"
SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Csrf:
    """CSRF tokens, and the origins that may change anything."""

    def __init__(self, vault: Vault, settings: Settings) -> None:
        self._key = vault.key("csrf")
        self._origins = frozenset({*_ours(settings), *settings.cors_origins})

    def token(self, session_id: str) -> str:
        """The token of a session: nothing to store, nothing that another session's holder could guess."""
        return base64.urlsafe_b64encode(self._key.mac(session_id.encode())[:18]).decode("ascii")

    def check(self, request: web.Request, session_id: str) -> None:
        """Raise `CsrfFailed` unless the request is safe or carries the token of this session."""
        if request.method not in SAFE and not self.confirms(request.headers.get(HEADER, ""), session_id):
            raise CsrfFailed

    def confirms(self, token: str, session_id: str) -> bool:
        """Whether this is the token of the session."""
        try:
            mac = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        return self._key.verify(session_id.encode(), mac)

    def check_origin(self, request: web.Request) -> None:
        """Raise `OriginForbidden` for an unsafe request from a place that is not allowed to send one."""
        if request.method in SAFE:
            return
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                raise OriginForbidden
        elif origin not in self._origins:
            raise OriginForbidden


def _ours(settings: Settings) -> list[str]:
    """Our own origin; in development, a loopback address under each of its names."""
    public = urlsplit(settings.public_url)
    host = f"[{public.hostname}]" if ":" in (public.hostname or "") else public.hostname
    if settings.production or host not in _LOOPBACK:
        return [origin_of(settings.public_url)]
    port = f":{public.port}" if public.port else ""
    return [origin_of(f"{public.scheme}://{name}{port}") for name in _LOOPBACK]
