"""Parked mail on the command line: `python -m service mail parked | retry ID … | drop ID …`."""

import argparse
import sys
from typing import Any

import orjson

from service.admin.administration import COMMAND_LINE
from service.admin.parked_mail import Shown
from service.errors import NotFound
from service.parts import Parts

_PAGE = 100
DONE, NOT_ALL = 0, 1


def add_to(commands: Any) -> None:
    """Add `mail` and its three to the command line."""
    mail = commands.add_parser("mail", help="see mail that was given up, have it tried again, or forget it")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="write JSON, for scripts")
    acts = mail.add_subparsers(dest="act", metavar="ACT", required=True)
    acts.add_parser("parked", help="show every mail that was given up, the latest first", parents=[shared])
    retry = acts.add_parser(
        "retry",
        help="have it tried again",
        description="The running instances send it, within seconds; asked for twice it is sent once.",
        parents=[shared],
    )
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", default=[], help="as `mail parked` shows it")
    which.add_argument("--all", action="store_true", help="everything that is parked")
    drop = acts.add_parser("drop", help="forget it; it is never sent", parents=[shared])
    drop.add_argument("ids", metavar="ID", nargs="+", help="as `mail parked` shows it")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Do it; 0 when all of it was done, 1 when a mail is not there (any more)."""
    if called.act == "parked":
        await _show(its, called)
        return DONE
    if called.act == "retry" and called.all:
        count, missing = await its.parked_mail.retry_all(COMMAND_LINE), list[str]()
    else:
        act = its.parked_mail.retry if called.act == "retry" else its.parked_mail.drop
        missing = []
        for id_ in called.ids:
            try:
                await act(COMMAND_LINE, id_)
            except NotFound:
                missing.append(id_)
        count = len(called.ids) - len(missing)
    done = "retried" if called.act == "retry" else "dropped"
    if called.json:
        print(orjson.dumps({done: count, "missing": missing}, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{count} to be tried again by the running instances." if done == "retried" else f"{count} dropped.")
    for id_ in missing:
        print(f"There is no parked mail {id_}.", file=sys.stderr)
    return NOT_ALL if missing else DONE


async def _show(its: Parts, called: argparse.Namespace) -> None:
    shown, cursor = await its.parked_mail.page(None, _PAGE)
    while cursor:
        more, cursor = await its.parked_mail.page(cursor, _PAGE)
        shown += more
    if called.json:
        content = {"parked": [mail.told() for mail in shown]}
        print(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())
        return
    for mail in shown:
        print(_line(mail))
    if not shown:
        print("No mail is parked.")


def _line(mail: Shown) -> str:
    parked = mail.parked
    state = "being tried again" if parked.retrying else f"parked {parked.parked_at:%Y-%m-%d %H:%M}"
    return (
        f"{parked.id}  {parked.kind:16} to {mail.recipient or 'nobody known'}, {parked.tries} tries, {state}: "
        f"{parked.reason}"
    )
