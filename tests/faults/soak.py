"""Hours of faults in minutes: browsers live, one fault follows another by chance, and no answer may be wrong.

    python -m tests.faults.soak --minutes 10 --browsers 200 --formation sentinel --seed 7

The seed decides which faults there are, and in which order. Exits with 1 if an answer was wrong; FAULTS_JSON gets the
figures.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import figures
from tests.faults.deployment import Deployment, deployed
from tests.faults.figures import Figures
from tests.faults.ledger import Ledger, browsing, everybody_signs_in, settle_accounts, traffic, until_nothing_is_lost
from tests.faults.processes import SECRET, SLOTS, Sharded, Single, Watched
from tests.faults.proxy import Network

Fault = Callable[[random.Random], Awaitable[None]]


@dataclass
class Stage:
    """A deployment, and what may befall it; each fault is over when its function returns."""

    deployment: Deployment
    faults: dict[str, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.faults["an instance killed and started again"] = self._lose_an_instance
        self.faults["an instance frozen"] = self._freeze_an_instance

    async def _lose_an_instance(self, chance: random.Random) -> None:
        instance = chance.choice(self.deployment.instances)
        instance.kill()
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(self.deployment.restart, instance)

    async def _freeze_an_instance(self, chance: random.Random) -> None:
        instance = chance.choice(self.deployment.instances)
        instance.freeze()
        await asyncio.sleep(chance.uniform(0.5, 2))
        instance.thaw()


def one_node(home: Path, stack: ExitStack, instances: int) -> Stage:
    """One Redis behind a network that fails."""
    single = Single(home)
    stack.callback(single.stop)
    single.start()
    network = Network(single.node.port)
    stack.callback(network.close)
    url = f"redis://:{SECRET}@127.0.0.1:{network.port}/0"
    redis = single.node

    async def kill(chance: random.Random) -> None:
        redis.kill()
        await asyncio.sleep(chance.uniform(0, 2))
        await asyncio.to_thread(redis.start)

    async def freeze(chance: random.Random) -> None:
        redis.freeze()
        await asyncio.sleep(chance.uniform(0.5, 5))
        redis.thaw()

    async def cut(chance: random.Random) -> None:
        await asyncio.to_thread(network.cut)
        await asyncio.sleep(chance.uniform(0.1, 2))
        await asyncio.to_thread(network.mend)

    async def silence(chance: random.Random) -> None:
        network.freeze()
        await asyncio.sleep(chance.uniform(0.1, 3))
        network.thaw()

    async def lose_replies(chance: random.Random) -> None:
        for _ in range(20):
            network.lose(times=chance.randint(1, 3), skip=chance.randint(0, 3))
            await asyncio.sleep(0.1)
        network.lose(times=0)

    async def flush_scripts(chance: random.Random) -> None:
        await redis.ask("SCRIPT", "FLUSH")

    faults: dict[str, Fault] = {
        "Redis killed and started again": kill,
        "Redis frozen": freeze,
        "network cut": cut,
        "network silent": silence,
        "replies lost": lose_replies,
        "scripts flushed": flush_scripts,
    }
    return Stage(stack.enter_context(deployed(home, url, instances)), faults)


def sentinel(home: Path, stack: ExitStack, instances: int) -> Stage:
    """A master that changes."""
    watched = Watched(home)
    stack.callback(watched.stop)
    watched.start()

    async def kill_master(chance: random.Random) -> None:
        await watched.fail_over()
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(watched.heal)

    async def replace_master(chance: random.Random) -> None:
        await watched.fail_over(gracefully=True)
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(watched.heal)

    async def freeze_master(chance: random.Random) -> None:
        was = watched.master
        was.freeze()
        await asyncio.to_thread(watched.until_another_than, was)
        await asyncio.sleep(chance.uniform(0, 1))
        was.thaw()
        await asyncio.to_thread(watched.heal)

    async def freeze_for_a_moment(chance: random.Random) -> None:
        was = watched.master
        was.freeze()
        await asyncio.sleep(0.4)
        was.thaw()

    async def lose_a_replica(chance: random.Random) -> None:
        chance.choice(watched.replicas).kill()
        await asyncio.sleep(chance.uniform(0, 1))
        await asyncio.to_thread(watched.heal)

    async def freeze_sentinels(chance: random.Random) -> None:
        for each in watched.sentinels:
            each.freeze()
        await asyncio.sleep(chance.uniform(0.5, 2))
        for each in watched.sentinels:
            each.thaw()
        await asyncio.to_thread(watched.heal)

    faults: dict[str, Fault] = {
        "master killed, another chosen": kill_master,
        "master replaced by an operator": replace_master,
        "master frozen, another chosen": freeze_master,
        "master frozen for a moment": freeze_for_a_moment,
        "a replica killed and started again": lose_a_replica,
        "Sentinels frozen": freeze_sentinels,
    }
    return Stage(stack.enter_context(deployed(home, watched.url, instances, formation=watched)), faults)


def cluster(home: Path, stack: ExitStack, instances: int) -> Stage:
    """A Cluster whose slots move and whose masters die."""
    sharded = Sharded(home)
    stack.callback(sharded.stop)
    sharded.start()

    async def lose_master(chance: random.Random, frozen: bool = False) -> None:
        slot = chance.randrange(SLOTS)
        victim = sharded.master_of(slot)
        victim.freeze() if frozen else victim.kill()
        await asyncio.to_thread(sharded.until_another_than, victim, slot)
        await asyncio.to_thread(sharded.heal)

    async def freeze_master(chance: random.Random) -> None:
        await lose_master(chance, frozen=True)

    async def move_slots(chance: random.Random) -> None:
        for _ in range(10):
            slot = chance.randrange(SLOTS)
            source, target = await asyncio.to_thread(sharded.begin_to_move, slot)
            await asyncio.to_thread(sharded.move, slot, source, target)
            await asyncio.to_thread(sharded.finish_moving, slot, source, target)

    async def flush_scripts(chance: random.Random) -> None:
        for node in sharded.nodes:
            await node.ask("SCRIPT", "FLUSH")

    faults: dict[str, Fault] = {
        "a master killed, its replica promoted": lose_master,
        "a master frozen, its replica promoted": freeze_master,
        "10 slots moved": move_slots,
        "scripts flushed on all nodes": flush_scripts,
    }
    return Stage(stack.enter_context(deployed(home, sharded.url, instances, formation=sharded)), faults)


FORMATIONS = {"one-node": one_node, "sentinel": sentinel, "cluster": cluster}


async def soak(stage: Stage, seconds: float, browsers: int, seed: int) -> tuple[Ledger, list[Figures]]:
    """Let them live and let it happen for so long; the ledger has every answer that was wrong."""
    deployment = stage.deployment
    ledger, chance, told = deployment.ledger(), random.Random(seed), []
    await deployment.until_ready()
    devices = 2
    async with browsing(ledger, deployment.url, deployment.emails(browsers // devices), devices) as people:
        await everybody_signs_in(people)
        ends = time.monotonic() + seconds
        waiting: list[str] = []
        async with traffic(people, pause=max(0.1, browsers / 150), seed=seed):
            while time.monotonic() < ends:
                if not waiting:  # each has its turn, in a new order every time
                    waiting = chance.sample(list(stage.faults), len(stage.faults))
                name, began, lost = waiting.pop(), time.monotonic(), ledger.sessions_lost
                if name.endswith(("another chosen", "promoted")):
                    ledger.master_dies()
                await stage.faults[name](chance)
                recovered = await until_nothing_is_lost(ledger, time.monotonic(), quiet=chance.uniform(0.5, 1.5))
                calls = [call for call in ledger.calls if call.asked >= began]
                cost = Figures(
                    name,
                    len(calls),
                    sum(call.lost for call in calls),
                    ledger.sessions_lost - lost,
                    ledger.longest(began),
                    ledger.held(began),
                    recovered,
                )
                told.append(cost)
                print(cost, flush=True)
        await deployment.until_ready()
        await settle_accounts(ledger, people)
    return ledger, told


def main(arguments: Sequence[str]) -> int:
    """0 when no answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--browsers", type=int, default=200)
    parser.add_argument("--formation", choices=FORMATIONS, default="one-node")
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else random.randrange(10_000)
    print(f"seed {seed}\n{figures.HEADER}")
    with tempfile.TemporaryDirectory(prefix="gp-") as home, ExitStack() as stack:
        stage = FORMATIONS[asked.formation](Path(home), stack, asked.instances)
        ledger, told = asyncio.run(soak(stage, asked.minutes * 60, asked.browsers, seed))
        faults = [line for each in stage.deployment.instances for line in each.exceptions()]
    figures.write(told)
    lost = sum(call.lost for call in ledger.calls)
    print(f"\n{len(ledger.calls)} requests, {lost} lost; {len(ledger.wrong)} wrong answers, {len(faults)} exceptions")
    print(*ledger.wrong, *faults, sep="\n")
    return 1 if ledger.wrong or faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
