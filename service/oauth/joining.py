"""Which account a person from a provider belongs to.

An identity is an issuer and a subject, never an email: an email may be given to somebody else. An account is joined by
email only where both sides have verified it.

    the identity is known                                   its account
    email verified there, and here                          the account gets the identity
    email verified there, not here                          whoever made the account is put out, its owner takes it
    email not verified there, an account has it             `EmailExists`: sign in and link; but where registration
                                                            does not say so either, `OAuthEmailUnverified`
    email not verified there, no account has it             `OAuthEmailUnverified`
    email verified there, no account has it                 a new account, unless registration is closed
"""

import asyncio
import unicodedata
from dataclasses import replace

from service.accounts.emails import LONGEST, InvalidEmail, canonical
from service.accounts.user import Identity, User
from service.accounts.users import LastWayIn, Linking, Users
from service.apikeys.keys import ApiKeys
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.clock import Clock
from service.errors import (
    AccountDisabled,
    EmailExists,
    Forbidden,
    IdentityInUse,
    OAuthEmailUnverified,
    ReauthenticationRequired,
    RegistrationClosed,
    StoreUnavailable,
)
from service.oauth.provider import Person
from service.sessions.families import EndReason, Families
from service.sessions.signin import SignedIn, SignIn
from service.tokens.access import Principal

_LONGEST_NAME = 100
_LOOK_AGAIN = (0.05, 0.1, 0.2, 0.4, 0.4)  # seconds between looks for an account that is just being made
AMR = ("fed",)
_REFUSALS = (EmailExists, IdentityInUse, OAuthEmailUnverified, RegistrationClosed)  # of nobody whom we know


