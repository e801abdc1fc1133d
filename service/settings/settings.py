"""What can be set: a typed field with its default for each variable, told in `config/example.env`.

Defaults that follow from other settings are in `reading.py`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from service.settings.forms import (
    AnyCase,
    Duration,
    Issuer,
    Limits,
    Networks,
    Origins,
    Scopes,
    Secrets,
    Sender,
    SmtpUrl,
    Switch,
    Url,
)

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "config"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class OpenIDClient(BaseModel):
    """A provider by its issuer: `OIDC_<NAME>_ISSUER` and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    issuer: Issuer
    client_id: str
    client_secret: SecretStr = SecretStr("")
    scopes: Scopes = "openid email profile"
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
    cors_origins: Origins = ()
    trusted_proxies: Networks = ()
    drain_seconds: Duration = timedelta(0)
    max_connections: int = Field(10_000, ge=16, le=1_000_000)
    max_connections_per_address: int = Field(0, ge=0, le=1_000_000)
    max_concurrent_requests: int = Field(1000, ge=8, le=100_000)
    examples: Switch = True
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = "info"
    log_format: Literal["text", "json"] = "text"
    metrics_token: SecretStr | None = None
    traces: Switch = False
    otel: Mapping[str, SecretStr] = {}  # OTEL_..., which OpenTelemetry's own code reads from the environment

    redis_url: SecretStr | None = None
    redis_wait_replicas: int = Field(0, ge=0, le=16)
    redis_allow_unsafe: Switch = False
    revocation: Annotated[Literal["strict", "tracked"], AnyCase] = "strict"

    auth_secret: SecretStr = SecretStr("")
    auth_secret_previous: Secrets = ()
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

    cookie_samesite: Annotated[Literal["lax", "strict", "none"], AnyCase] = "lax"
    cookie_domain: str | None = None
    cookie_secure: Switch = False

    registration: Annotated[Literal["open", "private", "closed"], AnyCase] = "open"
    require_verified_email: Switch = False
    bcrypt_rounds: int | None = Field(None, ge=10, le=16)
    sign_in_floor: Duration = timedelta(0)
    one_time_token_expiry: Duration = timedelta(hours=1)
    smtp_url: SmtpUrl | None = None
    mail_from: Sender | None = None

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

    rate_limits: Limits = {}

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
