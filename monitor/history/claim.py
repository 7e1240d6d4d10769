"""A file of SQLite belongs to one monitor: two would write each other's rows, and go on from them."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from monitor.history.place import lock_of


class InUseError(ValueError):
    """Another monitor writes there."""


class Claim:
    """The lock on a file beside the database, which ends with the process, however that ends.

    Not on the database itself: SQLite's own locks go when any descriptor of it is closed.
    """

    def __init__(self, database: Path) -> None:
        self._file = lock_of(database)
        self._held: IO[str] | None = None

    def take(self) -> None:
        """Have it from now on; raises InUseError, and OSError where there can be no such file."""
        if self._held is not None:
            return
        held = self._file.open("a", encoding="utf-8")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held.close()
            if isinstance(error, BlockingIOError):
                raise InUseError("another monitor keeps its history there") from None
            raise
        self._held = held

    def release(self) -> None:
        """Let others have it."""
        if self._held is not None:
            self._held.close()
            self._held = None
