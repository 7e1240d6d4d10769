"""Follows what payment, inventory and shipping report, and cancels what cannot be fulfilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from order_services.domain.events import Event, EventType
from order_services.domain.facts import (
    FACT_OF,
    Fact,
    InventoryFact,
    PaymentFact,
    ShipmentFact,
    further,
)
from order_services.gateway.accepting import SERVICE
from order_services.storage.database import array
from order_services.storage.decisions import (
    REASON_INVENTORY_FAILED,
    REASON_PAYMENT_FAILED,
    CancelRequest,
    cancel,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

HANDLES: Final = frozenset(FACT_OF)

_REASON_OF: Final = {
    EventType.PAYMENT_FAILED: REASON_PAYMENT_FAILED,
    EventType.INVENTORY_FAILED: REASON_INVENTORY_FAILED,
}
_COLUMN_OF: Final = {
    PaymentFact: "payment_fact",
    InventoryFact: "inventory_fact",
    ShipmentFact: "shipment_fact",
}

_APPEND: Final = """
    INSERT INTO order_events
        (order_id, event_id, event_type, event_time, source, correlation_id, payload)
    SELECT * FROM json_to_recordset(%s::json) AS appended(
        order_id uuid, event_id uuid, event_type text, event_time timestamptz, source text,
        correlation_id text, payload jsonb)
    ON CONFLICT DO NOTHING
"""
# Events of one order come in three topics and so to three replicas at once: all of them lock the
# orders of a batch in the same order, or they would wait for each other in a circle.
_LOCK: Final = """
    SELECT order_id FROM orders WHERE order_id = ANY(%s::uuid[])
    ORDER BY order_id FOR NO KEY UPDATE
"""
_ADVANCE: Final = """
    UPDATE orders SET
        payment_fact = greatest(orders.payment_fact, reported.payment_fact),
        inventory_fact = greatest(orders.inventory_fact, reported.inventory_fact),
        shipment_fact = greatest(orders.shipment_fact, reported.shipment_fact),
        updated_at = now()
    FROM json_to_recordset(%s::json) AS reported(
        order_id uuid, payment_fact payment_fact, inventory_fact inventory_fact,
        shipment_fact shipment_fact)
    WHERE orders.order_id = reported.order_id
      AND (reported.payment_fact > orders.payment_fact
           OR reported.inventory_fact > orders.inventory_fact
           OR reported.shipment_fact > orders.shipment_fact)
"""


def follow(events: Sequence[Event], connection: Connection) -> Sequence[Event]:
    """Note the events, move the facts of their orders forward; return the cancellations."""
    failures = [
        CancelRequest(
            event.order_id, _REASON_OF[event.event_type], event.correlation_id, event.traceparent
        )
        for event in events
        if event.event_type in _REASON_OF
    ]
    # decisions before orders, as a customer's cancel does it: the same order of locks
    cancelled = cancel(connection, failures, SERVICE).events if failures else []
    advance(connection, [*events, *cancelled])
    return cancelled


def advance(connection: Connection, events: Sequence[Event]) -> None:
    """Append events to the history of their orders and move the facts forward, never back."""
    if not events:
        return
    connection.exec_driver_sql(_APPEND, (_json(_history_row(event) for event in events),))
    reported = reported_facts(events)
    if reported:
        # the answer is read to its end: rows are locked as they are fetched
        ids = array(reported)
        connection.exec_driver_sql(_LOCK, (ids,)).all()
        rows = ({"order_id": order_id, **facts} for order_id, facts in reported.items())
        connection.exec_driver_sql(_ADVANCE, (_json(rows),))


def reported_facts(
    events: Iterable[Event],
) -> dict[str, dict[str, Fact]]:
    """Return for each order the furthest that the events say about each of its facts."""
    reported: dict[str, dict[str, Fact]] = {}
    for event in events:
        fact = (
            ShipmentFact.CANCELLED
            if event.event_type is EventType.ORDER_CANCELLED
            else FACT_OF[event.event_type]
        )
        facts = reported.setdefault(event.order_id, {})
        column = _COLUMN_OF[type(fact)]
        facts[column] = further(fact, facts.get(column, fact))
    return reported


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


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()
