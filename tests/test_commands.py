"""The command line as an operator meets it: real processes, a real Redis, real signals."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from service import __version__
from service.settings import ROOT
from tests.conftest import free_port
from tests.faults.stopwatch import Stopwatch

PASSWORD = "correct horse, battery & staple"
STRONG = "Zk3pV9xQ2mT7wR4yB8nL1cF6hJ5sD0gA-u_e"
TOKENS = {"X-Auth-Mode": "token"}


class Service:
    """A service started by its command line, in a tree of its own, so that its `var/` is new."""

    def __init__(self, tree: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self.tree = tree
        self.port = int(environ.get("PORT", "8000"))
        self.url = f"http://localhost:{self.port}"
        self.output = tree / f"output.{time.monotonic_ns()}"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", *arguments],
                cwd=tree,
                env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    async def ready(self) -> "Service":
        async with asyncio.timeout(60), ClientSession() as session:
            while self.process.poll() is None:
                try:
                    async with session.get(f"{self.url}/ready") as answer:
                        if answer.status == 200:
                            return self
                except ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(self.said + self.errors())

    def errors(self) -> str:
        return self.process.communicate(timeout=60)[1].decode()

    async def end(self, sign: int = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
        return await asyncio.to_thread(self.process.wait, 60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is installed: the code and the operator's files, and no `var/` yet."""
    for folder in ("service", "config"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def start(tree: Path) -> Iterator[Callable[..., Service]]:
    """Starts the service: `start(PORT="8001")`, `start("--version")`."""
    started: list[Service] = []

    def run(*arguments: str, **environ: str) -> Service:
        service = Service(tree, arguments, {"PORT": str(free_port()), **environ})
        started.append(service)
        return service

    yield run
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
        service.process.communicate()


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=60)) as session:
        yield session


def command(tree: Path, *arguments: str, said: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=tree,
        env={"PATH": os.environ["PATH"], **environ},
        input=said or "",
        capture_output=True,
        text=True,
        timeout=60,
    )


async def sign_up(http: ClientSession, service: Service, email: str = "ada@example.org") -> dict:
    body = {"email": email, "password": PASSWORD}
    async with http.post(f"{service.url}/api/auth/register", json=body, headers=TOKENS) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.json()


async def sign_in(
    http: ClientSession, service: Service, email: str = "ada@example.org", password: str = PASSWORD
) -> dict:
    body = {"email": email, "password": password}
    async with http.post(f"{service.url}/api/auth/login", json=body, headers=TOKENS) as answer:
        return {"status": answer.status, **(await answer.json())}


async def me(http: ClientSession, service: Service, signed: dict) -> dict:
    headers = {"Authorization": f"Bearer {signed['accessToken']}"}
    async with http.get(f"{service.url}/api/auth/me", headers=headers) as answer:
        return {"status": answer.status, **(await answer.json())}


