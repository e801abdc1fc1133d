"""A sign-in elsewhere, from leaving to coming back."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

from service import metrics
from service.errors import (
    OAuthCodeMissing,
    OAuthDenied,
    OAuthExchangeFailed,
    OAuthStateInvalid,
    ProviderNotConfigured,
    ProviderUnavailable,
    ServiceError,
    StoreUnavailable,
)
from service.oauth.provider import Challenge, Person, Provider
from service.oauth.states import Flow, States

WITHIN = 5.0  # seconds, for all calls of one step together


@dataclass(frozen=True)
class Departure:
    """Where to send the person, and the state that will come back."""

    url: str
    state: str


@dataclass(frozen=True)
class Return:
    """A person who left is back, in the same browser."""

    flow: Flow
    provider: Provider
    challenge: Challenge


class OAuth:
    """Sends people to providers, and learns from the providers who came back."""

    def __init__(self, providers: Mapping[str, Provider], states: States) -> None:
        self.providers = providers
        self._states = states
        for name, step in product(providers, ("start", "finish")):
            for result in ("success", ProviderUnavailable.code.lower(), OAuthExchangeFailed.code.lower()):
                metrics.OAUTH_CALLS.labels(name, step, result)  # there from the start, so that the first is a change

    def provider(self, name: str) -> Provider:
        """A provider by its name; raises `ProviderNotConfigured`."""
        if (provider := self.providers.get(name)) is None:
            raise ProviderNotConfigured
        return provider

    async def leave(self, flow: Flow) -> Departure:
        """Begin a flow; raises `ProviderUnavailable`."""
        provider = self.provider(flow.provider)
        challenge = await self._states.begin(flow)
        with _counted(provider.name, "start"):
            try:
                async with asyncio.timeout(WITHIN):
                    return Departure(await provider.start(challenge), challenge.state)
            except TimeoutError as error:
                raise ProviderUnavailable from error

    async def returned(self, name: str, answer: Mapping[str, str], browser: str | None) -> Return:
        """Whose return a callback is; raises `OAuthCodeMissing` or `OAuthStateInvalid`. Calls nobody.

        A state that came with a code or an error is used up, whatever else is wrong.
        """
        provider = self.provider(name)
        if "code" not in answer and "error" not in answer:
            raise OAuthCodeMissing
        flow, challenge = await self._states.take(answer.get("state", ""), name, browser)
        return Return(flow, provider, challenge)

    async def person(self, back: Return, answer: Mapping[str, str]) -> Person:
        """Who it is; raises `OAuthDenied`, `OAuthExchangeFailed`, `OAuthStateInvalid` or `ProviderUnavailable`."""
        with _counted(back.provider.name, "finish"):
            return await self._person(back, answer)

    async def _person(self, back: Return, answer: Mapping[str, str]) -> Person:
        if not back.provider.vouches(answer):
            raise OAuthStateInvalid
        match answer.get("error"):
            case None:
                pass
            case "access_denied":
                raise OAuthDenied
            case "server_error" | "temporarily_unavailable":
                raise ProviderUnavailable
            case _:
                raise OAuthExchangeFailed
        try:
            async with asyncio.timeout(WITHIN):
                return await back.provider.finish(answer, back.challenge)
        except TimeoutError as error:
            raise ProviderUnavailable from error


@contextmanager
def _counted(provider: str, step: str) -> Iterator[None]:
    """Count what comes of this block; that Redis is away is no news of the provider."""
    try:
        yield
    except StoreUnavailable:
        raise
    except ServiceError as error:
        metrics.OAUTH_CALLS.labels(provider, step, error.code.lower()).inc()
        raise
    metrics.OAUTH_CALLS.labels(provider, step, "success").inc()
