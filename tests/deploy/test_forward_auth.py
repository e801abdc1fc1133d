"""config/nginx-forward-auth.conf, driven by a real nginx between an application and Gatepost, or a stand-in for it."""

import json

import pytest
from aiohttp import WSServerHandshakeError, web
from aiohttp.test_utils import TestServer
from yarl import URL

from service.admin.administration import COMMAND_LINE
from service.store import connect
from service.store.node import Failed, Node
from tests.conftest import PASSWORD

TOKENS = {"X-Auth-Mode": "token"}
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


async def test_a_person_who_opens_a_page_goes_to_sign_in(edge, application, client):
    page = {"Sec-Fetch-Mode": "navigate"}
    for asked in ("/orders/7?page=2&x=1", "/a%0d%0ab"):
        async with client.get(edge.url + asked, headers=page, allow_redirects=False) as answer:
            assert answer.status == 302
            assert URL(answer.headers["Location"]).relative() == URL(f"/login?next={asked.partition('?')[0]}")
            assert answer.headers["Cache-Control"] == "no-store"
    assert application.seen == []

    async with client.get(f"{edge.url}/login?next=/orders/7", headers=page | SPOOFED) as answer:
        assert answer.status == 200
    assert not {name.lower() for name in ADA} & application.seen[0].headers.keys()


async def test_a_401_of_the_application_is_its_own(edge, application, client):
    application.answer = lambda _: web.Response(status=401, text="mine")
    headers = bearer("user-token") | {"Sec-Fetch-Mode": "navigate"}
    async with client.get(f"{edge.url}/orders", headers=headers, allow_redirects=False) as answer:
        assert (answer.status, await answer.text()) == (401, "mine")


HANDSHAKE = {"Connection": "Upgrade", "Upgrade": "websocket"}


@pytest.mark.parametrize(
    ("method", "sent", "reaches"),
    [
        ("POST", {}, True),
        ("POST", {"Origin": "{url}"}, True),
        ("POST", {"Origin": "https://evil.example.org"}, False),
        ("POST", {"Origin": "null"}, False),
        ("POST", {"Origin": "{url}.evil.example.org"}, False),
        ("POST", {"Origin": "https://evil.example.org", "Sec-Fetch-Site": "same-site"}, False),
        ("POST", {"Origin": "https://evil.example.org", "Authorization": "Basic YTpi"}, False),  # browsers add that one
        ("DELETE", {"Origin": "https://evil.example.org"}, False),
        ("GET", {"Origin": "https://evil.example.org"}, True),
        ("GET", {"Origin": "https://evil.example.org", **HANDSHAKE}, False),
        ("GET", {"Origin": "{url}", **HANDSHAKE}, True),
        ("POST", {"Origin": "https://other.example.org", "X-API-Key": "ak_good"}, True),
        ("POST", {"Origin": "https://other.example.org", "Authorization": "Bearer user-token"}, True),
    ],
)
async def test_a_page_elsewhere_cannot_use_the_cookie(edge, gatepost, application, client, method, sent, reaches):
    gatepost.answer = lambda _: web.Response(headers=ADA)
    headers = {"Cookie": "accessToken=a"} | {name: value.format(url=edge.url) for name, value in sent.items()}
    async with client.request(method, f"{edge.url}/orders", headers=headers) as answer:
        body = await answer.read()

    assert (answer.status, len(application.seen)) == ((200, 1) if reaches else (403, 0))
    if not reaches:
        assert json.loads(body)["code"] == "ORIGIN_FORBIDDEN"
        assert gatepost.seen == []


async def test_who_may_use_gatepost_itself_is_for_gatepost_to_say(edge, gatepost, client):
    async with client.post(f"{edge.url}/api/auth/login", json={}, headers={"Origin": "https://app.example.org"}):
        pass

    assert [request.target for request in gatepost.seen] == ["/api/auth/login"]


async def test_a_websocket_is_asked_about_and_then_left_alone(nginx, gatepost, client):
    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers["X-Auth-User"])
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    live = web.Application()
    live.router.add_get("/live/feed", echo)
    async with TestServer(live) as server:
        edge = nginx(
            "nginx-forward-auth.conf",
            {"gatepost:8000": gatepost.address, "application:3000": f"127.0.0.1:{server.port}"},
        )
        async with client.ws_connect(f"{edge.url}/live/feed", headers=SPOOFED | bearer("user-token")) as socket:
            assert await socket.receive_str() == "u_ada"
            for word in ("a", "b"):
                await socket.send_str(word)
                assert await socket.receive_str() == word
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(f"{edge.url}/live/feed")

    assert refused.value.status == 401
    assert len(gatepost.seen) == 2


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


