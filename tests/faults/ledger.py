"""What was promised to simulated browsers, written down as it was promised, and held against every later answer.

Each fact has two ends in time. A log-out that was asked for at one moment and confirmed at another has certainly
happened from the second on, and may have happened from the first on; one that was never answered may happen until
`STRAGGLING` later. An answer is wrong only if no order of events could explain it, so the ledger needs no clock but its
own and may watch any number of browsers at once.

    a wrong answer     a revoked or outdated token is accepted; a live session or the right password is refused for
                       another reason than a 503; somebody else's data; a 500; a 429 or 503 that clears a cookie
    a lost request     503, or no answer at all: allowed while there is a fault, and counted
    a shed request     503 OVERLOADED for a password to hash: this machine had no core left for it, which says nothing
                       about Redis; nothing was done, and the browser asks again
"""

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from math import inf
from typing import NamedTuple

import aiohttp

from tests.conftest import PASSWORD, Answer
from tests.faults.figures import Lateness

STRAGGLING = 3.0  # seconds after which a request that nobody answered has no effect any more
STOOD_STILL = 0.5  # seconds of the second around a change of masters that explain a write to the one before
HASHING = 3.0  # seconds that a new password takes at most on a busy machine
UNREPLICATED = 2.0  # seconds that a replica may be late on a busy machine
UNNOTICED = 5.0  # seconds for which a server may have been taken for dead before another is chosen
GIVES_UP = 10.0  # seconds after which a browser stops waiting: an answer that late is none
TRIES = 3  # how often a browser repeats what it must not leave undone
HASHES = ("login", "register", "change")  # what takes the time of a core, and may have to wait for one
TRAFFIC = {"verify": 40, "me": 10, "refresh": 22, "two_tabs": 6, "look_back": 10, "log_out": 6, "log_out_all": 2} | {
    "change_password": 2,
    "register": 2,
}
STORM = {"refresh": 8, "verify": 2}


@dataclass(frozen=True)
class Call:
    """A request, when it was sent and answered (seconds), and the status; 0 without an answer.

    `shed` says that no core was left for its password.
    """

    what: str
    asked: float
    answered: float
    status: int
    shed: bool = False

    @property
    def lost(self) -> bool:
        return self.status in (0, 503) and not self.shed


@dataclass(eq=False)
class Ending:
    """Something that ends sessions, or makes older access tokens stale: between `began` and `until`, if at all."""

    began: float
    until: float = inf
    confirmed: bool = False
    refused: bool = False
    spared: "Session | None" = None


@dataclass(eq=False)
class Password:
    """A password, and when it was possibly and when it was certainly the one that counts."""

    text: str
    possible_from: float
    certain_from: float
    certain_until: float = inf
    possible_until: float = inf


@dataclass(eq=False)
class Session:
    """A session as its browser knows it; `asked` and `born` frame the sign-in, the token's times its last refresh."""

    account: "Account"
    user_id: str
    asked: float
    born: float
    access_token: str
    refresh_token: str
    token_asked: float
    token_answered: float
    endings: list[Ending] = field(default_factory=list)

    def is_over(self, at: float) -> bool:
        """Whether it had certainly been ended by then."""
        mine = any(ending.confirmed and ending.until <= at for ending in self.endings)
        return mine or any(
            ending.confirmed and ending.until <= at and self.born <= ending.began and ending.spared is not self
            for ending in self.account.endings
        )

    def may_be_over(self, at: float = inf) -> bool:
        """Whether it may have been ended by then."""
        mine = any(ending.began <= at and not ending.refused for ending in self.endings)
        return mine or any(
            ending.began <= at <= inf and ending.until >= self.asked and not ending.refused
            for ending in self.account.endings
            if ending.spared is not self
        )

    def token_is_stale(self, at: float) -> bool:
        """Whether the account had certainly changed since the access token was made."""
        return any(
            ending.confirmed and ending.until <= at and self.token_answered <= ending.began
            for ending in self.account.endings
        )

    def token_may_be_stale(self, at: float) -> bool:
        return any(
            ending.began <= at and ending.until >= self.token_asked and not ending.refused
            for ending in self.account.endings
        )


