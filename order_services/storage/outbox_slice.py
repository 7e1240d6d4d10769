"""What a relay does with the outbox slice of its service: locks it, reads it, and takes out what is done."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import Connection

from order_services.storage.database import array

LOCK_CLASS: Final = 0x6F75_7462  # the first key of the advisory locks on slices
# Counting more than this costs more than it tells.
DEPTH_COUNTED: Final = 100_000

# A cycle's commit need not wait for the disk: should PostgreSQL lose it, what was deleted is there again,
# and is published again.
_TRY_LOCK: Final = """
    SELECT pg_try_advisory_xact_lock(%s, hashtext(%s)),
        set_config('synchronous_commit', 'off', true)
"""
_COLUMNS: Final = """
    SELECT id, topic, key, value, headers,
        extract(epoch FROM statement_timestamp() - created_at)::float8
    FROM outbox WHERE slice = %s
"""
_READ: Final = _COLUMNS + "ORDER BY id LIMIT %s"
_READ_THESE: Final = _COLUMNS + "AND id = ANY(%s::bigint[]) ORDER BY id"
_SET_ASIDE: Final = """
    INSERT INTO outbox_refused (id, slice, topic, key, value, headers, created_at, reason)
    SELECT id, slice, topic, key, value, headers, created_at, %s
    FROM outbox WHERE slice = %s AND id = %s
"""
_DELETE: Final = "DELETE FROM outbox WHERE slice = %s AND id = ANY(%s::bigint[])"
_DEPTH: Final = """
    SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
    FROM (SELECT created_at FROM outbox WHERE slice = %s ORDER BY id LIMIT %s) AS waiting
"""


class Row(NamedTuple):
    """A row of the outbox; `age_seconds` when it was read, at `read_at` of `time.perf_counter`."""

    row_id: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: str
    age_seconds: float
    read_at: float


class OutboxSlice:
    """The messages that the service `source` has written; each method runs in the caller's transaction."""

    def __init__(self, source: str) -> None:
        self._source = source

    def try_lock(self, connection: Connection) -> bool:
        """Take the slice until the transaction ends; False when another relay has it."""
        answer = connection.exec_driver_sql(_TRY_LOCK, (LOCK_CLASS, self._source))
        return bool(answer.scalar_one())

    def first(self, connection: Connection, limit: int) -> list[Row]:
        """Return the rows of the lowest ids."""
        return self._rows(connection, _READ, limit)

    def these(self, connection: Connection, row_ids: Iterable[int]) -> list[Row]:
        """Return those of these rows that are there, by id."""
        ids = array(map(str, row_ids))
        return [] if ids == "{}" else self._rows(connection, _READ_THESE, ids)

    def set_aside(self, connection: Connection, row_id: int, reason: str) -> None:
        """Move a row to `outbox_refused`."""
        connection.exec_driver_sql(_SET_ASIDE, (reason, self._source, row_id))
        self.delete(connection, [row_id])

    def delete(self, connection: Connection, row_ids: Iterable[int]) -> None:
        """Take rows out: Kafka has them."""
        ids = array(map(str, row_ids))
        if ids != "{}":
            connection.exec_driver_sql(_DELETE, (self._source, ids))

    def depth(self, connection: Connection) -> tuple[int, float]:
        """Return how many rows wait, `DEPTH_COUNTED` at most, and the age of the oldest in seconds."""
        count, oldest_seconds = connection.exec_driver_sql(
            _DEPTH, (self._source, DEPTH_COUNTED)
        ).one()
        return count, oldest_seconds

    def _rows(self, connection: Connection, statement: str, which: int | str) -> list[Row]:
        read_at = time.perf_counter()
        return [
            Row(
                row_id,
                topic,
                None if key is None else bytes(key),
                None if value is None else bytes(value),
                headers,
                age_seconds,
                read_at,
            )
            for row_id, topic, key, value, headers, age_seconds in connection.exec_driver_sql(
                statement, (self._source, which)
            )
        ]
