"""Runs shipping: `python -m order_services.shipping`."""

import sys

from order_services.service.run import main
from order_services.shipping.handler import SOURCE
from order_services.shipping.service import build
from order_services.shipping.settings import ShippingSettings

if __name__ == "__main__":
    sys.exit(main(SOURCE, ShippingSettings, build))
