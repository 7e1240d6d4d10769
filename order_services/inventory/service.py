"""Puts the inventory service together."""

from __future__ import annotations

from order_services.domain.topics import INVENTORY_GROUP
from order_services.inventory.handler import HANDLES, SOURCE, InventoryHandler
from order_services.inventory.settings import InventorySettings
from order_services.service import run as service


def build(_settings: InventorySettings) -> service.Service:
    """Return the service that these settings describe."""
    return service.Service(
        name=SOURCE, group=INVENTORY_GROUP, handles=HANDLES, handler=InventoryHandler()
    )


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return service.main(InventorySettings, build)
