"""What the gateway reads: orders, their histories, the stock and the daily numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from order_services.gateway.status import facts_of, order_status

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# How an order is, is what its history says: no second copy of it is kept up to date.
_COLUMNS: Final = """
    SELECT order_id::text, customer_id, items, total_cents, currency, correlation_id,
           history.types, created_at, history.updated_at, order_decisions.reason
    FROM orders LEFT JOIN order_decisions USING (order_id)
    CROSS JOIN LATERAL (
        SELECT array_agg(event_type) AS types, max(event_time) AS updated_at
        FROM order_events WHERE order_events.order_id = orders.order_id
    ) AS history
"""
# Ids are time-ordered: the newest order is the last of the primary key, and a page starts where
# the one before it ended, however many orders came in between.
_PAGE: Final = _COLUMNS + "ORDER BY order_id DESC LIMIT %s"
_PAGE_AFTER: Final = _COLUMNS + "WHERE order_id < %s::uuid ORDER BY order_id DESC LIMIT %s"
_ONE: Final = _COLUMNS + "WHERE order_id = %s::uuid"
_EVENTS: Final = """
    SELECT event_id::text, event_type, event_time, source, correlation_id, payload
    FROM order_events WHERE order_id = %s::uuid ORDER BY event_time, event_id
"""
_INVENTORY: Final = """
    SELECT product_id, name, price_cents, stocked, taken, available FROM inventory
    ORDER BY product_id
"""
_DAILY: Final = """
    SELECT day, event_type, events, amount_cents FROM analytics_daily
    WHERE day > (now() AT TIME ZONE 'UTC')::date - %s::integer ORDER BY day DESC, event_type
"""


def order(connection: Connection, order_id: str) -> dict[str, Any] | None:
    """Return one order, or None."""
    row = connection.exec_driver_sql(_ONE, (order_id,)).one_or_none()
    return None if row is None else _order(row)


def orders(connection: Connection, *, limit: int, after: str | None) -> dict[str, Any]:
    """Return a page of orders, newest first, and the cursor of the next one where there is one."""
    # one more than asked for says whether there is a next page
    if after is None:
        rows = connection.exec_driver_sql(_PAGE, (limit + 1,)).all()
    else:
        rows = connection.exec_driver_sql(_PAGE_AFTER, (after, limit + 1)).all()
    page = [_order(row) for row in rows[:limit]]
    return {"orders": page, "nextCursor": page[-1]["orderId"] if len(rows) > limit else None}


def events(connection: Connection, order_id: str) -> list[dict[str, Any]]:
    """Return the history of an order in the order in which it happened."""
    return [
        {
            "eventId": row.event_id,
            "eventType": row.event_type,
            "timestamp": row.event_time,
            "source": row.source,
            "correlationId": row.correlation_id,
            "payload": row.payload,
        }
        for row in connection.exec_driver_sql(_EVENTS, (order_id,))
    ]


def inventory(connection: Connection) -> list[dict[str, Any]]:
    """Return every product with its price and stock."""
    return [
        {
            "productId": row.product_id,
            "name": row.name,
            "priceCents": row.price_cents,
            "stocked": row.stocked,
            "taken": row.taken,
            "available": row.available,
        }
        for row in connection.exec_driver_sql(_INVENTORY)
    ]


def daily(connection: Connection, *, days: int) -> list[dict[str, Any]]:
    """Return the counted events of the last days (UTC), the latest day first."""
    by_day: dict[str, dict[str, Any]] = {}
    for day, event_type, count, amount_cents in connection.exec_driver_sql(_DAILY, (days,)):
        events_of_day = by_day.setdefault(day.isoformat(), {})
        events_of_day[event_type] = {"events": count, "amountCents": amount_cents}
    return [{"day": day, "events": counted} for day, counted in by_day.items()]


def _order(row: Row[Any]) -> dict[str, Any]:
    payment, stock, shipment = facts_of(row.types or ())
    return {
        "orderId": row.order_id,
        "customerId": row.customer_id,
        "status": order_status(payment, stock, shipment),
        "payment": payment,
        "inventory": stock,
        "shipment": shipment,
        "cancelReason": row.reason,
        "items": row.items,
        "totalCents": row.total_cents,
        "currency": row.currency,
        "correlationId": row.correlation_id,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }
