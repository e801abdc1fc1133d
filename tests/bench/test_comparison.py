"""`make bench`: what it says is what happened. Its figures are not looked at here, for this machine has other work."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from aiohttp import web

from bench import people, plots, report, targets
from bench.crowd import Crowd
from bench.ground import BenchError, family, private_redis, processor, running
from bench.load import Ask, press
from bench.people import email
from bench.race import WORKS
from bench.targets import FOLDER, PEERS, Target
from service.errors import TokenRevoked
from service.sessions.families import EndReason
from service.settings import ROOT
from tests.conftest import in_ci

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def wrk():
    if not shutil.which("wrk"):
        pytest.fail("needs wrk") if in_ci() else pytest.skip("needs wrk")


@pytest.fixture
def yardstick(tmp_path):
    with targets.bare(tmp_path, {180}) as target:
        yield target


def test_a_comparison_tells_ratios_to_the_bare_handler_on_a_page_and_as_json(wrk, tmp_path):
    command = ["-m", "bench", "--only", "verify,refresh,limited,expired", "--peers", "none"]
    done = subprocess.run(
        [sys.executable, *command, "--rounds", "1", "--seconds", "1", "--into", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "performance.json").read_text())
    assert found["works"].keys() == {"verify", "refresh", "limited", "expired"}
    for rows in found["works"].values():
        assert rows["bare"]["ratio"] == 1
        assert all(row["us"] > 0 and row["answers per s"] > 0 and row["rounds"] for row in rows.values())
        assert {"Gatepost, log off", "Gatepost, log on"} <= rows.keys()
    page = (tmp_path / "performance.md").read_text()
    assert all(WORKS[work].title in page for work in found["works"])
    assert (tmp_path / "performance.svg").read_text().startswith("<svg")


def test_a_load_with_refusals_where_none_should_be_is_no_measurement(wrk, yardstick):
    nowhere = Ask("bearer", "/nowhere", yardstick.lines("get", ["x"]))

    with pytest.raises(BenchError, match="were refusals"):
        press(yardstick.port, nowhere, 1, {})


def test_a_load_without_refusals_where_all_should_be_is_none_either(wrk, yardstick):
    with pytest.raises(BenchError, match="0 were refusals"):
        press(yardstick.port, Ask("bearer", "/180", yardstick.lines("get", ["x"]), refused=True), 1, {})


def test_what_a_load_takes_is_told_by_process(wrk, yardstick):
    told = press(yardstick.port, Ask("bearer", "/180", yardstick.lines("get", ["x"])), 1, {"server": yardstick.pid})

    assert told.answers > 0
    assert told.used["server"] > 0
    assert 0 < told.used["wrk"] < told.used["server"]


def test_the_bare_handler_answers_exactly_as_many_bytes_as_it_is_told(yardstick):
    answers = [yardstick.call(*asked) for asked in (("GET", "/180"), ("GET", "/bytes/180"), ("POST", "/180", {"a": 1}))]

    assert [(answer.status, len(answer.body)) for answer in answers] == [(200, 180)] * 3
    assert len({answer.headers["Content-Type"] for answer in answers}) == 2  # one has no charset, which is its due


async def test_a_target_that_refuses_nobody_is_found_out(tmp_path, aiohttp_server):
    async def anything(_: web.Request) -> web.Response:
        content = {"active": True, "sub": "ada", "accessToken": "a.b.c", "refreshToken": "x"}
        return web.json_response(content | {"user": {"id": "ada", "email": email(0)}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    server = await aiohttp_server(app)
    lax = Target("lax", server.port, 0, tmp_path)

    with pytest.raises(BenchError, match="lax answered 200 and not 401"):
        await asyncio.to_thread(targets.check, lax)


def test_processor_time_counts_the_children_of_a_process(tmp_path):
    spinning = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"

    with running(tmp_path, sys.executable, "-c", spinning) as process:
        until = time.monotonic() + 30
        while processor(process.pid) < 0.5 and time.monotonic() < until:
            time.sleep(0.05)
        used = processor(process.pid)
        for child in family(process.pid)[1:]:
            os.kill(child, signal.SIGKILL)

    assert used >= 0.5


def test_copies_of_a_person_are_people_whose_tokens_are_good_and_can_be_ended(monkeypatch):
    monkeypatch.setattr(people.logs, "configure", lambda *_: None)  # the log of this process is the tests' own

    async def look() -> list[int]:
        async with people.parts_of(settings) as its:
            holders = [await its.check.principal(token) for token in tokens]
            await its.families.end(holders[2].user_id, holders[2].session_id, EndReason.LOGOUT)
            for index, token in enumerate(tokens):
                with pytest.raises(TokenRevoked) if index == 2 else nullcontext():
                    await its.check.principal(token)
            counts = await its.directory.counts(0, ())
            return [len({holder.user_id for holder in holders}), counts.users, counts.sessions]

    with private_redis() as url:
        settings = targets.settings_of_ours(url, False)
        crowd = Crowd(settings)
        crowd.grow(3, 1)
        tokens = crowd.grow(1000, 10)

        seen = asyncio.run(look())

    assert seen == [10, 1000, 999]


def test_the_page_keeps_what_was_written_by_hand(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(f"# Mine\n\n{report.BEGIN}\nold\n{report.END}\n\nStays.\n")
    about = {"date": "2026-01-01", "commit": "abc", "cores": 2, "processor": "P", "system": "S", "load before": 0.1}
    about |= {"versions": {"Python": "3"}, "peers": {}, "rounds": 1, "seconds": 1, "minutes": 0.1}

    report.write({"about": about, "login": None, "memory": {"bytes of a user with a session": 901}}, tmp_path)

    told = page.read_text()
    assert told.startswith("# Mine\n")
    assert told.endswith("\n\nStays.\n")
    assert "old" not in told
    assert "| Redis for a user with one session | 900 bytes | 901 | **no** |" in told


def test_plots_are_svg_with_every_number():
    bars = plots.bars({"verify": {"bare": 1.0, "Gatepost": 1.4, "Express": 22.0}})
    drawn = plots.lines([plots.Lines("Cost", "users", "µs", {"Gatepost": [(1, 30.0), (1000, 31.0)]})])

    assert re.findall(r">(\d+\.\d\d)<", bars) == ["1.00", "1.40", "22.00"]
    assert drawn.count("<circle") == 2
    assert "1k" in drawn


def test_peers_are_pinned_and_name_no_registry():
    for peer in PEERS.values():
        if (lock := FOLDER / peer.folder / "package-lock.json").is_file():
            packages = json.loads(lock.read_text())["packages"]
            assert all("integrity" in one and "resolved" not in one for path, one in packages.items() if path)
    locked = (ROOT / "requirements" / "bench.lock").read_text()
    assert "--hash=sha256:" in locked
    assert "://" not in locked
