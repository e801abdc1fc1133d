"""What decides nothing fails nobody: a sign-in whose place is kept by a server of a Cluster that is away."""

import os
import signal

import pytest

from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.parts import PARTS
from service.store import reach
from service.store.commands import slot_of
from tests.conftest import Browser
from tests.faults.conftest import in_time

ADA = "ada@example.org"


@pytest.fixture
async def browser(cluster, assembling, serving) -> Browser:
    """It looks at an instance on that Cluster, where the other server has what is known of Ada's place, and no more."""
    everything, other = cluster
    port = everything.cli("CONFIG", "GET", "port")["port"]
    its = await assembling(reach(f"redis+cluster://127.0.0.1:{port}"))
    slot = slot_of(its.places.reading(ADA, Client("127.0.0.1")))
    name = other.cli("CLUSTER", "MYID")
    for server in (other, everything):
        server.cli("CLUSTER", "SETSLOT", slot, "NODE", name)
    await its.store.look_around()
    return await serving(its)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_sign_in_goes_on_while_nobody_knows_from_where(browser, cluster, fault):
    _, other = cluster
    its = browser.client.server.app[PARTS]
    signed = (await browser.register(ADA)).json
    here = {"headers": {"User-Agent": "Firefox/140.0 Windows"}}
    assert (await browser.login(ADA, **here)).status == 200
    assert [key for key in other.cli("KEYS", "*") if not key.startswith("known:")] == []

    os.kill(other.process.pid, fault)
    answers = [(await in_time(browser.login(ADA, headers={"User-Agent": name})))[0] for name in ("curl/8", "Safari/1")]
    os.kill(other.process.pid, signal.SIGCONT)

    assert [answer.status for answer in answers] == [200, 200]
    events, _ = await its.audit.page(Wanted(signed["user"]["id"], type=Event.SIGNED_IN), None, 10)
    assert ["new_device" in event.detail for event in events] == [False, False, True, False]


async def test_what_was_known_is_known_again(browser, cluster):
    """What could not be read was not written over either."""
    _, other = cluster
    await browser.register(ADA, headers={"User-Agent": "Firefox/140.0 Windows"})
    its = browser.client.server.app[PARTS]

    os.kill(other.process.pid, signal.SIGSTOP)
    lost = its.places.read((await its.store.run(hints=[its.places.reading(ADA, Client("127.0.0.1"))]))[0])
    os.kill(other.process.pid, signal.SIGCONT)
    await its.places.remember(ADA, Client("127.0.0.1", "curl/8"), lost)

    assert lost is None
    seen = its.places.read(await its.store.one(its.places.reading(ADA, Client("127.0.0.1"))))
    assert seen is not None
    assert seen.devices == ("Firefox on Windows",)
