"""Security events: each is told once, as one structured line of the log, without a secret in it."""

from enum import StrEnum
from typing import Any

from service import logs


class Event(StrEnum):
    """What can happen to an account, as `subject.action`."""

    USER_REGISTERED = "user.registered"
    ADMIN_CREATED = "user.admin_created"
    ADMIN_GRANTED = "user.admin_granted"
    SIGNED_IN = "session.started"
    SIGN_IN_REFUSED = "session.refused"
    SESSION_RECOVERED = "session.recovered"
    SESSION_HEALED = "session.healed"
    REFRESH_TOKEN_REUSED = "session.refresh_token_reused"  # noqa: S105
    SESSION_ENDED = "session.ended"
    SESSIONS_ENDED = "session.all_ended"
    IDENTITY_LINKED = "user.identity_linked"
    IDENTITY_UNLINKED = "user.identity_unlinked"
    ACCOUNT_TAKEN_OVER = "user.taken_over"
    PASSWORD_CHANGED = "user.password_changed"  # noqa: S105
    API_KEY_CREATED = "apikey.created"
    API_KEY_REVOKED = "apikey.revoked"
    ACCESS_TOKEN_REVOKED = "token.revoked"  # noqa: S105
    SIGNING_KEY_ADDED = "signing_key.added"
    SIGNING_KEY_RETIRED = "signing_key.retired"
    PASSWORD_RESET_ASKED = "user.password_reset_asked"  # noqa: S105
    PASSWORD_RESET = "user.password_reset"  # noqa: S105
    EMAIL_VERIFIED = "user.email_verified"
    EMAIL_CHANGE_ASKED = "user.email_change_asked"
    EMAIL_CHANGED = "user.email_changed"


def record(event: Event, **facts: Any) -> None:
    """Tell that something happened; `facts` are ids, addresses and reasons, never credentials."""
    logs.tell(event.value, **{name: fact for name, fact in facts.items() if fact is not None})
