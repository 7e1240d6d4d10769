"""The whole system as compose runs it: servers, PgBouncer, services, monitor and demo orders.

with watched(directory, orders_per_second=20) as system:
    system.replica("payment").kill()
    ...

Unlike under `order-services up` nothing revives what dies: a fault lasts until it is repaired. Who
scrapes it is up to the caller.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dashboards.prometheus import Client, Target
from order_services.domain.services import SERVICES
from order_services.local.plan import Plan
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from order_services.local.traffic import Traffic
from tests.crash.shop import DATABASE, FAST_RECOVERY, Shop
from tests.support.declared_metrics import MONITOR_JOB, SERVICES_JOB
from tests.support.pgbouncer import EmbeddedPgBouncer
from tests.support.programs import program
from tests.support.waiting import wait_for

ADMIN_TOKEN: Final = "a-token-of-this-test-only"
CLUSTER: Final = "local"
ONE_OF_EACH: Final = dict.fromkeys(SERVICES, 1)
# The shortest poll that the monitor takes. What it asks for more rarely would make a test wait.
MONITOR_PACE: Final = {
    f"MONITOR_{name}": "1"
    for name in (
        "POLL_INTERVAL",
        "METADATA_INTERVAL",
        "START_OFFSETS_INTERVAL",
        "TOPIC_CONFIGS_INTERVAL",
    )
}


# Whose patience is shortened as that of the rules is, and the monitor as it is.
PACED_MONITOR: Final = "tests.support.paced_monitor"
MONITOR: Final = "monitor"


class Monitor(ManagedProcess):
    """A lag monitor on a free port; `settings` are its environment."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str], program: str = PACED_MONITOR
    ) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        super().__init__(
            "monitor",
            [sys.executable, "-m", program, "serve"],
            directory / "monitor.log",
            {
                **os.environ,
                **MONITOR_PACE,
                "MONITOR_HOST": LOOPBACK,
                "MONITOR_PORT": str(port),
                **settings,
            },
        )

    def start(self) -> None:
        """Start, and wait until it is ready."""
        super().start()

        def ready() -> bool:
            assert self.running, self.log_tail()
            return is_ready(self.url)[0]

        wait_for("monitor that is ready", ready)


@dataclass(frozen=True, slots=True)
class WatchedSystem:
    """What `watched` runs."""

    shop: Shop
    pgbouncer: EmbeddedPgBouncer
    monitor: Monitor
    traffic: Traffic

    def replica(self, service: str, number: int = 1) -> ManagedProcess:
        """Return a replica's process."""
        return self.shop.replicas[f"{service}-{number}"]

    def url(self, service: str) -> str:
        """Return where a service's first replica listens."""
        return self.shop.specs[f"{service}-1"].url

    @property
    def service_urls(self) -> list[tuple[str, str]]:
        """The service and the URL of each replica."""
        return [(spec.service, spec.url) for spec in self.shop.specs.values()]

    @property
    def targets(self) -> list[Target]:
        """What a Prometheus is to scrape."""
        services = [
            Target(SERVICES_JOB, _address(url), {"service": service})
            for service, url in self.service_urls
        ]
        return [Target(MONITOR_JOB, _address(self.monitor.url)), *services]

    def start_again(self, service: str, number: int = 1) -> None:
        """Start a replica that has ended, and wait until it is ready."""
        name = f"{service}-{number}"
        self.shop.replicas[name].start()
        wait_for(f"{name} that is ready", lambda: is_ready(self.shop.specs[name].url)[0])

    @contextmanager
    def frozen(self, service: str, number: int = 1) -> Iterator[None]:
        """Have a replica stand still inside the block."""
        self.replica(service, number).pause()
        try:
            yield
        finally:
            self.replica(service, number).resume()

    def deny_connections(self, seconds: float) -> None:
        """Have PgBouncer give the services no server connection for a while: they wait."""
        console = self.pgbouncer.connect("pgbouncer")
        try:
            with console.cursor() as cursor:
                cursor.execute(f"PAUSE {DATABASE}")
                time.sleep(seconds)
                cursor.execute(f"RESUME {DATABASE}")
        finally:
            console.close()

    def end_connections_until_a_batch_is_tried_again(self, prometheus: Client) -> None:
        """End every connection of the services, as a failover of the database would.

        More than once: PgBouncer replaces one that no transaction is using, and nobody notices.
        """
        connection = self.shop.postgres.connect("postgres")

        def tried_again() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                    " AND application_name LIKE %s",
                    (DATABASE, "%-service-%"),
                )
            return bool(prometheus.query("kafka_batch_retries_total", time.time()))

        try:
            wait_for("batch that was tried again", tried_again)
        finally:
            connection.close()


@contextmanager
def watched(
    directory: Path,
    orders_per_second: float,
    *,
    replicas: Mapping[str, int] = ONE_OF_EACH,
    settings: Mapping[str, str] | None = None,
    cancel_share: float = 0.0,
    monitor_program: str = PACED_MONITOR,
) -> Iterator[WatchedSystem]:
    """Have everything running, with demo orders, inside the block; `settings` are the services'."""
    program("pgbouncer", "pgbouncer")
    shop = Shop(
        directory / "shop",
        settings={
            **FAST_RECOVERY,
            "DB_VIA_PGBOUNCER": "true",
            "ADMIN_TOKEN": ADMIN_TOKEN,
            **(settings or {}),
        },
    )
    pgbouncer = EmbeddedPgBouncer(directory / "pgbouncer", shop.postgres.port)
    shop.address = replace(
        shop.directly, port=pgbouncer.port, user=pgbouncer.user, password=pgbouncer.password
    )
    with ExitStack() as stack:
        stack.callback(pgbouncer.stop)
        stack.callback(shop.stop)
        pgbouncer.start()
        shop.start({**ONE_OF_EACH, **replicas})
        plan = Plan(replicas, shop.base_port, 1, None, None)
        settings_of_run = plan.monitor_settings(shop.broker.bootstrap_servers, shop.directly)
        monitor = Monitor(
            directory,
            {
                "MONITOR_DATABASE_URL": settings_of_run["database_url"],
                "MONITOR_SERVICE_URLS": ",".join(settings_of_run["service_urls"]),
                "KAFKA_BROKERS": shop.broker.bootstrap_servers,
                "MONITOR_CLUSTER": CLUSTER,
                "MONITOR_PGBOUNCER_URL": pgbouncer.url(),
            },
            monitor_program,
        )
        stack.callback(monitor.stop)
        monitor.start()
        gateway = shop.specs["gateway-1"]
        traffic = Traffic(LOOPBACK, gateway.port, orders_per_second, cancel_share)
        stack.callback(traffic.stop)
        traffic.start()
        yield WatchedSystem(shop, pgbouncer, monitor, traffic)


def _address(url: str) -> str:
    return url.removeprefix("http://")
