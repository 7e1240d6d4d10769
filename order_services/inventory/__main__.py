"""Runs inventory: `python -m order_services.inventory`."""

import sys

from order_services.inventory.handler import SOURCE
from order_services.inventory.service import build
from order_services.inventory.settings import InventorySettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(SOURCE, InventorySettings, build))
