"""Settings: one frozen object, read once from the environment and `.env`, or every mistake in plain words.

The environment wins over `.env`; an empty value counts as unset. Durations are `900`, `15m`, `2h` or `7d`, lists
are separated by commas. Each field is a variable of the same name in capitals, told in `config/example.env`.

    settings.py        what can be set: the fields, their types and defaults
    forms.py           what a value of each type looks like
    contradictions.py  what cannot be although each value can be read
    reading.py         from the environment to the settings, or to all that is to be mended
"""

from service.settings.forms import duration, origin_of
from service.settings.reading import SettingsError, load
from service.settings.settings import CONFIG, LOOPBACK, NAMES, OIDC, OTEL, RESERVED, ROOT, OpenIDClient, Settings

__all__ = [
    "CONFIG", "LOOPBACK", "NAMES", "OIDC", "OTEL", "RESERVED", "ROOT", "OpenIDClient", "Settings", "SettingsError",
    "duration", "load", "origin_of",
]  # fmt: skip
