"""The one list of security events, as `source.subject.action`: which feature tells it, of what, and what happened.

`trail.py` writes them. A name is for good: trails, alerts and dashboards go by it.
"""

from enum import StrEnum


class Event(StrEnum):
    """What can happen to an account. Who did it is in the detail as `by`, where it was not the owner."""

    # An account was made, by its owner or at a provider.
    USER_REGISTERED = "accounts.user.registered"
    # An account is gone, and everything of it but this trail.
    USER_DELETED = "accounts.user.deleted"
    # The owner of the email, proved by a provider, took the account from whoever had made it.
    ACCOUNT_TAKEN_OVER = "accounts.user.taken_over"
    # A new password; every other session ended.
    PASSWORD_CHANGED = "accounts.password.changed"  # noqa: S105
    # Somebody asked for a mail to set a new password; whether there is such an account is not told here.
    PASSWORD_RESET_ASKED = "accounts.password.reset_asked"  # noqa: S105
    # A new password by such a mail, which proves the email too; every session ended.
    PASSWORD_RESET = "accounts.password.reset"  # noqa: S105
    # The owner proved the email by a mail.
    EMAIL_VERIFIED = "accounts.email.verified"
    # The owner wants to move to another email; it changes when that is proved.
    EMAIL_CHANGE_ASKED = "accounts.email.change_asked"
    # The account has another email, proved by a mail.
    EMAIL_CHANGED = "accounts.email.changed"
    # An account elsewhere signs in here from now on, or no longer.
    IDENTITY_LINKED = "accounts.identity.linked"
    IDENTITY_UNLINKED = "accounts.identity.unlinked"
    # Somebody signed in; `ended` names the sessions that had to make room.
    SIGNED_IN = "sessions.session.started"
    # A wrong password, a disabled account, or an email that must be proved first; with `provider`, that nobody was
    # signed in who came from there.
    SIGN_IN_REFUSED = "sessions.sign_in.refused"
    # Somebody who is signed in did not know the password that a new password, a new email or the end of the account
    # takes: `deed` says which.
    REAUTHENTICATION_REFUSED = "sessions.reauthentication.refused"
    # So many attempts to sign in to one account, or from one address, failed or were refused by a limit in a short time
    # that it looks like guessing: `by` says which, `count` and `window` (seconds) how many make it so, and `addresses`,
    # or `accounts`, from how many or at how many. Once in a window.
    SIGN_IN_BURST = "sessions.sign_in.burst"
    # A client came back late with a token whose successor it never saw.
    SESSION_RECOVERED = "sessions.session.recovered"
    # Redis had lost a rotation in a failover.
    SESSION_HEALED = "sessions.session.healed"
    # An exchanged refresh token came back: the session was ended, for one of the two is a thief. `same_client` and
    # `same_network` compare who sent it with who signed in, and `looks_like` says what that makes it: theft, or a
    # broken client. The two events before have that too.
    REFRESH_TOKEN_REUSED = "sessions.refresh_token.reused"  # noqa: S105
    # One session is over; `reason` says why, `rotations` how often it had been refreshed.
    SESSION_ENDED = "sessions.session.ended"
    # Every session of the account is over.
    SESSIONS_ENDED = "sessions.all.ended"
    # An API key was made, or revoked: by its owner, or for the `reason` told; `key_id` names it.
    API_KEY_CREATED = "apikeys.key.created"
    API_KEY_REVOKED = "apikeys.key.revoked"
    # One access token was ended, and its session lives on.
    ACCESS_TOKEN_REVOKED = "tokens.access_token.revoked"  # noqa: S105
    # A new key is published and signs from `signs_from` on; a key is refused from now on.
    SIGNING_KEY_ADDED = "tokens.signing_key.added"
    SIGNING_KEY_RETIRED = "tokens.signing_key.retired"
    # The command line made an account with the role admin.
    ADMIN_CREATED = "admin.account.created"
    # Roles were given or taken.
    ROLES_CHANGED = "admin.roles.changed"
    # The account can no longer sign in, or can again.
    USER_DISABLED = "admin.user.disabled"
    USER_ENABLED = "admin.user.enabled"
    # Somebody vouched for the email, or withdrew that.
    EMAIL_VOUCHED_FOR = "admin.email.verified"
    EMAIL_UNVERIFIED = "admin.email.unverified"
    # The command line gave out everything that is kept of an account.
    USER_EXPORTED = "admin.user.exported"
    # The command line brought accounts from another system: `count` says how many, and `roles` how many of them have
    # which beside `user`.
    USERS_IMPORTED = "admin.users.imported"
    # `repair` mended an index or finished what a crash had cut off.
    INDEXES_REPAIRED = "admin.indexes.repaired"
    # Mail that had been parked is to be tried again, or is forgotten; `mail` names it, or `count` says how many.
    MAIL_RETRIED = "admin.mail.retried"
    MAIL_DROPPED = "admin.mail.dropped"

    @property
    def outcome(self) -> str:
        """Whether what was tried was done."""
        return "refused" if self in _REFUSED else "success"


_REFUSED = frozenset({
    Event.SIGN_IN_REFUSED, Event.REAUTHENTICATION_REFUSED, Event.SIGN_IN_BURST, Event.REFRESH_TOKEN_REUSED,
})  # fmt: skip
