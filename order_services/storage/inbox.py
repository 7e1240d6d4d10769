"""Remembers which events a consumer group has handled, in the transaction that handles them.

It is the first line against an event that is delivered twice, be it by Kafka after a rebalance or by
a relay that died between publishing and deleting. The second line are the services' own tables, in
which every effect has a key of its own and every fact only moves forward: they hold also for what is
older than the inbox, so that its retention is a matter of economy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from order_services.domain.events import Event
from order_services.storage.database import array
from order_services.storage.rings import INBOX

# in the order of ids, so that two consumers with the same messages wait but never deadlock
_INSERT: Final = """
    INSERT INTO inbox_events (event_id, consumer_group, slot)
    SELECT event_id, %s, slot
    FROM unnest(%s::uuid[], %s::smallint[]) AS given(event_id, slot)
    ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id::text
"""
_slot_at = INBOX.slot_at


def admit(connection: Connection, group_id: str, events: Sequence[Event]) -> list[Event]:
    """Return the events that the group has not handled yet, each once, and mark them handled."""
    if not events:
        return []
    ids = array([event.event_id for event in events])
    slots = array([str(_slot_at(event.timestamp)) for event in events])
    rows = connection.exec_driver_sql(_INSERT, (group_id, ids, slots))
    new = set(rows.scalars().all())
    if len(new) == len(events):
        return list(events)
    admitted = []
    for event in events:
        if event.event_id in new:
            new.remove(event.event_id)  # the same event may be in the batch twice
            admitted.append(event)
    return admitted
