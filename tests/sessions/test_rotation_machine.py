"""Lives of a session, made up by Hypothesis: tabs, lost answers, thieves and failovers, on the rule and the script.

Each machine runs twice: on the pure rule alone, many times, and on the script with the rule beside it, which must
agree step by step.
"""

from datetime import timedelta
from functools import partial

import fakeredis
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.sessions.rule import REMEMBERED, Lineage, Verdict, judge
from tests.sessions.twin import Twin

LEEWAY = 10_000  # ms
DAY = 86_400_000
NOW = 1_760_000_000_000

_reproducibly = partial(settings, deadline=None, derandomize=True, database=None)
OFTEN = _reproducibly(max_examples=400, stateful_step_count=40)
SELDOM = _reproducibly(max_examples=60, stateful_step_count=40)


class ByTheRule:
    """A session that the pure rule looks after; its lineage is `None` once it is over."""

    def __init__(self) -> None:
        self.now = NOW
        self.lineage: Lineage | None = Lineage()

    def wait(self, ms: int) -> None:
        self.now += ms

    def present(self, generation: int) -> tuple[Verdict, int]:
        if self.lineage is None:
            return Verdict.ENDED, 0
        verdict, after = judge(self.lineage, generation, self.now, LEEWAY)
        self.lineage = None if verdict is Verdict.REUSE else after
        return verdict, 0 if verdict is Verdict.REUSE else after.issued

    def go_back_to(self, lineage: Lineage) -> None:
        self.lineage = lineage

    def close(self) -> None:
        pass


class ByTheScript(ByTheRule):
    """The same inside Redis, held against the rule at every step."""

    def __init__(self) -> None:
        super().__init__()
        self._time = time_machine.travel((NOW + 0.5) / 1000, tick=False)  # amid a millisecond, so that none is cut
        self._traveller = self._time.start()
        self._twin = Twin(fakeredis.FakeRedis(decode_responses=True))
        self._twin.put(Lineage())

    def wait(self, ms: int) -> None:
        super().wait(ms)
        self._traveller.shift(timedelta(milliseconds=ms))

    def present(self, generation: int) -> tuple[Verdict, int]:
        *told, now = self._twin.present(generation, LEEWAY)
        expected = super().present(generation)
        assert (tuple(told), now) == (expected, self.now)
        assert self._twin.lineage() == self.lineage
        return expected

    def go_back_to(self, lineage: Lineage) -> None:
        super().go_back_to(lineage)
        self._twin.put(lineage)

    def close(self) -> None:
        self._time.stop()


class Life(RuleBasedStateMachine):
    """One session, from its start."""

    store: type[ByTheRule] = ByTheRule

    def __init__(self) -> None:
        super().__init__()
        self.session = self.store()
        self.jar = 0

    def teardown(self) -> None:
        self.session.close()


