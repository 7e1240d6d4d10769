"""How the process asks the system for memory, and when it looks for garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# mallopt's names and numbers, as in glibc's malloc.h
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 128 * 1024
POLLS_PER_COLLECTION: Final = 100


def keep_heap_small() -> None:
    """Have the C library keep little of the memory that is freed.

    Large blocks go back to the system at once. It begins so, but the first large reply that is
    freed makes it keep ever larger ones in its heap, and in the holes between them memory that is
    used once a poll: at 172,000 samples 14 of 146 MB. And all threads share one heap, as each has
    holes of its own: 3 of 112 MB. Other C libraries than glibc have no such habits, and no such
    function.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(M_ARENA_MAX, 1)


class GarbageCollection:
    """Spares polls the collector's passes over what they allocate: those were a third of their time.

    A poll makes hundreds of thousands of objects and next to no cycles. What is there at its end
    is set apart, or the collector would go through it as soon as it is let loose: 7 of a poll's
    180 ms. Cycles that were set apart so are collected every hundredth poll.
    """

    def __init__(self) -> None:
        self._polls = 0

    @contextmanager
    def not_collected(self) -> Iterator[None]:
        """Collect no garbage meanwhile."""
        gc.disable()
        try:
            yield
        finally:
            self._polls += 1
            if self._polls % POLLS_PER_COLLECTION == 0:
                gc.unfreeze()
                gc.collect()
            gc.freeze()
            gc.enable()
