"""config/traefik-forward-auth.yml: its options are Traefik's, and Gatepost answers what ForwardAuth would ask.

No Traefik runs here. `ask` does what its documentation says that the middlewares `headers` and `forwardAuth` do.
"""

import re
from typing import Any

import pytest
import yaml
from multidict import CIMultiDict

from service.admin.administration import COMMAND_LINE
from service.store import connect
from service.store.node import Failed, Node
from tests.deploy.conftest import ROOT

FILE = (ROOT / "config" / "traefik-forward-auth.yml").read_text()
HTTP = yaml.safe_load(FILE)["http"]
PAGE = (ROOT / "docs" / "forward-auth.md").read_text()
CLAIMS = ("X-Auth-User", "X-Auth-Email", "X-Auth-Roles", "X-Auth-Permissions")
# All that CGI and WSGI take for one of the four.
SPOOFED = {f"X{a}Auth{b}{claim.rpartition('-')[2]}": "evil" for claim in CLAIMS for a in "-_" for b in "-_"}
DOCUMENTED = {
    "headers": {"customRequestHeaders"},
    "forwardAuth": {"address", "authRequestHeaders", "authResponseHeaders"},
}
REMOVED = ("connection", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade")  # hop by hop
TOKENS = {"X-Auth-Mode": "token"}


def test_the_file_says_only_what_traefik_documents():
    assert HTTP.keys() == {"routers", "middlewares", "services"}
    for router in HTTP["routers"].values():
        assert router.keys() <= {"rule", "middlewares", "service"}
        assert router["service"] in HTTP["services"]
        assert set(router.get("middlewares", [])) <= HTTP["middlewares"].keys()
        assert not re.sub(r"(Host|Path|PathPrefix)\(`[^`]+`\)| && | \|\| |[()]", "", router["rule"])
    for middleware in HTTP["middlewares"].values():
        ((kind, options),) = middleware.items()
        assert options.keys() <= DOCUMENTED[kind]
    for service in HTTP["services"].values():
        assert [server.keys() for server in service["loadBalancer"]["servers"]] == [{"url"}]


def test_a_folder_for_a_role_is_so_without_its_slash_too():
    """Many applications take `/admin` for `/admin/`, and the rule of the rest lets in whoever is signed in."""
    for rule in (router["rule"] for router in HTTP["routers"].values() if "admin" in router.get("middlewares", [])):
        for folder in re.findall(r"PathPrefix\(`([^`]+)/`\)", rule):
            assert f"Path(`{folder}`)" in rule


def test_claims_are_dropped_before_everything_that_reaches_the_application():
    for router in HTTP["routers"].values():
        if router["service"] == "application":
            assert router["middlewares"][0] == "no-claims"
    assert HTTP["middlewares"]["no-claims"]["headers"]["customRequestHeaders"] == dict.fromkeys(SPOOFED, "")


def test_the_labels_are_the_file():
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    services = yaml.safe_load(shown)["services"]
    labels = dict(label.split("=", 1) for service in services.values() for label in service["labels"])

    assert labels == dict(as_labels("traefik.http", HTTP))


def as_labels(prefix: str, part: Any):
    """The labels that mean the same as a part of the file; an address becomes the port of the container."""
    if "loadBalancer" in part:
        ((_, port),) = (server["url"].rsplit(":", 1) for server in part["loadBalancer"]["servers"])
        yield f"{prefix}.loadbalancer.server.port", port
        return
    for name, value in part.items():
        # Names of options are written small in labels; those of routers, middlewares and headers stay.
        key = f"{prefix}.{name.lower() if name in {'forwardAuth', *DOCUMENTED['forwardAuth']} else name}"
        key = key.replace("customRequestHeaders", "customrequestheaders")
        if isinstance(value, dict):
            yield from as_labels(key, value)
        else:
            yield key, ",".join(value) if isinstance(value, list) else value


@pytest.fixture
def connecting(request):
    """A real Redis, that of `config/redis.conf`."""
    url = request.getfixturevalue("redis_server").url
    return lambda: connect(url)


class Traefik:
    """The middlewares of the file, before a real service."""

    def __init__(self, its, browser) -> None:
        self.its, self.browser = its, browser

    async def ask(self, router: str, method: str, uri: str, sent: dict[str, str]):
        """What the client gets instead of the application (or None), and the headers that the application gets."""
        headers = CIMultiDict(sent)
        for name in HTTP["routers"][router]["middlewares"]:
            ((kind, options),) = HTTP["middlewares"][name].items()
            if kind == "headers":
                for header in options["customRequestHeaders"]:
                    headers.popall(header, None)
                continue
            question = {name: value for name, value in headers.items() if name.lower() not in REMOVED}
            wanted = {name.lower() for name in options["authRequestHeaders"]}
            question = {name: value for name, value in question.items() if name.lower() in wanted}
            question |= {
                "X-Forwarded-For": "203.0.113.7",
                "X-Forwarded-Method": method,
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "app.example.org",
                "X-Forwarded-Uri": uri,
            }
            path = options["address"].removeprefix("http://gatepost:8000")
            answer = await self.browser("GET", path, headers=question, csrf=None)
            if not 200 <= answer.status < 300:
                return answer, None
            for name in options["authResponseHeaders"]:
                headers.popall(name, None)
                if name in answer.headers:
                    headers[name] = answer.headers[name]
        return None, headers

    async def joined(self, email: str, *roles: str) -> dict[str, Any]:
        signed = (await self.browser.register(email, headers=TOKENS)).json
        if roles:
            await self.its.administration.change(COMMAND_LINE, signed["user"]["id"], roles=["user", *roles])
            signed |= (await self.browser.login(email, headers=TOKENS)).json
        return signed


@pytest.fixture
async def traefik(assembling, serving):
    its = await assembling(TRUSTED_PROXIES="127.0.0.1")
    return Traefik(its, await serving(its))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("by", ["token", "cookie", "key"])
async def test_whoever_is_signed_in_gets_through_and_the_application_learns_who(traefik, method, by):
    ada = await traefik.joined("ada@example.org")
    held = bearer(ada["accessToken"])
    made = await traefik.browser(
        "POST", "/api/auth/api-keys", {"name": "report", "permissions": ["profile:read"]}, headers=held, csrf=None
    )
    shown = {
        "token": held,
        "cookie": {"Cookie": f"theme=dark; accessToken={ada['accessToken']}"},
        "key": {"X-API-Key": made.json["apiKey"]},
    }[by]
    sent = {
        **SPOOFED,
        **shown,
        "Origin": "https://elsewhere.example.org",
        "Content-Type": "text/plain",
        "Content-Length": "5",
    }

    refused, headers = await traefik.ask("application", method, "/orders?page=2", sent)

    assert refused is None  # a cookie too, whatever the method: CSRF is for the application to check
    assert headers["X-Auth-User"] == ada["user"]["id"]
    assert headers["X-Auth-Email"] == "ada@example.org"
    assert headers["X-Auth-Roles"] == ("" if by == "key" else "user")
    assert "evil" not in headers.values()


async def test_what_is_refused_reaches_the_client_as_gatepost_said_it(traefik):
    ada = await traefik.joined("ada@example.org")
    for sent, code in (
        ({}, "NO_TOKEN"),
        (bearer("x"), "INVALID_TOKEN"),
        ({"Cookie": "accessToken=x"}, "INVALID_TOKEN"),
    ):
        answer, _ = await traefik.ask("application", "GET", "/orders", SPOOFED | sent)
        assert (answer.status, answer.code) == (401, code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Cache-Control"] == "no-store"

    assert (
        await traefik.browser("POST", "/api/auth/logout", headers=bearer(ada["accessToken"]), csrf=None)
    ).status == 204
    answer, _ = await traefik.ask("application", "GET", "/orders", bearer(ada["accessToken"]))
    assert answer.status == 401


async def test_a_router_can_ask_for_a_role_and_no_client_can_change_the_question(traefik):
    ada, root = await traefik.joined("ada@example.org"), await traefik.joined("root@example.org", "admin")
    lies = {"X-Forwarded-Uri": "/api/auth/verify", "X-Original-URL": "/api/auth/verify"}

    answer, _ = await traefik.ask("admin", "GET", "/admin/?role=user", lies | bearer(ada["accessToken"]))
    allowed, headers = await traefik.ask("admin", "GET", "/admin/", bearer(root["accessToken"]))

    assert (answer.status, answer.json["required"]) == (403, ["admin"])
    assert allowed is None
    assert headers["X-Auth-Roles"].split(",") == ["user", "admin"]


async def test_open_paths_pass_no_claims(traefik):
    refused, headers = await traefik.ask("open", "GET", "/login", dict(SPOOFED))

    assert refused is None
    assert not headers


async def test_while_redis_is_away_it_is_closed(traefik, monkeypatch):
    ada = await traefik.joined("ada@example.org")

    async def away(self, commands, within):
        raise Failed(ConnectionRefusedError())

    monkeypatch.setattr(Node, "send", away)

    answer, _ = await traefik.ask("application", "GET", "/orders", bearer(ada["accessToken"]))
    assert answer.status == 503
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("?role=moderator&role=user", 200),
        ("?role=admin", 403),
        ("?permission=profile:read", 200),
        ("?permission=users:read&permission=profile:read", 200),
        ("?role=user&permission=users:read", 403),
    ],
)
async def test_a_question_may_name_several_roles_and_permissions(traefik, question, status):
    ada = await traefik.joined("ada@example.org")

    assert (
        await traefik.browser("GET", f"/api/auth/verify{question}", headers=bearer(ada["accessToken"]))
    ).status == status
