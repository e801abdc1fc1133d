"""`python -m service repair`: prove that the indexes are true, and mend them."""

import argparse
from typing import Any

import orjson

from service.admin.repair import Repair
from service.parts import Parts

CLEAN, FOUND = 0, 1


def add_to(commands: Any) -> None:
    """Add `repair` to the command line."""
    repair = commands.add_parser(
        "repair",
        help="compare every index with the records, and mend what a crash has left",
        description="Safe beside a running service. Exit code 0: all was well; 1: something was found.",
    )
    repair.add_argument("--dry-run", action="store_true", help="only say what there is")
    repair.add_argument("--json", action="store_true", help="one JSON object a line, the last of them the sum")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Look at everything; 0 when all was well, 1 when something was found."""

    def tell(kind: str, what: str) -> None:
        print(orjson.dumps({"found": kind, "what": what}).decode() if called.json else f"{kind:12}{what}")

    findings = await Repair(
        its.users,
        its.lookups,
        its.directory,
        its.families,
        its.deletion,
        its.api_keys,
        its.once,
        its.audit,
        tell,
        called.dry_run,
    ).run()
    if called.json:
        mended = not (findings.clean or called.dry_run)
        print(orjson.dumps({"users": findings.looked_at, "sum": dict(findings.found), "mended": mended}).decode())
    elif findings.clean:
        print(f"All is well with {findings.looked_at} users.")
    else:
        left = "nothing was changed" if called.dry_run else "mended, but for what is contested"
        print(f"{findings.found.total()} found among {findings.looked_at} users; {left}.")
    return CLEAN if findings.clean else FOUND
