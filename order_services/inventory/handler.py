"""Turns orders into reservations, and cancellations into releases, a batch at a time.

The primary key of `reservations` sees to it that an order takes its stock once. A cancellation that
comes before its order leaves a row that says so: the order finds it and takes nothing.

Locks are taken in one order by every batch: reservations by order id, then inventory by product id.
Batches that share a product wait for each other and never in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType, created_and_cancelled, ids_of_others
from order_services.domain.facts import InventoryFact
from order_services.inventory.rules import Quantities, items, quantities, take
from order_services.messaging import transitions
from order_services.messaging.batch import Effects
from order_services.storage.database import array

SOURCE: Final = "inventory"
HANDLES: Final = frozenset({EventType.ORDER_CREATED, EventType.ORDER_CANCELLED})

_CLAIM: Final = """
    INSERT INTO reservations (order_id, fact, items)
    SELECT order_id, 'reserved', items
    FROM json_to_recordset(%s::json) AS wanted(order_id uuid, items jsonb)
    ORDER BY order_id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id::text
"""
_FAIL: Final = """
    UPDATE reservations SET fact = 'failed', items = '{}', updated_at = now()
    WHERE order_id = ANY(%s::uuid[])
"""
_RELEASE: Final = """
    INSERT INTO reservations AS reservation (order_id, fact, items)
    SELECT order_id, 'released', '{}' FROM unnest(%s::uuid[]) AS cancelled(order_id)
    ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE
        SET fact = 'released', updated_at = now()
        WHERE reservation.fact = 'reserved'
    RETURNING order_id::text, items
"""
_LOCK: Final = """
    SELECT product_id, available FROM inventory WHERE product_id = ANY(%s)
    ORDER BY product_id FOR UPDATE
"""
_TAKE: Final = """
    UPDATE inventory SET taken = taken + change.pieces, updated_at = now()
    FROM json_to_recordset(%s::json) AS change(product_id text, pieces bigint)
    WHERE inventory.product_id = change.product_id
"""


class InventoryHandler:
    """Handles `HANDLES`; raises `ValueError` for an order whose items are not proper ones."""

    def __init__(self) -> None:
        transitions.show(InventoryFact.RESERVED, InventoryFact.FAILED, InventoryFact.RELEASED)

    def __call__(self, events: Sequence[Event], connection: Connection) -> Effects:
        """Reserve and release; returns the INVENTORY_* events."""
        created, cancelled = created_and_cancelled(events)
        wanted = {order_id: quantities(event.payload) for order_id, event in created.items()}
        # all reservations first, then all products: see the order of locks above
        new = self._claim(connection, wanted)
        released = self._release(connection, cancelled)
        touched = [wanted[order_id] for order_id in new] + list(released.values())
        available = _lock(connection, touched)
        change: Counter[str] = Counter()
        for held in released.values():
            change.subtract(held)
            for product_id, quantity in held.items():
                available[product_id] += quantity
        missing: dict[str, list[str]] = {}
        for order_id in new:
            lacking = take(available, wanted[order_id])
            if lacking:
                missing[order_id] = lacking
            else:
                change.update(wanted[order_id])
        if missing:
            connection.exec_driver_sql(_FAIL, (array(missing),))
        _apply(connection, change)
        caused = [
            *(self._outcome(created[id_], wanted[id_], missing.get(id_)) for id_ in new),
            *(self._released(cancelled[id_], held) for id_, held in released.items()),
        ]
        return Effects(caused, repeated=ids_of_others(created, new))

    def _claim(self, connection: Connection, wanted: Mapping[str, Quantities]) -> list[str]:
        """Return the orders that are new, in the order in which they came."""
        if not wanted:
            return []
        rows = [{"order_id": order_id, "items": held} for order_id, held in wanted.items()]
        answer = connection.exec_driver_sql(_CLAIM, (orjson.dumps(rows).decode(),))
        new = set(answer.scalars())
        return [order_id for order_id in wanted if order_id in new]

    def _release(
        self, connection: Connection, cancelled: Mapping[str, Event]
    ) -> dict[str, Quantities]:
        """Return what each order gives back; orders that failed or gave back before are absent."""
        if not cancelled:
            return {}
        rows = connection.exec_driver_sql(_RELEASE, (array(cancelled),))
        return {order_id: dict(held) for order_id, held in rows}

    def _outcome(self, event: Event, wanted: Quantities, missing: list[str] | None) -> Event:
        if missing is not None:
            return event.follow(
                EventType.INVENTORY_FAILED, {"reason": "out_of_stock", "missing": missing}, SOURCE
            )
        return event.follow(
            EventType.INVENTORY_RESERVED,
            {"items": items(wanted), "acceptedAt": event.timestamp},
            SOURCE,
        )

    def _released(self, event: Event, held: Quantities) -> Event:
        return event.follow(EventType.INVENTORY_RELEASED, {"items": items(held)}, SOURCE)


def _lock(connection: Connection, touched: Sequence[Quantities]) -> dict[str, int]:
    """Lock the products and return how many pieces of each are available."""
    product_ids = sorted({product_id for held in touched for product_id in held})
    if not product_ids:
        return {}
    rows = connection.exec_driver_sql(_LOCK, (product_ids,))
    return {row[0]: row[1] for row in rows}


def _apply(connection: Connection, change: Mapping[str, int]) -> None:
    rows = [{"product_id": id_, "pieces": pieces} for id_, pieces in change.items() if pieces]
    if rows:
        connection.exec_driver_sql(_TAKE, (orjson.dumps(rows).decode(),))
