"""Replays: what tells a thief from a broken client, for whoever looks into it."""

import asyncio

import pytest

from service import metrics
from service.audit.events import Event
from service.audit.trail import Wanted
from service.client import Client
from service.sessions.replays import Looks, Replay
from service.sessions.rule import Verdict
from tests.conftest import parts_of

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
)
BEGAN = Client("192.0.2.7", CHROME.format(120))
UPDATED = Client("192.0.2.7", CHROME.format(121))
MOVED = Client("198.51.100.7", CHROME.format(120))
CURL_AT_HOME = Client("192.0.2.7", "curl/8")
STRANGER = Client("198.51.100.7", "curl/8")


@pytest.mark.parametrize(
    ("verdict", "came", "times", "looks"),
    [
        (Verdict.REUSE, BEGAN, 1, Looks.BROKEN_CLIENT),
        (Verdict.REUSE, UPDATED, 1, Looks.BROKEN_CLIENT),
        (Verdict.REUSE, MOVED, 1, Looks.UNCLEAR),
        (Verdict.REUSE, CURL_AT_HOME, 1, Looks.UNCLEAR),
        (Verdict.REUSE, STRANGER, 1, Looks.THEFT),
        (Verdict.RECOVERED, BEGAN, 1, Looks.UNCLEAR),
        (Verdict.RECOVERED, BEGAN, 2, Looks.UNCLEAR),
        (Verdict.RECOVERED, BEGAN, 3, Looks.BROKEN_CLIENT),
        (Verdict.RECOVERED, MOVED, 3, Looks.BROKEN_CLIENT),
        (Verdict.RECOVERED, STRANGER, 1, Looks.THEFT),
        (Verdict.HEALED, BEGAN, 5, Looks.UNCLEAR),
        (Verdict.HEALED, STRANGER, 1, Looks.UNCLEAR),
    ],
)
def test_a_replay_looks_like_this(verdict, came, times, looks):
    assert Replay(verdict, came, BEGAN, times).looks_like is looks


def test_an_address_of_the_same_network_is_the_same_network():
    assert Replay(Verdict.REUSE, Client("2001:db8::2"), Client("2001:db8::1")).same_network
    assert not Replay(Verdict.REUSE, Client("2001:db8:0:1::1"), Client("2001:db8::1")).same_network


@pytest.fixture
async def browser(serving):
    """One of an instance that trusts what we say of our address."""
    return await serving(TRUSTED_PROXIES="127.0.0.1", REFRESH_LEEWAY="0")


@pytest.fixture
def its(browser):
    return parts_of(browser)


def sent_by(client):
    return {"X-Forwarded-For": client.address, "User-Agent": client.user_agent, "X-Auth-Mode": "token"}


async def refresh(browser, token, client):
    """The next token, or `None` where this one is refused; a moment after the one before."""
    await asyncio.sleep(0.005)
    body = {"refreshToken": token}
    answer = await browser("POST", "/api/auth/refresh", body, headers=sent_by(client), csrf=None)
    return answer.json.get("refreshToken")


async def one(its, event):
    (found,), _ = await its.audit.page(Wanted(type=event), None, 10)
    return found


def replays(verdict, looks_like):
    return metrics.REFRESH_REPLAYS.labels(verdict, looks_like)._value.get()


async def reuse_by(browser, client):
    first = (await browser.register(headers=sent_by(BEGAN))).json["refreshToken"]
    second = await refresh(browser, first, BEGAN)
    await refresh(browser, second, BEGAN)
    assert await refresh(browser, first, client) is None


async def test_a_reuse_by_the_client_that_signed_in_looks_like_a_broken_one(browser, its):
    before = replays("reuse", "broken_client")
    await reuse_by(browser, UPDATED)
    await its.signals.settled()

    event = await one(its, Event.REFRESH_TOKEN_REUSED)
    told = await its.signals.told()

    assert event.user_agent == UPDATED.user_agent
    assert event.detail == {
        "generation": 0,
        "same_client": True,
        "same_network": True,
        "looks_like": "broken client",
        "session_user_agent": BEGAN.user_agent,
    }
    assert replays("reuse", "broken_client") == before + 1
    assert (told.day["reused"], told.day["broken-client"]) == (1, 1)
    assert [(agent.user_agent, agent.count) for agent in told.agents] == [(UPDATED.user_agent, 1)]


async def test_a_reuse_by_somebody_else_looks_like_theft(browser, its):
    before = replays("reuse", "theft")
    await reuse_by(browser, STRANGER)
    await its.signals.settled()

    event = await one(its, Event.REFRESH_TOKEN_REUSED)
    told = await its.signals.told()

    assert (event.ip, event.user_agent) == (STRANGER.address, STRANGER.user_agent)
    assert (event.detail["same_client"], event.detail["same_network"]) == (False, False)
    assert event.detail["looks_like"] == "theft"
    assert event.detail["session_user_agent"] == BEGAN.user_agent
    assert replays("reuse", "theft") == before + 1
    assert (told.day["reused"], told.day["broken-client"], told.agents) == (1, 0, [])


async def test_a_reuse_that_may_be_either_is_called_neither(browser, its):
    await reuse_by(browser, MOVED)

    event = await one(its, Event.REFRESH_TOKEN_REUSED)

    assert (event.detail["same_client"], event.detail["same_network"]) == (True, False)
    assert "looks_like" not in event.detail


async def test_a_client_that_never_keeps_its_new_token_is_noticed_and_not_signed_out(browser, its):
    kept = (await browser.register(headers=sent_by(BEGAN))).json["refreshToken"]
    for _ in range(5):
        assert await refresh(browser, kept, BEGAN)
    await its.signals.settled()

    found, _ = await its.audit.page(Wanted(type=Event.SESSION_RECOVERED), None, 10)
    told = await its.signals.told()

    assert [event.detail.get("looks_like") for event in reversed(found)] == [
        None,
        None,
        "broken client",
        "broken client",
    ]
    assert [(agent.user_agent, agent.count) for agent in told.agents] == [(BEGAN.user_agent, 2)]


async def test_a_client_whose_answer_is_lost_now_and_then_is_not_broken(browser, its):
    token = (await browser.register(headers=sent_by(BEGAN))).json["refreshToken"]
    for _ in range(6):
        await refresh(browser, token, BEGAN)  # its answer is lost
        token = await refresh(browser, token, BEGAN)
        token = await refresh(browser, token, BEGAN)

    found, _ = await its.audit.page(Wanted(type=Event.SESSION_RECOVERED), None, 10)
    assert [event.detail.get("looks_like") for event in found] == [None] * 6
    assert (await its.signals.told()).agents == []


async def test_an_ordinary_refresh_asks_redis_for_nothing_more(browser, its):
    """Neither is anything counted for it, nor does its answer have more in it."""
    token = (await browser.register(headers=sent_by(BEGAN))).json["refreshToken"]
    await its.signals.settled()

    assert await refresh(browser, token, STRANGER)

    assert its.signals._writer is None
    assert (its.signals._counts, its.signals._attempts) == ({}, [])
