"""Joins what payment and inventory report, and creates a shipment when both hold.

The join lives in the database: either fact may come first, late, twice, or to another replica, and a
restart forgets nothing. Whoever brings the second fact sees both, because writing the same row makes
one wait for the other's commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType
from order_services.domain.facts import (
    FACT_OF,
    Fact,
    InventoryFact,
    PaymentFact,
    ShipmentFact,
    further,
)
from order_services.messaging import transitions
from order_services.messaging.batch import Effects
from order_services.storage.database import array

SOURCE: Final = "shipping"

_COLUMN_OF: Final[Mapping[type[Fact], str]] = {
    PaymentFact: "payment_fact",
    InventoryFact: "inventory_fact",
}
HANDLES: Final = frozenset(
    event_type
    for event_type, fact in FACT_OF.items()
    if type(fact) in _COLUMN_OF and fact is not PaymentFact.PROCESSING
)

# greatest: a fact only moves forward. Orders of which no fact has moved are not returned. The fact that
# was lacking creates the shipment in the same statement: another one would write each row once more.
_MERGE: Final = """
    INSERT INTO shipments AS shipment
        (order_id, payment_fact, inventory_fact, fact, due_at, tracking_number,
         correlation_id, traceparent, accepted_at)
    SELECT order_id, payment_fact, inventory_fact,
        CASE WHEN both_hold THEN 'created'::shipment_fact ELSE 'pending' END,
        CASE WHEN both_hold THEN now() + make_interval(secs => %(delay)s) END,
        'TRK-' || upper(right(replace(order_id::text, '-', ''), 16)),
        correlation_id, traceparent, accepted_at
    FROM json_to_recordset(%(reported)s::json) AS reported(
        order_id uuid, payment_fact payment_fact, inventory_fact inventory_fact,
        correlation_id text, traceparent text, accepted_at timestamptz)
    CROSS JOIN LATERAL (
        SELECT payment_fact = 'processed' AND inventory_fact = 'reserved' AS both_hold) AS facts
    ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET
        payment_fact = greatest(shipment.payment_fact, excluded.payment_fact),
        inventory_fact = greatest(shipment.inventory_fact, excluded.inventory_fact),
        (fact, due_at) = (
            SELECT CASE WHEN is_complete THEN 'created' ELSE shipment.fact END,
                CASE WHEN is_complete THEN now() + make_interval(secs => %(delay)s)
                     ELSE shipment.due_at END
            FROM (SELECT shipment.fact = 'pending'
                AND greatest(shipment.payment_fact, excluded.payment_fact) = 'processed'
                AND greatest(shipment.inventory_fact, excluded.inventory_fact) = 'reserved'
                AS is_complete) AS shipment_is),
        accepted_at = coalesce(shipment.accepted_at, excluded.accepted_at),
        updated_at = now()
        WHERE excluded.payment_fact > shipment.payment_fact
           OR excluded.inventory_fact > shipment.inventory_fact
    RETURNING order_id::text, payment_fact::text, inventory_fact::text, fact::text, tracking_number
"""
_CANCEL: Final = """
    UPDATE shipments SET fact = 'cancelled', due_at = NULL, updated_at = now()
    WHERE order_id = ANY(%s::uuid[]) AND fact IN ('pending', 'created')
    RETURNING order_id::text
"""


class ShippingHandler:
    """Handles `HANDLES`; a shipment is due for dispatch `dispatch_delay_seconds` after it is made."""

    def __init__(self, dispatch_delay_seconds: float) -> None:
        self._dispatch_delay_seconds = dispatch_delay_seconds
        transitions.show(ShipmentFact.CREATED, ShipmentFact.CANCELLED)

    def __call__(self, events: Sequence[Event], connection: Connection) -> Effects:
        """Note the facts, create and cancel shipments; returns the SHIPMENT_CREATED events."""
        cause = {event.order_id: event for event in events}
        parameters = {
            "reported": _json(reported_facts(events)),
            "delay": self._dispatch_delay_seconds,
        }
        rows = connection.exec_driver_sql(_MERGE, parameters).all()
        created, failed = [], []
        for order_id, payment_fact, inventory_fact, fact, tracking_number in rows:
            if payment_fact == PaymentFact.PROCESSED and inventory_fact == InventoryFact.RESERVED:
                # facts that both held before could only have moved to others
                if fact == ShipmentFact.CREATED:
                    created.append(
                        cause[order_id].follow(
                            EventType.SHIPMENT_CREATED, {"trackingNumber": tracking_number}, SOURCE
                        )
                    )
            elif _has_failed(payment_fact, inventory_fact):
                failed.append(order_id)
        unannounced: dict[Fact, int] = {}
        if failed:
            cancelled = connection.exec_driver_sql(_CANCEL, (array(failed),)).all()
            unannounced[ShipmentFact.CANCELLED] = len(cancelled)
        repeated: list[str] = []
        if len(rows) < len(cause):
            moved = {row[0] for row in rows}
            repeated = [each.event_id for each in events if each.order_id not in moved]
        return Effects(created, repeated, unannounced)


def reported_facts(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return one row per order with the furthest that the events say about each of its facts."""
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        row = rows.get(event.order_id)
        if row is None:
            row = rows[event.order_id] = {
                "order_id": event.order_id,
                "payment_fact": PaymentFact.PENDING,
                "inventory_fact": InventoryFact.PENDING,
                "correlation_id": event.correlation_id,
                "traceparent": event.traceparent,
                "accepted_at": None,
            }
        fact = FACT_OF[event.event_type]
        column = _COLUMN_OF[type(fact)]
        row[column] = further(row[column], fact)
        row["accepted_at"] = row["accepted_at"] or event.payload.get("acceptedAt")
    return list(rows.values())


def _has_failed(payment_fact: str, inventory_fact: str) -> bool:
    return payment_fact in (PaymentFact.FAILED, PaymentFact.REFUNDED) or inventory_fact in (
        InventoryFact.FAILED,
        InventoryFact.RELEASED,
    )


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()
