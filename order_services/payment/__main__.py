"""Runs the payment service."""

import sys

from order_services.payment.service import main

sys.exit(main())
