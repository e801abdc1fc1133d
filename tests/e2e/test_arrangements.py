"""docs/spa.md: every arrangement of app and service that it shows, with its settings, in a real browser.

The browser is told where the names of the page live, so that addresses, certificates' names and sites are as written.
"""

import contextlib
import datetime
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.app import make_app
from service.http.protocol import Runner
from tests.conftest import PASSWORD, free_port
from tests.deploy.conftest import running, tool
from tests.e2e.conftest import launched
from tests.npm import built_client, install

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "spa.md").read_text()
CREDENTIALS = {"email": "ada@example.org", "password": PASSWORD}
PRODUCTION = {"ENVIRONMENT": "production", "REDIS_URL": "redis://elsewhere"}  # the store itself is the test's


def section(title: str) -> str:
    return re.split(r"^## ", GUIDE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(language: str, title: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", section(title), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def settings(title: str, number: int) -> dict[str, str]:
    """The settings in a block of the guide."""
    return dict(line.split("=", 1) for line in blocks("ini", title)[number].splitlines())


@dataclass
class Browser:
    """A browser whose names lead to ports here, and the servers behind them."""

    context: Any
    seen: list[tuple[str, str]] = field(default_factory=list)  # what apps' servers got: host and Cookie header

    async def open(self, url: str) -> "Page":
        page = await self.context.new_page()
        await page.goto(url)
        return Page(page)

    async def cookies(self) -> dict[str, dict[str, Any]]:
        return {cookie["name"]: cookie for cookie in await self.context.cookies()}


@dataclass
class Page:
    """A page, and what its scripts do."""

    page: Any
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.append(f"{request.method} {request.url}"))

    async def ask(self, url: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
        """As a `fetch` with credentials: status and body, or 0 where the browser says nothing of the answer."""
        script = """async ([url, method, body, headers]) => {
            if (body) headers["Content-Type"] = "application/json";
            try {
                body = body && JSON.stringify(body);
                const answer = await fetch(url, {method, headers, body, credentials: "include"});
                return [answer.status, await answer.json().catch(() => null)];
            } catch (error) {
                return [0, String(error)];
            }
        }"""
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer = await self.page.evaluate(script, [url, method, body, dashed])
        return status, answer

    async def status(self, *args: Any, **kwargs: Any) -> int:
        return (await self.ask(*args, **kwargs))[0]

    async def run(self, module: str) -> Any:
        """What a module of the page's, that may import the client, exports as `default`."""
        module = module.replace('"gatepost-client"', f'"{self.page.url.rstrip("/")}/client/index.js"')
        script = """async (text) => {
            const address = URL.createObjectURL(new Blob([text], {type: "text/javascript"}));
            return (await import(address)).default;
        }"""
        return await self.page.evaluate(script, module)

    async def readable(self) -> set[str]:
        """The cookies that scripts can read."""
        text = await self.page.evaluate("document.cookie")
        return {pair.partition("=")[0] for pair in text.split("; ") if pair}

    async def reload(self) -> None:
        await self.page.reload()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that nobody has signed; the browser is told not to mind. Its files are beside the test's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.org")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "tls.pem").write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "tls.key").write_bytes(secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    return context


Arranging = Callable[..., Any]


@pytest.fixture
async def arranged(assembling, tls, tmp_path) -> AsyncIterator[Arranging]:
    """Serves these origins to a browser: `await arranged({"https://app.example.org": "app"}, settings)`.

    Behind an origin is an "app", the "service", or whatever listens on a port. `inside` is a port on which the service
    speaks plain http to a proxy. An incognito window is one that blocks third-party cookies, as Safari always does.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def listen(runner: web.AppRunner, secure: bool, port: int) -> int:
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls if secure else None).start()
            return port

        async def arrange(
            places: dict[str, str | int], environ: dict[str, str], *, inside: int | None = None, incognito: bool = True
        ) -> Browser:
            its = await assembling(**environ)
            seen: list[tuple[str, str]] = []

            async def page(request: web.Request) -> web.Response:
                if request.path != "/favicon.ico":
                    seen.append((request.host, request.headers.get("Cookie", "")))
                return web.Response(text="<!doctype html><title>App</title>", content_type="text/html")

            app = web.Application()
            app.router.add_static("/client", built_client())
            app.router.add_get("/{any:.*}", page)
            rules = []
            for origin, what in places.items():
                scheme, _, host = origin.partition("://")
                host = host if ":" in host else f"{host}:{443 if scheme == 'https' else 80}"
                if isinstance(what, str):
                    runner = Runner(make_app(its)) if what == "service" else web.AppRunner(app)
                    what = await listen(runner, scheme == "https", free_port())
                rules.append(f"MAP {host} 127.0.0.1:{what}")
            if inside:
                await listen(Runner(make_app(its)), False, inside)
            profile = None if incognito else tmp_path / "profile"
            flag = f"--host-resolver-rules={','.join(rules)}"
            return Browser(await stack.enter_async_context(launched(flag, profile=profile)), seen)

        yield arrange


@pytest.fixture
async def connecting(connecting_for_real):
    return connecting_for_real


APP, AUTH, API, BLOG = (f"https://{name}.example.org" for name in ("app", "auth", "api", "blog"))
ELSEWHERE = "https://app.example.net"


async def test_one_site_two_hosts(arranged):
    its = settings("One site, two hosts", 0)
    browser = await arranged({APP: "app", AUTH: "service", BLOG: "app"}, {**PRODUCTION, **its})
    page = await browser.open(APP)

    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201
    cookies = await browser.cookies()
    assert {name: (cookie["path"], cookie["httpOnly"]) for name, cookie in cookies.items()} == {
        "__Host-accessToken": ("/", True),
        "__Secure-refreshToken": ("/api/auth", True),
        "__Host-csrfToken": ("/", False),
    }
    for cookie in cookies.values():
        assert (cookie["domain"], cookie["secure"], cookie["sameSite"]) == ("auth.example.org", True, "Lax")

    await page.reload()
    assert await page.readable() == set()
    assert await page.status(f"{AUTH}/api/auth/me") == 200
    change = (f"{AUTH}/api/users/profile", "PATCH", {"lastName": "Lovelace"})
    status, problem = await page.ask(*change)
    assert (status, problem["code"]) == (403, "CSRF_FAILED")
    _, told = await page.ask(f"{AUTH}/api/auth/csrf-token")
    assert await page.status(*change, X_CSRF_Token=told["csrfToken"]) == 200
    assert await page.status(f"{AUTH}/api/auth/refresh", "POST", X_CSRF_Token=told["csrfToken"]) == 200
    assert {header for _, header in browser.seen} == {""}

    await assert_powerless(await browser.open(BLOG))
    assert await page.status(f"{AUTH}/api/auth/me") == 200


async def assert_powerless(page: Page) -> None:
    """A page whose origin is not named: what it sends with the cookies is refused, and it can read nothing."""
    assert await page.status(f"{AUTH}/api/auth/me") == 0
    assert await page.status(f"{AUTH}/api/auth/csrf-token") == 0
    async with page.page.expect_response(f"{AUTH}/api/auth/logout-all") as answered:
        await page.page.evaluate(
            f"""void fetch("{AUTH}/api/auth/logout-all", {{method: "POST", mode: "no-cors", credentials: "include"}})"""
        )
    assert (await answered.value).status == 403


async def test_more_apps_are_all_named(arranged):
    its = settings("One site, two hosts", 1)
    admin = "https://admin.example.org"
    browser = await arranged({APP: "app", admin: "app", AUTH: "service"}, {**PRODUCTION, **its})
    page = await browser.open(APP)
    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201

    assert await (await browser.open(admin)).status(f"{AUTH}/api/auth/me") == 200

    its |= {"CORS_ORIGINS": admin}  # which replaces the default
    browser = await arranged({APP: "app", admin: "app", AUTH: "service"}, {**PRODUCTION, **its})
    assert await (await browser.open(APP)).status(f"{AUTH}/api/auth/login", "POST", CREDENTIALS) == 0
    assert await (await browser.open(admin)).status(f"{AUTH}/api/auth/login", "POST", CREDENTIALS) == 200


async def test_with_a_domain_every_host_below_it_gets_the_access_cookie(arranged):
    its = settings("One site, two hosts", 2)
    browser = await arranged({APP: "app", API: "app", BLOG: "app", AUTH: "service"}, {**PRODUCTION, **its})
    page = await browser.open(APP)
    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201

    cookies = await browser.cookies()
    assert set(cookies) == {"__Secure-accessToken", "__Secure-refreshToken", "__Secure-csrfToken"}
    assert {cookie["domain"] for cookie in cookies.values()} == {".example.org"}
    assert await page.readable() == {"__Secure-csrfToken"}
    browser.seen.clear()
    for host in (API, BLOG):
        await browser.open(host)
        await browser.open(f"{host}/api/auth/anything")
    for host, header in browser.seen:
        assert "__Secure-accessToken=" in header, host
    assert ["__Secure-refreshToken=" in header for _, header in browser.seen] == [False, True] * 2
    await assert_powerless(await browser.open(BLOG))


async def test_one_origin(arranged, tmp_path):
    its = settings("One origin", 0)
    (shown,) = blocks("nginx", "One origin")
    port, service = free_port(), free_port()
    root = tmp_path / "app"
    root.mkdir()
    (root / "index.html").write_text("<!doctype html><title>App</title>")
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("http://127.0.0.1:8000", f"http://127.0.0.1:{service}"),
        ("/etc/ssl/app.example.org", str(tmp_path / "tls")),
        ("/srv/app", str(root)),
        ("/var/log/nginx/error.log", str(tmp_path / "error.log")),
    ):
        assert old in shown
        shown = shown.replace(old, new)
    places = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path}/pid; error_log stderr warn; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; {places}\n{shown}}}\n"
    )
    command = [tool("nginx"), "-c", str(config), "-g", "daemon off;"]
    with running(command, port, tmp_path / "log"):
        environ = {**PRODUCTION, **its, "TRUSTED_PROXIES": "127.0.0.1"}
        browser = await arranged({APP: port}, environ, inside=service)
        page = await browser.open(f"{APP}/some/page")

        assert await page.status("/api/auth/register", "POST", CREDENTIALS) == 201
        await page.reload()
        assert await page.readable() == {"__Host-csrfToken"}
        assert await page.status("/api/auth/me") == 200
        token = await page.page.evaluate("document.cookie.split('=')[1]")
        assert await page.status("/api/users/profile", "PATCH", {"lastName": "L"}, X_CSRF_Token=token) == 200
        assert not [one for one in page.asked if one.startswith("OPTIONS")]
        status, problem = await page.ask("/api/auth/google/callback", Accept="application/json")
        assert (status, problem["code"]) == (404, "PROVIDER_NOT_CONFIGURED")


@pytest.mark.parametrize("incognito", [False, True])
async def test_two_sites_with_cookies(arranged, incognito):
    its = settings("Two sites", 1)
    browser = await arranged({ELSEWHERE: "app", AUTH: "service"}, {**PRODUCTION, **its}, incognito=incognito)
    page = await browser.open(ELSEWHERE)

    status, signed = await page.ask(f"{AUTH}/api/auth/register", "POST", CREDENTIALS)
    assert status == 201
    change = (f"{AUTH}/api/users/profile", "PATCH", {"lastName": "Lovelace"})
    if incognito:
        assert await browser.cookies() == {}
        assert await page.status(f"{AUTH}/api/auth/me") == 401
        return
    assert {(c["sameSite"], c["secure"]) for c in (await browser.cookies()).values()} == {("None", True)}
    assert await page.status(f"{AUTH}/api/auth/me") == 200
    assert await page.status(*change) == 403
    assert await page.status(*change, X_CSRF_Token=signed["csrfToken"]) == 200


async def test_two_sites_without_samesite_none_drop_the_cookies(arranged):
    its = settings("Two sites", 0)
    browser = await arranged({ELSEWHERE: "app", AUTH: "service"}, {**PRODUCTION, **its}, incognito=False)
    page = await browser.open(ELSEWHERE)

    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201
    assert await page.status(f"{AUTH}/api/auth/login", "POST", CREDENTIALS) == 200
    status, problem = await page.ask(f"{AUTH}/api/auth/me")
    assert (status, problem["code"]) == (401, "NO_TOKEN")
    assert await browser.cookies() == {}


@pytest.mark.parametrize("incognito", [False, True])
async def test_two_sites_with_tokens_in_memory(arranged, incognito):
    its = settings("Two sites", 0)
    browser = await arranged({ELSEWHERE: "app", AUTH: "service"}, {**PRODUCTION, **its}, incognito=incognito)
    page = await browser.open(ELSEWHERE)

    status, signed = await page.ask(f"{AUTH}/api/auth/register", "POST", CREDENTIALS, X_Auth_Mode="token")
    assert status == 201
    held = f"Bearer {signed['accessToken']}"
    change = (f"{AUTH}/api/users/profile", "PATCH", {"lastName": "Lovelace"})
    assert await page.status(*change, Authorization=held) == 200
    status, renewed = await page.ask(f"{AUTH}/api/auth/refresh", "POST", {"refreshToken": signed["refreshToken"]})
    assert (status, "refreshToken" in renewed) == (200, True)
    assert await browser.cookies() == {}


DEV_APP, DEV_API = "http://localhost:5173", "http://localhost:8000"


async def test_in_development_without_a_proxy(arranged):
    browser = await arranged({DEV_APP: "app", DEV_API: "service", "http://127.0.0.1:5173": "app"}, {})
    page = await browser.open(DEV_APP)

    status, signed = await page.ask(f"{DEV_API}/api/auth/register", "POST", CREDENTIALS)
    assert status == 201
    cookies = await browser.cookies()
    assert set(cookies) == {"accessToken", "refreshToken", "csrfToken"}
    assert {cookie["secure"] for cookie in cookies.values()} == {False}
    assert await page.readable() == {"csrfToken"}
    change = (f"{DEV_API}/api/users/profile", "PATCH", {"lastName": "Lovelace"})
    assert await page.status(*change, X_CSRF_Token=signed["csrfToken"]) == 200

    other = await browser.open("http://127.0.0.1:5173")
    assert await other.status(f"{DEV_API}/api/auth/me") == 0
    assert await other.status(f"{DEV_API}/api/auth/login", "POST", CREDENTIALS) == 0


async def test_in_development_on_another_port(arranged):
    app = "http://localhost:3000"
    browser = await arranged({app: "app", DEV_API: "service"}, settings("In development", 0))
    page = await browser.open(app)

    assert await page.status(f"{DEV_API}/api/auth/register", "POST", CREDENTIALS) == 201
    assert await page.status(f"{DEV_API}/api/auth/me") == 200


async def test_in_development_with_a_proxy(arranged, tmp_path):
    folder = Path(__file__).parent / "vite"
    install(folder)
    (config,) = blocks("js", "In development")
    port, service = free_port(), free_port()
    for old, new in (("port: 5173", f'host: "127.0.0.1", port: {port}'), ("127.0.0.1:8000", f"127.0.0.1:{service}")):
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "vite.config.js").write_text(config)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "index.html").write_text("<!doctype html><title>App</title>")
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    with running(["node", "node_modules/vite/bin/vite.js"], port, tmp_path / "log", cwd=tmp_path):
        browser = await arranged({DEV_APP: port, DEV_API: service}, {}, inside=service)
        page = await browser.open(DEV_APP)

        status, signed = await page.ask("/api/auth/register", "POST", CREDENTIALS)
        assert status == 201
        await page.reload()
        assert await page.readable() == {"csrfToken"}
        change = ("/api/users/profile", "PATCH", {"lastName": "Lovelace"})
        assert await page.status(*change) == 403
        assert await page.status(*change, X_CSRF_Token=signed["csrfToken"]) == 200
        # What a provider's callback sets at the service's own address is here as well.
        direct = await browser.open(f"{DEV_API}/api/auth/me")
        assert (await direct.page.text_content("body")).startswith('{"user":')
        assert not [one for one in page.asked if one.startswith("OPTIONS")]


async def test_in_cookie_mode_no_script_can_read_what_lasts(arranged):
    browser = await arranged({DEV_APP: "app", DEV_API: "service"}, {})
    page = await browser.open(DEV_APP)
    _, signed = await page.ask(f"{DEV_API}/api/auth/register", "POST", CREDENTIALS)
    _, renewed = await page.ask(f"{DEV_API}/api/auth/refresh", "POST", X_CSRF_Token=signed["csrfToken"])

    assert "accessToken" in signed
    assert "accessToken" in renewed
    assert "rt_" not in str(signed) + str(renewed) + await page.page.evaluate("document.cookie")


# With the client

WHO = 'import { createAuth } from "gatepost-client"; export default (await createAuth(%s).ready()).user?.email ?? null'
SIGN_IN = (
    'import { createAuth } from "gatepost-client"; const auth = createAuth(%s);'
    f"await auth.login({{email: '{CREDENTIALS['email']}', password: '{PASSWORD}'}});"
    "export default (await auth.call('PATCH', '/api/users/profile', {lastName: 'Lovelace'})).user.lastName"
)


def told(title: str) -> list[str]:
    """How a section of the guide starts the client."""
    return re.findall(r"createAuth\((\{.*?\})\)", section(title).replace("\n", " "))


async def test_the_client_as_the_guide_begins_with_it(arranged):
    its = settings("One site, two hosts", 0)
    browser = await arranged({APP: "app", AUTH: "service"}, {**PRODUCTION, **its})
    page = await browser.open(APP)
    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201
    await browser.context.clear_cookies()
    (shown,) = re.findall(r"^```js\n(.*?)^```$", GUIDE.split("\n## ")[0], re.DOTALL | re.MULTILINE)
    shown = shown.replace("a long and private sentence", PASSWORD) + "export default auth.state.user.email"

    for _ in ("signs in", "is still signed in"):
        assert await page.run(shown) == "ada@example.org"
        await page.reload()
    _, found = await page.ask(f"{AUTH}/api/auth/me")
    assert found["user"]["lastName"] == "Lovelace"


async def test_the_client_with_cookies_outlives_a_reload(arranged):
    its, (how, _) = settings("One site, two hosts", 0), told("One site, two hosts")
    browser = await arranged({APP: "app", AUTH: "service"}, {**PRODUCTION, **its})
    page = await browser.open(APP)
    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201
    await browser.context.clear_cookies()

    assert await page.run(WHO % how) is None
    assert await page.run(SIGN_IN % how) == "Lovelace"
    await page.reload()
    assert await page.run(WHO % how) == "ada@example.org"


async def test_the_client_without_cookies_forgets_on_a_reload(arranged):
    its = settings("Two sites", 0)
    how = f'{{ baseUrl: "{AUTH}", mode: "token" }}'
    browser = await arranged({ELSEWHERE: "app", AUTH: "service"}, {**PRODUCTION, **its})
    page = await browser.open(ELSEWHERE)
    assert await page.status(f"{AUTH}/api/auth/register", "POST", CREDENTIALS) == 201

    assert await page.run(SIGN_IN % how) == "Lovelace"
    assert await browser.cookies() == {}
    await page.reload()
    assert await page.run(WHO % how) is None


async def test_the_client_in_development(arranged):
    with_proxy, without = told("In development")
    assert with_proxy == '{ baseUrl: "" }'
    browser = await arranged({DEV_APP: "app", DEV_API: "service"}, {})
    page = await browser.open(DEV_APP)
    assert await page.status(f"{DEV_API}/api/auth/register", "POST", CREDENTIALS) == 201

    assert await page.run(SIGN_IN % without) == "Lovelace"
    assert await page.run(WHO % without) == "ada@example.org"
