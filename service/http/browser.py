"""The browser before anybody has signed in: a short session that aiohttp-session keeps for us.

Redis
    browser:<digest>  string  what the session holds, as JSON; expires ten minutes after it was last used

It binds a CSRF token, and the starts of OAuth sign-ins, to one browser. Its cookie holds 256 random bits and Redis only
their digest. A sign-in ends it, or gives it a new identity while sign-ins of other tabs are still out, so that whoever
planted or learned the old one has nothing (session fixation, ASVS 7.2.4).
"""

import hashlib
import json
import secrets
import time
from datetime import timedelta
from functools import wraps

import aiohttp_session
from aiohttp import web

from service.http.cookies import Cookies, received
from service.http.guard import Handler
from service.parts import parts
from service.store import Store

LASTS = timedelta(minutes=10)
_BINDING = "binding"
_RENEWED = "renewed"
_AWAY_UNTIL = "away_until"


class BrowserSessions(aiohttp_session.AbstractStorage):
    """aiohttp-session's storage on our own `Store`, so that an outage is a 503 here as everywhere."""

    def __init__(self, store: Store, cookies: Cookies, secure: bool) -> None:
        super().__init__(
            cookie_name=cookies.host_only("browser"),
            domain=None,
            max_age=int(LASTS.total_seconds()),
            path="/",
            secure=secure or None,
            httponly=True,
            samesite="Lax",
        )
        self._store = store
        self._secure = secure or None

    def load_cookie(self, request: web.Request) -> str | None:
        return received(request, self.cookie_name)

    async def load_session(self, request: web.Request) -> aiohttp_session.Session:
        identity = self.load_cookie(request)
        stored = await self._store.one(("GET", _key(identity))) if identity else None
        if stored is None:
            return aiohttp_session.Session(None, data=None, new=True, max_age=self.max_age)
        return aiohttp_session.Session(identity, data=json.loads(stored), new=False, max_age=self.max_age)

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: aiohttp_session.Session
    ) -> None:
        if session.empty:
            if session.identity:
                await self._store.one(("DEL", _key(str(session.identity))))
                # The library's own deletion lacks Secure, so that a browser would keep a prefixed cookie.
                response.set_cookie(
                    self.cookie_name, "", max_age=0, path="/", secure=self._secure, httponly=True, samesite="Lax"
                )
            return
        if session.identity and session.pop(_RENEWED, False):
            await self._store.one(("DEL", _key(str(session.identity))))
            identity = secrets.token_urlsafe(32)
        else:
            identity = str(session.identity or secrets.token_urlsafe(32))
        self.save_cookie(response, identity, max_age=session.max_age)
        data = json.dumps(self._get_session_data(session))
        await self._store.one(("SET", _key(identity), data, "EX", int(LASTS.total_seconds())))


def with_browser_session(handler: Handler) -> Handler:
    """The route may use the browser's session; all others are spared the look."""

    @wraps(handler)
    async def wrapped(request: web.Request) -> web.StreamResponse:
        its = parts(request)
        storage = BrowserSessions(its.store, its.cookies, its.settings.cookie_secure)
        response: web.StreamResponse = await aiohttp_session.session_middleware(storage)(request, handler)
        return response

    wrapped.browser_session = True  # type: ignore[attr-defined]
    return wrapped


async def binding(request: web.Request) -> str:
    """A random name of this browser, made when first asked for; the session lasts ten minutes from now."""
    session = await aiohttp_session.get_session(request)
    if _BINDING not in session:
        session[_BINDING] = secrets.token_urlsafe(16)
    session.changed()
    return str(session[_BINDING])


async def known_binding(request: web.Request) -> str | None:
    """The name of this browser, if it has one."""
    return (await aiohttp_session.get_session(request)).get(_BINDING)


async def depart(request: web.Request) -> str:
    """The browser's name, for a sign-in that leaves for a provider and may take ten minutes to come back."""
    (await aiohttp_session.get_session(request))[_AWAY_UNTIL] = time.time() + LASTS.total_seconds()
    return await binding(request)


async def renew(request: web.Request) -> None:
    """Somebody has signed in: end the browser's session, or give it a new identity while sign-ins are out."""
    session = await aiohttp_session.get_session(request)
    if session.get(_AWAY_UNTIL, 0) > time.time():
        session[_RENEWED] = True
    elif not session.new:
        session.invalidate()


def _key(identity: str) -> str:
    return "browser:" + hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
