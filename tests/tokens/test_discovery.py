"""The discovery documents: every statement in them is true."""

import pytest

PATHS = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]


@pytest.mark.parametrize("path", PATHS)
async def test_the_document_says_what_is_there(serving, path):
    browser = await serving(PUBLIC_URL="https://auth.example.org")

    answer = await browser("GET", path)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.json == {
        "issuer": "https://auth.example.org",
        "jwks_uri": "https://auth.example.org/.well-known/jwks.json",
        "introspection_endpoint": "https://auth.example.org/api/auth/introspect",
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "revocation_endpoint": "https://auth.example.org/api/auth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
        "response_types_supported": [],
        "grant_types_supported": [],
        "subject_types_supported": ["public"],
    }


async def test_every_address_in_it_is_a_route(browser):
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in browser.client.app.router.routes()
        if route.resource is not None
    }
    told = (await browser("GET", PATHS[0])).json

    addresses = {name: value for name, value in told.items() if name.endswith(("_endpoint", "_uri"))}
    assert len(addresses) == 3
    for name, address in addresses.items():
        path = address.removeprefix("http://localhost:8000")
        assert f"{'GET' if name == 'jwks_uri' else 'POST'} {path}" in routes
    assert (await browser("GET", "/.well-known/jwks.json")).json["keys"]


async def test_the_issuer_is_the_one_in_the_tokens(serving):
    browser = await serving(JWT_ISSUER="https://id.example.org", PUBLIC_URL="https://auth.example.org")

    told = (await browser("GET", PATHS[0])).json

    assert told["issuer"] == "https://id.example.org"
    assert told["jwks_uri"].startswith("https://auth.example.org/")


async def test_without_public_keys_none_are_pointed_to(serving):
    browser = await serving(JWT_ALGORITHM="HS256")

    assert "jwks_uri" not in (await browser("GET", PATHS[0])).json


@pytest.mark.parametrize("path", PATHS)
async def test_any_page_that_is_allowed_may_read_it(browser, path):
    answer = await browser("GET", path, headers={"Origin": "http://localhost:5173"})

    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
