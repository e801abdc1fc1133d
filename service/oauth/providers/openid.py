"""Any OpenID provider, by discovery (OpenID Connect Core 1.0 and Discovery 1.0). Google is one of them."""

import asyncio
import base64
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
import orjson
import structlog

from service.clock import Clock
from service.errors import OAuthExchangeFailed, ProviderUnavailable
from service.oauth.outgoing import Outgoing
from service.oauth.provider import Challenge, Person, Provider, callback_address
from service.settings import Settings

log = structlog.get_logger("service.oauth")

# Asymmetric ones only: with HMAC the client's secret would sign, and whoever knows it could be anybody.
_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_DISCOVERY_LASTS = 3600.0  # seconds
_KEYS_REFRESH = 60.0  # seconds between two looks for an unknown `kid`
_TOLERANCE = 60  # seconds


def configured(settings: Settings, outgoing: Outgoing, clock: Clock) -> list[Provider]:
    """Each provider that `OIDC_<NAME>_ISSUER` and its like describe."""
    return [
        OpenID(
            name=client.name,
            display_name=client.display_name or client.name.capitalize(),
            issuer=client.issuer,
            client_id=client.client_id,
            client_secret=client.client_secret.get_secret_value(),
            redirect_uri=callback_address(settings, client.name, client.redirect_uri),
            scopes=client.scopes,
            outgoing=outgoing,
            clock=clock,
        )
        for client in settings.oidc
    ]


