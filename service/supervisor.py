"""Several workers on one port: `WORKERS` processes that each serve as one does, and one that looks after them.

The supervisor has neither an event loop nor a thread nor a connection, so it may fork: a worker begins in the tenth of
a second, with the code in memory that all of them share, and a new one takes the place of each that dies.

Every worker has a listening socket of its own on the same port (SO_REUSEPORT), among which the kernel spreads new
connections. The supervisor holds all of them open: who has knocked at a worker that died is answered by the next one.
Elsewhere than on Linux, where the kernel would not spread them, all share one socket.

The first worker begins alone. What it refuses is refused once, with the status that one process would end with. The
private Redis, where there is one, has a process too (`keeper`), which comes first and leaves last.

Pipes tell who is there: a worker whose supervisor is gone, killed even, reads the end of its `lifeline` and leaves;
the keeper reads the end of its own when the supervisor and all workers are gone. A worker's event loop says every two
seconds that it turns (`beats`); one that has not for half a minute is asked where it stands, by a signal that is
answered outside the interpreter, into a file that the supervisor reads (`_Stand`), and replaced.
"""

import asyncio
import errno
import faulthandler
import fcntl
import gc
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import structlog

from service import logs, metrics
from service.serving import (
    FINISH,
    MISCONFIGURED,
    SAME_WISH,
    Place,
    cannot_listen,
    end_by,
    open_redis,
    refuse,
    run,
    serve,
    within_open_files,
)
from service.settings import Settings, SettingsError

log = structlog.get_logger("service.supervisor")

STEADY = 10.0  # seconds that a worker must have lived for its end to be no habit
PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds before a worker begins again that has ended twice in a row so soon
PATIENCE = 20.0  # seconds beyond draining and finishing, after which a worker that was asked to leave is killed
LOOK = 5.0  # seconds between two looks at who has beaten
SILENT, HUNG = 4, 6  # looks in a row without a beat, after which a worker is asked where it stands, and is killed
WHERE = signal.SIGUSR2  # a worker's answer is a traceback of each of its threads
LONGEST_STAND = 3000  # characters of those; with them a line of the log is still one that a pipe takes as a whole
_SILENCE = "it does not say where it stands: it is stopped, or gets no processor"
FAILED = 1
KEEPER, FIRST = 0, 1
_SPREADS = sys.platform == "linux"  # connections among the sockets of one port
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class _Stand:
    """Where a worker writes where it stands, and its supervisor reads that: a file without a name.

    A worker that is stuck in a library writes as well; one that is stopped, or gets no processor, does not.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (as long as the seat)
        # At the end, wherever that is: a worker may be writing while we clear it.
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)

    def answer_to(self, sign: signal.Signals) -> None:
        """In the worker: write a traceback of each thread whenever this signal comes."""
        faulthandler.register(sign, file=self._file)

    def clear(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)

    def read(self) -> str:
        """What was written since the last time, the main thread first; empty if nothing was."""
        with suppress(OSError):
            told = os.pread(self._file.fileno(), 1_000_000, 0).decode("utf-8", "replace").strip()
            self.clear()
            threads = told.split("\n\n")[::-1]  # it is written last, and is the one that has the event loop
            return "\n\n".join(threads)[:LONGEST_STAND]
        return ""


@dataclass
class _Seat:
    """A worker by its number, whichever process that is at the time; `KEEPER` is the one with the private Redis."""

    number: int
    doors: list[socket.socket] = field(default_factory=list)
    pid: int | None = None
    since: float = 0.0  # by the monotonic clock, as the next
    start_at: float = 0.0
    served: bool = False  # whether one was ever up
    deaths: int = 0  # one soon after another
    missed: int = 0  # looks since it has beaten
    stand: _Stand | None = None  # of a worker
    asked: bool = False  # whether it was asked where it stands, and has not said so
    hung: bool = False  # whether the last process was killed for that


def supervise(settings: Settings) -> int:
    """Serve with `WORKERS` processes until SIGTERM or SIGINT, and give the exit status; raises `SettingsError`."""
    with _shared_folder() as folder:
        supervisor = _Supervisor(within_open_files(_share(settings)), folder)
        status = supervisor.run()
    if supervisor.at_once is not None:
        end_by(supervisor.at_once)
    return status


def _say(say: Callable[..., object], event: str, **facts: Any) -> None:
    """Log it if that is possible: a full disk must not end who looks after the others."""
    with suppress(OSError, ValueError):
        say(event, **facts)


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """Where the workers count together; nobody else's, and gone with us."""
    chosen = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None
    try:
        folder = tempfile.TemporaryDirectory(prefix="gatepost-metrics-", dir=chosen, ignore_cleanup_errors=True)
    except OSError as error:
        where = f"PROMETHEUS_MULTIPROC_DIR={chosen}" if chosen else "the temporary directory (TMPDIR chooses another)"
        mistake = f"WORKERS count their metrics in files, and {where} cannot be written: {error.strerror}."
        raise SettingsError([mistake]) from error
    with folder as path:
        yield Path(path)


