"""config/nginx.conf, driven by a real nginx in front of three real servers."""

import asyncio
import json
import re
from collections import Counter

import pytest
from aiohttp import web
from yarl import URL

from service import serving

from .conftest import ROOT

INSTANCES = ("gatepost-1:8000", "gatepost-2:8000", "gatepost-3:8000")
NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture
async def instances(backend):
    return [await backend() for _ in INSTANCES]


@pytest.fixture
def edge(nginx, instances):
    return nginx("nginx.conf", dict(zip(INSTANCES, (server.address for server in instances), strict=True)))


def seen(instances):
    return [request for server in instances for request in server.seen]


async def test_requests_spread_over_every_instance(edge, instances, client):
    for _ in range(30):
        async with client.get(f"{edge.url}/health") as answer:
            assert answer.status == 200

    assert [len(server.seen) for server in instances] == [10, 10, 10]


async def test_connections_to_an_instance_are_used_again(edge, instances, client):
    for _ in range(30):
        async with client.get(f"{edge.url}/health"):
            pass

    assert len({request.connection for request in seen(instances)}) == len(instances)


async def test_what_a_client_says_of_its_address_is_replaced(edge, instances, client):
    lies = {"X-Forwarded-For": "203.0.113.7, 10.0.0.1", "X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    lies |= {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X_Forwarded_For": "203.0.113.7"}
    async with client.get(f"{edge.url}/api/auth/me", headers=lies):
        pass

    headers = seen(instances)[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert not {"x-real-ip", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x_forwarded_for"} & headers.keys()


async def test_the_request_id_of_a_client_is_handed_on(edge, instances, client):
    async with client.get(f"{edge.url}/health", headers={"X-Request-Id": "order-66"}):
        pass

    assert seen(instances)[0].headers["x-request-id"] == "order-66"


@pytest.mark.parametrize("sent", [None, 'a"b', "a" * 65, "two words"])
async def test_a_request_without_a_sane_id_gets_one(edge, instances, client, sent):
    async with client.get(f"{edge.url}/health", headers={"X-Request-Id": sent} if sent else {}):
        pass

    made = seen(instances)[0].headers["x-request-id"]
    assert len(made) == 32
    assert int(made, 16)


async def test_credentials_and_the_query_arrive_as_they_were_sent(edge, instances, client):
    headers = {"Authorization": "Bearer a.b.c", "Cookie": "accessToken=x", "X-CSRF-Token": "t", "X-Auth-Mode": "token"}
    url = URL(f"{edge.url}/api/auth/refresh?a=%2F", encoded=True)
    async with client.post(url, headers=headers, json={"refreshToken": "rt_1"}):
        pass

    (request,) = seen(instances)
    assert request.target == "/api/auth/refresh?a=%2F"
    assert {name: request.headers[name.lower()] for name in headers} == headers
    assert json.loads(request.body) == {"refreshToken": "rt_1"}


async def test_one_dead_instance_is_not_noticed(nginx, backend, client):
    alive = [await backend(), await backend()]
    edge = nginx("nginx.conf", dict(zip(INSTANCES, (alive[0].address, NOBODY, alive[1].address), strict=True)))

    statuses = Counter()
    for turn in range(30):
        call = client.post if turn % 2 else client.get
        async with call(f"{edge.url}/api/auth/refresh") as answer:
            statuses[answer.status] += 1

    assert statuses == {200: 30}
    assert len(seen(alive)) == 30


async def test_a_post_that_was_sent_is_never_repeated(nginx, backend, client):
    """The instance may have done it before it died: a second registration or sign-in is not nginx's to begin."""
    received = []

    async def hang_up(reader, writer):
        received.append((await reader.readuntil(b"\r\n")).decode().split()[1])
        writer.close()
        await writer.wait_closed()

    alive = [await backend(), await backend()]
    dying = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with dying:
        address = f"127.0.0.1:{dying.sockets[0].getsockname()[1]}"
        edge = nginx("nginx.conf", dict(zip(INSTANCES, (alive[0].address, address, alive[1].address), strict=True)))
        statuses = Counter()
        for turn in range(9):
            async with client.post(f"{edge.url}/api/auth/refresh?turn={turn}") as answer:
                statuses[answer.status] += 1

    times = Counter([request.target for request in seen(alive)] + received)
    assert received
    assert set(times.values()) == {1}
    assert statuses == {200: 9 - len(received), 503: len(received)}


async def test_no_instance_at_all_is_a_503_to_retry(nginx, client):
    edge = nginx("nginx.conf", dict.fromkeys(INSTANCES, NOBODY))
    async with client.get(f"{edge.url}/health", headers={"X-Request-Id": "order-66"}) as answer:
        problem = json.loads(await answer.read())

    assert answer.status == 503
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert "Set-Cookie" not in answer.headers
    assert (problem["status"], problem["code"], problem["requestId"]) == (503, "SERVICE_UNAVAILABLE", "order-66")


@pytest.mark.parametrize("status", [401, 413, 500, 502, 503])
async def test_an_error_of_the_service_passes_unchanged(edge, instances, client, status):
    for server in instances:
        server.answer = lambda _: web.Response(
            status=status, text='{"code": "OURS"}', content_type="application/problem+json"
        )
    async with client.get(f"{edge.url}/api/auth/me") as answer:
        body = await answer.text()

    assert (answer.status, body) == (status, '{"code": "OURS"}')
    assert len(seen(instances)) == 1


async def test_a_body_of_16_kib_passes(edge, instances, client):
    async with client.post(f"{edge.url}/api/auth/login", data=b"x" * 16384) as answer:
        assert answer.status == 200

    assert len(seen(instances)[0].body) == 16384


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_64_kib_is_a_413_that_no_instance_sees(edge, instances, client, chunked):
    async def pieces():
        yield b"x" * 65537

    body = pieces() if chunked else b"x" * 65537
    async with client.post(f"{edge.url}/api/auth/login", data=body) as answer:
        problem = json.loads(await answer.read())

    assert answer.status == 413
    assert answer.content_type == "application/problem+json"
    assert problem["code"] == "PAYLOAD_TOO_LARGE"
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    assert seen(instances) == []


async def test_long_cookies_pass_both_ways(edge, instances, client):
    for server in instances:
        server.answer = lambda _: web.Response(headers={"Set-Cookie": "accessToken=" + "s" * 7000})
    async with client.get(f"{edge.url}/api/auth/me", headers={"Cookie": "accessToken=" + "c" * 12000}) as answer:
        pass

    assert answer.status == 200
    assert len(answer.headers["Set-Cookie"]) > 7000
    assert len(seen(instances)[0].headers["cookie"]) > 12000


async def test_metrics_are_not_served_to_the_outside(edge, instances, client):
    async with client.get(f"{edge.url}/metrics") as answer:
        problem = json.loads(await answer.read())

    assert (answer.status, problem["code"]) == (404, "NOT_FOUND")
    assert seen(instances) == []


async def test_the_version_of_nginx_is_not_told(edge, client):
    async with client.get(f"{edge.url}/metrics") as answer:
        assert answer.headers["Server"] == "nginx"


@pytest.mark.parametrize("alive", [True, False])
async def test_no_log_holds_an_oauth_code(nginx, backend, client, alive):
    """Not even the error log, where nginx repeats the whole request line of a request that failed."""
    addresses = [(await backend()).address for _ in INSTANCES] if alive else [NOBODY] * len(INSTANCES)
    edge = nginx("nginx.conf", dict(zip(INSTANCES, addresses, strict=True)))
    path = "/api/auth/google/callback"
    referer = {"Referer": f"http://localhost{path}?code=c0de-in-referer"}
    async with client.get(f"{edge.url}{path}?code=c0de&state=5tate", headers=referer) as answer:
        assert answer.status == (200 if alive else 503)

    async with asyncio.timeout(60):  # a request is logged once it is over, which the client may know first
        while f'"GET {path}" {answer.status}' not in (log := edge.log.read_text()):
            await asyncio.sleep(0.02)
    assert "c0de" not in log
    assert "5tate" not in log


def lasting(name, config):
    """Seconds that a directive gives, at every place where it stands."""
    text = (ROOT / "config" / config).read_text()
    return [int(seconds) for seconds in re.findall(rf"^\s*{name}\s+(\d+)s;", text, re.MULTILINE)]


@pytest.mark.parametrize("config", ["nginx.conf", "nginx-forward-auth.conf"])
def test_an_idle_connection_to_an_instance_is_closed_by_nginx(config):
    """Whoever closes second may send a POST into a closed connection, which cannot be sent again."""
    text = (ROOT / "config" / config).read_text()
    upstream = text[text.index("upstream gatepost") : text.index("server {")]
    (idle,) = re.findall(r"keepalive_timeout\s+(\d+)s;", upstream)

    assert int(idle) < serving.KEEP_ALIVE


def test_nginx_waits_as_long_as_an_instance_may_take():
    assert all(seconds > serving.FINISH for seconds in lasting("proxy_read_timeout", "nginx.conf"))
