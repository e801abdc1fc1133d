"""What is told of a run: JSON for machines, a page with tables and plots for people."""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench import plots
from bench.race import SATURATED, WORKS
from bench.targets import FOLDER, PEERS, PEERS_PYTHON
from service.settings import ROOT

BEGIN, END = "<!-- What `make bench` wrote: -->", "<!-- the end of it -->"
RATIOS, GROWTH = "performance.svg", "performance-growth.svg"
SHORT = {name: name for name in WORKS} | {"limited": "429"}
PLOTTED = ("verify", "me", "refresh", "limited")


class Goal(NamedTuple):
    """The most that something may be, and where to find what it is."""

    what: str
    most: float
    unit: str
    path: tuple[str, ...]


def _ratios() -> Iterator[Goal]:
    off, on = "Gatepost, log off", "Gatepost, log on"
    for work, target, most in (
        ("verify", off, 1.5),
        ("verify", on, 2.0),
        ("verify", "Gatepost, tracked, log off", 1.3),
        ("me", off, 2.0),
        ("me", on, 2.0),
        ("refresh", off, 2.5),
        ("refresh", on, 2.5),
        ("refresh", "Gatepost, HS256, log off", 1.9),
        ("refresh", "Gatepost, HS256, log on", 1.9),
        ("limited", off, 1.5),
        ("limited", on, 1.5),
        ("garbage", off, 1.3),
        ("garbage", on, 1.3),
        ("expired", off, 1.3),
        ("expired", on, 1.3),
    ):
        yield Goal(
            f"{WORKS[work].title}: {target.partition(', ')[2]}", most, "× bare", ("works", work, target, "ratio")
        )


GOALS = (
    *_ratios(),
    Goal("log-in: the bare hash on all cores, as throughput", 1.15, "×", ("login", "throughput ratio")),
    Goal("verify's p99 in a storm of log-ins: its quiet value", 5, "×", ("storm", "Gatepost", "times")),
    Goal("from start to ready", 1000, "ms", ("start", "Gatepost", "ready ms")),
    Goal("memory of an idle worker", 90, "MB", ("start", "Gatepost", "idle MB")),
    Goal("Redis for a user with one session", 900, "bytes", ("memory", "bytes of a user with a session")),
)


def about(called: argparse.Namespace) -> dict[str, Any]:
    """The machine, the versions, the day, and how it was measured."""
    processors = re.findall(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.M)
    packages = ("aiohttp", "uvloop", "redis", "hiredis", "pyjwt", "cryptography", "orjson", "argon2-cffi")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "processor": processors[0] if processors else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "load before": round(os.getloadavg()[0], 1),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in packages},
            "Redis": _said("redis-server", "--version").partition("v=")[2].split(" ")[0],
            "wrk": _said("wrk", "--version").partition("/")[2].split(" ")[0],
        },
        "peers": {PEERS[name].title: _versions(name) for name in called.peers},
        "rounds": called.rounds,
        "seconds": called.seconds,
    }


def _versions(name: str) -> dict[str, str]:
    """Of a peer's own packages."""
    folder = FOLDER / PEERS[name].folder
    if (lock := folder / "package-lock.json").is_file():
        packages = json.loads(lock.read_text())["packages"]
        wanted = packages[""]["dependencies"]
        return {
            "node": _said("node", "--version"),
            **{one: packages[f"node_modules/{one}"]["version"] for one in wanted},
        }
    if PEERS[name].command[0] != str(PEERS_PYTHON):
        return {name: version(name) for name in ("aiohttp", "redis", "pyjwt", "bcrypt", "uvloop")}
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", _read(ROOT / "requirements" / "bench.lock"), re.M))
    return {one: pinned[one] for one in ("fastapi-users", "fastapi", "redis", "uvicorn", "uvloop")}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def write(results: dict[str, Any], into: Path) -> None:
    """Write the JSON, the plots and the page, and show the page; what else is on it stays."""
    into.mkdir(parents=True, exist_ok=True)
    (into / "performance.json").write_text(json.dumps(results, indent=1) + "\n")
    told = "\n\n".join(section for section in _sections(results, into) if section)
    page = _read(into / "performance.md") or f"{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    (into / "performance.md").write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{rest.partition(END)[2]}")
    print(told)


def _sections(results: dict[str, Any], into: Path) -> Iterator[str]:
    yield _about(results["about"])
    if failed := results.get("failed"):
        yield "Could not be measured:\n\n" + "\n".join(f"- {one}" for one in failed)
    yield _goals(results)
    if works := results.get("works"):
        yield "### Side by side\n\nServer CPU for each request, as a multiple of the bare handler's.\n\n" + _overview(
            works
        )
        panels = {
            WORKS[work].title.replace("`", ""): {name: row["ratio"] for name, row in works[work].items()}
            for work in PLOTTED
            if work in works
        }
        if panels:
            (into / RATIOS).write_text(plots.bars(panels))
            yield f"![The same as bars, cut off at 12]({RATIOS})"
        for work, rows in works.items():
            yield f"### {WORKS[work].title}\n\nThe bare handler answers {rows['bare']['size']} bytes.\n\n{_race(rows)}"
        yield _logging(results)
    yield from _log_ins(results)
    if starts := results.get("start"):
        rows = [(name, row["ready ms"], row["processor ms"], row["idle MB"]) for name, row in starts.items()]
        yield "### Start and memory\n\n" + _table(("", "start to ready, ms", "of a core, ms", "idle, MB"), rows)
    yield from _growth(results, into)
    if peers := results["about"]["peers"]:
        told = [
            f"- **{peer.title}** ({_listed(peers[peer.title])}). {peer.does}"
            for peer in PEERS.values()
            if peer.title in peers
        ]
        yield "### The others, and what they do not do\n\n" + "\n".join(told)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _about(run: dict[str, Any]) -> str:
    return (
        f"Measured on {run['date']} at {run['commit']}, in {run['minutes']} minutes, on {run['cores']} cores of a "
        f"{run['processor']}, {run['system']}, load {run['load before']} before it began. {_listed(run['versions'])}. "
        f"Medians of {run['rounds']} rounds of {run['seconds']} s."
    )


