"""Metrics: every name that Prometheus sees, what it means and in which unit, and how all of it is written out.

What happens is counted where it happens; requests, of which there are many, are added up in a `Meter` first. What
merely is, such as open connections, is read by `http/metrics.py` when somebody asks and every five seconds, and so are
the meters of who works alone. A label is made once and kept beside its fact: finding one costs more than counting does.

A label holds a word of ours: the template of a route, a policy, a reason. Never what a client sent, for everybody could
make a new series with each request then, and never a secret or whose account it was.

Workers of one instance (`share`) have their counts in files of one directory, each under its number, and whichever is
asked answers for all. Who takes the place of one that died goes on with its counts.
"""

import os
import platform
import struct
import time
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service import __version__, count_files

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
REGISTRY = CollectorRegistry()

_OF_ALL, _LATEST = "livesum", "livemostrecent"  # how several processes make one number of theirs

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which no query of ours asks for
values.ValueClass = values.MutexValue  # whatever the environment says: several processes are our own arrangement
_PROCESS = ProcessCollector(registry=REGISTRY)

T = TypeVar("T", Counter, Gauge, Histogram)
_all: list[Counter | Gauge | Histogram] = []


def _known(metric: T) -> T:
    _all.append(metric)
    return metric


def _counter(name: str, told: str, *labels: str) -> Counter:
    return _known(Counter(f"gatepost_{name}", told, labels, registry=REGISTRY))


def _gauge(name: str, told: str, *labels: str, of_several: str = _OF_ALL) -> Gauge:
    mode: Any = of_several
    return _known(Gauge(f"gatepost_{name}", told, labels, registry=REGISTRY, multiprocess_mode=mode))


