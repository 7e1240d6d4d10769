"""Counts events by day and type, and reads the counts.

The counts change in the transaction that notes the events as handled: each event counts once,
however often it is delivered, and the counts agree with the orders whenever all is quiet.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from order_services.catalogue import CURRENCY
from order_services.events import Event, EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from sqlalchemy import Connection

SERVICE: Final = "analytics"
HANDLES: Final = frozenset(EventType)

# Which part of the payload, if any, is the money of an event.
_AMOUNT_OF: Final = {
    EventType.ORDER_CREATED: "totalCents",
    EventType.PAYMENT_PROCESSED: "amountCents",
    EventType.PAYMENT_FAILED: "amountCents",
    EventType.PAYMENT_REFUNDED: "amountCents",
}
# Sorted, so that the batches of two replicas cannot wait for each other's rows in a circle.
_COUNT: Final = """
    INSERT INTO analytics_daily (day, event_type, events, amount_cents)
    SELECT day, event_type, events, amount_cents
    FROM json_to_recordset(%s::json) AS counted(
        day date, event_type text, events bigint, amount_cents bigint)
    ORDER BY day, event_type
    ON CONFLICT (day, event_type) DO UPDATE SET
        events = analytics_daily.events + excluded.events,
        amount_cents = analytics_daily.amount_cents + excluded.amount_cents
"""
_TOTALS: Final = """
    SELECT event_type, sum(events)::bigint AS events, sum(amount_cents)::bigint AS amount_cents,
           coalesce(sum(events) FILTER (WHERE day = (now() AT TIME ZONE 'UTC')::date), 0)::bigint
               AS today
    FROM analytics_daily GROUP BY event_type ORDER BY event_type
"""


def count(events: Sequence[Event], connection: Connection) -> Sequence[Event]:
    """Add the events to the counts of their days; causes no events."""
    rows = [
        {"day": day, "event_type": event_type, "events": number, "amount_cents": amount_cents}
        for (day, event_type), (number, amount_cents) in tally(events).items()
    ]
    if rows:
        connection.exec_driver_sql(_COUNT, (orjson.dumps(rows).decode(),))
    return ()


def tally(events: Iterable[Event]) -> dict[tuple[date, EventType], tuple[int, int]]:
    """Return number and amount in cents by day (UTC, of the event's own time) and type.

    Raises `ValueError` for an event whose amount is not an integer.
    """
    counted: dict[tuple[date, EventType], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for event in events:
        amount_cents = 0
        field = _AMOUNT_OF.get(event.event_type)
        if field is not None:
            amount_cents = event.payload.get(field)  # type: ignore[assignment]  # checked next
            if type(amount_cents) is not int:
                raise ValueError(f"{field} of {event.event_type} must be an integer")
        key = (event.timestamp.astimezone(UTC).date(), event.event_type)
        number, total = counted[key]
        counted[key] = (number + 1, total + amount_cents)
    return dict(counted)


def stats(connection: Connection) -> dict[str, Any]:
    """Return the totals since the beginning and today's (UTC) numbers; money in cents."""
    rows = {row.event_type: row for row in connection.exec_driver_sql(_TOTALS)}

    def events(event_type: EventType) -> int:
        return rows[event_type].events if event_type in rows else 0

    def cents(event_type: EventType) -> int:
        return rows[event_type].amount_cents if event_type in rows else 0

    return {
        "orders": events(EventType.ORDER_CREATED),
        "shipped": events(EventType.SHIPMENT_DISPATCHED),
        "delivered": events(EventType.SHIPMENT_DELIVERED),
        "cancelled": events(EventType.ORDER_CANCELLED),
        "chargedCents": cents(EventType.PAYMENT_PROCESSED),
        "refundedCents": cents(EventType.PAYMENT_REFUNDED),
        "currency": CURRENCY,
        "events": {name: row.events for name, row in rows.items()},
        "today": {
            "day": datetime.now(UTC).date(),
            "events": {name: row.today for name, row in rows.items() if row.today},
        },
    }
