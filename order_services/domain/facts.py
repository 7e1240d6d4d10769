"""How far an order is: facts that only move forward, and what each event says of them.

The values of a fact stand in the order in which it moves forward, here as in PostgreSQL's enumerations.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from order_services.domain.events import EventType


class PaymentFact(StrEnum):
    """How far the payment of an order is."""

    PENDING = "pending"
    PROCESSING = "processing"
    PROCESSED = "processed"
    FAILED = "failed"
    REFUNDED = "refunded"


class InventoryFact(StrEnum):
    """How far the stock of an order is."""

    PENDING = "pending"
    RESERVED = "reserved"
    FAILED = "failed"
    RELEASED = "released"


class ShipmentFact(StrEnum):
    """How far the shipment of an order is; either cancelled or dispatched, never both."""

    PENDING = "pending"
    CREATED = "created"
    CANCELLED = "cancelled"
    DISPATCHED = "dispatched"
    DELIVERED = "delivered"


class Decision(StrEnum):
    """Which of its two ends an order goes to; see `storage.decisions`."""

    CANCELLED = "cancelled"
    DISPATCHED = "dispatched"


Fact = PaymentFact | InventoryFact | ShipmentFact

# What each event says about its order. A cancellation says it of the shipment: see `storage.decisions`.
FACT_OF: Final[Mapping[EventType, Fact]] = {
    EventType.PAYMENT_PROCESSING: PaymentFact.PROCESSING,
    EventType.PAYMENT_PROCESSED: PaymentFact.PROCESSED,
    EventType.PAYMENT_FAILED: PaymentFact.FAILED,
    EventType.PAYMENT_REFUNDED: PaymentFact.REFUNDED,
    EventType.INVENTORY_RESERVED: InventoryFact.RESERVED,
    EventType.INVENTORY_FAILED: InventoryFact.FAILED,
    EventType.INVENTORY_RELEASED: InventoryFact.RELEASED,
    EventType.SHIPMENT_CREATED: ShipmentFact.CREATED,
    EventType.SHIPMENT_DISPATCHED: ShipmentFact.DISPATCHED,
    EventType.SHIPMENT_DELIVERED: ShipmentFact.DELIVERED,
}

# By type: a payment's "failed" and a reservation's are equal, as all texts are.
_RANKS: Final = {
    kind: {fact: rank for rank, fact in enumerate(kind)}
    for kind in (PaymentFact, InventoryFact, ShipmentFact)
}


def further(one: Fact, other: Fact) -> Fact:
    """Return which of two facts of one kind is further on."""
    ranks = _RANKS[type(one)]
    return one if ranks[one] >= ranks[other] else other
