"""Signals: what an operator should hear of, counted over all instances.

Redis
    burst:<by>:<hmac>  zset  attempts to sign in that failed, of an account or from an address, scored by their time (ms
                             of Redis' clock), or that they were told as a burst; expires with the window
    signals:<hour>     hash  <signal>.<part of the hour>: how often; `agent `<user agent>: how often it looked broken
                             25 hours

An attempt is a wrong password, of a sign-in or of somebody who is signed in and has to show it once more, and a call
that the limits of these have refused: somebody whom a limit stops after the fifth guess goes on guessing all the same.
Whether there is such an account makes no difference to what is done for an attempt. Only a burst looks the account up,
once in its window, so that its owner finds it among their events.

Nothing here is waited for, and nothing of it fails anybody. One writer takes what came up since the last time in two
round trips, four times a second at most: the attempts, which may be said twice, and the counts, which may not. What
Redis does not take is counted by the metrics alone. Attempts that follow a burst are not looked at until its window is
over, so that a flood costs Redis nothing.

Subjects are HMACs, so that nothing in Redis tells who tried what.
"""

import asyncio
import base64
import contextvars
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from service import metrics
from service.accounts.users import Users
from service.audit.events import Event
from service.audit.trail import Audit
from service.client import Client
from service.clock import Clock
from service.errors import StoreUnavailable
from service.limits.limiter import Charge
from service.limits.policies import Policy
from service.sessions.user_agents import restored, shortened
from service.store import Command, Script, Store
from service.vault import Vault

log = structlog.get_logger("service.signals")

_BURST = Script(Path(__file__).with_name("burst.lua"))
_AGENT = Script(Path(__file__).with_name("agent.lua"))
_MOST_WAITING = 10_000  # attempts that wait to be written; more are not looked at
_MOST_TOLD = 10_000  # subjects that are known to have been told as a burst
_PAUSE = 0.25  # seconds between two writings while more comes in
_TOGETHER = 250  # attempts written in one round trip
_HOUR, _PART, _KEPT_FOR = 3600, 300, 25 * 3600  # seconds; a part is how exact a count of the last hour is
_PARTS = _HOUR // _PART
_AGENTS, _SHOWN = 20, 10  # user agents that an hour has room for, and that are shown


class Signal(StrEnum):
    """What is counted by the hour. These words are in Redis for a day."""

    FAILED = "failed"  # a sign-in refused, for whatever reason
    LIMITED = "limited"  # a sign-in refused by a limit
    BURST_BY_ACCOUNT = "burst-account"
    BURST_BY_ADDRESS = "burst-address"
    REUSED = "reused"  # a refresh token came back and ended its session
    BROKEN_CLIENT = "broken-client"  # a refresh token came back in a way that looks like a broken client
    NEW_DEVICE = "new-device"


_BURSTS = {"account": Signal.BURST_BY_ACCOUNT, "address": Signal.BURST_BY_ADDRESS}
_OTHERS = {"account": "addresses", "address": "accounts"}  # what a burst of one is told the number of


@dataclass(frozen=True)
class Agent:
    """A user agent of clients that look broken, and how often they did in a day; no less often, but maybe more."""

    user_agent: str
    count: int


@dataclass(frozen=True)
class Told:
    """What there was in the last hour and the last day, up to five minutes more; user agents up to an hour more."""

    hour: dict[Signal, int]
    day: dict[Signal, int]
    agents: list[Agent]


@dataclass(frozen=True)
class _Attempt:
    """One attempt on an account or from an address; `context` has the request's id."""

    by: str
    subject: str
    about: str
    client: Client
    context: contextvars.Context


