"""What a route takes and gives, told beside it for `/openapi.json`. What else there is to know, it has.

    @routes.post("/api/auth/login")
    @guard.anyone
    @Contract(takes=Credentials, gives={200: shapes.SignedIn}, raises=(InvalidCredentials,), limits=("login",))
    async def login(request): ...

It wraps nothing, so a request pays nothing for it; `openapi/` reads it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.errors import ServiceError
from service.http.body import Body

H = TypeVar("H", bound=Callable[..., Any])
Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}

# What may prove who one is, by the names of the security schemes in `openapi/security.py`.
BEARER, API_KEY, METRICS = "bearer", "apiKey", "metricsToken"
COOKIE, REFRESH, BROWSER, CSRF = "accessTokenCookie", "refreshTokenCookie", "browserCookie", "csrfToken"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a request, by default in the query."""

    name: str
    description: str
    schema: Schema = field(default_factory=lambda: TEXT)
    where: str = "query"


@dataclass(frozen=True)
class Raw:
    """An answer that is not one of our JSON shapes."""

    media_type: str
    schema: Schema = field(default_factory=lambda: TEXT)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the route table does not know of a route; kept on its handler as `contract`.

    `gives`         for each status a shape of `shapes.py`, a `Raw`, or `None` for an answer without a body
    `takes`         the model of the body, or of the form (`takes_form`); `may_be_empty`: there need not be one
    `raises`        errors besides those that follow from the guard, the body, the limits and Redis
    `limits`        the policies that a call is charged to
    `headers`       what a success tells in its head, with a description each
    `sets_cookies`  the statuses of answers that may set or remove the cookies of a sign-in
    `credentials`   how one may prove who one is, where the guard does not say it: schemes that are sent together
    `redis`         whether it needs Redis
    """

    gives: Mapping[int, Any]
    takes: type[Body] | None = None
    takes_form: type | None = None
    may_be_empty: bool = False
    parameters: tuple[Parameter, ...] = ()
    raises: tuple[type[ServiceError], ...] = ()
    limits: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    sets_cookies: tuple[int, ...] = ()
    credentials: tuple[tuple[str, ...], ...] | None = None
    redis: bool = True

    def __call__(self, handler: H) -> H:
        handler.contract = self  # type: ignore[attr-defined]
        return handler


PAGE = (
    Parameter("limit", "How many items a page has.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    Parameter("cursor", "Where the page begins: the `nextCursor` of the page before."),
)
MODE = Parameter(
    "X-Auth-Mode",
    "`cookie`: the tokens come in cookies. `token`: in the body, and no cookie is set.",
    {"type": "string", "enum": ["cookie", "token"], "default": "cookie"},
    "header",
)
