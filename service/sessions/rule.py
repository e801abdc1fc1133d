"""The rotation rule, as a pure function: what becomes of a session when a generation of its token is presented.

`rotate.lua` is its twin, which does the same inside Redis; a property test holds the two together.

A session knows `issued`, the latest generation handed out, and `recent`, the generations exchanged within one
leeway of the last exchange, each with its time: one entry normally, eight at most.

    generation presented                     verdict     what happens
    issued                                   rotated     issued + 1 is handed out; the presented one joins `recent`
    in recent, exchanged within the leeway   replayed    nothing; the current successor is given again
    in recent, longer ago                    recovered   the answer was lost: issued + 1 is handed out instead
    above issued                             healed      Redis lost a rotation in a failover: catch up
    any other                                reuse       two hold the same lineage: the session ends

Parallel tabs, retried requests and overtaken answers all replay. Whoever presents the generation that a recovery
skipped is, or is the victim of, a thief: that is reuse. All times are milliseconds of Redis' clock.
"""

from dataclasses import dataclass
from enum import StrEnum

REMEMBERED = 8


class Verdict(StrEnum):
    ROTATED = "rotated"
    REPLAYED = "replayed"
    RECOVERED = "recovered"
    HEALED = "healed"
    REUSE = "reuse"
    ENDED = "ended"


@dataclass(frozen=True)
class Lineage:
    """Which generations of a session's refresh token are out."""

    issued: int = 0
    recent: tuple[tuple[int, int], ...] = ()  # (generation, when it was exchanged), oldest first


def judge(lineage: Lineage, generation: int, now: int, leeway: int, recovery: bool = True) -> tuple[Verdict, Lineage]:
    """The verdict on a generation, and the lineage after it; on `reuse` the session is to end."""
    exchanged = dict(lineage.recent).get(generation)
    if generation == lineage.issued:
        return Verdict.ROTATED, _exchange(lineage, generation, generation + 1, now, leeway)
    if generation > lineage.issued:
        return Verdict.HEALED, _exchange(lineage, generation, generation + 1, now, leeway)
    if exchanged is None:
        return Verdict.REUSE, lineage
    if now - exchanged <= leeway:
        return Verdict.REPLAYED, lineage
    if not recovery:
        return Verdict.REUSE, lineage
    return Verdict.RECOVERED, _exchange(lineage, generation, lineage.issued + 1, now, leeway)


def _exchange(lineage: Lineage, generation: int, successor: int, now: int, leeway: int) -> Lineage:
    """Hand out a successor for a generation and forget the exchanges that are more than a leeway old."""
    kept = [(old, at) for old, at in lineage.recent if old != generation and now - at <= leeway]
    return Lineage(successor, tuple([*kept, (generation, now)][-REMEMBERED:]))