class Signals:
    """Counts what happens, tells bursts, and knows the counts of the last day."""

    def __init__(
        self, store: Store, vault: Vault, clock: Clock, users: Users, audit: Audit, policies: dict[str, Policy]
    ) -> None:
        self._store = store
        self._key = vault.key("signal-subject")
        self._clock = clock
        self._users = users
        self._audit = audit
        self._enough = {by: policies[f"burst-{by}"] for by in _BURSTS}
        self._attempts: list[_Attempt] = []
        self._told: dict[tuple[str, str], float] = {}  # bursts, and until when their attempts are not looked at (s)
        self._counts: Counter[tuple[int, Signal]] = Counter()  # by the part of an hour, counted from the epoch
        self._agents: Counter[tuple[int, str]] = Counter()
        self._writer: asyncio.Task[None] | None = None

    def note(self, signal: Signal) -> None:
        """Count something that has happened."""
        self._counts[int(self._clock.now()) // _PART, signal] += 1
        self._write_soon()

    def note_broken(self, client: Client) -> None:
        """Count a client that looks broken, by its user agent."""
        self.note(Signal.BROKEN_CLIENT)
        field = _AGENT_MARK + shortened(client.user_agent)
        hour = int(self._clock.now()) // _HOUR
        if (hour, field) in self._agents or len(self._agents) < _MOST_WAITING:
            self._agents[hour, field] += 1

    def note_attempt(self, account: str | None, client: Client) -> None:
        """Count an attempt that failed: on an account, by its email, and from an address."""
        network = client.network
        if account is not None:
            self._note_attempt("account", account, network, client)
        self._note_attempt("address", network, account or "", client)

    def note_refusal(self, charge: Charge, client: Client) -> None:
        """Count a call that a limit has refused, if it is one of signing in, or of showing one's password again."""
        match charge.policy, charge.subject:
            case ("login" | "login-account", (_, account)) | ("login-account", (account,)):  # a place, or "signed in"
                self.note_attempt(account, client)
            case ("login-address", _):
                self.note_attempt(None, client)
            case _:
                return
        self.note(Signal.LIMITED)

    def _note_attempt(self, by: str, subject: str, about: str, client: Client) -> None:
        # Whoever goes on after a burst was told is a flood, and costs Redis nothing more.
        if self._told.get((by, subject), 0) > self._clock.now() or len(self._attempts) >= _MOST_WAITING:
            return
        self._attempts.append(_Attempt(by, subject, about, client, contextvars.copy_context()))
        self._write_soon()

    async def told(self) -> Told:
        """The counts of all instances; one round trip."""
        now = int(self._clock.now())
        newest, part = now // _HOUR, now // _PART
        hours = range(newest - 24, newest + 1)
        found = await self._store.run(*(("HGETALL", _of(hour)) for hour in hours), apart=True)
        last_hour, day, agents = Counter[Signal](), Counter[Signal](), Counter[str]()
        for hour, fields in zip(hours, found, strict=True):
            for field, count in fields.items():
                if field.startswith(_AGENT_MARK):
                    agents[field.removeprefix(_AGENT_MARK)] += int(count)
                    continue
                name, _, number = field.partition(".")
                age = part - (hour * _HOUR // _PART + int(number))  # in parts
                if name not in _KNOWN or age > 24 * _HOUR // _PART:
                    continue
                day[Signal(name)] += int(count)
                if age <= _HOUR // _PART:
                    last_hour[Signal(name)] += int(count)
        return Told(
            {signal: last_hour[signal] for signal in Signal},
            {signal: day[signal] for signal in Signal},
            [Agent(restored(agent), count) for agent, count in agents.most_common(_SHOWN)],
        )

    async def settled(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def _write_soon(self) -> None:
        if self._writer is None:
            # In a context of its own: the request's allowance of waiting is not for this.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=contextvars.Context())

    async def _write(self) -> None:
        try:
            pause = 0.0
            while self._attempts or self._counts or self._agents:
                if len(self._attempts) < _TOGETHER:
                    await asyncio.sleep(pause)
                pause = _PAUSE
                attempts, self._attempts = self._attempts[:_TOGETHER], self._attempts[_TOGETHER:]
                try:
                    await self._judge(attempts)
                    await self._add_up()
                except StoreUnavailable:
                    continue
                except Exception:
                    # Whatever it is, nobody is to hear of it who only asked to be signed in.
                    log.exception("signals.failed")
        finally:
            self._writer = None

    async def _judge(self, attempts: list[_Attempt]) -> None:
        if not attempts:
            return
        verdicts = await self._store.run(*map(self._counting, attempts), apart=True)
        for attempt, (verdict, number) in zip(attempts, verdicts, strict=True):
            if verdict == "burst":
                self._note_told(attempt, self._enough[attempt.by].milliseconds)
                await self._tell(attempt, others=number)
            elif verdict == "told":
                self._note_told(attempt, number)

    def _note_told(self, attempt: _Attempt, milliseconds: int) -> None:
        self._told[attempt.by, attempt.subject] = self._clock.now() + milliseconds / 1000
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]

    async def _tell(self, attempt: _Attempt, others: int) -> None:
        metrics.SIGN_IN_BURSTS.labels(attempt.by).inc()
        self.note(_BURSTS[attempt.by])
        user = None
        if attempt.by == "account":
            with suppress(StoreUnavailable):
                user = await self._users.find_by_email(attempt.subject)
        enough = self._enough[attempt.by]
        facts: dict[str, Any] = {
            "user_id": user.id if user else None,
            "client": attempt.client,
            "by": attempt.by,
            "count": enough.calls,
            "window": enough.milliseconds // 1000,
            _OTHERS[attempt.by]: others,
        }
        attempt.context.run(partial(self._audit.note, Event.SIGN_IN_BURST, **facts))

    async def _add_up(self) -> None:
        counts, self._counts = self._counts, Counter()
        agents, self._agents = self._agents, Counter()
        counting: list[Command] = [
            ("HINCRBY", _of(part // _PARTS), f"{signal.value}.{part % _PARTS}", count)
            for (part, signal), count in counts.items()
        ]
        naming = [_AGENT(_of(hour), agent, _AGENT_MARK, _AGENTS, count) for (hour, agent), count in agents.items()]
        hours = {part // _PARTS for part, _ in counts} | {hour for hour, _ in agents}
        expiring: list[Command] = [("EXPIRE", _of(hour), _KEPT_FOR) for hour in hours]
        commands = counting + naming
        for start in range(0, len(commands), _TOGETHER):
            await self._store.run(*commands[start : start + _TOGETHER], *expiring, once=True, apart=True)

    def _counting(self, attempt: _Attempt) -> Command:
        enough = self._enough[attempt.by]
        name = f"burst:{attempt.by}:{self._digest(15, attempt.by, attempt.subject)}"
        about = self._digest(6, "about", attempt.about) if attempt.about else ""
        return _BURST(name, enough.calls, enough.milliseconds, secrets.token_urlsafe(9), about)

    def _digest(self, length: int, *words: str) -> str:
        mac = self._key.mac("\0".join(words).encode("utf-8", "surrogatepass"))
        return base64.urlsafe_b64encode(mac[:length]).decode("ascii")


_AGENT_MARK = "agent "
_KNOWN = frozenset(Signal)


def _of(hour: int) -> str:
    return f"signals:{hour}"
