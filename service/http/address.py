"""Where a request comes from: the peer, or what proxies we trust say of it.

`X-Forwarded-For` is a claim. It counts only when the peer is in `TRUSTED_PROXIES`, and is read from the right: each
trusted proxy vouches for the address before its own. The first address that is not a trusted proxy is the client.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from service.settings import Address

UNKNOWN = "unknown"
_MEMORABLE = 256  # characters; longer claims are read anew each time
_IPV4_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d+")
_IPV6_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?")
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies we trust."""

    def __init__(self, trusted: Sequence[Address]) -> None:
        self._trusted = tuple(trusted)
        self._vouches = lru_cache(maxsize=1024)(self._is_trusted)
        self._remembered = lru_cache(maxsize=4096)(self._address)

    def address(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """The client's address in its canonical form; `unknown` over a unix socket without a trusted word."""
        claims = ",".join(forwarded)
        return (self._remembered if len(claims) <= _MEMORABLE else self._address)(peer or "", claims)

    def _address(self, peer: str, claims: str) -> str:
        if not (address := _parse(peer)):
            return UNKNOWN
        for claim in reversed(claims.split(",")):
            if not self._vouches(address) or not (before := _parse(claim)):
                break
            address = before
        return str(address)

    def trusts(self, peer: str) -> bool:
        """Whether the peer is one of them."""
        address = _parse(peer)
        return address is not None and self._vouches(address)

    def _is_trusted(self, address: _IP) -> bool:
        return any(address in network for network in self._trusted)


def network_of(address: str) -> str:
    """What an address counts as: itself, or its /64, which is what one IPv6 subscriber has."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


@lru_cache(maxsize=4096)
def _parse(text: str) -> _IP | None:
    """An address as proxies write it, with or without port and brackets."""
    text = text.strip()
    if len(text) > 64:
        return None
    if match := _IPV4_PORT.fullmatch(text) or _IPV6_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))  # without the zone, which is local
    return address
