"""A GitHub of our own on loopback, with the rules of the real one (docs.github.com, "Authorizing OAuth apps").

Codes work once and for ten minutes, a redirect URI must be the registered one, refusals of the token endpoint are 200
with `error`, a private email is `null` in the profile, and the list of emails needs its scope.
"""

import base64
import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.oauth.mischief import Mischief

CODES_LAST = 600  # seconds
CLIENT_ID, CLIENT_SECRET = "Iv1.0123456789abcdef", "a secret of the GitHub app, 81c0"

_FORM = """<!doctype html><title>Authorize</title><form method="post">
<label>Login <input name="login" required></label>
<button name="authorize" value="1">Authorize</button><button name="authorize" value="0">Cancel</button></form>"""


def email(
    address: str, *, primary: bool = True, verified: bool = True, visibility: str | None = None
) -> dict[str, Any]:
    """An entry of the list of emails."""
    return {"email": address, "primary": primary, "verified": verified, "visibility": visibility}


@dataclass
class Person:
    """An account at GitHub. `public_email` is what the profile shows."""

    id: int
    login: str
    name: str | None = None
    public_email: str | None = None
    emails: list[dict[str, Any]] = field(default_factory=list)
    avatar_url: str = "https://avatars.example.org/u/1"


@dataclass
class Grant:
    """What a code stands for."""

    login: str
    redirect_uri: str
    scope: str
    challenge: str | None
    expires_at: float


class GitHub:
    """Its web pages and its API, on one address."""

    def __init__(self, callback: str) -> None:
        self.callback = callback
        self.people: dict[str, Person] = {}
        self.calls: Counter[str] = Counter()
        self.mischief: dict[str, Mischief] = {}
        self.granting: str | None = None  # the scope that is granted whatever was asked for
        self.asked: list[dict[str, str]] = []  # what came to the authorization page
        self._codes: dict[str, Grant] = {}
        self._tokens: dict[str, Grant] = {}
        app = web.Application(middlewares=[self._counted])
        app.router.add_get("/login/oauth/authorize", self._ask)
        app.router.add_post("/login/oauth/authorize", self._decide)
        app.router.add_post("/login/oauth/access_token", self._exchange)
        app.router.add_get("/api/v3/user", self._user)
        app.router.add_get("/api/v3/user/emails", self._emails)
        self._server = TestServer(app)

    async def start(self) -> None:
        await self._server.start_server()

    async def stop(self) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    @property
    def settings(self) -> dict[str, str]:
        """What the operator writes to use it."""
        return {"GITHUB_CLIENT_ID": CLIENT_ID, "GITHUB_CLIENT_SECRET": CLIENT_SECRET, "GITHUB_URL": self.url}

    def add(self, person: Person) -> Person:
        self.people[person.login] = person
        return person

    @property
    def called_by_us(self) -> int:
        """The calls of the service, which are all but those of the browser."""
        return sum(count for path, count in self.calls.items() if path != "/login/oauth/authorize")

    async def sign_in(self, auth_url: str, login: str, consent: bool = True) -> str:
        """Go there as a browser would, say yes or no, and give the address that one is sent back to."""
        async with aiohttp.ClientSession() as session:
            async with session.get(auth_url, allow_redirects=False) as response:
                if response.status == 302:
                    return response.headers["Location"]
                assert response.status == 200, await response.text()
            form = {"login": login, "authorize": str(int(consent))}
            async with session.post(auth_url, data=form, allow_redirects=False) as response:
                assert response.status == 302, await response.text()
                return response.headers["Location"]

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls[request.path] += 1
        if mischief := self.mischief.get(request.path):
            return await mischief(request)
        response: web.StreamResponse = await handler(request)
        return response

    async def _ask(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return self._refusal(request) or web.Response(text=_FORM, content_type="text/html")

    async def _decide(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        sent, query = await request.post(), request.query
        back = {"state": query["state"]} if "state" in query else {}
        if sent.get("authorize") != "1":
            return self._back(error="access_denied", error_description="The user has denied your access.", **back)
        code = secrets.token_hex(10)
        self._codes[code] = Grant(
            login=self.people[str(sent["login"])].login,
            redirect_uri=query.get("redirect_uri", self.callback),
            scope=query.get("scope", "") if self.granting is None else self.granting,
            challenge=query.get("code_challenge"),
            expires_at=time.time() + CODES_LAST,
        )
        return self._back(code=code, **back)

    def _refusal(self, request: web.Request) -> web.Response | None:
        query = request.query
        if query.get("client_id") != CLIENT_ID:
            return web.Response(status=404, text="Not Found")
        if query.get("redirect_uri", self.callback) != self.callback:
            return self._back(error="redirect_uri_mismatch", state=query.get("state", ""))
        if "code_challenge" in query and query.get("code_challenge_method") != "S256":
            return self._back(error="invalid_request", state=query.get("state", ""))
        return None

    def _back(self, **answer: str) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{self.callback}?{urlencode(answer)}"})

    async def _exchange(self, request: web.Request) -> web.Response:
        sent = {name: str(value) for name, value in (await request.post()).items()}
        told = self._exchanged(sent)
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(told)
        return web.Response(text=urlencode(told), content_type="application/x-www-form-urlencoded")

    def _exchanged(self, sent: dict[str, str]) -> dict[str, str]:
        if (sent.get("client_id"), sent.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _error("incorrect_client_credentials")
        grant = self._codes.pop(sent.get("code", ""), None)
        if grant is None or grant.expires_at <= time.time():
            return _error("bad_verification_code")
        if sent.get("redirect_uri", grant.redirect_uri) != grant.redirect_uri:
            return _error("redirect_uri_mismatch")
        if grant.challenge is not None and _s256(sent.get("code_verifier", "")) != grant.challenge:
            return _error("bad_verification_code")
        token = "gho_" + secrets.token_hex(18)
        self._tokens[token] = grant
        return {"access_token": token, "token_type": "bearer", "scope": ",".join(grant.scope.split())}

    async def _user(self, request: web.Request) -> web.Response:
        person, _ = self._holder(request)
        return web.json_response(
            {
                "login": person.login,
                "id": person.id,
                "name": person.name,
                "email": person.public_email,
                "avatar_url": person.avatar_url,
                "type": "User",
            }
        )

    async def _emails(self, request: web.Request) -> web.Response:
        person, scopes = self._holder(request)
        if not scopes & {"user", "user:email"}:
            raise web.HTTPNotFound(text='{"message": "Not Found"}', content_type="application/json")
        return web.json_response(person.emails)

    def _holder(self, request: web.Request) -> tuple[Person, set[str]]:
        if not request.headers.get("User-Agent"):
            raise web.HTTPForbidden(text="Request forbidden by administrative rules.")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        grant = self._tokens.get(token) if scheme.lower() in ("bearer", "token") else None
        if grant is None:
            raise web.HTTPUnauthorized(text='{"message": "Bad credentials"}', content_type="application/json")
        return self.people[grant.login], set(grant.scope.split())


def _error(code: str) -> dict[str, str]:
    return {"error": code, "error_description": f"About {code}.", "error_uri": "https://docs.example.org"}


def _s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
