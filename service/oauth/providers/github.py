"""GitHub, which is no OpenID provider: OAuth 2.0, then its API says who came (docs.github.com, "OAuth apps")."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import structlog

from service.clock import Clock
from service.errors import OAuthExchangeFailed
from service.oauth.outgoing import Outgoing
from service.oauth.provider import Challenge, Person, Provider, callback_address
from service.settings import Settings

log = structlog.get_logger("service.oauth")

_SCOPES = "read:user user:email"


def configured(settings: Settings, outgoing: Outgoing, clock: Clock) -> list[Provider]:
    """GitHub, where `GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET` are set."""
    if not settings.github_client_id or not settings.github_client_secret:
        return []
    return [
        GitHub(
            name="github",
            display_name="GitHub",
            url=settings.github_url,
            api_url=settings.github_api_url,
            client_id=settings.github_client_id,
            client_secret=settings.github_client_secret.get_secret_value(),
            redirect_uri=callback_address(settings, "github", settings.github_redirect_uri),
            outgoing=outgoing,
        )
    ]


class GitHub:
    """github.com, or an Enterprise server at addresses of its own."""

    def __init__(
        self,
        name: str,
        display_name: str,
        url: str,
        api_url: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        outgoing: Outgoing,
    ) -> None:
        self.name = name
        self.display_name = display_name
        self.redirect_uri = redirect_uri
        self._url = url
        self._api_url = api_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._outgoing = outgoing

    async def start(self, challenge: Challenge) -> str:
        query = {
            "client_id": self._client_id,
            "redirect_uri": self.redirect_uri,
            "scope": _SCOPES,
            "state": challenge.state,
            "code_challenge": challenge.code_challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._url}/login/oauth/authorize?{urlencode(query)}"

    def vouches(self, answer: Mapping[str, str]) -> bool:
        return answer.get("iss", self._url) in (self._url, f"{self._url}/login/oauth")

    async def finish(self, answer: Mapping[str, str], challenge: Challenge) -> Person:
        token = await self._exchange(answer["code"], challenge)
        user = await self._ask("/user", token)
        if not isinstance(user, dict) or type(user.get("id")) is not int:
            raise OAuthExchangeFailed
        email = _primary(await self._ask("/user/emails?per_page=100", token))
        return Person(
            issuer=self._url,
            subject=str(user["id"]),
            email=email,
            email_verified=email is not None,
            name=_text(user.get("name")) or _text(user.get("login")),
            picture=_text(user.get("avatar_url")),
        )

    async def _exchange(self, code: str, challenge: Challenge) -> str:
        form = {
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": challenge.verifier,
        }
        _, answer = await self._outgoing.json("POST", f"{self._url}/login/oauth/access_token", form=form)
        # A refusal is a 200 with `error` in it.
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or "error" in answer:
            reason = answer.get("error") if isinstance(answer, dict) else None
            log.warning("oauth.exchange_refused", provider=self.name, error=str(reason)[:100])
            raise OAuthExchangeFailed
        return token

    async def _ask(self, path: str, token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        status, answer = await self._outgoing.json("GET", self._api_url + path, headers=headers)
        if status != 200:
            log.warning("oauth.api_refused", provider=self.name, path=path, status=status)
            raise OAuthExchangeFailed
        return answer


def _primary(emails: Any) -> str | None:
    """The primary address, only if GitHub has verified it."""
    for entry in emails if isinstance(emails, list) else []:
        if isinstance(entry, dict) and entry.get("primary") is True and entry.get("verified") is True:
            return _text(entry.get("email"))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
