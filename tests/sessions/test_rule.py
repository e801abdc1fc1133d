"""The rotation rule, and its twin in Redis."""

import itertools

import fakeredis
import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.sessions.rule import REMEMBERED, Lineage, Verdict, judge
from tests.sessions.twin import Twin

LEEWAY = 10_000  # ms
NOW = 1_760_000_000_000


def ago(ms: int) -> int:
    return NOW - ms


def test_the_latest_generation_is_exchanged_for_the_next():
    verdict, after = judge(Lineage(7, ((6, ago(900_000)),)), 7, NOW, LEEWAY)

    assert verdict is Verdict.ROTATED
    assert after == Lineage(8, ((7, NOW),))


def test_a_generation_exchanged_a_moment_ago_gets_the_current_successor_again():
    lineage = Lineage(7, ((5, ago(4000)), (6, ago(2000))))

    assert judge(lineage, 6, NOW, LEEWAY) == (Verdict.REPLAYED, lineage)
    assert judge(lineage, 5, NOW, LEEWAY) == (Verdict.REPLAYED, lineage)


def test_a_lost_answer_is_recovered_by_skipping_the_generation_that_was_lost():
    verdict, after = judge(Lineage(7, ((6, ago(86_400_000)),)), 6, NOW, LEEWAY)

    assert verdict is Verdict.RECOVERED
    assert after == Lineage(8, ((6, NOW),))


def test_many_tabs_that_retry_late_share_one_successor():
    _, recovered = judge(Lineage(7, ((6, ago(86_400_000)),)), 6, NOW, LEEWAY)

    assert judge(recovered, 6, NOW + LEEWAY, LEEWAY) == (Verdict.REPLAYED, recovered)


def test_whoever_presents_the_generation_that_a_recovery_skipped_has_reused_it():
    _, recovered = judge(Lineage(7, ((6, ago(86_400_000)),)), 6, NOW, LEEWAY)

    assert judge(recovered, 7, NOW, LEEWAY)[0] is Verdict.REUSE


def test_a_generation_that_redis_has_forgotten_is_caught_up_with():
    verdict, after = judge(Lineage(7, ((6, ago(3000)),)), 9, NOW, LEEWAY)

    assert verdict is Verdict.HEALED
    assert after == Lineage(10, ((6, ago(3000)), (9, NOW)))


@pytest.mark.parametrize("generation", [0, 4, 5])
def test_any_other_generation_is_reuse_and_leaves_the_lineage_alone(generation):
    lineage = Lineage(7, ((6, ago(1)),))

    assert judge(lineage, generation, NOW, LEEWAY) == (Verdict.REUSE, lineage)


@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (LEEWAY - 1, Verdict.REPLAYED),
        (LEEWAY, Verdict.REPLAYED),
        (LEEWAY + 1, Verdict.RECOVERED),
    ],
)
def test_the_leeway_includes_its_last_millisecond(age, verdict):
    assert judge(Lineage(7, ((6, ago(age)),)), 6, NOW, LEEWAY)[0] is verdict


def test_without_a_leeway_only_the_same_millisecond_replays():
    lineage = Lineage(7, ((6, NOW),))

    assert judge(lineage, 6, NOW, 0)[0] is Verdict.REPLAYED
    assert judge(lineage, 6, NOW + 1, 0)[0] is Verdict.RECOVERED
    assert judge(lineage, 6, NOW + 1, 0, recovery=False)[0] is Verdict.REUSE


def test_without_recovery_a_late_retry_is_reuse_and_a_quick_one_still_replays():
    assert judge(Lineage(7, ((6, ago(LEEWAY)),)), 6, NOW, LEEWAY, recovery=False)[0] is Verdict.REPLAYED
    assert judge(Lineage(7, ((6, ago(LEEWAY + 1)),)), 6, NOW, LEEWAY, recovery=False)[0] is Verdict.REUSE


def test_a_clock_that_went_back_only_lengthens_the_leeway():
    assert judge(Lineage(7, ((6, NOW + 5000),)), 6, NOW, LEEWAY)[0] is Verdict.REPLAYED


def test_an_exchange_forgets_those_that_are_more_than_a_leeway_old():
    _, after = judge(Lineage(7, ((4, ago(LEEWAY + 1)), (5, ago(LEEWAY)), (6, ago(1)))), 7, NOW, LEEWAY)

    assert after.recent == ((5, ago(LEEWAY)), (6, ago(1)), (7, NOW))


def test_eight_exchanges_are_remembered_however_quickly_they_came():
    lineage = Lineage()
    for generation in range(REMEMBERED + 1):
        _, lineage = judge(lineage, generation, NOW, LEEWAY)

    assert [generation for generation, _ in lineage.recent] == list(range(1, REMEMBERED + 1))
    assert judge(lineage, 1, NOW, LEEWAY)[0] is Verdict.REPLAYED
    assert judge(lineage, 0, NOW, LEEWAY)[0] is Verdict.REUSE


@pytest.mark.parametrize("recovery", [True, False])
def test_rule_and_script_agree_on_every_small_lineage_to_the_millisecond(recovery):
    ages = (0, LEEWAY, LEEWAY + 1)
    with time_machine.travel((NOW + 0.5) / 1000, tick=False):
        twin = Twin(fakeredis.FakeRedis(decode_responses=True))
        for issued in range(3):
            for recent in _orders(issued + 1, ages):
                lineage = Lineage(issued, recent)
                for generation in range(issued + 3):
                    assert_agree(twin, lineage, generation, LEEWAY, recovery)


def _orders(generations: int, ages: tuple[int, ...]):
    """Every sequence of up to two exchanges of distinct generations, at every age."""
    for length in range(3):
        for chosen in itertools.permutations(range(generations), length):
            for at in itertools.product(ages, repeat=length):
                yield tuple((generation, ago(age)) for generation, age in zip(chosen, at, strict=True))


LEEWAYS = st.sampled_from([0, 1, 2000, LEEWAY, 60_000])
GENERATIONS = st.one_of(st.integers(0, 12), st.integers(2**40 - 12, 2**40 - 2))
AGES = st.one_of(st.integers(-3000, 70_000), st.sampled_from([0, LEEWAY, 60_000]), st.integers(0, 30 * 86_400_000))
RECENT = st.lists(st.tuples(GENERATIONS, AGES), max_size=REMEMBERED, unique_by=lambda entry: entry[0])


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(issued=GENERATIONS, recent=RECENT, generation=GENERATIONS, leeway=LEEWAYS, recovery=st.booleans())
def test_rule_and_script_agree_on_any_lineage(twin, issued, recent, generation, leeway, recovery):
    now = twin.now()
    lineage = Lineage(issued, tuple((old, now - age) for old, age in recent))

    assert_agree(twin, lineage, generation, leeway, recovery)


def assert_agree(twin: Twin, lineage: Lineage, generation: int, leeway: int, recovery: bool) -> None:
    """The script tells when it decided, so the rule can be asked about that very millisecond."""
    twin.put(lineage)
    verdict, handed_out, now = twin.present(generation, leeway, recovery)
    expected, after = judge(lineage, generation, now, leeway, recovery)
    assert verdict is expected
    if verdict is Verdict.REUSE:
        assert twin.lineage() is None
    else:
        assert (handed_out, twin.lineage()) == (after.issued, after)
