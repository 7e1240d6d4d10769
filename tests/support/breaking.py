"""Makes functions of a package raise, one after the other: those that a piece of work really runs."""

from __future__ import annotations

import gc
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any


class Functions:
    """The functions of a folder that are run while `seen` is entered, on any thread made meanwhile."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._run: set[CodeType] = set()

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Note what is run meanwhile."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def by_name(self) -> dict[str, FunctionType]:
        """Return them by qualified name, but for those that another makes anew at each call.

        Left out, too, are methods that call `super()`: they are tied to their class.
        """
        gc.unfreeze()  # what a poller of another test has frozen is not among the objects
        return {
            each.__qualname__: each
            for each in gc.get_objects()
            # isinstance() would ask a weak proxy for the class of what it stands for, which may be gone
            if type(each) is FunctionType
            and each.__code__ in self._run
            and "<locals>" not in each.__qualname__
            and not each.__code__.co_freevars
        }

    def _note(self, frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self._folder):
            self._run.add(frame.f_code)


@contextmanager
def broken(function: FunctionType) -> Iterator[None]:
    """Have a function raise ZeroDivisionError, wherever it is known by then."""

    def raises(*_: object, **__: object) -> None:
        raise ZeroDivisionError  # built in: the function looks in its own module

    async def raises_later(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    right = function.__code__
    wrong = raises_later if inspect.iscoroutinefunction(function) else raises
    function.__code__ = wrong.__code__.replace(co_name=right.co_name, co_filename=right.co_filename)
    try:
        yield
    finally:
        function.__code__ = right
