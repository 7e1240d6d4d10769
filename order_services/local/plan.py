"""Which programs run, on which ports, with which environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from order_services.domain.services import PORTS, SERVICES
from order_services.local.ports import LOOPBACK, is_free

REPLICA_STEP = 10  # payment listens on 4001, its second replica on 4011
# A shop on a bad day: enough to see alerts and dashboards at work, too little to stop anything.
DEMO_FAULTS: Mapping[str, str] = {
    "FAULT_PAYMENT_REFUSAL_RATE": "0.05",
    "FAULT_MESSAGE_DELAY_SECONDS": "0.002",
    "FAULT_POISON_RATE": "0.001",
    "FAULT_DATABASE_PAUSE_SECONDS": "2",
    "FAULT_DATABASE_PAUSE_EVERY_SECONDS": "60",
}
MONITOR_POLL_INTERVAL_S = 5
MAX_REPLICAS = 9  # a tenth replica of the first service would get the port of nobody's guess


_OF_THE_FILE: Final = frozenset(
    {
        "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "MONITOR_DATABASE_URL", "MONITOR_HISTORY_URL",
        "MONITOR_HOST", "MONITOR_POLL_INTERVAL", "MONITOR_PORT", "MONITOR_SERVICE_URLS",
    }
)  # fmt: skip


class PortTakenError(Exception):
    """Ports that this run needs are in use; the message says which and what to change."""


@dataclass(frozen=True)
class ServiceReplica:
    """One process of a service."""

    service: str
    number: int
    port: int

    @property
    def name(self) -> str:
        """The replica's name in logs and in Kafka, for example `payment-2`."""
        return f"{self.service}-{self.number}"

    @property
    def url(self) -> str:
        """Where the replica listens."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def command(self) -> list[str]:
        """The command line that starts it."""
        return [sys.executable, "-m", f"order_services.{self.service}"]


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the services' database is."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """Ports and replica counts of one run."""

    replicas: Mapping[str, int]
    base_port: int
    monitor_port: int
    kafka_port: int | None  # None: an existing broker is used
    postgres_port: int | None  # None: an existing database is used
    faults: Mapping[str, str] = field(default_factory=dict)  # FAULT_* of every service

    def services(self) -> list[ServiceReplica]:
        """Return every replica, first replicas first."""
        return [
            ServiceReplica(service, number, self._port(service, number))
            for service in SERVICES
            for number in range(1, self.replicas.get(service, 1) + 1)
        ]

    def replica(self, service: str, number: int) -> ServiceReplica:
        """Return one replica, whether or not there are so many."""
        return ServiceReplica(service, number, self._port(service, number))

    def _port(self, service: str, number: int) -> int:
        return self.base_port + PORTS[service] - PORTS["gateway"] + REPLICA_STEP * (number - 1)

    def _urls(self, service: str) -> str:
        return ",".join(each.url for each in self.services() if each.service == service)

    def first(self, service: str) -> ServiceReplica:
        """Return a service's first replica."""
        return self.replica(service, 1)

    @property
    def monitor_url(self) -> str:
        """Where the monitor's status page is."""
        return f"http://{LOOPBACK}:{self.monitor_port}"

    def check_ports(self) -> None:
        """Raise PortTakenError unless every port is free: nothing is started half."""
        taken = [
            f"port {port} ({user}) is taken: choose another with {setting}"
            for port, user, setting in self._wanted()
            if not is_free(port)
        ]
        if taken:
            raise PortTakenError("\n".join(taken))

    def _wanted(self) -> Iterator[tuple[int, str, str]]:
        if self.kafka_port is not None:
            yield (
                self.kafka_port,
                "Kafka",
                "--kafka-port, or use that broker with --kafka HOST:PORT",
            )
        if self.postgres_port is not None:
            yield (
                self.postgres_port,
                "PostgreSQL",
                "--postgres-port, or use that server with --database URL",
            )
        for replica in self.services():
            yield replica.port, replica.name, "--base-port (every service's port moves with it)"
        yield self.monitor_port, "monitor", "--monitor-port"

    def environment(
        self, replica: ServiceReplica, brokers: str, database: DatabaseAddress
    ) -> dict[str, str]:
        """Return a replica's whole environment."""
        return {
            **os.environ,
            "HOST": LOOPBACK,
            "PORT": str(replica.port),
            "KAFKA_CLIENT_ID": f"{replica.service}-service-{replica.number}",
            "INSTANCE_ID": str(replica.number),
            **self.commands_environment(brokers, database),
            **self.faults,
        }

    def commands_environment(self, brokers: str, database: DatabaseAddress) -> dict[str, str]:
        """Return what `order-services` commands need to find this run."""
        return {
            "KAFKA_BROKERS": brokers,
            "DB_HOST": database.host,
            "DB_PORT": str(database.port),
            "DB_NAME": database.name,
            "DB_USER": database.user,
            "DB_PASSWORD": database.password,
            **{f"{service.upper()}_URL": self._urls(service) for service in SERVICES},
            "MONITOR_URL": self.monitor_url,
        }

    def monitor_settings(self, brokers: str, database: DatabaseAddress) -> dict[str, Any]:
        """Return the monitor's settings file: what runs by it, and what finds this run by it."""
        user, password = quote(database.user, safe=""), quote(database.password, safe="")
        return {
            "host": LOOPBACK,
            "port": self.monitor_port,
            "poll_interval": MONITOR_POLL_INTERVAL_S,
            "kafka": {"bootstrap_servers": brokers},
            "database_url": (
                f"postgresql://{user}:{password}@{database.host}:{database.port}/{database.name}"
            ),
            "service_urls": [f"{replica.name}={replica.url}" for replica in self.services()],
        }

    @staticmethod
    def monitor_environment() -> dict[str, str]:
        """Return the monitor's environment, without what would go before its settings file."""
        return {name: value for name, value in os.environ.items() if name not in _OF_THE_FILE}


def parse_replicas(text: str) -> dict[str, int]:
    """Read `payment=3,inventory=2`; raises ValueError that says what is allowed."""
    counts: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        service, _, number = part.partition("=")
        if service not in SERVICES:
            raise ValueError(f"{service!r} is no service; there are {', '.join(SERVICES)}")
        if not number.isdigit() or not 1 <= int(number) <= MAX_REPLICAS:
            raise ValueError(f"{part!r}: say {service}=N with N from 1 to {MAX_REPLICAS}")
        counts[service] = int(number)
    return counts
