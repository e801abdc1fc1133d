"""What Redis has said and has promised to tell us of, should it change: client tracking (`REVOCATION=tracked`).

A reply is kept with the shared connection that it came on. On the same connection Redis tells that its key has changed,
after the reply and in order, and then it is forgotten. It is not believed any more

- when the connection is lost, retired or left, for whatever reason: a new one knows nothing of the old promises;
- while Redis has not answered something on it that we asked within the last two seconds. Whatever changed before that
  question had been told before its answer, so nothing that is older than `TRUSTED` is ever passed over: not while Redis
  stands still, not while a cable is pulled, not while this process itself was stopped or its machine suspended;
- when this instance itself has written to the key, from the moment it knows;
- when the slots of a Cluster have moved, or a server refuses to answer for a key that was read there.
"""

from collections import OrderedDict
from typing import Any, Protocol

from service.store.commands import Command, key_of

TRUSTED = 2.0  # seconds
BEAT = 0.5  # seconds between two questions whose answers show that the connection is alive
MOST = 10_000  # keys
_MOST_OF_A_KEY = 200  # replies
_MOST_CHANGES = 10_000


class Source(Protocol):
    """A connection on which Redis tells of changes."""

    @property
    def current(self) -> bool:
        """Whether all that changed up to `TRUSTED` seconds ago has been told on it."""
        ...


class Memory:
    """Replies to reads, by key and command."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[str, dict[Command, tuple[Source, Any]]] = {}
        self._changes = 0
        self._changed: OrderedDict[str, int] = OrderedDict()  # the latest own changes
        self._floor = 0  # the number of the latest that is not among them any more

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, command: Command) -> Any:
        """The reply if it is still true; `None` if that is not known."""
        if (replies := self._kept.get(command[1])) and (found := replies.get(command)) and found[0].current:
            return found[1]
        return None

    @property
    def changes(self) -> int:
        """To be noted before a command is sent whose reply shall be kept."""
        return self._changes

    def keep(self, command: Command, reply: Any, source: Source, noted: int) -> None:
        """Keep a reply, unless this instance has changed the key since `noted`: it may tell of the time before."""
        key = key_of(command)
        if self._changed.get(key, self._floor) > noted:
            return
        if (replies := self._kept.get(key)) is None:
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            replies = self._kept[key] = {}
        elif len(replies) >= _MOST_OF_A_KEY:
            replies.clear()
        replies[command] = source, reply

    def forget(self, key: str) -> None:
        """Redis says that the key has changed."""
        self._kept.pop(key, None)

    def wrote(self, key: str) -> None:
        """This instance has changed the key. What is on its way to us may be older."""
        self._kept.pop(key, None)
        self._changes += 1
        self._changed[key] = self._changes
        self._changed.move_to_end(key)
        if len(self._changed) > _MOST_CHANGES:
            _, self._floor = self._changed.popitem(last=False)

    def clear(self) -> None:
        """Nothing is known any more, and nothing that is on its way to us."""
        self._kept.clear()
        self._changed.clear()
        self._changes += 1
        self._floor = self._changes