def _histogram(name: str, told: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return _known(Histogram(f"gatepost_{name}", told, labels, registry=REGISTRY, buckets=buckets))


# Requests

_HTTP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds, at most
HTTP_REQUESTS = _counter("http_requests_total", "Requests answered.", "route", "method", "status")
HTTP_DURATION = _histogram(
    "http_request_duration_seconds",
    "Seconds from a request's head to its answer; the time in which a client sends the body is part of it.",
    "route",
    "method",
    buckets=_HTTP_BUCKETS,
)
HTTP_ERRORS = _counter("http_errors_total", "Requests answered with 500, for a fault that is ours to mend.")
HTTP_SHED = _counter("http_requests_shed_total", "Requests refused because too many were under way.")
HTTP_IN_FLIGHT = _gauge("http_requests_in_flight", "Requests under way, without those that wait for their bodies.")
HTTP_IN_FLIGHT_LIMIT = _gauge("http_requests_in_flight_limit", "Requests that may be under way.")
HTTP_CONNECTIONS = _gauge("http_connections", "Open connections of clients.")
HTTP_CONNECTIONS_LIMIT = _gauge("http_connections_limit", "Connections of clients that may be open.")
HTTP_CUT_OFF = _counter(
    "http_connections_cut_off_total",
    "Connections refused or closed without a request: full, not_http, slow (to send a head) or unread (answers).",
    "reason",
)

# People

SIGN_INS = _counter(
    "sign_ins_total",
    "Sign-ins by how it was tried (pwd, fed: at a provider) and what came of it: success, or the code of the refusal.",
    "method",
    "result",
)
REAUTHENTICATIONS = _counter(
    "reauthentications_total",
    "Passwords that people were asked for while signed in: success, or the code of the refusal.",
    "result",
)
NEW_DEVICES = _counter(
    "new_device_sign_ins_total",
    "Sign-ins to accounts that nobody had signed in to lately with such a device from there: a place that is new "
    "altogether, or a new device at a known place.",
    "new",
)
REFRESHES = _counter(
    "refreshes_total",
    "Our refresh tokens as presented: rotated, replayed, recovered or healed; reuse, ended, expired are refusals.",
    "verdict",
)
SIGN_IN_BURSTS = _counter(
    "sign_in_bursts_total",
    "Bursts of failed sign-ins to one account or from one address, each once in its window, whatever instance saw it.",
    "by",
)
REFRESH_REPLAYS = _counter(
    "refresh_replays_total",
    "Our refresh tokens that came back out of the ordinary (recovered, healed, reuse), by what client and network make "
    "it look like: broken_client, theft or unclear.",
    "verdict", "looks_like",
)  # fmt: skip
SESSIONS = _gauge(
    "sessions", "Live sessions of all accounts, counted every minute; the same on every instance.", of_several=_LATEST
)
SESSIONS_ENDED = _counter(
    "sessions_ended_total",
    "Sessions that were ended; those that nobody used until they expired are not here.",
    "reason",
)
TOKENS_REVOKED = _counter("access_tokens_revoked_total", "Access tokens revoked while their session lives on.")
AUDIT_EVENTS = _counter("audit_events_total", "Events of the audit trail.", "type")
AUDIT_UNWRITTEN = _counter("audit_unwritten_total", "Events that Redis did not take, and that are in the log alone.")
RATE_LIMITS = _counter(
    "rate_limit_decisions_total", "Calls by the policy asked: allowed or refused.", "policy", "decision"
)
OAUTH_CALLS = _counter(
    "oauth_calls_total", "Steps at a provider (start, finish): success, or the code of what went wrong.",
    "provider", "step", "result",
)  # fmt: skip

# Passwords

HASHING_THREADS = _gauge("hashing_threads", "Threads that hash passwords.")
HASHING_BUSY = _gauge("hashing_threads_busy", "Threads that are hashing a password.")
HASHING_WAITING = _gauge("hashing_waiting", "Passwords that wait for a thread.")
HASHING_WAITING_LIMIT = _gauge("hashing_waiting_limit", "Passwords that may wait.")
HASHING_REFUSED = _counter(
    "hashing_refused_total", "Passwords refused: full (too many wait) or patience ran out.", "reason"
)

# Redis

REDIS_ROUND_TRIP = _histogram(
    "redis_round_trip_duration_seconds",
    "Seconds from sending commands to their replies, by what Redis is: single, sentinel or cluster.",
    "kind",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
REDIS_ERRORS = _counter(
    "redis_errors_total",
    "Round trips that failed: timeout, connection, given_up (not tried), unknown_server, or Redis' own word.",
    "kind",
    "error",
)
REDIS_SERVERS = _gauge("redis_servers", "Servers that answer for keys.", "kind", of_several=_LATEST)
REDIS_GIVEN_UP = _gauge("redis_servers_given_up", "Those whose breaker is open.", "kind", of_several="livemax")
REDIS_GIVEN_UP_TIMES = _counter("redis_given_up_total", "Times that a breaker opened.", "kind")
REDIS_MEMORY = _gauge("redis_memory_used_bytes", "Memory of the server that is the fullest.", of_several=_LATEST)
REDIS_MEMORY_LIMIT = _gauge("redis_memory_limit_bytes", "Its maxmemory; 0 is no bound.", of_several=_LATEST)
REDIS_DANGERS = _gauge("redis_dangers", "Ways in which Redis could lose what it is told.", of_several=_LATEST)

# Mail

MAIL_WAITING = _gauge("mail_waiting", "Errands in the outbox, the same on every instance.", of_several=_LATEST)
MAIL_PARKED = _gauge("mail_parked", "Letters that were given up, the same on every instance.", of_several=_LATEST)
MAIL_SENT = _counter("mail_sent_total", "Letters that a mail server took.", "kind")
MAIL_FAILED = _counter(
    "mail_failed_total", "Tries that failed; parked is yes for the last of a letter.", "kind", "parked"
)

# The instance

BUILD = _gauge("build_info", "Which Gatepost this is; always 1.", "version", "python", of_several="livemax")
SIGNING_SINCE = _gauge(
    "signing_key_timestamp_seconds", "When the signing key began to sign; 0 for one of the operator's own.",
    of_several=_LATEST,
)  # fmt: skip
SIGNING_FOR = _gauge(
    "signing_key_rotation_seconds", "For how long a key is to sign; 0 for one that does until somebody turns it.",
    of_several=_LATEST,
)  # fmt: skip
CLOCK_AHEAD = _gauge(
    "redis_clock_ahead_seconds", "Redis' clock, by which tokens go, less that of this machine.", of_several=_LATEST
)
LOOP_LAG = _histogram(
    "event_loop_lag_seconds",
    "Seconds by which something that was due at once had to wait, tried every second: the processor, or we, are busy.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
UPKEEP = _gauge(
    "upkeep_timestamp_seconds", "When this instance last saw Redis, its keys and the counts above that all share.",
    of_several="livemin",
)  # fmt: skip
WORKERS = _gauge("workers", "Processes that answer for this instance.")
WORKERS_REPLACED = _counter("workers_replaced_total", "Workers that took the place of one that had died.")
WORKERS_HUNG = _counter("workers_hung_total", "Workers that were killed because they stood still.")

for _first in (("pwd", "success"), ("pwd", "invalid_credentials"), ("fed", "success")):
    SIGN_INS.labels(*_first)  # there from the start, so that the first one is a change
for _result in ("success", "invalid_credentials"):
    REAUTHENTICATIONS.labels(_result)
for _what in ("device", "place"):
    NEW_DEVICES.labels(_what)
for _what in ("account", "address"):
    SIGN_IN_BURSTS.labels(_what)
for _first in (("recovered", "broken_client"), ("reuse", "broken_client"), ("reuse", "theft"), ("reuse", "unclear")):
    REFRESH_REPLAYS.labels(*_first)


def _introduce() -> None:
    BUILD.labels(__version__, platform.python_version()).set(1)
    WORKERS.set(1)


_introduce()


def sign_in(amr: tuple[str, ...], result: str) -> None:
    """Count a sign-in, by how it was tried (RFC 8176) and `success` or the code of the refusal."""
    SIGN_INS.labels("+".join(amr), result.lower()).inc()


def refresh_replay(verdict: str, looks_like: str) -> None:
    """Count a refresh token that came back, by what it looks like."""
    REFRESH_REPLAYS.labels(verdict, looks_like.replace(" ", "_")).inc()


class Meter:
    """The requests of one route, counted in plain numbers until `tell` makes metrics of them.

    A metric of the library is locked, and a request would pay for three of those each time. One of several workers
    tells at once all the same: what it has counted outlives it.
    """

    __slots__ = ("_counts", "_in_buckets", "_labels", "_seconds")

    def __init__(self, route: str, method: str) -> None:
        self._labels = (route, method)
        self._begin()

    def _begin(self) -> None:
        self._counts: dict[int, int] = {}
        self._in_buckets = [0] * (len(_HTTP_BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self._counts[status] = self._counts.get(status, 0) + 1
        self._in_buckets[bisect_left(_HTTP_BUCKETS, seconds)] += 1
        self._seconds += seconds
        if _together is not None:
            self.tell()

    def tell(self) -> None:
        """Add what was counted since the last time to the metrics."""
        counts, in_buckets, seconds = self._counts, self._in_buckets, self._seconds
        if not counts:
            return
        self._begin()
        for status, count in counts.items():
            HTTP_REQUESTS.labels(*self._labels, str(status)).inc(count)
        duration = HTTP_DURATION.labels(*self._labels)
        duration._sum.inc(seconds)
        for bucket, count in zip(duration._buckets, in_buckets, strict=True):
            if count:
                bucket.inc(count)


class _Together:
    """This process among those that count in one directory.

    What `ProcessCollector` tells of one process is a metric of its own here, so that it can be added up: the processor
    time of those that have died stays in the sum.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seconds = 0.0  # of a core, counted so far
        self._cpu = Counter("process_cpu_seconds_total", "Seconds of a core that all workers have used.", registry=None)
        self._gauges = {
            name: Gauge(name, f"{told}, of all workers.", registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]
            for name, told, mode in (
                ("process_resident_memory_bytes", "Resident memory; what workers share is in it for each", _OF_ALL),
                ("process_virtual_memory_bytes", "Virtual memory", _OF_ALL),
                ("process_open_fds", "Open files", _OF_ALL),
                ("process_max_fds", "Files that may be open", _OF_ALL),
                ("process_start_time_seconds", "When the oldest began", "livemin"),
            )
        }

    def observe(self) -> None:
        """Read what the system knows of this process."""
        for sample in (sample for family in _PROCESS.collect() for sample in family.samples):
            if sample.name == "process_cpu_seconds_total":
                self._cpu.inc(max(sample.value - self._seconds, 0))
                self._seconds = sample.value
            elif gauge := self._gauges.get(sample.name):
                gauge.set(sample.value)

    def written(self) -> bytes:
        everything = CollectorRegistry()
        multiprocess.MultiProcessCollector(everything, str(self.directory))  # type: ignore[no-untyped-call]
        return generate_latest(everything)


_together: _Together | None = None


def share(directory: Path, worker: int) -> None:
    """From here on count in this directory, as the worker of this number. Before anything is counted, and once."""
    global _together
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # where the library's values look for it
    values.ValueClass = count_files.value_class(worker)
    for metric in _all:
        # The library wants this decided before a metric is made, and ours were when nobody had read WORKERS yet.
        for each in metric._metrics.values() if metric._labelnames else (metric,):
            each._metric_init()
        if metric is UPKEEP:
            UPKEEP.set(time.time())  # the oldest of all counts, and a 0 would be older than any
    _together = _Together(directory)
    _together.observe()
    _introduce()


def forget(directory: Path, worker: int) -> None:
    """Take what that worker was at the moment out of the sums; what it had counted stays."""
    with suppress(OSError):  # gone already
        multiprocess.mark_process_dead(worker, str(directory))  # type: ignore[no-untyped-call]


def observe_process() -> None:
    """Read what the system knows of this process; alone, it is asked when somebody asks us."""
    if _together:
        _together.observe()


def written() -> bytes:
    """All of them, of all processes, in Prometheus' text format; of this one, where the files are gone or spoilt."""
    if _together:
        with suppress(OSError, ValueError, RuntimeError, struct.error):
            if told := _together.written():
                return told
    return generate_latest(REGISTRY)
