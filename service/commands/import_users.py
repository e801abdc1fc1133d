"""`python -m service import-users FILE`: bring accounts from another system, one JSON object a line."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import orjson

from service.accounts.importing import Fate, Importing, Outcome
from service.accounts.roles import USER
from service.admin.administration import COMMAND_LINE
from service.audit.events import Event
from service.errors import ServiceError
from service.parts import Parts

ALL_IN, SOME_REFUSED = 0, 1
_BAR = 30  # characters
_SHOWN_EVERY = 100  # lines


def add_to(commands: Any) -> None:
    """Add `import-users` to the command line."""
    importing = commands.add_parser(
        "import-users",
        help="bring accounts, with their password hashes, from another system",
        description="Safe to repeat: what is there already is passed over. docs/operations.md tells the fields.",
    )
    importing.add_argument("file", metavar="FILE", type=Path, help="JSON lines in UTF-8")
    importing.add_argument("--json", action="store_true", help="write the sum and the refusals as JSON")


async def run(its: Parts, called: argparse.Namespace) -> int:
    """Import a file; 0 when every line is in, 1 when some were refused."""
    with _opened(called.file) as (lines, count):
        progress = _Progress(count)
        try:
            summary = await Importing(its.users, its.passwords, its.roles).run(lines, progress.tell)
        finally:  # what was interrupted has made accounts too
            progress.end()
            if made := progress.imported:
                given = {role: number for role, number in progress.roles.items() if role != USER}
                await its.audit.record(Event.USERS_IMPORTED, by=COMMAND_LINE.by, count=made, roles=given or None)
    if called.json:
        refused = [{"line": outcome.line, "reason": outcome.reason} for outcome in summary.refused]
        sums = {"imported": summary.imported, "thereAlready": summary.there_already, "refused": refused}
        print(orjson.dumps(sums, option=orjson.OPT_INDENT_2).decode())
    else:
        for outcome in summary.refused:
            print(f"line {outcome.line}: {outcome.reason}", file=sys.stderr)
        print(f"{summary.imported} imported, {summary.there_already} there already, {len(summary.refused)} refused.")
    return SOME_REFUSED if summary.refused else ALL_IN


@contextmanager
def _opened(file: Path) -> Iterator[tuple[TextIO, int]]:
    """The lines of a file, and how many they are: all of it is text, or nothing of it is imported.

    They stay in the file, however many; only what comes through a pipe is kept in memory.
    """
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(file.open(encoding="utf-8"))
            lines: TextIO = opened if opened.seekable() else StringIO(opened.read())
            count = sum(1 for _ in lines)
            lines.seek(0)
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"{file} cannot be read: {error}") from error
        yield lines, count


class _Progress:
    """What was imported so far; and a bar on the terminal, where standard error is one."""

    def __init__(self, total: int) -> None:
        self.imported = 0
        self.roles = Counter[str]()
        self._total = max(total, 1)
        self._done = 0
        self._shown = sys.stderr.isatty()

    def tell(self, outcome: Outcome) -> None:
        if outcome.fate is Fate.IMPORTED:
            self.imported += 1
            self.roles.update(outcome.roles)
        self._done += 1
        if self._shown and self._done % _SHOWN_EVERY == 0:
            filled = _BAR * self._done // self._total
            bar = "#" * filled + "." * (_BAR - filled)
            print(f"\r[{bar}] {self._done:,} of {self._total:,}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr)
