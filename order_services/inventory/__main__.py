"""Runs the inventory service."""

import sys

from order_services.inventory.service import main

sys.exit(main())
