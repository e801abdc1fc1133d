"""What a provider is to us: somewhere to send a person, and a way to learn who came back."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from service.settings import Settings


@dataclass(frozen=True)
class Person:
    """Who a provider says somebody is. `issuer` and `subject` name them for good; the email is only a claim."""

    issuer: str
    subject: str
    email: str | None = None
    email_verified: bool = False
    first_name: str | None = None
    last_name: str | None = None
    name: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Challenge:
    """What a start keeps to itself until the callback (RFC 7636; OpenID Connect Core, 3.1.2.1)."""

    state: str
    verifier: str
    nonce: str

    @property
    def code_challenge(self) -> str:
        """The verifier as the authorization page is told it, by the method `S256` (RFC 7636, section 4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


class Provider(Protocol):
    """One place to sign in at. A new kind is a file in `providers/` and a line in its `__init__.py`."""

    name: str
    display_name: str
    redirect_uri: str

    async def start(self, challenge: Challenge) -> str:
        """The address to send the person to; raises `ProviderUnavailable`."""
        ...

    def vouches(self, answer: Mapping[str, str]) -> bool:
        """Whether the callback's parameters can be from this provider (RFC 9207); asks nobody."""
        ...

    async def finish(self, answer: Mapping[str, str], challenge: Challenge) -> Person:
        """Who came back with the callback's `code`; raises `OAuthExchangeFailed` or `ProviderUnavailable`."""
        ...


def callback_address(settings: Settings, name: str, given: str | None) -> str:
    """Where a provider sends people back to, unless the operator says otherwise."""
    return given or f"{settings.public_url}/api/auth/{name}/callback"
