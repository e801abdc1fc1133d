"""Settings: one frozen object, read once from the environment and `.env`, or every mistake in plain words.

The environment wins over `.env`; an empty value counts as unset. Durations are `900`, `15m`, `2h` or `7d`, lists
are separated by commas. Each field is a variable of the same name in capitals, told in `config/example.env`.
"""

import contextlib
import difflib
import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import formataddr, parseaddr
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import dotenv
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from service.store.address import Address as RedisAddress

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"

MAKE_SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'  # noqa: S105
MAKE_ANOTHER = f"Make another with: {MAKE_SECRET}"
INSTALL_OTEL = (
    "`make run TRACES=on` installs it; without make: python -m pip install --no-deps --require-hashes "
    "-r requirements/otel.lock; in an image: docker build --build-arg LOCK=otel."
)
_UNITS = {"": "seconds", "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WELL_KNOWN = re.compile(
    r"change[-_ ]?me|your[-_ ]|secret[-_ ]?key|super[-_ ]?secret|^(secret|password|example|default|development|test)"
    r"|0123456789|1234567890|(.)\1{7}",
    re.IGNORECASE,
)
_OF_COMPOSE = ("REDIS_PASSWORD", "REDIS_ADMIN_PASSWORD", "REDIS_MAXMEMORY")  # read from the same file
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1
LOOPBACK = ("localhost", "127.0.0.1", "::1")
Address = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """The service cannot start like this; `mistakes` has a sentence for each thing to mend."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


def duration(text: Any) -> Any:
    """`15m` as a timedelta."""
    if isinstance(text, str):
        if match := re.fullmatch(r"(\d{1,9})\s*(ms|[smhd]?)", text.strip().lower()):
            return timedelta(**{_UNITS[match[2]]: int(match[1])})
        raise ValueError("must be a duration: write seconds as 900, or 15m, 2h, 7d")
    return text


def _words(text: Any) -> Any:
    return tuple(word for part in text.split(",") if (word := part.strip())) if isinstance(text, str) else text


def _switch(text: Any) -> Any:
    if isinstance(text, str):
        match text.strip().lower():
            case "on" | "true" | "yes" | "1":
                return True
            case "off" | "false" | "no" | "0":
                return False
        raise ValueError("must be on or off")
    return text


def _base_url(text: Any) -> Any:
    """An http(s) address without query or trailing slash."""
    parts = urlsplit(str(text).strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an address such as https://auth.example.org")
    _ = parts.port  # refuses one that is none
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _issuer(text: Any) -> Any:
    """An issuer as its provider writes it: a slash at the end belongs to its name (OpenID Connect Discovery, 4.3)."""
    _base_url(text)
    return str(text).strip()


def _scopes(text: Any) -> Any:
    """`openid email profile`, separated by blanks or commas."""
    scopes = str(text).replace(",", " ").split()
    if "openid" not in scopes:
        raise ValueError("must have openid among its scopes, such as: openid email profile")
    return " ".join(scopes)


def _smtp_url(text: Any) -> Any:
    """`smtp://user:password@host:587` or `smtps://`, with `?starttls=on` or `off` for the first."""
    try:
        parts = urlsplit(str(text).strip())
        known = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        known = False
    if not known or parts.query not in ("", "starttls=on", "starttls=off"):
        raise ValueError(
            "must be an address such as smtp://user:password@mail.example.org:587 or smtps://…; write / # ? @ and % in "
            "a password as %2F %23 %3F %40 %25"
        )
    return str(text).strip()


def _sender(text: Any) -> Any:
    """One address with a name or without."""
    name, address = parseaddr(str(text).strip())
    local_part, _, domain = address.rpartition("@")
    if not local_part or not domain or not str(text).isprintable() or not address.isascii():
        raise ValueError("must be one address, such as: Example <no-reply@example.org>")
    return formataddr((name, address))


def origin_of(url: str) -> str:
    """The origin of an address, as browsers write it (RFC 6454, section 6.2): no default port, lower case."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def _origins(text: Any) -> Any:
    for word in (words := _words(text)):
        if word == "*":
            raise ValueError("must name each origin: with credentials '*' would let every site act as your users")
        parts = urlsplit(word)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/") or parts.query:
            raise ValueError(f"must list origins such as https://app.example.org, without a path; '{word}' is none")
    return tuple(origin_of(word) for word in words)


