"""What is compared: the service as it is run in production, the bare handler, and what others would pick.

All of them answer to the same paths, on one worker each and on one Redis, in a database of their own. Before a target
is timed it must show that it does what it claims to do (`check`).
"""

import http.client
import json
import secrets
import shutil
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import people
from bench.ground import SECRET, BenchError, environment, free_port, running, wait_for
from bench.load import CONNECTIONS, Ask
from bench.people import PASSWORD
from service.limits import policies
from service.settings import NAMES, ROOT

VERIFY, ME, LOGIN, REFRESH, LOGOUT = (f"/api/auth/{name}" for name in ("verify", "me", "login", "refresh", "logout"))
FOLDER = ROOT / "bench" / "peers"
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
LIMIT = 5  # log-ins in 15 minutes, where limits are not lifted
UNLIMITED = 999_999
TOKENS = 1000
TRACKED = "REVOCATION" in NAMES  # whether there are two ways of revocation

# Done until proven otherwise; a target is checked for each of these that it claims.
REVOKES, ROTATES, FAMILIES, LIMITS = "revocation", "rotation", "families", "limits"


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Held:
    """What somebody who has signed in holds."""

    access: str
    refresh: str = ""


@dataclass
class Target:
    """Something that listens."""

    name: str
    port: int
    pid: int
    home: Path
    claims: frozenset[str] = frozenset()
    tokens: list[Held] = field(default_factory=list)

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> Answer:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"X-Auth-Mode": "token"} | ({"Authorization": f"Bearer {token}"} if token else {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.headers))
        finally:
            connection.close()

    def log_in(self, email: str, password: str = PASSWORD) -> Held:
        answer = self.call("POST", LOGIN, {"email": email, "password": password})
        if answer.status != 200:
            raise BenchError(f"{self.name}: a log-in was answered {answer.status} {answer.body[:500]!r}")
        return Held(answer.content["accessToken"], answer.content.get("refreshToken", ""))

    def sign_in(self, count: int) -> list[Held]:
        """A new session for each of so many people."""
        with ThreadPoolExecutor(8) as some:
            return list(some.map(self.log_in, map(people.email, range(count))))

    def lines(self, name: str, lines: list[str]) -> Path:
        path = self.home / f"{self.port}-{name}"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    # What it can be asked

    def verifying(self) -> Ask:
        return Ask("bearer", VERIFY, self.lines("tokens", [held.access for held in self.tokens]))

    def asking_me(self) -> Ask:
        return Ask("bearer", ME, self.lines("tokens", [held.access for held in self.tokens]))

    def refreshing(self) -> Ask:
        """With sessions of now: whoever was answered last time did not get to keep the token."""
        held = self.sign_in(CONNECTIONS)
        return Ask("refresh", REFRESH, self.lines("refresh", [one.refresh for one in held]))

    def logging_in(self, count: int = 100) -> Ask:
        bodies = [json.dumps({"email": people.email(n), "password": PASSWORD}) for n in range(count)]
        return Ask("body", LOGIN, self.lines("login", bodies))

    def refused_log_in(self) -> Ask:
        body = json.dumps({"email": people.email(0), "password": PASSWORD})
        return Ask("body", LOGIN, self.lines("refused", [body]), refused=True)

    def refused(self, name: str, tokens: list[str]) -> Ask:
        return Ask("bearer", VERIFY, self.lines(name, tokens), refused=True)


@dataclass
class Ours(Target):
    """An instance of the service, with the settings it was started with."""

    settings: Mapping[str, str] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)

    def sign_in(self, count: int) -> list[Held]:
        found = people.sign_in(self.settings, count)
        self.expired = [person.expired for person in found]
        return [Held(person.access, person.refresh) for person in found]


def settings_of_ours(url: str, log: bool, **changed: str) -> dict[str, str]:
    """Production, with limits out of the way (they are asked and counted all the same, but refuse nobody)."""
    wanted = {
        "ENVIRONMENT": "production",
        "HOST": "127.0.0.1",
        "PUBLIC_URL": "http://127.0.0.1:8000",  # the same issuer for all, whatever their ports
        "DRAIN_SECONDS": "0",
        "JWT_ACCESS_EXPIRY": "6h",  # no token expires while it is asked about
        "LOG_LEVEL": "info" if log else "error",
        "RATE_LIMITS": ",".join(f"{name}={UNLIMITED}/1m" for name in sorted(policies.LIMITS)),
    }
    return environment(url, **{**wanted, **changed})


