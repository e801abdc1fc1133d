"""Getting back into an account, and moving it to another email: each step proves one thing, by a token from a mail.

Whoever shows a token has read the mail, so a reset proves the email too: the account is verified, and what others
may have put into one that never was goes (its identities elsewhere, its sessions, a pending change of email). Keeps
nothing; a pending change is the field `new` of the user's record.
"""

from service.accounts.emails import masked
from service.accounts.once import NONE_LEFT, Found, Once, Purpose
from service.accounts.passwords import Passwords
from service.accounts.user import User
from service.accounts.users import Users
from service.apikeys.keys import ApiKeys
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.errors import EmailExists, InvalidCredentials, InvalidField, InvalidOneTimeToken
from service.mail.letters import Kind
from service.mail.notices import Notices
from service.mail.outbox import Outbox
from service.recovery.errands import REGISTER
from service.sessions.families import EndReason, Families
from service.sessions.reauthentication import Deed, Reauthentication
from service.settings import Settings
from service.tokens.access import Principal


class Recovery:
    """What a person does with the mails they get."""

    def __init__(
        self,
        users: Users,
        once: Once,
        passwords: Passwords,
        reauthentication: Reauthentication,
        families: Families,
        api_keys: ApiKeys,
        outbox: Outbox,
        notices: Notices,
        audit: Audit,
        settings: Settings,
    ) -> None:
        self._users = users
        self._once = once
        self._passwords = passwords
        self._reauthentication = reauthentication
        self._families = families
        self._api_keys = api_keys
        self._outbox = outbox
        self._notices = notices
        self._audit = audit
        self._says_taken = settings.registration == "open"

    async def register(self, client: Client, password: str, **fields: str | None) -> None:
        """Leave a registration to the post: the same work and the same answer whether the email is taken or not."""
        given = {name: value for name, value in fields.items() if value is not None}
        phc = await self._passwords.hash(password)
        await self._outbox.put(REGISTER, password=phc, ip=client.address, agent=client.user_agent, **given)

    async def forgot(self, email: str, client: Client) -> None:
        """Ask for a mail that opens the account of an email, if there is one."""
        await self._outbox.put(Kind.RESET, email=email)
        await self._audit.record(Event.PASSWORD_RESET_ASKED, client=client)

    async def ask_verification(self, user_id: str) -> None:
        """Ask for a mail that verifies the account's email, if it is not."""
        await self._outbox.put(Kind.VERIFY, user=user_id)

    async def reset(self, token: str, new: str, client: Client) -> None:
        """Set a password with the token of a mail; every session ends. Raises `InvalidOneTimeToken`, `WeakPassword`."""
        found = await self._once.find(token, Purpose.RESET)
        user = await self._users.find(found.user_id)
        if user is None or not user.active:
            raise InvalidOneTimeToken
        self._passwords.check(new, user.email, user.first_name, user.last_name, user.name, field="newPassword")
        phc = await self._passwords.hash(new)
        # Before the token is spent, so that a fault after it leaves nobody in; and after, for who came in between.
        ended = await self._put_out(user, client)
        await self._once.redeem(found, {**NONE_LEFT, "pw": phc, "ok": "1"}, proves_owner=True)
        try:
            ended += await self._put_out(user, client)
        finally:
            # The token is spent: nobody comes again to tell of it.
            await self._audit.record(Event.PASSWORD_RESET, user_id=user.id, client=client, ended=ended)
            await self._notices.tell(Kind.PASSWORD_CHANGED, client, user.id, user.email)

    async def verify(self, token: str, client: Client) -> None:
        """Take a token that proves an email, the account's own or a new one.

        Raises `InvalidOneTimeToken`, or `EmailExists` if somebody has taken the new email meanwhile.
        """
        found = await self._once.find(token, Purpose.VERIFY, Purpose.CHANGE)
        if found.purpose is Purpose.CHANGE:
            await self._move(found, client)
            return
        await self._once.redeem(found, {"ok": "1"})
        await self._audit.record(Event.EMAIL_VERIFIED, user_id=found.user_id, client=client)

    async def ask_change(self, principal: Principal, new: str, password: str, client: Client) -> None:
        """Ask for another email; it changes when the new one is proved, and the old one is told.

        Raises `InvalidCredentials`, and `EmailExists` only where registration would say as much.
        """
        user = await self._users.find(principal.user_id)
        if user is None:
            raise InvalidCredentials
        await self._reauthentication.confirm(principal, user, password, Deed.NEW_EMAIL, client)
        if new == user.email:
            raise InvalidField("newEmail", "is the account's email already")
        if self._says_taken and await self._users.find_by_email(new):
            raise EmailExists
        # Only while the password is the one that was shown: after a reset or a takeover nothing may be asked any more.
        asked: dict[str, str | None] = {"new": new, Purpose.CHANGE.field: None}
        if not await self._users.change(user.id, password_was=user.password, **asked):
            raise InvalidCredentials("The password has been changed in the meantime")
        await self._outbox.put(Kind.CHANGE, user=user.id, new=new)
        await self._audit.record(
            Event.EMAIL_CHANGE_ASKED, user_id=user.id, session_id=principal.session_id, client=client
        )
        await self._notices.tell(Kind.CHANGE_ASKED, client, user.id, user.email, email=masked(new))

    async def _put_out(self, user: User, client: Client) -> tuple[str, ...]:
        """End every session, and the API keys of an account that somebody else may have made; which sessions."""
        ended = await self._families.end_all(user.id, EndReason.PASSWORD_CHANGED, account_changed=True)
        if not user.email_verified:
            for key_id in await self._api_keys.revoke_all(user.id):
                self._audit.note(
                    Event.API_KEY_REVOKED,
                    user_id=user.id,
                    client=client,
                    key_id=key_id,
                    reason=EndReason.PASSWORD_CHANGED,
                )
        return ended.sessions

    async def _move(self, found: Found, client: Client) -> None:
        user = await self._users.find(found.user_id)
        if user is None or user.new_email is None:
            raise InvalidOneTimeToken
        new = user.new_email
        async with self._users.moving(user, new):
            await self._once.redeem(found, {**NONE_LEFT, "email": new, "ok": "1"})
        try:
            await self._families.outdate_tokens(user.id)  # they say the old email
        finally:
            await self._audit.record(Event.EMAIL_CHANGED, user_id=user.id, client=client)
            await self._notices.tell(Kind.EMAIL_CHANGED, client, user.id, user.email, email=masked(new))
