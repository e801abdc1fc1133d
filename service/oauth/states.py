"""Sign-ins that have left for a provider and have not come back yet.

Redis
    oauth:<digest of state>  string  JSON: provider, PKCE verifier, nonce, the browser's binding, where to go, how the
                                     tokens are wanted, and the account to link; ten minutes, taken once

The state has 256 random bits and only its digest is kept. A callback that cannot name one, in the browser and for the
provider that it was made for, ends before anybody is called.
"""

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from datetime import timedelta

import orjson

from service.errors import OAuthStateInvalid
from service.oauth.provider import Challenge
from service.store import Store

LASTS = timedelta(minutes=10)


@dataclass(frozen=True)
class Flow:
    """One sign-in under way. `link_user` and `link_session` are there when an account is to be linked."""

    provider: str
    browser: str
    redirect_to: str
    in_cookies: bool = True
    link_user: str = ""
    link_session: str = ""


class States:
    """Remembers flows, and gives each back once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, flow: Flow) -> Challenge:
        """Remember a flow; its state, PKCE verifier and nonce are new."""
        challenge = Challenge(secrets.token_urlsafe(32), secrets.token_urlsafe(48), secrets.token_urlsafe(24))
        kept = {**asdict(flow), "verifier": challenge.verifier, "nonce": challenge.nonce}
        await self._store.one(
            ("SET", _key(challenge.state), orjson.dumps(kept).decode(), "EX", int(LASTS.total_seconds()))
        )
        return challenge

    async def take(self, state: str, provider: str, browser: str | None) -> tuple[Flow, Challenge]:
        """The flow of a state, once; raises `OAuthStateInvalid` for another browser or provider, or a second time.

        Whoever presents a state uses it up, rightly or not: a stolen one is worth nothing after the first try.
        """
        kept = await self._store.one(("GETDEL", _key(state)))
        if kept is None:
            raise OAuthStateInvalid
        fields = orjson.loads(kept)
        challenge = Challenge(state, fields.pop("verifier"), fields.pop("nonce"))
        flow = Flow(**fields)
        if flow.provider != provider or browser is None or not hmac.compare_digest(flow.browser, browser):
            raise OAuthStateInvalid
        return flow, challenge


def _key(state: str) -> str:
    return "oauth:" + hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()[:40]
