"""Settings that can be read and yet cannot be: weak, missing, or at odds with one another, each with what to do.

What is told here stops the start. What only looks unwise is for `python -m service doctor`.
"""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from urllib.parse import urlsplit

from service.settings.settings import LOOPBACK, Settings
from service.store.address import Address

_MAKE_SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'  # noqa: S105
_MAKE_ANOTHER = f"Make another with: {_MAKE_SECRET}"
_INSTALL_OTEL = (
    "`make run TRACES=on` installs it; without make: python -m pip install --no-deps --require-hashes "
    "-r requirements/otel.lock; in an image: docker build --build-arg LOCK=otel."
)
_WELL_KNOWN = re.compile(
    r"change[-_ ]?me|your[-_ ]|secret[-_ ]?key|super[-_ ]?secret|^(secret|password|example|default|development|test)"
    r"|0123456789|1234567890|(.)\1{7}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1
_BOUNDS = {
    "jwt_access_expiry": (timedelta(seconds=30), timedelta(days=1)),
    "jwt_refresh_expiry": (timedelta(minutes=1), timedelta(days=366)),
    "session_max_age": (timedelta(minutes=1), timedelta(days=3660)),
    "refresh_leeway": (timedelta(0), timedelta(seconds=60)),
    "clock_tolerance": (timedelta(0), timedelta(seconds=60)),
    "sign_in_floor": (timedelta(0), timedelta(seconds=5)),
    "one_time_token_expiry": (timedelta(minutes=1), timedelta(days=7)),
    "drain_seconds": (timedelta(0), timedelta(minutes=5)),
}


@dataclass(frozen=True)
class Contradiction:
    """What is wrong, and of which fields it speaks: not to be told where one of them could not even be read."""

    sentence: str
    fields: tuple[str, ...]


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """All that there are, of settings with their defaults."""
    return chain(
        _in_the_root_secret(settings),
        _in_addresses_of_proxies(settings),
        _in_the_metrics_token(settings),
        _in_traces(settings),
        _in_cookies(settings),
        _in_lifetimes(settings),
        _in_signing_keys(settings),
        _in_providers(settings),
        _in_mail(settings),
        _in_redis(settings),
    )


def _in_the_root_secret(settings: Settings) -> Iterator[Contradiction]:
    secret = settings.auth_secret.get_secret_value()
    if settings.production or secret:
        for weakness in _weaknesses("AUTH_SECRET", secret, settings):
            yield Contradiction(weakness, ("auth_secret",))
    if "," in secret:
        yield Contradiction(
            f"AUTH_SECRET has a comma, which would split it in AUTH_SECRET_PREVIOUS some day. {_MAKE_ANOTHER}",
            ("auth_secret",),
        )
    for previous in settings.auth_secret_previous:
        if len(previous.get_secret_value()) < 16:
            yield Contradiction(
                "AUTH_SECRET_PREVIOUS lists a secret of less than 16 characters.", ("auth_secret_previous",)
            )


def _in_addresses_of_proxies(settings: Settings) -> Iterator[Contradiction]:
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        yield Contradiction(
            "TRUSTED_PROXIES trusts the whole world: anybody could choose their own address. Name your proxies.",
            ("trusted_proxies",),
        )


def _in_the_metrics_token(settings: Settings) -> Iterator[Contradiction]:
    if not settings.metrics_token:
        return
    token, fields = settings.metrics_token.get_secret_value(), ("metrics_token",)
    for weakness in _weaknesses("METRICS_TOKEN", token, settings):
        yield Contradiction(weakness, fields)
    if not _BEARER.fullmatch(token):
        yield Contradiction(
            f"METRICS_TOKEN has characters that no Authorization header may have. {_MAKE_ANOTHER}", fields
        )
    if token in settings.secrets:
        yield Contradiction(
            "METRICS_TOKEN is the same as AUTH_SECRET: who reads metrics must not hold the root. Use two.", fields
        )


def _in_traces(settings: Settings) -> Iterator[Contradiction]:
    """Why spans could not be sent; without `TRACES=on` nobody looks for the extra."""
    if not settings.traces:
        return
    if not _otel_is_installed():
        yield Contradiction(f"TRACES=on needs OpenTelemetry, which is not installed. {_INSTALL_OTEL}", ("traces",))
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (given := settings.otel.get(name)) and given.get_secret_value() != "http/protobuf":
            yield Contradiction(
                f"TRACES=on speaks http/protobuf (port 4318 of most collectors): leave {name} out.", ("traces",)
            )


def _otel_is_installed() -> bool:
    needed = ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk")
    try:
        return all(importlib.util.find_spec(name) for name in needed)
    except ModuleNotFoundError:
        return False


def _in_cookies(settings: Settings) -> Iterator[Contradiction]:
    if settings.cookie_samesite == "none" and not settings.cookie_secure:
        yield Contradiction(
            "COOKIE_SAMESITE=none needs Secure cookies, or browsers drop them: set PUBLIC_URL to an https:// "
            "address, or COOKIE_SECURE=on.",
            ("cookie_samesite", "cookie_secure", "public_url"),
        )
    if settings.cookie_domain and not _covers(settings.cookie_domain, urlsplit(settings.public_url).hostname or ""):
        yield Contradiction(
            f"COOKIE_DOMAIN={settings.cookie_domain} does not cover the host of PUBLIC_URL, so browsers would "
            "refuse every cookie: leave it empty, or set it to that host or a parent domain.",
            ("cookie_domain", "public_url"),
        )


def _covers(domain: str, host: str) -> bool:
    domain = domain.lstrip(".").lower()
    return "." in domain and (host == domain or host.endswith("." + domain))


def _in_lifetimes(settings: Settings) -> Iterator[Contradiction]:
    if timedelta(0) < settings.key_rotation < timedelta(hours=1):
        yield Contradiction("KEY_ROTATION is too short: 1h at least, or 0 for never.", ("key_rotation",))
    if settings.jwt_refresh_expiry > settings.session_max_age:
        yield Contradiction(
            "JWT_REFRESH_EXPIRY is longer than SESSION_MAX_AGE, which ends every session: raise the second or "
            "lower the first.",
            ("jwt_refresh_expiry", "session_max_age"),
        )
    for field, (least, most) in _BOUNDS.items():
        if not least <= getattr(settings, field) <= most:
            yield Contradiction(f"{field.upper()} must be from {_short(least)} to {_short(most)}.", (field,))


def _short(span: timedelta) -> str:
    return f"{span.days}d" if span.days else f"{span.seconds}s"


def _in_signing_keys(settings: Settings) -> Iterator[Contradiction]:
    secret, algorithm, fields = settings.jwt_access_secret, settings.jwt_algorithm, ("jwt_algorithm",)
    if secret and secret == settings.auth_secret:
        yield Contradiction(
            "JWT_ACCESS_SECRET is the same as AUTH_SECRET: those who check tokens must not hold the root. Use two.",
            ("jwt_access_secret",),
        )
    if algorithm == "HS256":
        if settings.jwt_private_key_path or settings.jwt_public_key_path:
            yield Contradiction("JWT_ALGORITHM=HS256 signs with JWT_ACCESS_SECRET, not with key files.", fields)
        if secret:
            for weakness in _weaknesses("JWT_ACCESS_SECRET", secret.get_secret_value(), settings):
                yield Contradiction(weakness, fields)
        return
    if secret:
        yield Contradiction(
            f"JWT_ACCESS_SECRET is for JWT_ALGORITHM=HS256; {algorithm} signs with a private key.", fields
        )
    if settings.jwt_public_key_path and not settings.jwt_private_key_path:
        yield Contradiction("JWT_PUBLIC_KEY_PATH needs JWT_PRIVATE_KEY_PATH beside it: this service signs.", fields)


def _in_providers(settings: Settings) -> Iterator[Contradiction]:
    for provider in ("google", "github"):
        fields = (f"{provider}_client_id", f"{provider}_client_secret")
        halves = [getattr(settings, field) for field in fields]
        if any(halves) and not all(halves):
            one, other = (field.upper() for field in fields)
            yield Contradiction(f"{one} and {other} need each other; one is missing.", fields)
    for name, url in _provider_addresses(settings):
        if settings.production and urlsplit(url).scheme == "http" and urlsplit(url).hostname not in LOOPBACK:
            yield Contradiction(
                f"{name} must be https:// in production: over http anybody on the way could be anybody here.",
                (name.lower(),),
            )


def _provider_addresses(settings: Settings) -> list[tuple[str, str]]:
    """Where the word on who somebody is comes from."""
    ours = [(name.upper(), getattr(settings, name)) for name in ("google_issuer", "github_url", "github_api_url")]
    return ours + [(f"OIDC_{client.name.upper()}_ISSUER", client.issuer) for client in settings.oidc]


def _in_mail(settings: Settings) -> Iterator[Contradiction]:
    if settings.smtp_url and not settings.mail_from:
        yield Contradiction("MAIL_FROM is missing: SMTP_URL sends mail, and from whom would it be?", ("mail_from",))


def _in_redis(settings: Settings) -> Iterator[Contradiction]:
    if settings.redis_url:
        try:
            Address.read(settings.redis_url.get_secret_value())
        except ValueError as error:
            yield Contradiction(f"REDIS_URL {error}.", ("redis_url",))
    elif settings.production:
        yield Contradiction(
            "REDIS_URL is needed in production: where is the Redis that all instances share?", ("redis_url",)
        )


def _weaknesses(name: str, secret: str, settings: Settings) -> list[str]:
    """Why a secret is none, in sentences about the variable of this name."""
    hint = f"Make a good one with: {_MAKE_SECRET}"
    if not secret:
        return [f"{name} is missing; every instance needs the same one. {hint}"]
    if len(secret.encode()) < 32:
        return [f"{name} is too short: 32 bytes at least. {hint}"]
    if settings.production and (_WELL_KNOWN.search(secret) or len(set(secret)) < 10):
        return [f"{name} looks like one from a tutorial, which an attacker tries first. {hint}"]
    return []
