"""The doctor: what is wrong with an installation, and what to do about it, in words that an operator can act on.

Settings that contradict each other stop every start and are told there. What is looked at here needs the world: Redis,
the keys in it, the browsers between the app and this service, the proxies, the providers.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from service.errors import ProviderUnavailable, StoreUnavailable
from service.oauth.provider import callback_address
from service.oauth.states import Flow
from service.parts import Parts
from service.settings import LOOPBACK, Settings, origin_of
from service.store import Condition, trouble

_SLOW = 0.020  # seconds a round trip to Redis may take
_APART = 2.0  # seconds that clocks may differ before it is worth a word


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where something is wrong."""

    level: Level
    about: str
    told: str
    remedy: str = ""


async def examine(its: Parts) -> list[Finding]:
    """Look at everything."""
    return [finding async for finding in _everything(its)]


async def _everything(its: Parts) -> AsyncIterator[Finding]:
    reachable = True
    async for finding in _redis(its):
        reachable = reachable and not (finding.level is Level.ERROR and finding.about == "redis")
        yield finding
    if reachable:
        yield await _keys(its)
        yield await _lookups(its)
    for origin in its.settings.cors_origins:
        yield cookies_between(its.settings, origin)
    yield _transport(its.settings)
    yield _proxies(its.settings)
    yield await _mail(its.settings)
    if reachable:
        yield await _parked(its)
    for name in its.oauth.providers:
        yield await _provider(its, name, reachable)


async def _redis(its: Parts) -> AsyncIterator[Finding]:
    try:
        local, remote = time.time(), await its.store.time()
    except StoreUnavailable as away:
        url = its.settings.redis_url.get_secret_value() if its.settings.redis_url else ""
        told = trouble(away, url) if url else "The private Redis does not answer."
        remedy = "Requests get 503 until it answers; README.md says how REDIS_URL is written."
        if url.startswith(("redis://", "rediss://")):  # it does not know those of Sentinels, Clusters and sockets
            remedy = "`redis-cli -u` takes the same URL."
        yield Finding(Level.ERROR, "redis", told, remedy)
        return
    condition = await its.store.condition()
    yield Finding(Level.OK, "redis", f"answers, version {condition.version}")
    for danger in condition.dangers:
        level = Level.ERROR if its.settings.production and not its.settings.redis_allow_unsafe else Level.WARNING
        yield Finding(level, "redis persistence", danger, "config/redis.conf has the right lines")
    if condition.appendonly and condition.maxmemory_policy == "noeviction":
        yield Finding(Level.OK, "redis persistence", "AOF is on, nothing is evicted")
    yield _role(condition, its.settings.redis_wait_replicas)
    yield _clock(remote - local)
    yield await _latency(its)


def _role(condition: Condition, waits_for: int) -> Finding:
    if condition.role is None:
        return Finding(Level.WARNING, "redis role", "Redis does not tell its role", "Make sure that it is a master.")
    if condition.role != "master":
        told = "this Redis is a replica: it takes no writes"
        return Finding(Level.ERROR, "redis role", told, "Point REDIS_URL at the master.")
    if condition.replicas < waits_for:
        return Finding(
            Level.ERROR,
            "redis role",
            f"{condition.replicas} replicas are connected, REDIS_WAIT_REPLICAS waits for {waits_for}",
            "Sign-outs and password changes answer 503 until then: connect replicas or lower the number.",
        )
    return Finding(Level.OK, "redis role", f"master, {condition.replicas} replicas")


def _clock(apart: float) -> Finding:
    if abs(apart) > _APART:
        return Finding(
            Level.WARNING,
            "clock",
            f"this machine and Redis are {abs(apart):.1f} s apart; Redis' clock counts here, yours in your own checks",
            "Let both follow NTP.",
        )
    return Finding(Level.OK, "clock", f"{abs(apart) * 1000:.0f} ms from Redis")


async def _latency(its: Parts) -> Finding:
    spans = []
    for _ in range(20):
        started = time.perf_counter()
        await its.store.time()
        spans.append(time.perf_counter() - started)
    median = statistics.median(spans)
    if median > _SLOW:
        return Finding(
            Level.WARNING,
            "redis latency",
            f"a round trip takes {median * 1000:.1f} ms, and every request waits for one at least",
            "Put Redis into the same network, and look at `redis-cli --latency` and SLOWLOG.",
        )
    return Finding(Level.OK, "redis latency", f"{median * 1000:.2f} ms a round trip")


async def _keys(its: Parts) -> Finding:
    try:
        await its.keys.refresh()
        key = its.keys.signing()
    except StoreUnavailable:
        return Finding(
            Level.ERROR,
            "keys",
            "the signing keys in Redis cannot be opened with AUTH_SECRET",
            "Put the AUTH_SECRET of before into AUTH_SECRET_PREVIOUS; a start seals them anew.",
        )
    return Finding(Level.OK, "keys", f"{key.algorithm} signs, kid {key.kid}")


async def _lookups(its: Parts) -> Finding:
    try:
        await its.lookups.email("doctor@example.org")
    except StoreUnavailable:
        return Finding(
            Level.ERROR,
            "lookup key",
            "the key of the lookups in Redis cannot be opened with AUTH_SECRET: nobody can sign in",
            "Put the AUTH_SECRET of before into AUTH_SECRET_PREVIOUS; a start seals it anew.",
        )
    return Finding(Level.OK, "lookup key", "opens")


