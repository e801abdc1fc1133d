"""The shapes of our answers, as `/openapi.json` publishes them.

mypy holds what the routes build against them, and the tests hold every answer of the service against what is published.
Names are those of the wire. Nothing here costs a request anything: they are plain dictionaries.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict


def _like(*examples: Any, **constraints: Any) -> Any:
    """What a value looks like: examples, the first of which goes into whole examples, and what JSON Schema says."""
    return Field(examples=list(examples), json_schema_extra=constraints or None)


Moment = Annotated[str, _like("2026-03-14T09:26:53.589Z", format="date-time")]
Id = Annotated[str, _like("kC3vX0pTq9ZbN2mYwR7LsA")]
EmailAddress = Annotated[str, _like("ada@example.org")]
Permissions = Annotated[tuple[str, ...], _like(["profile:read", "profile:write"])]
RoleNames = Annotated[tuple[str, ...], _like(["user"])]
ProviderName = Annotated[str, _like("google")]
Seconds = Annotated[int, _like(900, minimum=0)]
IpAddress = Annotated[str, _like("203.0.113.7")]
UserAgent = Annotated[str, _like("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")]
CsrfToken = Annotated[str, _like("Zk3rQ8yLw1vX5nB7tHc2mPfS")]
AccessToken = Annotated[str, _like("eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJrQzN2In0.c2lnbmF0dXJl")]
Cursor = Annotated[
    str | None, Field(description="What `?cursor=` is for the next page; `null` on the last.", examples=["MTc3MzQ4MA"])
]


class Identity(TypedDict):
    """An account elsewhere that signs in here."""

    provider: ProviderName
    email: EmailAddress | None
    linkedAt: Moment


class User(TypedDict):
    """An account, as its owner and admins see it."""

    id: Id
    email: EmailAddress
    emailVerified: bool
    firstName: Annotated[str | None, _like("Ada")]
    lastName: Annotated[str | None, _like("Lovelace")]
    name: Annotated[str | None, _like("Ada Lovelace")]
    picture: Annotated[str | None, _like("https://example.org/ada.jpg")]
    roles: RoleNames
    permissions: Permissions
    provider: Annotated[
        str, Field(description="Where the account was made: `local`, or a provider.", examples=["local"])
    ]
    identities: list[Identity]
    active: bool
    createdAt: Moment
    updatedAt: Moment
    lastLoginAt: Moment | None


class Account(TypedDict):
    """A user."""

    user: User


class Tokens(TypedDict):
    """New tokens. The refresh token is here only where it is not in a cookie."""

    accessToken: AccessToken
    tokenType: Literal["Bearer"]
    expiresIn: Seconds
    csrfToken: CsrfToken
    refreshToken: NotRequired[str]
    refreshExpiresIn: NotRequired[int]


class SignedIn(Tokens):
    """A sign-in: who it is, and the tokens."""

    user: User


class Csrf(TypedDict):
    """The CSRF token of this browser, to be sent as `X-CSRF-Token`."""

    csrfToken: CsrfToken


class Session(TypedDict):
    """Where one is signed in."""

    id: Id
    current: Annotated[bool, Field(description="Whether it is the session of this very request.")]
    device: Annotated[str, _like("Firefox on Linux")]
    ip: IpAddress
    userAgent: UserAgent
    createdAt: Moment
    lastUsedAt: Moment
    expiresAt: Moment


class SessionList(TypedDict):
    """Sessions, all of them."""

    items: list[Session]
    nextCursor: None


class ApiKey(TypedDict):
    """An API key as its owner sees it: by its prefix."""

    id: Id
    name: Annotated[str, _like("nightly report")]
    prefix: Annotated[str, _like("ak_kC3vX0pT")]
    permissions: Permissions
    createdAt: Moment
    lastUsedAt: Moment | None
    expiresAt: Moment | None


class NewApiKey(ApiKey):
    """An API key that has just been made. This is the only time that `apiKey` is shown."""

    apiKey: Annotated[str, _like("ak_an-example-that-opens-nothing")]


class ApiKeyList(TypedDict):
    """API keys, all of them."""

    items: list[ApiKey]
    nextCursor: None


class AuditEvent(TypedDict):
    """Something that happened to an account."""

    id: Id
    at: Moment
    type: Annotated[str, _like("sessions.session.started")]
    userId: Id | None
    sessionId: Id | None
    ip: IpAddress | None
    userAgent: UserAgent | None
    requestId: Annotated[str | None, _like("3f69822e046e7fa3")]
    outcome: Annotated[str, Field(description="`success` or `refused`.", examples=["success"])]
    detail: Annotated[dict[str, Any], _like({"method": "pwd"})]


class AuditEventList(TypedDict):
    """Events, the latest first. A page may be short, or empty, and still have a next one."""

    items: list[AuditEvent]
    nextCursor: Cursor


class UserList(TypedDict):
    """Users, the newest first."""

    items: list[User]
    nextCursor: Cursor


class ParkedMail(TypedDict):
    """Mail that was given up."""

    id: Annotated[str, _like("1773480413589-0")]
    type: Annotated[str, _like("verify")]
    recipient: Annotated[
        str | None, Field(description="Masked; `null` where nobody is left.", examples=["a***@example.org"])
    ]
    attempts: Annotated[int, _like(9, minimum=0)]
    lastError: Annotated[str, _like("the server refused the message: 550")]
    retrying: bool
    createdAt: Moment
    parkedAt: Moment


class ParkedMailList(TypedDict):
    """Mail that was given up, the latest first."""

    items: list[ParkedMail]
    nextCursor: Cursor


class Retried(TypedDict):
    """How much parked mail is tried again."""

    retried: Annotated[int, _like(3, minimum=0)]


class SignalCounts(TypedDict):
    """How often it happened, on all instances together."""

    failedSignIns: Annotated[int, _like(120, minimum=0)]
    limitedSignIns: Annotated[int, _like(8, minimum=0)]
    burstsByAccount: Annotated[int, _like(1, minimum=0)]
    burstsByAddress: Annotated[int, _like(0, minimum=0)]
    refreshTokensReused: Annotated[int, _like(0, minimum=0)]
    brokenClientReplays: Annotated[int, _like(3, minimum=0)]
    newDeviceSignIns: Annotated[int, _like(40, minimum=0)]


class BrokenClient(TypedDict):
    """What sends refresh tokens again in a way that looks like a mistake of its own; of the last day."""

    userAgent: Annotated[str, _like("ExampleApp/2.1 (iPhone; iOS 19.1)")]
    device: Annotated[str, _like("ExampleApp on iPhone")]
    replays: Annotated[int, _like(3, minimum=1)]


class Security(TypedDict):
    """What looks like an attack, or like a broken client."""

    lastHour: SignalCounts
    lastDay: SignalCounts
    brokenClients: list[BrokenClient]


class Statistics(TypedDict):
    """How many there are."""

    totalUsers: Annotated[int, _like(1204, minimum=0)]
    activeUsers: Annotated[int, _like(1200, minimum=0)]
    disabledUsers: Annotated[int, _like(4, minimum=0)]
    newUsers: Annotated[int, Field(description="Made in the last 24 hours.", examples=[17])]
    activeSessions: Annotated[int, _like(890, minimum=0)]
    roles: Annotated[dict[str, int], _like({"admin": 2, "moderator": 5})]
    waitingMail: Annotated[int, _like(0, minimum=0)]
    parkedMail: Annotated[int, _like(0, minimum=0)]
    security: Security


class Provider(TypedDict):
    """Where one can sign in."""

    name: ProviderName
    displayName: Annotated[str, _like("Google")]
    startUrl: Annotated[str, _like("https://auth.example.org/api/auth/google")]


class Providers(TypedDict):
    """Where one can sign in."""

    providers: list[Provider]


class Departure(TypedDict):
    """Where to send the person, and the state that will come back."""

    authUrl: Annotated[str, _like("https://provider.example.org/authorize?state=b0x")]
    state: Annotated[str, _like("b0xTq9ZbN2mYwR7LsAkC3v")]


class Verified(TypedDict):
    """Who is asking. An API key has no session, and may have no end."""

    active: Literal[True]
    sub: Id
    sid: Id | None
    roles: RoleNames
    permissions: Permissions
    expiresAt: Moment | None


class Introspection(TypedDict):
    """What a token says (RFC 7662); only `active`, false, for whatever is not live."""

    active: bool
    token_type: NotRequired[Literal["Bearer", "refresh_token"]]
    scope: NotRequired[Annotated[str, _like("profile:read profile:write")]]
    username: NotRequired[EmailAddress]
    sub: NotRequired[Id]
    sid: NotRequired[Id]
    jti: NotRequired[Id]
    iss: NotRequired[Annotated[str, _like("https://auth.example.org")]]
    aud: NotRequired[Annotated[str, _like("https://auth.example.org")]]
    iat: NotRequired[Annotated[int, _like(1773480413)]]
    exp: NotRequired[Annotated[int, _like(1773481313)]]
    auth_time: NotRequired[Annotated[int, _like(1773480413)]]
    amr: NotRequired[Annotated[tuple[str, ...], _like(["pwd"])]]
    roles: NotRequired[RoleNames]


class TokenForm(TypedDict):
    """The form of the OAuth endpoints (RFC 7009, RFC 7662). Unknown fields are left alone."""

    token: Annotated[str, Field(min_length=1, examples=["rt_an-example-that-opens-nothing"])]
    token_type_hint: NotRequired[Annotated[str, _like("refresh_token")]]


class Metadata(TypedDict):
    """What this service is, for software (RFC 8414)."""

    issuer: Annotated[str, _like("https://auth.example.org")]
    jwks_uri: NotRequired[Annotated[str, _like("https://auth.example.org/.well-known/jwks.json")]]
    introspection_endpoint: Annotated[str, _like("https://auth.example.org/api/auth/introspect")]
    introspection_endpoint_auth_methods_supported: Annotated[list[str], _like(["Bearer"])]
    revocation_endpoint: Annotated[str, _like("https://auth.example.org/api/auth/revoke")]
    revocation_endpoint_auth_methods_supported: Annotated[list[str], _like(["none"])]
    response_types_supported: Annotated[list[str], _like([])]
    grant_types_supported: Annotated[list[str], _like([])]
    subject_types_supported: Annotated[list[str], _like(["public"])]


class Keys(TypedDict):
    """The public keys (RFC 7517)."""

    keys: Annotated[
        list[dict[str, str]],
        _like([{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "k1"}]),
    ]


class Health(TypedDict):
    """Alive."""

    status: Literal["ok"]
    timestamp: Moment
    uptime: Seconds


class RedisCondition(TypedDict):
    """What is known of Redis, and what about it is dangerous."""

    reachable: bool
    version: Annotated[str, _like("8.2.1")]
    warnings: Annotated[list[str], _like([])]


class Readiness(TypedDict):
    """Whether this instance takes traffic."""

    status: Literal["ready", "draining", "unavailable"]
    redis: RedisCondition


class Index(TypedDict):
    """What this is, and every call that it answers."""

    name: Annotated[str, _like("gatepost")]
    version: Annotated[str, _like("0.1.0")]
    endpoints: Annotated[list[str], _like(["GET /health", "POST /api/auth/login"])]


class Greeting(TypedDict):
    """A greeting."""

    message: Annotated[str, _like("Hello, ada@example.org.")]


class OptionalGreeting(Greeting):
    """A greeting for whoever it is."""

    authenticated: bool


class Dashboard(Greeting):
    """The caller's own greeting."""

    userId: Id
    roles: RoleNames


class FieldError(TypedDict):
    """What is wrong with a field."""

    field: Annotated[str, _like("password")]
    message: Annotated[str, _like("Use 8 characters or more.")]


class Problem(TypedDict):
    """Every error (RFC 9457). `code` is stable; `requestId` finds the request in the log."""

    type: Literal["about:blank"]
    title: Annotated[str, Field(description="What went wrong; the same for every occurrence.")]
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="What went wrong this time, for the person who reads it.")]
    code: str
    requestId: str
    errors: NotRequired[list[FieldError]]
    retryAfter: NotRequired[Annotated[int, Field(ge=0, description="Seconds to wait before asking again.")]]
    required: NotRequired[Annotated[list[str], Field(description="Roles or permissions, any of which would do.")]]
    reason: NotRequired[Annotated[str, Field(description="Why the session has ended, where that is still known.")]]
