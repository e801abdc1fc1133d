"""The limiter: an exact sliding window for each policy and subject, the same for all instances.

Redis
    limit:<policy>:<hmac of subject>  zset  one entry per counted call, scored by its time (ms of Redis' clock)
                                            expires with its window

Subjects (addresses, emails, sessions) are HMACs, so that nothing in Redis tells who tried what. When Redis is away
nothing is allowed: 503.
"""

import base64
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

from service.errors import RateLimited
from service.limits.policies import Policy
from service.store import Script, Store
from service.vault import Vault

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


class Refused(RateLimited):
    """The policy allows no more for now; `allowance` says which and until when."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(max(1, allowance.resets_in))
        self.allowance = allowance


class Limiter:
    """Charges calls to their policies."""

    def __init__(self, store: Store, vault: Vault, policies: dict[str, Policy]) -> None:
        self._store = store
        self._key = vault.key("limit-subject")
        self._policies = policies

    async def charge(self, *charges: Charge) -> list[Allowance]:
        """Count one call against each policy, the narrowest first; raises `Refused`, and then none is counted."""
        call = secrets.token_urlsafe(9)
        allowances: list[Allowance] = []
        for done, charge in enumerate(charges):
            policy = self._policies[charge.policy]
            window = int(policy.window.total_seconds() * 1000)
            verdict, remaining, left = await self._store.one(_WINDOW(self._name(charge), policy.calls, window, call))
            allowance = Allowance(policy, remaining, math.ceil(left / 1000))
            if not verdict:
                await self._withdraw(call, charges[:done])
                raise Refused(allowance)
            allowances.append(allowance)
        return allowances

    async def _withdraw(self, call: str, charges: tuple[Charge, ...]) -> None:
        if charges:
            await self._store.run(*(("ZREM", self._name(charge), call) for charge in charges))

    def _name(self, charge: Charge) -> str:
        mac = self._key.mac("\0".join((charge.policy, *charge.subject)).encode("utf-8", "surrogatepass"))
        return f"limit:{charge.policy}:{base64.urlsafe_b64encode(mac[:15]).decode('ascii')}"
