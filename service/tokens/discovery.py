"""What this service says of itself to software that looks for an authorization server (RFC 8414)."""

from typing import Any

from service.settings import Settings


def metadata(settings: Settings) -> dict[str, Any]:
    """The metadata: only what is there, and so no authorization or token endpoint of OAuth.

    `grant_types_supported` is there though it is empty: left out, it would claim two grants (section 2). So is
    `response_types_supported`, which may not be left out. With HS256 there are no public keys to point to.
    """
    ours = settings.public_url
    keys = {} if settings.jwt_algorithm == "HS256" else {"jwks_uri": f"{ours}/.well-known/jwks.json"}
    return {
        "issuer": settings.jwt_issuer,
        **keys,
        "introspection_endpoint": f"{ours}/api/auth/introspect",
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "revocation_endpoint": f"{ours}/api/auth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
        "response_types_supported": [],
        "grant_types_supported": [],
        "subject_types_supported": ["public"],
    }
