"""The limiter: an exact sliding window for each policy and subject, the same for all instances.

Redis
    limit:<policy>:<hmac of subject>  zset  one entry per counted call, scored by its time (ms of Redis' clock)
                                            expires with its window
                                            `refresh`: limit:refresh:{<user>}:<hmac>, beside the sessions it is about
    known:<hmac>                          string  an account was signed in to from an address; thirty days

Addresses that an account is known by are spared its own limit, `login-account`: a stranger who burns it, from wherever,
does not lock the owner out at home.

Subjects (addresses, emails, sessions) are HMACs, so that nothing in Redis tells who tried what. When Redis is away
nothing is allowed: 503.
"""

import base64
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

from service import metrics
from service.errors import RateLimited
from service.limits.policies import Policy
from service.store import Script, Store
from service.vault import Vault

_KNOWN_LASTS = 30 * 24 * 3600  # seconds
_WINDOW = Script(Path(__file__).with_name("window.lua"))


@dataclass(frozen=True)
class Allowance:
    """What a policy still allows, for the `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers-10)."""

    policy: Policy
    remaining: int
    resets_in: int  # seconds until one more call fits

    @property
    def limit_header(self) -> str:
        return f'"{self.policy.name}";r={self.remaining};t={self.resets_in}'

    @property
    def policy_header(self) -> str:
        return f'"{self.policy.name}";q={self.policy.calls};w={int(self.policy.window.total_seconds())}'


@dataclass(frozen=True)
class Charge:
    """One call against one policy; it counts for what the subject's parts name together."""

    policy: str
    subject: tuple[str, ...]
    user_id: str = ""  # whose keys it is to be kept beside, so that in a Cluster one server has all that a call needs
    quiet: bool = False  # what is left is not told: it would say how often somebody else has tried


class Refused(RateLimited):
    """The policy allows no more for now; `allowance` says which and until when."""

    def __init__(self, allowance: Allowance, quiet: bool = False) -> None:
        super().__init__(max(1, allowance.resets_in))
        self.allowance = allowance
        self.quiet = quiet


class Limiter:
    """Charges calls to their policies."""

    def __init__(self, store: Store, vault: Vault, policies: dict[str, Policy]) -> None:
        self._store = store
        self._key = vault.key("limit-subject")
        self._policies = policies
        self._counts = {
            name: tuple(metrics.RATE_LIMITS.labels(name, decision) for decision in ("refused", "allowed"))
            for name in policies
        }

    async def charge(self, *charges: Charge) -> list[Allowance]:
        """Count one call against each policy, the narrowest first; raises `Refused`, and then none is counted."""
        call = secrets.token_urlsafe(9)
        allowances: list[Allowance] = []
        for done, charge in enumerate(charges):
            policy = self._policies[charge.policy]
            window = int(policy.window.total_seconds() * 1000)
            verdict, remaining, left = await self._store.one(_WINDOW(self._name(charge), policy.calls, window, call))
            self._counts[charge.policy][bool(verdict)].inc()
            allowance = Allowance(policy, remaining, math.ceil(left / 1000))
            if not verdict:
                await self._withdraw(call, charges[:done])
                raise Refused(allowance, charge.quiet)
            if not charge.quiet:
                allowances.append(allowance)
        return allowances

    async def knows(self, account: str, address: str) -> bool:
        """Whether somebody has signed in to the account from this address in the last weeks."""
        return bool(await self._store.one(("EXISTS", "known:" + self._digest("known", account, address))))

    async def remember(self, account: str, address: str) -> None:
        """Somebody has signed in to the account from this address."""
        await self._store.one(("SET", "known:" + self._digest("known", account, address), "1", "EX", _KNOWN_LASTS))

    async def _withdraw(self, call: str, charges: tuple[Charge, ...]) -> None:
        if charges:
            await self._store.run(*(("ZREM", self._name(charge), call) for charge in charges))

    def _name(self, charge: Charge) -> str:
        place = f"{{{charge.user_id}}}:" if charge.user_id else ""
        return f"limit:{charge.policy}:{place}{self._digest(charge.policy, *charge.subject)}"

    def _digest(self, *words: str) -> str:
        mac = self._key.mac("\0".join(words).encode("utf-8", "surrogatepass"))
        return base64.urlsafe_b64encode(mac[:15]).decode("ascii")
