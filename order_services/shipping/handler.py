"""Joins what payment and inventory report, and creates a shipment when both hold.

The join lives in the database: either fact may come first, late, twice, or to another replica, and a
restart forgets nothing. Whoever brings the second fact sees both, because writing the same row makes
one wait for the other's commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType
from order_services.domain.facts import Fact, InventoryFact, PaymentFact, ShipmentFact
from order_services.messaging import transitions
from order_services.messaging.batch import Effects

SOURCE: Final = "shipping"

_PAYMENT_FACT: Final = {
    EventType.PAYMENT_PROCESSED: PaymentFact.PROCESSED,
    EventType.PAYMENT_FAILED: PaymentFact.FAILED,
    EventType.PAYMENT_REFUNDED: PaymentFact.REFUNDED,
}
_INVENTORY_FACT: Final = {
    EventType.INVENTORY_RESERVED: InventoryFact.RESERVED,
    EventType.INVENTORY_FAILED: InventoryFact.FAILED,
    EventType.INVENTORY_RELEASED: InventoryFact.RELEASED,
}
HANDLES: Final = frozenset({*_PAYMENT_FACT, *_INVENTORY_FACT})

_PAYMENT_ORDER: Final = {fact: rank for rank, fact in enumerate(PaymentFact)}
_INVENTORY_ORDER: Final = {fact: rank for rank, fact in enumerate(InventoryFact)}

# greatest: a fact only moves forward
_MERGE: Final = """
    INSERT INTO shipments AS shipment
        (order_id, payment_fact, inventory_fact, correlation_id, traceparent, accepted_at)
    SELECT order_id, payment_fact, inventory_fact, correlation_id, traceparent, accepted_at
    FROM json_to_recordset(%s::json) AS reported(
        order_id uuid, payment_fact payment_fact, inventory_fact inventory_fact,
        correlation_id text, traceparent text, accepted_at timestamptz)
    ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET
        payment_fact = greatest(shipment.payment_fact, excluded.payment_fact),
        inventory_fact = greatest(shipment.inventory_fact, excluded.inventory_fact),
        accepted_at = coalesce(shipment.accepted_at, excluded.accepted_at),
        updated_at = now()
    RETURNING order_id::text, payment_fact::text, inventory_fact::text, fact::text
"""
_CREATE: Final = """
    UPDATE shipments SET fact = 'created', due_at = now() + make_interval(secs => %s),
        tracking_number = 'TRK-' || upper(right(replace(order_id::text, '-', ''), 16)),
        updated_at = now()
    WHERE order_id = ANY(%s::uuid[]) AND fact = 'pending'
    RETURNING order_id::text, tracking_number
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
        rows = connection.exec_driver_sql(_MERGE, (_json(reported_facts(events)),)).all()
        complete, failed = [], []
        for order_id, payment_fact, inventory_fact, fact in rows:
            if payment_fact == PaymentFact.PROCESSED and inventory_fact == InventoryFact.RESERVED:
                if fact == ShipmentFact.PENDING:
                    complete.append(order_id)
            elif _has_failed(payment_fact, inventory_fact):
                failed.append(order_id)
        moved: Counter[Fact] = Counter()
        if failed:
            cancelled = connection.exec_driver_sql(_CANCEL, ("{" + ",".join(failed) + "}",)).all()
            moved[ShipmentFact.CANCELLED] = len(cancelled)
        if not complete:
            return Effects([], moved)
        parameters = (self._dispatch_delay_seconds, "{" + ",".join(complete) + "}")
        created = connection.exec_driver_sql(_CREATE, parameters).all()
        shipments = [
            cause[order_id].follow(
                EventType.SHIPMENT_CREATED, {"trackingNumber": tracking_number}, SOURCE
            )
            for order_id, tracking_number in created
        ]
        return Effects(shipments, moved)


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
        payment_fact = _PAYMENT_FACT.get(event.event_type)
        if payment_fact is not None:
            row["payment_fact"] = max(
                row["payment_fact"], payment_fact, key=_PAYMENT_ORDER.__getitem__
            )
        else:
            row["inventory_fact"] = max(
                row["inventory_fact"],
                _INVENTORY_FACT[event.event_type],
                key=_INVENTORY_ORDER.__getitem__,
            )
        row["accepted_at"] = row["accepted_at"] or event.payload.get("acceptedAt")
    return list(rows.values())


def _has_failed(payment_fact: str, inventory_fact: str) -> bool:
    return payment_fact in (PaymentFact.FAILED, PaymentFact.REFUNDED) or inventory_fact in (
        InventoryFact.FAILED,
        InventoryFact.RELEASED,
    )


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()
