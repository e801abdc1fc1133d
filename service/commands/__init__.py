"""The command line: `python -m service` serves, `python -m service create-admin EMAIL` makes the first admin.

The other commands have a module each, with `add_to`, which says how it is called, and `run`, which does it and gives
the exit code.
"""

import argparse
import getpass
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from service import __version__, logs
from service.accounts.emails import InvalidEmail, canonical
from service.accounts.roles import ADMIN, USER
from service.accounts.user import User
from service.admin.administration import COMMAND_LINE
from service.app import assemble, close
from service.audit.events import Event
from service.commands import doctor, import_users, keys, mail, repair, trail, users
from service.errors import ServiceError, StoreUnavailable
from service.parts import Parts
from service.serving import open_redis, refuse, run, serve
from service.settings import Settings, SettingsError, load
from service.store import reach
from service.supervisor import supervise

OK, FAILED = 0, 1
READER_LEFT = 128 + signal.SIGPIPE  # as a shell tells it of any other program
MODULES = {
    "user": users,
    "audit": trail,
    "repair": repair,
    "keys": keys,
    "mail": mail,
    "doctor": doctor,
    "import-users": import_users,
}


def main(arguments: Sequence[str]) -> int:
    """Run a command; 0 is success, 1 a failure, 2 a wrong call, 3 settings that cannot be."""
    called = _parser().parse_args(arguments)
    try:
        settings = load(os.environ, Path(".env"))
        if called.command == "create-admin":
            logs.configure(settings, sys.stderr)
            return run(_create_admin(settings, called.email))
        if module := MODULES.get(called.command):
            logs.configure(settings, sys.stderr)
            return run(_with_parts(settings, module, called))
        logs.configure(settings)
        return supervise(settings) if settings.workers > 1 else run(serve(settings))
    except SettingsError as error:
        return refuse(error)
    except StoreUnavailable:
        print("Redis does not answer. `python -m service doctor` says what to look at.", file=sys.stderr)
        return FAILED
    except ServiceError as error:
        print(error.detail, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service", description="Gatepost, an authentication service.")
    parser.add_argument("--version", action="version", version=f"gatepost {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve until SIGTERM or Ctrl-C (the default)")
    admin = commands.add_parser(
        "create-admin",
        help="make an admin account, or make an existing account an admin",
        description="The password of a new account is asked for, or read from standard input.",
    )
    admin.add_argument("email", metavar="EMAIL")
    for module in MODULES.values():
        module.add_to(commands)
    return parser


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Parts]:
    """The parts, on the service's own Redis."""
    async with open_redis(settings) as url:
        its = assemble(settings, reach(url))
        try:
            # The doctor has a word to say then, and every other command fails by itself.
            with suppress(StoreUnavailable):
                its.clock.anchor(await its.store.time())
            yield its
        finally:
            await close(its)


async def _with_parts(settings: Settings, module: Any, called: argparse.Namespace) -> int:
    async with _opened(settings) as its:
        try:
            return int(await module.run(its, called))
        except BrokenPipeError:  # who read along, `head` for one, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would fail as well
            return READER_LEFT


async def _create_admin(settings: Settings, email: str) -> int:
    try:
        email = canonical(email)
    except InvalidEmail as error:
        print(error, file=sys.stderr)
        return FAILED
    async with _opened(settings) as its:
        print(await _promote(its, email) or await _make(its, email))
    return OK


async def _promote(its: Parts, email: str) -> str | None:
    """Make an existing account an admin; its older tokens become stale."""
    if not (user := await its.users.find_by_email(email)):
        return None
    if ADMIN in user.roles:
        return f"{email} is an admin already{'' if user.active else ', and disabled'}."
    await its.administration.change(COMMAND_LINE, user.id, roles=(*user.roles, ADMIN))
    if not user.active:
        return f"{email} has the role now, but the account is disabled: `user enable` lets it sign in."
    if user.email_verified:
        return f"{email} is an admin now."
    made = f"{user.created_at:%Y-%m-%d}"
    return (
        f"{email} is an admin now. Nobody has proved that this email is theirs: the account was made on {made}, "
        "so make sure that it belongs to whom you think."
    )


async def _make(its: Parts, email: str) -> str:
    password = _ask_for_password()
    its.passwords.check(password, email)
    user = User(id="", email=email, password=await its.passwords.hash(password), email_verified=True)
    made = await its.users.register(replace(user, roles=(USER, ADMIN)))
    await its.audit.record(Event.ADMIN_CREATED, user_id=made.id, by=COMMAND_LINE.by)
    return f"{email} is an admin now, with a new account."


def _ask_for_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise ServiceError("The two passwords differ; nothing was changed.")
    return password