class Joining:
    """Brings people from providers together with their accounts."""

    def __init__(
        self,
        users: Users,
        families: Families,
        api_keys: ApiKeys,
        signin: SignIn,
        clock: Clock,
        audit: Audit,
        *,
        closed: bool = False,
        says_taken: bool = True,
    ) -> None:
        self._users = users
        self._families = families
        self._api_keys = api_keys
        self._signin = signin
        self._clock = clock
        self._audit = audit
        self._closed = closed
        self._says_taken = says_taken

    async def enter(self, person: Person, provider: str, client: Client) -> SignedIn:
        """Sign a person in; raises `AccountDisabled`, `EmailExists`, `IdentityInUse` or `OAuthEmailUnverified`."""
        try:
            user = await self._account_of(person, provider, client)
        except _REFUSALS as refusal:
            self._signin.note_refusal(AMR, refusal, client, provider=provider)
            raise
        return await self._signin.begin(user, AMR, client)

    async def link(self, person: Person, provider: str, user_id: str, session_id: str, client: Client) -> User:
        """Give an identity to the account whose session started this; raises `IdentityInUse`."""
        # The user first: what happens to the account after this look at its session is noticed by `Users.link`.
        user = await self._users.find(user_id)
        standing = await self._families.standing(user_id, session_id, "")
        if user is None or not user.active or not standing.live:
            raise ReauthenticationRequired
        who = Linking.VERIFIED if _verified_email(person) == user.email else Linking.HOLDER
        await self._users.link(user, _identity(person, provider), who)
        await self._audit.record(Event.IDENTITY_LINKED, user_id=user_id, provider=provider, client=client)
        return await self._users.find(user_id) or user

    async def unlink(self, principal: Principal, provider: str, client: Client) -> None:
        """Take an identity from an account; raises `ReauthenticationRequired` or, of the last way in, `Forbidden`."""
        principal.check_recent(self._clock.now())
        user = await self._users.find(principal.user_id)
        if user is None or not any(held.provider == provider for held in user.identities):
            return  # nothing to tell of; the name may be anything, and of any length
        try:
            await self._users.unlink(principal.user_id, provider)
        except LastWayIn as error:
            raise Forbidden("This is your only way to sign in; set a password or link another account first") from error
        await self._audit.record(Event.IDENTITY_UNLINKED, user_id=principal.user_id, provider=provider, client=client)

    async def _account_of(self, person: Person, provider: str, client: Client) -> User:
        for pause in _LOOK_AGAIN:
            user = await self._users.find_by_identity(person.issuer, person.subject)
            user = user or await self._by_email(person, provider, client)
            if user is not None:
                return user
            await asyncio.sleep(pause)
        raise StoreUnavailable

    async def _by_email(self, person: Person, provider: str, client: Client) -> User | None:
        """The account that the email leads to, or a new one; `None` while another request is making it."""
        email = _verified_email(person)
        if email is None:
            # Anybody can give a provider that proves nothing an email, and so would learn here which have an account.
            if person.email and self._says_taken and await self._taken(person.email):
                raise EmailExists("Sign in to the account with this email first, and link the provider there")
            raise OAuthEmailUnverified
        existing = await self._users.find_by_email(email)
        if existing is None:
            return await self._make(person, email, provider, client)
        if not existing.active:
            disabled = AccountDisabled()
            self._signin.note_refusal(AMR, disabled, client, existing.id, provider=provider)
            raise disabled
        if not existing.email_verified and await self._users.strip(existing.id):
            existing = await self._evict(existing, person, provider, client)
        # Verified on both sides now, or verified here a moment ago by somebody else's request.
        identity = _identity(person, provider)
        try:
            await self._users.link(existing, identity, Linking.OWNER)
        except IdentityInUse:
            if any(held.provider == provider and not held.same_as(identity) for held in existing.identities):
                raise
            # What was found is a registration that came second, or somebody else's request has linked the identity.
            return None
        await self._audit.record(Event.IDENTITY_LINKED, user_id=existing.id, provider=provider, client=client)
        if (joined := await self._users.find(existing.id)) is None:
            raise StoreUnavailable
        return joined

    async def _make(self, person: Person, email: str, provider: str, client: Client) -> User | None:
        if self._closed:
            raise RegistrationClosed
        profile = _profile(person)
        draft = User(
            id="",
            email=email,
            email_verified=True,
            provider=provider,
            identities=(_identity(person, provider),),
            first_name=profile["first"],
            last_name=profile["last"],
            name=profile["name"],
            picture=profile["pic"],
        )
        try:
            user = await self._users.register(draft)
        except (EmailExists, IdentityInUse):
            return None
        await self._audit.record(Event.USER_REGISTERED, user_id=user.id, provider=provider, client=client)
        return user

    async def _evict(self, user: User, person: Person, provider: str, client: Client) -> User:
        """Put out whoever made the account: it has no way in any more, so now end what is open.

        Only then is the email verified and the identity linked. Should this fail half-way, the owner comes again and
        finds the account still unverified, and it all happens again.
        """
        ended = await self._families.end_all(user.id, EndReason.TAKEN_OVER, account_changed=True)
        for key_id in await self._api_keys.revoke_all(user.id):
            self._audit.note(
                Event.API_KEY_REVOKED, user_id=user.id, client=client, key_id=key_id, reason=EndReason.TAKEN_OVER
            )
        await self._users.change(user.id, via=provider, **_profile(person))
        await self._audit.record(
            Event.ACCOUNT_TAKEN_OVER, user_id=user.id, client=client, provider=provider, ended=ended.sessions
        )
        return replace(user, identities=())

    async def _taken(self, email: str) -> bool:
        try:
            return await self._users.find_by_email(email) is not None
        except InvalidEmail:
            return False


def _verified_email(person: Person) -> str | None:
    """The canonical email, if the provider vouches for it as it is written.

    Compatibility forms (`ﬁ` for `fi`) count as one account here but may be two mailboxes there: they join nothing.
    """
    if not person.email or not person.email_verified:
        return None
    try:
        email = canonical(person.email)
    except InvalidEmail:
        return None
    as_written = unicodedata.normalize("NFC", person.email.rpartition("@")[0]).lower()
    return email if email.rpartition("@")[0] == as_written else None


def _identity(person: Person, provider: str) -> Identity:
    shown = person.email if person.email and len(person.email) <= LONGEST and person.email.isprintable() else None
    return Identity(provider, person.issuer, person.subject, shown)


def _profile(person: Person) -> dict[str, str | None]:
    """The provider's word on names and picture, by the names that a user record has for them."""
    picture = person.picture or ""
    return {
        "first": _cut(person.first_name),
        "last": _cut(person.last_name),
        "name": _cut(person.name),
        "pic": picture if picture.startswith("https://") and picture.isprintable() and len(picture) <= 2048 else None,
    }


def _cut(text: str | None) -> str | None:
    """A provider's word within our own bounds."""
    return "".join(filter(str.isprintable, text))[:_LONGEST_NAME].strip() or None if text else None
