"""How one may prove who one is: every way there is, and which of them a route takes."""

from service.http.contract import API_KEY, BEARER, BROWSER, COOKIE, CSRF, METRICS, REFRESH, Contract
from service.http.cookies import Cookies
from service.http.csrf import HEADER, SAFE
from service.http.guard import Access
from service.http.openapi.schemas import Json


def schemes(cookies: Cookies) -> Json:
    """Every way that there is, by its name."""
    access, refresh, csrf = cookies.names
    return {
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access token, or where `apiKey` will do an API key.",
        },
        API_KEY: {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key, `ak_...`."},
        COOKIE: {"type": "apiKey", "in": "cookie", "name": access, "description": "The access token in a cookie."},
        REFRESH: {
            "type": "apiKey",
            "in": "cookie",
            "name": refresh,
            "description": "The refresh token in a cookie, which only paths under `/api/auth` receive.",
        },
        BROWSER: {
            "type": "apiKey",
            "in": "cookie",
            "name": cookies.host_only("browser"),
            "description": "A browser before anybody has signed in.",
        },
        CSRF: {
            "type": "apiKey",
            "in": "header",
            "name": HEADER,
            "description": f"Goes with a cookie: the CSRF token of its session, which the cookie `{csrf}` has too.",
            "x-cookie": csrf,
        },
        METRICS: {
            "type": "http",
            "scheme": "bearer",
            "description": "The `METRICS_TOKEN`; in development without one, this machine may look.",
        },
    }


def security(access: Access, contract: Contract, method: str) -> list[Json]:
    """The ways to prove who one is; any of them will do. `{}` is none."""
    if contract.credentials is not None:
        return [{scheme: [] for scheme in schemes} for schemes in contract.credentials]
    if access.who == "anyone":
        return []
    ways = [(BEARER,), (COOKIE,) if method.upper() in SAFE else (COOKIE, CSRF)]
    ways += [(API_KEY,)] if access.who in ("user or API key", "permission") else []
    needed = [[each] for each in access.any_of] or [list[str]()]
    found: list[Json] = [{way[0]: roles} | {scheme: [] for scheme in way[1:]} for roles in needed for way in ways]
    return [*found, {}] if access.who == "optional user" else found
