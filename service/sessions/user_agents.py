"""User agents in few letters, without losing any: they are the largest part of a session.

Browsers have said the same phrases for years and change a version or two in them. Each phrase is kept as `~` and one
letter, and `~` itself as `~~`. What a letter stands for never changes, for sessions are kept with it; new phrases get
new letters.
"""

import re

_PHRASES = {
    "M": "Mozilla/5.0 (",
    "W": "Windows NT 10.0; Win64; x64",
    "X": "X11; Linux x86_64",
    "O": "Macintosh; Intel Mac OS X 10_15_7",
    "K": "Linux; Android 10; K",
    "P": "iPhone; CPU iPhone OS ",
    "C": ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    "D": ".0.0.0 Safari/537.36",
    "E": ".0.0.0 Mobile Safari/537.36",
    "V": ") AppleWebKit/605.1.15 (KHTML, like Gecko) Version/",
    "S": " Safari/605.1.15",
    "T": " Mobile/15E148 Safari/604.1",
    "L": " like Mac OS X",
    "G": ") Gecko/20100101 Firefox/",
    "~": "~",
}
_LETTERS = {phrase: letter for letter, phrase in _PHRASES.items()}
_LONG = re.compile("|".join(map(re.escape, _LETTERS)))
_SHORT = re.compile(r"~(.)")


def shortened(user_agent: str) -> str:
    """A user agent as it is kept."""
    return _LONG.sub(lambda found: "~" + _LETTERS[found[0]], user_agent)


def restored(kept: str) -> str:
    """The user agent of what was kept; a letter that nobody knows stays as it is."""
    return _SHORT.sub(lambda found: _PHRASES.get(found[1], found[0]), kept)