def _networks(text: Any) -> Any:
    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in _words(text))
    except ValueError as error:
        raise ValueError(f"must list networks such as 10.0.0.0/8: {error}") from None


def _limits(text: Any) -> Any:
    """`login=5/15m,register=10/1h` as {name: (calls, window)}."""
    if not isinstance(text, str):
        return text
    table = {}
    for word in _words(text):
        match = re.fullmatch(r"([a-z-]+)\s*=\s*(\d{1,6})\s*/\s*(\d{1,9}[smhdSMHD]?)", word)
        if not match or int(match[2]) < 1 or not (window := duration(match[3])):
            raise ValueError(f"must list limits such as login=5/15m; '{word}' is none")
        table[match[1]] = (int(match[2]), window)
    return table


Duration = Annotated[timedelta, BeforeValidator(duration)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Url = Annotated[str, BeforeValidator(_base_url)]
Issuer = Annotated[str, BeforeValidator(_issuer)]


class OpenIDClient(BaseModel):
    """A provider by its issuer: `OIDC_<NAME>_ISSUER` and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    issuer: Issuer
    client_id: str
    client_secret: SecretStr = SecretStr("")
    scopes: Annotated[str, BeforeValidator(_scopes)] = "openid email profile"
    display_name: str = ""
    redirect_uri: Url | None = None


class Settings(BaseModel):
    """What the operator decided. Secrets are `SecretStr`: neither a repr nor a log shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    environment: Environment = Environment.DEVELOPMENT
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(1, ge=1, le=128)
    public_url: Url = "http://localhost:8000"
    frontend_url: Url = "http://localhost:5173"
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = ()
    trusted_proxies: Annotated[tuple[Address, ...], BeforeValidator(_networks)] = ()
    drain_seconds: Duration = timedelta(0)
    max_connections: int = Field(10_000, ge=16, le=1_000_000)
    max_connections_per_address: int = Field(0, ge=0, le=1_000_000)
    max_concurrent_requests: int = Field(1000, ge=8, le=100_000)
    examples: Switch = True
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: str(v).lower())] = (
        "info"
    )
    log_format: Literal["text", "json"] = "text"
    metrics_token: SecretStr | None = None
    traces: Switch = False
    otel: Mapping[str, SecretStr] = {}  # OTEL_..., which OpenTelemetry's own code reads from the environment

    redis_url: SecretStr | None = None
    redis_wait_replicas: int = Field(0, ge=0, le=16)
    redis_allow_unsafe: Switch = False
    revocation: Annotated[Literal["strict", "tracked"], BeforeValidator(lambda v: str(v).lower())] = "strict"

    auth_secret: SecretStr = SecretStr("")
    auth_secret_previous: Annotated[tuple[SecretStr, ...], BeforeValidator(_words)] = ()
    jwt_algorithm: Literal["ES256", "RS256", "EdDSA", "HS256"] = "ES256"
    jwt_access_secret: SecretStr | None = None
    jwt_private_key_path: Path | None = None
    jwt_public_key_path: Path | None = None
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_access_expiry: Duration = timedelta(minutes=15)
    jwt_refresh_expiry: Duration = timedelta(days=7)
    session_max_age: Duration = timedelta(days=30)
    refresh_leeway: Duration = timedelta(seconds=10)
    refresh_recovery: Switch = True
    clock_tolerance: Duration = timedelta(seconds=10)
    max_sessions_per_user: int = Field(100, ge=1, le=200)
    key_rotation: Duration = timedelta(days=30)

    cookie_samesite: Annotated[Literal["lax", "strict", "none"], BeforeValidator(lambda v: str(v).lower())] = "lax"
    cookie_domain: str | None = None
    cookie_secure: Switch = False

    registration: Annotated[Literal["open", "private", "closed"], BeforeValidator(lambda v: str(v).lower())] = "open"
    require_verified_email: Switch = False
    bcrypt_rounds: int | None = Field(None, ge=10, le=16)
    sign_in_floor: Duration = timedelta(0)
    one_time_token_expiry: Duration = timedelta(hours=1)
    smtp_url: Annotated[SecretStr, BeforeValidator(_smtp_url)] | None = None
    mail_from: Annotated[str, BeforeValidator(_sender)] | None = None

    google_client_id: str | None = None
    google_client_secret: SecretStr | None = None
    google_redirect_uri: Url | None = None
    google_issuer: Issuer = "https://accounts.google.com"
    github_client_id: str | None = None
    github_client_secret: SecretStr | None = None
    github_redirect_uri: Url | None = None
    github_url: Url = "https://github.com"
    github_api_url: Url = "https://api.github.com"
    oidc: tuple[OpenIDClient, ...] = ()

    rate_limits: Annotated[dict[str, tuple[int, timedelta]], BeforeValidator(_limits)] = {}

    @property
    def production(self) -> bool:
        return self.environment is Environment.PRODUCTION

    @property
    def secrets(self) -> tuple[str, ...]:
        """The current secret and those before it."""
        return tuple(secret.get_secret_value() for secret in (self.auth_secret, *self.auth_secret_previous))


