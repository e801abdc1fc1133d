"""What can go wrong, in the words of the domain; `http/problems.py` translates each to an answer, once.

    ServiceError
    ├── BadRequest 400            ValidationFailed (InvalidField, WeakPassword) · MalformedJson · OAuthCodeMissing
    │                             OAuthStateInvalid · OAuthExchangeFailed · OAuthEmailUnverified
    │                             InvalidOneTimeToken
    ├── NotSignedIn 401           NoToken · InvalidToken · TokenExpired · TokenRevoked · TokenStale
    │   │                         InvalidCredentials · InvalidApiKey
    │   └── RefreshRefused        NoRefreshToken · InvalidRefreshToken · RefreshTokenReused · SessionEnded
    ├── Refused 403               Forbidden · AccountDisabled · CsrfFailed · OriginForbidden · OAuthDenied
    │                             ReauthenticationRequired · EmailUnverified · RegistrationClosed
    ├── NotFound 404 (ProviderNotConfigured) · MethodNotAllowed 405 · RequestTimeout 408
    ├── EmailExists 409 · IdentityInUse 409 · TooManyKeys 409 · PayloadTooLarge 413 · UnsupportedMediaType 415
    ├── ExpectationFailed 417
    ├── RateLimited 429
    ├── ProviderUnavailable 502
    └── Unavailable 503           StoreUnavailable · Overloaded (Crowded)

An error says what a client may know: `detail` is written for the person who reads the answer, never taken from
a library. `members` are added to the problem (RFC 9457, section 3.2), `headers` to the answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """An error with an answer of its own: a status, a stable code and a sentence."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(self, detail: str | None = None, **members: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.members = members

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer's head says because of it."""
        return {}


class BadRequest(ServiceError):
    status = 400
    code = "VALIDATION_ERROR"
    title = "The request is not valid"


class ValidationFailed(BadRequest):
    """One or more fields are missing, unknown or of the wrong form; `errors` names each."""

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__("; ".join(f"{error['field']}: {error['message']}" for error in errors), errors=errors)


class InvalidField(ValidationFailed):
    """The same of one field, or one parameter."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__([{"field": field, "message": message}])


class WeakPassword(InvalidField):
    """The password is too short, too long, too common or too close to its owner."""

    def __init__(self, message: str, field: str = "password") -> None:
        super().__init__(field, message)


class MalformedJson(BadRequest):
    code = "MALFORMED_JSON"
    title = "The body is not a JSON object"


class OAuthCodeMissing(BadRequest):
    code = "OAUTH_CODE_MISSING"
    title = "The provider's answer has no code"


class OAuthStateInvalid(BadRequest):
    """The state is unknown, was used, is too old, or belongs to another browser or provider."""

    code = "OAUTH_STATE_INVALID"
    title = "This sign-in is over or belongs elsewhere; please start again"


class OAuthExchangeFailed(BadRequest):
    """The provider refused the code, or vouched for nobody in a way that can be checked."""

    code = "OAUTH_EXCHANGE_FAILED"
    title = "The provider did not confirm the sign-in; please start again"


class OAuthEmailUnverified(BadRequest):
    code = "OAUTH_EMAIL_UNVERIFIED"
    title = "The provider knows no verified email of this person"


class InvalidOneTimeToken(BadRequest):
    """The token of a mail is unknown, used, too old, for something else, or overtaken by a newer one or a change."""

    code = "INVALID_ONE_TIME_TOKEN"
    title = "The link is not valid any more; please ask for a new one"


class NotSignedIn(ServiceError):
    """The caller did not show who they are. Every such answer carries a challenge (RFC 6750, section 3)."""

    status = 401
    code = "INVALID_TOKEN"
    title = "Not signed in"
    challenge: ClassVar[str | None] = None

    @property
    def headers(self) -> Mapping[str, str]:
        error = f', error="{self.challenge}", error_description="{self.title}"' if self.challenge else ""
        return {"WWW-Authenticate": f'Bearer realm="gatepost"{error}'}


class NoToken(NotSignedIn):
    code = "NO_TOKEN"
    title = "No access token was sent"


class InvalidToken(NotSignedIn):
    code = "INVALID_TOKEN"
    title = "The access token is not valid"
    challenge = "invalid_token"


class TokenExpired(NotSignedIn):
    code = "TOKEN_EXPIRED"
    title = "The access token has expired"
    challenge = "invalid_token"


class TokenRevoked(NotSignedIn):
    """The token's session is over, or the token itself was revoked."""

    code = "TOKEN_REVOKED"
    title = "The access token has been revoked"
    challenge = "invalid_token"


class TokenStale(NotSignedIn):
    """The user's rights or password changed after the token was made; a refresh brings a good one."""

    code = "TOKEN_STALE"
    title = "The account has changed since the access token was issued; refresh it"
    challenge = "invalid_token"


class InvalidCredentials(NotSignedIn):
    code = "INVALID_CREDENTIALS"
    title = "The email or the password is not right"


class InvalidApiKey(NotSignedIn):
    """The key is unknown, expired or revoked, or its owner is disabled or gone; which of these is not told."""

    code = "INVALID_API_KEY"
    title = "The API key is not valid"
    challenge = "invalid_token"


