"""config/nginx-forward-auth.conf, driven by a real nginx between an application and a stand-in for Gatepost."""

import json

import pytest
from aiohttp import web

ADA = {
    "X-Auth-User": "u_ada",
    "X-Auth-Email": "ada@example.org",
    "X-Auth-Roles": "user,admin",
    "X-Auth-Permissions": "users:read",
}
SPOOFED = dict.fromkeys(ADA, "evil") | {name.replace("-", "_"): "evil" for name in ADA}


def verify(request):
    """GET /api/auth/verify: a good token belongs to Ada, who is an admin only as `admin-token`."""
    match request.headers.get("authorization"):
        case "Bearer admin-token":
            return web.Response(headers=ADA)
        case "Bearer user-token":
            return web.Response(status=403 if request.target.endswith("?role=admin") else 200, headers=ADA)
        case "Bearer bare-token":
            return web.Response()
        case "Bearer unlucky-token":
            return web.Response(status=503)
    return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="gatepost"'})


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def gatepost(backend):
    server = await backend()
    server.answer = verify
    return server


@pytest.fixture
async def application(backend):
    return await backend()


@pytest.fixture
def edge(nginx, gatepost, application):
    upstreams = {"gatepost:8000": gatepost.address, "application:3000": application.address}
    return nginx("nginx-forward-auth.conf", upstreams)


async def test_the_application_learns_who_is_asking(edge, application, client):
    async with client.get(f"{edge.url}/orders?page=2", headers=bearer("user-token")) as answer:
        assert answer.status == 200

    (request,) = application.seen
    assert request.target == "/orders?page=2"
    assert {name: request.headers[name.lower()] for name in ADA} == ADA


async def test_nobody_is_let_in_without_a_token(edge, application, client):
    async with client.get(f"{edge.url}/orders") as answer:
        pass

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="gatepost"'
    assert application.seen == []


async def test_an_api_key_travels_with_the_question(edge, gatepost, client):
    async with client.get(f"{edge.url}/orders", headers={"X-API-Key": "ak_key"}):
        pass

    (question,) = gatepost.seen
    assert question.headers["x-api-key"] == "ak_key"


async def test_what_a_client_says_of_itself_is_replaced(edge, application, client):
    async with client.get(f"{edge.url}/orders", headers=SPOOFED | bearer("user-token")):
        pass

    headers = application.seen[0].headers
    assert {name: headers[name.lower()] for name in ADA} == ADA
    assert "evil" not in headers.values()


@pytest.mark.parametrize(("path", "token"), [("/orders", "bare-token"), ("/assets/app.js", "none")])
async def test_what_gatepost_did_not_say_is_not_passed(edge, application, client, path, token):
    async with client.get(edge.url + path, headers=SPOOFED | bearer(token)) as answer:
        assert answer.status == 200

    headers = application.seen[0].headers
    assert not {name.lower() for name in SPOOFED} & headers.keys()


async def test_a_location_can_ask_for_a_role(edge, application, client):
    async with client.get(f"{edge.url}/admin/", headers=bearer("user-token")) as refused:
        pass
    async with client.get(f"{edge.url}/admin/", headers=bearer("admin-token")) as allowed:
        pass

    assert (refused.status, allowed.status) == (403, 200)
    assert len(application.seen) == 1


async def test_a_client_cannot_choose_the_question(edge, gatepost, application, client):
    async with client.get(f"{edge.url}/admin/?role=user", headers=bearer("user-token")) as answer:
        assert answer.status == 403
    async with client.get(f"{edge.url}/_gatepost/anyone", headers=bearer("user-token")) as answer:
        assert answer.status == 404

    assert [request.target for request in gatepost.seen] == ["/api/auth/verify?role=admin"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_goes_to_the_application_alone(edge, gatepost, application, client, chunked):
    async def pieces():
        yield b"hello "
        yield b"world"

    body = pieces() if chunked else b"hello world"
    async with client.post(f"{edge.url}/orders", data=body, headers=bearer("user-token")) as answer:
        assert answer.status == 200

    (question,) = gatepost.seen
    assert (question.method, question.target, question.body) == ("GET", "/api/auth/verify", b"")
    assert (application.seen[0].method, application.seen[0].body) == ("POST", b"hello world")


async def test_gatepost_away_means_closed(edge, application, client):
    async with client.get(f"{edge.url}/orders", headers=bearer("unlucky-token")) as answer:
        problem = json.loads(await answer.read())

    assert (answer.status, problem["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert application.seen == []


async def test_an_error_of_the_application_is_its_own(edge, application, client):
    application.answer = lambda _: web.Response(status=500, text="broken")
    async with client.get(f"{edge.url}/orders", headers=bearer("user-token")) as answer:
        assert (answer.status, await answer.text()) == (500, "broken")


async def test_signing_in_needs_no_token(edge, gatepost, application, client):
    gatepost.answer = lambda _: web.Response(headers={"Set-Cookie": "accessToken=a"})
    async with client.post(f"{edge.url}/api/auth/login", json={}, headers=SPOOFED) as answer:
        assert (answer.status, answer.headers["Set-Cookie"]) == (200, "accessToken=a")

    assert [request.target for request in gatepost.seen] == ["/api/auth/login"]
    assert "evil" not in gatepost.seen[0].headers.values()
    assert application.seen == []


async def test_one_request_has_one_id_and_one_address_everywhere(edge, gatepost, application, client):
    lies = bearer("user-token") | {"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "order-66"}
    async with client.get(f"{edge.url}/orders", headers=lies):
        pass

    for request in (*gatepost.seen, *application.seen):
        assert request.headers["x-request-id"] == "order-66"
        assert request.headers["x-forwarded-for"] == "127.0.0.1"
