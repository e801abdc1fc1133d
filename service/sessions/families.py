"""A user's sessions: one per sign-in, rotated on every refresh.

Redis
    sessions:{<user>}  hash   <sid>      issued and recent exchanges, expires at, started at (ms of Redis' clock), amr,
                                         address and user agent of the sign-in, shortened (`user_agents.py`)
                              <sid>.end  tombstone of an ended session: until when, why
                              -<jti>     a revoked access token: when it expires, why
                              epoch      grows when rights or password change; older access tokens are stale
                              expires a week after the last session would have

`start.lua`, `rotate.lua`, `end.lua`, `revoke.lua`, `forget.lua` and `again.lua` are the only writers; each is one
atomic step on this one key, and each may be repeated harmlessly. What ends something is said again to a master that
takes over within a minute (`again.lua`): it may not have heard. `rule.py` tells the rotation rule. How many sessions
there are is counted beside it, by `accounts/directory.py`; nothing here depends on that.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from service import metrics
from service.accounts.directory import Directory
from service.client import Client, device
from service.clock import Clock, milliseconds, moment
from service.errors import RefreshTokenReused, SessionEnded, StoreUnavailable
from service.ids import is_id, new_id
from service.limits.limiter import Toll
from service.sessions.refresh_tokens import RefreshToken
from service.sessions.rule import Lineage, Verdict, judge
from service.sessions.user_agents import restored, shortened
from service.settings import Settings
from service.store import Command, Script, Store

_HERE = Path(__file__).parent
_START = Script(_HERE / "start.lua")
_ROTATE = Script(_HERE / "rotate.lua")
_END = Script(_HERE / "end.lua")
_FORGET = Script(_HERE / "forget.lua")
_REVOKE = Script(_HERE / "revoke.lua")
_AGAIN = Script(_HERE / "again.lua")
_TOMBSTONES_LAST = timedelta(days=7)
_PRECISION = 60_000  # ms by which the count of sessions may be late


class EndReason(StrEnum):
    """Why a session is over. `rotate.lua` and `start.lua` write the last three."""

    LOGOUT = "logout"
    LOGOUT_ALL = "logout_all"
    REVOKED = "revoked"
    SIGNED_IN_AGAIN = "signed_in_again"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    TAKEN_OVER = "taken_over"
    ACCOUNT_DISABLED = "account_disabled"
    BY_ADMIN = "by_admin"
    EXPIRED = "expired"
    REUSE = "reuse"
    REPLACED = "replaced"


class Revoked(StrEnum):
    """What became of a wish to revoke an access token."""

    NOW = "revoked"
    AGAIN = "again"  # it had been revoked before
    OVER = "over"  # it was refused anyway: its session has ended, or its time is up


_ENDED = {reason: metrics.SESSIONS_ENDED.labels(reason.value) for reason in EndReason}
_DELETED = metrics.SESSIONS_ENDED.labels("account_deleted")
_VERDICTS = {verdict: metrics.REFRESHES.labels(verdict) for verdict in (*map(str, Verdict), "ended", "expired")}


class Expired(SessionEnded):
    """The time of this session was up, and it is this refresh that has found it so."""

    def __init__(self, rotations: int) -> None:
        super().__init__(reason=EndReason.EXPIRED)
        self.rotations = rotations


class Reused(RefreshTokenReused):
    """A token came back that had been exchanged; `began` is the client that had signed in."""

    def __init__(self, began: Client) -> None:
        super().__init__()
        self.began = began


class Overtaken(Exception):
    """The account changed between reading it and opening the session: read it again."""


class Family(NamedTuple):
    """A live session as its rotation leaves it; `epoch` is what access tokens made now must carry.

    Times are milliseconds of Redis' clock.
    """

    token: RefreshToken
    epoch: int
    now: int
    expires_at: int
    started_at: int
    amr: tuple[str, ...]
    verdict: Verdict = Verdict.ROTATED
    replaced: tuple[str, ...] = ()  # sessions that had to make room for this one
    began: Client | None = None  # the client that had signed in, when a token was recovered or healed

    @property
    def expires_in(self) -> int:
        """Seconds."""
        return (self.expires_at - self.now) // 1000


@dataclass(frozen=True)
class Ended:
    """Sessions that are over now; true when there had been one. `rotations` is how often each was refreshed."""

    count: int
    rotations: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def sessions(self) -> tuple[str, ...]:
        return tuple(self.rotations)


@dataclass(frozen=True)
class Session:
    """A session as its owner sees it in a list."""

    id: str
    ip: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    @property
    def device(self) -> str:
        return device(self.user_agent)


class Standing(NamedTuple):
    """What decides whether an access token is still good, read in one look."""

    live: bool
    revoked: bool
    epoch: int


class Families:
    """Opens, rotates, ends and lists sessions; decides each in one step inside Redis."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._directory = Directory(store)
        self._most = settings.max_sessions_per_user
        self._leeway = milliseconds(settings.refresh_leeway)
        self._recovery = int(settings.refresh_recovery)
        self._tolerance = settings.clock_tolerance
        self._lifetimes = (
            milliseconds(settings.jwt_refresh_expiry),
            milliseconds(settings.session_max_age),
            milliseconds(_TOMBSTONES_LAST),
        )
        # The epoch outlives every sign-in under way and every access token that might compare itself with it.
        self._afterlife = milliseconds(settings.jwt_access_expiry + settings.clock_tolerance + timedelta(hours=1))

    def reading_epoch(self, user_id: str) -> Command:
        """The command that reads the epoch; send it before the one that reads the user."""
        return ("HGET", _key(user_id), "epoch")

    async def start(self, user_id: str, epoch: int, amr: tuple[str, ...], client: Client, *beside: Command) -> Family:
        """Open a session for a user read at `epoch`, and run the commands beside it in the same round trip.

        Raises `Overtaken` if the account has changed since it was read.
        """
        sid = new_id()
        command = _START(
            _key(user_id),
            sid,
            epoch,
            "+".join(amr),
            self._most,
            f"{client.address} {shortened(client.user_agent)}",
            *self._lifetimes,
        )
        now = int(self._clock.now() * 1000)
        counting = self._directory.session_opens(user_id, sid, now, now + min(self._lifetimes[:2]))
        answer, *_ = await self._store.run(command, *beside, aside=counting)
        match answer:
            case ["started", told, expires_at, *replaced]:
                at = self._moment(told)
                _ENDED[EndReason.REPLACED].inc(len(replaced))
                await self.count_no_more(user_id, replaced)
                token = RefreshToken(user_id, sid)
                return Family(token, epoch, at, int(expires_at), at, amr, replaced=tuple(replaced))
            case ["overtaken", told]:
                self._moment(told)
                await self.count_no_more(user_id, [sid])
                raise Overtaken
            case answer:
                raise AssertionError(answer)

    async def rotate(self, token: RefreshToken, *beside: Command, toll: Toll | None = None) -> tuple[Family, list[Any]]:
        """Exchange a refresh token for its successor, and run the commands beside it in the same round trip.

        Raises `Reused` (the session is over) or `SessionEnded`, with the reason where one is known; and `Refused` where
        a toll is due and its limit lets nobody through, and then nothing is exchanged.
        """
        key, how = _key(token.user_id), (self._leeway, self._recovery, *self._lifetimes)
        if toll is None:
            commands = [_ROTATE(key, token.session_id, token.generation, *how)]
        else:
            rotating = _ROTATE.looking_at(toll.window, key, token.session_id, token.generation, *how, toll.call)
            commands = [toll.command, rotating]
        lasts = int(self._clock.now() * 1000) + self._lifetimes[0]
        counting = self._directory.session_lasts(token.user_id, token.session_id, lasts)
        replies = await self._store.run(*commands, *beside, aside=[counting])
        if toll is not None:
            toll.settle(replies.pop(0))
        answer = replies.pop(0)
        if answer[0] == "uncounted":
            return await self.rotate(token, *beside)  # its window ended between the two, or came after it
        _VERDICTS[answer[0]].inc()
        match answer:
            case ["reuse", _, now, device]:
                self._moment(now)
                _ENDED[EndReason.REUSE].inc()
                self._insist(token.user_id, EndReason.REUSE, [token.session_id])
                await self.count_no_more(token.user_id, [token.session_id])
                raise Reused(_client(device))
            case ["expired", rotations, now]:
                self._moment(now)
                _ENDED[EndReason.EXPIRED].inc()
                await self.count_no_more(token.user_id, [token.session_id])
                raise Expired(int(rotations))
            case ["ended", _, now, reason]:
                self._moment(now)
                raise SessionEnded(reason=reason) if reason else SessionEnded
            case [verdict, generation, now, epoch, expires_at, started_at, amr, *device]:
                family = Family(
                    RefreshToken(token.user_id, token.session_id, int(generation)),
                    int(epoch),
                    self._moment(now),
                    int(expires_at),
                    int(started_at),
                    tuple(amr.split("+")),
                    Verdict(verdict),
                    began=_client(*device) if device else None,
                )
                if family.expires_at < lasts - _PRECISION:  # it ends with its absolute lifetime
                    await self._count(self._directory.session_lasts(token.user_id, token.session_id, family.expires_at))
                return family, replies
            case _:
                raise AssertionError(answer)

    async def end(
        self, user_id: str, session_id: str, reason: EndReason, jti: str = "", jti_expires: float = 0
    ) -> Ended:
        """End one session, and revoke an access token with it; true when it had existed. Safe to repeat."""
        if not is_id(session_id):
            return Ended(0)  # a session hash has other fields too, and "*" would be every session
        return await self._end(user_id, session_id, "", reason, jti=jti, jti_expires=jti_expires)

    async def end_all(self, user_id: str, reason: EndReason, spare: str = "", account_changed: bool = False) -> Ended:
        """End every session but the spared one; with `account_changed` every older access token is stale too."""
        return await self._end(user_id, "*", spare, reason, grow=account_changed)

    async def outdate_tokens(self, user_id: str) -> None:
        """Make every access token of a user stale, because the rights have changed; the sessions live on."""
        await self._end(user_id, "", "", EndReason.REVOKED, grow=True)

    async def forget(self, user_id: str) -> tuple[str, ...]:
        """End every session of a user who is being deleted and keep nothing but the epoch, for an hour or so.

        A sign-in that read the account before finds the epoch grown, and nothing is left to sign in to.
        """
        fields: dict[str, str] = await self._store.one(("HGETALL", _key(user_id)))
        counted = [sid for sid in fields if is_id(sid)]
        uncounting = self._directory.sessions_end(user_id, counted)
        forgetting = _FORGET(_key(user_id), self._afterlife)
        (ended,) = await self._store.run(forgetting, durable=True, aside=uncounting)
        _DELETED.inc(len(ended))
        self._insist(user_id, EndReason.BY_ADMIN, {*counted, *ended})
        await self.count_no_more(user_id, set(ended).difference(counted))
        return tuple(ended)

    async def live_of(self, user_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """The live sessions of several users in one round trip, each with its expiry (ms)."""
        user_ids, now = tuple(user_ids), self._clock.now() * 1000
        found: dict[str, dict[str, int]] = {}
        hashes = await self._store.run(*(("HGETALL", _key(user_id)) for user_id in user_ids)) if user_ids else []
        for user_id, fields in zip(user_ids, hashes, strict=True):
            expiries = {sid: int(value.split(" ", 2)[1]) for sid, value in fields.items() if is_id(sid)}
            found[user_id] = {sid: expires for sid, expires in expiries.items() if expires > now}
        return found

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the users with sessions, and where to go on; 0 is the end."""
        cursor, keys = await self._store.scan(_key("*"), cursor)
        return cursor, [key[len(_key("")) - 1 : -1] for key in keys]

    async def scan_counted(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of the sessions that are counted as live, as user and beginning of the session's id, and where to go on.

        0 is the end.
        """
        return await self._directory.live(int(self._clock.now() * 1000), cursor)

    async def of(self, user_id: str) -> list[Session]:
        """The live sessions of a user, the one used last first."""
        fields: dict[str, str] = await self._store.one(("HGETALL", _key(user_id)))
        now = self._clock.now()
        sessions = []
        for sid, value in fields.items():
            if not is_id(sid):
                continue
            lineage, expires_at, started_at, _, ip, user_agent = value.split(" ", 5)
            used = max([int(started_at), *(at for _, at in _lineage(lineage).recent)])
            session = Session(sid, ip, restored(user_agent), moment(started_at), moment(used), moment(expires_at))
            if session.expires_at.timestamp() > now:
                sessions.append(session)
        return sorted(sessions, key=lambda session: session.last_used_at, reverse=True)

    async def standing(self, user_id: str, session_id: str, jti: str, lately: bool = False) -> Standing:
        """Whether the session lives, the token is revoked, and the account unchanged: one HMGET, no more.

        `lately`: with `REVOCATION=tracked`, what was so two seconds ago will do. Time is of now in any case.
        """
        look = self._store.recall if lately else self._store.glance
        return self._standing(await look(*_looking(user_id, session_id, jti)))

    async def standing_and(self, user_id: str, session_id: str, jti: str, beside: Command) -> tuple[Standing, Any]:
        """The same, and the reply to another read of the user, which comes after it in the same round trip."""
        found, reply = await self._store.run(_looking(user_id, session_id, jti), beside)
        return self._standing(found), reply

    def _standing(self, found: list[str | None]) -> Standing:
        session, revoked, epoch = found
        live = session is not None and int(session.split(" ", 2)[1]) > self._clock.now() * 1000
        return Standing(live, revoked is not None, int(epoch or 0))

    async def revoke(self, user_id: str, session_id: str, jti: str, jti_expires: float) -> Revoked:
        """Revoke one access token; its session lives on. Safe to repeat; nothing to do where the session is over."""
        until = milliseconds(timedelta(seconds=jti_expires) + self._tolerance)
        command = _REVOKE(_key(user_id), session_id, jti, until, EndReason.REVOKED)
        told, now = await self._store.one(command, durable=True)
        self._moment(now)
        if (verdict := Revoked(told)) is Revoked.NOW:
            metrics.TOKENS_REVOKED.inc()
        if verdict is not Revoked.OVER:
            self._store.insist(command)
        return verdict

    async def expiry(self, token: RefreshToken) -> datetime | None:
        """When the session of a refresh token expires; `None` where the token would be refused."""
        session = await self._store.glance("HGET", _key(token.user_id), token.session_id)
        if session is None:
            return None
        lineage, expires_at, started_at, _ = session.split(" ", 3)
        now = int(self._clock.now() * 1000)
        if int(expires_at) <= now or int(started_at) + self._lifetimes[1] <= now:
            return None
        verdict, _ = judge(_lineage(lineage), token.generation, now, self._leeway, bool(self._recovery))
        return None if verdict is Verdict.REUSE else moment(expires_at)

    async def _end(
        self,
        user_id: str,
        session_id: str,
        spare: str,
        reason: EndReason,
        grow: bool = False,
        jti: str = "",
        jti_expires: float = 0,
    ) -> Ended:
        command = _END(
            _key(user_id),
            session_id,
            spare,
            reason,
            self._lifetimes[2],
            int(grow),
            jti,
            int(jti_expires * 1000),
            self._afterlife,
        )
        # Ending all a second time would end the session of somebody who has signed in again between the two tries.
        ended, epoch, now, told = await self._store.one(command, durable=True, once=session_id == "*")
        self._moment(now)
        rotations = {sid: int(count) for sid, count in zip(told[::2], told[1::2], strict=True)}
        _ENDED[reason].inc(len(rotations))  # `ended` counts one that was over before, too
        named = {session_id} if is_id(session_id) else set()
        self._insist(user_id, reason, named | rotations.keys(), int(epoch) if grow else 0, jti, jti_expires)
        await self.count_no_more(user_id, rotations)
        return Ended(int(ended), rotations)

    def _insist(
        self,
        user_id: str,
        reason: EndReason,
        session_ids: Iterable[str],
        epoch: int = 0,
        jti: str = "",
        jti_expires: float = 0,
    ) -> None:
        until = int(jti_expires * 1000)
        command = _AGAIN(
            _key(user_id), reason, self._lifetimes[2], epoch, self._afterlife, jti, until, *sorted(session_ids)
        )
        self._store.insist(command)

    async def count(self, user_id: str, session_id: str, expires: int) -> None:
        """Count a live session until it expires (ms)."""
        await self._count(*self._directory.session_opens(user_id, session_id, int(self._clock.now() * 1000), expires))

    async def count_no_more(self, user_id: str, session_ids: Iterable[str]) -> None:
        """Take ended sessions, by their ids or as `scan_counted` tells them, out of the count.

        They are over whether this works or not.
        """
        await self._count(*self._directory.sessions_end(user_id, session_ids))

    async def _count(self, *commands: Command) -> None:
        if commands:
            with suppress(StoreUnavailable):
                await self._store.run(*commands)

    def _moment(self, now: str) -> int:
        """Redis' time of a reply (ms), which also keeps our clock right."""
        told = int(now)
        self._clock.anchor(told / 1000)
        return told


def _key(user_id: str) -> str:
    return f"sessions:{{{user_id}}}"


def _looking(user_id: str, session_id: str, jti: str) -> Command:
    """The command that reads what decides about an access token."""
    return ("HMGET", _key(user_id), session_id, "-" + jti, "epoch")


def _lineage(text: str) -> Lineage:
    """What a session begins with: the latest generation, and then each recent exchange as `,generation@time`."""
    issued, *recent = text.split(",")
    exchanged = (entry.split("@") for entry in recent)
    return Lineage(int(issued), tuple((int(old), int(at)) for old, at in exchanged))


def _client(device: str) -> Client:
    """Who began a session, as it is kept."""
    address, _, user_agent = device.partition(" ")
    return Client(address, restored(user_agent))
