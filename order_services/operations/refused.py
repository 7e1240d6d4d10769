"""Reads the messages that Kafka refused for good, and puts them back into the outbox.

The relay set them aside in `outbox_refused` (see `messaging.relay`): mostly messages too large for their
topic, which go through once somebody has raised its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from order_services.domain.events import Headers
from order_services.storage.outbox import decode_headers

_HEAPS: Final = """
    SELECT slice, topic, split_part(reason, ':', 1), count(*), min(refused_at), max(refused_at)
    FROM outbox_refused GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_FIND: Final = """
    SELECT id, slice, topic, key, value, headers, reason, created_at, refused_at
    FROM outbox_refused WHERE id = %s
"""
# Under new ids: an old one may be taken by another row of the same slice. One statement: a row is in
# exactly one of the two tables, whenever this dies.
_RETRY: Final = """
    WITH chosen AS (
        SELECT id FROM outbox_refused
        WHERE (%s::text IS NULL OR slice = %s) AND (%s::bigint[] IS NULL OR id = ANY(%s::bigint[]))
        ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM outbox_refused USING chosen WHERE outbox_refused.id = chosen.id
        RETURNING outbox_refused.id, slice, topic, key, value, headers
    )
    INSERT INTO outbox (slice, topic, key, value, headers)
    SELECT slice, topic, key, value, headers FROM taken ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class RefusedHeap:
    """What Kafka refused of one service and topic for one kind of reason."""

    slice: str
    topic: str
    reason: str
    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that Kafka refused, and why."""

    message_id: int
    slice: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str
    created_at: datetime
    refused_at: datetime


def heaps(connection: Connection) -> list[RefusedHeap]:
    """Return what there is, by service, topic and kind of reason."""
    return [RefusedHeap(*row) for row in connection.exec_driver_sql(_HEAPS)]


def find(connection: Connection, message_id: int) -> RefusedMessage | None:
    """Return one message, or None when it is not there (any more)."""
    row = connection.exec_driver_sql(_FIND, (message_id,)).one_or_none()
    if row is None:
        return None
    return RefusedMessage(
        row.id,
        row.slice,
        row.topic,
        None if row.key is None else bytes(row.key),
        None if row.value is None else bytes(row.value),
        [
            (name, value.encode() if isinstance(value, str) else value)
            for name, value in decode_headers(row.headers)
        ],
        row.reason,
        row.created_at,
        row.refused_at,
    )


def retry(
    connection: Connection,
    *,
    slice_: str | None = None,
    ids: Sequence[int] = (),
    limit: int | None = None,
) -> int:
    """Put messages back into the outbox, oldest first, and return how many; no filter means all.

    What Kafka still refuses the relay sets aside again.
    """
    wanted = list(ids) or None
    parameters = (slice_, slice_, wanted, wanted, limit)
    count: int = connection.exec_driver_sql(_RETRY, parameters).rowcount
    return count
