"""Files in which workers count together, on a disk that may be full.

A file is written through memory. The library leaves it to the system to find blocks for that when it is too late to
refuse: on a full disk the process is killed (SIGBUS), and so is each that takes its place. So blocks are taken first.
What finds none is counted by its process alone, and written as soon as there is room.
"""

import os
from contextlib import suppress
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

_SMALLEST = 1 << 16  # bytes that a file begins with, as the library has it
_FRAME = 32  # bytes at most that an entry takes beside its key


class CountFile(MmapedDict):
    """One kind of one worker's counts."""

    def __init__(self, filename: str) -> None:
        self._name = filename
        self._f: Any = None  # while there is no room for it
        self._positions: dict[str, int] = {}
        self._open()

    def read_value(self, key: str) -> tuple[float, float]:
        """A value and its time; what has no room yet begins at 0."""
        return super().read_value(key) if self._has(key) else (0.0, 0.0)  # type: ignore[no-untyped-call]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if key in self._positions or self._has(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def _open(self) -> None:
        try:
            with open(self._name, "ab") as file:
                _take(file.fileno(), _SMALLEST)
            super().__init__(self._name)  # type: ignore[no-untyped-call]
        except OSError:
            self._f = None
            with suppress(OSError):
                os.unlink(self._name)  # an empty one could not be read

    def _has(self, key: str) -> bool:
        """Whether there is an entry for this key, or room for one."""
        if self._f is None:
            self._open()
        if self._f is None or key in self._positions:
            return self._f is not None
        if self._used + len(key.encode()) + _FRAME > self._capacity:
            try:
                _take(self._f.fileno(), self._capacity * 2)
            except OSError:
                return False
        return True


def _take(file: int, size: int) -> None:
    """Let the file have so many bytes, and a place on the disk for each; raises `OSError`, and it is as it was."""
    before = os.fstat(file).st_size
    try:
        while (missing := size - os.fstat(file).st_size) > 0:
            os.write(file, bytes(missing))
    except OSError:
        os.ftruncate(file, before)
        raise


def value_class(worker: int) -> Any:
    """What the library keeps each number in, of the worker with this number."""
    setattr(values, MmapedDict.__name__, CountFile)  # it has no other way to be told
    return values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
