"""How the process asks the system for memory, and when it looks for garbage."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
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
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, 1)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, None where the C library is another."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Have what is imported meanwhile do without these packages, as if they were not installed."""
    loaded = {name: sys.modules.pop(name) for name in packages if name in sys.modules}
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]  # None: it is not there
    try:
        yield
    finally:
        for name in packages:
            del sys.modules[name]
        sys.modules.update(loaded)


def unopened(package: str) -> None:
    """Have a package be there without what it begins with: its modules are imported one by one.

    Of no use to who wants a name that the package itself has.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(package, name=package)
    sys.modules[package] = module_from_spec(spec)


class GarbageCollection:
    """Spares polls the collector's passes over what they allocate: those were a third of their time.

    A poll makes hundreds of thousands of objects and next to no cycles. What is there at its end
    is set apart, or the collector would go through it as soon as it is let loose: 7 of a poll's
    180 ms. Cycles that were set apart so are collected every hundredth poll. What the C library keeps of a
    poll goes back to the system: 2 of 117 MB, in 0.4 ms.
    """

    def __init__(self) -> None:
        self._polls = 0
        self._trim = _of_c_library("malloc_trim")

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
            if self._trim is not None:
                self._trim(0)
