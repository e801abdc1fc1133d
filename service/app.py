"""The composition root: puts the parts together and hangs the routes in."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from service import tasks
from service.accounts.deletion import Deletion
from service.accounts.directory import Directory
from service.accounts.lookups import Lookups
from service.accounts.once import Once
from service.accounts.passwords import Passwords, load_common
from service.accounts.roles import Roles
from service.accounts.routes import routes as account_routes
from service.accounts.users import Users
from service.admin.administration import Administration
from service.admin.parked_mail import ParkedMail
from service.admin.routes import routes as admin_routes
from service.apikeys.keys import ApiKeys
from service.apikeys.routes import routes as api_key_routes
from service.audit.routes import routes as audit_routes
from service.audit.trail import Audit
from service.clock import Clock
from service.errors import StoreUnavailable
from service.http import cors
from service.http.address import Proxies
from service.http.body import LARGEST
from service.http.cookies import Cookies
from service.http.csrf import Csrf
from service.http.docs import routes as docs_routes
from service.http.examples import routes as example_routes
from service.http.health import routes as health_routes
from service.http.metrics import observe_shared, tell_requests
from service.http.metrics import routes as metrics_routes
from service.limits import policies
from service.limits.limiter import Limiter
from service.limits.places import Places
from service.mail.letters import Writer
from service.mail.notices import Notices
from service.mail.outbox import Outbox
from service.mail.post import Post
from service.mail.routes import routes as dev_mail_routes
from service.mail.showing import Showing
from service.mail.smtp import Smtp
from service.oauth import providers
from service.oauth.flow import OAuth
from service.oauth.joining import Joining
from service.oauth.outgoing import Outgoing
from service.oauth.redirects import Redirects
from service.oauth.routes import routes as oauth_routes
from service.oauth.states import States
from service.parts import PARTS, Parts, State
from service.recovery.errands import Errands
from service.recovery.recovery import Recovery
from service.recovery.routes import routes as recovery_routes
from service.sessions.families import Families
from service.sessions.reauthentication import Reauthentication
from service.sessions.refresh_tokens import RefreshTokens
from service.sessions.routes import routes as session_routes
from service.sessions.signin import SignIn
from service.settings import CONFIG, Settings
from service.signals.signals import Signals
from service.store import Store, Topology
from service.tokens.access import AccessTokens
from service.tokens.check import Check
from service.tokens.inspection import Inspection
from service.tokens.keys import Keys
from service.tokens.routes import routes as token_routes
from service.vault import Vault

if TYPE_CHECKING:
    from service.tracing import Tracing  # a thing to install, where traces are wanted

log = structlog.get_logger("service.app")

UPKEEP_EVERY = 5.0  # seconds
UPKEEP_SOON = 0.5  # seconds, while Redis is away


def assemble(
    settings: Settings, topology: Topology, passwords: Passwords | None = None, tracing: "Tracing | None" = None
) -> Parts:
    """All parts, joined; raises `SettingsError` for a table or a key file that cannot be used.

    With `tracing` those that wait for something else than us are of the kind that tells so.
    """
    vault, clock, roles = Vault(settings.secrets), Clock(), Roles.load()
    store_kind = tracing.store if tracing else Store
    store = store_kind(topology, settings.redis_wait_replicas, tracked=settings.revocation == "tracked")
    lookups, directory, audit = Lookups(store, vault), Directory(store), Audit(store, clock)
    users, families = Users(store, clock, lookups), Families(store, clock, settings)
    keys, refresh_tokens = Keys(store, clock, vault, audit, settings), RefreshTokens(vault)
    access_tokens = AccessTokens(keys, clock, roles, settings)
    threads = -(-(os.cpu_count() or 1) // settings.workers)  # of all workers together one for each core, or a few more
    passwords = passwords or Passwords(
        common=load_common(CONFIG / "common-passwords.txt"),
        queue=50 * threads,
        workers=threads,
        bcrypt_rounds=settings.bcrypt_rounds,
        threads=tracing.hashing if tracing else None,
    )
    once, outbox = Once(store, users, settings), Outbox(store, vault)
    notices, writer, places = Notices(outbox, clock), Writer(settings), Places(store, vault)
    showing = None if settings.smtp_url or settings.production else Showing(f"{settings.public_url}/dev/mail")
    smtp_kind = tracing.smtp if tracing else Smtp
    smtp = smtp_kind(settings.smtp_url.get_secret_value(), writer.domain) if settings.smtp_url else None
    limits = policies.load(settings)
    limiter, signals = Limiter(store, vault, limits, places), Signals(store, vault, clock, users, audit, limits)
    reauthentication = Reauthentication(passwords, signals, audit)
    signin = SignIn(
        store,
        clock,
        users,
        passwords,
        reauthentication,
        families,
        refresh_tokens,
        access_tokens,
        limiter,
        places,
        signals,
        notices,
        audit,
        settings,
    )
    outgoing = tracing.outgoing() if tracing else Outgoing()
    check = Check(access_tokens, families, users)
    api_keys = ApiKeys(store, clock, users, roles, check)
    errands = Errands(users, once, audit)
    removals = (api_keys.revoke_all, once.revoke_all)
    deletion = Deletion(users, reauthentication, families, audit, clock, removals)
    return Parts(
        settings=settings,
        store=store,
        clock=clock,
        roles=roles,
        lookups=lookups,
        directory=directory,
        audit=audit,
        users=users,
        passwords=passwords,
        families=families,
        refresh_tokens=refresh_tokens,
        access_tokens=access_tokens,
        keys=keys,
        check=check,
        api_keys=api_keys,
        inspection=Inspection(access_tokens, refresh_tokens, check, families, users, signin, audit, settings),
        signin=signin,
        deletion=deletion,
        administration=Administration(users, families, directory, roles, audit, deletion, outbox, signals, clock),
        parked_mail=ParkedMail(outbox, errands, audit),
        limiter=limiter,
        places=places,
        signals=signals,
        oauth=OAuth(providers.configured(settings, outgoing, clock), States(store)),
        joining=Joining(
            users,
            families,
            api_keys,
            signin,
            clock,
            audit,
            closed=settings.registration == "closed",
            says_taken=settings.registration == "open",
        ),
        redirects=Redirects(settings),
        outgoing=outgoing,
        proxies=Proxies(settings.trusted_proxies),
        cookies=Cookies(settings),
        csrf=Csrf(vault, settings),
        once=once,
        outbox=outbox,
        notices=notices,
        post=Post(outbox, writer, smtp or showing, errands.do),
        showing=showing,
        recovery=Recovery(
            users, once, passwords, reauthentication, families, api_keys, outbox, notices, audit, settings
        ),
        state=State(started=datetime.now(UTC)),
    )


def make_app(its: Parts) -> web.Application:
    """The application that serves these parts; it closes them when it stops."""
    app = web.Application(client_max_size=LARGEST)
    app[PARTS] = its
    tables = [
        account_routes,
        recovery_routes,
        session_routes,
        token_routes,
        api_key_routes,
        oauth_routes,
        admin_routes,
        audit_routes,
        health_routes,
        metrics_routes,
        docs_routes,
    ]
    tables += [dev_mail_routes] if its.showing else []
    # The example under /api/users/ must come before the route that takes any id there.
    for table in [example_routes, *tables] if its.settings.examples else tables:
        app.add_routes(table)
    cors.allow_origins(app)
    app.cleanup_ctx.append(_running)
    return app


async def close(its: Parts) -> None:
    """Let go of everything that the parts hold open, once what is being written is."""
    await its.signals.settled()
    await its.audit.settled()
    await its.outgoing.close()
    await its.store.close()
    its.passwords.close()


async def look_after(its: Parts) -> None:
    """What every instance does now and then: follow Redis' clock, its condition and its keys, and count."""
    its.clock.anchor(await its.store.time())
    its.state.condition = await its.store.condition()
    await its.keys.refresh()
    await its.lookups.reseal()
    await its.api_keys.note_uses()
    await observe_shared(its)


async def _running(app: web.Application) -> AsyncIterator[None]:
    its = app[PARTS]
    pause = UPKEEP_SOON
    with suppress(StoreUnavailable):
        await look_after(its)
        pause = UPKEEP_EVERY
    upkeep = [asyncio.create_task(its.store.watch()), asyncio.create_task(_keep_looking_after(its, pause))]
    posting = asyncio.create_task(its.post.run())
    yield
    its.post.stop()
    await tasks.cancel(*upkeep)
    await posting
    tell_requests(its)
    await close(its)


async def _keep_looking_after(its: Parts, pause: float) -> None:
    """The same again and again; soon again while Redis is away, so that recovery is noticed."""
    while True:
        await asyncio.sleep(pause)
        tell_requests(its)  # Redis there or not
        try:
            await look_after(its)
            pause = UPKEEP_EVERY
        except StoreUnavailable:
            pause = UPKEEP_SOON
        except Exception:
            # Whatever it is, the next round may do better, and requests are answered meanwhile.
            log.exception("upkeep.failed")
