"""Decides, once and for all, whether an order is cancelled or dispatched.

The race between a cancellation and the dispatch has a single writer point: the order's row in
`order_decisions`. Whoever inserts it first has decided; the primary key sees to it that there is
one row, and nobody ever changes it.

- To cancel, the gateway inserts `cancelled` and writes ORDER_CANCELLED in the same transaction: for
  a customer's request, and for PAYMENT_FAILED and INVENTORY_FAILED. Finding `dispatched` there means
  that it is too late (409).
- To dispatch, shipping inserts `dispatched` and writes SHIPMENT_DISPATCHED in the same transaction.
  Finding `cancelled` there means that the shipment is cancelled instead.

Inserting, and not updating a row of `orders`, has two gains: a decision waits for nothing but another
decision on the same order, and it may come before anything else is known about the order. Both
sides insert in the order of ids, so that two batches cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType
from order_services.domain.facts import Decision
from order_services.storage.database import array

_DECIDE: Final = """
    INSERT INTO order_decisions (order_id, decision, reason)
    SELECT order_id, %s::order_decision, reason
    FROM json_to_recordset(%s::json) AS wanted(order_id uuid, reason text)
    ORDER BY order_id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id::text
"""
_DECISIONS: Final = """
    SELECT order_id::text, decision::text FROM order_decisions
    WHERE order_id = ANY(%s::uuid[])
"""

REASON_CUSTOMER: Final = "customer"
REASON_PAYMENT_FAILED: Final = "payment_failed"
REASON_INVENTORY_FAILED: Final = "inventory_failed"


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A wish to cancel an order; `reason` is one of the constants above."""

    order_id: str
    reason: str
    correlation_id: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of some requests: the events to publish and the ids that came too late.

    Orders in neither were cancelled already, which is as good.
    """

    events: Sequence[Event]
    too_late: frozenset[str]


def cancel(
    connection: Connection, requests: Collection[CancelRequest], source: str
) -> Cancellation:
    """Decide for cancellation where nothing is decided yet.

    The caller publishes `events` in the same transaction: ORDER_CANCELLED, once for each order in
    its life. Whether an order exists is the caller's business.
    """
    wanted = {request.order_id: request for request in requests}
    won = _decide(
        connection, Decision.CANCELLED, {key: request.reason for key, request in wanted.items()}
    )
    events = [
        Event(
            EventType.ORDER_CANCELLED,
            request.order_id,
            {"reason": request.reason},
            source,
            request.correlation_id,
            request.traceparent,
        )
        for request in wanted.values()
        if request.order_id in won
    ]
    earlier = decisions(connection, wanted.keys() - won)
    return Cancellation(
        events, frozenset(key for key, value in earlier.items() if value is Decision.DISPATCHED)
    )


def dispatch(connection: Connection, order_ids: Collection[str]) -> set[str]:
    """Decide for dispatch where nothing is decided yet; return the orders that may be dispatched."""
    won = _decide(connection, Decision.DISPATCHED, dict.fromkeys(order_ids))
    earlier = decisions(connection, set(order_ids) - won)
    return won | {key for key, value in earlier.items() if value is Decision.DISPATCHED}


def decisions(connection: Connection, order_ids: Collection[str]) -> dict[str, Decision]:
    """Return what is decided about these orders; undecided ones are absent."""
    if not order_ids:
        return {}
    rows = connection.exec_driver_sql(_DECISIONS, (array(order_ids),))
    return {order_id: Decision(decision) for order_id, decision in rows}


def _decide(
    connection: Connection, decision: Decision, reasons: Mapping[str, str | None]
) -> set[str]:
    if not reasons:
        return set()
    wanted = [{"order_id": order_id, "reason": reason} for order_id, reason in reasons.items()]
    rows = connection.exec_driver_sql(_DECIDE, (decision.value, orjson.dumps(wanted).decode()))
    return set(rows.scalars())
