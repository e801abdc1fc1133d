"""A small OpenID provider that can be bent in every answer: its metadata, its keys, its tokens, its userinfo.

Left alone it is an honest one. It knows one person, and has no pages: `come_back` says where a browser would be sent.
"""

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.oauth.mischief import Mischief

CLIENT_SECRET = "the secret of a client at a hostile provider"
ABSENT = object()  # a claim or a member that is left out

DISCOVERY, TOKEN, JWKS, USERINFO = "/.well-known/openid-configuration", "/token", "/jwks", "/userinfo"


class Key:
    """A signing key, as the provider and as its JWKS have it."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.kid = secrets.token_hex(4)
        self.algorithm = algorithm
        if algorithm == "ES256":
            self.private: Any = ec.generate_private_key(ec.SECP256R1())
            self.public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = rsa.generate_private_key(65537, 2048)
            self.public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)

    @property
    def jwk(self) -> dict[str, Any]:
        return {**self.public, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token of any content: `jwt.encode` would refuse claims of the wrong type."""
        named = _bent({"typ": "JWT", "kid": self.kid}, header)
        return jwt.PyJWS().encode(json.dumps(claims).encode(), self.private, self.algorithm, headers=named)


class Hostile:
    """An OpenID provider; `name` is what the settings call it."""

    def __init__(self, name: str = "hostile") -> None:
        self.name = name
        self.client_id = f"gatepost at {name}"
        self.key = Key()
        self.keys = [self.key]
        self.calls: Counter[str] = Counter()
        self.mischief: dict[str, Mischief] = {}
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.exchanged: list[dict[str, str]] = []  # the forms that came for a code, with the Authorization header
        self.write: Callable[[dict[str, Any]], Any] = lambda claims: self.key.sign(claims)
        self._nonces: dict[str, str] = {}
        app = web.Application(middlewares=[self._counted])
        app.router.add_get("/{under:.*}.well-known/openid-configuration", self._discovery)
        app.router.add_post(TOKEN, self._token)
        app.router.add_get(JWKS, self._jwks)
        app.router.add_get(USERINFO, self._userinfo)
        self._server = TestServer(app)

    async def start(self) -> None:
        await self._server.start_server()

    async def stop(self) -> None:
        await self._server.close()

    @property
    def issuer(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    @property
    def settings(self) -> dict[str, str]:
        prefix = f"OIDC_{self.name.upper()}_"
        return {
            prefix + "ISSUER": self.issuer,
            prefix + "CLIENT_ID": self.client_id,
            prefix + "CLIENT_SECRET": CLIENT_SECRET,
        }

    def come_back(self, auth_url: str, **answer: str) -> str:
        """Where a person who says yes is sent."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(auth_url).query).items()}
        code = secrets.token_hex(8)
        self._nonces[code] = asked["nonce"]
        return asked["redirect_uri"] + "?" + urlencode({"code": code, "state": asked["state"], **answer})

    def rotate(self) -> None:
        """Sign with a new key, and forget the old one."""
        self.key = Key()
        self.keys = [self.key]

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls[request.path] += 1
        if mischief := self.mischief.get(request.path):
            return await mischief(request)
        response: web.StreamResponse = await handler(request)
        return response

    async def _discovery(self, _: web.Request) -> web.Response:
        honest = {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize",
            "token_endpoint": self.issuer + TOKEN,
            "jwks_uri": self.issuer + JWKS,
            "userinfo_endpoint": self.issuer + USERINFO,
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
            "code_challenge_methods_supported": ["S256"],
        }
        return web.json_response(_bent(honest, self.metadata))

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.exchanged.append({**form, "Authorization": request.headers.get("Authorization", "")})
        nonce = self._nonces.pop(form.get("code", ""), None)
        if nonce is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        honest = {
            "iss": self.issuer,
            "sub": "248289761001",
            "aud": self.client_id,
            "exp": now + 300,
            "iat": now,
            "nonce": nonce,
            "email": "ada@example.org",
            "email_verified": True,
            "name": "Ada Lovelace",
        }
        tokens = {
            "access_token": secrets.token_hex(16),
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.write(_bent(honest, self.claims)),
        }
        return web.json_response(_bent(tokens, self.tokens))

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [key.jwk for key in self.keys]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Bearer ")
        honest = {"sub": "248289761001", "email": "ada@example.org", "email_verified": True, "name": "Ada Lovelace"}
        return web.json_response(_bent(honest, self.userinfo))


def _bent(honest: dict[str, Any], bent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**honest, **bent}.items() if value is not ABSENT}
