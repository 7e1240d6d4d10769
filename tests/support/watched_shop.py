"""The whole system, watched: servers, services, monitor, demo orders, Prometheus, Alertmanager.

Unlike `RunningSystem` nothing revives what dies: a fault lasts until the test repairs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from order_services.local.plan import SERVICES, Plan
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from order_services.local.traffic import Traffic
from tests.crash.shop import FAST_RECOVERY, Shop
from tests.support.alert_pace import Pace
from tests.support.alerting import Alerting, targets_of
from tests.support.waiting import wait_for

ADMIN_TOKEN: Final = "a-token-of-this-test-only"
# the shortest that the monitor takes
POLL_SECONDS: Final = 1.0


@dataclass
class WatchedShop:
    """What is watched and who watches; `watched` makes one."""

    shop: Shop
    monitor: ManagedProcess
    traffic: Traffic
    alerting: Alerting

    def replica(self, service: str) -> ManagedProcess:
        """Return the process of a service."""
        return self.shop.replicas[f"{service}-1"]

    def url(self, service: str) -> str:
        """Return where a service listens."""
        return self.shop.specs[f"{service}-1"].url

    def start_again(self, service: str) -> None:
        """Start a service that has ended, and wait until it is ready."""
        self.replica(service).start()
        wait_for(f"{service} that is ready", lambda: is_ready(self.url(service))[0])


@contextmanager
def watched(directory: Path, pace: Pace, orders_per_second: float) -> Iterator[WatchedShop]:
    """Have everything running, with demo orders, inside the block."""
    settings = {**FAST_RECOVERY, "ADMIN_TOKEN": ADMIN_TOKEN}
    shop = Shop(directory / "shop", settings=settings)
    port = free_port()
    monitor_url = f"http://{LOOPBACK}:{port}"
    with ExitStack() as stack:
        stack.callback(shop.stop)
        shop.start(dict.fromkeys(SERVICES, 1))
        plan = Plan({}, shop.base_port, port, None, None)
        monitor = ManagedProcess(
            "monitor",
            [
                *(sys.executable, "-m", "monitor", "serve"),
                *("--bootstrap-servers", shop.broker.bootstrap_servers),
                *("--host", LOOPBACK, "--port", str(port), "--poll-interval", str(POLL_SECONDS)),
            ],
            directory / "monitor.log",
            plan.monitor_environment(shop.address),
        )
        monitor.start()
        stack.callback(monitor.stop)
        wait_for("monitor that is ready", lambda: is_ready(monitor_url)[0])
        traffic = Traffic(LOOPBACK, plan.first("gateway").port, orders_per_second)
        traffic.start()
        stack.callback(traffic.stop)
        services = [(spec.service, spec.url) for spec in shop.specs.values()]
        alerting = Alerting(directory / "alerting", targets_of(monitor_url, services), pace)
        yield WatchedShop(shop, monitor, traffic, stack.enter_context(alerting))
