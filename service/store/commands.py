"""What can be said to Redis: commands as tuples, and Lua scripts. Each is about one key, and changes no other."""

import hashlib
from pathlib import Path
from typing import Any

from redis.crc import key_slot

Command = tuple[Any, ...]

_KEYLESS = frozenset({"PING", "TIME", "INFO", "SCAN", "SCRIPT"})
READS = frozenset(
    {"GET", "HGET", "HMGET", "HGETALL", "EXISTS", "PING", "TIME", "INFO", "PTTL"}
    | {"SCAN", "SSCAN", "ZSCAN", "ZSCORE", "ZCARD", "ZCOUNT", "ZRANGE", "SCARD", "SISMEMBER", "SRANDMEMBER"}
    | {"LRANGE", "XRANGE", "XREVRANGE", "XLEN"}
)
_REPEATABLE = READS | {"EVALSHA", "ZADD", "ZREM", "ZREMRANGEBYSCORE", "SADD", "SREM", "DEL"}
_SCRIPTS: dict[str, "Script"] = {}


class Script:
    """A Lua file on one key. `script(key, *arguments)` is a command like any other."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.text = path.read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        _SCRIPTS[self.sha] = self

    def __call__(self, key: str, *arguments: str | int) -> Command:
        return ("EVALSHA", self.sha, 1, key, *arguments)

    def looking_at(self, other: str, key: str, *arguments: str | int) -> Command:
        """The same, and the script may look at another key; for where all keys are on one server."""
        return ("EVALSHA", self.sha, 2, key, other, *arguments)


def script_of(command: Command) -> Script:
    """The script that an `EVALSHA` runs."""
    return _SCRIPTS[command[1]]


def repeatable(command: Command) -> bool:
    """Whether it may run twice: reads, and scripts, which are all written so that a second run changes nothing."""
    return command[0] in _REPEATABLE


def slot_of(command: Command) -> int | None:
    """The hash slot of a command's key, as a Cluster counts them; `None` for a command about no key."""
    if command[0] in _KEYLESS:
        return None
    return key_slot(key_of(command).encode())


def key_of(command: Command) -> str:
    """The key that a command is about, which is one that has a key."""
    return str(command[3 if command[0] == "EVALSHA" else 1])