@dataclass(eq=False)
class Account:
    """An account; `acknowledged` once we were told that it is there."""

    email: str
    passwords: list[Password] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    acknowledged: bool = False
    unsettled_until: float = 0.0  # a change of the password is under way, or was never answered

    def candidates(self, at: float) -> list[Password]:
        """What its password may be, the newest first."""
        return [each for each in reversed(self.passwords) if each.possible_until >= at]

    def settle(self, password: Password, at: float) -> None:
        """It is this one, as a sign-in sent at this moment has shown, unless a change may still come true."""
        if at < self.unsettled_until:
            return
        for each in self.passwords:
            if each is not password:
                each.possible_until = min(each.possible_until, at)
        password.certain_from = min(password.certain_from, at)
        password.certain_until = inf


class Promotion(NamedTuple):
    """A node became master, at this moment by the monotonic clock; `wanted` where a test had asked for that."""

    at: float
    wanted: bool


@dataclass(frozen=True)
class Accusation:
    """An answer that was wrong, unless a server was lost that alone knew what it should have been.

    `since` are the moments when that came to be; empty where no loss explains the answer.
    """

    text: str
    since: tuple[float, ...] = ()


class Ledger:
    """All accounts, all calls, and every answer that was wrong.

    What a new master had not heard of is gone. That is held against nobody where the master before it was taken for
    dead although no test wanted that, because the machine stood still; nor where it was replaced on demand while the
    machine kept the instances waiting, so that they may have heard of the successor only after writing once more.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.calls: list[Call] = []
        self.sessions_lost = 0
        self.lateness = Lateness()
        self.promotions: Callable[[], Iterable[Promotion]] = tuple
        self.accusations: list[Accusation] = []
        self._unreplicated: list[tuple[float, float]] = []

    @property
    def wrong(self) -> list[str]:
        """Every wrong answer that is the service's."""
        lost = self._unreplicated + self._lossy_promotions()
        return [each.text for each in self.accusations if not any(_within(lost, at) for at in each.since)]

    def forget(self) -> None:
        """Start anew: what the ledger knew has been true until Redis forgot it."""
        self.accusations.clear()

    def master_dies(self) -> None:
        """The master is about to go: its replica, which nobody waits for, may lack what was written a moment before.

        A session that began then, an account or a password of then may be gone. Nothing else may.
        """
        now = time.monotonic()
        self._unreplicated.append((now - UNREPLICATED, now + UNREPLICATED))

    def account(self, email: str, imported: bool = False) -> Account:
        account = self.accounts.setdefault(email, Account(email))
        if imported:
            account.acknowledged = True
            account.passwords = [Password(PASSWORD, -inf, -inf)]
        return account

    def accuse_password(self, what: str, account: "Account", answer: Answer | None) -> None:
        """Accuse the service of a wrong answer about an account and its password, unless both are of the moment."""
        since = [moment for each in account.passwords for moment in (each.possible_from, each.possible_from + HASHING)]
        self.accuse(what, account.email, answer, *since)

    def accuse(self, what: str, email: str, answer: Answer | None, *since: float) -> None:
        text = f"{what} ({email}) at {time.monotonic():.2f} s: {answer}"
        self.accusations.append(Accusation(text, since))

    def lost(self, since: float = -inf, until: float = inf) -> list[Call]:
        """The calls sent in this time that came to nothing."""
        return [call for call in self.calls if since <= call.asked <= until and call.lost]

    def noticed(self, since: float = -inf) -> list[Call]:
        """The calls that came to nothing although no master was taken for dead that no test had wanted to."""
        unwanted = [(at - UNNOTICED, at + UNREPLICATED) for at, wanted in self.promotions() if not wanted]
        return [call for call in self.lost(since) if not _within(unwanted, call.asked)]

    def _lossy_promotions(self) -> list[tuple[float, float]]:
        lossy = []
        for at, wanted in self.promotions():
            if not wanted:
                lossy.append((at - UNNOTICED, at + UNREPLICATED))
            elif self.lateness.within(at - 0.5, at + 0.5) > STOOD_STILL:
                lossy.append((at - 0.5, at + UNREPLICATED))
        return lossy

    def longest(self, since: float = -inf) -> float:
        """The longest that a browser waited."""
        return max((call.answered - call.asked for call in self.calls if call.asked >= since), default=0.0)

    def held(self, since: float = -inf) -> float:
        """The longest that a browser waited, less what this machine was late by itself."""
        return max((self._held(call) for call in self.calls if call.asked >= since), default=0.0)

    def _held(self, call: Call) -> float:
        late = self.lateness.within(call.asked, call.answered, hashing=call.what in HASHES)
        return call.answered - call.asked - late

    def recovered(self, since: float) -> float:
        """Seconds from then until nothing was lost any more."""
        lost = self.lost(since)
        return max((call.answered for call in lost), default=since) - since

    def signed_out(self, session: Session, what: str, answer: Answer) -> None:
        self.sessions_lost += 1
        age = time.monotonic() - session.born
        self.accuse(f"{what}: signed out for no reason after {age:.2f} s", session.account.email, answer, session.born)


