"""The system under test: real broker, database and services, each of which can be broken at will."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from order_services.local.kafka import EmbeddedKafka
from order_services.local.migrating import migrate
from order_services.local.plan import DatabaseAddress, Plan, ServiceReplica
from order_services.local.ports import free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from order_services.operations import topic_admin
from tests.support.running_system import services_base_port
from tests.support.waiting import wait_for

DATABASE = "shop"
READY_TIMEOUT_S = 120.0
# A dead member's partitions are handed on, and a timed-out request is repeated, within seconds:
# the run is about what happens then, not about waiting for it.
FAST_RECOVERY: Mapping[str, str] = {
    "SESSION_TIMEOUT_SECONDS": "6",
    "DB_STATEMENT_TIMEOUT_SECONDS": "10",
    "SHIPPING_DELIVERY_DELAY_SECONDS": "0.5",
}


def plain_command(service: str) -> list[str]:
    """Return the command line that production uses."""
    return [sys.executable, "-m", f"order_services.{service}"]


@dataclass
class Shop:
    """Everything that can die, and how to bring it back.

    Its methods are called from several threads: `lock` keeps a restart and a stop of the same
    program apart.
    """

    directory: Path
    command: Callable[[str], list[str]] = plain_command
    base_port: int = field(default_factory=services_base_port)
    settings: Mapping[str, str] = field(default_factory=lambda: FAST_RECOVERY)
    replicas: dict[str, ManagedProcess] = field(default_factory=dict)
    specs: dict[str, ServiceReplica] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.broker = EmbeddedKafka(self.directory / "kafka", log_file=self.directory / "kafka.log")
        self.postgres = EmbeddedPostgres(
            self.directory / "postgres", log_file=self.directory / "postgres.log"
        )
        self.directly = self.address = DatabaseAddress(
            self.postgres.host,
            self.postgres.port,
            DATABASE,
            self.postgres.user,
            self.postgres.password,
        )
        self._plan = Plan({}, self.base_port, free_port(), self.broker.port, self.postgres.port)

    def start(self, replicas: Mapping[str, int]) -> None:
        """Start servers and services, and wait until every one is ready."""
        self.broker.start()
        self.postgres.start()
        self.postgres.create_database(DATABASE)
        migrate(self.directly)  # a pooler, in `address`, is no place for a migration
        topic_admin.create(topic_admin.admin_client(self.broker.bootstrap_servers))
        for service, count in replicas.items():
            self.scale(service, count)
        self.wait_until_ready()

    def scale(self, service: str, count: int) -> None:
        """Have exactly `count` replicas: start what is missing, stop what is too many in order."""
        wanted = Plan({service: count}, self.base_port, 1, None, None).services()
        with self.lock:
            names = set()
            for replica in wanted:
                if replica.service != service:
                    continue
                names.add(replica.name)
                if replica.name not in self.replicas:
                    self._start(replica)
            for name in [name for name in self.replicas if self.specs[name].service == service]:
                if name not in names:
                    self.replicas.pop(name).stop(timeout_s=30)
                    del self.specs[name]

    def _process(self, replica: ServiceReplica, **changes: str) -> ManagedProcess:
        environment = self._plan.environment(
            replica, self.broker.bootstrap_servers, self.address
        ) | dict(self.settings)
        return ManagedProcess(
            replica.name,
            self.command(replica.service),
            self.directory / f"{replica.name}.log",
            environment | changes,
        )

    def intruder(self, name: str) -> ManagedProcess:
        """Return a second process of a replica, as a copied environment file makes one."""
        with self.lock:
            return self._process(self.specs[name], PORT=str(free_port()))

    def _start(self, replica: ServiceReplica) -> None:
        process = self._process(replica)
        process.start()
        self.replicas[replica.name] = process
        self.specs[replica.name] = replica

    def revive(self) -> None:
        """Start every program that is dead."""
        with self.lock:
            for process in (self.broker.process, self.postgres.process, *self.replicas.values()):
                if process is not None and not process.running:
                    process.start()

    def wait_until_ready(self, service: str | None = None) -> float:
        """Wait until all replicas (of a service) are ready, reviving what dies; return how long."""
        started = time.monotonic()

        def unready() -> list[str]:
            self.revive()
            return [
                name
                for name, spec in self.specs.items()
                if service in (None, spec.service) and not is_ready(spec.url)[0]
            ]

        wait_for("ready replicas", lambda: not unready(), READY_TIMEOUT_S)
        return time.monotonic() - started

    @property
    def gateways(self) -> list[ServiceReplica]:
        """The gateway's replicas."""
        return [spec for spec in self.specs.values() if spec.service == "gateway"]

    def stop(self) -> None:
        """Stop everything."""
        for process in self.replicas.values():
            process.request_stop()
        for process in self.replicas.values():
            process.wait(20)
        self.broker.stop()
        self.postgres.stop()
