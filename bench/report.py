"""What is told of a run: JSON for machines, a page with a table and plots for people."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.race import SATURATED, WORKS
from service.settings import ROOT


def about(called: argparse.Namespace) -> dict[str, Any]:
    """The machine, the versions, the day, and how it was measured."""
    cpu = [
        line.split(":", 1)[1].strip() for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    packages = ("aiohttp", "uvloop", "redis", "hiredis", "pyjwt", "cryptography", "orjson")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "processor": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in packages},
            "Redis": _said("redis-server", "--version").partition("v=")[2].split(" ")[0],
            "wrk": _said("wrk", "--version").split(" [")[0].removeprefix("wrk ").strip(),
        },
        "rounds": called.rounds,
        "seconds": called.seconds,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def write(results: dict[str, Any], into: Path) -> None:
    """Write the JSON and the page, and show the page."""
    into.mkdir(parents=True, exist_ok=True)
    (into / "performance.json").write_text(json.dumps(results, indent=1) + "\n")
    page = "\n\n".join(_sections(results))
    (into / "performance.md").write_text(page + "\n")
    sys.stdout.write(page + "\n")


def _sections(results: dict[str, Any]) -> list[str]:
    return [works(results["works"])] if "works" in results else []


def works(found: dict[str, dict[str, Any]]) -> str:
    """A table for each kind of work."""
    return "\n\n".join(f"### {WORKS[work].title}\n\n{_table(rows)}" for work, rows in found.items())


def _table(rows: dict[str, Any]) -> str:
    head = (
        "",
        "to bare",
        "± %",
        "µs of a core",
        "Redis µs",
        "answers/s",
        "of a core",
        "with waiting",
        "wrk's",
        "p99 ms",
    )
    lines = [head, ("---",) * len(head)]
    for name, row in rows.items():
        full = f"{row['never idle']:.0%}" + ("" if row["never idle"] >= SATURATED else " *")
        lines.append(
            (
                name,
                f"{row['ratio']:.2f}",
                f"{row['ratio spread'] * 50:.0f}",
                f"{row['us']:.1f}",
                f"{row['redis us']:.1f}",
                f"{row['answers per s']:,}",
                f"{row['busy']:.0%}",
                full,
                f"{row['wrk busy']:.0%}",
                f"{row['p99 ms']:.1f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
