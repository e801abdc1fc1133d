"""Places for requests: who has one, who gives it away, and what becomes of it."""

import asyncio

from service.http import body as body_module
from tests.conftest import PASSWORD
from tests.http.test_problems import GOOD, JSON

LOGIN = {"email": "ada@example.org", "password": PASSWORD}


async def test_every_request_gives_its_place_back(broken, parts):
    for method, path in (
        ("GET", "/health"), ("GET", "/nowhere"), ("PUT", "/health"), ("POST", "/api/auth/broken"),
        ("OPTIONS", "/health"),
        ("GET", "/api/auth/me"), ("POST", "/api/auth/login"),
    ):  # fmt: skip
        await broken(method, path)
        assert parts.state.under_way == 0
    await broken("POST", "/api/auth/login", LOGIN)
    assert parts.state.under_way == 0


async def test_a_place_that_was_given_away_may_be_gone(serving, assembling):
    its = await assembling(MAX_CONCURRENT_REQUESTS="8")
    browser = await serving(its)
    begun = asyncio.Event()

    async def in_two_parts():
        yield GOOD[:10]
        begun.set()
        while its.state.under_way:  # until it waits for the rest
            await asyncio.sleep(0.01)
        its.state.under_way += 8  # as many others are under way now
        yield GOOD[10:]

    answer = await browser("POST", "/api/auth/login", data=in_two_parts(), headers=JSON)

    assert begun.is_set()
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "OVERLOADED", "1")
    assert its.state.under_way == 8
    assert (await browser("GET", "/health")).status == 200
    assert (await browser("GET", "/ready")).status == 200
    assert (await browser("GET", "/")).code == "OVERLOADED"


async def test_who_never_finishes_a_body_gives_no_place_back_twice(broken, parts, monkeypatch):
    monkeypatch.setattr(body_module, "ARRIVES_WITHIN", 0.05)

    async def never_ends():
        yield GOOD[:10]
        await asyncio.sleep(0.5)

    answer = await broken("POST", "/api/auth/login", data=never_ends(), headers=JSON)

    assert answer.status == 408
    assert parts.state.under_way == 0
