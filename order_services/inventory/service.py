"""Puts the inventory service together."""

from __future__ import annotations

from order_services.domain.topics import INVENTORY_GROUP
from order_services.inventory.handler import HANDLES, SOURCE, InventoryHandler
from order_services.inventory.settings import InventorySettings
from order_services.service.service import Runtime, Service


def build(settings: InventorySettings) -> Service:
    """Return the service that these settings describe."""
    return Service(Runtime(SOURCE, settings), INVENTORY_GROUP, HANDLES, InventoryHandler())
