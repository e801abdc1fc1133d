"""The three cookies of a signed-in browser, always set and removed with the same attributes.

    accessToken   HttpOnly, Path /           the access token
    refreshToken  HttpOnly, Path /api/auth   the refresh token, which no other path ever receives
    csrfToken     readable, Path /           the CSRF token of the session, to be sent back as a header

Where they are Secure their names say so: `__Host-` binds a cookie to this very host, `__Secure-` is for the one with
a narrower path and for all where `COOKIE_DOMAIN` is set (RFC 6265bis, section 4.1.3).
"""

from dataclasses import dataclass

from aiohttp import hdrs, web

from service.settings import Settings

REFRESH_PATH = "/api/auth"


def received(request: web.Request, name: str) -> str | None:
    """The cookie of this name, the last of them, as it was sent: none of ours is ever quoted.

    The framework reads all that there are, and takes twenty milliseconds of everybody's time for 8 KB of odd ones.
    """
    values = _values(request, name)
    return values[-1] if values else None


def _values(request: web.Request, name: str) -> list[str]:
    if name not in (header := request.headers.get(hdrs.COOKIE, "")):
        return []
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return [value for found, equals, value in pairs if found == name and equals]


@dataclass(frozen=True)
class _Cookie:
    name: str
    path: str
    httponly: bool


class Cookies:
    """Reads, sets and removes our cookies."""

    def __init__(self, settings: Settings) -> None:
        self._domain = settings.cookie_domain
        self._secure = settings.cookie_secure
        self._samesite = settings.cookie_samesite.capitalize()
        self._access = _Cookie(self._named("accessToken"), "/", httponly=True)
        self._refresh = _Cookie(self._named("refreshToken", REFRESH_PATH), REFRESH_PATH, httponly=True)
        self._csrf = _Cookie(self._named("csrfToken"), "/", httponly=False)

    def host_only(self, name: str) -> str:
        """The name of a cookie that never has a domain or a path of its own."""
        return "__Host-" + name if self._secure else name

    @property
    def names(self) -> tuple[str, str, str]:
        """What they are called here: that of the access token, the refresh token and the CSRF token."""
        return self._access.name, self._refresh.name, self._csrf.name

    def _named(self, name: str, path: str = "/") -> str:
        """A cookie's name with the strictest prefix that it can have."""
        if self._secure and (self._domain or path != "/"):
            return "__Secure-" + name
        return self.host_only(name)

    def access_token(self, request: web.Request) -> str | None:
        return received(request, self._access.name) or None

    def refresh_tokens(self, request: web.Request) -> list[str]:
        """Every refresh token the browser sends: a sibling domain can plant one beside the right one."""
        return [value for value in _values(request, self._refresh.name) if value]

    def csrf_token(self, request: web.Request) -> str:
        return received(request, self._csrf.name) or ""

    @property
    def host_bound(self) -> bool:
        """Whether browsers take the CSRF cookie from this very host only, so that nobody else can plant it."""
        return self._csrf.name.startswith("__Host-")

    def any(self, request: web.Request) -> bool:
        """Whether the browser holds any of our cookies."""
        return any(received(request, cookie.name) is not None for cookie in (self._access, self._refresh, self._csrf))

    def sign_in(
        self, response: web.Response, access: str, access_lasts: int, refresh: str, refresh_lasts: int, csrf: str
    ) -> None:
        """Set all three, the tokens for as many seconds as they last."""
        self._set(response, self._access, access, access_lasts)
        self._set(response, self._refresh, refresh, refresh_lasts)
        self.set_csrf(response, csrf, refresh_lasts)

    def set_csrf(self, response: web.Response, token: str, lasts: int | None = None) -> None:
        """Set the CSRF cookie, for so many seconds or until the browser is closed."""
        self._set(response, self._csrf, token, lasts)

    def sign_out(self, response: web.StreamResponse) -> None:
        """Remove all three. A deletion without `Secure` is ignored for a prefixed cookie, so it has everything."""
        for cookie in (self._access, self._refresh, self._csrf):
            self._set(response, cookie, "", 0)

    def _set(self, response: web.StreamResponse, cookie: _Cookie, value: str, lasts: int | None) -> None:
        response.set_cookie(
            cookie.name,
            value,
            max_age=lasts,
            path=cookie.path,
            domain=self._domain,
            secure=self._secure or None,
            httponly=cookie.httponly or None,
            samesite=self._samesite,
        )
