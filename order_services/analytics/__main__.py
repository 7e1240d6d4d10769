"""`python -m order_services.analytics`."""

import sys

from order_services.analytics.service import Analytics
from order_services.analytics.settings import AnalyticsSettings
from order_services.service.run import main

if __name__ == "__main__":
    sys.exit(main(AnalyticsSettings, lambda settings: Analytics(settings).service()))
