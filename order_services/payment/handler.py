"""Turns orders into charges, and cancellations into refunds, a batch at a time.

The primary key of `payments` sees to it that an order is charged once, whatever arrives and how
often. A cancellation that comes before its order leaves a row that says so (nothing charged, all of
it refunded): the order finds it and is never charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType, created_and_cancelled, ids_of_others
from order_services.domain.facts import PaymentFact
from order_services.messaging import transitions
from order_services.messaging.batch import Effects
from order_services.payment.rules import REASON_REFUSED, Rules
from order_services.storage.database import array

SOURCE: Final = "payment"
HANDLES: Final = frozenset({EventType.ORDER_CREATED, EventType.ORDER_CANCELLED})

_CHARGE: Final = """
    INSERT INTO payments (order_id, fact, charged_cents, reason)
    SELECT order_id, fact, charged_cents, reason
    FROM json_to_recordset(%s::json)
        AS wanted(order_id uuid, fact payment_fact, charged_cents bigint, reason text)
    ORDER BY order_id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id::text
"""
_REFUND: Final = """
    INSERT INTO payments AS payment (order_id, fact, charged_cents)
    SELECT order_id, 'refunded', 0 FROM unnest(%s::uuid[]) AS cancelled(order_id)
    ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE
        SET fact = 'refunded', refunded_cents = payment.charged_cents, updated_at = now()
        WHERE payment.fact = 'processed'
    RETURNING order_id::text, refunded_cents
"""


class PaymentHandler:
    """Handles `HANDLES`; raises `ValueError` or `KeyError` for an order without a proper total.

    With `announces_processing` each charge begins with PAYMENT_PROCESSING. `refuses` has more orders
    refused than the rules would: an injected fault.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        announces_processing: bool = True,
        refuses: Callable[[str], bool] = lambda _order_id: False,
    ) -> None:
        self._rules = rules
        self._refuses = refuses
        self._announces_processing = announces_processing
        transitions.show(PaymentFact.PROCESSED, PaymentFact.FAILED, PaymentFact.REFUNDED)

    def __call__(self, events: Sequence[Event], connection: Connection) -> Effects:
        """Charge and refund; returns the PAYMENT_* events."""
        created, cancelled = created_and_cancelled(events)
        new = self._charge(connection, created)
        caused: list[Event] = []
        for order_id, charge in new.items():
            caused += self._announce(created[order_id], charge)
        # a cancelled order that was charged before is refunded, one that was not never will be
        caused += self._refund(connection, cancelled)
        return Effects(caused, repeated=ids_of_others(created, new))

    def _charge(
        self, connection: Connection, orders: dict[str, Event]
    ) -> dict[str, dict[str, Any]]:
        """Return the charges that are new, by order id."""
        if not orders:
            return {}
        charges = {order_id: self._decide(event) for order_id, event in orders.items()}
        wanted = orjson.dumps(list(charges.values())).decode()
        new = set(connection.exec_driver_sql(_CHARGE, (wanted,)).scalars().all())
        return {order_id: charge for order_id, charge in charges.items() if order_id in new}

    def _decide(self, event: Event) -> dict[str, Any]:
        total_cents = total(event)
        reason = self._rules.refusal(event.order_id, total_cents)
        if reason is None and self._refuses(event.order_id):
            reason = REASON_REFUSED
        return {
            "order_id": event.order_id,
            "fact": PaymentFact.PROCESSED if reason is None else PaymentFact.FAILED,
            "charged_cents": total_cents if reason is None else 0,
            "reason": reason,
        }

    def _announce(self, event: Event, charge: dict[str, Any]) -> list[Event]:
        amount_cents, reason = total(event), charge["reason"]
        if reason is None:
            done = event.follow(
                EventType.PAYMENT_PROCESSED,
                {"amountCents": amount_cents, "acceptedAt": event.timestamp},
                SOURCE,
            )
        else:
            done = event.follow(
                EventType.PAYMENT_FAILED, {"amountCents": amount_cents, "reason": reason}, SOURCE
            )
        if not self._announces_processing:
            return [done]
        begun = event.follow(EventType.PAYMENT_PROCESSING, {"amountCents": amount_cents}, SOURCE)
        return [begun, done]

    def _refund(self, connection: Connection, orders: dict[str, Event]) -> list[Event]:
        if not orders:
            return []
        rows = connection.exec_driver_sql(_REFUND, (array(orders),)).all()
        return [
            orders[order_id].follow(
                EventType.PAYMENT_REFUNDED, {"amountCents": refunded_cents}, SOURCE
            )
            for order_id, refunded_cents in rows
        ]


def total(event: Event) -> int:
    """Return an order's total in cents; raises `ValueError` when it has none."""
    cents = event.payload.get("totalCents")
    if type(cents) is not int or cents < 0:
        raise ValueError(f"totalCents must be an integer that is not negative, not {cents!r}")
    return cents
