"""The limiter: an exact sliding window for each policy and subject, the same for all instances.

Redis
    limit:<policy>:<hmac of subject>  zset  one entry per counted call, scored by its time (ms of Redis' clock)
                                            expires with its window
                                            `refresh`: limit:refresh:{<user>}:<hmac>, beside the sessions it is about

Addresses that an account is known by (`places.py`) are spared its own limit, `login-account`: a stranger who burns it,
from wherever, does not lock the owner out at home.

Subjects (addresses, emails, sessions) are HMACs, so that nothing in Redis tells who tried what. When Redis is away
nothing is allowed: 503.
"""

import base64
import math
import secrets
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple

from service import metrics
from service.errors import RateLimited
from service.limits.places import Places
from service.limits.policies import LIMITS, Policy
from service.store import Command, Script, Store
from service.vault import Vault

_MOST_FULL = 10_000  # windows that are known to have refused lately
_WINDOW = Script(Path(__file__).with_name("window.lua"))


_Who = tuple[str, tuple[str, ...]]


class Allowance(NamedTuple):
    """What a policy still allows, for the `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers-10)."""

    policy: Policy
    remaining: int
    resets_in: int  # seconds until one more call fits

    @property
    def limit_header(self) -> str:
        return f'"{self.policy.name}";r={self.remaining};t={self.resets_in}'

    @property
    def policy_header(self) -> str:
        return self.policy.header


class Charge(NamedTuple):
    """One call against one policy; it counts for what the subject's parts name together."""

    policy: str
    subject: tuple[str, ...]
    user_id: str = ""  # whose keys it is to be kept beside, so that in a Cluster one server has all that a call needs
    quiet: bool = False  # what is left is not told: it would say how often somebody else has tried
    spared: tuple[str, str] | None = None  # an account and an address: where it is known there, it costs nothing

    @property
    def who(self) -> "_Who":
        """Whose window it is."""
        return self.policy, self.subject


class Toll:
    """A call that is counted in the round trip of what it lets through, by `command`, which goes first.

    Redis goes on when a call is refused. So what follows has to look for `call` in `window` before it does anything.
    """

    def __init__(self, limiter: "Limiter", charge: Charge, window: str, call: str) -> None:
        self.window = window
        self.call = call
        self.command = limiter.counting(charge.policy, window, call)
        self.allowance: Allowance | None = None  # once it is settled
        self.charge = charge
        self._limiter = limiter

    def settle(self, reply: list[int]) -> None:
        """Take the reply to the command; raises `Refused`."""
        self.allowance = self._limiter.allowance(self.charge, self.window, reply)
        self._limiter.count_allowed(self.charge.policy)


class Refused(RateLimited):
    """The policy allows no more for now; `allowance` says which and until when."""

    def __init__(self, allowance: Allowance, charge: Charge) -> None:
        super().__init__(max(1, allowance.resets_in))
        self.allowance = allowance
        self.charge = charge


class Limiter:
    """Charges calls to their policies."""

    def __init__(self, store: Store, vault: Vault, policies: dict[str, Policy], places: Places) -> None:
        self._store = store
        self._places = places
        self._key = vault.key("limit-subject")
        self._policies = policies
        self._mark, self._calls = secrets.token_urlsafe(6), count()
        # Who was refused lately: in which window, and until when they would be (monotonic, in seconds).
        self._full: dict[_Who, tuple[str, float]] = {}
        self._counts = {
            name: tuple(metrics.RATE_LIMITS.labels(name, decision) for decision in ("refused", "allowed"))
            for name in policies.keys() & LIMITS
        }

    async def charge(self, *charges: Charge) -> list[Allowance]:
        """Count one call against each policy, the narrowest first; raises `Refused`, and then none is counted."""
        call = self._new_call()
        allowances: list[Allowance] = []
        counted: list[str] = []
        for charge in charges:
            if charge.spared and await self._places.knows(*charge.spared):
                continue
            window = self._name(charge)
            try:
                reply = await self._store.one(self.counting(charge.policy, window, call))
                allowance = self.allowance(charge, window, reply)
            except Refused:
                await self._withdraw(call, counted)
                raise
            self.count_allowed(charge.policy)
            counted.append(window)
            if not charge.quiet:
                allowances.append(allowance)
        return allowances

    def toll(self, charge: Charge) -> Toll:
        """The charge, to be settled along with what it lets through, or by `collect` before that."""
        return Toll(self, charge, self._name(charge), self._new_call())

    def is_due_before(self, toll: Toll) -> bool:
        """Whether it must be collected first: in a Cluster, where a script sees one key, it must.

        And where the window has refused lately, for there what follows would be asked in vain.
        """
        return self._store.spread or self._full_window(toll.charge) is not None

    async def collect(self, toll: Toll) -> None:
        """Settle it by itself; raises `Refused`."""
        toll.settle(await self._store.one(toll.command))

    async def look(self, charge: Charge) -> None:
        """Raise `Refused` if the policy would refuse a call; count nothing.

        Only a window that has refused lately is asked, so that others do not pay for it. It decides nothing that
        `charge` would not: it says so earlier.
        """
        if (window := self._full_window(charge)) is None:
            return
        self.allowance(charge, window, await self._store.glance(*self.counting(charge.policy, window, "")))
        self._full.pop(charge.who, None)

    def counting(self, policy: str, window: str, call: str) -> Command:
        """The command whose reply `allowance` understands; it only looks where the call has no name."""
        limit = self._policies[policy]
        return _WINDOW(window, limit.calls, limit.milliseconds, call)

    def allowance(self, charge: Charge, window: str, reply: list[int]) -> Allowance:
        """What is still allowed; raises `Refused`."""
        allowed, remaining, left = reply
        allowance = Allowance(self._policies[charge.policy], remaining, math.ceil(left / 1000))
        if not allowed:
            self._counts[charge.policy][False].inc()
            self._note_full(charge, window, left / 1000)
            raise Refused(allowance, charge)
        return allowance

    def count_allowed(self, policy: str) -> None:
        self._counts[policy][True].inc()

    def _new_call(self) -> str:
        """A name for a call, of all calls of all instances."""
        return f"{self._mark}{next(self._calls):x}"

    def _full_window(self, charge: Charge) -> str | None:
        """The window of the charge, if it has refused lately and would still do so as far as this instance knows."""
        if (full := self._full.get(charge.who)) is None:
            return None
        window, until = full
        if until > time.monotonic():
            return window
        del self._full[charge.who]
        return None

    def _note_full(self, charge: Charge, window: str, seconds: float) -> None:
        self._full[charge.who] = window, time.monotonic() + seconds
        if len(self._full) > _MOST_FULL:
            del self._full[next(iter(self._full))]

    async def _withdraw(self, call: str, windows: list[str]) -> None:
        if windows:
            await self._store.run(*(("ZREM", window, call) for window in windows))

    def _name(self, charge: Charge) -> str:
        place = f"{{{charge.user_id}}}:" if charge.user_id else ""
        return f"limit:{charge.policy}:{place}{self._digest(charge.policy, *charge.subject)}"

    def _digest(self, *words: str) -> str:
        mac = self._key.mac("\0".join(words).encode("utf-8", "surrogatepass"))
        return base64.urlsafe_b64encode(mac[:15]).decode("ascii")
