"""Real processes on loopback that can be killed, frozen and started again: Redis in every formation, and what it needs.

`Single`, `Watched` (a master, two replicas, three Sentinels), `Sharded` (a Cluster of three masters and three replicas)
and `Guarded` (TLS and an ACL) each know their `url` as REDIS_URL has it. All stand on `config/redis.conf`. `Namespace`
is a network that can be cut.
"""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.backoff import NoBackoff
from redis.retry import Retry

from service import embedded
from service.settings import CONFIG
from tests.conftest import free_port
from tests.faults.ledger import Promotion

PASSWORD = "only for these tests"
NAME = "gatepost"  # of the master, among Sentinels
NOTICED_AFTER = 1500  # ms until Sentinels, or the nodes of a Cluster, take a silent server for dead
SLOTS = 16384
SECRET = quote(PASSWORD)


def until(true: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
    """Wait for something, and give it; raises `TimeoutError` with what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        if found := true():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(what or true.__name__)
        time.sleep(0.02)


class Process:
    """A program that this test alone has started; what it says is in `log`."""

    def __init__(self, args: Sequence[str], log: Path, cwd: Path, env: dict[str, str] | None = None) -> None:
        self._args, self._cwd, self._env = list(args), cwd, env
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def stand_in(self, prefix: Sequence[str]) -> None:
        """Be started through another program, such as `ip netns exec`."""
        self._args = [*prefix, *self._args]

    def start(self, *more: str) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._args, *more],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def freeze(self) -> None:
        """It stands still, as on an overloaded or paused machine."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        if self._process and self.runs:
            self._process.kill()
            self._process.wait(10)

    def terminate(self, seconds: float = 15) -> int:
        """SIGTERM, and its exit status; a process that does not go is killed, and that is an error."""
        if self._process is None:
            return 0
        if self.runs:
            self.thaw()
            self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class RedisNode(Process):
    """A redis-server on `config/redis.conf`, with a port and a data directory of its own."""

    def __init__(self, home: Path, *options: str, host: str = "127.0.0.1", authority: Path | None = None) -> None:
        home.mkdir(parents=True)
        self.home, self.host, self.port, self._authority = home, host, free_port(), authority
        self._file = home / "redis.conf"  # a copy: Sentinels let Redis rewrite it
        listening = f"port 0\ntls-port {self.port}" if authority else f"port {self.port}"
        lines = [f"bind {host}", listening, f"dir {home}", f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"']
        self._file.write_text("\n".join([(CONFIG / "redis.conf").read_text(), *lines, *options, ""]))
        super().__init__([binary(), str(self._file)], home / "log", home)

    def start(self, *more: str) -> None:
        super().start(*more)
        until(self.answers, what=f"{self._file} does not start, see {self.log}")

    def answers(self) -> bool:
        return self.runs and self.cli("PING") == "PONG"

    def cli(self, *command: str | int) -> Any:
        """Say something to it over a connection of its own, and give the plain reply; `None` when it is not there."""
        tls = {"ssl": True, "ssl_ca_certs": str(self._authority)} if self._authority else {}
        with redis.Redis(
            host=self.host,
            port=self.port,
            password=PASSWORD,
            decode_responses=True,
            socket_timeout=5,
            socket_connect_timeout=1,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **tls,
        ) as client:
            client.response_callbacks.clear()
            try:
                return client.execute_command(*command)
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                return None

    async def ask(self, *command: str | int) -> Any:
        """`cli`, without holding up the event loop."""
        return await asyncio.to_thread(self.cli, *command)

    def info(self, section: str) -> dict[str, str]:
        """`INFO`; empty when it is not there."""
        lines = (self.cli("INFO", section) or "").splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines) if value}


def binary() -> str:
    found = next(iter(embedded.servers()), None)
    assert found is not None, embedded.INSTALL
    return str(found.path)


_PROMOTED = re.compile(rb"^\d+:\w (.{19,24}) . (?:MASTER MODE enabled|Failover election won)", re.MULTILINE)


