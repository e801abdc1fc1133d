"""The profiles of docker-compose.yml, run: its own command lines, on addresses of this machine."""

import contextlib
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis
import yaml

from service.store import Store, reach
from tests.conftest import free_port

from .conftest import ROOT, Redis, installed, running

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


class Stage:
    """Services of docker-compose.yml as processes; each keeps its data and its port over a restart."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self.home, self.stack = home, stack
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets = Redis(0, home)

    def cast(self, *names: str) -> None:
        """Give each of these a port."""
        self.ports |= {name: cluster_port() if "cluster" in name else free_port() for name in names}

    def command(self, name: str) -> list[str]:
        """What docker-compose.yml starts, with the addresses of this stage in place of the containers'."""
        home = self.home / name
        if not home.exists():
            home.mkdir()
            installed(home, self.ports.get(name, 0), Path(COMPOSE[name]["command"][1]).name)
        words = " ".join(COMPOSE[name]["command"]).replace("/etc/gatepost", str(home / "etc"))
        for other, port in self.ports.items():
            address = COMPOSE[other]["networks"]["store"]["ipv4_address"]
            words = words.replace(f"{address} 6379", f"127.0.0.1 {port}").replace(
                f"{address}:6379", f"127.0.0.1:{port}"
            )
        return words.split()

    def start(self, *names: str) -> None:
        for name in names:
            log = self.home / f"{name}.log"
            program = running(self.command(name), self.ports[name], log, env=self.secrets.env)
            self.processes[name] = self.stack.enter_context(program)

    def stop(self, *names: str) -> None:
        for name in names:
            self.processes[name].terminate()
        for name in names:
            self.processes[name].wait(20)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(10)

    def say(self, name: str, *command: str, user: str = "operator"):
        password = self.secrets.admin_password if user == "operator" else self.secrets.password
        with redis.Redis(
            port=self.ports[name], username=user, password=password, decode_responses=True, socket_timeout=2
        ) as client:
            return client.execute_command(*command)

    def watched(self, user: str = "operator") -> dict[str, str]:
        """What the first Sentinel knows of the master."""
        flat = self.say("sentinel-1", "SENTINEL", "MASTER", "gatepost", user=user)
        return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))

    def until(self, said, seconds: float = 40) -> None:
        """Wait until `said()` is true; Redis may be away meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(redis.RedisError):
                if said():
                    return
            assert time.monotonic() < deadline, "\n".join(path.read_text()[-2000:] for path in self.home.glob("*.log"))
            time.sleep(0.1)


def cluster_port() -> int:
    """A port whose cluster bus, ten thousand above, is a port too."""
    while (port := free_port()) > 55_000:
        pass
    return port


@pytest.fixture
def stage():
    with tempfile.TemporaryDirectory(prefix="stage-") as home, contextlib.ExitStack() as stack:
        yield Stage(Path(home), stack)


SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
ACCOUNT = "user:{ada}"


def test_sentinel_takes_over_the_single_redis_and_outlives_its_loss(stage):
    """And every Redis remembers whose replica it is, when it comes back."""
    stage.cast("redis", "redis-2", "redis-3", *SENTINELS)
    stage.start("redis")
    stage.say("redis", "HSET", ACCOUNT, "email", "ada@example.org", user="gatepost")

    def master() -> str:
        """What the service hears from a Sentinel, as the user that it has there."""
        port = int(stage.watched(user="gatepost")["port"])
        return next(name for name in stage.ports if stage.ports[name] == port)

    def roles() -> dict[str, str]:
        return {name: stage.say(name, "ROLE", user="gatepost")[0] for name in ("redis", "redis-2", "redis-3")}

    def settled() -> bool:
        state = stage.watched()
        return int(state["num-slaves"]) == 2 == int(state["num-other-sentinels"])

    stage.start("redis-2", "redis-3", *SENTINELS)
    stage.until(settled)
    stage.until(lambda: int(stage.say("redis", "WAIT", "2", "100")) == 2)
    assert master() == "redis"
    assert roles() == {"redis": "master", "redis-2": "slave", "redis-3": "slave"}

    stage.kill("redis")
    stage.until(lambda: master() != "redis")
    chosen = master()
    stage.until(lambda: stage.say(chosen, "ROLE")[0] == "master")
    assert stage.say(chosen, "HGET", ACCOUNT, "email", user="gatepost") == "ada@example.org"

    stage.start("redis")
    stage.until(lambda: roles()["redis"] == "slave")
    everyone = ("redis", "redis-2", "redis-3", *SENTINELS)
    stage.stop(*everyone)
    stage.start(*everyone)
    expected = dict.fromkeys(("redis", "redis-2", "redis-3"), "slave") | {chosen: "master"}
    stage.until(lambda: roles() == expected and master() == chosen)
    assert stage.say(chosen, "HGET", ACCOUNT, "email", user="gatepost") == "ada@example.org"


async def asked(stage, profile):
    """Redis' clock, asked as the service asks, by the address that docker-compose.yml offers for this profile."""
    text = (ROOT / "docker-compose.yml").read_text()
    url = re.search(rf"REDIS_URL=(redis\+{profile}://\S+)", text)[1].replace(
        "${REDIS_PASSWORD}", stage.secrets.password
    )
    for name, port in stage.ports.items():
        url = re.sub(rf"\b{name}:\d+", f"127.0.0.1:{port}", url)
    store = Store(reach(url))
    try:
        return await store.time()
    finally:
        await store.close()


