"""A Redis that could forget is named at the start and in `/ready`, and refused in production."""

import pytest

from tests.faults.deployment import Deployment
from tests.faults.processes import Single

DANGERS = {
    "appendonly is off": ("appendonly no",),
    "maxmemory-policy is allkeys-lru": ("maxmemory-policy allkeys-lru",),
    "maxmemory-policy is volatile-ttl": ("maxmemory-policy volatile-ttl", "maxmemory 100mb"),
}


@pytest.mark.parametrize("danger", DANGERS)
def test_a_redis_that_could_forget_is_refused_in_production_and_named_elsewhere(home, danger):
    folder = home / danger.replace(" ", "-")
    redis = Single(folder, *DANGERS[danger])
    redis.start()
    try:
        in_production = Deployment(folder, redis.url, instances=1).command("serve")
        elsewhere = Deployment(folder, redis.url, instances=1, ENVIRONMENT="development")
        try:
            elsewhere.start(accounts=0)
            (instance,) = elsewhere.instances
            ready, told = instance.get("/ready")
        finally:
            elsewhere.stop()

        assert in_production.returncode == 3
        assert danger in in_production.stderr
        assert ready == 200
        assert danger in told
        assert instance.said(danger)
    finally:
        redis.stop()
