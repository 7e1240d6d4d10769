"""Take the README's pictures of the status page, from a cluster in memory that has a bad day.

Part of `make pictures`; needs Chromium.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from monitor.history.summary import Summary
from scripts.pictures import PICTURES, shrink
from tests.support.browser import chromium, path_of_chromium
from tests.support.shown_cluster import ShownCluster, serve

VIEWS: Final = (
    ("status", "/", "light", 1200, 400),
    ("group", "/group?group=payment-service-group", "light", 1200, 1150),
)


def bad_day() -> ShownCluster:
    """Return the order system, of which the payments can't keep up."""
    cluster = ShownCluster(
        name="shop",
        topics={"orders": 6, "payments": 3, "inventory": 3, "shipping": 3},
        reads={
            "payment-service-group": "orders",
            "inventory-service-group": "orders",
            "shipping-service-group": "payments",
            "order-status-group": "payments",
            "analytics-service-group": "shipping",
        },
        lags={"payment-service-group": 0, "shipping-service-group": 900},
        growth={"payment-service-group": 120, "shipping-service-group": -60},
        members={"payment-service-group": 2, "inventory-service-group": 3},
    )
    cluster.warm_up()
    return cluster


def past(_: str, group: str, since: float, until: float) -> Sequence[Summary]:
    """Return an hour in which a replica left, and what came since waits."""
    step = (until - since) / 60
    late = [max(0, i - 25) for i in range(60)]
    return [
        Summary(
            group, since + i * step, lag=140 * late[i] + 4 * late[i] ** 2, members=3 if i < 25 else 2,
            behind=late[i] * 4.0, status=1 if i < 32 else 2, rebalances=0 if i < 25 else 1,
        )
        for i in range(60)
    ]  # fmt: skip


def main() -> None:
    """Serve the cluster and take each view of it."""
    if path_of_chromium() is None:
        sys.exit("pictures: Chromium is needed: install your system's package `chromium`")
    server, port = serve(0, bad_day(), history=past)
    with chromium() as browser:
        for name, path, theme, width, height in VIEWS:
            page = browser.new_page(
                base_url=f"http://127.0.0.1:{port}",
                viewport={"width": width, "height": height},
                color_scheme="dark" if theme == "dark" else "light",
            )
            page.goto(path)
            page.locator("table.rows tbody tr[aria-rowindex]").first.wait_for()
            time.sleep(1)  # fonts and the curve are drawn
            target = PICTURES / f"{name}.png"
            page.screenshot(path=target)
            shrink(target)
            page.close()
    server.stop()


if __name__ == "__main__":
    main()