def redis_of(tree: Path) -> list[int]:
    """The servers that hold anything in this tree open or have it on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = os.readlink(process / "cwd")
        except OSError:
            continue
        if ("redis-server" in line or "valkey-server" in line) and (str(tree) in line or cwd.startswith(str(tree))):
            found.append(int(process.name))
    return found


# Starting


async def test_the_first_start_says_what_it_started_and_how_to_go_on(start, http, tree):
    service = await start().ready()

    assert "Redis" in service.said
    assert str(tree / "var" / "redis") in service.said
    assert f"Gatepost is ready at {service.url}" in service.said
    # The printed lines work as they are printed.
    curl = service.said.partition("Make an account")[2]
    url, kind, body = re.search(r"curl -s (\S+) -H '([^']+)' \\\n\s+-d '([^']+)'", curl).groups()
    name, _, value = kind.partition(": ")
    async with http.post(url, data=body, headers={name: value}) as answer:
        assert answer.status == 201
        token = (await answer.json())["accessToken"]
    url, header = re.search(r"curl -s (\S+/api/auth/me) -H '([^']+)'", curl).groups()
    name, _, value = header.replace("<the accessToken of the answer>", token).partition(": ")
    async with http.get(url, headers={name: value}) as answer:
        assert (await answer.json())["user"]["email"] == json.loads(body)["email"]
    # And those of the README after them: its first account is still to be had.
    assert json.loads(body)["email"] not in (ROOT / "README.md").read_text()
    assert redis_of(tree)


async def test_a_second_start_keeps_the_accounts_and_the_sign_ins_and_welcomes_nobody_anew(start, http, tree):
    first = await start().ready()
    signed = await sign_up(http, first)
    assert await first.end() == 0

    second = await start(PORT=str(first.port)).ready()

    assert (await me(http, second, signed))["user"]["email"] == "ada@example.org"
    assert (await sign_in(http, second))["status"] == 200
    assert "Make an account" not in second.said


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_it_with_0_and_leaves_no_server_behind(start, tree, sign):
    service = await start().ready()
    assert len(redis_of(tree)) == 1

    status = await service.end(sign)

    assert status == 0
    assert service.errors() == ""
    assert redis_of(tree) == []


async def test_a_port_in_use_is_said_plainly(start, tree):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = start(PORT=str(taken.getsockname()[1]))
        status = await asyncio.to_thread(service.process.wait, 60)

    told = service.errors()
    assert status == 3
    assert re.search(rf"Cannot listen on 127.0.0.1:{service.port}: Address already in use. Try PORT=\d+, with", told)
    assert "Traceback" not in told
    assert redis_of(tree) == []


async def test_whoever_starts_it_twice_is_shown_the_one_that_runs_and_another_port(start, tree):
    running = await start().ready()

    for workers in ("1", "2"):
        again = command(tree, PORT=str(running.port), WORKERS=workers)

        told = re.search(
            rf"  - Cannot listen on 127.0.0.1:{running.port}: Gatepost runs there already, see {running.url}/docs. "
            r"For another one beside it: try PORT=(\d+), with make: make run PORT=\1.\n",
            again.stderr,
        )
        assert (again.returncode, bool(told)) == (3, True), again.stderr
        with socket.create_server(("127.0.0.1", int(told[1]))):
            pass  # it can be had
    assert (await running.ready()).process.poll() is None


@pytest.mark.parametrize(("host", "why"), [("192.0.2.1", "Cannot assign requested address"), ("nowhere.invalid", "")])
async def test_a_host_that_is_not_here_is_not_mended_by_another_port(start, host, why):
    service = start(HOST=host)
    status = await asyncio.to_thread(service.process.wait, 60)

    assert status == 3
    assert f"Cannot listen on {host}:{service.port}: {why}" in service.errors()
    assert "HOST must be an address of this machine." in service.errors()
    assert "Traceback" not in service.errors()


def test_settings_that_cannot_be_are_all_told_at_once(tree):
    (tree / ".env").write_text("JWT_ACCES_EXPIRY=5m\n")

    ended = command(tree, ENVIRONMENT="production", AUTH_SECRET="hunter2", PORT="http", CORS_ORIGINS="*")

    assert ended.returncode == 3
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert lines[0] == "Gatepost cannot start:"
    assert sorted(line.split()[1] for line in lines[1:]) == [
        "AUTH_SECRET", "CORS_ORIGINS", "JWT_ACCES_EXPIRY", "PORT", "REDIS_URL",
    ]  # fmt: skip
    assert "hunter2" not in ended.stderr


def test_a_table_of_roles_that_cannot_be_read_is_named(tree):
    (tree / "config" / "roles.toml").write_text("[user]\npermissions = []\n")

    ended = command(tree)

    assert ended.returncode == 3
    assert "roles.toml must keep these roles: admin, moderator" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_version(tree):
    ended = command(tree, "--version")

    assert (ended.returncode, ended.stdout.strip()) == (0, f"gatepost {__version__}")


def test_an_unknown_command_is_a_wrong_call(tree):
    ended = command(tree, "fly")

    assert ended.returncode == 2
    assert "create-admin" in ended.stderr


# Workers


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def all_serve(service: Service, times: int) -> None:
    async with asyncio.timeout(60):
        while service.said.count(" serving ") < times:
            assert service.process.poll() is None, service.errors()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_workers_share_one_private_redis_which_leaves_last(start, http, tree, sign):
    service = await start(WORKERS="2").ready()
    await all_serve(service, 2)

    signed = await sign_up(http, service)
    redis = redis_of(tree)
    _, *workers = children(service.process.pid)
    for times, worker in enumerate(workers, 3):
        os.kill(worker, signal.SIGKILL)
        await all_serve(service, times)
    kept, still = await me(http, service, signed), redis_of(tree)

    assert len(redis) == 1
    assert still == redis
    assert kept["user"]["email"] == "ada@example.org"
    assert service.said.count("redis.private") == service.said.count("Make an account") == 1
    assert await service.end(sign) == 0
    assert service.errors() == ""
    assert redis_of(tree) == []
    assert service.said.count("stopping ") == 2


async def test_the_private_redis_of_workers_is_run_again_by_whoever_is_there(start, http, tree):
    service = await start(WORKERS="2").ready()
    await all_serve(service, 2)
    signed = await sign_up(http, service)

    (first,) = redis_of(tree)

    os.kill(children(service.process.pid)[0], signal.SIGKILL)  # its server goes with it

    async with asyncio.timeout(60):
        while (found := redis_of(tree)) == [first] or not found or "user" not in await me(http, service, signed):
            await asyncio.sleep(0.05)
    assert (await me(http, service, signed))["user"]["email"] == "ada@example.org"
    assert await service.end() == 0
    assert redis_of(tree) == []


async def test_when_the_supervisor_is_killed_nobody_stays(start, tree):
    counts = tree / "counts"
    counts.mkdir()
    service = await start(WORKERS="2", PROMETHEUS_MULTIPROC_DIR=str(counts)).ready()
    pids = [service.process.pid, *children(service.process.pid)]

    await service.end(signal.SIGKILL)

    async with asyncio.timeout(30):
        while any(Path(f"/proc/{pid}").exists() for pid in pids) or redis_of(tree):
            await asyncio.sleep(0.05)
    assert list(counts.iterdir()) == []


async def test_workers_leave_no_files_behind(start, tree, tmp_path_factory):
    shared = tmp_path_factory.mktemp("counts")
    service = await start(WORKERS="2", PROMETHEUS_MULTIPROC_DIR=str(shared)).ready()
    (folder,) = shared.iterdir()

    assert folder.stat().st_mode & 0o077 == 0
    assert list(folder.glob("*.db"))
    assert await service.end() == 0
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_a_redis_all_workers_say_it_once(tree, workers):
    (tree / "var" / "redis").mkdir(parents=True)
    (tree / "var" / "redis" / "version").write_text("Redis 99.0.0")

    ended = command(tree, WORKERS=workers, PORT=str(free_port()))

    assert ended.returncode == 3
    assert ended.stderr.count("Gatepost cannot start:") == ended.stderr.count("was written by Redis 99.0.0") == 1


def test_workers_that_have_nowhere_to_count_do_not_start(tree):
    ended = command(tree, WORKERS="2", PORT=str(free_port()), PROMETHEUS_MULTIPROC_DIR="/nowhere")

    assert ended.returncode == 3
    assert "PROMETHEUS_MULTIPROC_DIR=/nowhere cannot be written" in ended.stderr


# Production


def production(redis_url: str, **changes: str) -> dict[str, str]:
    return {
        "ENVIRONMENT": "production",
        "AUTH_SECRET": STRONG,
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "DRAIN_SECONDS": "0",
        **changes,
    }


async def test_production_refuses_a_redis_that_could_forget_and_takes_it_when_told_to(start, own_redis, tree):
    own_redis.cli("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    own_redis.cli("CONFIG", "SET", "appendonly", "no")

    refused = command(tree, PORT=str(free_port()), **production(own_redis.url))
    found = own_redis.cli("KEYS", "*")
    allowed = await start(**production(own_redis.url, REDIS_ALLOW_UNSAFE="on")).ready()

    assert refused.returncode == 3
    assert found == []  # nothing is entrusted to it, no signing key either
    assert "maxmemory-policy is volatile-lru" in refused.stderr
    assert "appendonly is off" in refused.stderr
    assert "REDIS_ALLOW_UNSAFE=on" in refused.stderr
    assert allowed.said.count("redis.unsafe") == 2
    assert await allowed.end() == 0


async def test_production_starts_on_a_safe_redis_and_logs_json_and_no_welcome(start, own_redis, tree):
    service = await start(**production(own_redis.url)).ready()
    assert await service.end() == 0

    assert all(isinstance(json.loads(line), dict) for line in service.said.splitlines())
    assert "Make an account" not in service.said
    assert not (tree / "var").exists()


async def test_it_starts_while_redis_is_away_and_says_so(start, own_redis, http):
    own_redis.kill()
    service = start(**production(own_redis.url))
    async with asyncio.timeout(60):
        while "redis.away" not in service.said or "serving" not in service.said:
            assert service.process.poll() is None, service.errors()
            await asyncio.sleep(0.05)

    async with http.get(f"{service.url}/ready") as answer:
        assert answer.status == 503
    first = json.loads(service.said.splitlines()[0])
    assert (first["event"], str(own_redis.socket) in first["told"]) == ("redis.away", True)
    assert "REDIS_URL. Requests get 503 until it answers." in first["told"]
    own_redis.start()
    async with Stopwatch() as watch:
        await service.ready()

    assert watch.held < 3
    print(f"\nstarted without Redis: ready {watch.held:.2f} s after it came")
    await sign_up(http, service)
    assert await service.end() == 0


# create-admin


async def test_an_admin_is_made_on_the_private_redis_whether_it_runs_or_not(start, http, tree):
    made = command(tree, "create-admin", "Ada@Example.org", said=PASSWORD + "\n")
    service = await start().ready()
    signed = await sign_in(http, service)
    again = command(tree, "create-admin", "bob@example.org", said=PASSWORD + "\n")
    bob = await sign_in(http, service, "bob@example.org")

    assert (made.returncode, made.stdout) == (0, "ada@example.org is an admin now, with a new account.\n")
    assert PASSWORD not in made.stderr + made.stdout
    assert signed["user"]["roles"] == ["user", "admin"]
    assert again.returncode == 0, again.stderr
    assert bob["user"]["roles"] == ["user", "admin"]
    assert await service.end() == 0
    assert redis_of(tree) == []


async def test_an_existing_account_becomes_an_admin_and_its_older_tokens_stale(start, http, tree):
    service = await start().ready()
    signed = await sign_up(http, service)

    promoted = command(tree, "create-admin", "ada@example.org")
    repeated = command(tree, "create-admin", "ada@example.org")

    assert promoted.returncode == repeated.returncode == 0
    assert promoted.stdout.startswith("ada@example.org is an admin now.")
    assert repeated.stdout == "ada@example.org is an admin already.\n"
    assert (await me(http, service, signed))["code"] == "TOKEN_STALE"
    body = {"refreshToken": signed["refreshToken"]}
    async with http.post(f"{service.url}/api/auth/refresh", json=body) as answer:
        renewed = await answer.json()
    assert (await me(http, service, renewed))["user"]["roles"] == ["user", "admin"]


@pytest.mark.parametrize(
    ("email", "said", "told"),
    [
        ("ada@example.org", "short\n", "Use 8 characters or more"),
        ("ada@example.org", "password1\n", "list of those that are guessed first"),
        ("ada@example.org", "", "Use 8 characters or more"),
        ("not an email", PASSWORD + "\n", "not a valid email address"),
    ],
)
def test_what_cannot_be_an_admin_is_refused(tree, redis_server, email, said, told):
    ended = command(tree, "create-admin", email, said=said, REDIS_URL=redis_server.url)

    assert ended.returncode == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert redis_server.cli("KEYS", "user:*") == []


def test_without_its_redis_no_admin_is_made_and_that_is_said(tree):
    ended = command(
        tree, "create-admin", "ada@example.org", said=PASSWORD, REDIS_URL=f"redis://127.0.0.1:{free_port()}"
    )

    assert ended.returncode == 1
    assert "Redis does not answer. `python -m service doctor` says what to look at." in ended.stderr
    assert "Traceback" not in ended.stderr


# Stopping


async def test_a_stop_under_load_loses_no_request(start, http, own_redis):
    """A balancer that watches /ready, clients that keep asking until it says draining, one in the middle of a body."""
    service = await start(**production(own_redis.url, DRAIN_SECONDS="1", RATE_LIMITS="register=1000/1h")).ready()
    signed = await sign_up(http, service)
    headers = {"Authorization": f"Bearer {signed['accessToken']}"}
    statuses: list[int] = []
    draining = asyncio.Event()

    async def keeps_asking() -> None:
        while not draining.is_set():
            async with http.get(f"{service.url}/api/auth/verify", headers=headers) as answer:
                statuses.append(answer.status)

    async def watches() -> dict:
        while True:
            async with http.get(f"{service.url}/ready") as answer:
                if answer.status == 503:
                    # What comes before a balancer has taken note is still served.
                    await asyncio.sleep(0.4)
                    draining.set()
                    return await answer.json()
            await asyncio.sleep(0.02)

    body = json.dumps({"email": "late@example.org", "password": PASSWORD}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /api/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:10])
    )
    working = asyncio.gather(watches(), *(keeps_asking() for _ in range(10)))
    await asyncio.sleep(0.3)

    service.process.send_signal(signal.SIGTERM)
    told, *_ = await working
    while True:  # until nobody listens any more
        try:
            _, probe = await asyncio.open_connection("127.0.0.1", service.port)
            probe.close()
            await asyncio.sleep(0.05)
        except OSError:
            break
    writer.write(body[10:])
    late = await reader.read()
    writer.close()

    assert told["status"] == "draining"
    assert set(statuses) == {200}
    assert late.startswith(b"HTTP/1.1 201 ")
    assert await asyncio.to_thread(service.process.wait, 60) == 0
    assert service.errors() == ""
    print(f"\nstop under load: {len(statuses)} requests, none lost")


async def test_a_stop_ends_although_a_client_never_finishes(start, own_redis):
    service = await start(**production(own_redis.url)).ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")

    async with Stopwatch() as watch:
        status = await service.end()

    assert status == 0
    assert watch.held < 5  # an idle connection is nothing to wait ten seconds for
    writer.close()


def test_import_users_brings_a_file_tells_each_bad_line_and_may_be_repeated(tree, own_redis):
    phc = (
        "pbkdf2_sha256$1000$salt$"
        + base64.b64encode(hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt", 1000)).decode()
    )
    people = [{"email": f"person{n}@example.org", "passwordHash": phc} for n in range(20)]
    people[0]["roles"] = ["user", "admin"]
    (tree / "people.jsonl").write_text("\n".join(map(json.dumps, people)) + "\nnot json\n")
    (tree / "latin1.jsonl").write_bytes((tree / "people.jsonl").read_bytes() + b'{"email": "jos\xe9@example.org"}\n')

    no_text = command(tree, "import-users", "latin1.jsonl", REDIS_URL=own_redis.url)
    first = command(tree, "import-users", "people.jsonl", REDIS_URL=own_redis.url)
    again = command(tree, "import-users", "people.jsonl", "--json", REDIS_URL=own_redis.url)
    absent = command(tree, "import-users", "nowhere.jsonl", REDIS_URL=own_redis.url)

    assert (no_text.returncode, no_text.stdout, "cannot be read" in no_text.stderr) == (1, "", True)
    assert (first.returncode, first.stdout) == (1, "20 imported, 0 there already, 1 refused.\n")
    assert "line 21: the line is not JSON" in first.stderr
    told = json.loads(again.stdout)
    assert (told["imported"], told["thereAlready"], [one["line"] for one in told["refused"]]) == (0, 20, [21])
    assert (absent.returncode, "cannot be read" in absent.stderr) == (1, True)
    trail = command(tree, "audit", "tail", "--json", REDIS_URL=own_redis.url).stdout.splitlines()
    assert [(event["type"], event["detail"]) for event in map(json.loads, trail)] == [
        ("admin.users.imported", {"by": "command line", "count": 20, "roles": {"admin": 1}})
    ]


def test_the_doctor_says_what_is_wrong_by_its_exit_code_and_in_words(tree, own_redis):
    well = command(tree, "doctor", REDIS_URL=own_redis.url)
    ill = command(tree, "doctor", "--json", REDIS_URL="redis://127.0.0.1:9")

    assert well.returncode == 0, well.stdout + well.stderr
    assert "redis persistence: AOF is on" in well.stdout
    assert ill.returncode == 1
    assert {"level": "error", "about": "redis"}.items() <= json.loads(ill.stdout)[0].items()
