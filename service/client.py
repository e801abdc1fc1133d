"""Who stands at the other end of a request, as far as the network tells."""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

_BROWSERS = (
    ("Edge", re.compile(r"Edg(?:e|A|iOS)?/")),
    ("Opera", re.compile(r"OPR/|Opera")),
    ("Samsung Internet", re.compile(r"SamsungBrowser/")),
    ("Firefox", re.compile(r"Firefox/|FxiOS/")),
    ("Chrome", re.compile(r"Chrome/|CriOS/|Chromium/")),
    ("Safari", re.compile(r"Safari/")),
    ("curl", re.compile(r"^curl/")),
)
_SYSTEMS = (
    ("iPhone", re.compile(r"iPhone")),
    ("iPad", re.compile(r"iPad")),
    ("Android", re.compile(r"Android")),
    ("Windows", re.compile(r"Windows")),
    ("macOS", re.compile(r"Mac OS X|Macintosh")),
    ("ChromeOS", re.compile(r"CrOS")),
    ("Linux", re.compile(r"Linux|X11")),
)
_IPV4_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d+")
_IPV6_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?")

UNKNOWN = "Unknown device"
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Client:
    """The address is the one that limits and logs go by; the user agent is at most 256 characters."""

    address: str
    user_agent: str = ""

    @property
    def device(self) -> str:
        return device(self.user_agent)

    @property
    def network(self) -> str:
        """What the address counts as."""
        return network_of(self.address)


def device(user_agent: str) -> str:
    """A user agent in words that its owner recognises: `Firefox on Windows`."""
    browser = next((name for name, sign in _BROWSERS if sign.search(user_agent)), None)
    system = next((name for name, sign in _SYSTEMS if sign.search(user_agent)), None)
    return " on ".join(filter(None, (browser, system))) or UNKNOWN


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """What an address counts as: itself, or its /64, which is what one IPv6 subscriber has."""
    parsed = parsed_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


@lru_cache(maxsize=4096)
def parsed_address(text: str) -> IP | None:
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
