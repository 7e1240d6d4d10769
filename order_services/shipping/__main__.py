"""Runs the shipping service."""

import sys

from order_services.shipping.service import main

sys.exit(main())
