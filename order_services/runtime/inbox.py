"""Remembers which events a consumer group has handled, in the transaction that handles them.

It is the first line against an event that is delivered twice, be it by Kafka after a rebalance or by
a relay that died between publishing and deleting. The second line are the services' own tables, in
which every fact only moves forward: they hold also for what is older than the inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from sqlalchemy import Connection

from order_services.events import Event

# in the order of ids, so that two consumers with the same messages wait but never deadlock
_INSERT: Final = """
    INSERT INTO inbox (event_time, event_id, consumer_group)
    SELECT event_time, event_id, %s
    FROM unnest(%s::timestamptz[], %s::uuid[]) AS given(event_time, event_id)
    ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id::text
"""


def admit(connection: Connection, group_id: str, events: Sequence[Event]) -> list[Event]:
    """Return the events that the group has not handled yet, each once, and mark them handled."""
    if not events:
        return []
    # a JSON list is an array literal but for its brackets, and the quickest way to write times
    times = "{" + orjson.dumps([event.timestamp for event in events])[1:-1].decode() + "}"
    ids = "{" + ",".join([event.event_id for event in events]) + "}"
    rows = connection.exec_driver_sql(_INSERT, (group_id, times, ids))
    new = set(rows.scalars().all())
    if len(new) == len(events):
        return list(events)
    admitted = []
    for event in events:
        if event.event_id in new:
            new.remove(event.event_id)  # the same event may be in the batch twice
            admitted.append(event)
    return admitted
