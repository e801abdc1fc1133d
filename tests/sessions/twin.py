"""`rotate.lua` by itself, so that it can be held against its twin, `rule.py`."""

from pathlib import Path

import redis

from service.sessions import rule
from service.sessions.rule import Lineage, Verdict
from service.store import Script

ROTATE = Script(Path(rule.__file__).with_name("rotate.lua"))
KEY, SID = "sessions:{AdaAdaAdaAdaAdaAdaAdaA}", "sid"
YEARS = 10 * 365 * 86_400_000  # ms; no session of these tests ends by its age


class Twin:
    """One session in a Redis, whose lineage can be set and read."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._redis.script_load(ROTATE.text)

    def now(self) -> int:
        seconds, microseconds = self._redis.time()
        return seconds * 1000 + microseconds // 1000

    def put(self, lineage: Lineage) -> None:
        now = self.now()
        recent = "".join(f",{generation}@{at}" for generation, at in lineage.recent)
        self._redis.delete(KEY)
        self._redis.hset(KEY, SID, f"{lineage.issued}{recent} {now + YEARS} {now} pwd 192.0.2.7 curl/8")

    def lineage(self) -> Lineage | None:
        """What is stored, `None` when the session is over."""
        if (stored := self._redis.hget(KEY, SID)) is None:
            return None
        first, _, _, _, device = stored.split(" ", 4)
        assert device == "192.0.2.7 curl/8"
        issued, *recent = first.split(",")
        entries = (entry.split("@") for entry in recent)
        return Lineage(int(issued), tuple((int(generation), int(at)) for generation, at in entries))

    def present(self, generation: int, leeway: int, recovery: bool = True) -> tuple[Verdict, int, int]:
        """The verdict, the generation handed out, and when."""
        command = ROTATE(KEY, SID, generation, leeway, int(recovery), YEARS, YEARS, YEARS)
        verdict, handed_out, now, *_ = self._redis.execute_command(*command)
        return Verdict(verdict), int(handed_out), int(now)
