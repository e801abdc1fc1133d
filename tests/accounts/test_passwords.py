"""Passwords: what is accepted, what verifies, and that hashing is bounded whatever comes."""

import asyncio
import json
import re
import threading
import unicodedata
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from argon2 import extract_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from service.accounts.passwords import ARGON2ID, HashingThreads, Passwords, load_common
from service.errors import Overloaded, WeakPassword

CHEAP = replace(ARGON2ID, memory_cost=8, time_cost=1)
GOOD = "correct horse battery stable"
COMMON = load_common(Path(__file__).parents[2] / "config" / "common-passwords.txt")


def wide(text):
    """The full-width form that an East Asian keyboard types."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def build(**options):
    return Passwords(**{"common": COMMON, "queue": 400, "workers": 1, "parameters": CHEAP} | options)


@pytest.fixture
def passwords():
    passwords = build()
    yield passwords
    passwords.close()


@pytest.fixture
def bcrypts():
    passwords = build(bcrypt_rounds=5)
    yield passwords
    passwords.close()


@pytest.fixture
def threads():
    threads = HashingThreads(workers=1, queue=10, patience=30)
    yield threads
    threads.close()


class Busy:
    """Work that keeps its thread until it is released by the event loop: a blocked loop never would."""

    def __init__(self, threads):
        self._release = threading.Event()
        self.task = asyncio.create_task(threads.run(self._release.wait))

    async def __aenter__(self):
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        self.release()
        await asyncio.wait([self.task])

    def release(self):
        self._release.set()


async def idle(threads):
    while threads.running or threads.waiting:
        await asyncio.sleep(0.001)


def bcrypt_of(password, prefix=b"2b"):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).replace(b"2b", prefix, 1).decode()


# The policy


@pytest.mark.parametrize(
    "password",
    [
        "with spaces in it",
        "        x",
        "🐎🔋📎🐎🔋📎🐎🔋",
        "nul\0in the middle",
        "x" * 200,
        "x" * 1024,
        "ünïcödé pässwörd",
    ],
)
async def test_any_characters_make_a_password_and_it_verifies(passwords, password):
    passwords.check(password)

    phc = await passwords.hash(password)

    assert await passwords.verify(password, phc)
    assert not await passwords.verify(password[:-1], phc)


@pytest.mark.parametrize(
    "password", ["", "seven77", "🐎" * 7, "x" * 1025, "é" * 513, "e\u0301" * 400, "\u0301" * 60_000]
)
def test_less_than_8_characters_or_more_than_1024_bytes_are_refused(passwords, password):
    with pytest.raises(WeakPassword):
        passwords.check(password)


def test_a_lone_surrogate_is_refused_as_any_bad_password(passwords):
    with pytest.raises(WeakPassword, match="Unicode"):
        passwords.check(json.loads(r'"\ud800 is half a character"'))


@pytest.mark.parametrize("password", ["password1", "PassWord1", wide("password1"), "password2026", "Gatepost1"])
def test_a_common_password_is_refused_in_any_case_and_width(passwords, password):
    with pytest.raises(WeakPassword, match="list"):
        passwords.check(password)


@pytest.mark.parametrize(
    "password",
    [
        "ada.lovelace@example.org",
        "Ada.Lovelace@Example.org",
        "ada.lovelace",
        "AdaLovelace1815!",
        "lovelace",
        "1815lovelace",
        "ada12345",
        "BYRON-1815",
        "example-5772",
    ],
)
def test_the_users_own_email_and_names_are_refused_with_a_few_digits_too(passwords, password):
    with pytest.raises(WeakPassword, match="own"):
        passwords.check(password, "ada.lovelace@example.org", "Ada", None, "Byron", "")


@pytest.mark.parametrize("password", ["ada 1815 12 10 x", "ada83746519", "lovelace writes notes", "my adage is old"])
def test_a_name_may_be_part_of_a_longer_password(passwords, password):
    passwords.check(password, "ada.lovelace@example.org", "Ada", "Byron")


def test_a_telephone_number_as_email_is_personal_too(passwords):
    with pytest.raises(WeakPassword, match="own"):
        passwords.check("13800138000", "13800138000@example.org")


def test_bcrypt_takes_72_bytes_and_refuses_more_instead_of_cutting(bcrypts):
    bcrypts.check("é" * 36)
    with pytest.raises(WeakPassword, match="72"):
        bcrypts.check("é" * 36 + "x")


def test_the_common_list_is_at_hand_and_worth_its_name():
    assert 10_000 < len(COMMON) < 30_000
    assert all(len(password) >= 8 for password in COMMON)


def test_only_the_top_of_the_list_is_a_comment(tmp_path):
    file = tmp_path / "common.txt"
    file.write_bytes("\ufeff# header\r\n# more\r\n\r\n#Sternchen\r\n pass word \r\n".encode())

    assert load_common(file) == {"#sternchen", " pass word "}


# Verifying


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_a_password_verifies_in_every_unicode_form_and_no_other_does(text):
    async def journey():
        passwords = build()
        try:
            phc = await passwords.hash(text)
            for form in ("NFC", "NFD", "NFKC", "NFKD"):
                assert await passwords.verify(unicodedata.normalize(form, text), phc)
            assert not await passwords.verify(text + "x", phc)
        finally:
            passwords.close()

    asyncio.run(journey())


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
async def test_imported_bcrypt_hashes_verify(passwords, prefix):
    assert await passwords.verify(GOOD, bcrypt_of(GOOD, prefix))
    assert not await passwords.verify("another password", bcrypt_of(GOOD, prefix))


async def test_a_bcrypt_hash_of_what_was_typed_verifies_though_we_normalise(passwords):
    typed = "pa\u0308ßw\N{FULLWIDTH LATIN SMALL LETTER O}rd"

    assert await passwords.verify(typed, bcrypt_of(typed))
    assert await passwords.verify(typed, bcrypt_of(unicodedata.normalize("NFKC", typed)))


async def test_more_than_72_bytes_never_match_a_bcrypt_hash(passwords):
    phc = bcrypt_of("x" * 72)

    assert await passwords.verify("x" * 72, phc)
    assert not await passwords.verify("x" * 73, phc)
    assert not await passwords.verify("x" * 1024, phc)


@pytest.mark.parametrize("password", ["x" * 1025, "\udc80 and more", "\u0301" * 60_000])
async def test_what_cannot_be_a_password_is_wrong_without_a_thread(passwords, password):
    async with Busy(passwords.threads):
        assert not await passwords.verify(password, passwords.decoy)


@pytest.mark.parametrize(
    "phc",
    [
        "",
        "plain text",
        "$argon2id$",
        "$argon2id$v=19$m=8,t=1,p=1$nonsense",
        "$argon2id$é",
        "$2b$04$",
        "$2b$99$" + "a" * 53,
        "$2b$04$" + "é" * 53,
        "$2x$04$" + "a" * 53,
    ],
)
async def test_a_broken_hash_matches_nothing_and_is_outdated(passwords, phc):
    assert not await passwords.verify(GOOD, phc)
    assert passwords.outdated(phc)


async def test_an_unknown_user_costs_the_chosen_work(passwords, bcrypts):
    assert extract_parameters(passwords.decoy) == extract_parameters(await passwords.hash(GOOD)) == CHEAP
    assert bcrypts.decoy.startswith("$2b$05$")
    assert not await passwords.verify(GOOD, None)
    assert not await bcrypts.verify(GOOD, None)
    assert not await bcrypts.verify("x" * 100, None)


@pytest.mark.parametrize("phc", [None, "", bcrypt_of(GOOD)], ids=["unknown", "no password", "bcrypt"])
async def test_an_unknown_user_stands_in_the_same_queue(phc):
    passwords = build(queue=0)
    async with Busy(passwords.threads):
        with pytest.raises(Overloaded):
            await passwords.verify(GOOD, phc)
    passwords.close()


# Upgrading


async def test_a_hash_leaves_the_default_parameters_out_and_means_them():
    passwords = build(parameters=ARGON2ID)
    short = await passwords.hash(GOOD)
    in_full = short.replace("$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$")

    assert re.fullmatch(r"\$argon2id\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", short)
    for phc in (short, in_full):
        assert await passwords.verify(GOOD, phc)
        assert not await passwords.verify(GOOD + "!", phc)
        assert passwords.readable(phc)
        assert not passwords.outdated(phc)
    assert build().outdated(short)
    passwords.close()


async def test_a_hash_as_chosen_is_not_outdated(passwords, bcrypts):
    assert not passwords.outdated(await passwords.hash(GOOD))
    assert not bcrypts.outdated(await bcrypts.hash(GOOD))
    assert not build(bcrypt_rounds=4).outdated(await bcrypts.hash(GOOD))


async def test_another_algorithm_or_other_parameters_are_outdated(passwords, bcrypts):
    stronger = build(parameters=replace(CHEAP, time_cost=2))

    assert passwords.outdated(await bcrypts.hash(GOOD))
    assert bcrypts.outdated(await passwords.hash(GOOD))
    assert bcrypts.outdated(bcrypt_of(GOOD))
    assert stronger.outdated(await passwords.hash(GOOD))


# Under load


async def test_of_300_parallel_sign_ins_each_is_answered_and_none_takes_a_thread_of_its_own():
    passwords = build(workers=2, queue=50, patience=30)
    phc = await passwords.hash(GOOD)

    answers = await asyncio.gather(*(passwords.verify(GOOD, phc) for _ in range(300)), return_exceptions=True)

    assert answers.count(True) >= 52
    assert all(answer is True or isinstance(answer, Overloaded) for answer in answers)
    assert sum(thread.name.startswith("hashing") for thread in threading.enumerate()) <= 2
    assert (passwords.threads.waiting, passwords.threads.running) == (0, 0)
    passwords.close()


async def test_when_the_threads_are_stuck_all_300_are_turned_away_while_the_loop_goes_on():
    passwords = build(queue=20, patience=0.01)
    async with Busy(passwords.threads) as busy:
        tries = [passwords.verify(GOOD, passwords.decoy) for _ in range(300)]
        answers = await asyncio.gather(*tries, return_exceptions=True)

        assert all(isinstance(answer, Overloaded) for answer in answers)
        assert not busy.task.done()
    assert await passwords.verify(GOOD, await passwords.hash(GOOD))
    passwords.close()


async def test_who_comes_first_is_served_first(threads):
    served = []
    async with Busy(threads) as busy:
        waiters = [asyncio.create_task(threads.run(lambda n=n: served.append(n))) for n in range(5)]
        await asyncio.sleep(0)
        assert (threads.waiting, threads.running) == (5, 1)
        busy.release()
        await asyncio.gather(*waiters)

    assert served == [0, 1, 2, 3, 4]


async def test_a_waiter_that_was_cancelled_never_takes_a_thread(threads):
    served = []
    async with Busy(threads) as busy:
        leaver = asyncio.create_task(threads.run(lambda: served.append("leaver")))
        stayer = asyncio.create_task(threads.run(lambda: served.append("stayer")))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait([leaver])
        assert threads.waiting == 1
        busy.release()
        await stayer

    await idle(threads)
    assert served == ["stayer"]


async def test_a_waiter_cancelled_as_its_turn_comes_passes_it_on(threads):
    async with Busy(threads) as busy:
        leaver = asyncio.create_task(threads.run(lambda: "leaver"))
        stayer = asyncio.create_task(threads.run(lambda: "stayer"))
        await asyncio.sleep(0)
        busy.task.add_done_callback(lambda _: leaver.cancel())
        busy.release()

        assert await stayer == "stayer"

    assert await threads.run(lambda: "next") == "next"


async def test_a_waiter_without_patience_left_never_takes_a_thread():
    threads = HashingThreads(workers=1, queue=10, patience=0.01)
    served = []
    async with Busy(threads):
        with pytest.raises(Overloaded):
            await threads.run(lambda: served.append("late"))

    await idle(threads)
    assert served == []
    threads.close()


async def test_work_whose_caller_left_keeps_its_turn_until_it_ends():
    threads = HashingThreads(workers=1, queue=0, patience=30)
    async with Busy(threads) as busy:
        busy.task.cancel()
        await asyncio.wait([busy.task])

        assert threads.running == 1
        with pytest.raises(Overloaded):
            await threads.run(lambda: None)

    await idle(threads)
    assert await threads.run(lambda: "free again") == "free again"
    threads.close()


async def test_work_that_fails_gives_its_turn_back(threads):
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0)

    assert await threads.run(lambda: "next") == "next"
