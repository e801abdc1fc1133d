"""The ledger itself: what it knows for certain, what it holds possible, and that it accuses."""

import time
from datetime import datetime
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.errors import Overloaded, StoreUnavailable
from tests.conftest import Answer
from tests.faults.ledger import (
    UNNOTICED,
    UNREPLICATED,
    Account,
    Call,
    Ending,
    Ledger,
    Password,
    Promotion,
    Session,
    browsing,
)
from tests.faults.processes import Formation


@pytest.fixture
def account():
    return Account("ada@example.org")


def session_of(account, asked=0.0, born=1.0):
    return Session(account, "ada", asked, born, "", "", token_asked=asked, token_answered=born)


def test_a_confirmed_log_out_is_possible_from_when_it_was_asked_for_and_certain_from_when_it_was_confirmed(account):
    session = session_of(account)
    session.endings.append(Ending(began=10, until=12, confirmed=True))

    assert [session.may_be_over(at) for at in (9, 10, 12)] == [False, True, True]
    assert [session.is_over(at) for at in (9, 11, 12)] == [False, False, True]


def test_a_log_out_that_nobody_answered_is_never_certain(account):
    session = session_of(account)
    session.endings.append(Ending(began=10, until=15))

    assert session.may_be_over(20)
    assert not session.is_over(20)


def test_a_log_out_everywhere_ends_the_sessions_before_it_and_none_after_it(account):
    account.endings.append(Ending(began=10, until=12, confirmed=True))
    before, during, after = session_of(account), session_of(account, 9, 11), session_of(account, 13, 14)

    assert [session.is_over(20) for session in (before, during, after)] == [True, False, False]
    assert [session.may_be_over(20) for session in (before, during, after)] == [True, True, False]


def test_a_password_change_spares_its_own_session_and_outdates_its_tokens(account):
    own = session_of(account)
    account.endings.append(Ending(began=10, until=12, confirmed=True, spared=own))

    assert not own.may_be_over(20)
    assert own.token_is_stale(12)
    assert not own.token_is_stale(11)
    own.token_asked, own.token_answered = 13, 14
    assert not own.token_may_be_stale(20)


def test_a_refused_request_has_ended_nothing(account):
    session = session_of(account)
    account.endings.append(Ending(began=10, until=12, refused=True))

    assert not session.may_be_over(20)


def test_a_sign_in_tells_which_password_is_right_once_nothing_else_can_come_of_the_change(account):
    old = Password("old", 0, 0, certain_until=10)
    new = Password("new", 10, float("inf"))
    account.passwords, account.unsettled_until = [old, new], 15

    account.settle(old, 14)
    assert account.candidates(16) == [new, old]
    account.settle(old, 16)
    assert account.candidates(17) == [old]


def test_what_only_a_lost_master_knew_is_held_against_nobody_and_the_rest_is(account):
    ledger, refused = Ledger(), Answer(401, {}, {}, b"")
    for born in (100 - UNNOTICED - 1, 100 - 1, 100 + UNREPLICATED + 1):
        ledger.signed_out(session_of(account, born=born), f"born at {born:.0f}", refused)
    ledger.accuse("a revoked token is accepted", account.email, refused)
    assert len(ledger.wrong) == 4

    ledger.promotions = lambda: [Promotion(100, wanted=True)]
    assert len(ledger.wrong) == 4
    ledger.promotions = lambda: [Promotion(100, wanted=False)]

    assert [told.partition(":")[0].partition(" (")[0] for told in ledger.wrong] == [
        "born at 94",
        "born at 103",
        "a revoked token is accepted",
    ]


