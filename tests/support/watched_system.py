"""The whole system behind PgBouncer, watched by the monitor and by Prometheus, as compose runs it.

with WatchedSystem(directory, ("--rate", "30", "--faults")) as watched:
    watched.restart_a_consumer()
    ...
    watched.prometheus.client.query(...)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from unittest import mock

import psutil

from dashboards.prometheus import LocalPrometheus, Target
from order_services.local.pgbouncer import EmbeddedPgBouncer
from order_services.local.plan import SERVICES
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import ManagedProcess
from tests.support.declared_metrics import MONITOR_JOB, SERVICES_JOB
from tests.support.running_system import RunningSystem, get_text
from tests.support.waiting import wait_for

DATABASE: Final = "ecommerce"
POLL_INTERVAL_S: Final = 2
# members are static: a restart makes no rebalance, but one that is away for longer than this does
SESSION_TIMEOUT_S: Final = 6


@dataclass
class WatchedSystem:
    """Everything on free ports, in a directory of its own; `arguments` are those of `up`."""

    directory: Path
    arguments: tuple[str, ...] = ()
    replicas: dict[str, int] = field(default_factory=dict)
    scrape_interval_s: int = 2
    rules: Sequence[Path] = ()
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.postgres = EmbeddedPostgres(self.directory / "postgres", free_port())
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        self.postgres.create_database(DATABASE)
        self.pgbouncer = EmbeddedPgBouncer(self.directory / "pgbouncer", self.postgres.port)
        self._stack.callback(self.pgbouncer.stop)
        self.pgbouncer.start()
        replicas = ",".join(f"{service}={count}" for service, count in self.replicas.items())
        self.system = RunningSystem(
            self.directory / "up",
            ("--database", self.pgbouncer.url(DATABASE), "--replicas", replicas, *self.arguments),
        )
        self._stack.callback(self._stop_system)
        environment = {
            "DB_VIA_PGBOUNCER": "true",
            "SESSION_TIMEOUT_SECONDS": str(SESSION_TIMEOUT_S),
        }
        with mock.patch.dict(os.environ, environment):
            self.system.start()
        self.system.wait_until_up()
        # `up` takes --database for PostgreSQL itself, and its monitor knows of no PgBouncer
        self.monitor_url = self._start_monitor()
        self.prometheus = self._stack.enter_context(
            LocalPrometheus(
                self.directory / "prometheus",
                self._targets(),
                rules=self.rules,
                scrape_interval_s=self.scrape_interval_s,
            )
        )

    def _stop_system(self) -> None:
        if self.system.process is not None:
            self.system.stop()

    @property
    def services(self) -> dict[str, tuple[str, str]]:
        """Each replica's service and URL by its name."""
        return {
            f"{service}-{number}": (service, self.system.service_url(service, number))
            for service in SERVICES
            for number in range(1, self.replicas.get(service, 1) + 1)
        }

    @property
    def pools_environment(self) -> dict[str, str]:
        """What the monitor and `monitor pools` need to know of the databases."""
        urls = (f"{name}={url}" for name, (_, url) in self.services.items())
        return {
            "MONITOR_DATABASE_URL": (
                f"postgresql://{self.postgres.user}@{LOOPBACK}:{self.postgres.port}/{DATABASE}"
            ),
            "MONITOR_PGBOUNCER_URL": self.pgbouncer.url(),
            "MONITOR_SERVICE_URLS": ",".join(urls),
        }

    def _start_monitor(self) -> str:
        port = free_port()
        process = ManagedProcess(
            "monitor",
            [
                *(sys.executable, "-m", "monitor", "serve", "--cluster", "local"),
                *("--bootstrap-servers", self.system.bootstrap_servers),
                *("--port", str(port), "--poll-interval", str(POLL_INTERVAL_S)),
            ],
            self.directory / "monitor.log",
            {**os.environ, **self.pools_environment},
        )
        self._stack.callback(process.stop)
        process.start()
        url = f"http://{LOOPBACK}:{port}"

        def ready() -> bool:
            assert process.running, process.log_tail()
            try:
                get_text(f"{url}/ready")
            except OSError:
                return False
            return True

        wait_for("monitor that is ready", ready)
        return url

    def _targets(self) -> list[Target]:
        services = [
            Target(SERVICES_JOB, url.removeprefix("http://"), {"service": service})
            for service, url in self.services.values()
        ]
        return [Target(MONITOR_JOB, self.monitor_url.removeprefix("http://")), *services]

    def kill(self, replica: str) -> None:
        """End a replica as a crash would: the supervisor starts it again."""
        pid = self.system.programs()[replica]
        psutil.Process(pid).kill()
        wait_for(
            f"another {replica}", lambda: self.system.programs().get(replica) not in {None, pid}
        )

    @contextmanager
    def frozen(self, replica: str) -> Iterator[None]:
        """Have a replica stand still inside the block."""
        process = psutil.Process(self.system.programs()[replica])
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def deny_connections(self, seconds: float) -> None:
        """Have PgBouncer hand out no server connection for a while: clients wait."""
        console = self.pgbouncer.connect("pgbouncer")
        try:
            with console.cursor() as cursor:
                cursor.execute(f"PAUSE {DATABASE}")
                time.sleep(seconds)
                cursor.execute(f"RESUME {DATABASE}")
        finally:
            console.close()

    def end_connections_until_a_batch_is_tried_again(self) -> None:
        """End every connection of the services, as a failover of the database would.

        More than once: PgBouncer replaces one that no transaction is using, and nobody notices.
        """
        connection = self.postgres.connect("postgres")

        def tried_again() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                    " AND application_name LIKE %s",
                    (DATABASE, "%-service-%"),
                )
            return bool(self.prometheus.client.query("kafka_batch_retries_total", time.time()))

        try:
            wait_for("batch that was tried again", tried_again)
        finally:
            connection.close()
