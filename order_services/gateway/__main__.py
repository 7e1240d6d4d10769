"""Runs the gateway: `python -m order_services.gateway`."""

import sys

from order_services.gateway.accepting import SOURCE
from order_services.gateway.service import build
from order_services.gateway.settings import GatewaySettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(SOURCE, GatewaySettings, build))
