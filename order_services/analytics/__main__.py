"""Runs analytics: `python -m order_services.analytics`."""

import sys

from order_services.analytics.counting import SOURCE
from order_services.analytics.service import build
from order_services.analytics.settings import AnalyticsSettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(SOURCE, AnalyticsSettings, build))
