"""How long anybody waits for Redis: a request 2 s in all, however many calls it makes."""

import contextvars
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.store.node import ANSWER

PATIENCE = 2.0  # seconds


@dataclass
class Patience:
    """What is left of the time that one request may wait for Redis, in seconds."""

    seconds: float


LEFT: contextvars.ContextVar[Patience | None] = contextvars.ContextVar("left", default=None)


def be_patient() -> None:
    """All Redis calls of this context share one allowance of waiting."""
    LEFT.set(Patience(PATIENCE))


@contextmanager
def patience() -> Iterator[None]:
    """All Redis calls in this block share one allowance of waiting."""
    token = LEFT.set(Patience(PATIENCE))
    try:
        yield
    finally:
        LEFT.reset(token)


@contextmanager
def waiting() -> Iterator[float]:
    """Until when (monotonic, in seconds) this call may wait; what it has waited is taken off the allowance."""
    left, began = LEFT.get(), time.monotonic()
    try:
        yield began + (2 * ANSWER if left is None else left.seconds)
    finally:
        if left is not None:
            left.seconds -= time.monotonic() - began
