"""Runs one service: its consumer, its relay, its web server, and their orderly end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from order_services.domain.events import Event, EventType
from order_services.domain.topics import ConsumerGroup
from order_services.messaging.batch import Admit, BatchProcessor, Effects
from order_services.messaging.consumer import Consumer
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.messaging.relay import Relay
from order_services.process import logs
from order_services.process.backoff import Backoff
from order_services.process.faults import FaultInjector, injector
from order_services.process.settings import S, ServiceSettings, SettingsError, load
from order_services.process.signals import stop_signals
from order_services.service.admin import add_admin_routes
from order_services.service.health import Health
from order_services.service.shutdown import stop_in_order
from order_services.service.worker import Worker, WorkerThread
from order_services.storage import rings, schema
from order_services.storage.database import Database, is_transient
from order_services.web.app import ServiceApp
from order_services.web.server import PortTakenError, WebServer

EXIT_BROKEN: Final = 1
EXIT_BAD_SETTING: Final = 2
ALIVE_CHECK_SECONDS: Final = 1.0
MAINTENANCE_INTERVAL_SECONDS: Final = 3600.0

_log = structlog.get_logger(__name__)


class Handler(Protocol):
    """A service's rules: changes the database and returns the events that this causes."""

    def __call__(
        self, events: Sequence[Event], connection: Connection
    ) -> Sequence[Event] | Effects:
        """Handle events, each given once, in one transaction that is not theirs to end.

        Raises when an event cannot be processed: the batch is rolled back, the event found and
        sent to the dead-letter topic, and the others are given again. So nothing but `connection`
        may be changed here: what moved is counted after the commit, from what is returned.
        """


class Runtime:
    """What a service's parts share while it runs."""

    def __init__(self, service: Service, settings: ServiceSettings) -> None:
        self.settings = settings
        self.health = Health()
        self.faults = service.faults or injector(service.name, settings)
        self.database = Database(settings, self.faults)
        self.relay = Relay(service.name, settings, self.database)

    def wake_relay(self) -> None:
        """Have the outbox published at once: call it after committing rows to it."""
        self.relay.wake()


@dataclass(frozen=True, slots=True)
class Service:
    """What makes a service: its name, what it reads and what it does.

    `name` is the source of its events and its outbox slice. `handles` are the types that `handler`
    gets; others are passed over, and so are replays unless `takes_replays`. A service whose own tables
    say which events are new brings `admit` in the inbox's place. `on_committed` is told
    of the events of each batch after its commit, on the consumer's thread; it must not block.
    `configure` adds routes to the app that has the probes; `workers` makes background work; `close`
    ends what `configure` began, within so many seconds, once the web server takes no more requests.
    A service whose `requests_need_consumer` is false stays ready while its consumer or a worker has
    stopped, and says so: what it answers does not hang on them.
    A service that injects faults of its own brings the `faults`.
    """

    name: str
    group: ConsumerGroup
    handles: frozenset[EventType]
    handler: Handler
    takes_replays: bool = False
    admit: Admit | None = None
    on_committed: Callable[[Sequence[Event]], None] | None = None
    configure: Callable[[ServiceApp, Runtime], None] | None = None
    close: Callable[[float], None] | None = None
    requests_need_consumer: bool = True
    workers: Callable[[Runtime], Sequence[Worker]] = field(default=lambda _runtime: ())
    faults: FaultInjector | None = None


def main(model: type[S], build: Callable[[S], Service]) -> int:
    """Read the settings, build the service and run it; returns the exit code."""
    try:
        settings = load(model)
    except SettingsError as error:
        print(f"bad settings:\n{error}", file=sys.stderr)  # noqa: T201  # for whoever started it
        return EXIT_BAD_SETTING
    return run_service(build(settings), settings)


def run_service(service: Service, settings: ServiceSettings) -> int:
    """Run until SIGTERM or SIGINT and return the exit code: 1 when a part of the service broke.

    At the end, within `shutdown_timeout_seconds`, the web server stops accepting while the consumer
    finishes its batch, the relay publishes what is left, the pool is closed. What does not end in time
    is not waited for: what is not committed will be delivered again, what is not published stays in
    the outbox.
    """
    logs.configure(settings.log_level, service=service.name, client_id=settings.kafka_client_id)
    try:
        with stop_signals() as stop:
            return run_until(stop, service, settings)
    except PortTakenError as error:
        print(error, file=sys.stderr)  # noqa: T201  # for whoever started it
        return EXIT_BAD_SETTING