@dataclass(frozen=True)
class _Reply:
    answer: Answer | None
    asked: float
    answered: float

    @property
    def status(self) -> int:
        return self.answer.status if self.answer else 0

    @property
    def unknown(self) -> bool:
        """Nobody said whether it happened."""
        return self.status in (0, 503)

    @property
    def code(self) -> str:
        problem = self.answer and self.answer.headers.get("Content-Type", "").startswith("application/problem+json")
        return self.answer.code if problem else ""


class SimulatedBrowser:
    """Somebody with an account and a device, in cookie mode or in token mode, one action after another."""

    def __init__(
        self, ledger: Ledger, url: str, account: Account, in_cookies: bool, pool: aiohttp.TCPConnector
    ) -> None:
        self._ledger, self._url, self.account, self._in_cookies = ledger, url, account, in_cookies
        jar = aiohttp.CookieJar(unsafe=True) if in_cookies else aiohttp.DummyCookieJar()
        self._http = aiohttp.ClientSession(
            connector=pool, connector_owner=False, cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=GIVES_UP)
        )
        self._pool = pool
        self.session: Session | None = None

    async def close(self) -> None:
        await self._http.close()

    def _signed_in(self) -> Session:
        assert self.session is not None
        return self.session

    async def live(self, stop: asyncio.Event, chance: random.Random, pause: float, traffic: Mapping[str, int]) -> None:
        """Do this and that until it is over, signed in whenever possible; `pause` is the mean, in seconds."""
        while not stop.is_set():
            if self.session is None:
                await self.sign_in()
            else:
                (what,) = chance.choices(list(traffic), list(traffic.values()))
                await getattr(self, what)()
            await asyncio.sleep(chance.uniform(0, 2 * pause))

    # What a browser does

    async def sign_in(self) -> bool:
        """With what the password may be; true when it worked."""
        began = time.monotonic()
        for password in self.account.candidates(began):
            body = {"email": self.account.email, "password": password.text}
            reply = await self._log_in(body)
            if reply.status == 200:
                if password.possible_until < reply.asked:
                    self._ledger.accuse_password("an old password is accepted", self.account, reply.answer)
                self.account.acknowledged = True
                self.account.settle(password, reply.asked)
                self._begin(reply)
                return True
            if reply.unknown:
                return False
            certain = password.certain_from <= reply.asked and password.certain_until >= reply.answered
            if (certain and self.account.acknowledged) or reply.code != "INVALID_CREDENTIALS":
                self._ledger.accuse_password("the right password is refused", self.account, reply.answer)
                return False
        if self.account.acknowledged and began >= self.account.unsettled_until:
            self._ledger.accuse_password("no password is right any more", self.account, None)
        return False

    async def _log_in(self, body: Mapping[str, str]) -> _Reply:
        """Again when told to come back for want of a core."""
        for _ in range(TRIES):
            reply = await self._ask("login", "POST", "/api/auth/login", body)
            if not (reply.answer and reply.code == "OVERLOADED"):
                break
            await asyncio.sleep(float(reply.answer.headers["Retry-After"]))
        return reply

    async def register(self) -> None:
        """Make one more account, and sign in to it from another device."""
        account = self._ledger.account(f"new{len(self._ledger.accounts)}.{self.account.email}")
        newcomer = SimulatedBrowser(self._ledger, self._url, account, not self._in_cookies, self._pool)
        try:
            for _ in range(TRIES):
                if await newcomer.enrol():
                    break
        finally:
            await newcomer.close()

    async def enrol(self) -> bool:
        """Register this account; true when there is no need to ask again."""
        body = {"email": self.account.email, "password": PASSWORD}
        expected = bool(self.account.passwords)
        if not expected:
            self.account.passwords = [Password(PASSWORD, time.monotonic(), time.monotonic())]
        reply = await self._ask("register", "POST", "/api/auth/register", body)
        match reply.status:
            case 201:
                self.account.acknowledged = True
                self._begin(reply)
                return True
            case 409 if expected:  # an earlier attempt that nobody answered
                self.account.acknowledged = True
                return True
            case status if status not in (0, 503):
                self._ledger.accuse("a registration is refused", self.account.email, reply.answer)
        return False

    async def verify(self) -> None:
        session = self._signed_in()
        reply = await self._ask("verify", "GET", "/api/auth/verify", credentials=session)
        if self._still_good(session, reply, "verify") and reply.answer.json["sub"] != session.user_id:
            self._ledger.accuse("somebody else's session", self.account.email, reply.answer)

    async def me(self) -> None:
        session = self._signed_in()
        reply = await self._ask("me", "GET", "/api/auth/me", credentials=session)
        if self._still_good(session, reply, "me"):
            user = reply.answer.json["user"]
            if (user["id"], user["email"]) != (session.user_id, self.account.email):
                self._ledger.accuse("somebody else's data", self.account.email, reply.answer)

    async def refresh(self) -> None:
        session = self._signed_in()
        body = None if self._in_cookies else {"refreshToken": session.refresh_token}
        reply = await self._ask("refresh", "POST", "/api/auth/refresh", body)
        self._refreshed(session, reply)

    async def two_tabs(self) -> None:
        """Two tabs refresh at once, as they do when a laptop wakes up."""
        await asyncio.gather(self.refresh(), self._refresh_if_signed_in())

    async def log_out(self) -> None:
        """Sign out, and repeat it until it is confirmed."""
        session = self._signed_in()
        session.endings.append(ending := Ending(time.monotonic()))
        for _ in range(TRIES):
            reply = await self._ask("logout", "POST", "/api/auth/logout", credentials=session)
            if reply.status == 204:
                ending.confirmed, ending.until = True, reply.answered
                self._leave()
                return
            if not reply.unknown:
                self._ledger.accuse("a log-out is refused", self.account.email, reply.answer)
        ending.until = reply.answered + STRAGGLING

    async def log_out_all(self) -> None:
        session = self._signed_in()
        self.account.endings.append(ending := Ending(time.monotonic()))
        reply = await self._ask("logout-all", "POST", "/api/auth/logout-all", credentials=session)
        if self._decided(session, reply, ending, "logout-all"):
            self._leave()

    async def change_password(self) -> None:
        """Change the password, unless somebody is at it or nobody knows which it is."""
        session, now = self._signed_in(), time.monotonic()
        if now < self.account.unsettled_until or len(current := self.account.candidates(now)) != 1:
            return
        (old,) = current
        new = Password(f"{PASSWORD} no. {len(self.account.passwords)}", now, inf)
        old.certain_until, self.account.unsettled_until = now, inf
        self.account.passwords.append(new)
        self.account.endings.append(ending := Ending(now, spared=session))
        body = {"currentPassword": old.text, "newPassword": new.text}
        reply = await self._ask("change", "POST", "/api/auth/password/change", body, credentials=session)
        self.account.unsettled_until = reply.answered
        if self._decided(session, reply, ending, "password change"):
            old.possible_until = new.certain_from = reply.answered
            await self.refresh()
        elif ending.refused:
            old.certain_until = inf
            self.account.passwords.remove(new)
        else:
            # Both may be right until nothing can come of it any more; then a sign-in tells which.
            self.account.unsettled_until += STRAGGLING

    async def look_back(self) -> None:
        """Try the tokens of a session that is over."""
        over = [each for each in self.account.sessions if each.is_over(time.monotonic())]
        if over:
            await self.try_tokens_of(random.choice(over))

    async def try_tokens_of(self, session: Session) -> None:
        """Neither token of a session that has been ended may work."""
        headers = {"Authorization": f"Bearer {session.access_token}"}
        async with aiohttp.ClientSession(
            connector=self._pool,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=GIVES_UP),
        ) as thief:
            reply = await self._ask("old token", "GET", "/api/auth/verify", headers=headers, http=thief)
            if reply.status == 200:
                self._ledger.accuse("a revoked access token is accepted", self.account.email, reply.answer)
            body = {"refreshToken": session.refresh_token}
            reply = await self._ask("old refresh token", "POST", "/api/auth/refresh", body, http=thief)
            if reply.status == 200:
                self._ledger.accuse("a revoked refresh token is accepted", self.account.email, reply.answer)

    # What it makes of the answers

    def _begin(self, reply: _Reply) -> None:
        told = reply.answer.json
        self.session = Session(
            self.account,
            told["user"]["id"],
            reply.asked,
            reply.answered,
            told["accessToken"],
            told.get("refreshToken") or _cookie(reply.answer, "refreshToken"),
            reply.asked,
            reply.answered,
        )
        if told["user"]["email"] != self.account.email:
            self._ledger.accuse("somebody else's account", self.account.email, reply.answer)
        self.account.sessions.append(self.session)

    def _leave(self) -> None:
        """Forget the session, as a browser whose cookies are gone."""
        self.session = None
        self._http.cookie_jar.clear()

    def _still_good(self, session: Session, reply: _Reply, what: str) -> bool:
        """Judge an answer that depends on the access token; true when it was accepted and should have been."""
        if reply.status == 200:
            if session.is_over(reply.asked):
                self._ledger.accuse(f"{what}: a revoked token is accepted", self.account.email, reply.answer)
            elif session.token_is_stale(reply.asked):
                self._ledger.accuse(f"{what}: an outdated token is accepted", self.account.email, reply.answer)
            return True
        if not reply.unknown:
            self._refused(session, reply, what)
        return False

    def _refused(self, session: Session, reply: _Reply, what: str) -> None:
        if reply.status == 401 and reply.code == "TOKEN_STALE" and session.token_may_be_stale(reply.answered):
            return
        if reply.status != 401 or not session.may_be_over(reply.answered):
            self._ledger.signed_out(session, what, reply.answer)
        if self.session is session:
            self._leave()

    def _refreshed(self, session: Session, reply: _Reply) -> None:
        if reply.status == 200:
            told = reply.answer.json
            if session.is_over(reply.asked):
                self._ledger.accuse("refresh: a revoked token is accepted", self.account.email, reply.answer)
            if _claims(told["accessToken"])["sub"] != session.user_id:
                self._ledger.accuse("refresh: somebody else's token", self.account.email, reply.answer)
            session.access_token = told["accessToken"]
            session.refresh_token = told.get("refreshToken") or _cookie(reply.answer, "refreshToken")
            session.token_asked, session.token_answered = reply.asked, reply.answered
        elif not reply.unknown:
            self._refused(session, reply, "refresh")

    def _decided(self, session: Session, reply: _Reply, ending: Ending, what: str) -> bool:
        """Whether the request that ends sessions is confirmed; else it was refused, or nobody knows."""
        if reply.unknown:
            ending.until = reply.answered + STRAGGLING
            return False
        ending.until = reply.answered
        ending.confirmed, ending.refused = reply.status == 204, reply.status != 204
        if ending.refused:
            self._refused(session, reply, what)
        return ending.confirmed

    async def _refresh_if_signed_in(self) -> None:
        if self.session:
            await self.refresh()

    async def _ask(
        self,
        what: str,
        method: str,
        path: str,
        body: object = None,
        *,
        credentials: Session | None = None,
        headers: Mapping[str, str] | None = None,
        http: aiohttp.ClientSession | None = None,
    ) -> _Reply:
        sent = {**(headers or {})}
        if self._in_cookies and http is None:
            cookies = {cookie.key: cookie.value for cookie in self._http.cookie_jar}
            sent |= {"X-CSRF-Token": cookies["csrfToken"]} if "csrfToken" in cookies else {}
        elif http is None:
            sent["X-Auth-Mode"] = "token"
            if credentials:
                sent["Authorization"] = f"Bearer {credentials.access_token}"
        answer, asked = None, time.monotonic()
        try:
            async with (http or self._http).request(method, self._url + path, json=body, headers=sent) as response:
                answer = Answer(response.status, response.headers, response.cookies, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # no answer is counted as one that was lost
        reply = _Reply(answer, asked, time.monotonic())
        shed = what in HASHES and reply.code == "OVERLOADED"
        self._ledger.calls.append(Call(what, asked, reply.answered, reply.status, shed))
        if reply.status >= 500 and reply.code not in ("SERVICE_UNAVAILABLE", "OVERLOADED"):
            self._ledger.accuse(f"{what}: a fault of ours", self.account.email, answer)
        if reply.status in (429, 503) and "Set-Cookie" in answer.headers:
            self._ledger.accuse(f"{what}: a cookie is taken away", self.account.email, answer)
        return reply


@asynccontextmanager
async def browsing(
    ledger: Ledger, url: str, emails: Iterable[str], devices: int = 1
) -> AsyncIterator[list[SimulatedBrowser]]:
    """Browsers of imported accounts, every other one in cookie mode; several devices share an account."""
    pool = aiohttp.TCPConnector(limit=0)
    browsers = [
        SimulatedBrowser(ledger, url, ledger.account(email, imported=True), (n + device) % 2 == 0, pool)
        for n, email in enumerate(emails)
        for device in range(devices)
    ]
    try:
        async with ledger.lateness:
            yield browsers
    finally:
        for browser in browsers:
            await browser.close()
        await pool.close()


async def everybody_signs_in(browsers: Iterable[SimulatedBrowser]) -> None:
    """A few at a time: each sign-in keeps a core busy."""
    few = asyncio.Semaphore(4)

    async def sign_in(browser: SimulatedBrowser) -> None:
        async with few:
            assert await browser.sign_in(), browser.account.email

    await asyncio.gather(*map(sign_in, browsers))


@asynccontextmanager
async def traffic(
    browsers: Iterable[SimulatedBrowser], mix: Mapping[str, int] = TRAFFIC, pause: float = 0.1, seed: int = 1
) -> AsyncIterator[None]:
    """All of them are busy for the length of the block."""
    stop = asyncio.Event()
    living = [
        asyncio.create_task(browser.live(stop, random.Random(seed * 1000 + n), pause, mix))
        for n, browser in enumerate(browsers)
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*living)


async def until_nothing_is_lost(ledger: Ledger, since: float, quiet: float = 1.0, most: float = 15.0) -> float:
    """While traffic goes on, wait until all has been well for a while; seconds from `since` to the last loss."""
    while True:
        await asyncio.sleep(0.1)
        now, recovered = time.monotonic(), ledger.recovered(since)
        if now - since - recovered >= quiet or now - since > most:
            return recovered


async def settle_accounts(ledger: Ledger, browsers: list[SimulatedBrowser]) -> None:
    """When all faults are over: hold every promise against the service, and add what is wrong to the ledger."""
    last = max((call.answered for call in ledger.lost()), default=0.0)
    await asyncio.sleep(max(0.0, last + STRAGGLING - time.monotonic()))
    few = asyncio.Semaphore(8)

    async def settle(browser: SimulatedBrowser) -> None:
        async with few:
            if session := browser.session:
                await browser.refresh()
                if browser.session is session:
                    await browser.verify()
            for past in browser.account.sessions:
                if past.is_over(time.monotonic()):
                    await browser.try_tokens_of(past)

    async def comes_back(account: Account) -> None:
        async with few:
            visitor = SimulatedBrowser(ledger, browsers[0]._url, account, False, browsers[0]._pool)
            accusations = len(ledger.accusations)
            came = await visitor.sign_in()
            if not came and account.acknowledged and accusations == len(ledger.accusations):
                ledger.accuse_password("an account cannot be signed in to", account, None)
            await visitor.close()

    await asyncio.gather(*map(settle, browsers))
    await asyncio.gather(*map(comes_back, ledger.accounts.values()))
    assert not ledger.lost(since=time.monotonic() - 1), "Redis is away again"


def _within(times: Iterable[tuple[float, float]], moment: float) -> bool:
    return any(began <= moment <= ended for began, ended in times)


def _cookie(answer: Answer, name: str) -> str:
    cookies: SimpleCookie = answer.cookies
    return cookies[name].value


def _claims(token: str) -> dict[str, str]:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
