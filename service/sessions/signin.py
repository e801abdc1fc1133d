"""Signing in: begin, renew and end a session, whatever proved who the person is."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from service import metrics
from service.accounts.once import NONE_LEFT
from service.accounts.passwords import Passwords
from service.accounts.user import Rights, User
from service.accounts.users import Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.clock import Clock, moment
from service.errors import (
    AccountDisabled,
    EmailUnverified,
    InvalidCredentials,
    Overloaded,
    RateLimited,
    ServiceError,
    SessionEnded,
    StoreUnavailable,
)
from service.limits.limiter import Charge, Limiter, Toll
from service.limits.places import Places, Seen
from service.mail.letters import Kind
from service.mail.notices import Notices
from service.sessions.families import EndReason, Expired, Families, Family, Overtaken, Reused
from service.sessions.reauthentication import Deed, Reauthentication
from service.sessions.refresh_tokens import RefreshToken, RefreshTokens
from service.sessions.replays import Looks, Replay
from service.sessions.rule import Verdict
from service.settings import Settings
from service.signals.signals import Signal, Signals
from service.store import Store
from service.tokens.access import AccessToken, AccessTokens, Principal

_ATTEMPTS = 5
_OUT_OF_THE_ORDINARY = {Verdict.RECOVERED: Event.SESSION_RECOVERED, Verdict.HEALED: Event.SESSION_HEALED}


@dataclass(frozen=True)
class Tokens:
    """What a client takes away from a refresh."""

    session_id: str
    access: AccessToken
    refresh_token: str
    refresh_expires_in: int  # seconds


@dataclass(frozen=True)
class SignedIn(Tokens):
    """What a client takes away from a sign-in."""

    user: User
    new_device: bool  # one that was not signed in with from there lately; never at the first sign-in to the account
    seen: Seen | None  # what was known of the place before, where that could be told


class _Refused(Exception):
    """No to a sign-in, and whose account it was for, if there is such an account."""

    def __init__(self, answer: ServiceError, user_id: str | None) -> None:
        super().__init__(answer)
        self.answer = answer
        self.user_id = user_id


class SignIn:
    """The life of a session as its person lives it."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        users: Users,
        passwords: Passwords,
        reauthentication: Reauthentication,
        families: Families,
        refresh_tokens: RefreshTokens,
        access_tokens: AccessTokens,
        limiter: Limiter,
        places: Places,
        signals: Signals,
        notices: Notices,
        audit: Audit,
        settings: Settings,
    ) -> None:
        self._store = store
        self._clock = clock
        self._users = users
        self._passwords = passwords
        self._reauthentication = reauthentication
        self._families = families
        self._refresh_tokens = refresh_tokens
        self._access_tokens = access_tokens
        self._limiter = limiter
        self._places = places
        self._signals = signals
        self._notices = notices
        self._audit = audit
        self._floor = settings.sign_in_floor.total_seconds()
        self._verified_only = settings.require_verified_email

    async def with_password(self, email: str, password: str, client: Client) -> SignedIn:
        """Sign in with an email and a password.

        Raises `InvalidCredentials`, after the same work for a wrong password and for an unknown email, or, only
        after a right password, `AccountDisabled` or `EmailUnverified`. A refusal takes `SIGN_IN_FLOOR` at least.
        """
        floor = asyncio.get_running_loop().time() + self._floor
        try:
            signed = await self._with_password(email, password, client)
        except _Refused as refused:
            await asyncio.sleep(floor - asyncio.get_running_loop().time())
            if isinstance(refused.answer, InvalidCredentials):
                self._signals.note_attempt(email, client)
            self.note_refusal(("pwd",), refused.answer, client, refused.user_id)
            raise refused.answer from None
        await self._upgrade(signed.user, password)
        return signed

    async def begin(self, user: User, amr: tuple[str, ...], client: Client) -> SignedIn:
        """Open a session for a user who has just proved who they are, by other means than a password."""
        for _ in range(_ATTEMPTS):
            epoch, current, seen = await self._read(user.id, user.email, client)
            try:
                current = await self._admitted(current, client)
            except (AccountDisabled, EmailUnverified) as refusal:
                self.note_refusal(amr, refusal, client, user.id)
                raise
            try:
                return await self._open(current, epoch, amr, client, seen)
            except Overtaken:
                continue
        raise StoreUnavailable

    def note_refusal(
        self, amr: tuple[str, ...], refusal: ServiceError, client: Client, user_id: str | None = None, **detail: Any
    ) -> None:
        """Tell that nobody was signed in, and why.

        Not waited for: how long it takes to write would tell whether there is such an account.
        """
        metrics.sign_in(amr, refusal.code)
        self._signals.note(Signal.FAILED)
        self._audit.note(Event.SIGN_IN_REFUSED, user_id=user_id, client=client, reason=refusal.code, **detail)

    async def renew(self, token: RefreshToken, client: Client, toll: Toll | None = None) -> Tokens:
        """Trade an authentic refresh token for its successor and a new access token, with the rights the user has now.

        Raises `RefreshTokenReused` or `SessionEnded`; with a toll that is due `Refused`, and then nothing is done.
        """
        try:
            family, (found,) = await self._families.rotate(token, self._users.reading_rights(token.user_id), toll=toll)
        except Reused as reused:
            replay = Replay(Verdict.REUSE, client, reused.began)
            await self._tell_replay(Event.REFRESH_TOKEN_REUSED, token, replay)
            # Over already; said again so that the replicas have it before anybody hears of it.
            await self._families.end(token.user_id, token.session_id, EndReason.REUSE)
            await self._notices.tell(Kind.TOKEN_REUSED, client, token.user_id)
            raise
        except Expired as expired:
            await self._tell(Event.SESSION_ENDED, token, client, reason=EndReason.EXPIRED, rotations=expired.rotations)
            raise
        if (event := _OUT_OF_THE_ORDINARY.get(family.verdict)) is not None:
            assert family.began is not None
            # Each time that one token is recovered it brings another generation.
            replay = Replay(family.verdict, client, family.began, family.token.generation - token.generation - 1)
            await self._tell_replay(event, token, replay)
        if (rights := Rights.read(token.user_id, found)) is None:
            await self.end(token.user_id, token.session_id, EndReason.ACCOUNT_DISABLED, client)
            raise SessionEnded(reason=EndReason.ACCOUNT_DISABLED)
        return Tokens(*await self._tokens(rights, family))

    async def end(
        self, user_id: str, session_id: str, reason: EndReason, client: Client, principal: Principal | None = None
    ) -> bool:
        """End a session, everywhere at once; true when there was one. Safe to repeat."""
        jti, expires = (principal.jti, principal.expires_at) if principal else ("", 0)
        ended = await self._families.end(user_id, session_id, reason, jti, expires)
        if ended:
            rotations = ended.rotations.get(session_id)
            of = (session_id,)  # whoever still has a token of it may say so as often as they like
            await self._audit.record_once(
                Event.SESSION_ENDED,
                of,
                user_id=user_id,
                session_id=session_id,
                client=client,
                reason=reason,
                rotations=rotations,
            )
        return bool(ended)

    async def end_all(self, user_id: str, reason: EndReason, client: Client) -> None:
        """End every session of a user, everywhere at once."""
        ended = await self._families.end_all(user_id, reason, account_changed=True)
        await self._audit.record(
            Event.SESSIONS_ENDED, user_id=user_id, client=client, reason=reason, count=ended.count, ended=ended.sessions
        )

    async def change_password(self, principal: Principal, current: str, new: str, client: Client) -> None:
        """Set a new password and end every other session; raises `InvalidCredentials` or `WeakPassword`.

        When a fault came between the two steps, the same request may come again: that the password is the new
        one already is no reason to refuse it.
        """
        user = await self._users.find(principal.user_id)
        if user is None:
            raise InvalidCredentials
        self._passwords.check(new, user.email, user.first_name, user.last_name, user.name, field="newPassword")
        if await self._reauthentication.confirm(principal, user, current, Deed.NEW_PASSWORD, client, or_done=new):
            renewed = {**NONE_LEFT, "pw": await self._passwords.hash(new)}
            changed = await self._users.change(user.id, password_was=user.password, **renewed)
            if not changed:
                raise InvalidCredentials("The password has been changed in the meantime")
        ended = await self._families.end_all(
            user.id, EndReason.PASSWORD_CHANGED, spare=principal.session_id, account_changed=True
        )
        session = RefreshToken(user.id, principal.session_id)
        await self._tell(Event.PASSWORD_CHANGED, session, client, ended=ended.sessions)
        await self._notices.tell(Kind.PASSWORD_CHANGED, client, user.id, user.email)

    async def _with_password(self, email: str, password: str, client: Client) -> SignedIn:
        user_id = await self._users.id_of(email)
        proved: str | None = None
        for _ in range(_ATTEMPTS):
            epoch, user, seen = await self._read(user_id, email, client) if user_id else (0, None, None)
            if user and user.email != email:
                user = None
            phc = user.password if user else ""
            if proved is None or proved != phc:
                if not await self._passwords.verify(password, phc or None):
                    raise _Refused(InvalidCredentials(), user.id if user else None)
                proved = phc
            assert user is not None
            if user.untold:
                # Who has just registered it would learn from anything else that the email had no account before.
                raise _Refused(InvalidCredentials(), user.id)
            try:
                await self._admitted(user, client)
            except (AccountDisabled, EmailUnverified) as refusal:
                raise _Refused(refusal, user.id) from None
            try:
                return await self._open(user, epoch, ("pwd",), client, seen)
            except Overtaken:
                # The password or the rights changed while it was being verified: look again.
                continue
        raise StoreUnavailable

    async def _admitted(self, user: User | None, client: Client) -> User:
        """The user; raises `AccountDisabled`, or `EmailUnverified` after asking for another link to be sent."""
        if user is None or not user.active:
            raise AccountDisabled
        if self._verified_only and not user.email_verified:
            with suppress(RateLimited):  # whoever registered it, the address gets no more mails of us than that
                await self._limiter.charge(Charge("forgot", (user.email,), quiet=True))
                await self._notices.tell(Kind.VERIFY, client, user.id)
            raise EmailUnverified
        return user

    async def _read(self, user_id: str, email: str, client: Client) -> tuple[int, User | None, Seen | None]:
        """The epoch, then the user: a change in between makes the epoch too old, never the user. And the place."""
        epoch, record, kept = await self._store.run(
            self._families.reading_epoch(user_id),
            self._users.reading(user_id),
            hints=[self._places.reading(email, client)],
        )
        return int(epoch or 0), User.read(user_id, record), self._places.read(kept)

    async def _open(self, user: User, epoch: int, amr: tuple[str, ...], client: Client, seen: Seen | None) -> SignedIn:
        family = await self._families.start(user.id, epoch, amr, client, self._users.noting_login(user.id))
        metrics.sign_in(amr, "success")
        new = self._what_is_new(user, client, seen)
        facts = {"amr": amr, "device": client.device, "ended": family.replaced}
        await self._tell(Event.SIGNED_IN, family.token, client, **facts, **dict.fromkeys(new, True))
        signed_in = replace(user, last_login_at=moment(family.now))
        return SignedIn(*await self._tokens(user, family), signed_in, new_device=bool(new), seen=seen)

    def _what_is_new(self, user: User, client: Client, seen: Seen | None) -> tuple[str, ...]:
        """`new_device`, and `new_place` where nobody has signed in to the account from there lately, whatever with."""
        if user.last_login_at is None or seen is None or not seen.is_new(client.device):
            return ()
        metrics.NEW_DEVICES.labels("place" if seen.is_new_place else "device").inc()
        self._signals.note(Signal.NEW_DEVICE)
        return ("new_device", "new_place") if seen.is_new_place else ("new_device",)

    async def _tokens(self, user: User | Rights, family: Family) -> tuple[str, AccessToken, str, int]:
        """The fields of `Tokens`."""
        return (
            family.token.session_id,
            await self._access_tokens.make(user, family),
            self._refresh_tokens.write(family.token),
            family.expires_in,
        )

    async def _upgrade(self, user: User, password: str) -> None:
        """Replace an old kind of hash, now that the password is known to be right."""
        if not self._passwords.outdated(user.password):
            return
        try:
            renewed = await self._passwords.hash(password)
            await self._users.change(user.id, password_was=user.password, pw=renewed)
        except (Overloaded, StoreUnavailable):
            return  # The next sign-in will do it; this one is not held up.

    async def _tell_replay(self, event: Event, token: RefreshToken, replay: Replay) -> None:
        metrics.refresh_replay(replay.verdict, replay.looks_like)
        if replay.verdict is Verdict.REUSE:
            self._signals.note(Signal.REUSED)
        if replay.looks_like is Looks.BROKEN_CLIENT:
            self._signals.note_broken(replay.came)
        await self._tell(event, token, replay.came, generation=token.generation, **replay.facts)

    async def _tell(self, event: Event, session: RefreshToken, client: Client, **facts: object) -> None:
        await self._audit.record(event, user_id=session.user_id, session_id=session.session_id, client=client, **facts)