@contextmanager
def ours(home: Path, name: str, url: str, log: bool = False, **changed: str) -> Iterator[Ours]:
    """An instance that is ready; its log goes to a file, as JSON."""
    port = free_port()
    settings = settings_of_ours(url, log, PORT=str(port), **changed)
    with running(home, sys.executable, "-m", "service", env=settings) as process:
        wait_for(port, "/ready")
        limits = {LIMITS} if "RATE_LIMITS" in changed else set()
        claims = frozenset({REVOKES, ROTATES, FAMILIES} | limits)
        yield Ours(name, port, process.pid, home, claims, settings=settings)


@contextmanager
def bare(home: Path, sizes: set[int]) -> Iterator[Target]:
    """The yardstick, with answers of these sizes."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", str(port), *map(str, sorted(sizes))]
    with running(home, *command, env=environment("")) as process:
        wait_for(port, f"/{min(sizes)}")
        yield Target("a bare aiohttp handler", port, process.pid, home)


@dataclass(frozen=True)
class Peer:
    """Something else that does such work, how it is started, and how far it goes."""

    title: str
    folder: str
    command: tuple[str, ...]
    claims: frozenset[str]
    does: str
    by_form: bool = False  # a log-in is a form, as OAuth 2.0 once had it


_NODE = ("node", "server.js")
PEERS = {
    "fastify": Peer(
        "Fastify",
        "fastify",
        _NODE,
        frozenset({REVOKES, ROTATES, LIMITS}),
        "@fastify/jwt (HS256), @fastify/redis, @fastify/rate-limit. A check is the signature and an `EXISTS` of the "
        "session. Refresh tokens are taken once; reuse is refused, but ends nothing (no families); a refresh reads no "
        "user. Limits are fixed windows, for each address.",
    ),
    "express": Peer(
        "Express",
        "express",
        _NODE,
        frozenset({REVOKES, ROTATES, LIMITS}),
        "As the usual tutorial has it: jsonwebtoken (HS256) for both tokens, ioredis, express-rate-limit with "
        "rate-limit-redis. A check is the signature and a `GET` on a blacklist, so what Redis forgets is let in. No "
        "families; two refreshes at once may both succeed; a refresh reads no user.",
    ),
    "fastapi-users": Peer(
        "FastAPI-Users",
        "fastapi_users",
        (str(PEERS_PYTHON), "server.py"),
        frozenset({REVOKES}),
        "Its Redis strategy: tokens are random, and every check reads the token and the user. uvicorn with uvloop and "
        "httptools, one worker. It has no refresh tokens and no limits.",
        by_form=True,
    ),
    "aiohttp": Peer(
        "aiohttp, the obvious way",
        "plain_aiohttp",
        (sys.executable, "server.py"),
        frozenset({REVOKES, ROTATES, LIMITS}),
        "redis-py with its pool, PyJWT (HS256) for each request, uvloop. The same work as with Fastify: `EXISTS` of "
        "the session, refresh tokens taken once, no families, no user read at a refresh; `INCR` and `EXPIRE` for "
        "limits.",
    ),
}


@dataclass
class Other(Target):
    """A peer that runs."""

    by_form: bool = False

    def log_in(self, email: str, password: str = PASSWORD) -> Held:
        if not self.by_form:
            return super().log_in(email, password)
        body = urllib.parse.urlencode({"username": email, "password": password}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{LOGIN}", body, timeout=60) as answer:
            return Held(json.loads(answer.read())["access_token"])

    def logging_in(self, count: int = 100) -> Ask:
        if not self.by_form:
            return super().logging_in(count)
        some = [{"username": people.email(number), "password": PASSWORD} for number in range(count)]
        return Ask("form", LOGIN, self.lines("login", list(map(urllib.parse.urlencode, some))))

    def register(self, count: int) -> None:
        """Make accounts."""

        def one(number: int) -> None:
            body = {"email": people.email(number), "password": PASSWORD}
            _expect(self, self.call("POST", "/api/auth/register", body), 201)

        with ThreadPoolExecutor(8) as some:
            list(some.map(one, range(count)))


def peer_settings(url: str, port: int, limit: int = UNLIMITED) -> dict[str, str]:
    return environment(url, PORT=str(port), SECRET=SECRET, LOGIN_LIMIT=str(limit), NODE_ENV="production")


@contextmanager
def other(home: Path, peer: Peer, url: str, limit: int = UNLIMITED, cheap: bool = True) -> Iterator[Other]:
    """A peer that is ready; `cheap` hashes let a thousand people sign in at once, where hashing is not measured."""
    port = free_port()
    settings = peer_settings(url, port, limit) | ({"HASH_ROUNDS": "4"} if cheap else {})
    with running(home, *peer.command, env=settings, cwd=FOLDER / peer.folder) as process:
        wait_for(port, "/ready")
        yield Other(peer.title, port, process.pid, home, peer.claims, by_form=peer.by_form)


def check(target: Target) -> dict[str, int]:
    """Make sure that it does what it claims; the bytes of its answers. Raises `BenchError`."""
    sizes = _check_answers(target)
    if REVOKES in target.claims:
        held = target.log_in(people.email(0))
        _expect(target, target.call("POST", LOGOUT, token=held.access), 200, 204)
        _expect(target, target.call("GET", VERIFY, token=held.access), 401)
    if ROTATES in target.claims:
        sizes["refresh"] = _check_rotation(target)
    return sizes


def _check_answers(target: Target) -> dict[str, int]:
    held = target.log_in(people.email(0))
    verified = _expect(target, target.call("GET", VERIFY, token=held.access), 200)
    me = _expect(target, target.call("GET", ME, token=held.access), 200)
    if verified.content.get("active") is not True or not verified.content.get("sub"):
        raise BenchError(f"{target.name}: verify said {verified.body!r}")
    user = me.content.get("user", me.content)
    if user["email"] != people.email(0) or user["id"] != verified.content["sub"]:
        raise BenchError(f"{target.name}: me said {me.body!r}")
    garbage = _expect(target, target.call("GET", VERIFY, token=garbage_token(held.access)), 401)
    _expect(target, target.call("GET", VERIFY), 401)
    sizes = {"verify": len(verified.body), "me": len(me.body), "garbage": len(garbage.body)}
    if held.access.count(".") == 2:
        refusal = _expect(target, target.call("GET", VERIFY, token=forged(held.access)), 401)
        sizes["forged"] = len(refusal.body)
    if isinstance(target, Ours):
        refusal = _expect(target, target.call("GET", VERIFY, token=target.expired[0]), 401)
        if refusal.content["code"] != "TOKEN_EXPIRED":
            raise BenchError(f"an expired token was refused as {refusal.content}")
        sizes["expired"] = len(refusal.body)
    return sizes


def _check_rotation(target: Target) -> int:
    first = newest = target.log_in(people.email(0)).refresh
    for _ in range(12):  # more than are remembered: a leeway for parallel tabs is over then
        answer = _expect(target, target.call("POST", REFRESH, {"refreshToken": newest}), 200)
        newest = answer.content["refreshToken"]
        _expect(target, target.call("GET", VERIFY, token=answer.content["accessToken"]), 200)
    _expect(target, target.call("POST", REFRESH, {"refreshToken": first}), 401)
    if FAMILIES in target.claims:  # the stolen token ended the session
        _expect(target, target.call("POST", REFRESH, {"refreshToken": newest}), 401)
        _expect(target, target.call("GET", VERIFY, token=answer.content["accessToken"]), 401)
    return len(answer.body)


def check_limit(target: Target) -> int:
    """Make sure that the call after the last allowed one is refused; the bytes of the refusal."""
    body = {"email": people.email(0), "password": PASSWORD}
    for _ in range(LIMIT):
        _expect(target, target.call("POST", LOGIN, body), 200)
    refusal = _expect(target, target.call("POST", LOGIN, body), 429)
    if "retry-after" not in {name.lower() for name in refusal.headers}:
        raise BenchError(f"{target.name}: a 429 without Retry-After")
    return len(refusal.body)


def _expect(target: Target, answer: Answer, *statuses: int) -> Answer:
    if answer.status not in statuses:
        told = answer.body[:500].decode(errors="replace")
        raise BenchError(f"{target.name} answered {answer.status} and not {statuses[0]}: {told}")
    return answer


def garbage_token(like: str) -> str:
    """Something of the same length that nobody has issued."""
    return ".".join(secrets.token_urlsafe(len(part))[: len(part)] for part in like.split("."))


def forged(token: str) -> str:
    """The same token with a signature that somebody has made up."""
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{garbage_token(signature)}"


def need_peers(names: tuple[str, ...]) -> None:
    """Raise `BenchError` for a peer that is not installed."""
    for name in names:
        peer = PEERS[name]
        modules = FOLDER / peer.folder / "node_modules"
        if peer.command == _NODE:
            needs("node")
        if (peer.command == _NODE and not modules.is_dir()) or not shutil.which(peer.command[0]):
            raise BenchError(f"{peer.title} is not installed: `make bench` does that. Or leave it out with --peers")


def needs(*tools: str) -> None:
    """Raise `BenchError` for what is missing, and say where it comes from."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        raise BenchError(f"{', '.join(missing)} is missing. On Debian and Ubuntu: apt install {' '.join(missing)}")