def _goals(results: dict[str, Any]) -> str:
    rows = []
    for goal in GOALS:
        found: Any = results
        for name in goal.path:
            found = (found or {}).get(name)
        if found is not None:
            rows.append(
                (goal.what, f"{goal.most:g} {goal.unit}", _number(found), "yes" if found <= goal.most else "**no**")
            )
    return "### Targets\n\n" + _table(("", "at most", "measured", "reached"), rows) if rows else ""


def _overview(works: dict[str, dict[str, Any]]) -> str:
    """The ratios of all, a column for each kind of work."""
    names = dict.fromkeys(name for rows in works.values() for name in rows if not name.startswith("bare"))
    found = {name: [f"{rows[name]['ratio']:.2f}" if name in rows else "" for rows in works.values()] for name in names}
    return _table(("", *map(SHORT.__getitem__, works)), ((name, *ratios) for name, ratios in found.items()))


def _race(rows: dict[str, Any]) -> str:
    head = (
        "",
        "× bare",
        "± %",
        "µs of a core",
        "Redis, µs",
        "answers/s",
        "its core",
        "never idle",
        "wrk's core",
        "p99, ms",
    )
    return _table(
        head,
        (
            (
                name,
                f"**{row['ratio']:.2f}**",
                f"{row['ratio spread'] * 50:.0f}",
                _number(row["us"]),
                _number(row["redis us"]),
                f"{row['answers per s']:,}",
                f"{row['busy']:.0%}",
                "yes" if row["never idle"] >= SATURATED else f"{row['never idle']:.0%}",
                f"{row['wrk busy']:.0%}",
                _number(row["p99 ms"]),
            )
            for name, row in rows.items()
        ),
    )


def _logging(results: dict[str, Any]) -> str:
    """What the log and the metrics take."""
    verify = results["works"].get("verify", {})
    off, on = verify.get("Gatepost, log off"), verify.get("Gatepost, log on")
    if not off or not on:
        return ""
    line = _number(on["us"] - off["us"])
    told = f"A line of the access log takes {line} µs of a core: verify with the log less verify without."
    if counting := results.get("metrics"):
        told += f" Metrics are always on; counting a request takes {_number(counting['us'])} µs, by itself in a loop."
    return "### Log and metrics\n\n" + told


def _log_ins(results: dict[str, Any]) -> Iterator[str]:
    if found := results.get("login"):
        yield (
            "### Log-ins\n\n"
            f"argon2id alone: {found['hashes per s']} a second on all cores, {found['hash ms']} ms of a core each. "
            f"Log-ins: {found['log-ins per s']} a second, {found['log-in ms']} ms each. That is "
            f"{found['throughput ratio']:.2f} × fewer, and {found['processor ratio']:.2f} × the processor time."
        )
    if storms := results.get("storm"):
        head = (
            "",
            "verify's p99, quiet",
            "in the storm",
            "times",
            "longest",
            "verified/s, quiet",
            "in the storm",
            "log-ins/s",
        )
        names = ("quiet p99 ms", "storm p99 ms", "times", "longest ms", "quiet per s", "storm per s", "log-ins per s")
        rows = [(name, *(_number(row[one]) for one in names)) for name, row in storms.items()]
        yield "### Verify in a storm of log-ins\n\nMilliseconds.\n\n" + _table(head, rows)


def _growth(results: dict[str, Any], into: Path) -> Iterator[str]:
    users, connections, workers = (results.get(name) for name in ("users", "connections", "workers"))
    drawn = []
    if users:
        few = [
            (row["users"], row["us"])
            for row in users.values()
            if row["tokens"] <= row["users"] and row["tokens"] <= 1000
        ]
        drawn.append(plots.Lines("Cost of a verification", "users", "µs of a core", {"Gatepost": few}))
    if connections:
        its = {
            name: [(int(count), rows[key]["us"]) for count, rows in connections.items()]
            for key, name in (("bare", "bare"), ("ours", "Gatepost"))
        }
        drawn.append(plots.Lines("Cost of an answer", "connections", "µs of a core", its))
    if drawn:
        (into / GROWTH).write_text(plots.lines(drawn))
        yield f"### What grows with what\n\n![Cost by users, and by connections]({GROWTH})"
    head = ("verify: × bare", "± %", "µs of a core", "Redis, µs", "answers/s")

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        each = f"{row['answers per s']:,}"
        return (
            f"{row['ratio']:.2f}",
            f"{row['ratio spread'] * 50:.0f}",
            _number(row["us"]),
            _number(row["redis us"]),
            each,
        )

    if users:
        yield _table(
            ("users", "live tokens", *head),
            ((f"{row['users']:,}", f"{row['tokens']:,}", *cells(row)) for row in users.values()),
        )
    if connections:
        yield _table(
            ("connections", *head, "bare, µs"),
            ((count, *cells(rows["ours"]), _number(rows["bare"]["us"])) for count, rows in connections.items()),
        )
    if workers:
        head = ("verify: × one process", *head[1:])
        yield _table(
            ("`WORKERS`", *head, "the least busy one's share"),
            ((count, *cells(row), f"{row['least share']:.0%}") for count, row in workers.items()),
        )


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *(tuple(map(str, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"
