"""What the tests of sessions stand on besides: the rotation script by itself."""

from collections.abc import Iterator

import fakeredis
import pytest
import redis

from tests.sessions.twin import Twin


@pytest.fixture(params=["fakeredis", "redis"])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    """The rotation script, in memory and on a real Redis."""
    if request.param == "fakeredis":
        yield Twin(fakeredis.FakeRedis(decode_responses=True))
        return
    with redis.Redis.from_url(request.getfixturevalue("redis_server").url, decode_responses=True) as client:
        yield Twin(client)