def cookies_between(settings: Settings, origin: str) -> Finding:
    """Whether browsers carry our cookies between an app at this origin and us (RFC 6265bis, section 5.2)."""
    about = f"cookies for {origin}"
    if same_site(origin, settings.public_url):
        return Finding(Level.OK, about, "same site: SameSite=Lax cookies are sent")
    if settings.cookie_samesite != "none":
        return Finding(
            Level.ERROR,
            about,
            f"{origin} and {origin_of(settings.public_url)} are different sites, so browsers keep "
            f"SameSite={settings.cookie_samesite.capitalize()} cookies back: every call from there is anonymous",
            "Serve both below one domain (app.example.org and auth.example.org, both https); or set "
            "COOKIE_SAMESITE=none, which works only where browsers still allow third-party cookies; or use "
            "X-Auth-Mode: token there.",
        )
    return Finding(
        Level.WARNING,
        about,
        "different sites: cookies are third-party there, and more and more browsers block those",
        "Serve both below one domain, or use X-Auth-Mode: token there.",
    )


def same_site(one: str, other: str) -> bool:
    """Whether two addresses belong to one site: the same scheme and a common domain of two labels or more.

    Which domains are sold to the public (`co.uk`, `github.io`) is a list that changes weekly and is not here: two
    customers of one such domain are taken for one site.
    """
    left, right = urlsplit(one), urlsplit(other)
    if left.scheme != right.scheme:
        return False
    if left.hostname == right.hostname:
        return True
    tails = [(host or "").split(".")[-2:] for host in (left.hostname, right.hostname)]
    named = all(len(tail) == 2 and not tail[-1].isdigit() for tail in tails)
    return named and tails[0] == tails[1]


def _transport(settings: Settings) -> Finding:
    if settings.cookie_secure:
        return Finding(Level.OK, "https", "cookies are Secure and carry their prefixes")
    if urlsplit(settings.public_url).hostname in LOOPBACK:
        return Finding(Level.OK, "https", "PUBLIC_URL is not https, as usual on one's own machine")
    return Finding(
        Level.WARNING,
        "https",
        "PUBLIC_URL is not https: anybody on the way can read passwords and cookies",
        "Put TLS in front and set PUBLIC_URL to the https:// address.",
    )


def _proxies(settings: Settings) -> Finding:
    if settings.trusted_proxies:
        return Finding(Level.OK, "proxies", f"trusted: {', '.join(map(str, settings.trusted_proxies))}")
    return Finding(
        Level.WARNING if settings.production else Level.OK,
        "proxies",
        "no proxy is trusted: behind one, all people would share its address, and one rate limit",
        "Set TRUSTED_PROXIES to the network of your load balancer." if settings.production else "",
    )


async def _mail(settings: Settings) -> Finding:
    if settings.smtp_url is None:
        return Finding(
            Level.WARNING if settings.production else Level.OK,
            "mail",
            "SMTP_URL is not set: no mail leaves" + ("" if settings.production else "; /dev/mail shows what would"),
            "Without mail nobody can verify an email or reset a password: set SMTP_URL." if settings.production else "",
        )
    parts = urlsplit(settings.smtp_url.get_secret_value())
    port = parts.port or (465 if parts.scheme == "smtps" else 587)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return Finding(
            Level.ERROR,
            "mail",
            f"{parts.hostname}:{port} takes no connection; mails wait in the outbox, and are given up after some hours",
            "Is the server of SMTP_URL running, and does a firewall let this machine reach it?",
        )
    writer.close()
    return Finding(Level.OK, "mail", f"{parts.hostname}:{port} takes connections")


async def _parked(its: Parts) -> Finding:
    try:
        waiting, count = await its.outbox.counts()
        latest = await its.outbox.parked(most=1) if count else []
    except StoreUnavailable:
        told = "Redis does not say whether mails were given up"
        return Finding(Level.WARNING, "parked mail", told, "Look again when what is said of Redis above is mended.")
    if not count:
        return Finding(Level.OK, "parked mail", f"none; {waiting} in the outbox")
    why = f"; the latest: {latest[0].kind}, {latest[0].reason}" if latest else ""
    return Finding(
        Level.WARNING,
        "parked mail",
        f"{count} mails were given up{why}",
        "`python -m service mail parked` shows them. Mend the reason, then `mail retry --all`, or `mail drop ID`.",
    )


async def _provider(its: Parts, name: str, reachable: bool) -> Finding:
    provider = its.oauth.provider(name)
    about = f"provider {name}"
    expected = callback_address(its.settings, name, None)
    told = f"redirect URI to register there: {provider.redirect_uri}"
    if provider.redirect_uri != expected:
        return Finding(
            Level.WARNING,
            about,
            f"{told}, which is not our own callback {expected}",
            "That is right only where something passes the callback on to this service.",
        )
    if reachable:
        try:
            async with asyncio.timeout(6):
                await its.oauth.leave(Flow(name, "doctor", its.redirects.home))
        except (ProviderUnavailable, TimeoutError):
            return Finding(
                Level.ERROR,
                about,
                "its discovery document cannot be had, or names another issuer",
                "Is the issuer right to the letter, and can this machine reach it? The log line oauth.* says more.",
            )
    return Finding(Level.OK, about, told)
