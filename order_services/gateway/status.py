"""What a customer is told: a pure function of three facts, and those of an order's history."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from order_services.domain.events import EventType
from order_services.domain.facts import (
    FACT_OF,
    Fact,
    InventoryFact,
    PaymentFact,
    ShipmentFact,
    further,
)


class OrderStatus(StrEnum):
    """How an order is; the values stand in the order in which an order goes through them."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    CONFIRMED = "confirmed"  # paid and reserved
    CANCELLING = "cancelling"  # will not be shipped; money or stock is still on its way back
    CANCELLED = "cancelled"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


_GONE: Final = {
    ShipmentFact.DISPATCHED: OrderStatus.SHIPPED,
    ShipmentFact.DELIVERED: OrderStatus.DELIVERED,
}
_NOT_PAID: Final = {PaymentFact.FAILED, PaymentFact.REFUNDED}
_NOT_RESERVED: Final = {InventoryFact.FAILED, InventoryFact.RELEASED}


def facts_of(history: Iterable[str]) -> tuple[PaymentFact, InventoryFact, ShipmentFact]:
    """Return how far each fact is, from the types of an order's events in any order.

    They come from different topics, and hence late or not: the furthest holds.
    """
    furthest: dict[type[Fact], Fact] = {}
    for name in history:
        event_type = EventType(name)
        if event_type is EventType.ORDER_CANCELLED:
            fact: Fact = ShipmentFact.CANCELLED
        elif event_type in FACT_OF:
            fact = FACT_OF[event_type]
        else:
            continue
        furthest[type(fact)] = further(fact, furthest.get(type(fact), fact))
    return (
        PaymentFact(furthest.get(PaymentFact, PaymentFact.PENDING)),
        InventoryFact(furthest.get(InventoryFact, InventoryFact.PENDING)),
        ShipmentFact(furthest.get(ShipmentFact, ShipmentFact.PENDING)),
    )


def order_status(
    payment: PaymentFact, inventory: InventoryFact, shipment: ShipmentFact
) -> OrderStatus:
    """Return the status; each fact only moves forward, and so does the status.

    Facts come from different topics and hence in any order: a later one stands for the earlier
    ones that have not been seen yet (a parcel that was dispatched had been paid).
    """
    if shipment in _GONE:
        return _GONE[shipment]
    undone = (payment in _NOT_PAID) + (inventory in _NOT_RESERVED)
    if undone == 2:
        return OrderStatus.CANCELLED
    if undone or shipment is ShipmentFact.CANCELLED:
        return OrderStatus.CANCELLING
    done = (payment is PaymentFact.PROCESSED) and (inventory is InventoryFact.RESERVED)
    if done or shipment is ShipmentFact.CREATED:
        return OrderStatus.CONFIRMED
    untouched = (payment is PaymentFact.PENDING) and (inventory is InventoryFact.PENDING)
    return OrderStatus.ACCEPTED if untouched else OrderStatus.PROCESSING
