"""The parts of the service, put together once in `app.py` and handed to every route."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from aiohttp import web

from service.accounts.deletion import Deletion
from service.accounts.directory import Directory
from service.accounts.lookups import Lookups
from service.accounts.once import Once
from service.accounts.passwords import Passwords
from service.accounts.roles import Roles
from service.accounts.users import Users
from service.admin.administration import Administration
from service.admin.parked_mail import ParkedMail
from service.apikeys.keys import ApiKeys
from service.audit.trail import Audit
from service.clock import Clock
from service.http.address import Proxies
from service.http.cookies import Cookies
from service.http.csrf import Csrf
from service.limits.limiter import Limiter
from service.limits.places import Places
from service.mail.notices import Notices
from service.mail.outbox import Outbox
from service.mail.post import Post
from service.mail.showing import Showing
from service.metrics import Meter
from service.oauth.flow import OAuth
from service.oauth.joining import Joining
from service.oauth.outgoing import Outgoing
from service.oauth.redirects import Redirects
from service.recovery.recovery import Recovery
from service.sessions.families import Families
from service.sessions.refresh_tokens import RefreshTokens
from service.sessions.signin import SignIn
from service.settings import Settings
from service.signals.signals import Signals
from service.store import Condition, Store
from service.tokens.access import AccessTokens
from service.tokens.check import Check
from service.tokens.inspection import Inspection
from service.tokens.keys import Keys


@dataclass
class State:
    """What changes while an instance runs; nothing of it outlives the instance."""

    started: datetime
    draining: bool = False
    under_way: int = 0  # requests, without those that wait for their bodies
    condition: Condition = field(default_factory=Condition)
    connections: Callable[[], int] = lambda: 0  # how many are open
    count_sessions_at: float = field(default_factory=lambda: time.monotonic() + 4)  # not at the start: that is quick
    openapi: tuple[bytes, str] | None = None  # the document and its ETag, once somebody has asked
    meters: dict[object, Meter] = field(default_factory=dict)  # of every route that was asked for


@dataclass(frozen=True)
class Parts:
    """Everything a route may need."""

    settings: Settings
    store: Store
    clock: Clock
    roles: Roles
    lookups: Lookups
    directory: Directory
    audit: Audit
    users: Users
    passwords: Passwords
    families: Families
    refresh_tokens: RefreshTokens
    access_tokens: AccessTokens
    keys: Keys
    check: Check
    api_keys: ApiKeys
    inspection: Inspection
    signin: SignIn
    deletion: Deletion
    administration: Administration
    parked_mail: ParkedMail
    limiter: Limiter
    places: Places
    signals: Signals
    oauth: OAuth
    joining: Joining
    redirects: Redirects
    outgoing: Outgoing
    proxies: Proxies
    cookies: Cookies
    csrf: Csrf
    once: Once
    outbox: Outbox
    notices: Notices
    post: Post
    showing: Showing | None
    recovery: Recovery
    state: State


PARTS = web.AppKey("parts", Parts)
_SERVED_BY = web.RequestKey("served_by", Parts)
T = TypeVar("T")


def serve_with(request: web.Request, its: Parts) -> None:
    """These parts serve the request."""
    request[_SERVED_BY] = its


def parts(request: web.Request) -> Parts:
    """The parts that serve this request."""
    return request[_SERVED_BY]


def kept(request: web.Request, key: web.RequestKey[T]) -> T | None:
    """What is kept with the request under a key; the framework's `get` raises and catches where there is nothing."""
    return request._state.get(key)
