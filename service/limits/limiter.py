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
from service.store import Script, Store
from service.vault import Vault

_MOST_FULL = 10_000  # windows that are known to have refused lately
_WINDOW = Script(Path(__file__).with_name("window.lua"))


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
        self._mark, self._calls = secrets.token_urlsafe(9), count()  # what each call is named by, of all instances
        self._full: dict[str, float] = {}  # windows that refused lately: until when they would (monotonic, in seconds)
        self._counts = {
            name: tuple(metrics.RATE_LIMITS.labels(name, decision) for decision in ("refused", "allowed"))
            for name in policies.keys() & LIMITS
        }

    async def charge(self, *charges: Charge) -> list[Allowance]:
        """Count one call against each policy, the narrowest first; raises `Refused`, and then none is counted."""
        call = f"{self._mark}{next(self._calls):x}"
        allowances: list[Allowance] = []
        counted: list[str] = []
        for charge in charges:
            if charge.spared and await self._places.knows(*charge.spared):
                continue
            window = self._name(charge)
            try:
                allowance = await self._ask(charge, window, call)
            except Refused:
                await self._withdraw(call, counted)
                raise
            self._counts[charge.policy][True].inc()
            counted.append(window)
            if not charge.quiet:
                allowances.append(allowance)
        return allowances

    async def look(self, charge: Charge) -> None:
        """Raise `Refused` if the policy would refuse a call; count nothing.

        Only a window that has refused lately is asked, so that others do not pay for it. It decides nothing that
        `charge` would not: it says so earlier.
        """
        if not self._full:
            return
        window = self._name(charge)
        if (until := self._full.get(window)) is None:
            return
        if until > time.monotonic():
            await self._ask(charge, window, "")
        self._full.pop(window, None)

    async def _ask(self, charge: Charge, window: str, call: str) -> Allowance:
        """Count the call, or only look where it has no name; raises `Refused`."""
        policy = self._policies[charge.policy]
        allowed, remaining, left = await self._store.one(_WINDOW(window, policy.calls, policy.milliseconds, call))
        allowance = Allowance(policy, remaining, math.ceil(left / 1000))
        if not allowed:
            self._counts[charge.policy][False].inc()
            self._note_full(window, left / 1000)
            raise Refused(allowance, charge)
        return allowance

    def _note_full(self, window: str, seconds: float) -> None:
        self._full[window] = time.monotonic() + seconds
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
