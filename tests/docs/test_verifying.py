"""The programs under docs/verifying: each is started as it is and shown the tokens of a real service."""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from service.admin.administration import COMMAND_LINE
from tests.conftest import free_port, in_ci
from tests.deploy.conftest import running
from tests.npm import install

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "docs" / "verifying"
LANGUAGES = ["express", "fastapi", "go", "aiohttp"]
ISSUER = "http://localhost:8000"
TOKENS = {"X-Auth-Mode": "token"}


def without(what: str) -> None:
    (pytest.fail if in_ci() else pytest.skip)(f"needs {what}")


def express(home: Path) -> list[str]:
    install(PROGRAMS / "express")
    (home / "node_modules").symlink_to(PROGRAMS / "express" / "node_modules")
    return ["node", "server.js"]


def fastapi(home: Path) -> list[str]:
    found = subprocess.run([sys.executable, "-c", "import fastapi, uvicorn"], capture_output=True, timeout=60)
    if found.returncode:
        without("fastapi and uvicorn: make .venv/.e2e")
    return [sys.executable, "-m", "uvicorn", "app:app", "--port", "{port}"]


def go(home: Path) -> list[str]:
    program = shutil.which("go")
    if program is None:
        without("go: apt install golang-go")
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    built = subprocess.run([program, "build", "-o", "api", "."], cwd=home, env=env, capture_output=True, timeout=250)
    assert built.returncode == 0, built.stderr.decode()
    return ["./api"]


def plain_aiohttp(home: Path) -> list[str]:
    return [sys.executable, "app.py"]


# How a program is made ready in a folder that has its files, and what starts it there.
START: dict[str, Callable[[Path], list[str]]] = {
    "express": express,
    "fastapi": fastapi,
    "go": go,
    "aiohttp": plain_aiohttp,
}
FRESH = {"go": ("300 * time.Second", "time.Millisecond")}
COOL_DOWN = {"go": ("coolDown = 30 * time.Second", "coolDown = 0 * time.Second")}


@dataclass
class Jwks:
    """What stands between a program and the keys of the service: it counts, and can be away."""

    url: str = ""
    asked: int = 0
    away: bool = False


@pytest.fixture
async def connecting(connecting_for_real):
    return connecting_for_real


@pytest.fixture
async def gatepost(serving, assembling):
    """`await gatepost(JWT_ALGORITHM="RS256")`: a service, a browser for it, and the address of its keys."""
    runners = []

    async def start(**changes: str) -> "Gatepost":
        its = await assembling(**changes)
        jwks = Jwks()

        async def keys(_: web.Request) -> web.Response:
            jwks.asked += 1
            return web.Response(status=503) if jwks.away else web.json_response(its.keys.jwks())

        app = web.Application()
        app.router.add_get("/jwks.json", keys)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        jwks.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
        return Gatepost(its, await serving(its), jwks)

    yield start
    for runner in runners:
        await runner.cleanup()


@dataclass
class Gatepost:
    its: object
    browser: object
    jwks: Jwks
    people: dict[str, dict] = field(default_factory=dict)

    async def token(self, email: str = "ada@example.org", *roles: str) -> str:
        signed = (await self.browser.register(email, headers=TOKENS)).json
        if roles:
            await self.its.administration.change(COMMAND_LINE, signed["user"]["id"], roles=["user", *roles])
            signed |= (await self.browser.login(email, headers=TOKENS)).json
        self.people[email] = signed
        return signed["accessToken"]

    def signed(self, token: str, header: dict | None = None, **claims: object) -> str:
        """A token like this one but for these, signed by the service's own key; a claim that is None is left out."""
        key = self.its.keys.signing()
        said = {**jwt.decode(token, options={"verify_signature": False}), **claims}
        head = {**jwt.get_unverified_header(token), **(header or {})}
        parts = [segment({name: value for name, value in part.items() if value is not None}) for part in (head, said)]
        return ".".join((*parts, encoded(key.sign(".".join(parts).encode()))))


