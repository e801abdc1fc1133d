"""Google: an OpenID provider at a known issuer."""

from service.clock import Clock
from service.oauth.outgoing import Outgoing
from service.oauth.provider import Provider, callback_address
from service.oauth.providers.openid import OpenID
from service.settings import Settings


def configured(settings: Settings, outgoing: Outgoing, clock: Clock) -> list[Provider]:
    """Google, where `GOOGLE_CLIENT_ID` and `GOOGLE_CLIENT_SECRET` are set."""
    if not settings.google_client_id or not settings.google_client_secret:
        return []
    return [
        OpenID(
            name="google",
            display_name="Google",
            issuer=settings.google_issuer,
            client_id=settings.google_client_id,
            client_secret=settings.google_client_secret.get_secret_value(),
            redirect_uri=callback_address(settings, "google", settings.google_redirect_uri),
            scopes="openid email profile",
            outgoing=outgoing,
            clock=clock,
        )
    ]