@dataclass(frozen=True)
class Metadata:
    """What we use of a discovery document."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: frozenset[str]
    basic: bool
    sends_issuer: bool


class OpenID:
    """A provider that is found by its issuer alone."""

    def __init__(
        self,
        name: str,
        display_name: str,
        issuer: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        scopes: str,
        outgoing: Outgoing,
        clock: Clock,
    ) -> None:
        self.name = name
        self.display_name = display_name
        self.redirect_uri = redirect_uri
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._scopes = scopes
        self._outgoing = outgoing
        self._clock = clock
        self._metadata: Metadata | None = None
        self._metadata_until = 0.0
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._keys_until = 0.0
        self._looked = float("-inf")
        self._asking = asyncio.Lock()

    async def start(self, challenge: Challenge) -> str:
        metadata = await self._discover()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self._scopes,
            "state": challenge.state,
            "nonce": challenge.nonce,
            "code_challenge": challenge.code_challenge,
            "code_challenge_method": "S256",
        }
        join = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return metadata.authorization_endpoint + join + urlencode(query)

    def vouches(self, answer: Mapping[str, str]) -> bool:
        expected = self._metadata is not None and self._metadata.sends_issuer
        return answer.get("iss", None if expected else self._issuer) == self._issuer

    async def finish(self, answer: Mapping[str, str], challenge: Challenge) -> Person:
        metadata = await self._discover()
        if not self.vouches(answer):
            raise OAuthExchangeFailed
        tokens = await self._exchange(metadata, answer["code"], challenge)
        claims = await self._claims(metadata, tokens.get("id_token"), challenge.nonce)
        if "email" not in claims and metadata.userinfo_endpoint:
            claims = {**await self._userinfo(metadata.userinfo_endpoint, tokens, claims["sub"]), **claims}
        return Person(
            issuer=self._issuer,
            subject=claims["sub"],
            email=_text(claims.get("email")),
            email_verified=claims.get("email_verified") in (True, "true"),
            first_name=_text(claims.get("given_name")),
            last_name=_text(claims.get("family_name")),
            name=_text(claims.get("name")),
            picture=_text(claims.get("picture")),
        )

    async def _exchange(self, metadata: Metadata, code: str, challenge: Challenge) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": challenge.verifier,
        }
        headers = {}
        if metadata.basic and self._client_secret:
            # Each part is form-encoded before it is joined (RFC 6749, section 2.3.1).
            pair = f"{quote(self._client_id, safe='')}:{quote(self._client_secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        else:
            form["client_id"] = self._client_id
            if self._client_secret:
                form["client_secret"] = self._client_secret
        status, answer = await self._outgoing.json("POST", metadata.token_endpoint, form=form, headers=headers)
        if status != 200 or not isinstance(answer, dict):
            reason = answer.get("error") if isinstance(answer, dict) else None
            log.warning("oauth.exchange_refused", provider=self.name, status=status, error=str(reason)[:100])
            raise OAuthExchangeFailed
        return answer

    async def _claims(self, metadata: Metadata, id_token: Any, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is for us, from this provider, for this very sign-in (Core, 3.1.3.7)."""
        if not isinstance(id_token, str):
            raise OAuthExchangeFailed
        try:
            header = jwt.get_unverified_header(id_token)
            algorithm = header.get("alg")
            if algorithm not in metadata.algorithms:
                raise OAuthExchangeFailed
            key = await self._key(metadata, header.get("kid"), str(algorithm))
            claims: dict[str, Any] = jwt.decode(
                id_token,
                key=key.key,
                algorithms=[str(algorithm)],
                issuer=self._issuer,
                audience=self._client_id,
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat", "nonce"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            orjson.dumps(claims)  # lone surrogates, which JSON can spell, are no text
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.warning("oauth.id_token_refused", provider=self.name, error=type(error).__name__)
            raise OAuthExchangeFailed from error
        now = self._clock.now()
        authorized = claims.get("azp", self._client_id)
        if (
            not all(type(claims[name]) in (int, float) for name in ("exp", "iat"))
            or not claims["exp"] + _TOLERANCE > now
            or claims["iat"] - _TOLERANCE > now
            or (type(not_before := claims.get("nbf", 0)) not in (int, float) or not_before - _TOLERANCE > now)
            or authorized != self._client_id
            or (isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims)
            or not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode())
            or not (isinstance(claims["sub"], str) and 0 < len(claims["sub"]) <= 255)
        ):
            log.warning("oauth.id_token_refused", provider=self.name, error="claims")
            raise OAuthExchangeFailed
        return claims

    async def _userinfo(self, endpoint: str, tokens: dict[str, Any], subject: str) -> dict[str, Any]:
        """More about the same subject (Core, 5.3); about anybody else it does not count."""
        headers = {"Authorization": f"Bearer {tokens.get('access_token')}"}
        status, told = await self._outgoing.json("GET", endpoint, headers=headers)
        if status != 200 or not isinstance(told, dict) or told.get("sub") != subject:
            raise OAuthExchangeFailed
        return told

    async def _discover(self) -> Metadata:
        """The provider's metadata, asked for once an hour; the last good one is kept while it cannot be had."""
        if self._metadata is not None and time.monotonic() < self._metadata_until:
            return self._metadata
        async with self._asking:
            if self._metadata is not None and time.monotonic() < self._metadata_until:
                return self._metadata
            try:
                self._metadata = await self._ask_for_metadata()
                self._metadata_until = time.monotonic() + _DISCOVERY_LASTS
            except ProviderUnavailable:
                if self._metadata is None:
                    raise
                self._metadata_until = time.monotonic() + _KEYS_REFRESH
            return self._metadata

    async def _ask_for_metadata(self) -> Metadata:
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        status, document = await self._outgoing.json("GET", url)
        if status != 200 or (found := _metadata(document, self._issuer)) is None:
            told = str(document.get("issuer"))[:200] if isinstance(document, dict) else None
            log.error("oauth.discovery_unusable", provider=self.name, issuer=self._issuer, told=told, status=status)
            raise ProviderUnavailable
        return found

    async def _key(self, metadata: Metadata, kid: Any, algorithm: str) -> jwt.PyJWK:
        """The key that an ID token names; one that is not known is looked for, at most once a minute."""
        if self._known(kid, algorithm) is None or time.monotonic() >= self._keys_until:
            async with self._asking:
                await self._look_for(metadata, kid, algorithm)
        if (key := self._known(kid, algorithm)) is None:
            if not self._keys:
                raise ProviderUnavailable
            raise OAuthExchangeFailed
        return key

    async def _look_for(self, metadata: Metadata, kid: Any, algorithm: str) -> None:
        """Fetch the keys where this one is unknown, or all are an hour old; the last good ones are kept."""
        known = self._known(kid, algorithm) is not None
        if known and time.monotonic() < self._keys_until:
            return
        if known or self._may_look():
            try:
                await self._fetch_keys(metadata)
            except ProviderUnavailable:
                if not known:
                    raise
                self._keys_until = time.monotonic() + _KEYS_REFRESH

    def _may_look(self) -> bool:
        """Whether the minute since the last look is over; the look counts even if it fails. The first ones are free."""
        if not self._keys:
            return True
        if time.monotonic() - self._looked < _KEYS_REFRESH:
            return False
        self._looked = time.monotonic()
        return True

    def _known(self, kid: Any, algorithm: str) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            key = next(iter(self._keys.values()))
        else:
            found = self._keys.get(kid) if isinstance(kid, str) else None
            if found is None:
                return None
            key = found
        return key if _family(key.algorithm_name) == _family(algorithm) else None

    async def _fetch_keys(self, metadata: Metadata) -> None:
        status, document = await self._outgoing.json("GET", metadata.jwks_uri)
        listed = document.get("keys") if status == 200 and isinstance(document, dict) else None
        keys: dict[str | None, jwt.PyJWK] = {}
        for entry in listed if isinstance(listed, list) else []:
            try:
                if entry.get("use", "sig") == "sig" and entry.get("kty") in ("RSA", "EC", "OKP"):
                    keys[entry.get("kid")] = jwt.PyJWK(entry)
            except (jwt.PyJWTError, AttributeError, ValueError, TypeError):
                continue  # a kind of key that we do not know; the others may do
        self._keys_until = time.monotonic() + (_DISCOVERY_LASTS if keys else _KEYS_REFRESH)
        if keys:
            self._keys = keys
        else:
            log.error("oauth.no_keys", provider=self.name, status=status)


def _metadata(document: Any, issuer: str) -> Metadata | None:
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        return None
    endpoints: dict[str, Any] = {name: document.get(name) for name in _ENDPOINTS}
    if not all(_is_address(endpoint, issuer) for endpoint in endpoints.values()):
        return None
    userinfo = document.get("userinfo_endpoint")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    algorithms = document.get("id_token_signing_alg_values_supported", ["RS256"])
    return Metadata(
        **endpoints,
        userinfo_endpoint=userinfo if _is_address(userinfo, issuer) else None,
        algorithms=_ALGORITHMS & frozenset(map(str, algorithms if isinstance(algorithms, list) else [])),
        basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _is_address(value: Any, issuer: str) -> bool:
    """An https address; http only where the issuer itself is, on one's own machine."""
    return isinstance(value, str) and value.startswith(("https://", issuer[: issuer.index("://") + 3]))


def _family(algorithm: str) -> str:
    """RSA keys sign with RS and PS of any size; the others are bound to one algorithm."""
    return "RSA" if algorithm[:2] in ("RS", "PS") else algorithm


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