class Formation:
    """Several processes that make one Redis; `nodes` hold the data."""

    url: str
    nodes: list[RedisNode]

    def __init__(self) -> None:
        self._asked: list[tuple[float, float]] = []  # from when to when a change of masters was wanted

    @contextmanager
    def changing(self) -> Iterator[None]:
        """In this block a test wants another master."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._asked.append((began, time.monotonic()))

    def promotions(self) -> list[Promotion]:
        """Every time that a node became master, as the logs have it."""
        ahead = time.time() - time.monotonic()
        told = (at.decode() for node in self.nodes for at in _PROMOTED.findall(node.log.read_bytes()))
        moments = (datetime.datetime.strptime(at, "%d %b %Y %H:%M:%S.%f").astimezone().timestamp() for at in told)
        return [Promotion(moment - ahead, self._was_wanted(moment - ahead)) for moment in moments]

    def _was_wanted(self, at: float) -> bool:
        """A log has milliseconds, cut off."""
        return any(began - 0.001 <= at <= ended for began, ended in self._asked)

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()  # a master that is asked to stop waits for its replicas


class Single(Formation):
    """One node with AOF."""

    def __init__(self, home: Path, *options: str, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.node = RedisNode(home / "redis", *options, host=host)
        self.nodes, self.url = [self.node], f"redis://:{SECRET}@{host}:{self.node.port}/0"


class Watched(Formation):
    """A master and two replicas, watched by three Sentinels."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.nodes = [RedisNode(home / f"redis-{n}", "repl-diskless-sync-delay 0") for n in range(3)]
        first = self.nodes[0]
        self.sentinels = [_Sentinel(home / f"sentinel-{n}", first) for n in range(3)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://:{SECRET}@{hosts}/{NAME}/0?sentinel_password={SECRET}"

    def start(self) -> None:
        first, *others = self.nodes
        first.start()
        for node in others:
            node.start("--replicaof", first.host, str(first.port))
        until(lambda: all(self._follows(node, first) for node in others), what="replicas")
        for sentinel in self.sentinels:
            sentinel.start()
        until(self.is_whole, what="Sentinels that know each other")

    def stop(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        super().stop()

    @property
    def master(self) -> RedisNode:
        """The master as the Sentinels say."""
        ports = [at[1] for each in self.sentinels if (at := each.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME))]
        agreed = max(set(ports), key=ports.count)
        return next(node for node in self.nodes if node.port == int(agreed))

    @property
    def replicas(self) -> list[RedisNode]:
        return [node for node in self.nodes if node is not self.master]

    def heal(self) -> None:
        """Everybody is there again, one master and two replicas that follow it."""
        for node in self.nodes:
            if node.runs:
                node.thaw()
            else:
                node.start()
        self.let_in(*self.nodes)
        deadline = time.monotonic() + 60
        while not self.is_whole():
            assert time.monotonic() < deadline, "one master with two replicas"
            if all(sentinel.sees_master() for sentinel in self.sentinels):
                master = self.master
                for node in self.replicas:
                    if not self._follows(node, master):
                        # What the Sentinels do too, ten seconds later.
                        node.cli("REPLICAOF", master.host, master.port)
            with contextlib.suppress(TimeoutError):
                until(self.is_whole, 3)

    def is_whole(self) -> bool:
        """Two replicas follow the one master, and the Sentinels see everybody well."""
        master, *others = sorted(self.nodes, key=lambda node, master=self.master: node is not master)
        return all(self._follows(node, master) for node in others) and all(
            sentinel.sees_everybody() for sentinel in self.sentinels
        )

    @staticmethod
    def _follows(replica: RedisNode, master: RedisNode) -> bool:
        told = replica.info("replication")
        return told.get("master_link_status") == "up" and told["master_port"] == str(master.port)

    def cut_off(self, *replicas: RedisNode, eligible: bool = True) -> None:
        """These hear nothing of their master any more: what is written from now on they miss.

        `eligible`: whether the Sentinels may still choose them.
        """
        for replica in replicas:
            replica.cli("CONFIG", "SET", "masterauth", "not the password")
            replica.cli("CONFIG", "SET", "replica-priority", 100 if eligible else 0)
        self.master.cli("CLIENT", "KILL", "TYPE", "replica")
        for replica in self.replicas:
            status = "down" if replica in replicas else "up"
            until(lambda r=replica, s=status: r.info("replication")["master_link_status"] == s, what=f"a link {status}")
        if not eligible:
            until(lambda: all(sentinel.spares(replicas) for sentinel in self.sentinels), what="Sentinels that know")

    def let_in(self, *replicas: RedisNode) -> None:
        """These may hear their master again."""
        for replica in replicas:
            replica.cli("CONFIG", "SET", "masterauth", PASSWORD)
            replica.cli("CONFIG", "SET", "replica-priority", 100)

    async def fail_over(self, gracefully: bool = False) -> float:
        """Make the Sentinels choose another master, by their own insight or on demand; how long that took, in s."""
        return await asyncio.to_thread(self._fail_over, gracefully)

    def _fail_over(self, gracefully: bool) -> float:
        was, started = self.master, time.monotonic()
        with self.changing():
            if gracefully:
                self._ask_for_another_than(was)
            else:
                was.kill()
                self.until_another_than(was)
        return time.monotonic() - started

    def _ask_for_another_than(self, was: RedisNode) -> None:
        """A failover that finds no replica ready for it comes to nothing: ask again as soon as it has."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.sentinels[0].sees_master():
                with suppress(redis.ResponseError):
                    self.sentinels[0].cli("SENTINEL", "FAILOVER", NAME)
            with suppress(TimeoutError):
                self.until_another_than(was, 1)
                return
        raise TimeoutError("another master")

    def until_another_than(self, was: RedisNode, seconds: float = 20) -> RedisNode:
        """Wait until the Sentinels have made another node the master."""

        def another() -> RedisNode | None:
            chosen = self.master
            return chosen if chosen is not was and chosen.info("replication").get("role") == "master" else None

        with self.changing():
            return until(another, seconds, what="another master")


class _Sentinel(RedisNode):
    """One of those who watch the master and decide on its successor."""

    def __init__(self, home: Path, master: RedisNode) -> None:
        super().__init__(home)
        self._file.write_text(
            "\n".join(
                (
                    "bind 127.0.0.1",
                    f"port {self.port}",
                    f"dir {home}",
                    f'requirepass "{PASSWORD}"',
                    f'sentinel sentinel-pass "{PASSWORD}"',
                    f"sentinel monitor {NAME} {master.host} {master.port} 2",
                    f'sentinel auth-pass {NAME} "{PASSWORD}"',
                    f"sentinel down-after-milliseconds {NAME} {NOTICED_AFTER}",
                    f"sentinel failover-timeout {NAME} 2000",
                    f"sentinel parallel-syncs {NAME} 2",
                    "",
                )
            )
        )
        self._args.append("--sentinel")

    def sees_master(self) -> bool:
        """Whether it thinks that the master is well, and no failover is under way."""
        told = self.cli("SENTINEL", "MASTER", NAME)
        return bool(told) and dict(zip(told[::2], told[1::2], strict=True))["flags"] == "master"

    def spares(self, replicas: Iterable[RedisNode]) -> bool:
        """Whether it knows that it must not choose these."""
        priorities = {int(each["port"]): each["slave-priority"] for each in self._replicas()}
        return all(priorities.get(replica.port) == "0" for replica in replicas)

    def _replicas(self) -> list[dict[str, str]]:
        """What it knows of the replicas; nothing where it does not answer."""
        told = self.cli("SENTINEL", "REPLICAS", NAME) or []
        return [dict(zip(each[::2], each[1::2], strict=True)) for each in told]

    def sees_everybody(self) -> bool:
        """Whether it thinks that the master, both replicas and both other Sentinels are well."""
        told, followers = self.cli("SENTINEL", "MASTER", NAME), self._replicas()
        if not told:
            return False
        master = dict(zip(told[::2], told[1::2], strict=True))
        return [master["flags"], master["num-slaves"], master["num-other-sentinels"]] == ["master", "2", "2"] and [
            each["flags"] for each in followers
        ] == ["slave", "slave"]


class Sharded(Formation):
    """A Cluster of three masters with a replica each."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        options = ("cluster-enabled yes", "cluster-require-full-coverage no", f"cluster-node-timeout {NOTICED_AFTER}")
        options += ("repl-diskless-sync-delay 0",)
        self.nodes = [RedisNode(home / f"node-{n}", *options, f"cluster-port {free_port()}") for n in range(6)]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        self.url = f"redis+cluster://:{SECRET}@{hosts}"

    def start(self) -> None:
        super().start()
        first, masters = self.nodes[0], self.nodes[:3]
        bounds = [SLOTS * n // 3 for n in range(4)]
        for n, node in enumerate(self.nodes):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < 3:
                node.cli("CLUSTER", "ADDSLOTS", *range(bounds[n], bounds[n + 1]))
            if n:
                _, bus = node.cli("CONFIG", "GET", "cluster-port")
                first.cli("CLUSTER", "MEET", node.host, node.port, bus)
        until(lambda: all(len(_known(node)) == 6 for node in self.nodes), what="six nodes that know each other")
        for master, replica in zip(masters, self.nodes[3:], strict=True):
            replica.cli("CLUSTER", "REPLICATE", self.id_of(master))
        until(self.is_whole, what="a whole Cluster")

    def heal(self) -> None:
        """Every node is there again, three of them masters."""
        for node in self.nodes:
            if not node.runs:
                Process.start(node)
            else:
                node.thaw()
        until(self.is_whole, 40, "a whole Cluster")

    def is_whole(self) -> bool:
        """Three masters hold all slots, three replicas follow them, and every node sees it so."""
        return all(
            "cluster_state:ok" in str(node.cli("CLUSTER", "INFO"))
            and sorted(_known(node)) == ["master"] * 3 + ["slave"] * 3
            and node.info("replication").get("master_link_status", "up") == "up"
            for node in self.nodes
        )

    def id_of(self, node: RedisNode) -> str:
        return str(node.cli("CLUSTER", "MYID"))

    @property
    def masters(self) -> list[RedisNode]:
        return [node for node in self.nodes if node.runs and node.info("replication").get("role") == "master"]

    def master_of(self, slot: int) -> RedisNode:
        """The node that serves a slot, as one that runs has it."""
        port = self._master_at(next(node for node in self.nodes if node.runs), slot)
        return next(node for node in self.nodes if node.port == port)

    @staticmethod
    def _master_at(node: RedisNode, slot: int) -> int | None:
        """The port of the master of a slot, in the eyes of a node."""
        for first, last, (_, port, *_), *_ in node.cli("CLUSTER", "SLOTS") or []:
            if first <= slot <= last:
                return int(port)
        return None

    def lose(self, slot: int) -> None:
        """Kill the master of a slot and its replica; over when the others have noticed."""
        port = self.master_of(slot).port
        gone = [node for node in self.nodes if port in (node.port, int(node.info("replication").get("master_port", 0)))]
        for node in gone:
            node.kill()
        until(lambda: all("fail" in _known_flags(node) for node in self.nodes if node.runs), what="a loss noticed")

    def until_another_than(self, was: RedisNode, slot: int) -> None:
        """Wait until every node that runs, but the one that is lost, has the slot served from elsewhere."""
        others = [node for node in self.nodes if node is not was and node.runs]
        with self.changing():
            until(
                lambda: all(self._master_at(node, slot) not in (None, was.port) for node in others),
                what="a promoted replica",
            )

    def slot_of(self, key: str) -> int:
        return int(self.masters[0].cli("CLUSTER", "KEYSLOT", key))

    def begin_to_move(self, slot: int) -> tuple[RedisNode, RedisNode]:
        """From now on new keys of the slot are made at another master, and old ones are still where they were."""
        source = self.master_of(slot)
        target = next(node for node in self.masters if node is not source)
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source, target

    def move(self, slot: int, source: RedisNode, target: RedisNode) -> int:
        """Move the keys that are in the slot now, one after another, and give their number."""
        keys = source.cli("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        for key in keys:
            source.cli("MIGRATE", target.host, target.port, key, 0, 2000, "AUTH", PASSWORD)
        return len(keys)

    def finish_moving(self, slot: int, source: RedisNode, target: RedisNode) -> None:
        while self.move(slot, source, target):
            pass
        for node in (target, source, *self.masters):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def redirections(self) -> dict[str, int]:
        """How often the nodes have said ASK and MOVED so far."""
        counted = {"ASK": 0, "MOVED": 0}
        for node in self.nodes:
            told = node.info("errorstats")
            for word in counted:
                counted[word] += int(told.get(f"errorstat_{word}", "count=0").partition("=")[2])
        return counted


def _known_flags(node: RedisNode) -> set[str]:
    """Every flag that a node gives any other, such as "fail" for one that it knows to be lost."""
    lines = str(node.cli("CLUSTER", "NODES") or "").splitlines()
    return {flag for line in lines for flag in line.split()[2].split(",")}


def _known(node: RedisNode) -> list[str]:
    """What the nodes are that this one knows: "master" or "slave", or what is wrong with them."""
    return [line.split()[2].removeprefix("myself,") for line in str(node.cli("CLUSTER", "NODES") or "").splitlines()]


class Guarded(Formation):
    """One node that speaks only TLS, and to our user only what it needs."""

    USER = "gatepost"

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.authority = authority = Authority(home)
        certificate, key = authority.issue("127.0.0.1")
        self.node = RedisNode(
            home / "redis",
            f"tls-ca-cert-file {authority.certificate}",
            "tls-auth-clients no",
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f'user {self.USER} on ">{PASSWORD}" ~* &* +@all -@admin -@dangerous +info',
            authority=authority.certificate,
        )
        self.nodes, self.url = [self.node], self.url_for(authority)

    def url_for(self, trusted: "Authority", secret: str = SECRET) -> str:
        return f"rediss://{self.USER}:{secret}@127.0.0.1:{self.node.port}/0?ssl_ca_certs={trusted.certificate}"


class Authority:
    """A certificate authority that nobody but these tests knows."""

    def __init__(self, home: Path) -> None:
        self._home, self._key = home, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        self.certificate = self._write("authority.pem", self._sign(self._name, self._key, None))

    def issue(self, address: str) -> tuple[Path, Path]:
        """A certificate for a server with this address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write("server.pem", self._sign(subject, key, address)), self._write("server.key", private)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, address: str | None) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        draft = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=address is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            draft = draft.add_extension(names, critical=False)
        return draft.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> Path:
        path = self._home / name
        path.write_bytes(content)
        return path


class Namespace:
    """A network of its own that one server stands in, on the other end of a cable that can be cut and mended.

    Raises `NotPermitted` where this system does not let us make one.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._name = self._cable = f"gp{os.getpid()}"
        self._far = self._cable + "x"
        net = f"10.213.{os.getpid() % 254 + 1}"
        self.outside, self.inside = f"{net}.1", f"{net}.2"

    def __enter__(self) -> "Namespace":
        try:
            self._ip("netns", "add", self._name)
            self._ip("link", "add", self._cable, "type", "veth", "peer", "name", self._far, "netns", self._name)
            self._ip("addr", "add", f"{self.outside}/24", "dev", self._cable)
            self._ip("link", "set", self._cable, "up")
            self._ip("-n", self._name, "addr", "add", f"{self.inside}/24", "dev", self._far)
            self._ip("-n", self._name, "link", "set", self._far, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([self._tool, "link", "del", self._cable], capture_output=True, check=False)
        subprocess.run([self._tool, "netns", "del", self._name], capture_output=True, check=False)

    def put(self, process: Process) -> None:
        """Let a process, once it is started, stand inside."""
        process.stand_in([self._tool, "netns", "exec", self._name])

    def cut(self) -> None:
        """No packet passes, in either direction, and nobody is told."""
        self._ip("-n", self._name, "link", "set", self._far, "down")

    def mend(self) -> None:
        self._ip("-n", self._name, "link", "set", self._far, "up")

    def _ip(self, *args: str) -> None:
        command = [self._tool, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        if done.returncode:
            raise NotPermitted(f"{' '.join(command)}: {done.stderr.strip()}")


class NotPermitted(Exception):
    """The system forbids it."""
