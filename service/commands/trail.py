"""`python -m service audit tail`: read the audit trail, and follow it."""

import argparse
import asyncio
from typing import Any

import orjson

from service.audit.trail import AuditEvent, Wanted
from service.parts import Parts

_LOOKS_EVERY = 1.0  # seconds


def add_to(commands: Any) -> None:
    """Add `audit tail` to the command line."""
    audit = commands.add_parser("audit", help="read the audit trail")
    actions = audit.add_subparsers(dest="action", metavar="ACTION", required=True)
    tail = actions.add_parser("tail", help="print the latest events, the oldest of them first")
    tail.add_argument("-n", dest="count", type=int, default=20, metavar="COUNT", help="how many (20)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what happens from now on")
    tail.add_argument("--user", metavar="ID", help="events of this user alone")
    tail.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Print, and follow until Ctrl-C; 0."""
    wanted = Wanted(called.user)
    position = await its.audit.latest()
    events, _ = await its.audit.page(wanted, None, max(0, called.count))
    printed = {event.id for event in events}  # what came in between the two looks is seen by both
    for event in reversed(events):
        _print(event, called.json)
    while called.follow:
        await asyncio.sleep(_LOOKS_EVERY)
        for event in await its.audit.since(position):
            position = event.position
            if event in wanted and event.id not in printed:
                _print(event, called.json)
    return 0


def _print(event: AuditEvent, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(event, option=orjson.OPT_UTC_Z).decode(), flush=True)
        return
    facts = {"user": event.user_id, "session": event.session_id, "ip": event.ip, **event.detail}
    told = " ".join(f"{name}={_plain(fact)}" for name, fact in facts.items() if fact is not None)
    print(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.type:32}{told}", flush=True)


def _plain(fact: Any) -> str:
    text = ",".join(map(str, fact)) if isinstance(fact, list) else str(fact)
    return text if text.isprintable() else repr(text)
