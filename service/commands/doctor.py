"""`python -m service doctor`: look at the installation, and say what to do about it."""

import argparse
from dataclasses import asdict
from typing import Any

import orjson

from service.doctor import Level, examine
from service.parts import Parts

WELL, ILL = 0, 1


def add_to(commands: Any) -> None:
    """Add `doctor` to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="look at Redis, keys, cookies, proxies and providers, and say what is wrong",
        description="Exit code 0: nothing has to be mended; 1: something has. docs/operations.md explains each line.",
    )
    doctor.add_argument("--json", action="store_true", help="write a JSON list, for scripts")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Print every finding; 0 when none is an error."""
    findings = await examine(its)
    if called.json:
        print(orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2).decode())
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.about}: {finding.told}")
            if finding.remedy:
                print(f"         -> {finding.remedy}")
    return ILL if any(finding.level is Level.ERROR for finding in findings) else WELL
