"""Dispatches and delivers shipments when they are due.

A timer is a column of its shipment: it survives a restart, and whichever replica looks first takes
what is due (SKIP LOCKED), a batch in one transaction. Dispatch is decided in `storage.decisions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from order_services.domain.events import Event, EventType
from order_services.domain.facts import ShipmentFact
from order_services.messaging import transitions
from order_services.process import instrumentation
from order_services.shipping.handler import SOURCE
from order_services.storage import decisions, outbox
from order_services.storage.database import Database, array

_DUE: Final = """
    SELECT order_id::text, fact::text, tracking_number, correlation_id, traceparent,
        extract(epoch FROM clock_timestamp() - accepted_at)::float8
    FROM shipments WHERE due_at <= now() ORDER BY due_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""
_ADVANCE: Final = """
    UPDATE shipments SET fact = %s, due_at = now() + make_interval(secs => %s), updated_at = now()
    WHERE order_id = ANY(%s::uuid[])
"""


class Timers:
    """Advances due shipments; `on_written` is called after events were committed to the outbox."""

    def __init__(
        self,
        database: Database,
        *,
        delivery_delay_seconds: float,
        batch: int,
        on_written: Callable[[], None],
    ) -> None:
        self._database = database
        self._delivery_delay_seconds = delivery_delay_seconds
        self._batch = batch
        self._on_written = on_written
        transitions.show(ShipmentFact.DISPATCHED, ShipmentFact.CANCELLED, ShipmentFact.DELIVERED)

    def advance(self) -> bool:
        """Take one step with each of at most `batch` due shipments; True when there may be more."""
        with self._database.begin() as connection:
            due = connection.exec_driver_sql(_DUE, (self._batch,)).all()
            if not due:
                return False
            to_dispatch = [row for row in due if row[1] == ShipmentFact.CREATED]
            to_deliver = [row for row in due if row[1] == ShipmentFact.DISPATCHED]
            allowed = decisions.dispatch(connection, [row[0] for row in to_dispatch])
            dispatched = [row for row in to_dispatch if row[0] in allowed]
            cancelled = [row for row in to_dispatch if row[0] not in allowed]
            self._move(connection, dispatched, ShipmentFact.DISPATCHED)
            self._move(connection, cancelled, ShipmentFact.CANCELLED)
            self._move(connection, to_deliver, ShipmentFact.DELIVERED)
            events = [
                *(_event(row, EventType.SHIPMENT_DISPATCHED) for row in dispatched),
                *(_event(row, EventType.SHIPMENT_DELIVERED) for row in to_deliver),
            ]
            outbox.write(connection, SOURCE, events)
        if events:
            self._on_written()
        transitions.count(events, {ShipmentFact.CANCELLED: len(cancelled)})
        _observe(dispatched)
        return len(due) == self._batch

    def _move(self, connection: Connection, rows: Sequence[Any], fact: ShipmentFact) -> None:
        if rows:
            # no interval, no timer: due_at becomes null
            delay = self._delivery_delay_seconds if fact is ShipmentFact.DISPATCHED else None
            ids = array(row[0] for row in rows)
            connection.exec_driver_sql(_ADVANCE, (fact.value, delay, ids))


def _observe(dispatched: Sequence[Any]) -> None:
    for *_, correlation_id, _traceparent, seconds in dispatched:
        if seconds is not None:
            instrumentation.ACCEPTED_TO_SHIPPED.observe(
                max(0.0, seconds), instrumentation.exemplar(correlation_id)
            )


def _event(row: Any, event_type: EventType) -> Event:
    order_id, _fact, tracking_number, correlation_id, traceparent, _seconds = row
    payload = {"trackingNumber": tracking_number}
    return Event(event_type, order_id, payload, SOURCE, correlation_id, traceparent)
