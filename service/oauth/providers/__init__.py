"""The kinds of providers. A new one is a file here and a line below."""

from service.clock import Clock
from service.oauth.outgoing import Outgoing
from service.oauth.provider import Provider
from service.oauth.providers import github, google, openid
from service.settings import Settings

KINDS = (google.configured, github.configured, openid.configured)


def configured(settings: Settings, outgoing: Outgoing, clock: Clock) -> dict[str, Provider]:
    """The providers that the settings describe, by name."""
    return {provider.name: provider for kind in KINDS for provider in kind(settings, outgoing, clock)}