NAMES = tuple(name.upper() for name in Settings.model_fields if name not in ("oidc", "otel"))
OIDC = re.compile(r"OIDC_([A-Z][A-Z0-9]*)_(ISSUER|CLIENT_ID|CLIENT_SECRET|SCOPES|DISPLAY_NAME|REDIRECT_URI)")
OTEL = re.compile(r"OTEL_[A-Z_]+")

# The words under /api/auth/ that are no names of providers.
# fmt: off
RESERVED = frozenset((
    "register", "login", "refresh", "logout", "logout-all", "me", "verify", "csrf-token", "sessions", "password",
    "email", "events", "providers", "identities", "api-keys", "introspect", "revoke", "google", "github",
))
# fmt: on


def load(environ: Mapping[str, str], env_file: Path | None = None, var: Path = ROOT / "var") -> Settings:
    """Read the settings; raises `SettingsError` with every mistake there is.

    In development a missing `AUTH_SECRET` is made once and kept in `var/secret`, readable by its owner only.
    """
    in_file = dotenv.dotenv_values(env_file, interpolate=False) if env_file and env_file.is_file() else {}
    mistakes = [_unknown(name) for name in in_file if _looks_like_ours(name) and name not in NAMES]
    filled = {name: value.strip() for name, value in {**in_file, **environ}.items() if value and value.strip()}
    given: dict[str, Any] = {name.lower(): value for name, value in filled.items() if name in NAMES}
    if "WORKERS" not in filled and (workers := filled.get("WEB_CONCURRENCY")):  # its name where a Procfile is read
        if workers.isdecimal():
            given["workers"] = workers
        else:
            mistakes.append("WEB_CONCURRENCY must be a whole number")
    given["oidc"], unusable = _openid_clients(filled)
    settings, refused = _parse(given)
    mistakes += unusable + refused
    if settings.traces:
        otel = {name: SecretStr(value) for name, value in filled.items() if OTEL.fullmatch(name)}
        settings = settings.model_copy(update={"otel": otel})
    settings = _with_defaults(settings, given)
    mistakes += [
        mistake
        for fields, mistake in _contradictions(settings)
        if not any(line.startswith(field.upper() + " ") for line in refused for field in fields)
    ]
    if mistakes:
        raise SettingsError(mistakes)
    if not settings.auth_secret.get_secret_value():
        settings = settings.model_copy(update={"auth_secret": SecretStr(_kept_secret(var))})
    return settings


