"""Requirement 29: where a person may be sent after a sign-in, by an exact list of origins."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import ValidationFailed
from service.oauth.redirects import Redirects, with_error
from tests.conftest import settings_for
from tests.oauth.conftest import JSON, PAGE, come_back, leave

APP = "https://app.example.org"
ADMIN = "https://admin.example.org:8443"
SETTINGS = {
    "FRONTEND_URL": APP,
    "PUBLIC_URL": "https://auth.example.org",
    "CORS_ORIGINS": f"{APP},{ADMIN}",
}
ALLOWED = {APP, ADMIN, "https://auth.example.org"}

FINE = [
    (None, APP),
    ("", APP),
    (APP, APP),
    (APP + "/", APP + "/"),
    (APP + "/inbox?tab=2#top", APP + "/inbox?tab=2#top"),
    (APP + "?tab=2", APP + "?tab=2"),
    (APP + "#/route", APP + "#/route"),
    (ADMIN + "/users", ADMIN + "/users"),
    ("https://auth.example.org/docs", "https://auth.example.org/docs"),
    ("/", APP + "/"),
    ("/inbox", APP + "/inbox"),
    ("/inbox?next=https://evil.example", APP + "/inbox?next=https://evil.example"),
    ("/a%20b/%C3%A9", APP + "/a%20b/%C3%A9"),
    ("/a//b", APP + "/a//b"),
]

EVIL = [
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "//evil.example/%2e%2e",
    "/%2f%2fevil.example",
    "/%2Fevil.example",
    "/%5cevil.example",
    "/%5Cevil.example",
    "%2f%2fevil.example",
    "/\tevil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    " /inbox",
    "/in box",
    "https://evil.example",
    "HTTPS://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https://evil.example#" + APP,
    "https://evil.example?" + APP,
    "https://evil.example/" + APP,
    APP + "@evil.example",
    APP + ":443@evil.example",
    APP + ":pass@evil.example/",
    "https://user@app.example.org",
    "https://user:pass@app.example.org/",
    APP + ".evil.example",
    APP + "evil.example",
    APP + "-evil.example",
    APP + ":8443",
    APP + ":443",
    APP + "%2eevil.example",
    APP + "\\@evil.example",
    APP + "/\\evil.example",
    APP + "\t.evil.example",
    APP + "\r\n/",
    APP + "/\r\nSet-Cookie: a=b",
    APP + "/%\r\n",
    APP + "/\x00",
    APP + "/é",
    "https://app.example.org。evil.example",
    "https://app\uff0eexample\uff0eorg/",  # full stops of full width
    "https://\u0430pp.example.org/",  # the first letter is Cyrillic
    "http://app.example.org/",
    "ftp://app.example.org/",
    "//app.example.org/",
    "app.example.org",
    "inbox",
    "./inbox",
    "../inbox",
    "?tab=2",
    "#top",
    "https://APP.example.org/",
    "https://app.example.org./",
    "https://admin.example.org/",
    "https://admin.example.org:84430/",
    "https://sub.app.example.org/",
    "https://example.org/",
    "https://[::1]/",
    "https://127.0.0.1/",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "java\nscript:alert(1)",
    "javascript://app.example.org/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "blob:https://app.example.org/1",
    "file:///etc/passwd",
    "about:blank",
    "null",
    "*",
    "/" + "x" * 2048,
    APP + "/" + "x" * 2048,
]


@pytest.fixture(scope="module")
def redirects() -> Redirects:
    return Redirects(settings_for(**SETTINGS))


@pytest.mark.parametrize(("wanted", "place"), FINE)
def test_places_below_an_allowed_origin_are_fine(redirects, wanted, place):
    assert redirects.allowed(wanted) == place


@pytest.mark.parametrize("wanted", EVIL)
def test_everything_else_is_refused(redirects, wanted):
    with pytest.raises(ValidationFailed):
        redirects.allowed(wanted)


pieces = st.sampled_from(
    [
        *"/\\@:?#.;[]&=\t\n \x00é。",
        *["//", "%2f", "%5c", "%0d%0a", "https:", "http:", "javascript:", "user", "evil.example"],
        APP,
        ADMIN,
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(pieces, max_size=7).map("".join) | st.text(max_size=30))
@example(APP + "/@evil.example")
@example("/..//evil.example")
def test_whatever_is_let_through_stays_below_an_allowed_origin(redirects, wanted):
    try:
        place = redirects.allowed(wanted)
    except ValidationFailed:
        return

    for address in (place, with_error(place, "OAUTH_DENIED")):
        assert as_a_browser_would(address) in ALLOWED
        assert address.isascii()
        assert address.isprintable()
        assert " " not in address


def as_a_browser_would(address: str) -> str:
    """The origin of an address after what browsers do first (URL Standard, 4.4): no tabs, no newlines, `\\` is `/`."""
    cleaned = address.strip("".join(map(chr, range(33)))).replace("\t", "").replace("\n", "").replace("\r", "")
    parts = urlsplit(cleaned.replace("\\", "/"))
    assert parts.username is None
    return f"{parts.scheme}://{parts.netloc}"


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (APP, APP + "?error=OAUTH_DENIED"),
        (APP + "/in", APP + "/in?error=OAUTH_DENIED"),
        (APP + "/in?tab=2", APP + "/in?tab=2&error=OAUTH_DENIED"),
        (APP + "/in#top", APP + "/in?error=OAUTH_DENIED#top"),
        (APP + "/#/route?x=1", APP + "/?error=OAUTH_DENIED#/route?x=1"),
    ],
)
def test_the_error_joins_the_query_and_leaves_the_rest(place, told):
    assert with_error(place, "OAUTH_DENIED") == told


async def test_a_bad_place_is_a_400_and_starts_nothing(visiting, github, connecting):
    browser = await visiting(github, **SETTINGS, COOKIE_SECURE="off")

    for wanted in EVIL[:-2]:
        for headers in (JSON, PAGE):
            refused = await browser("GET", "/api/auth/github", params={"redirectTo": wanted}, headers=headers)
            assert (refused.status, refused.code) == (400, "VALIDATION_ERROR"), wanted
            assert refused.json["errors"] == [{"field": "redirectTo", "message": "must be below an allowed origin"}]
            assert "Location" not in refused.headers

    redis = connecting()
    assert [key async for key in redis.scan_iter("oauth:*")] == []
    await redis.aclose()


async def test_a_place_is_remembered_by_the_flow_not_by_the_return(visiting, github):
    browser = await visiting(github, **SETTINGS, COOKIE_SECURE="off", GITHUB_REDIRECT_URI=github.callback)
    callback = await github.sign_in(await leave(browser, "github", redirectTo=ADMIN + "/users"), "ada-l")

    back = await come_back(browser, callback + "&redirectTo=https%3A%2F%2Fevil.example", PAGE)

    assert back.headers["Location"] == ADMIN + "/users"


async def test_a_link_checks_its_place_too(visiting, github):
    browser = await visiting(github, **SETTINGS, COOKIE_SECURE="off")
    await browser.register()

    refused = await browser("POST", "/api/auth/github/link", params={"redirectTo": "//evil.example"})

    assert refused.code == "VALIDATION_ERROR"