def _restore(folder: Path) -> None:
    """Make it again when a cleaner of old files has removed it; raises `OSError`, also when it is another's now."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))


def _share(settings: Settings) -> Settings:
    """What one worker may take of what the instance may."""
    shared = ("max_connections", "max_concurrent_requests")
    return settings.model_copy(update={name: -(-getattr(settings, name) // settings.workers) for name in shared})


def _doors(settings: Settings, count: int, *, alone: bool = True) -> list[list[socket.socket]]:
    """The sockets of so many workers, bound and not yet listening; raises `SettingsError` when the port is taken."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        everywhere = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        addresses = [(family, address) for family, address in everywhere if _is_spoken(family)] or everywhere
        if alone and _SPREADS:  # others of the same user may share it with us, and must not have done so already
            for address in addresses:
                _door(*address, shared=False).close()
        if _SPREADS:
            return [[_door(*address, shared=True) for address in addresses] for _ in range(count)]
        return [[_door(*address, shared=False) for address in addresses]] * count
    except OSError as error:
        raise cannot_listen(settings, error) from error


def _is_spoken(family: int) -> bool:
    """Whether the system knows these addresses; a name such as localhost may have some that it does not."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _door(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind(address)
    except OSError:
        door.close()
        raise
    return door


def _close(doors: list[socket.socket]) -> None:
    for door in doors:
        door.close()
    doors.clear()


class _Supervisor:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        everybodys = enumerate(_doors(settings, settings.workers), FIRST)
        self._workers = [_Seat(number, doors, stand=_Stand(folder)) for number, doors in everybodys]
        self._seats = ([] if settings.redis_url else [_Seat(KEEPER)]) + self._workers
        self._lifeline, self._redis_line, self._said, self._beats, self._signals = (os.pipe() for _ in range(5))
        self._all_leave = mmap.mmap(-1, 1)  # shared with all workers
        self._status = 0
        self._leaving: float | None = None  # since when
        self._asked: float | None = None  # since when; who refuses leaves unasked
        self._look_at = 0.0
        self.at_once: signal.Signals | None = None  # the signal that came again

    def run(self) -> int:
        for end in (self._signals[1], self._beats[1]):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        for sign in HEEDED:
            signal.signal(sign, lambda *_: None)  # the number comes through the pipe
        gc.collect()
        gc.freeze()  # what is here now is shared for as long as nobody writes to it
        while self._leaving is None or any(seat.pid for seat in (self._workers if self.at_once else self._seats)):
            self._begin()
            heard = (self._signals[0], self._said[0], self._beats[0])
            readable, _, _ = select.select(heard, [], [], self._patience())
            if self._said[0] in readable:
                self._heard(os.read(self._said[0], 256))
            if self._beats[0] in readable:
                self._beaten(os.read(self._beats[0], 65536))
            if self._signals[0] in readable:
                for number in set(os.read(self._signals[0], 256)) - {signal.SIGCHLD}:
                    self._heed(signal.Signals(number))
            self._reap()
            self._look()
        return self._status

    def _begin(self) -> None:
        """Fill the seats that are empty: all at once, but each of the first two when the one before it is up."""
        now = time.monotonic()
        if self._leaving is not None:
            if now > self._leaving + self._grace():
                self._kill("they have not left in time")
            return
        for seat in self._seats:
            if seat.pid is None and now >= seat.start_at:
                self._fork(seat)
            if not seat.served and seat.number <= FIRST:
                return

    def _patience(self) -> float | None:
        """Seconds until there is something to do, whatever happens."""
        now = time.monotonic()
        if self._leaving is not None:
            return max(self._leaving + self._grace() - now, 0) + 0.1
        waiting = [seat.start_at - now for seat in self._seats if seat.pid is None and seat.start_at > now]
        return max(min(self._look_at - now, *waiting), 0) if waiting else max(self._look_at - now, 0)

    def _grace(self) -> float:
        return self._settings.drain_seconds.total_seconds() + FINISH + PATIENCE

    def _heard(self, numbers: bytes) -> None:
        """These are up."""
        for seat in self._seats:
            seat.served = seat.served or seat.number in numbers

    def _beaten(self, numbers: bytes) -> None:
        for seat in self._workers:
            if seat.number in numbers:
                seat.missed = 0

    def _look(self) -> None:
        """End who stands still, that another one may answer.

        What counts is how often we have looked in vain, not how long it was: who was stopped together with us, or got
        as little of the machine as we did, does not hang.
        """
        now = time.monotonic()
        if now < self._look_at or self._leaving is not None:
            return
        self._look_at = now + LOOK
        for seat in self._workers:
            if seat.pid is None:
                continue
            self._hear_where(seat)
            seat.missed += 1
            if seat.missed == SILENT:
                # A log that nobody reads stops all of us at this line, until somebody does.
                _say(log.warning, "worker.silent", worker=seat.number, pid=seat.pid, for_seconds=LOOK * SILENT)
                seat.asked = True
                os.kill(seat.pid, WHERE)
            elif seat.missed == HUNG:
                told = {"told": _SILENCE} if seat.asked else {}
                _say(log.error, "worker.hung", worker=seat.number, pid=seat.pid, for_seconds=LOOK * HUNG, **told)
                seat.hung = True
                os.kill(seat.pid, signal.SIGKILL)

    def _hear_where(self, seat: _Seat) -> None:
        """Tell where a worker stood when it was asked, by us or by an operator, also of one that has gone on since."""
        if seat.stand and (traceback := seat.stand.read()):
            seat.asked = False
            _say(log.warning, "worker.stood", worker=seat.number, pid=seat.pid, traceback=traceback)

    def _heed(self, sign: signal.Signals) -> None:
        """SIGTERM and SIGINT stop, and end at once when they come again; SIGHUP as for one process."""
        if sign == signal.SIGHUP and not sys.stdin.isatty():
            _say(log.info, "signal.ignored", signal="SIGHUP", told="settings are read at the start only")
        elif self._asked is None:
            self._asked = time.monotonic()
            if self._leaving is None:
                self._leave()
        elif time.monotonic() - self._asked > SAME_WISH:
            self.at_once = sign
            self._kill(f"{sign.name} once more")

    def _leave(self) -> None:
        """Ask all workers to leave. From here on each is the only one to hold its doors, and closes them."""
        self._leaving = time.monotonic()
        self._all_leave[0] = 1
        for seat in self._workers:
            _close(seat.doors)
            if seat.pid is not None:
                os.kill(seat.pid, signal.SIGTERM)
        os.close(self._redis_line[1])

    def _kill(self, why: str) -> None:
        killed = [seat for seat in self._workers if seat.pid is not None]
        if killed:
            _say(log.warning, "stopping.at_once", workers=[seat.number for seat in killed], told=why)
        for seat in killed:
            assert seat.pid is not None
            os.kill(seat.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take note of those that have ended; as the first process of a container, of strangers too."""
        with suppress(ChildProcessError):  # there is nobody left
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for seat in self._seats:
                    if seat.pid == ended[0]:
                        self._note_end(seat, os.waitstatus_to_exitcode(ended[1]))

    def _note_end(self, seat: _Seat, code: int) -> None:
        pid, seat.pid = seat.pid, None
        metrics.forget(self._folder, seat.number)
        if self._leaving is not None:
            return
        if code == MISCONFIGURED or (seat.number <= FIRST and not seat.served):
            self._status = code if code > 0 else FAILED  # it has said why
            self._leave()
            return
        now = time.monotonic()
        seat.deaths = 1 if now - seat.since >= STEADY else seat.deaths + 1
        pause = 0.0 if seat.deaths == 1 else min(PAUSE * 2.0 ** (seat.deaths - 2), LONGEST_PAUSE)
        seat.start_at = now + pause
        if pause and _SPREADS:
            _close(seat.doors)  # nobody shall wait there for so long: the others take what comes
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        _say(log.error, "worker.ended", worker=seat.number, pid=pid, how=how, again_in=pause)

    def _fork(self, seat: _Seat) -> None:
        try:
            if seat.number != KEEPER and not seat.doors:
                (seat.doors,) = _doors(self._settings, 1, alone=False)
        except SettingsError as error:
            seat.start_at = time.monotonic() + LONGEST_PAUSE
            _say(log.error, "worker.no_port", worker=seat.number, told=str(error), again_in=LONGEST_PAUSE)
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)  # none of ours may reach a child that has our handlers
        try:
            _restore(self._folder)
            if seat.stand:
                seat.stand.clear()
            if (pid := os.fork()) == 0:
                self._become(seat)
            seat.pid, seat.since = pid, time.monotonic()
            seat.missed, seat.asked, seat.hung = 0, False, False
        except OSError as error:  # no memory, or too many processes: the others go on, and it may pass
            seat.start_at = time.monotonic() + LONGEST_PAUSE
            if _SPREADS:
                _close(seat.doors)
            _say(log.error, "worker.not_begun", worker=seat.number, told=str(error), again_in=LONGEST_PAUSE)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)

    def _become(self, seat: _Seat) -> NoReturn:
        """In the child: let go of everything that is the supervisor's, do the work, and end without its last steps."""
        status = FAILED
        try:
            signal.set_wakeup_fd(-1)
            for sign in HEEDED:
                signal.signal(sign, signal.SIG_DFL)
            for end in (*self._signals, self._said[0], self._beats[0], self._lifeline[1]):
                os.close(end)
            status = self._keep() if seat.number == KEEPER else self._work(seat)
        except SettingsError as error:
            status = refuse(error)
        except BaseException:
            # This is the end of the child, and nothing of it may run on in its parent's code; its status tells.
            _say(log.exception, "worker.failed", worker=seat.number)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def _work(self, seat: _Seat) -> int:
        # A terminal's Ctrl-C, and its end, reach everybody; the supervisor passes on what it means.
        for sign in (signal.SIGINT, signal.SIGHUP):
            signal.signal(sign, signal.SIG_IGN)
        assert seat.stand is not None
        seat.stand.answer_to(WHERE)
        os.close(self._redis_line[0])
        for other in self._workers:
            if other is not seat and _SPREADS:
                _close(other.doors)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(HEEDED) - {signal.SIGTERM})  # that one when it can be heeded
        logs.name_worker(seat.number)
        metrics.share(self._folder, seat.number)
        if seat.served:
            metrics.WORKERS_REPLACED.inc()
        if seat.hung:
            metrics.WORKERS_HUNG.inc()
        place = Place(
            doors=tuple(seat.doors),
            first=seat.number == FIRST and not seat.served,
            lifeline=self._lifeline[0],
            up=self._up(seat),
            beat=self._beat(seat),
            all_leave=lambda: bool(self._all_leave[0]),
        )
        try:
            return run(serve(self._settings, place))
        finally:
            if select.select([self._lifeline[0]], [], [], 0)[0]:  # nobody else is left to do it
                shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self) -> int:
        """Run the private Redis until everybody else is gone."""
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sign, lambda *_: None)  # rather than ignored, which Redis would inherit
        os.close(self._redis_line[1])
        for other in self._workers:
            _close(other.doors)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)

        async def keep() -> int:
            async with open_redis(self._settings):
                over = asyncio.Event()
                asyncio.get_running_loop().add_reader(self._redis_line[0], over.set)
                self._up(self._seats[0])()
                await over.wait()
                asyncio.get_running_loop().remove_reader(self._redis_line[0])
            return 0

        return run(keep())

    def _up(self, seat: _Seat) -> Callable[[], object]:
        return lambda: os.write(self._said[1], bytes([seat.number]))

    def _beat(self, seat: _Seat) -> Callable[[], object]:
        def beat() -> None:
            with suppress(OSError):  # the supervisor is gone, or has read none for hours
                os.write(self._beats[1], bytes([seat.number]))

        return beat