async def test_a_service_finds_the_master_with_the_line_of_the_compose_file(stage):
    stage.cast("redis", *SENTINELS)
    stage.start("redis", *SENTINELS)

    assert await asked(stage, "sentinel") > 0


def test_a_sentinel_tells_nobody_without_a_name(stage):
    stage.cast("redis", "sentinel-1")
    stage.start("redis", "sentinel-1")

    with (
        redis.Redis(port=stage.ports["sentinel-1"]) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.execute_command("SENTINEL", "MASTERS")
    with pytest.raises(redis.ResponseError, match="no permissions"):
        stage.say("sentinel-1", "SENTINEL", "FAILOVER", "gatepost", user="gatepost")


async def test_six_nodes_become_one_cluster_once(stage):
    nodes = [f"cluster-{number}" for number in range(1, 7)]
    stage.cast(*nodes)
    stage.start(*nodes)

    def create() -> str:
        words = stage.command("cluster-create")
        done = subprocess.run(words, env=stage.secrets.env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "All 16384 slots covered" in create()
    assert create() == "", "the second time there is nothing to do"

    assert await asked(stage, "cluster") > 0

    password = stage.secrets.password
    with redis.RedisCluster(
        host="127.0.0.1", port=stage.ports["cluster-1"], username="gatepost", password=password
    ) as service:
        for number in range(20):
            service.hset(f"user:{{{number}}}", "email", f"{number}@example.org")
    stage.stop(*nodes)
    stage.start(*nodes)
    create()
    with redis.RedisCluster(
        host="127.0.0.1", port=stage.ports["cluster-4"], username="gatepost", password=password
    ) as service:
        kept = [service.hget(f"user:{{{number}}}", "email") for number in range(20)]

    assert kept == [f"{number}@example.org".encode() for number in range(20)]
    stage.until(lambda: [stage.say(name, "ROLE")[0] for name in nodes].count("slave") == 3)


@pytest.mark.parametrize("name", ["redis-2", "sentinel-1", "cluster-1", "cluster-create"])
def test_a_profile_without_the_password_of_the_operator_says_so(stage, name):
    stage.ports = {"redis": 1}
    env = {name: value for name, value in stage.secrets.env.items() if name != "REDIS_ADMIN_PASSWORD"}
    done = subprocess.run(stage.command(name), env=env, capture_output=True, text=True, timeout=20)

    assert done.returncode != 0
    assert "REDIS_ADMIN_PASSWORD" in done.stderr
