"""Gatepost as it is deployed: instances that are real processes, nginx in front of them, accounts in Redis."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from argon2 import PasswordHasher

from service.accounts.passwords import ARGON2ID
from service.settings import ROOT
from tests.conftest import PASSWORD, SECRET, WIDE, free_port
from tests.deploy.conftest import edge
from tests.faults.ledger import Ledger
from tests.faults.processes import Formation, Process, until
from tests.log_watch import WATCH

ACCOUNTS = 600
UPSTREAMS = tuple(f"gatepost-{n}:8000" for n in (1, 2, 3))


class Instance(Process):
    """One `python -m service`."""

    def __init__(self, home: Path, name: str, settings: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        env = {**settings, "PORT": str(self.port)}
        super().__init__([sys.executable, "-m", "service"], home / f"{name}.log", home, env)
        WATCH.follow(self.log)
        self._said = 0  # bytes of the log that are of an earlier life

    def start(self, *more: str) -> None:
        self._said = self.log.stat().st_size if self.log.exists() else 0
        super().start(*more)

    def listens(self) -> bool:
        """Whether it serves; raises with its last words if it is gone."""
        if not self.runs:
            raise AssertionError(f"the instance is gone:\n{self.log.read_text()[-3000:]}")
        return b"serving" in self.log.read_bytes()[self._said :]

    def get(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer of this very instance."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def exceptions(self) -> list[str]:
        """What it logged with a trace: a mistake of ours, as against a fault around us."""
        return [line for line in self.log.read_text().splitlines() if '"exception":' in line or "Traceback" in line]

    def said(self, word: str) -> int:
        """How often a word is in its log."""
        return self.log.read_text().count(word)


class Deployment:
    """N instances behind nginx on `config/nginx.conf`, in production, and accounts that `import-users` has brought.

    Hashing takes what it takes in real processes: there is no cheap argon2id here, so sign-ins are kept few.
    """

    def __init__(
        self, home: Path, redis_url: str, instances: int = 2, formation: Formation | None = None, **settings: str
    ) -> None:
        self._formation = formation
        self._home, self._stack, self._unused = home, contextlib.ExitStack(), map(_email, range(ACCOUNTS))
        self._settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "production",
            "HOST": "127.0.0.1",
            "PUBLIC_URL": "http://localhost:8000",
            "TRUSTED_PROXIES": "127.0.0.1/32",
            "DRAIN_SECONDS": "0",
            "AUTH_SECRET": SECRET,
            "RATE_LIMITS": WIDE.replace("=10000/", "=500000/"),
            "REDIS_URL": redis_url,
            **settings,
        }
        self.instances = [Instance(home, f"instance-{n}", self._settings) for n in range(instances)]
        self.url = ""

    def start(self, accounts: int = ACCOUNTS) -> None:
        for instance in self.instances:
            instance.start()
        if accounts:
            self.bring_accounts(accounts)
        until(lambda: all(instance.listens() for instance in self.instances), 30, "instances that listen")
        addresses = [f"127.0.0.1:{instance.port}" for instance in self.instances]
        # nginx.conf has three upstreams: with fewer instances, some are named twice.
        self.url = self._stack.enter_context(
            edge("nginx.conf", {host: addresses[n % len(addresses)] for n, host in enumerate(UPSTREAMS)})
        ).url

    def stop(self) -> None:
        """SIGTERM to all that run; each must leave in peace."""
        self._stack.close()
        codes = {instance: instance.terminate() for instance in self.instances if instance.runs}
        assert set(codes.values()) <= {0}, [instance.log.read_text()[-2000:] for instance in codes]

    def restart(self, instance: Instance) -> None:
        """After it was killed; back when it serves."""
        instance.start()
        until(instance.listens, 30, "an instance that listens")

    def ledger(self) -> Ledger:
        """An empty one, that knows what else happens on this machine."""
        ledger = Ledger()
        ledger.lateness.watched = lambda: [instance.pid for instance in self.instances if instance.runs]
        if self._formation:
            ledger.promotions = self._formation.promotions
        return ledger

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`python -m service ...` with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "service", *args],
            cwd=self._home,
            env=self._settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def emails(self, count: int) -> list[str]:
        """The next accounts that nobody has used yet."""
        found = list(itertools.islice(self._unused, count))
        assert len(found) == count, "bring more accounts"
        return found

    def share_accounts_with(self, other: "Deployment") -> None:
        """Both stand on the same Redis: none of its accounts is used here and there."""
        self._unused = other._unused

    def bring_accounts(self, count: int = ACCOUNTS) -> None:
        """With `import-users`; those that are there already stay."""
        file = self._home / "accounts"
        phc = PasswordHasher.from_parameters(ARGON2ID).hash(PASSWORD)
        file.write_text("\n".join(json.dumps({"email": _email(n), "passwordHash": phc}) for n in range(count)))
        done = self.command("import-users", str(file))
        assert done.returncode == 0, done.stderr

    async def until_ready(self, seconds: float = 20) -> float:
        """Every instance says it is ready; how many seconds that took."""
        started = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            for instance in self.instances:
                while True:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with session.get(f"{instance.url}/ready") as answer:
                            if answer.status == 200:
                                break
                    assert time.monotonic() - started < seconds, f"not ready: {instance.log.read_text()[-2000:]}"
                    await asyncio.sleep(0.05)
        return time.monotonic() - started


def _email(n: int) -> str:
    return f"person{n}@example.org"


@contextlib.contextmanager
def deployed(
    home: Path,
    redis_url: str,
    instances: int = 2,
    accounts: int = ACCOUNTS,
    formation: Formation | None = None,
    **settings: str,
) -> Iterator[Deployment]:
    """A deployment for the length of a block; `formation` where the masters of its Redis change."""
    deployment = Deployment(home, redis_url, instances, formation, **settings)
    try:
        deployment.start(accounts)
        yield deployment
    finally:
        deployment.stop()
