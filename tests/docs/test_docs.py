"""The documentation says what is: it is compared with the code, and what it shows is run."""

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import errors
from service.accounts.user import Identity, User
from service.app import make_app
from service.mail.outbox import Errand
from service.settings import NAMES, OIDC, OTEL, load
from tests.conftest import PASSWORD, SECRET, free_port, in_ci
from tests.npm import built_client

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
REDIS_PAGE = (ROOT / "docs" / "redis.md").read_text()
EXAMPLE_ENV = (ROOT / "config" / "example.env").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "clients" / name / "README.md" for name in ("js", "demo")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "node_modules" not in page.parts),
]
GUIDES = [ROOT / "docs" / name for name in ("spa.md", "forward-auth.md", "verifying-tokens.md", "providers.md")]
CODE = re.compile(r"`([^`]+)`")


def section(title: str, text: str = README) -> str:
    """What stands under a heading, up to the next one of the same level or above."""
    depth = title.index(" ")
    inside, fenced, found = False, False, []
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{depth}}} ", line):
            inside = line.rstrip() == title
        elif inside:
            found.append(line)
    assert found, f"there is no section {title!r}"
    return "".join(found)


def table(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", text, re.M)]
    heads = {index + offset for index, row in enumerate(rows) if set(row[0]) == {"-"} for offset in (-1, 0)}
    return [row for index, row in enumerate(rows) if index not in heads]


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def tool(name: str) -> str:
    """The program, or a failure in CI and a skip elsewhere."""
    if found := shutil.which(name):
        return found
    return pytest.fail(f"needs {name}") if in_ci() else pytest.skip(f"needs {name}")


# --- Tables ----------------------------------------------------------------------------------------------------------

SETTINGS = {CODE.findall(name)[0]: default for name, default, _ in table(section("## Settings"))}
ENDPOINTS = {call: who for calls, who, _ in table(section("## Endpoints")) for call in CODE.findall(calls)}
ERRORS = [(statuses, CODE.findall(codes)) for statuses, codes, _ in table(section("## Errors"))]


def test_every_setting_is_in_the_readme_and_in_the_example():
    assert list(SETTINGS) == list(NAMES)
    named = re.findall(r"^#([A-Z][A-Z0-9_]+)=", EXAMPLE_ENV, re.M)
    assert [name for name in named if not OIDC.fullmatch(name) and not OTEL.fullmatch(name)] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_default_in_the_readme_is_what_the_service_does_without_it(name, tmp_path):
    development = {"AUTH_SECRET": SECRET}
    production = {
        "ENVIRONMENT": "production",
        "AUTH_SECRET": "d9Q1x-LrT0vKz7YwEa5uHc2NfPj8MbGs4oRi",
        "REDIS_URL": "redis://r",
    }
    told, _, told_in_production = SETTINGS[name].partition("production")

    assert_default(name, told, development, tmp_path)
    if name not in ("ENVIRONMENT", "REDIS_URL"):
        assert_default(name, told_in_production or told, production, tmp_path)


def assert_default(name: str, told: str, environ: dict[str, str], var: Path) -> None:
    without = load(environ, var=var)
    actual = getattr(without, name.lower())
    values = CODE.findall(told)
    if name == "AUTH_SECRET":
        assert told.startswith("none")
    elif not values:
        assert told.startswith("none"), f"the default of {name} is {actual!r}"
        assert not actual, f"the default of {name} is {actual!r}"
    elif values[0] in NAMES:
        assert actual == getattr(without, values[0].lower())
    else:
        assert getattr(load({**environ, name: values[0]}, var=var), name.lower()) == actual


async def test_every_route_is_in_the_readme_with_those_who_may_call_it(parts):
    routes = {
        f"{route.method} {route.resource.canonical}": route.handler.access
        for route in make_app(parts).router.routes()
        if route.resource and route.method not in ("HEAD", "OPTIONS")
    }

    told = {call: ", ".join(access.any_of) or access.who for call, access in routes.items()}

    assert told == ENDPOINTS


def test_every_error_code_is_in_the_readme_with_its_status():
    def below(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    actual = {(kind.code, kind.status) for kind in below(errors.ServiceError) if kind.__module__ == errors.__name__}
    statuses = {code: statuses for statuses, codes in ERRORS for code in codes}

    assert statuses.keys() == {code for code, _ in actual}
    assert [code for code, status in actual if str(status) not in statuses[code].split(", ")] == []


async def test_the_readme_the_index_and_the_openapi_document_tell_of_the_same_calls(browser):
    paths = (await browser("GET", "/openapi.json")).json["paths"]
    published = {
        f"{method.upper()} {path}" for path, item in paths.items() for method in item if method != "parameters"
    }

    assert published == ENDPOINTS.keys()
    assert published == set((await browser("GET", "/")).json["endpoints"])


def test_the_error_that_the_readme_shows_is_one_of_ours():
    shown = json.loads(blocks("json", section("## Errors"))[0])
    ours = errors.WeakPassword("Use 8 characters or more.")

    expected = {"title": ours.title, "status": ours.status, "detail": ours.detail, "code": ours.code, **ours.members}

    assert {name: shown[name] for name in expected} == expected
    assert shown.keys() - expected.keys() == {"type", "requestId"}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_names_only_settings_and_codes_that_there_are(page):
    codes = {code for _, some in ERRORS for code in some}
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = {word for span in CODE.findall(prose) for word in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", span)}
    assert {
        name
        for name in named - codes - set(NAMES)
        if not OIDC.fullmatch(name) and not name.startswith(("GATEPOST_", "OIDC_"))
    } == set()


def test_the_readme_of_the_client_library_lists_every_option_method_and_word_of_a_problem():
    source, told = (
        ROOT / "clients" / "js",
        section("## What there is", (ROOT / "clients" / "js" / "README.md").read_text()),
    )
    types, problem = (source / "src" / "types.ts").read_text(), (source / "src" / "problem.ts").read_text()

    def members(kind: str, text: str) -> set[str]:
        declared = text.partition(kind)[2].partition("\n}")[0].partition("constructor")[0]
        return set(re.findall(r"^  (?:readonly )?(\w+)[?]?[:(<]", declared, re.M))

    methods, options = members("export interface Auth {", types), members("export interface Options {", types)
    assert methods == set(re.findall(r"`auth\.(\w+)", told))
    assert {option for option in options if f"`{option}`" not in told} == set()
    words = members("export class Problem", problem) - {"title", "members"}
    assert {word for word in words if f"`{word}`" not in told} == set()
    assert len(methods) > 10
    assert len(options) > 5
    assert len(words) > 4


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


# --- Redis -----------------------------------------------------------------------------------------------------------


def owned_keys() -> set[tuple[str, str]]:
    """The keys that the modules claim in their docstrings, each with its type."""
    found = set()
    for module in sorted((ROOT / "service").rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(module.read_text())) or ""
        if owned := re.search(r"^Redis\n((?: {4}.*\n?)+)", docstring, re.MULTILINE):
            found |= set(re.findall(r"^ {4}(\S.*?) {2,}(hash|string|zset|set|list|stream)\b", owned[1], re.M))
    return found


TOLD_KEYS = [(CODE.findall(key)[0], kind, lives) for key, kind, lives in table(REDIS_PAGE[: REDIS_PAGE.index("\n## ")])]


def test_every_key_that_a_module_owns_is_told_and_no_other():
    assert {(key, kind) for key, kind, _ in TOLD_KEYS} == owned_keys()
    for key, _, _ in TOLD_KEYS:
        shown = section(f"## `{key}`", REDIS_PAGE)
        assert "*In a dump:*" in shown
        assert re.search(r"\*Lost[^*]*:\*", shown), f"{key}: what if it is lost?"


async def _an_errand(its):
    """One that has been taken, once the post has made the one-time token of the registration."""
    while not await its.store.one(("EVAL", "return #redis.call('KEYS', 'once:*')", 0)):
        await asyncio.sleep(0.01)
    return Errand("0-1", "verify", {}, tries=1, sealed="")


@pytest.mark.parametrize("connecting", ["redis"], indirect=True)
async def test_every_key_after_a_journey_is_told_with_its_type_and_its_life(serving, assembling, redis_server):
    its = await assembling(GITHUB_CLIENT_ID="id", GITHUB_CLIENT_SECRET="secret")
    browser = await serving(its)
    await browser("GET", "/api/auth/github", headers={"Accept": "application/json"})
    await its.users.register(
        User(id="", email="bob@example.org", identities=(Identity("github", "https://e.org", "1"),))
    )
    await its.users.register(User(id="", email="eve@example.org", roles=("user", "admin"), active=True))
    await its.users.register(User(id="", email="dan@example.org", active=False))
    await browser.register()
    await browser.login(password=PASSWORD + "!")
    await browser("POST", "/api/auth/refresh")
    await browser("PATCH", "/api/users/profile", {"firstName": "Ada", "lastName": "L", "picture": "https://e.org/a"})
    await browser("POST", "/api/auth/api-keys", {"name": "report", "permissions": [], "expiresIn": 60})
    await browser("POST", "/api/auth/logout")
    await browser("GET", "/api/auth/csrf-token")
    await browser.login(headers={"X-Auth-Mode": "token"})
    await its.outbox.failed((await _an_errand(its)), "to be seen", for_good=True)
    await its.signals.settled()

    found = {
        (key.partition(":")[0], redis_server.cli("TYPE", key), redis_server.cli("PTTL", key) == -1)
        for key in redis_server.cli("KEYS", "*")
    }
    users = [redis_server.cli("HGETALL", key) for key in redis_server.cli("KEYS", "user:*")]
    kept = {re.sub(r"^id:.*", "id:<provider>", name) for user in users for name in user}

    assert found == {(key.partition(":")[0], kind, lives.startswith("for good")) for key, kind, lives in TOLD_KEYS}
    fields = {name for first, *_ in table(section("## `user:{<id>}`", REDIS_PAGE)) for name in CODE.findall(first)}
    assert kept <= fields


# --- Links and diagrams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name} links to {link}"


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as code hosts make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_every_decision_is_in_the_index_and_tells_what_it_costs():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for note in sorted(folder.glob("0*.md")):
        assert f"({note.name})" in index
        headings = re.findall(r"^## (.*)$", note.read_text(), re.MULTILINE)
        assert {"Context", "Decision", "Alternatives", "Consequences"} <= set(headings), note.name


DIAGRAM_LINE = re.compile(
    r"(participant \w+ as [\w ]+"
    r"|\w+-{1,2}>>\w+: [^;#]+"
    r"|(alt|else|opt|loop|par|and|critical|break) [^;#]+"
    r"|Note (over|left of|right of) \w+(,\w+)?: [^;#]+"
    r"|end)"
)


def test_every_diagram_is_a_sequence_that_mermaid_understands():
    diagrams = [diagram for page in PAGES for diagram in blocks("mermaid", page.read_text())]

    assert len(diagrams) >= 2
    for diagram in diagrams:
        first, *lines = [line.strip() for line in diagram.strip().splitlines()]
        assert first == "sequenceDiagram"
        assert [line for line in lines if not DIAGRAM_LINE.fullmatch(line)] == []
        named = set(re.findall(r"participant (\w+)", diagram))
        assert {name for pair in re.findall(r"(\w+)-{1,2}>>(\w+)", diagram) for name in pair} == named
        assert len(re.findall(r"^\s*(?:alt|opt|loop|par|critical|break) ", diagram, re.M)) == lines.count("end")


# --- What the pages show, run ----------------------------------------------------------------------------------------


@pytest.fixture
def service(redis_server, tmp_path) -> Iterator[str]:
    """The address of an instance as `python -m service` runs it, on an empty Redis."""
    port = free_port()
    log = tmp_path / "log"
    environ = {name: value for name, value in os.environ.items() if name not in NAMES}
    environ |= {"PORT": str(port), "AUTH_SECRET": SECRET, "REDIS_URL": redis_server.url, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=tmp_path, env=environ, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + 60
        while "ready at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(60)


def run(*command: str, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_first_calls_of_the_readme_answer_what_it_promises(service, tmp_path):
    tool("curl")
    first_calls = "\n".join(blocks("bash", section("## First calls"))).replace("http://localhost:8000", service)
    promised = re.findall(r"^#.*?\b([1-5]\d\d)\b", first_calls, re.MULTILINE)
    told = 'curl() { command curl --noproxy "*" --write-out "%{stderr}%{http_code}\\n" "$@"; }\n'

    done = run(tool("bash"), "-euo", "pipefail", cwd=tmp_path, text=told + first_calls)

    assert done.stderr.split() == promised
    assert len(promised) == len(re.findall(r"\bcurl -s", first_calls)) >= 11


def test_the_first_call_that_a_fresh_start_prints_works(service, tmp_path):
    tool("curl")
    greeting = (tmp_path / "log").read_text()
    call = re.search(r"^ {4}(curl .*?/api/auth/register.*?\n.*?)\n\n", greeting, re.DOTALL | re.MULTILINE)
    assert call

    done = run(tool("bash"), "-euo", "pipefail", cwd=tmp_path, text=call[1])

    assert json.loads(done.stdout)["user"]["email"] == "grace@example.org"


def test_the_check_of_tokens_elsewhere_works_as_the_readme_shows_it(service, tmp_path):
    (shown,) = blocks("python")
    program = shown.replace("http://localhost:8000", service) + (
        "\nimport sys\n"
        "token = sys.stdin.read()\n"
        "assert claims_of(token)['email'] == 'ada@example.org'\n"
        "head, body, signature = token.split('.')\n"
        "for forged in (f'{head}.{body}.{signature[::-1]}', 'e30.e30.'):\n"
        "    try:\n"
        "        claims_of(forged)\n"
        "    except jwt.PyJWTError:\n"
        "        continue\n"
        "    sys.exit('a forged token was accepted')\n"
    )
    register = '{"email": "ada@example.org", "password": "a long and private sentence"}'
    where = f"{service}/api/auth/register"
    answer = run(tool("curl"), "-s", where, "-H", "Content-Type: application/json", "-d", register, cwd=tmp_path)

    run(sys.executable, "-c", program, cwd=tmp_path, text=json.loads(answer.stdout)["accessToken"])


def test_the_client_library_does_what_the_guides_say(service, tmp_path):
    """In node, whose `fetch` is given the cookie jar of a browser."""
    node, library = tool("node"), str(built_client() / "index.js")
    (tmp_path / "journey.mjs").write_text((Path(__file__).parent / "journey.mjs").read_text())

    assert run(node, "journey.mjs", service, library, cwd=tmp_path).stdout.split() == ["done"]


def test_the_pieces_of_javascript_are_javascript(tmp_path):
    node, shown = tool("node"), blocks("js")
    assert len(shown) == 2
    shown += blocks("js", (ROOT / "docs" / "spa.md").read_text())
    for number, piece in enumerate(shown):
        (tmp_path / f"{number}.mjs").write_text(piece)
        run(node, "--check", f"{number}.mjs", cwd=tmp_path)
