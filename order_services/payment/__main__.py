"""Runs payment: `python -m order_services.payment`."""

import sys

from order_services.payment.handler import SOURCE
from order_services.payment.service import build
from order_services.payment.settings import PaymentSettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(SOURCE, PaymentSettings, build))
