"""The whole system on this machine: starts it in order, prints figures, stops it in order."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from order_services.local.found_by import FoundBy
from order_services.local.kafka import EmbeddedKafka
from order_services.local.migrating import migrate
from order_services.local.plan import (
    DatabaseAddress,
    Plan,
    ServiceReplica,
)
from order_services.local.ports import LOOPBACK
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import ManagedProcess, StartError
from order_services.local.replicas import Replicas
from order_services.local.rescaling import Rescaling
from order_services.local.server import EmbeddedServer
from order_services.local.summary import Summary, is_ready
from order_services.local.supervisor import Supervisor
from order_services.local.traffic import Traffic
from order_services.operations import topic_admin
from order_services.process.signals import StopSignals

DATABASE_NAME = "ecommerce"
READY_TIMEOUT_S = 90.0
SUMMARY_INTERVAL_S = 5.0
# how soon replicas that are asked for are started
RESCALE_INTERVAL_S = 0.5
DEMO_CANCEL_SHARE = 0.05


class StartInterruptedError(Exception):
    """Ctrl-C arrived while the system was starting."""


def say(message: str) -> None:
    """Tell what is being done."""
    click.echo(f"==> {message}")


def _short(path: Path) -> Path:
    """Return a path as one types it in this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class Up:
    """One run; `kafka` and `database` are those to use instead of embedded ones.

    Raises `StartError`, and `StartInterruptedError` once `stop` is set while it starts.
    """

    def __init__(
        self,
        plan: Plan,
        data_dir: Path,
        stop: StopSignals,
        *,
        kafka: str | None,
        database: DatabaseAddress | None,
    ) -> None:
        self._plan = plan
        self._stop = stop
        self._logs = data_dir / "logs"
        self._supervisor = Supervisor(data_dir, say)
        self._found_by = FoundBy(data_dir)
        self._replicas = Replicas(data_dir)
        self._rescaling = Rescaling(plan, self._replicas, self._supervisor, self._start, say)
        self._kafka = kafka
        self._database = database
        self._broker = EmbeddedKafka(
            data_dir / "data" / "kafka", plan.kafka_port or 0, log_file=self._logs / "kafka.log"
        )
        self._postgres = EmbeddedPostgres(
            data_dir / "data" / "postgres",
            plan.postgres_port or 0,
            log_file=self._logs / "postgres.log",
        )

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Have all programs running inside the block, and none after it."""
        self._supervisor.acquire()
        try:
            # leftovers of a killed run hold ports: look at them only when those have ended
            self._plan.check_ports()
            self._start_all()
            yield
        finally:
            started = self._supervisor.has_programs
            if started:
                say("stopping: gateway, services, then the servers")
            self._supervisor.stop(hurry=self._stop.insisted)
            self._found_by.remove()
            self._replicas.remove()
            self._supervisor.release()
            if started:
                say("stopped")

    def serve(self, *, rate: float | None, seconds: float | None) -> None:
        """Send traffic and print a summary until the time is over or somebody says stop."""
        gateway = self._plan.first("gateway")
        cancel_share = DEMO_CANCEL_SHARE if self._plan.faults else 0.0
        traffic = Traffic(LOOPBACK, gateway.port, rate, cancel_share) if rate else None
        summary = Summary(self._address(), self._plan.monitor_url)
        end = time.monotonic() + seconds if seconds else None
        self._replicas.remove()  # what was asked of an earlier run
        self._rescale()  # whoever reads that all is up can ask for replicas at once
        self._print_urls(rate)
        summary.line()  # the first rate that is printed needs a figure to start from
        next_line = time.monotonic() + SUMMARY_INTERVAL_S
        if traffic:
            traffic.start()
        try:
            while not self._stop.is_set() and (end is None or time.monotonic() < end):
                pause = RESCALE_INTERVAL_S if end is None else end - time.monotonic()
                self._rescale()
                self._stop.wait(min(RESCALE_INTERVAL_S, pause))
                if time.monotonic() < next_line and (end is None or time.monotonic() < end):
                    continue
                next_line = time.monotonic() + SUMMARY_INTERVAL_S
                self._supervisor.revive()
                click.echo(f"{time.strftime('%H:%M:%S')} {summary.line()}")
        finally:
            if traffic:
                traffic.stop()

    def _rescale(self) -> None:
        """Start and stop replicas as somebody asks for them, and tell where they are."""
        if self._rescaling.go_on():
            self._plan = self._rescaling.plan
            self._found_by.write(self._plan, self._brokers(), self._address())

    def _start(self, replica: ServiceReplica) -> None:
        environment = self._plan.environment(replica, self._brokers(), self._address())
        self._supervisor.start(
            ManagedProcess(replica.name, replica.command, self._log(replica.name), environment)
        )

    # -- starting -----------------------------------------------------------------------------

    def _start_all(self) -> None:
        self._start_servers()
        self._create_topics()
        address = self._address()
        say(f"schema: bringing it up in {address.name}")
        migrate(address, say)
        replicas = self._plan.services()
        for replica in replicas:
            say(f"{replica.name}: starting on {replica.url}")
            self._start(replica)
        self._found_by.write(self._plan, self._brokers(), address)
        self._supervisor.start(self._monitor())
        say(f"monitor: starting on {self._plan.monitor_url}")
        self._wait_until_ready(replicas)

    def _start_servers(self) -> None:
        """Start broker and database side by side; Ctrl-C need not wait for a download."""
        servers: list[EmbeddedServer] = []
        if self._kafka is None:
            servers.append(self._broker)
        if self._database is None:
            servers.append(self._postgres)
        outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def start(server: EmbeddedServer) -> None:
            try:
                server.start(say, self._supervisor.adopt)
            except BaseException as error:  # noqa: BLE001  # the main thread raises it
                outcomes.put(error)
            else:
                outcomes.put(None)

        for server in servers:
            # daemons: an unfinished download must not hold up the end of the program
            threading.Thread(target=start, args=(server,), daemon=True).start()
        waiting = len(servers)
        while waiting:
            self._go_on_or_stop()
            with contextlib.suppress(queue.Empty):
                error = outcomes.get(timeout=0.2)
                if error is not None:
                    raise error
                waiting -= 1
        if self._database is None:
            self._postgres.create_database(DATABASE_NAME)

    def _create_topics(self) -> None:
        say(f"topics: creating what is missing on {self._brokers()}")
        try:
            topic_admin.create(topic_admin.admin_client(self._brokers()))
        except topic_admin.TopicError as error:
            raise StartError(f"{self._brokers()}: {error}") from error

    def _monitor(self) -> ManagedProcess:
        return ManagedProcess(
            "monitor",
            [sys.executable, "-m", "monitor", "serve", "--config", str(self._found_by.monitor)],
            self._log("monitor"),
            self._plan.monitor_environment(),
        )

    def _wait_until_ready(self, replicas: list[ServiceReplica]) -> None:
        say("waiting until every service is ready")
        waiting = {replica.name: replica.url for replica in replicas}
        waiting["monitor"] = self._plan.monitor_url
        deadline = time.monotonic() + READY_TIMEOUT_S
        reasons: dict[str, str] = {}
        while waiting:
            self._go_on_or_stop()
            self._supervisor.check_alive()
            for name, url in list(waiting.items()):
                ready, reasons[name] = is_ready(url)
                if ready:
                    del waiting[name]
                    say(f"{name} is ready")
            if waiting and time.monotonic() > deadline:
                why = "; ".join(f"{name}: {reasons[name]}" for name in waiting)
                raise StartError(
                    f"not ready after {READY_TIMEOUT_S:.0f} s: {why} (logs: {self._logs})"
                )
            self._stop.wait(0.2)

    def _go_on_or_stop(self) -> None:
        if self._stop.is_set():
            raise StartInterruptedError

    # -- where things are ---------------------------------------------------------------------

    def _brokers(self) -> str:
        return self._kafka or self._broker.bootstrap_servers

    def _address(self) -> DatabaseAddress:
        server = self._postgres
        return self._database or DatabaseAddress(
            server.host, server.port, DATABASE_NAME, server.user, server.password
        )

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _print_urls(self, rate: float | None) -> None:
        click.echo(
            f"""
  orders     {self._plan.first("gateway").url}/api/orders
  analytics  {self._plan.first("analytics").url}/
  monitor    {self._plan.monitor_url}/        metrics: {self._plan.monitor_url}/metrics
  Kafka      {self._brokers()}
  logs       {self._logs}
  demo       {f"{rate:g} orders a second" if rate else "no orders are sent"}

  the commands find it by
    monitor lag --config {_short(self._found_by.monitor)}
    env $(cat {_short(self._found_by.services)}) order-services dead-letters list
  Ctrl-C stops everything.
"""
        )
