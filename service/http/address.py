"""Where a request comes from: the peer, or what proxies we trust say of it.

`X-Forwarded-For` is a claim. It counts only when the peer is in `TRUSTED_PROXIES`, and is read from the right: each
trusted proxy vouches for the address before its own. The first address that is not a trusted proxy is the client.
"""

from collections.abc import Sequence
from functools import lru_cache

from service.client import IP, parsed_address
from service.settings.forms import Network

UNKNOWN = "unknown"
_MEMORABLE = 256  # characters; longer claims are read anew each time


class Proxies:
    """The proxies we trust."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._vouches = lru_cache(maxsize=1024)(self._is_trusted)
        self._remembered = lru_cache(maxsize=4096)(self._address)

    def address(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """The client's address in its canonical form; `unknown` over a unix socket without a trusted word."""
        claims = ",".join(forwarded)
        return (self._remembered if len(claims) <= _MEMORABLE else self._address)(peer or "", claims)

    def _address(self, peer: str, claims: str) -> str:
        if not (address := parsed_address(peer)):
            return UNKNOWN
        for claim in reversed(claims.split(",")):
            if not self._vouches(address) or not (before := parsed_address(claim)):
                break
            address = before
        return str(address)

    def trusts(self, peer: str) -> bool:
        """Whether the peer is one of them."""
        address = parsed_address(peer)
        return address is not None and self._vouches(address)

    def _is_trusted(self, address: IP) -> bool:
        return any(address in network for network in self._trusted)
