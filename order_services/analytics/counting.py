"""Counts events by day and type, and reads the counts.

Each event that counts has a row of its own, by its id: an event that is there already changes nothing,
and what is new is added to the counts by the same statement. So an event counts once, however often and
however late it comes: again after a rebalance, out of the dead letters, or in a replay of the history.

Rows are archived after ANALYTICS_EVENTS_RETENTION_DAYS, a week at a time: their day is closed, which
means that its counts stay and that no event is added to it any more.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from order_services.domain.catalogue import CURRENCY
from order_services.domain.events import Event, EventType
from order_services.messaging.batch import Effects
from order_services.storage.database import array
from order_services.storage.rings import ANALYTICS_EVENTS, take_turn, utc_today

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

SOURCE: Final = "analytics"
HANDLES: Final = frozenset(EventType)
# How far the clock of whoever made an event may be ahead of ours.
MAX_AHEAD: Final = timedelta(days=1)
# Between closing a day and forgetting its rows: longer than a statement may take, so that none is
# left which has seen the day open and has yet to write.
CLOSED_FOR_SECONDS: Final = 600

# Which part of the payload, if any, is the money of an event.
_AMOUNT_OF: Final = {
    EventType.ORDER_CREATED: "totalCents",
    EventType.PAYMENT_PROCESSED: "amountCents",
    EventType.PAYMENT_FAILED: "amountCents",
    EventType.PAYMENT_REFUNDED: "amountCents",
}
# In the order of ids, and then of days and types: the batches of two replicas wait for each other, but
# never in a circle.
_COUNT: Final = """
    WITH new AS (
        INSERT INTO analytics_events (event_id, slot, day, event_type, amount_cents)
        SELECT event_id, slot, day, event_type, amount_cents
        FROM unnest(%s::uuid[], %s::smallint[], %s::date[], %s::text[], %s::bigint[])
            AS given(event_id, slot, day, event_type, amount_cents)
        WHERE day >= (SELECT counted_from FROM analytics_archive)
        ORDER BY event_id
        ON CONFLICT DO NOTHING
        RETURNING event_id, day, event_type, amount_cents
    ), counted AS (
        INSERT INTO analytics_daily (day, event_type, events, amount_cents)
        SELECT day, event_type, count(*), sum(amount_cents) FROM new
        GROUP BY day, event_type ORDER BY day, event_type
        ON CONFLICT (day, event_type) DO UPDATE SET
            events = analytics_daily.events + excluded.events,
            amount_cents = analytics_daily.amount_cents + excluded.amount_cents
    )
    SELECT event_id::text FROM new
"""
_TOTALS: Final = """
    SELECT today.day AS day_now, event_type, events, amount_cents, on_day
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS day) AS today
    LEFT JOIN LATERAL (
        SELECT event_type, sum(events)::bigint AS events, sum(amount_cents)::bigint AS amount_cents,
               coalesce(sum(events) FILTER (WHERE day = today.day), 0)::bigint AS on_day
        FROM analytics_daily GROUP BY event_type
    ) AS counted ON true
    ORDER BY event_type
"""
_CLOSE: Final = """
    UPDATE analytics_archive SET counted_from = %s, moved_at = clock_timestamp()
    WHERE counted_from < %s
"""
# as text: the beginning is -infinity, which Python has no date for, and which is below every digit
_COUNTED_FROM: Final = "SELECT counted_from::text FROM analytics_archive"
_CLOSED: Final = """
    SELECT counted_from FROM analytics_archive
    WHERE counted_from > '-infinity'
      AND moved_at < clock_timestamp() - make_interval(secs => %s)
"""

_log = structlog.get_logger(__name__)


def count(events: Sequence[Event], connection: Connection) -> Effects:
    """Count the events that have not been counted yet; they cause no others.

    Raises `ValueError` for an event that cannot be counted: whose amount is not an integer, or whose
    time has not come yet.
    """
    latest = datetime.now(UTC) + MAX_AHEAD
    days = [_day(event, latest) for event in events]
    slot_of = {day: str(ANALYTICS_EVENTS.slot(day)) for day in set(days)}
    parameters = (
        array([event.event_id for event in events]),
        array([slot_of[day] for day in days]),
        array([day.isoformat() for day in days]),
        array([event.event_type for event in events]),
        array([str(_amount_cents(event)) for event in events]),
    )
    new = connection.exec_driver_sql(_COUNT, parameters).scalars().all()
    repeated = {event.event_id for event in events}.difference(new)
    if not repeated:
        return Effects()
    counted_from = connection.exec_driver_sql(_COUNTED_FROM).scalar_one()
    too_late = sum(
        day.isoformat() < counted_from and event.event_id in repeated
        for event, day in zip(events, days, strict=True)
    )
    return Effects(repeated=repeated, too_late=too_late)


def archive(connection: Connection, retention_days: int) -> list[str]:
    """Close days that are older, and forget the rows of days that have been closed for a while.

    Returns the partitions that it emptied. Counts of closed days stay as they are.
    """
    if not take_turn(connection, ANALYTICS_EVENTS):
        return []
    today = utc_today(connection)
    oldest = today - timedelta(days=retention_days)
    # whole weeks, as rows are forgotten by the week; they begin where the ring's turns do
    first_kept = date(1970, 1, 1) + timedelta(
        days=ANALYTICS_EVENTS.turn(oldest) * ANALYTICS_EVENTS.days
    )
    connection.exec_driver_sql(_CLOSE, (first_kept, first_kept))
    closed = connection.exec_driver_sql(_CLOSED, (CLOSED_FOR_SECONDS,)).scalar()
    if closed is None:
        return []
    # a longer retention opens no day that was closed
    emptied = ANALYTICS_EVENTS.forget(connection, first_kept=closed, today=today)
    if emptied:
        _log.info("counted events archived", before=str(closed), partitions=emptied)
    return emptied


def stats(connection: Connection) -> dict[str, Any]:
    """Return the totals since the beginning and today's (UTC) numbers; money in cents."""
    found = connection.exec_driver_sql(_TOTALS).all()
    rows = {row.event_type: row for row in found if row.event_type is not None}

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
            # the database's day, as the figures are
            "day": found[0].day_now,
            "events": {name: row.on_day for name, row in rows.items() if row.on_day},
        },
    }


def _day(event: Event, latest: datetime) -> date:
    # its row would be forgotten before its day has come, and it could count twice
    if event.timestamp > latest:
        raise ValueError(f"{event.event_type} of {event.timestamp:%Y-%m-%d} has yet to happen")
    return event.timestamp.astimezone(UTC).date()


def _amount_cents(event: Event) -> int:
    field = _AMOUNT_OF.get(event.event_type)
    if field is None:
        return 0
    amount_cents = event.payload.get(field)
    if type(amount_cents) is not int:
        raise ValueError(f"{field} of {event.event_type} must be an integer")
    return amount_cents