def segment(part: object) -> str:
    return encoded(json.dumps(part).encode())


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Api:
    """A program that runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))

    async def get(self, path: str, token: str | None = None, shown: str = "Bearer {}") -> tuple[int, dict, dict]:
        headers = {"Authorization": shown.format(token)} if token is not None else {}
        async with self.http.get(self.url + path, headers=headers) as answer:
            body = await answer.json(content_type=None) if "json" in answer.content_type else {}
            return answer.status, dict(answer.headers), body

    async def status(self, token: str, path: str = "/orders") -> int:
        return (await self.get(path, token))[0]


@pytest.fixture(params=LANGUAGES)
async def program(request, tmp_path) -> AsyncIterator[Callable]:
    """`await program(gatepost)`: the API, with its constants as they are, or always `due` for new keys."""
    with contextlib.ExitStack() as stack:
        opened: list[Api] = []

        async def start(its: Gatepost, *, impatient: bool = False, stale: bool = False) -> Api:
            home, port, language = tmp_path / "program", free_port(), request.param
            home.mkdir()
            for file in (PROGRAMS / language).iterdir():
                if file.is_file():
                    text = file.read_text()
                    if file.suffix in (".py", ".js", ".go"):
                        if impatient:
                            text = replaced(text, *COOL_DOWN.get(language, ("COOL_DOWN = 30", "COOL_DOWN = 0")))
                        if stale:
                            text = replaced(text, *FRESH.get(language, ("FRESH = 300", "FRESH = 0.001")))
                    (home / file.name).write_text(text)
            command = [part.format(port=port) for part in await asyncio.to_thread(START[language], home)]
            env = {"PATH": os.environ["PATH"], "PORT": str(port), "GATEPOST_JWKS": its.jwks.url, **python_path()}
            stack.enter_context(running(command, port, tmp_path / "log", cwd=home, env=env))
            opened.append(Api(f"http://127.0.0.1:{port}"))
            return opened[-1]

        yield start
        for api in opened:
            await api.http.close()


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is not there once"
    return text.replace(old, new)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_good_token_is_let_in_and_a_role_is_asked_for(gatepost, program, algorithm):
    its = await gatepost(JWT_ALGORITHM=algorithm)
    api = await program(its)
    ada, root = await its.token(), await its.token("root@example.org", "admin")

    for token, email, reports in ((ada, "ada@example.org", 403), (root, "root@example.org", 200)):
        status, _, body = await api.get("/orders", token)
        assert (status, body["user"]) == (200, its.people[email]["user"]["id"])
        assert await api.status(token, "/reports") == reports
    assert its.jwks.asked == 1


async def test_everything_else_is_refused(gatepost, program):
    its = await gatepost()
    api = await program(its)
    good = await its.token()
    head, body, signature = good.split(".")
    now = jwt.decode(good, options={"verify_signature": False})["iat"]
    public = its.its.keys.signing().public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = jwt.get_unverified_header(good)["kid"]
    stranger = ec.generate_private_key(ec.SECP256R1())
    brought = ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    claims = jwt.decode(good, options={"verify_signature": False})
    typ = {"typ": "at+jwt", "kid": kid}
    refused = {
        "expired": its.signed(good, iat=now - 900, exp=now - 11),
        "another audience": its.signed(good, aud="https://other.example.org"),
        "another issuer": its.signed(good, iss="https://other.example.org"),
        "an ID token": its.signed(good, {"typ": "JWT"}),
        "no typ": its.signed(good, {"typ": None}),
        "another type": its.signed(good, type="refresh"),
        **{
            f"no {name}": its.signed(good, **{name: None}) for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp")
        },
        "tampered": f"{head}.{segment({**claims, 'roles': ['admin']})}.{signature}",
        "no signature": f"{head}.{body}.",
        "half a signature": f"{head}.{body}.{signature[:43]}",
        "zeros": f"{head}.{body}.{encoded(bytes(64))}",
        "none": f"{segment({'alg': 'none', **typ})}.{body}.",
        "None": f"{segment({'alg': 'None', **typ})}.{body}.{signature}",
        "HS256 with the public key": hs256(claims, public, typ),
        "another algorithm of the key": its.signed(good, {"alg": "ES384"}),
        "a stranger's key": jwt.encode(claims, stranger, "ES256", headers=typ),
        "a stranger's key, brought along": jwt.encode(claims, stranger, "ES256", headers={**typ, "jwk": brought}),
        "an unknown key": its.signed(good, {"kid": "unknown"}),
        "a kid that is no text": its.signed(good, {"kid": ["x"]}),
        "a critical extension": its.signed(good, {"crit": ["x"], "x": 1}),
        "a deep header": f"{encoded(b'[' * 3000)}.{body}.{signature}",
        "no token": "x",
        "dots": "..",
        "a refresh token": its.people["ada@example.org"]["refreshToken"],
    }

    assert await api.status(good) == 200
    assert await api.status(its.signed(good, iat=now - 900, exp=now - 1)) == 200  # clocks may be 10 s apart
    for why, token in refused.items():
        status, headers, _ = await api.get("/orders", token)
        assert (why, status) == (why, 401)
        assert headers["WWW-Authenticate"] == 'Bearer error="invalid_token"', why
    for shown in ("Basic {}", "Bearer", "{}"):
        status, headers, _ = await api.get("/orders", good, shown)
        assert (shown, status) == (shown, 401)
    assert (await api.get("/orders"))[1]["WWW-Authenticate"] == "Bearer"
    assert await api.status(good) == 200


def hs256(claims: dict, secret: bytes, header: dict) -> str:
    """Signed with the public key as if it were a secret; PyJWT itself would not do it."""
    message = f"{segment({'alg': 'HS256', **header})}.{segment(claims)}"
    return f"{message}.{encoded(hmac.digest(secret, message.encode(), 'sha256'))}"


async def test_a_new_key_is_followed_without_a_restart(gatepost, program):
    its = await gatepost()
    api = await program(its, impatient=True)
    before = await its.token()
    assert await api.status(before) == 200

    await its.its.keys.retire(jwt.get_unverified_header(before)["kid"])
    after = await its.token("eve@example.org")

    assert jwt.get_unverified_header(after)["kid"] != jwt.get_unverified_header(before)["kid"]
    assert await api.status(after) == 200
    assert await api.status(before) == 401


async def test_made_up_keys_make_no_storm_of_requests(gatepost, program):
    its = await gatepost()
    api = await program(its)
    good = await its.token()
    assert await api.status(good) == 200

    made_up = [its.signed(good, {"kid": secrets.token_urlsafe(8)}) for _ in range(30)]
    answers = await asyncio.gather(*map(api.status, made_up))

    assert set(answers) == {401}
    assert its.jwks.asked == 1
    assert await api.status(good) == 200


async def test_while_the_keys_are_away_those_that_are_known_serve(gatepost, program):
    its = await gatepost()
    api = await program(its, stale=True)
    good = await its.token()
    its.jwks.away = True
    status, headers, _ = await api.get("/orders", good)
    assert (status, headers["Retry-After"]) == (503, "1")

    its.jwks.away = False
    while await api.status(good) == 503:
        await asyncio.sleep(0.2)
    assert await api.status(good) == 200
    asked = its.jwks.asked
    its.jwks.away = True

    while its.jwks.asked == asked:
        assert await api.status(good) == 200
    assert await api.status(good) == 200
    assert await api.status(its.signed(good, aud="other")) == 401


async def test_a_sign_out_is_not_seen_before_the_token_expires_but_the_service_knows(gatepost, program):
    its = await gatepost()
    api = await program(its)
    good = await its.token()
    held = {"Authorization": f"Bearer {good}"}
    assert (await its.browser("POST", "/api/auth/logout", headers=held, csrf=None)).status == 204

    assert await api.status(good) == 200
    assert (await its.browser("GET", "/api/auth/verify", headers=held)).status == 401


def test_the_go_program_is_formatted_and_vetted(tmp_path):
    for tool in ("go", "gofmt"):
        if not shutil.which(tool):
            without(f"{tool}: apt install golang-go")
    env = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    for command in (["gofmt", "-l", "."], ["go", "vet", "./..."]):
        done = subprocess.run(command, cwd=PROGRAMS / "go", env=env, capture_output=True, text=True, timeout=250)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
