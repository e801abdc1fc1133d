"""Why Redis does not answer, in a sentence for whoever wrote `REDIS_URL`."""

import asyncio
import socket
import ssl

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreUnavailable
from service.store import Store, reach, trouble
from service.store.node import NoMaster
from tests.conftest import free_port
from tests.mail.smtp_server import make_certificate


async def told_of(url: str) -> str:
    """What is said of a Redis that does not answer, by whoever begins; and nobody gets anything but a 503."""
    store = Store(reach(url))
    try:
        with structlog.testing.capture_logs() as logged:
            with pytest.raises(StoreUnavailable) as away:
                await store.meet()
            with pytest.raises(StoreUnavailable):
                await store.time()
        assert [line for line in logged if line["event"] == "store.failed" and line["log_level"] == "warning"] == []
        return trouble(away.value, url)
    finally:
        await store.close()


async def test_an_address_where_nobody_listens():
    port = free_port()

    assert await told_of(f"redis://localhost:{port}") == (
        f"Nobody listens at localhost:{port}: start Redis there, or correct host and port in REDIS_URL."
    )


async def test_a_socket_that_is_not_there(tmp_path):
    assert f"There is no socket {tmp_path}/s:" in await told_of(f"unix://{tmp_path}/s")


@pytest.mark.parametrize(
    ("cause", "url", "told"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            "redis://nowhere",
            "There is no host such as in nowhere:6379",
        ),
        (ssl.SSLCertVerificationError(1, "self-signed"), "rediss://host", "name it with ?ssl_ca_certs= in REDIS_URL"),
        (ssl.SSLError(1, "wrong version number"), "rediss://host", "does not speak TLS"),
        (RedisTimeoutError("Timeout connecting"), "rediss://host", "does not answer in TLS"),
        (RedisTimeoutError("Timeout connecting"), "redis://host", "does not answer in time"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed"),
            "redis://host",
            "Nobody listens at host:6379",
        ),
        (PermissionError(13, "Permission denied"), "unix:///run/s", "This user may not open /run/s"),
        (NoMaster("it is no master but a slave"), "redis://host", "is a replica"),
        (OSError(113, "No route to host"), "redis://:hidden@host", "Redis at host:6379 does not answer."),
    ],
)
def test_what_the_system_says_becomes_a_sentence(cause, url, told):
    away = StoreUnavailable()
    away.__cause__ = RedisConnectionError("what the library makes of it")
    away.__cause__.__cause__ = cause

    assert told in trouble(away, url)
    assert "hidden" not in trouble(away, url)


async def test_a_password_that_is_wrong_or_missing_is_told_and_not_shown(own_redis):
    own_redis.cli("CONFIG", "SET", "requirepass", "open sesame")

    wrong = await told_of(f"unix://:a%20wrong%20one@{own_redis.socket}")
    missing = await told_of(own_redis.url)

    assert "refuses the user or the password: correct them in REDIS_URL." in wrong
    assert "wrong one" not in wrong
    assert "asks for a password: write it into REDIS_URL" in missing


async def test_what_is_no_redis_at_all():
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        assert f"What answers at 127.0.0.1:{port} is no Redis" in await told_of(f"redis://127.0.0.1:{port}")


async def test_a_certificate_for_another_host_and_files_that_are_none(tmp_path):
    certificate, empty = make_certificate(tmp_path), tmp_path / "empty.pem"
    empty.touch()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.2", 0, ssl=context) as server:
        url = f"rediss://127.0.0.2:{server.sockets[0].getsockname()[1]}"

        assert "has a certificate of an unknown authority" in await told_of(url)
        assert "has a certificate for another host" in await told_of(f"{url}?ssl_ca_certs={certificate}")
        assert "?ssl_ of REDIS_URL names is not there" in await told_of(f"{url}?ssl_ca_certs={tmp_path}/none.pem")
        assert "names has no certificate" in await told_of(f"{url}?ssl_ca_certs={empty}")
        assert "names has no certificate" in await told_of(f"{url}?ssl_certfile={empty}&ssl_keyfile={certificate}")


@pytest.mark.parametrize("kind", ["redis+sentinel://localhost:{}/main", "redis+cluster://localhost:{}"])
async def test_servers_that_none_tells_of(kind):
    port = free_port()

    assert f"at localhost:{port} answers and" in await told_of(kind.format(port))


async def test_a_failure_that_goes_on_is_told_once_in_a_while():
    store = Store(reach(f"redis://localhost:{free_port()}"))
    try:
        with structlog.testing.capture_logs() as logged:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.time()
    finally:
        await store.close()

    told = [line["log_level"] for line in logged if line["event"] == "store.failed"]
    assert told.count("warning") == 2  # the first try, and the second, which is final
