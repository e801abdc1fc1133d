"""Deployments of real processes, one for each test module: each test uses accounts that no other has used."""

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.faults.conftest import BACK_WITHIN, PROMISED
from tests.faults.deployment import Deployment
from tests.faults.figures import Figures, as_property
from tests.faults.ledger import (
    Ledger,
    Session,
    SimulatedBrowser,
    browsing,
    everybody_signs_in,
    settle_accounts,
    until_nothing_is_lost,
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory for the processes of a module, with a short name for the sake of sockets."""
    with tempfile.TemporaryDirectory(prefix="gp-") as directory:
        yield Path(directory)


@dataclass
class Crowd:
    """Signed-in browsers, what they were promised, and what a fault has cost them."""

    deployment: Deployment
    ledger: Ledger
    browsers: list[SimulatedBrowser]
    _tell: Callable[[Figures], None]
    _began: float

    async def recovers(self, ended: float) -> float:
        """Wait, while traffic goes on, until nothing is lost; that must be soon after the end of the cause."""
        recovered = await until_nothing_is_lost(self.ledger, ended)
        late = self.ledger.lateness.within(ended, ended + recovered)
        assert recovered - late < BACK_WITHIN, f"back only after {recovered:.2f} s"
        return recovered

    async def accepted(self, session: Session) -> bool:
        """Whether the access token of a session is accepted at any instance, or one of them cannot say."""
        headers = {"Authorization": f"Bearer {session.access_token}"}
        statuses = set()
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as http:
            for instance in self.deployment.instances:
                async with http.get(f"{instance.url}/api/auth/verify") as answer:
                    statuses.add(answer.status)
        assert statuses <= {200, 401, 503}
        return statuses != {401}

    def tell(self, fault: str, recovered: float) -> None:
        """What a fault cost that the ledger knows nothing of."""
        calls = [call for call in self.ledger.calls if call.asked >= self._began]
        longest, held = self.ledger.longest(self._began), self.ledger.held(self._began)
        self._tell(Figures(fault, len(calls), 0, 0, longest, held, recovered))

    async def settle(self, fault: str, recovered: float) -> None:
        """Tell what it cost, and hold every promise against the service."""
        calls = [call for call in self.ledger.calls if call.asked >= self._began]
        await settle_accounts(self.ledger, self.browsers)
        longest, held = self.ledger.longest(self._began), self.ledger.held(self._began)
        lost = len(self.ledger.lost(self._began))
        self._tell(Figures(fault, len(calls), lost, self.ledger.sessions_lost, longest, held, recovered))
        assert not self.ledger.wrong, "\n".join(self.ledger.wrong)
        assert held < PROMISED, f"somebody waited {longest:.2f} s, of which {held:.2f} s were ours"


Gathering = Callable[..., AbstractAsyncContextManager[Crowd]]


@pytest.fixture
def gathering(request: pytest.FixtureRequest) -> Gathering:
    """A crowd before a deployment: `async with gathering(deployment, 20) as crowd: ...`."""

    def tell(figures: Figures) -> None:
        request.node.user_properties.append(as_property(figures))

    @asynccontextmanager
    async def gathered(deployment: Deployment, accounts: int, devices: int = 1) -> AsyncIterator[Crowd]:
        ledger = deployment.ledger()
        await deployment.until_ready()
        async with browsing(ledger, deployment.url, deployment.emails(accounts), devices) as browsers:
            await everybody_signs_in(browsers)
            yield Crowd(deployment, ledger, browsers, tell, time.monotonic())

    return gathered
