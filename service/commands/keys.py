"""The key ring on the command line: `python -m service keys list | rotate | retire KID`."""

import argparse
from datetime import datetime
from typing import Any

import orjson

from service.parts import Parts
from service.tokens.keys import Listed, State


def add_to(commands: Any) -> None:
    """Add `keys` and its three to the command line."""
    keys = commands.add_parser("keys", help="see the keys that sign access tokens, bring in a new one, retire one")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="write JSON, for scripts")
    acts = keys.add_subparsers(dest="act", metavar="ACT", required=True)
    acts.add_parser("list", help="show every key and when it signs", parents=[shared])
    acts.add_parser(
        "rotate",
        help="bring in a new key",
        description="The new key is published at once and signs ten minutes later, when every cache knows it.",
        parents=[shared],
    )
    retire = acts.add_parser(
        "retire",
        help="refuse everything that a key has signed, at once",
        description="For a key that may be known to others. Another key signs at once; clients refresh their tokens.",
        parents=[shared],
    )
    retire.add_argument("kid", metavar="KID")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Do what was asked and print the ring; raises `ServiceError`."""
    keys = its.keys
    await keys.refresh()
    told = ""
    match called.act:
        case "rotate":
            added = await keys.rotate()
            told = f"{added.kid} signs from {_moment(added.signs_from)} on.\n"
        case "retire":
            await keys.retire(called.kid)
            told = f"{called.kid} is retired. What it has signed is refused within seconds.\n"
    if called.json:
        print(orjson.dumps({"keys": [_shape(key) for key in keys.all()]}, option=orjson.OPT_INDENT_2).decode())
    else:
        print(told + "\n".join(_line(key) for key in keys.all()))
    return 0


def _line(key: Listed) -> str:
    match key.state:
        case State.WAITING:
            when = f"signs from {_moment(key.signs_from)} on"
        case State.SIGNING:
            when = f"signs since {_moment(key.signs_from)}" if key.signs_from else "signs; from the settings"
        case _:
            when = f"checks until {_moment(key.until)}" if key.until else "checks"
    return f"{key.kid}  {key.algorithm}  {when}"


def _shape(key: Listed) -> dict[str, object]:
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": key.state,
        "signsFrom": _moment(key.signs_from),
        "until": _moment(key.until),
    }


def _moment(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z") if time else None
