"""Replays: a refresh token that came back out of the ordinary, and who is likely to have sent it.

The client is compared with the one that signed in: by its user agent, without the numbers in it, for a browser that has
been updated is the same client, and by its network. It is a hint for whoever looks into it, and decides nothing: a
thief can send any user agent, and a phone changes its network.

    what came back               client   network   looks like
    reuse                        same     same      a broken client: one that kept an old token
    reuse or recovered           other    other     theft
    recovered, three times over  same     any       a broken client: one that never keeps its new token
    healed                       any      any       nothing: Redis had lost a rotation
    any other                                       nothing
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from service.client import Client
from service.sessions.rule import Verdict

_NEVER_LEARNS = 3  # times that one token is recovered; a bad network loses an answer or two in a row
_NUMBERS = re.compile(r"\d+")


class Looks(StrEnum):
    """What a replay looks like."""

    BROKEN_CLIENT = "broken client"
    THEFT = "theft"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Replay:
    """A token that came back, from one client to the session that another, or the same, had begun."""

    verdict: Verdict
    came: Client
    began: Client
    times: int = 1  # that this token has been recovered

    @property
    def same_client(self) -> bool:
        return _unnumbered(self.came.user_agent) == _unnumbered(self.began.user_agent)

    @property
    def same_network(self) -> bool:
        return self.came.network == self.began.network

    @property
    def looks_like(self) -> Looks:
        if self.verdict is Verdict.HEALED:
            return Looks.UNCLEAR
        if not self.same_client and not self.same_network:
            return Looks.THEFT
        if self.verdict is Verdict.REUSE and self.same_client and self.same_network:
            return Looks.BROKEN_CLIENT
        if self.verdict is Verdict.RECOVERED and self.same_client and self.times >= _NEVER_LEARNS:
            return Looks.BROKEN_CLIENT
        return Looks.UNCLEAR

    @property
    def facts(self) -> dict[str, bool | str | None]:
        """What the trail tells besides who sent it."""
        return {
            "same_client": self.same_client,
            "same_network": self.same_network,
            "looks_like": None if self.looks_like is Looks.UNCLEAR else self.looks_like.value,
            "session_user_agent": self.began.user_agent,
        }


def _unnumbered(user_agent: str) -> str:
    return _NUMBERS.sub("0", user_agent)