# Before the service itself


@pytest.fixture
def connecting(request):
    """The service stands on a real Redis here, that of `config/redis.conf`."""
    url = request.getfixturevalue("redis_server").url
    return lambda: connect(url)


@pytest.fixture
async def people(serving, assembling):
    """A browser at an instance behind the edge; `people.joined(email, *roles)` makes an account and its tokens."""
    its = await assembling(TRUSTED_PROXIES="127.0.0.1")
    browser = await serving(its)

    async def joined(email, *roles):
        signed = (await browser.register(email, headers=TOKENS)).json
        if roles:
            await its.administration.change(COMMAND_LINE, signed["user"]["id"], roles=["user", *roles])
            signed |= (await browser.login(email, headers=TOKENS)).json
        return signed

    browser.joined, browser.its = joined, its
    return browser


@pytest.fixture
def real_edge(nginx, people, application):
    upstreams = {"gatepost:8000": f"127.0.0.1:{people.client.server.port}", "application:3000": application.address}
    return nginx("nginx-forward-auth.conf", upstreams)


async def key_of(people, signed, *permissions, **more):
    """An API key of somebody who is signed in: its id and the header that shows it."""
    body = {"name": "report", "permissions": list(permissions), **more}
    made = await people("POST", "/api/auth/api-keys", body, headers=bearer(signed["accessToken"]), csrf=None)
    assert made.status == 201, made
    return made.json["id"], {"X-API-Key": made.json["apiKey"]}


async def status(client, edge, path, headers, **kwargs):
    async with client.get(edge.url + path, headers=headers, **kwargs) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("by", ["token", "cookie", "key", "key as bearer"])
async def test_the_service_lets_in_by_token_and_by_key_and_says_who_it_is(real_edge, application, client, people, by):
    ada = await people.joined("ada@example.org", "moderator")
    _, shown = await key_of(people, ada, "profile:read", "content:moderate")
    headers = {
        "token": bearer(ada["accessToken"]),
        "cookie": {"Cookie": f"accessToken={ada['accessToken']}"},
        "key": shown,
        "key as bearer": bearer(shown["X-API-Key"]),
    }[by]

    assert await status(client, real_edge, "/orders?page=2", SPOOFED | headers) == 200

    (request,) = application.seen
    key = by.startswith("key")
    told = {
        "x-auth-user": ada["user"]["id"],
        "x-auth-email": "ada@example.org",
        "x-auth-roles": "" if key else "user,moderator",
        "x-auth-permissions": "content:moderate,profile:read" if key else "content:moderate,profile:read,profile:write",
    }
    assert {name: _sorted(request.headers.get(name, "")) for name in told} == {
        name: _sorted(value or "") for name, value in told.items()
    }
    assert "evil" not in request.headers.values()
    assert not {name.replace("-", "_") for name in told} & request.headers.keys()


def _sorted(value):
    return sorted(value.split(","))


async def test_the_service_refuses_and_the_application_hears_nothing(real_edge, application, client, people):
    ada = await people.joined("ada@example.org")
    _, shown = await key_of(people, ada)
    key, token = shown["X-API-Key"], ada["accessToken"]
    turned = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    refused = [
        {},
        {"Cookie": "accessToken=x"},
        {"Authorization": "Bearer "},
        bearer("x"),
        bearer(turned),
        bearer(ada["refreshToken"]),
        {"X-API-Key": "ak_" + "x" * 40},
        {"X-API-Key": key[:-1] + ("A" if key[-1] != "A" else "B")},
        {"X-API-Key": token},
        {"X-API-Key": ""},
        shown | bearer(token),
    ]

    for headers in refused:
        assert await status(client, real_edge, "/orders", SPOOFED | headers) == 401, headers
    for query in (f"?access_token={token}", f"?api_key={key}"):
        assert await status(client, real_edge, "/orders" + query, SPOOFED) == 401

    assert application.seen == []


