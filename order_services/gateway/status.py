"""What a customer is told: a pure function of three facts."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from order_services.domain.facts import InventoryFact, PaymentFact, ShipmentFact


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