class RefreshRefused(NotSignedIn):
    """A definitive no to a refresh: the client should forget its tokens and ask the person to sign in."""

    code = "INVALID_REFRESH_TOKEN"
    title = "The refresh token was refused"


class NoRefreshToken(RefreshRefused):
    code = "NO_REFRESH_TOKEN"
    title = "No refresh token was sent"


class InvalidRefreshToken(RefreshRefused):
    code = "INVALID_REFRESH_TOKEN"
    title = "The refresh token is not valid"


class RefreshTokenReused(RefreshRefused):
    """A generation that had already been exchanged came back: assume theft (RFC 9700, section 4.14.2)."""

    code = "REFRESH_TOKEN_REUSED"
    title = "The refresh token had already been used; the session has been ended to protect the account"


class SessionEnded(RefreshRefused):
    """The session is over; `reason` says why where that is still known."""

    code = "SESSION_ENDED"
    title = "The session has ended"


class Refused(ServiceError):
    status = 403
    code = "FORBIDDEN"
    title = "Not allowed"


class Forbidden(Refused):
    """A known caller without the right; `required` names the roles or permissions that would do."""


class AccountDisabled(Refused):
    code = "ACCOUNT_DISABLED"
    title = "The account is disabled"


class EmailUnverified(Refused):
    """The password is right, but `REQUIRE_VERIFIED_EMAIL` asks for more; a new link has been sent."""

    title = "Verify your email first; a new link is on its way to it"


class RegistrationClosed(Refused):
    title = "Registration is closed here"


class CsrfFailed(Refused):
    code = "CSRF_FAILED"
    title = "The CSRF token is missing or belongs to another session"


class OriginForbidden(Refused):
    code = "ORIGIN_FORBIDDEN"
    title = "Requests from this origin are not allowed"


class OAuthDenied(Refused):
    code = "OAUTH_DENIED"
    title = "The sign-in was cancelled at the provider"


class ReauthenticationRequired(Refused):
    """The session is good, but the sign-in is too long ago for this."""

    code = "REAUTHENTICATION_REQUIRED"
    title = "Please sign in again to do this"


class NotFound(ServiceError):
    status = 404
    code = "NOT_FOUND"
    title = "There is nothing here"


class ProviderNotConfigured(NotFound):
    code = "PROVIDER_NOT_CONFIGURED"
    title = "There is no such provider here"


class MethodNotAllowed(ServiceError):
    status = 405
    code = "METHOD_NOT_ALLOWED"
    title = "This method is not allowed here"

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(f"Allowed here: {', '.join(allowed)}")
        self.allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class RequestTimeout(ServiceError):
    """The head or the body did not arrive in time; the connection is closed with the answer."""

    status = 408
    code = "REQUEST_TIMEOUT"
    title = "The request took too long to arrive"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


class EmailExists(ServiceError):
    status = 409
    code = "EMAIL_EXISTS"
    title = "There is already an account with this email"


class IdentityInUse(ServiceError):
    """The identity belongs to another account, or the account has another identity of this provider."""

    status = 409
    code = "IDENTITY_IN_USE"
    title = "This identity is linked to another account"


class TooManyKeys(ServiceError):
    """The user has as many API keys as anyone may have."""

    status = 409
    code = "TOO_MANY_KEYS"
    title = "There are too many API keys"


class PayloadTooLarge(ServiceError):
    status = 413
    code = "PAYLOAD_TOO_LARGE"
    title = "The body is too large"


class UnsupportedMediaType(ServiceError):
    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"
    title = "The body must be application/json in UTF-8"

    def __init__(self, detail: str | None = None, accept: str = "application/json") -> None:
        super().__init__(detail)
        self.accept = accept

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Accept": self.accept}


class ExpectationFailed(ServiceError):
    """`Expect` asks for something else than 100-continue (RFC 9110, section 10.1.1)."""

    status = 417
    code = "EXPECTATION_FAILED"
    title = "Expect may say 100-continue only"


class RateLimited(ServiceError):
    status = 429
    code = "RATE_LIMITED"
    title = "Too many requests"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests; try again in {retry_after} s", retryAfter=retry_after)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class ProviderUnavailable(ServiceError):
    """An OAuth provider is away, slow, or answers nonsense."""

    status = 502
    code = "PROVIDER_UNAVAILABLE"
    title = "The provider cannot be reached right now"


class Unavailable(ServiceError):
    """Not now: nothing was decided, nothing is lost, no cookie is touched; the same request may come again."""

    status = 503
    code = "SERVICE_UNAVAILABLE"
    title = "The service cannot answer right now"
    retry_after: ClassVar[int] = 1

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, retryAfter=self.retry_after)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class StoreUnavailable(Unavailable):
    """Redis is away, slow, full or changing masters."""


class Overloaded(Unavailable):
    """More passwords wait to be hashed than can be served soon."""

    code = "OVERLOADED"
    title = "Too many sign-ins at once"
    retry_after = 2


class Crowded(Overloaded):
    """More connections are open, or more requests under way, than the instance takes."""

    title = "Too much at once"
    retry_after = 1