def run_until(stop: threading.Event, service: Service, settings: ServiceSettings) -> int:
    """Run until `stop` is set, see `run_service`; raises `PortTakenError` before all else."""
    runtime = Runtime(service, settings)
    consumer = _consumer(service, runtime)
    workers = [
        WorkerThread(worker, settings)
        for worker in (*service.workers(runtime), _maintenance(runtime))
    ]
    health = runtime.health
    waiting_for = ["waiting for the database"]
    health.add_readiness(lambda: next(iter(waiting_for), None))
    health.add_readiness(runtime.database.unreachable)
    for check in (consumer.not_ready, *(worker.not_ready for worker in workers)):
        health.add_readiness(check, gates=service.requests_need_consumer)
    app = ServiceApp(service.name, health)
    add_admin_routes(app, settings.admin_token.get_secret_value(), runtime.faults)
    if service.configure is not None:
        service.configure(app, runtime)
    web = WebServer(app, settings.host, settings.port)
    try:
        # first of all, so that /health and /ready tell what the rest is waiting for
        web.start()
        if _prepare(stop, runtime, waiting_for):
            parts: list[Consumer | WorkerThread | Relay] = [consumer, *workers]
            if settings.relay_enabled:
                parts.append(runtime.relay)
            for part in parts:
                part.start()
                if part is consumer and not service.requests_need_consumer:
                    # its end must not take the front door with it: `kafka_consumer_stopped` pages
                    continue
                health.add_liveness(part.not_alive)
            _log.info("started", port=web.port)
        while not stop.wait(ALIVE_CHECK_SECONDS):
            if reasons := health.alive():
                _log.error("ending to be restarted", reasons=reasons)
                return EXIT_BROKEN
        return 0
    finally:
        _stop(service, runtime, web, [consumer, *workers])


def _consumer(service: Service, runtime: Runtime) -> Consumer:
    settings = runtime.settings
    processor = BatchProcessor(
        source=service.name,
        group=service.group,
        handles=service.handles,
        handle=service.handler,
        takes_replays=service.takes_replays,
        admit=service.admit,
        database=runtime.database,
        limit=DeadLetterLimit(settings.dead_letter_limit, settings.dead_letter_window_seconds),
        faults=runtime.faults,
        # a batch takes two transactions at most: the second looks for what failed in the first
        timeout_seconds=settings.revoke_budget_seconds / 2,
    )
    return Consumer(
        group=service.group,
        settings=settings,
        processor=processor,
        on_written=runtime.wake_relay,
        on_handled=service.on_committed,
    )


def _maintenance(runtime: Runtime) -> Worker:
    def maintain() -> bool:
        with runtime.database.begin() as connection:
            rings.forget_old_inbox(connection)
        return False

    return Worker("inbox-maintenance", MAINTENANCE_INTERVAL_SECONDS, maintain)


def _prepare(stop: threading.Event, runtime: Runtime, waiting_for: list[str]) -> bool:
    """Wait for the database and its schema; False when told to stop before.

    `waiting_for` holds what it waits for.
    """
    settings = runtime.settings
    backoff = Backoff(settings.retry_first_seconds, settings.retry_max_seconds)
    while not stop.is_set():
        try:
            with runtime.database.begin() as connection:
                schema.check(connection)
        except schema.SchemaError as error:
            waiting_for[:] = [str(error)]
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise
            waiting_for[:] = ["waiting for the database"]
        else:
            waiting_for.clear()
            return True
        _log.warning("not started yet", reason=waiting_for[0])
        stop.wait(backoff.next_seconds())
    return False


def _stop(
    service: Service, runtime: Runtime, web: WebServer, parts: Sequence[Consumer | WorkerThread]
) -> None:
    runtime.faults.close()
    in_time = stop_in_order(
        runtime.settings.shutdown_timeout_seconds,
        doors=[web.stop, *([] if service.close is None else [service.close])],
        parts=parts,
        relay=runtime.relay,
    )
    if in_time:
        runtime.database.close()
    _log.info("stopped", in_time=in_time)
