"""Rows that a database does not take cost only themselves.

Kafka takes any group id: one with a NUL, of 30,000 characters, or in a script that the database's
encoding lacks. PostgreSQL refuses such a text, and with it the statement that has everybody's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError

from monitor.words import safe, shorten

R = TypeVar("R")

_log = structlog.get_logger(__name__)

# An id that is refused is remembered, or all rows would be tried again by halves at each poll. Somebody
# who makes up ids without end must not fill the memory with them.
MAX_REMEMBERED: Final = 1_000
MAX_SHOWN: Final = 80
# PostgreSQL's class "program limit exceeded": the row of an index is too long, among others.
_TOO_LARGE: Final = "54"


class Key(NamedTuple):
    """What a row is about: a group or topic of a cluster."""

    cluster: str
    kind: str
    name: str


class NotTaken:
    """What a database took no rows of."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def put(
        self,
        engine: Engine,
        rows: Iterable[R],
        key_of: Callable[[R], Key],
        put: Callable[[Connection, Sequence[R]], None],
    ) -> None:
        """Have `put` write the rows in one transaction, without those that the database does not take.

        Which these are is told in the log, of each group or topic once. Raises what `put` raises for
        any other reason.
        """
        rows = [row for row in rows if key_of(row) not in self._keys]
        try:
            with engine.begin() as connection:
                put(connection, rows)
        except Exception as error:
            if not is_of_a_value(error):
                raise
        else:
            return
        self._remember((key_of(row), error) for row, error in _refused(engine, rows, put))
        rows = [row for row in rows if key_of(row) not in self._keys]
        with engine.begin() as connection:
            put(connection, rows)

    def _remember(self, refused: Iterable[tuple[Key, Exception]]) -> None:
        found = list(refused)
        if len(self._keys) + len(found) > MAX_REMEMBERED:
            self._keys.clear()
        for key, error in found:
            if key in self._keys:
                continue
            self._keys.add(key)
            _log.warning(
                f"a {key.kind} is not in the history: the database takes no row of it",
                cluster=key.cluster,
                name=shorten(safe(key.name), MAX_SHOWN),
                cause=kind_of(error),
            )


def is_of_a_value(error: Exception) -> bool:
    """Say whether a database refused what it was given, and not the statement, or to work at all."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "pgcode", None) or ""
        return isinstance(error, DataError) or state.startswith(_TOO_LARGE)
    # drivers refuse some by themselves: a NUL, half of a pair of surrogates, a number of 65 bits
    return isinstance(error, (ValueError, OverflowError))


def kind_of(error: Exception) -> str:
    """Return what kind of fault it is by the driver's name for it, which holds nothing that was written."""
    return type(getattr(error, "orig", None) or error).__name__


def _refused(
    engine: Engine, rows: Sequence[R], put: Callable[[Connection, Sequence[R]], None]
) -> Iterator[tuple[R, Exception]]:
    """Yield the rows that are not taken by themselves; nothing is written. Raises what no row causes."""
    try:
        # what is not committed is rolled back as the connection is given back
        with engine.connect() as connection:
            put(connection, rows)
    except Exception as error:
        if not rows or not is_of_a_value(error):
            raise
        if len(rows) == 1:
            with engine.connect() as connection:
                put(connection, [])  # raises where it is not the row's fault
            yield rows[0], error
            return
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            yield from _refused(engine, part, put)
