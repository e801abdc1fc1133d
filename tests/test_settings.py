"""Settings: what the operator may write, what is made of it, and every mistake in plain words."""

import os
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import CONFIG, NAMES, OIDC, OTEL, ROOT, Settings, SettingsError, load
from tests.conftest import SECRET

STRONG = "Zk3pV9xQ2mT7wR4yB8nL1cF6hJ5sD0gA-u_e"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "AUTH_SECRET": STRONG,
    "REDIS_URL": "redis://:hunter2hunter2@redis:6379/0",
    "PUBLIC_URL": "https://auth.example.org",
    "FRONTEND_URL": "https://app.example.org",
}


def settings(**environ: str) -> Settings:
    return load({"AUTH_SECRET": SECRET, **environ})


def mistakes(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings(**environ)
    return refused.value.mistakes


def in_production(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load({**PRODUCTION, **environ})
    return refused.value.mistakes


# Defaults

# What api.md, "Settings and commands", promises in development and in production, where that differs.
DEFAULTS: dict[str, tuple[object, ...]] = {
    "host": ("127.0.0.1", "0.0.0.0"),
    "port": (8000,),
    "public_url": ("http://localhost:8000", "https://auth.example.org"),
    "frontend_url": ("http://localhost:5173", "https://app.example.org"),
    "cors_origins": (("http://localhost:5173",), ("https://app.example.org",)),
    "trusted_proxies": ((),),
    "drain_seconds": (timedelta(0), timedelta(seconds=5)),
    "examples": (True, False),
    "log_level": ("info",),
    "log_format": ("text", "json"),
    "redis_wait_replicas": (0,),
    "redis_allow_unsafe": (False,),
    "auth_secret_previous": ((),),
    "jwt_algorithm": ("ES256",),
    "jwt_access_secret": (None,),
    "jwt_private_key_path": (None,),
    "jwt_public_key_path": (None,),
    "jwt_issuer": ("http://localhost:8000", "https://auth.example.org"),
    "jwt_audience": ("http://localhost:8000", "https://auth.example.org"),
    "jwt_access_expiry": (timedelta(minutes=15),),
    "jwt_refresh_expiry": (timedelta(days=7),),
    "session_max_age": (timedelta(days=30),),
    "refresh_leeway": (timedelta(seconds=10),),
    "refresh_recovery": (True,),
    "clock_tolerance": (timedelta(seconds=10),),
    "max_sessions_per_user": (100,),
    "cookie_samesite": ("lax",),
    "cookie_domain": (None,),
    "cookie_secure": (False, True),
    "registration": ("open",),
    "require_verified_email": (False,),
    "one_time_token_expiry": (timedelta(hours=1),),
    "smtp_url": (None,),
    "mail_from": (None,),
    "bcrypt_rounds": (None,),
    "sign_in_floor": (timedelta(0),),
    "rate_limits": ({},),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_those_of_the_contract(name):
    development, production = DEFAULTS[name][0], DEFAULTS[name][-1]

    assert getattr(settings(), name) == development
    assert getattr(load(PRODUCTION), name) == production


def test_development_needs_nothing_at_all(tmp_path):
    bare = load({}, var=tmp_path)

    assert bare.redis_url is None
    assert len(bare.secrets[0]) >= 32


def test_the_port_is_in_the_public_url_that_was_not_given():
    assert settings(PORT="8001").jwt_issuer == "http://localhost:8001"
    assert settings(PORT="8001", PUBLIC_URL="https://auth.example.org/").jwt_issuer == "https://auth.example.org"


# config/example.env


def example() -> dict[str, str]:
    lines = (CONFIG / "example.env").read_text().splitlines()
    return dict(line[1:].split("=", 1) for line in lines if line[:2].lstrip("#").isalpha() and "=" in line)


def test_example_env_names_exactly_the_settings():
    assert sorted(name for name in example() if not OIDC.fullmatch(name) and not OTEL.fullmatch(name)) == sorted(NAMES)
    assert {match[2] for name in example() if (match := OIDC.fullmatch(name))} == {
        "ISSUER", "CLIENT_ID", "CLIENT_SECRET", "SCOPES", "DISPLAY_NAME", "REDIRECT_URI"
    }  # fmt: skip


def test_example_env_sets_nothing_as_it_is():
    assert [line for line in (CONFIG / "example.env").read_text().splitlines() if line and line[0] != "#"] == []


def test_example_env_states_true_defaults():
    """Taken as written it changes nothing; where the value is an example and no default, its comment says so."""
    examples_only = {
        "CORS_ORIGINS",
        "TRUSTED_PROXIES",
        "DRAIN_SECONDS",
        "REDIS_URL",
        "RATE_LIMITS",
        "SMTP_URL",
        "MAIL_FROM",
    }
    default = settings()
    told = {name: value for name, value in example().items() if not OIDC.fullmatch(name)}
    written = settings(**{name: value for name, value in told.items() if name not in examples_only and value})

    assert written == default
    assert "localhost:6379" in example()["REDIS_URL"]


def test_example_env_can_be_read_once_its_lines_are_switched_on(tmp_path):
    env = tmp_path / ".env"
    client_id = {"OIDC_EXAMPLE_CLIENT_ID": "from the provider"}
    env.write_text("\n".join(f"{name}={value}" for name, value in (example() | client_id).items()))

    assert load({"AUTH_SECRET": SECRET}, env).redis_url is not None


# Where values come from


def test_the_environment_wins_over_the_file(tmp_path):
    (tmp_path / ".env").write_text(f"PORT=8001\nLOG_LEVEL=debug\nAUTH_SECRET={SECRET}\n")

    found = load({"PORT": "8002"}, tmp_path / ".env")

    assert (found.port, found.log_level) == (8002, "debug")


def test_an_empty_value_counts_as_unset(tmp_path):
    (tmp_path / ".env").write_text("PORT=\nREDIS_URL=\nLOG_LEVEL=   \nBCRYPT_ROUNDS=''\n")

    found = load({"AUTH_SECRET": SECRET, "HOST": "", "COOKIE_DOMAIN": ""}, tmp_path / ".env")

    assert (found.port, found.redis_url, found.host, found.bcrypt_rounds) == (8000, None, "127.0.0.1", None)
    assert found.cookie_domain is None


def test_a_file_that_is_not_there_is_no_mistake(tmp_path):
    assert load({"AUTH_SECRET": SECRET}, tmp_path / ".env").port == 8000


def test_a_dollar_in_a_password_stays_one(tmp_path):
    (tmp_path / ".env").write_text("REDIS_URL=redis://:a${HOME}b$c@localhost\n")

    found = load({"AUTH_SECRET": SECRET}, tmp_path / ".env").redis_url

    assert found.get_secret_value() == "redis://:a${HOME}b$c@localhost"


def test_an_unknown_name_in_the_file_is_told_with_what_was_meant(tmp_path):
    compose = "REDIS_PASSWORD=x\nREDIS_ADMIN_PASSWORD=y\nREDIS_MAXMEMORY=1gb\n"
    (tmp_path / ".env").write_text(f"JWT_ACCES_EXPIRY=5m\nLOG_ZEBRA_QUUX=oat\n{compose}HOME=/\nEDITOR=vi\n")

    with pytest.raises(SettingsError) as refused:
        load({"AUTH_SECRET": SECRET}, tmp_path / ".env")

    assert refused.value.mistakes == [
        "JWT_ACCES_EXPIRY in .env is no setting: did you mean JWT_ACCESS_EXPIRY?",
        "LOG_ZEBRA_QUUX in .env is no setting.",
    ]


def test_unknown_names_in_the_environment_are_other_peoples():
    assert settings(REDIS_HOST="elsewhere", JWT_ACCES_EXPIRY="5m").port == 8000


# Forms


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("900", timedelta(minutes=15)),
        ("900s", timedelta(minutes=15)),
        ("15m", timedelta(minutes=15)),
        ("60000ms", timedelta(minutes=1)),
        ("2h", timedelta(hours=2)),
        (" 15M ", timedelta(minutes=15)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations(text, span):
    assert settings(JWT_ACCESS_EXPIRY=text).jwt_access_expiry == span


@pytest.mark.parametrize("text", ["15 min", "-5m", "1.5h", "m", "15mm", "1h30m", "inf", "1e3", "9999999999"])
def test_what_is_no_duration_is_told_with_the_forms_that_are(text):
    found = mistakes(JWT_ACCESS_EXPIRY=text)

    assert found == ["JWT_ACCESS_EXPIRY must be a duration: write seconds as 900, or 15m, 2h, 7d"]


@pytest.mark.parametrize(("text", "value"), [("on", True), ("TRUE", True), ("1", True), ("off", False), ("No", False)])
def test_switches(text, value):
    assert settings(REFRESH_RECOVERY=text).refresh_recovery is value


def test_lists_are_separated_by_commas():
    found = settings(
        CORS_ORIGINS="https://app.example.org, https://ADMIN.example.org:443 ,", TRUSTED_PROXIES="10.0.0.7/8,::1"
    )

    assert found.cors_origins == ("https://app.example.org", "https://admin.example.org")
    assert [str(network) for network in found.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


# Mistakes


def test_every_mistake_is_told_at_once_in_plain_words():
    found = mistakes(
        PORT="http",
        ENVIRONMENT="prod",
        LOG_LEVEL="loud",
        JWT_ACCESS_EXPIRY="soon",
        CORS_ORIGINS="app.example.org",
        TRUSTED_PROXIES="the-proxy",
        REFRESH_RECOVERY="maybe",
        RATE_LIMITS="login",
        PUBLIC_URL="auth.example.org",
        BCRYPT_ROUNDS="4",
        REDIS_URL="localhost:6379",
    )

    told = {mistake.split(" ")[0]: mistake for mistake in found}
    assert told.keys() == {
        "PORT", "ENVIRONMENT", "LOG_LEVEL", "JWT_ACCESS_EXPIRY", "CORS_ORIGINS", "TRUSTED_PROXIES", "REFRESH_RECOVERY",
        "RATE_LIMITS", "PUBLIC_URL", "BCRYPT_ROUNDS", "REDIS_URL",
    }  # fmt: skip
    assert told["PORT"] == "PORT must be a whole number"
    assert told["ENVIRONMENT"] == "ENVIRONMENT must be one of 'development' or 'production'"
    assert told["BCRYPT_ROUNDS"] == "BCRYPT_ROUNDS must be at least 10"
    assert told["REDIS_URL"] == (
        "REDIS_URL must begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
        "redis+cluster://, rediss+cluster://."
    )
    assert told["PUBLIC_URL"] == "PUBLIC_URL must be an address such as https://auth.example.org"
    for mistake in found:
        assert "pydantic" not in mistake
        assert "Input" not in mistake


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"PORT": "0"}, "PORT must be at least 1"),
        ({"PORT": "70000"}, "PORT must be at most 65535"),
        ({"MAX_SESSIONS_PER_USER": "1000"}, "MAX_SESSIONS_PER_USER must be at most 200"),
        ({"JWT_ACCESS_EXPIRY": "1s"}, "JWT_ACCESS_EXPIRY must be from 30s to 1d."),
        ({"REFRESH_LEEWAY": "2m"}, "REFRESH_LEEWAY must be from 0s to 60s."),
        ({"SIGN_IN_FLOOR": "1m"}, "SIGN_IN_FLOOR must be from 0s to 5s."),
        ({"JWT_REFRESH_EXPIRY": "31d"}, "JWT_REFRESH_EXPIRY is longer than SESSION_MAX_AGE"),
        ({"COOKIE_SAMESITE": "none"}, "COOKIE_SAMESITE=none needs Secure cookies"),
        ({"COOKIE_DOMAIN": "example.com"}, "COOKIE_DOMAIN=example.com does not cover the host"),
        ({"JWT_ACCESS_SECRET": "x" * 40}, "JWT_ACCESS_SECRET is for JWT_ALGORITHM=HS256"),
        ({"JWT_ALGORITHM": "HS256", "JWT_ACCESS_SECRET": "short"}, "JWT_ACCESS_SECRET is too short"),
        ({"JWT_ALGORITHM": "HS256", "JWT_PRIVATE_KEY_PATH": "k"}, "JWT_ALGORITHM=HS256 signs with JWT_ACCESS_SECRET"),
        ({"JWT_PUBLIC_KEY_PATH": "k"}, "JWT_PUBLIC_KEY_PATH needs JWT_PRIVATE_KEY_PATH"),
        ({"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM must be one of"),
        ({"AUTH_SECRET": "short"}, "AUTH_SECRET is too short: 32 bytes at least"),
        ({"AUTH_SECRET_PREVIOUS": "a,b"}, "AUTH_SECRET_PREVIOUS lists a secret of less than 16"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS must name each origin"),
        ({"CORS_ORIGINS": "https://app.example.org/path"}, "without a path"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES trusts the whole world"),
        ({"JWT_ALGORITHM": "HS256", "JWT_ACCESS_SECRET": SECRET}, "JWT_ACCESS_SECRET is the same as AUTH_SECRET"),
        ({"PUBLIC_URL": "https://user:pw@auth.example.org"}, "PUBLIC_URL must be an address"),
    ],
)
def test_a_mistake_says_what_to_do(environ, told):
    assert any(told in mistake for mistake in mistakes(**environ))


@pytest.mark.parametrize(
    "environ",
    [
        {"PUBLIC_URL": "http://[::1"},
        {"PUBLIC_URL": "http://host:port"},
        {"PUBLIC_URL": "http://host:99999"},
        {"FRONTEND_URL": "https://[not-an-address]"},
        {"CORS_ORIGINS": "https://app.example.org:port"},
        {"REDIS_URL": "redis://host:port/0"},
        {"REDIS_URL": "redis://:pass/word@host:6379/0"},
    ],
)
def test_an_address_that_cannot_be_read_is_a_mistake_and_no_crash(environ):
    (name,) = environ

    (told,) = mistakes(**environ)

    assert told.startswith(name + " ")
    assert "pass" not in told.replace("in a password", "")


# Production


def test_a_good_production_is_accepted():
    assert load(PRODUCTION).production


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "brief",
        "a" * 40,
        "changeme-changeme-changeme-changeme",
        "your-256-bit-secret-goes-right-here-please",
        "super-secret-key-that-nobody-knows-of-1",
        "0123456789abcdef0123456789abcdef",
        "secret" + STRONG,
        "abababababababababababababababababab",
    ],
)
def test_production_refuses_a_missing_short_or_well_known_secret_and_says_how_to_make_one(secret):
    (told,) = in_production(AUTH_SECRET=secret)

    assert told.startswith("AUTH_SECRET ")
    assert "secrets.token_urlsafe(48)" in told
    if secret:
        assert secret not in told


def test_production_refuses_to_be_without_a_shared_redis():
    assert in_production(REDIS_URL="") == [
        "REDIS_URL is needed in production: where is the Redis that all instances share?"
    ]


def test_production_refuses_every_weakness_at_once():
    found = in_production(
        AUTH_SECRET="", REDIS_URL="", CORS_ORIGINS="*", COOKIE_SAMESITE="none", PUBLIC_URL="http://auth.example.org"
    )

    assert sorted(mistake.split("=")[0].split(" ")[0] for mistake in found) == [
        "AUTH_SECRET", "COOKIE_SAMESITE", "CORS_ORIGINS", "REDIS_URL",
    ]  # fmt: skip


def test_same_site_none_is_fine_over_https():
    assert load({**PRODUCTION, "COOKIE_SAMESITE": "None"}).cookie_samesite == "none"


def test_a_well_known_secret_is_good_enough_to_develop_with():
    assert settings(AUTH_SECRET="changeme-changeme-changeme-changeme").secrets[0].startswith("changeme")


# Mail


@pytest.mark.parametrize(
    "url",
    ["mail.example.org", "http://mail.example.org", "smtp://", "smtp://u:p/w@host:587", "smtp://h?starttls=maybe"],
)
def test_an_smtp_url_that_is_none_is_refused_without_its_password(url):
    (mistake,) = mistakes(SMTP_URL=url, MAIL_FROM="no-reply@example.org")

    assert mistake.startswith("SMTP_URL must be an address such as smtp://user:password@mail.example.org:587")
    assert "u:p/w" not in mistake


@pytest.mark.parametrize(
    "sender", ["nobody", "a@b@", "Example <>", "a@example.org\r\nBcc: b@example.org", "@example.org"]
)
def test_a_sender_that_is_none_is_refused(sender):
    assert mistakes(MAIL_FROM=sender) == ["MAIL_FROM must be one address, such as: Example <no-reply@example.org>"]


def test_mail_needs_a_sender():
    assert mistakes(SMTP_URL="smtp://mail.example.org") == [
        "MAIL_FROM is missing: SMTP_URL sends mail, and from whom would it be?"
    ]


@pytest.mark.parametrize("expiry", ["30s", "8d"])
def test_one_time_tokens_live_from_a_minute_to_a_week(expiry):
    assert mistakes(ONE_TIME_TOKEN_EXPIRY=expiry) == ["ONE_TIME_TOKEN_EXPIRY must be from 60s to 7d."]


# Secrets


def test_no_secret_is_in_any_representation():
    given = {
        **PRODUCTION,
        "AUTH_SECRET_PREVIOUS": "Older-" + STRONG,
        "JWT_ALGORITHM": "HS256",
        "JWT_ACCESS_SECRET": "Access-" + STRONG,
        "METRICS_TOKEN": "Metrics-" + STRONG,
    }
    found = load(given)

    for text in (repr(found), str(found), f"{found}", repr(found.model_dump()), found.model_dump_json()):
        assert STRONG not in text
        assert "hunter2" not in text
    assert found.secrets == (STRONG, "Older-" + STRONG)


def test_a_token_for_metrics_must_be_long_fit_a_header_and_be_no_other_secret():
    assert mistakes(METRICS_TOKEN="short")[0].startswith("METRICS_TOKEN is too short: 32 bytes at least.")
    assert in_production(METRICS_TOKEN="change-me-change-me-change-me-change-me")[0].startswith(
        "METRICS_TOKEN looks like"
    )
    assert mistakes(METRICS_TOKEN="a token with blanks in it, of forty letters")[0].startswith(
        "METRICS_TOKEN has characters that no Authorization header may have."
    )
    assert in_production(METRICS_TOKEN=STRONG)[0].startswith("METRICS_TOKEN is the same as AUTH_SECRET")
    assert load({**PRODUCTION, "METRICS_TOKEN": "Metrics-" + STRONG}).metrics_token.get_secret_value().endswith(STRONG)


def test_no_mistake_repeats_a_secret():
    found = in_production(
        AUTH_SECRET="hunter2-short",
        AUTH_SECRET_PREVIOUS="hunter2",
        REDIS_URL="http://:hunter2@redis",
        JWT_ALGORITHM="HS256",
        JWT_ACCESS_SECRET="hunter2-too",
        METRICS_TOKEN="hunter2, too",
    )

    assert len(found) == 6
    assert "hunter2" not in "\n".join(found)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        settings().port = 1


# The development secret


def test_the_development_secret_is_made_once_and_for_its_owner_only(tmp_path):
    first, second = load({}, var=tmp_path / "var"), load({}, var=tmp_path / "var")

    assert first.secrets == second.secrets
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "var" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


def test_starts_that_race_agree_on_the_development_secret(tmp_path):
    show = (
        "import pathlib, sys; from service.settings import load; sys.stdin.readline();"
        "print(load({}, var=pathlib.Path(sys.argv[1])).secrets[0])"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", show, tmp_path / "var"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for start in starts:
        assert start.stdin
        start.stdin.write("\n")
        start.stdin.flush()

    secrets = {start.communicate(timeout=60)[0] for start in starts}

    assert len(secrets) == 1
    assert len(secrets.pop().strip()) >= 32
    assert os.listdir(tmp_path / "var") == ["secret"]


def test_an_empty_secret_file_is_told_and_not_used(tmp_path):
    (tmp_path / "secret").write_text("")

    with pytest.raises(SettingsError, match="holds no secret; remove it"):
        load({}, var=tmp_path)


def test_production_makes_no_secret(tmp_path):
    with pytest.raises(SettingsError):
        load({**PRODUCTION, "AUTH_SECRET": ""}, var=tmp_path / "var")

    assert not Path(tmp_path / "var").exists()


def test_platforms_have_a_word_of_their_own_for_workers():
    assert settings(WEB_CONCURRENCY="3").workers == 3
    assert settings(WEB_CONCURRENCY="3", WORKERS="2").workers == 2
    assert settings().workers == 1
    with pytest.raises(SettingsError, match="WEB_CONCURRENCY must be a whole number"):
        settings(WEB_CONCURRENCY="auto")
    assert settings(WEB_CONCURRENCY="auto", WORKERS="2").workers == 2
