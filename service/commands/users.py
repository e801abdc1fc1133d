"""`python -m service user …`: look after one account."""

import argparse
import sys
from typing import Any

import orjson

from service.accounts.emails import InvalidEmail, canonical
from service.accounts.user import User
from service.admin.administration import COMMAND_LINE
from service.audit.events import Event
from service.audit.own import own
from service.audit.trail import Wanted
from service.errors import NotFound, ServiceError
from service.ids import is_id
from service.parts import Parts

_ALL = 1000  # events that an export has at most


def add_to(commands: Any) -> None:
    """Add `user` and what can be done with one to the command line."""
    user = commands.add_parser("user", help="show, disable, enable, sign out, delete or export an account")
    actions = user.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, does in {
        "show": "print the account and its sessions",
        "disable": "no more sign-in, and every session ends at once",
        "enable": "let a disabled account sign in again",
        "roles": "set the roles; without any, print them",
        "logout": "end every session",
        "delete": "delete the account; nothing is left of it but the audit trail",
        "export": "print everything that is kept of the account, as JSON",
    }.items():
        action = actions.add_parser(name, help=does)
        action.add_argument("who", metavar="EMAIL_OR_ID")
        if name == "roles":
            action.add_argument("roles", metavar="ROLE", nargs="*")
        if name == "delete":
            action.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can be asked")
        if name != "export":
            action.add_argument("--json", action="store_true", help="print JSON")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Do it; 0 when it was done, 1 when there is no such account or it may not be."""
    user = await _find(its, called.who)
    match called.action:
        case "show":
            _show(called, await _account(its, user))
        case "disable" | "enable":
            changed = await its.administration.change(COMMAND_LINE, user.id, active=called.action == "enable")
            state = "active" if changed.active else "disabled"
            _say(called, f"{changed.email} is {state} now.", {"active": changed.active})
        case "roles":
            if called.roles:
                user = await its.administration.change(COMMAND_LINE, user.id, roles=called.roles)
            _say(called, " ".join(user.roles), {"roles": user.roles})
        case "logout":
            count = await its.administration.sign_out(COMMAND_LINE, user.id)
            _say(called, f"{user.email} is signed out; {count} sessions ended.", {"ended": count})
        case "delete":
            if not called.yes:
                _confirm(user.email)
            await its.administration.delete(COMMAND_LINE, user.id)
            _say(called, f"{user.email} is deleted.", {"deleted": user.id})
        case "export":
            await its.audit.record(Event.USER_EXPORTED, user_id=user.id, by=COMMAND_LINE.by)
            print(_json(await _export(its, user)))
    return 0


async def _find(its: Parts, who: str) -> User:
    """The user with this email or this id; raises `NotFound`."""
    if "@" not in who:
        user = await its.users.find(who) if is_id(who) else None
    else:
        try:
            user = await its.users.find_by_email(canonical(who))
        except InvalidEmail as error:
            raise ServiceError(str(error)) from error
    if user is None:
        raise NotFound(f"There is no account {who}.")
    return user


def _confirm(email: str) -> None:
    if not sys.stdin.isatty():
        raise ServiceError("Nobody can be asked here; say --yes to delete the account.")
    if input(f"Delete {email} for good? Type the email: ").strip() != email:
        raise ServiceError("That is not the email; nothing was deleted.")


async def _account(its: Parts, user: User) -> dict[str, Any]:
    """The account in the words of the HTTP contract."""
    return {
        "id": user.id,
        "email": user.email,
        "emailVerified": user.email_verified,
        "firstName": user.first_name,
        "lastName": user.last_name,
        "name": user.display_name,
        "picture": user.picture,
        "roles": user.roles,
        "permissions": its.roles.permissions(user.roles),
        "provider": user.provider,
        "identities": [
            {"provider": held.provider, "issuer": held.issuer, "subject": held.subject, "email": held.email}
            for held in user.identities
        ],
        "active": user.active,
        "hasPassword": bool(user.password),
        "createdAt": user.created_at,
        "updatedAt": user.updated_at,
        "lastLoginAt": user.last_login_at,
        "sessions": [
            {
                "id": session.id,
                "device": session.device,
                "ip": session.ip,
                "userAgent": session.user_agent,
                "createdAt": session.created_at,
                "lastUsedAt": session.last_used_at,
                "expiresAt": session.expires_at,
            }
            for session in await its.families.of(user.id)
        ],
    }


async def _export(its: Parts, user: User) -> dict[str, Any]:
    """Everything that is kept of a user, for the one it is about; no hash and no token."""
    events, _ = await its.audit.page(Wanted(user.id), None, _ALL)
    keys = [
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "permissions": key.permissions,
            "createdAt": key.created_at,
            "lastUsedAt": key.last_used_at,
            "expiresAt": key.expires_at,
        }
        for key in await its.api_keys.of(user.id)
    ]
    account = await _account(its, user)
    return {**account, "newEmail": user.new_email, "apiKeys": keys, "events": [own(event) for event in events]}


def _show(called: argparse.Namespace, account: dict[str, Any]) -> None:
    if called.json:
        print(_json(account))
        return
    for name, value in account.items():
        if name == "sessions":
            print(f"{name:14}{len(value)}")
            for session in value:
                print(f"  {session['id']}  {session['device']}, {session['ip']}, last used {session['lastUsedAt']:%c}")
        elif name == "identities":
            print(f"{name:14}{', '.join(held['provider'] for held in value) or '-'}")
        elif value is not None:
            print(f"{name:14}{' '.join(value) if isinstance(value, tuple) else value}")


def _say(called: argparse.Namespace, text: str, content: dict[str, Any]) -> None:
    print(_json(content) if called.json else text)


def _json(content: Any) -> str:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()
