"""What stands between the store and its Redis in these tests."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
async def proxy(redis_server) -> AsyncIterator[Proxy]:
    """A way to the tests' Redis on which everything can go wrong."""
    between = Proxy(redis_server.socket)
    await between.start()
    yield between
    await between.stop()