class HonestTabs(Life):
    """Tabs that share a cookie jar and wake together: requests cross, answers overtake one another or get lost.

    All of it happens within one leeway, and with no more exchanges than are remembered; then there is a rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.woke = self.session.now
        self.exchanges = 0
        self.under_way: list[int] = []
        self.answers: list[int] = []

    @precondition(lambda self: self.exchanges + len(self.under_way) < REMEMBERED)
    @rule()
    def a_tab_asks(self):
        self.under_way.append(self.jar)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, REMEMBERED))
    def a_request_arrives(self, which):
        generation = self.under_way.pop(which % len(self.under_way))

        verdict, handed_out = self.session.present(generation)

        assert verdict in (Verdict.ROTATED, Verdict.REPLAYED, Verdict.RECOVERED)
        assert handed_out == self.session.lineage.issued
        self.exchanges += verdict is not Verdict.REPLAYED
        self.answers.append(handed_out)

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, REMEMBERED))
    def an_answer_arrives(self, which):
        self.jar = self.answers.pop(which % len(self.answers))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, REMEMBERED))
    def an_answer_is_lost(self, which):
        self.answers.pop(which % len(self.answers))

    @rule(ms=st.integers(1, 4000))
    def a_moment_passes(self, ms):
        self.session.wait(min(ms, self.woke + LEEWAY - self.session.now))

    @precondition(lambda self: not self.under_way and not self.answers)
    @rule(ms=st.integers(LEEWAY + 1, 3 * DAY))
    def all_rest(self, ms):
        self.session.wait(ms)
        self.woke, self.exchanges = self.session.now, 0


class OneCallAfterAnother(Life):
    """A client that asks one call after another, and a Redis that forgets writes in failovers."""

    def __init__(self) -> None:
        super().__init__()
        self.written = [self.session.lineage]

    @rule(lost=st.booleans())
    def call(self, lost):
        verdict, handed_out = self.session.present(self.jar)

        assert verdict not in (Verdict.REUSE, Verdict.ENDED)
        assert handed_out == self.session.lineage.issued
        self.written.append(self.session.lineage)
        if not lost:
            self.jar = handed_out

    @rule(ms=st.one_of(st.integers(0, 2 * LEEWAY), st.integers(0, 7 * DAY)))
    def wait(self, ms):
        self.session.wait(ms)

    @rule(writes=st.integers(1, 5), clock=st.integers(-2000, 2000))
    def another_master_takes_over(self, writes, clock):
        """It has missed some writes, and its clock may be another."""
        del self.written[max(1, len(self.written) - writes) :]
        self.session.go_back_to(self.written[-1])
        self.session.wait(clock)


class Theft(Life):
    """An owner, who asks one call after another, and a thief, who copies the cookie once and does what he likes."""

    def __init__(self) -> None:
        super().__init__()
        self.loot: list[int] = []
        self.over = False
        self.successes: list[tuple[str, int]] = []  # since the theft

    @rule()
    def the_owner_calls(self):
        if handed_out := self._present("owner", self.jar):
            self.jar = handed_out

    @precondition(lambda self: not self.loot)
    @rule()
    def the_thief_copies_the_cookie(self):
        self.loot.append(self.jar)

    @precondition(lambda self: self.loot)
    @rule(which=st.integers(0, 5))
    def the_thief_calls(self, which):
        if handed_out := self._present("thief", self.loot[-1 - which % len(self.loot)]):
            self.loot.append(handed_out)

    @rule(ms=st.one_of(st.integers(0, 2 * LEEWAY), st.integers(0, 3 * DAY)))
    def wait(self, ms):
        self.session.wait(ms)

    @invariant()
    def they_do_not_both_go_on(self):
        """Not after a refresh of the owner with no success of the thief within the leeway, before or after it."""
        thief = [at for who, at in self.successes if who == "thief"]
        for place, (who, at) in enumerate(self.successes):
            if who == "owner" and all(abs(at - other) > LEEWAY for other in thief):
                later = "".join(who[0] for who, _ in self.successes[place:]).lstrip("o")
                assert "o" not in later, self.successes

    def _present(self, who: str, generation: int) -> int:
        verdict, handed_out = self.session.present(generation)
        assert (verdict is Verdict.ENDED) == self.over  # after a reuse nothing works, and nothing else ends a session
        self.over |= verdict is Verdict.REUSE
        if self.loot and not self.over:
            self.successes.append((who, self.session.now))
        return handed_out


def both_ways(machine: type[Life]) -> tuple[type, type]:
    by_the_rule, by_the_script = machine.TestCase, type(machine.__name__, (machine,), {"store": ByTheScript}).TestCase
    by_the_rule.settings, by_the_script.settings = OFTEN, SELDOM
    return by_the_rule, by_the_script


TestHonestTabs, TestHonestTabsOnTheScript = both_ways(HonestTabs)
TestOneCallAfterAnother, TestOneCallAfterAnotherOnTheScript = both_ways(OneCallAfterAnother)
TestTheft, TestTheftOnTheScript = both_ways(Theft)
