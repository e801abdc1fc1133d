"""What a reply is: an answer, a refusal that will pass, a mistake of ours, or nothing that anybody could rely on."""

import re
from enum import Enum
from typing import Any

from redis.exceptions import AskError, ResponseError, TryAgainError

from service.errors import StoreUnavailable

_PASSING = re.compile(
    r"\b(READONLY|LOADING|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|WRONGPASS|NOPERM"
    r"|MOVED|ASK)\b"
)


class Lost(Enum):
    """What stands for a reply that did not come, where there may be none."""

    LOST = "lost"


LOST = Lost.LOST


def passing(reply: Any) -> str | None:
    """The word for a refusal that will pass; `None` for an answer, and for a mistake of ours."""
    if not isinstance(reply, ResponseError):
        return None
    if isinstance(reply, AskError):
        return "MOVED"  # by a Cluster that is not known as one, or that sends in a circle
    # The library cuts the codes it knows off the text; in a script's error the code may stand in the middle.
    passing = _PASSING.search(f"{reply.status_code} {reply}")
    return passing[1] if passing else None


def if_any(reply: Any) -> Any:
    """The reply where there may be none."""
    return LOST if isinstance(reply, Exception) else reply


def redirected(reply: Any) -> bool:
    """Whether a server of a Cluster has sent the command on to another."""
    return isinstance(reply, AskError | TryAgainError)


def unavailable(cause: Exception) -> StoreUnavailable:
    """What is told of a failure of Redis."""
    if isinstance(cause, StoreUnavailable):
        return cause
    error = StoreUnavailable()
    error.__cause__ = cause
    return error
