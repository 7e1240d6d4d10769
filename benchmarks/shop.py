"""The services as `order-services up` starts them, on servers of a benchmark's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.support import Servers, cpu_seconds, say
from order_services.domain.services import SERVICES
from order_services.local.migrating import migrate
from order_services.local.plan import DatabaseAddress, Plan
from order_services.local.ports import free_base_port, free_port
from order_services.local.process import ManagedProcess
from order_services.local.summary import is_ready
from order_services.operations import topic_admin

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0
DATABASE: Final = "shop"


class Shop:
    """Running services, each a process."""

    def __init__(self, plan: Plan, processes: Mapping[str, ManagedProcess], own: Servers) -> None:
        self._plan = plan
        self._processes = processes
        self._own = own

    @property
    def gateway_port(self) -> int:
        """Where orders are sent."""
        return self._plan.first("gateway").port

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of each service, of the broker and of the database."""
        services = {name: cpu_seconds(each.pid) for name, each in self._processes.items()}
        return services | self._own.cpu_seconds()


@contextmanager
def running(
    own: Servers, services: Sequence[str] = SERVICES, settings: Mapping[str, str] | None = None
) -> Iterator[Shop]:
    """Start one process of each service and wait until all are ready; stop them at the end."""
    topic_admin.create(topic_admin.admin_client(own.kafka.bootstrap_servers))
    own.postgres.create_database(DATABASE)
    address = DatabaseAddress(
        own.postgres.host, own.postgres.port, DATABASE, own.postgres.user, own.postgres.password
    )
    migrate(address)
    plan = Plan({}, free_base_port(range(len(SERVICES))), free_port(), None, None)
    replicas = [replica for replica in plan.services() if replica.service in services]
    processes = {
        replica.service: ManagedProcess(
            replica.name,
            replica.command,
            own.directory / f"{replica.name}.log",
            plan.environment(replica, own.kafka.bootstrap_servers, address) | dict(settings or {}),
        )
        for replica in replicas
    }
    say(f"starting {', '.join(processes)}")
    try:
        for process in processes.values():
            process.start()
        deadline = time.monotonic() + READY_SECONDS
        for replica in replicas:
            while not is_ready(replica.url)[0]:
                if time.monotonic() > deadline or not processes[replica.service].running:
                    tail = processes[replica.service].log_tail()
                    raise RuntimeError(f"{replica.name} did not become ready:\n{tail}")
                time.sleep(0.2)
        yield Shop(plan, processes, own)
    finally:
        for process in processes.values():
            process.request_stop()
        for process in processes.values():
            process.wait(STOP_SECONDS)
