"""A stolen refresh token: what thief and owner can do, explored to the end on the pure rule.

Whatever generation neither is remembered nor the latest is dead for good. So generations can be renamed by their
place in the lineage and ages capped just above the leeway, and everything that two parties could ever do becomes a
few hundred states: the claims below hold for runs of any length, not for the ones somebody thought of.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from service.sessions.rule import Lineage, Verdict, judge

LEEWAY = 2  # in ticks of one exploration
LATE = LEEWAY + 1
DEAD = -1
_LONG_AGO = LATE


@dataclass(frozen=True)
class World:
    """A session, the one generation in the owner's jar, and every generation that the thief has ever held."""

    lineage: Lineage
    jar: int
    loot: frozenset[int]

    def present(
        self, by: str, generation: int, after: int, recovery: bool = True, lost: bool = False
    ) -> "World | None":
        """The world after a party has presented a generation, `None` when that ended the session."""
        verdict, lineage = judge(self.lineage, generation, after, LEEWAY, recovery)
        if verdict is Verdict.REUSE:
            return None
        jar, loot = self.jar, self.loot
        if by == "thief":
            loot |= {lineage.issued}
        elif not lost:
            jar = lineage.issued
        return World(lineage, jar, loot)._renamed(after)

    def choices(self, by: str) -> Iterator[int]:
        """What a party can present. The owner has a jar; the thief may use anything that is not dead."""
        if by == "thief":
            yield from self.loot
        elif self.jar != DEAD:
            yield self.jar

    def _renamed(self, now: int) -> "World":
        names = {generation: place for place, (generation, _) in enumerate(self.lineage.recent)}
        names[self.lineage.issued] = issued = len(names)
        recent = tuple((place, -min(now - at, LATE)) for place, (_, at) in enumerate(self.lineage.recent))
        loot = frozenset(names[generation] for generation in self.loot if generation in names)
        return World(Lineage(issued, recent), names.get(self.jar, DEAD), loot)


STOLEN = World(Lineage(1, ((0, -_LONG_AGO),)), jar=1, loot=frozenset({1}))


def longest(first: str, recovery: bool = True, losses: int = 0) -> tuple[int, int]:
    """The most presentations that succeed, and how many of their answers reach the owner, when the two take turns.

    Each comes later than the leeway; the thief chooses the best of all generations; the network loses `losses` of
    the owner's answers at the worst moments.
    """

    @cache
    def most(world: World, by: str, losses: int) -> tuple[int, int]:
        best, other = (0, 0), "owner" if by == "thief" else "thief"
        for generation in world.choices(by):
            for lost in (False, True) if by == "owner" and losses else (False,):
                if after := world.present(by, generation, LATE, recovery, lost):
                    succeeded, reached = most(after, other, losses - lost)
                    best = max(best, (succeeded + 1, reached + (by == "owner" and not lost)))
        return best

    return most(STOLEN, first, losses)


def test_taking_turns_the_third_change_of_hands_ends_the_session():
    assert longest("thief") == (3, 1)  # thief, owner, thief; then the owner finds out
    assert longest("owner") == (2, 1)  # owner, thief; then the owner finds out


def test_each_answer_that_the_owner_loses_buys_one_more_round_and_the_owner_still_gets_one_answer():
    assert [longest("thief", losses=losses) for losses in range(4)] == [(3, 1), (5, 1), (7, 1), (9, 1)]


def test_without_recovery_the_second_party_ends_the_session():
    assert longest("thief", recovery=False) == (1, 0)
    assert longest("owner", recovery=False) == (1, 1)


@dataclass(frozen=True)
class Watched:
    """A world with the memory of a witness: has the owner ever refreshed with no thief near, and what came then?"""

    world: World
    thief: int = LATE  # since the thief's last success, at most LATE
    alone: int | None = None  # since the owner's first success that no thief has been near yet
    since: str = ""  # "unaccompanied" once that has become certain, then "thief" when the thief succeeded after it

    def waited(self, ticks: int) -> "Watched":
        alone = None if self.alone is None else min(self.alone + ticks, LATE)
        since = "unaccompanied" if alone == LATE and not self.since else self.since
        return replace(self, thief=min(self.thief + ticks, LATE), alone=alone, since=since)

    def after(self, by: str, world: World) -> "Watched":
        if by == "owner":
            alone = 0 if self.thief > LEEWAY and self.alone is None else self.alone
            return replace(self, world=world, alone=alone)
        since = "thief" if self.since else ""
        return Watched(world, 0, None, since)


def test_once_the_owner_refreshes_with_no_thief_near_only_one_of_them_goes_on():
    """Near is within the leeway, before or after. All runs, whatever the pauses and the choices of the thief."""
    seen, ahead = set(), [Watched(STOLEN)]
    while ahead:
        watched = ahead.pop()
        if watched in seen:
            continue
        seen.add(watched)
        for pause in (1, LEEWAY, LATE):
            now = watched.waited(pause)
            for by in ("owner", "thief"):
                for generation in watched.world.choices(by):
                    if (world := watched.world.present(by, generation, pause)) is None:
                        continue
                    assert not (by == "owner" and now.since == "thief"), watched
                    ahead.append(now.after(by, world))
    assert len(seen) > 100


def test_a_thief_who_is_near_at_every_refresh_is_not_noticed():
    """The price of forgiving parallel tabs, told in the documentation."""
    world = STOLEN
    for _ in range(100):
        presented = world.jar
        world = world.present("owner", presented, LATE)
        # The generation that the owner has just used is the only one remembered.
        world = world.present("thief", 0, LEEWAY)
        assert world is not None
        assert world.jar in world.loot
