"""config/redis.conf, read by a real Redis."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError


@pytest.fixture
async def redis(redis_server):
    async with Redis(
        host="127.0.0.1",
        port=redis_server.port,
        username="operator",
        password=redis_server.admin_password,
        protocol=2,
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("protected-mode", "yes"),
        ("timeout", "0"),
    ],
)
async def test_redis_runs_with_this_setting(redis, setting, value):
    assert await redis.config_get(setting) == {setting: value}


async def test_the_most_sessions_a_user_can_have_stay_one_compact_block(redis):
    """A hundred sessions, and a blacklisted token for every one."""
    for number in range(100):
        sid = f"session-{number:016}"
        await redis.hset("sessions:{ada}", sid, "s" * 500)
        await redis.hset("sessions:{ada}", f"-{sid}", "r" * 30)

    assert await redis.object("ENCODING", "sessions:{ada}") in (b"listpack", b"ziplist")


async def test_redis_answers_nobody_without_the_password(redis_server):
    async with Redis(host="127.0.0.1", port=redis_server.port, protocol=2) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.ping()
