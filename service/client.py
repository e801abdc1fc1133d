"""Who stands at the other end of a request, as far as the network tells."""

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Client:
    """The address is the one that limits and logs go by; the user agent is at most 256 characters."""

    address: str
    user_agent: str = ""

    @property
    def device(self) -> str:
        return device(self.user_agent)


def device(user_agent: str) -> str:
    """A user agent in words that its owner recognises: `Firefox on Windows`."""
    browser = next((name for name, sign in _BROWSERS if sign.search(user_agent)), None)
    system = next((name for name, sign in _SYSTEMS if sign.search(user_agent)), None)
    return " on ".join(filter(None, (browser, system))) or "Unknown device"
