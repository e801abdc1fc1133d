"""Reading settings: from the environment and `.env` to one object, or every mistake in plain words.

A mistake never repeats the value, which may be a secret. Beside the values that were given are the defaults that follow
from them, the providers that `OIDC_<NAME>_...` describe, and in development a secret that is made once.
"""

import contextlib
import difflib
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dotenv
from pydantic import SecretStr, ValidationError

from service.settings.contradictions import contradictions
from service.settings.forms import origin_of
from service.settings.settings import NAMES, OIDC, OTEL, RESERVED, ROOT, OpenIDClient, Settings

_OF_COMPOSE = ("REDIS_PASSWORD", "REDIS_ADMIN_PASSWORD", "REDIS_MAXMEMORY")  # read from the same file


class SettingsError(Exception):
    """The service cannot start like this; `mistakes` has a sentence for each thing to mend."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


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
    mistakes += [*unusable, *refused.values()]
    if settings.traces:
        otel = {name: SecretStr(value) for name, value in filled.items() if OTEL.fullmatch(name)}
        settings = settings.model_copy(update={"otel": otel})
    settings = _with_defaults(settings, given)
    mistakes += [found.sentence for found in contradictions(settings) if refused.keys().isdisjoint(found.fields)]
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


def _parse(given: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
    """The settings without the values that could not be read, and for each of those, by its field, a sentence."""
    try:
        return Settings(**given), {}
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in error.errors(include_url=False)}
    sentences = {name: f"{name.upper()} {_plain(problem)}" for name, problem in problems.items()}
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


def _looks_like_ours(name: str) -> bool:
    """Whether whoever wrote it in `.env` meant it for us; other programs may read that file too."""
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
