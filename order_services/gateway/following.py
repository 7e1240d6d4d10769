"""Follows what payment, inventory and shipping report, and cancels what cannot be fulfilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from order_services.domain.events import Event, EventType
from order_services.domain.facts import FACT_OF
from order_services.gateway.accepting import SOURCE
from order_services.messaging.batch import Effects
from order_services.storage.decisions import (
    REASON_INVENTORY_FAILED,
    REASON_PAYMENT_FAILED,
    CancelRequest,
    cancel,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

HANDLES: Final = frozenset(FACT_OF)

_REASON_OF: Final = {
    EventType.PAYMENT_FAILED: REASON_PAYMENT_FAILED,
    EventType.INVENTORY_FAILED: REASON_INVENTORY_FAILED,
}

# In the order of their key: what two replicas append at once, after a rebalance, they append in the
# same order, or they would wait for each other in a circle.
_APPEND: Final = """
    INSERT INTO order_events
        (order_id, event_id, event_type, event_time, source, correlation_id, payload)
    SELECT * FROM json_to_recordset(%s::json) AS appended(
        order_id uuid, event_id uuid, event_type text, event_time timestamptz, source text,
        correlation_id text, payload jsonb)
    ORDER BY order_id, event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id::text
"""


def follow(events: Sequence[Event], connection: Connection) -> Effects:
    """Append the events to the history of their orders, and cancel what cannot be fulfilled."""
    new = append(connection, events)
    failures = [
        CancelRequest(
            event.order_id, _REASON_OF[event.event_type], event.correlation_id, event.traceparent
        )
        for event in events
        if event.event_type in _REASON_OF and event.event_id in new
    ]
    cancelled = cancel(connection, failures, SOURCE).events if failures else []
    append(connection, cancelled)
    return Effects(cancelled, repeated={event.event_id for event in events} - new)


def append(connection: Connection, events: Sequence[Event]) -> set[str]:
    """Append events to the history of their orders; returns the ids of those that were not in it."""
    if not events:
        return set()
    rows = orjson.dumps([_history_row(event) for event in events]).decode()
    return set(connection.exec_driver_sql(_APPEND, (rows,)).scalars())


def _history_row(event: Event) -> dict[str, Any]:
    return {
        "order_id": event.order_id,
        "event_id": event.event_id,
        "event_type": event.event_type,
        "event_time": event.timestamp,
        "source": event.source,
        "correlation_id": event.correlation_id,
        "payload": event.payload,
    }
