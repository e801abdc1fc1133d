"""Roles and what they permit: the operator's table in `config/roles.toml`."""

import re
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from service.settings import CONFIG, SettingsError

_NAME = re.compile(r"[!-+\--~]+", re.ASCII)
USER, MODERATOR, ADMIN = "user", "moderator", "admin"


class Roles:
    """The table of roles, each with its permissions."""

    def __init__(self, table: dict[str, frozenset[str]]) -> None:
        self.table = table
        self._permitted = lru_cache(maxsize=1024)(self._permitted_to)

    @classmethod
    def load(cls, path: Path = CONFIG / "roles.toml") -> "Roles":
        """Read the table; raises `SettingsError` when it cannot be used."""
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))
            table = {role: frozenset(map(str, entry["permissions"])) for role, entry in entries.items()}
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SettingsError([f"{path} cannot be used: {error!r}"]) from error
        if missing := {USER, MODERATOR, ADMIN} - table.keys():
            raise SettingsError([f"{path} must keep these roles: {', '.join(sorted(missing))}"])
        # Tokens and lists hold them with spaces between, `X-Auth-Roles` with commas.
        if odd := [name for name in (*table, *set().union(*table.values())) if not _NAME.fullmatch(name)]:
            raise SettingsError(
                [f"{path} has a name with spaces, commas or letters beyond ASCII, or an empty one: {odd[0]!r}"]
            )
        return cls(table)

    def permissions(self, roles: Iterable[str]) -> tuple[str, ...]:
        """What these roles permit together, sorted; a role that is no longer in the table permits nothing."""
        return self._permitted(tuple(roles))

    def to_grant(self, roles: Iterable[str]) -> set[str]:
        """The permissions that it takes to give or to take these roles: those of each of them.

        A role that permits nothing here means something to the application all the same, which goes by its name. How
        much, nobody here can tell, so it takes all that an admin may.
        """
        needed = set[str]()
        for role in roles:
            if (permits := self.table.get(role)) is not None:  # one that is no longer in the table may be taken away
                needed |= permits or self.table[ADMIN]
        return needed

    def _permitted_to(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set().union(*(self.table.get(role, frozenset()) for role in roles))))
