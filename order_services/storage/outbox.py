"""Writes messages into the outbox, in the transaction of the change that causes them.

The relay publishes them (`relay.Relay`). COPY is the cheapest way in: half of what any INSERT costs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import orjson
import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from order_services.domain.events import Event, Headers

_COPY: Final = "COPY outbox (slice, topic, key, value, headers) FROM STDIN WITH (FORMAT binary)"
# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER: Final = struct.pack("!h", -1)
_FIELD_COUNT: Final = struct.pack("!h", 5)
_NULL: Final = struct.pack("!i", -1)
_length = struct.Struct("!i").pack


class Message(NamedTuple):
    """One message to publish.

    Headers are texts by name, or what orjson writes as one; or pairs of name and bytes, of which names
    may come more than once.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str | datetime] | Headers = ()


def write(connection: Connection, source: str, events: Iterable[Event]) -> int:
    """Write events into the outbox slice of the service `source`; returns how many.

    They are published, in this order for each order id, once the caller's transaction commits.
    """
    return write_messages(
        connection,
        source,
        [
            Message(event.topic, event.key(), event.encode(), event.header_fields())
            for event in events
        ],
    )


def write_messages(connection: Connection, source: str, messages: Iterable[Message]) -> int:
    """Write messages of any content, as dead letters are; see `write`."""
    slice_field = _field(source.encode())
    parts = [_HEADER]
    count = 0
    begin_of_topic: dict[str, bytes] = {}
    for topic, key, value, headers in messages:
        count += 1
        begin = begin_of_topic.get(topic)
        if begin is None:
            begin = begin_of_topic[topic] = _FIELD_COUNT + slice_field + _field(topic.encode())
        parts += (begin, _field(key), _field(value), _field(encode_headers(headers)))
    if count:
        parts.append(_TRAILER)
        _copy(connection, b"".join(parts))
    return count


def decode_headers(text: str) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a row, as the Kafka client takes them."""
    stored: dict[str, str] | list[tuple[str, str | None]] = orjson.loads(text)
    if isinstance(stored, dict):
        return list(stored.items())
    return [(name, None if value is None else value.encode("latin-1")) for name, value in stored]


def encode_headers(headers: Mapping[str, str | datetime] | Headers) -> bytes:
    """Return headers as a row keeps them."""
    if not isinstance(headers, Sequence):
        return orjson.dumps(headers)
    # Latin-1 has a character for each byte, and JSON a form for each character
    return orjson.dumps(
        [(name, None if value is None else value.decode("latin-1")) for name, value in headers]
    )


def _copy(connection: Connection, data: bytes) -> None:
    cursor = connection.connection.cursor()
    try:
        cursor.copy_expert(_COPY, io.BytesIO(data))
    except psycopg2.Error as error:
        # as SQLAlchemy reports errors of what it runs itself: callers know only those
        raise DBAPIError.instance(_COPY, None, error, psycopg2.Error) from error
    finally:
        cursor.close()


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else _length(len(value)) + value