async def test_the_service_asks_for_the_role_and_no_key_has_one(real_edge, application, client, people):
    ada, root = await people.joined("ada@example.org"), await people.joined("root@example.org", "admin")
    _, shown = await key_of(people, root, "users:read")

    answers = [
        await status(client, real_edge, path, SPOOFED | headers)
        for path, headers in (
            ("/admin/", bearer(ada["accessToken"])),
            ("/admin/?role=user", bearer(ada["accessToken"])),
            ("/admin/", shown),
            ("/admin/", bearer(root["accessToken"])),
        )
    ]

    assert answers == [403, 403, 403, 200]
    assert [request.headers["x-auth-user"] for request in application.seen] == [root["user"]["id"]]


@pytest.mark.parametrize("how", ["logout", "logout-all", "revoked", "disabled", "deleted", "rights"])
async def test_a_token_that_is_over_is_refused_by_the_next_request(real_edge, application, client, people, how):
    ada = await people.joined("ada@example.org")
    held, id_ = bearer(ada["accessToken"]), ada["user"]["id"]
    assert await status(client, real_edge, "/orders", held) == 200

    match how:
        case "logout" | "logout-all":
            assert (await people("POST", f"/api/auth/{how}", headers=held, csrf=None)).status == 204
        case "revoked":
            sent = {"token": ada["refreshToken"]}
            assert (await people("POST", "/api/auth/revoke", data=sent, csrf=None)).status == 200
        case "disabled":
            await people.its.administration.change(COMMAND_LINE, id_, active=False)
        case "deleted":
            await people.its.administration.delete(COMMAND_LINE, id_)
        case "rights":
            await people.its.administration.change(COMMAND_LINE, id_, roles=["user", "moderator"])

    assert await status(client, real_edge, "/orders", held) == 401
    assert len(application.seen) == 1


@pytest.mark.parametrize("how", ["revoked", "disabled", "deleted", "expired"])
async def test_a_key_that_is_over_is_refused_by_the_next_request(real_edge, application, client, people, how, later):
    ada = await people.joined("ada@example.org")
    key_id, shown = await key_of(people, ada, "profile:read", expiresIn=3600)
    assert await status(client, real_edge, "/orders", shown) == 200

    match how:
        case "revoked":
            held = bearer(ada["accessToken"])
            assert (await people("DELETE", f"/api/auth/api-keys/{key_id}", headers=held, csrf=None)).status == 204
        case "disabled":
            await people.its.administration.change(COMMAND_LINE, ada["user"]["id"], active=False)
        case "deleted":
            await people.its.administration.delete(COMMAND_LINE, ada["user"]["id"])
        case "expired":
            await later("2h")

    assert await status(client, real_edge, "/orders", shown) == 401
    assert len(application.seen) == 1


async def test_a_right_that_was_taken_from_the_owner_is_gone_from_the_key(real_edge, application, client, people):
    mod = await people.joined("mod@example.org", "moderator")
    _, shown = await key_of(people, mod, "content:moderate")
    assert await status(client, real_edge, "/orders", shown) == 200

    await people.its.administration.change(COMMAND_LINE, mod["user"]["id"], roles=["user"])
    assert await status(client, real_edge, "/orders", shown) == 200

    before, after = (request.headers.get("x-auth-permissions", "") for request in application.seen)
    assert (before, after) == ("content:moderate", "")


async def test_signing_in_through_the_edge_opens_the_application(real_edge, application, client, people):
    await people.joined("ada@example.org")
    body = {"email": "ada@example.org", "password": PASSWORD}
    async with client.post(f"{real_edge.url}/api/auth/login", json=body, headers=SPOOFED | TOKENS) as answer:
        signed = await answer.json()

    assert await status(client, real_edge, "/orders", bearer(signed["accessToken"])) == 200
    assert application.seen[0].headers["x-auth-email"] == "ada@example.org"


async def test_while_redis_is_away_nobody_is_let_in(real_edge, application, client, people, monkeypatch):
    ada = await people.joined("ada@example.org")
    _, shown = await key_of(people, ada)

    async def away(self, commands, within):
        raise Failed(ConnectionRefusedError())

    monkeypatch.setattr(Node, "send", away)

    for headers in (bearer(ada["accessToken"]), shown):
        assert await status(client, real_edge, "/orders", headers) == 503

    assert application.seen == []
