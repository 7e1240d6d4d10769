"""What a customer is told: a pure function of three facts, and those of an order's history."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from order_services.events import EventType
from order_services.tables import InventoryFact, PaymentFact, ShipmentFact


class OrderStatus(StrEnum):
    """How an order is; the values stand in the order in which an order goes through them."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    CONFIRMED = "confirmed"  # paid and reserved
    CANCELLING = "cancelling"  # will not be shipped; money or stock is still on its way back
    CANCELLED = "cancelled"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


Facts = tuple[PaymentFact, InventoryFact, ShipmentFact]
F = TypeVar("F", PaymentFact, InventoryFact, ShipmentFact)

# What each event says about an order: which fact, and how far it is.
FACT_OF: Final[dict[EventType, PaymentFact | InventoryFact | ShipmentFact]] = {
    EventType.ORDER_CANCELLED: ShipmentFact.CANCELLED,
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
_GONE: Final = {
    ShipmentFact.DISPATCHED: OrderStatus.SHIPPED,
    ShipmentFact.DELIVERED: OrderStatus.DELIVERED,
}
_NOT_PAID: Final = {PaymentFact.FAILED, PaymentFact.REFUNDED}
_NOT_RESERVED: Final = {InventoryFact.FAILED, InventoryFact.RELEASED}


def facts_of(history: Iterable[str]) -> Facts:
    """Return how far each fact is, from the types of an order's events in any order.

    Events of different topics come in any order, and a fact only moves forward: the furthest holds.
    """
    payment, inventory, shipment = PaymentFact.PENDING, InventoryFact.PENDING, ShipmentFact.PENDING
    for event_type in history:
        fact = FACT_OF.get(EventType(event_type))
        if isinstance(fact, PaymentFact):
            payment = _later(payment, fact)
        elif isinstance(fact, InventoryFact):
            inventory = _later(inventory, fact)
        elif isinstance(fact, ShipmentFact):
            shipment = _later(shipment, fact)
    return payment, inventory, shipment


def _later(one: F, other: F) -> F:
    return max(one, other, key=list(type(one)).index)


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
