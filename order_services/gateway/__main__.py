"""`python -m order_services.gateway`."""

import sys

from order_services.gateway.service import gateway_service
from order_services.gateway.settings import GatewaySettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(GatewaySettings, gateway_service))