@pytest.mark.parametrize("late", [0.4, 0.6])
def test_a_change_that_was_wanted_excuses_nothing_but_what_began_while_the_instances_stood_still(account, late):
    ledger = Ledger()
    ledger.lateness.within = lambda begin, end: late
    ledger.promotions = lambda: [Promotion(100, wanted=True)]
    for born in (99.4, 99.6, 103):
        ledger.signed_out(session_of(account, born=born), str(born), Answer(401, {}, {}, b""))

    assert [told.partition(":")[0] for told in ledger.wrong] == (
        ["99.4", "99.6", "103"] if late < 0.5 else ["99.4", "103"]
    )


def test_a_call_is_lost_unless_a_master_was_gone_that_no_test_had_wanted_to_go():
    ledger = Ledger()
    ledger.calls = [Call("verify", at, at + 1, 503) for at in (10, 20, 30)]
    ledger.promotions = lambda: [Promotion(31, wanted=False), Promotion(21, wanted=True)]

    assert ledger.noticed() == ledger.calls[:2]
    assert ledger.noticed(since=25) == []


def test_a_master_that_changed_by_itself_is_told_from_one_that_was_to_change(tmp_path):
    formation = Formation()
    formation.nodes = [SimpleNamespace(log=tmp_path / "log")]
    with formation.changing():
        wanted = time.time()
    unwanted = wanted + 9
    lines = [
        f"7:S {datetime.fromtimestamp(at).strftime('%d %b %Y %H:%M:%S.%f')[:-3]} {told}"
        for at, told in (
            (wanted, "* MASTER MODE enabled (user request from 'id=4')"),
            (unwanted, "# Failover election won: I'm the new master."),
            (unwanted, "* Connecting to MASTER 127.0.0.1:7"),
        )
    ]
    formation.nodes[0].log.write_text("\n".join(lines))

    now = time.monotonic()
    assert [(round(at - now), wanted) for at, wanted in formation.promotions()] == [(0, True), (9, False)]


@pytest.fixture
async def impostor():
    """A service that answers everything with 200 and somebody else's name."""

    async def answer(request: web.Request) -> web.Response:
        user = {"id": "eve", "email": "eve@example.org"}
        token = "e30.eyJzdWIiOiJldmUifQ.x"  # {"sub": "eve"}
        told = {"user": user, "sub": "eve", "accessToken": token, "refreshToken": "rt_x"}
        return web.json_response(told, status=500 if request.path.endswith("logout-all") else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


@pytest.fixture
async def busy():
    """A service without a core to spare at first, and then without Redis."""
    answers = iter([Overloaded, Overloaded, StoreUnavailable])

    async def answer(request: web.Request) -> web.Response:
        problem = next(answers)()
        return web.json_response(
            {"code": problem.code}, status=503, headers={"Retry-After": "0"}, content_type="application/problem+json"
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_a_sign_in_without_a_core_to_spare_is_asked_for_again_and_is_no_loss(busy):
    ledger = Ledger()
    async with browsing(ledger, busy, ["zoe@example.org"]) as (browser,):
        assert not await browser.sign_in()

    assert [call.shed for call in ledger.calls] == [True, True, False]
    assert ledger.lost() == ledger.calls[2:]


async def test_wrong_answers_are_found(impostor):
    ledger = Ledger()
    async with browsing(ledger, impostor, ["zoe@example.org", "ada@example.org"]) as (_, browser):
        assert await browser.sign_in()
        session = browser.session
        session.user_id = "ada"
        await browser.me()
        await browser.verify()
        await browser.refresh()
        await browser.log_out_all()
        session.endings.append(Ending(0, 0, confirmed=True))
        browser.session = session
        await browser.verify()
        await browser.try_tokens_of(session)

    assert [told.partition(" (")[0].partition(" after")[0] for told in ledger.wrong] == [
        "somebody else's account",
        "somebody else's data",
        "somebody else's session",
        "refresh: somebody else's token",
        "logout-all: a fault of ours",
        "logout-all: signed out for no reason",
        "verify: a revoked token is accepted",
        "somebody else's session",
        "a revoked access token is accepted",
        "a revoked refresh token is accepted",
    ]
