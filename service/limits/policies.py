"""The table of limits: `config/rate-limits.toml`, with the changes of `RATE_LIMITS`."""

import tomllib
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from service.clock import milliseconds
from service.settings import CONFIG, Settings, SettingsError, duration

LIMITS = frozenset((
    "login", "login-address", "login-account", "register", "forgot", "verify-email", "refresh", "browser", "oauth",
    "apikey",
))  # fmt: skip
BURSTS = frozenset({"burst-account", "burst-address"})
NAMES = LIMITS | BURSTS


@dataclass(frozen=True)
class Policy:
    """So many calls in any window of this length: what is allowed, or of `BURSTS` what is worth telling."""

    name: str
    calls: int
    window: timedelta

    @cached_property
    def milliseconds(self) -> int:
        """The length of the window."""
        return milliseconds(self.window)

    @cached_property
    def header(self) -> str:
        """The policy as `RateLimit-Policy` says it (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.calls};w={int(self.window.total_seconds())}'


def load(settings: Settings, path: Path = CONFIG / "rate-limits.toml") -> dict[str, Policy]:
    """Every policy by name; raises `SettingsError`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        policies = {name: Policy(name, int(row["calls"]), duration(row["window"])) for name, row in table.items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError([f"{path} cannot be used: {error!r}"]) from error
    policies |= {name: Policy(name, *limit) for name, limit in settings.rate_limits.items()}
    if unknown := policies.keys() - NAMES:
        raise SettingsError(
            [f"RATE_LIMITS or {path} names {', '.join(sorted(unknown))}; there are only {', '.join(sorted(NAMES))}."]
        )
    if missing := NAMES - policies.keys():
        raise SettingsError([f"{path} must keep the limits {', '.join(sorted(missing))}."])
    if any(policy.calls < 1 or not policy.window for policy in policies.values()):
        raise SettingsError([f"{path} has a limit of no calls or no time."])
    return policies
