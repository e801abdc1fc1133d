"""`REDIS_URL`: where Redis is, and whether it is one server, Sentinels with a master behind them, or a Cluster.

    redis://[user:password@]host[:port][/db]                    one server; rediss:// with TLS
    unix:///path/to/socket                                      one server on this machine
    redis+sentinel://[user:password@]host[:port],…/master[/db]  Sentinels; rediss+sentinel:// with TLS to all of them
    redis+cluster://[user:password@]host[:port],…               a Cluster, by some of its servers; rediss+cluster://

The password is that of Redis; Sentinels have theirs in `?sentinel_username=…&sentinel_password=…`. Other options are
those of redis-py, such as `?ssl_ca_certs=/path/ca.pem`.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import Connection, parse_url

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_PORTS = {"node": 6379, "sentinel": 26379, "cluster": 6379}
_OURS = frozenset(  # options of the library that would undo our own bounds
    {"socket_timeout", "socket_connect_timeout", "timeout", "max_connections", "health_check_interval", "client_name"}
    | {"retry_on_timeout", "retry_on_error", "decode_responses", "encoding"}
)
_ESCAPES = "write / # ? @ and % in a password as %2F %23 %3F %40 %25"

Host = tuple[str, int]


@dataclass(frozen=True)
class Address:
    """A `REDIS_URL`, read. The options are for the library's connections and hold passwords."""

    kind: Literal["node", "sentinel", "cluster"]
    hosts: tuple[Host, ...]
    options: dict[str, Any] = field(repr=False)
    master: str = ""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> Host | None:
        """The first server; `None` for a socket."""
        return self.hosts[0] if self.hosts else None

    @classmethod
    def read(cls, url: str) -> "Address":
        """Read a `REDIS_URL`; raises `ValueError` with a sentence that says what is wrong with it."""
        scheme, separator, rest = url.strip().partition("://")
        if not separator or scheme not in _SCHEMES:
            raise ValueError(f"must begin with {', '.join(f'{known}://' for known in _SCHEMES)}")
        if scheme == "unix":
            return cls("node", (), _options(url))
        transport, _, kind = scheme.partition("+")
        split = urlsplit(f"{transport}://{rest}")
        if split.fragment:
            raise ValueError(f"cannot be read: {_ESCAPES}")
        login, at, places = split.netloc.rpartition("@")
        hosts = tuple(_host(place, _PORTS[kind or "node"]) for place in places.split(","))
        if not kind and len(hosts) > 1:
            raise ValueError("names several servers: write redis+sentinel:// or redis+cluster:// in front of them")
        path = [unquote(part) for part in split.path.split("/") if part]
        query, theirs = _split_query(split.query)
        master = path.pop(0) if kind == "sentinel" and path else ""
        if kind == "sentinel" and not master:
            raise ValueError("lacks the name of the master, such as redis+sentinel://host:26379/mymaster")
        if path and (len(path) > 1 or not path[0].isdecimal()):
            raise ValueError(f"has a path that is no number of a database: {_ESCAPES}")
        if kind == "cluster" and path and path != ["0"]:
            raise ValueError("cannot name a database: a Cluster has only the first")
        db = f"/{path[0]}" if path else ""
        options = _options(f"{transport}://{login}{at}{db}?{query}")
        sentinel_options = _options(f"{transport}://?{_without_login(query)}") | theirs
        return cls(kind or "node", hosts, options, master, sentinel_options)  # type: ignore[arg-type]


def _host(place: str, port: int) -> Host:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@?#\s]*)(?::(\d{1,5}))?", place)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise ValueError(f"cannot be read: a port is a number from 1 to 65535; {_ESCAPES}")
    if not match[1] and not match[2]:
        raise ValueError("names no server")
    return match[1].strip("[]") or "localhost", int(match[2] or port)


def _split_query(query: str) -> tuple[str, dict[str, str]]:
    """The options for Redis, and the login at the Sentinels."""
    pairs = parse_qsl(query, keep_blank_values=True)
    theirs = {name.removeprefix("sentinel_"): value for name, value in pairs if name.startswith("sentinel_")}
    if unknown := set(theirs) - {"username", "password"}:
        raise ValueError(f"has options that nobody knows: {', '.join(f'sentinel_{name}' for name in sorted(unknown))}")
    return urlencode([(name, value) for name, value in pairs if not name.startswith("sentinel_")]), theirs


def _without_login(query: str) -> str:
    return urlencode([(name, value) for name, value in parse_qsl(query) if name not in ("username", "password", "db")])


def _options(url: str) -> dict[str, Any]:
    """The library's reading of an address, and its opinion of the options."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ValueError(f"cannot be read: {_ESCAPES}") from error
    if taken := _OURS & options.keys():
        raise ValueError(f"has options that are not for you to set: {', '.join(sorted(taken))}")
    arguments = {name: value for name, value in options.items() if name != "connection_class"}
    try:
        options.get("connection_class", Connection)(**arguments)
    except Exception as error:
        raise ValueError(f"has an option that does not fit: {error}") from error
    return options