def _openid_clients(filled: Mapping[str, str]) -> tuple[tuple[OpenIDClient, ...], list[str]]:
    """The providers that `OIDC_<NAME>_...` describe, and a sentence for each that cannot be."""
    found: dict[str, dict[str, str]] = {}
    for name, value in filled.items():
        if match := OIDC.fullmatch(name):
            found.setdefault(match[1].lower(), {})[match[2].lower()] = value
    clients, mistakes = [], []
    for name, fields in sorted(found.items()):
        prefix = f"OIDC_{name.upper()}_"
        if name in RESERVED:
            mistakes.append(f"{prefix}* cannot be: '{name}' is a word of our own addresses; choose another name.")
            continue
        try:
            clients.append(OpenIDClient(name=name, **fields))
        except ValidationError as error:
            mistakes += [
                f"{prefix}{str(problem['loc'][0]).upper()} "
                + ("is missing." if problem["type"] == "missing" else _plain(problem))
                for problem in error.errors(include_url=False)
            ]
    return tuple(clients), mistakes


def _parse(given: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The settings without the values that could not be read, and a sentence for each of those."""
    try:
        return Settings(**given), []
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in error.errors(include_url=False)}
    sentences = [f"{name.upper()} {_plain(problem)}" for name, problem in problems.items()]
    return Settings(**{name: value for name, value in given.items() if name not in problems}), sentences


def _plain(problem: Any) -> str:
    """What pydantic found, without the value: it may be a secret."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    context = problem.get("ctx", {})
    match problem["type"]:
        case "int_parsing" | "int_type":
            return "must be a whole number"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "enum" | "literal_error":
            return f"must be one of {context['expected']}"
    return f"is not valid: {problem['msg']}"


def _with_defaults(settings: Settings, given: dict[str, Any]) -> Settings:
    """The defaults that follow from other settings."""
    production = settings.production
    public_url = settings.public_url if "public_url" in given else f"http://localhost:{settings.port}"
    derived: dict[str, Any] = {
        "host": "0.0.0.0" if production else "127.0.0.1",  # noqa: S104 a container is reached from outside
        "public_url": public_url,
        "cors_origins": tuple(
            dict.fromkeys((origin_of(settings.frontend_url), *(() if production else ("http://localhost:5173",))))
        ),
        "drain_seconds": timedelta(seconds=5 if production else 0),
        "examples": not production,
        "log_format": "json" if production else "text",
        "jwt_issuer": public_url,
        "jwt_audience": settings.jwt_issuer or public_url,
        "cookie_secure": public_url.startswith("https:"),
        **({"github_api_url": f"{settings.github_url}/api/v3"} if "github_url" in given else {}),
    }
    return settings.model_copy(update={name: value for name, value in derived.items() if name not in given})


def _contradictions(settings: Settings) -> list[tuple[tuple[str, ...], str]]:
    """Settings that are fine one by one and wrong together, each with the fields it speaks of."""
    found: list[tuple[tuple[str, ...], str]] = []
    secret = settings.auth_secret.get_secret_value()
    if settings.production or secret:
        found += [(("auth_secret",), complaint) for complaint in _weaknesses("AUTH_SECRET", secret, settings)]
    if "," in secret:
        mistake = "AUTH_SECRET has a comma, which would split it in AUTH_SECRET_PREVIOUS some day. " + MAKE_ANOTHER
        found.append((("auth_secret",), mistake))
    for previous in settings.auth_secret_previous:
        if len(previous.get_secret_value()) < 16:
            found.append((("auth_secret_previous",), "AUTH_SECRET_PREVIOUS lists a secret of less than 16 characters."))
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        mistake = "TRUSTED_PROXIES trusts the whole world: anybody could choose their own address. Name your proxies."
        found.append((("trusted_proxies",), mistake))
    if settings.jwt_access_secret and settings.jwt_access_secret == settings.auth_secret:
        mistake = (
            "JWT_ACCESS_SECRET is the same as AUTH_SECRET: those who check tokens must not hold the root. Use two."
        )
        found.append((("jwt_access_secret",), mistake))
    if settings.metrics_token:
        token = settings.metrics_token.get_secret_value()
        found += [(("metrics_token",), complaint) for complaint in _weaknesses("METRICS_TOKEN", token, settings)]
        if not _BEARER.fullmatch(token):
            mistake = "METRICS_TOKEN has characters that no Authorization header may have. " + MAKE_ANOTHER
            found.append((("metrics_token",), mistake))
        if token in settings.secrets:
            mistake = "METRICS_TOKEN is the same as AUTH_SECRET: who reads metrics must not hold the root. Use two."
            found.append((("metrics_token",), mistake))
    found += [(("traces",), complaint) for complaint in _trace_complaints(settings)]
    if settings.cookie_samesite == "none" and not settings.cookie_secure:
        found.append(
            (
                ("cookie_samesite", "cookie_secure", "public_url"),
                "COOKIE_SAMESITE=none needs Secure cookies, or browsers drop them: set PUBLIC_URL to an https:// "
                "address, or COOKIE_SECURE=on.",
            )
        )
    if settings.cookie_domain and not _covers(settings.cookie_domain, urlsplit(settings.public_url).hostname or ""):
        found.append(
            (
                ("cookie_domain", "public_url"),
                f"COOKIE_DOMAIN={settings.cookie_domain} does not cover the host of PUBLIC_URL, so browsers would "
                "refuse every cookie: leave it empty, or set it to that host or a parent domain.",
            )
        )
    if timedelta(0) < settings.key_rotation < timedelta(hours=1):
        found.append((("key_rotation",), "KEY_ROTATION is too short: 1h at least, or 0 for never."))
    if settings.jwt_refresh_expiry > settings.session_max_age:
        found.append(
            (
                ("jwt_refresh_expiry", "session_max_age"),
                "JWT_REFRESH_EXPIRY is longer than SESSION_MAX_AGE, which ends every session: raise the second or "
                "lower the first.",
            )
        )
    for field, least, most in (
        ("jwt_access_expiry", timedelta(seconds=30), timedelta(days=1)),
        ("jwt_refresh_expiry", timedelta(minutes=1), timedelta(days=366)),
        ("session_max_age", timedelta(minutes=1), timedelta(days=3660)),
        ("refresh_leeway", timedelta(0), timedelta(seconds=60)),
        ("clock_tolerance", timedelta(0), timedelta(seconds=60)),
        ("sign_in_floor", timedelta(0), timedelta(seconds=5)),
        ("one_time_token_expiry", timedelta(minutes=1), timedelta(days=7)),
        ("drain_seconds", timedelta(0), timedelta(minutes=5)),
    ):
        if not least <= getattr(settings, field) <= most:
            found.append(((field,), f"{field.upper()} must be from {_short(least)} to {_short(most)}."))
    found += [(("jwt_algorithm",), complaint) for complaint in _key_complaints(settings)]
    for provider in ("google", "github"):
        halves = [getattr(settings, f"{provider}_{half}") for half in ("client_id", "client_secret")]
        if any(halves) and not all(halves):
            name = provider.upper()
            found.append(((provider,), f"{name}_CLIENT_ID and {name}_CLIENT_SECRET need each other; one is missing."))
    found += [
        ((name.lower(),), f"{name} must be https:// in production: over http anybody on the way could be anybody here.")
        for name, url in _provider_addresses(settings)
        if settings.production and urlsplit(url).scheme == "http" and urlsplit(url).hostname not in LOOPBACK
    ]
    if settings.smtp_url and not settings.mail_from:
        found.append((("mail_from",), "MAIL_FROM is missing: SMTP_URL sends mail, and from whom would it be?"))
    if settings.redis_url:
        try:
            RedisAddress.read(settings.redis_url.get_secret_value())
        except ValueError as error:
            found.append((("redis_url",), f"REDIS_URL {error}."))
    if settings.production and not settings.redis_url:
        found.append(
            (
                ("redis_url",),
                "REDIS_URL is needed in production: where is the Redis that all instances share?",
            )
        )
    return found


def _provider_addresses(settings: Settings) -> list[tuple[str, str]]:
    """Where the word on who somebody is comes from."""
    ours = [(name.upper(), getattr(settings, name)) for name in ("google_issuer", "github_url", "github_api_url")]
    return ours + [(f"OIDC_{client.name.upper()}_ISSUER", client.issuer) for client in settings.oidc]


def _weaknesses(name: str, secret: str, settings: Settings) -> list[str]:
    hint = f"Make a good one with: {MAKE_SECRET}"
    if not secret:
        return [f"{name} is missing; every instance needs the same one. {hint}"]
    if len(secret.encode()) < 32:
        return [f"{name} is too short: 32 bytes at least. {hint}"]
    if settings.production and (_WELL_KNOWN.search(secret) or len(set(secret)) < 10):
        return [f"{name} looks like one from a tutorial, which an attacker tries first. {hint}"]
    return []


def _trace_complaints(settings: Settings) -> list[str]:
    """Why spans could not be sent; without `TRACES=on` nobody looks for the extra."""
    if not settings.traces:
        return []
    try:
        missing = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is None
        missing = missing or importlib.util.find_spec("opentelemetry.sdk") is None
    except ModuleNotFoundError:
        missing = True
    found = [f"TRACES=on needs OpenTelemetry, which is not installed. {INSTALL_OTEL}"] * missing
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (given := settings.otel.get(name)) and given.get_secret_value() != "http/protobuf":
            found.append(f"TRACES=on speaks http/protobuf (port 4318 of most collectors): leave {name} out.")
    return found


def _key_complaints(settings: Settings) -> list[str]:
    algorithm, paths = settings.jwt_algorithm, (settings.jwt_private_key_path, settings.jwt_public_key_path)
    if algorithm == "HS256":
        found = ["JWT_ALGORITHM=HS256 signs with JWT_ACCESS_SECRET, not with key files."] if any(paths) else []
        if settings.jwt_access_secret:
            found += _weaknesses("JWT_ACCESS_SECRET", settings.jwt_access_secret.get_secret_value(), settings)
        return found
    found = []
    if settings.jwt_access_secret:
        found.append(f"JWT_ACCESS_SECRET is for JWT_ALGORITHM=HS256; {algorithm} signs with a private key.")
    if settings.jwt_public_key_path and not settings.jwt_private_key_path:
        found.append("JWT_PUBLIC_KEY_PATH needs JWT_PRIVATE_KEY_PATH beside it: this service signs.")
    return found


def _covers(domain: str, host: str) -> bool:
    domain = domain.lstrip(".").lower()
    return "." in domain and (host == domain or host.endswith("." + domain))


def _short(span: timedelta) -> str:
    return f"{span.days}d" if span.days else f"{span.seconds}s"


def _looks_like_ours(name: str) -> bool:
    if name in _OF_COMPOSE or OIDC.fullmatch(name):
        return False
    prefixes = {"OIDC"} | {known.split("_")[0] for known in NAMES if "_" in known}
    return name in NAMES or name.split("_")[0] in prefixes


def _unknown(name: str) -> str:
    if name.startswith("OIDC_"):
        return (
            f"{name} in .env is no setting: OIDC_<NAME>_ is followed by ISSUER, CLIENT_ID, CLIENT_SECRET, SCOPES, "
            "DISPLAY_NAME or REDIRECT_URI, and <NAME> has letters and digits only."
        )
    near = difflib.get_close_matches(name, NAMES, 1)
    return f"{name} in .env is no setting" + (f": did you mean {near[0]}?" if near else ".")


def _kept_secret(var: Path) -> str:
    """The development secret, made on the first start."""
    path = var / "secret"
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = var / f"secret.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(os.urandom(48).hex())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)  # of two first starts at once, one wins, and nobody reads half a secret
    draft.unlink()
    if len(secret := path.read_text().strip()) < 32:
        raise SettingsError([f"{path} holds no secret; remove it to have a new one made."])
    return secret
