"""Runs one service: its consumer, its relay, its web server, and their orderly end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from order_services.messaging.batch import BatchProcessor
from order_services.messaging.consumer import Consumer
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.messaging.relay import Relay
from order_services.process import logs
from order_services.process.backoff import Backoff
from order_services.process.settings import S, SettingsError, load
from order_services.process.signals import stop_signals
from order_services.service.admin import add_admin_routes
from order_services.service.service import Runtime, Service
from order_services.service.shutdown import stop_in_order
from order_services.service.worker import WorkerThread
from order_services.storage import schema
from order_services.storage.database import is_transient
from order_services.web.app import ServiceApp
from order_services.web.server import PortTakenError, WebServer

EXIT_BROKEN: Final = 1
EXIT_BAD_SETTING: Final = 2
ALIVE_CHECK_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


def main(source: str, model: type[S], build: Callable[[S], Service]) -> int:
    """Read the settings, build the service `source` and run it until SIGTERM or SIGINT.

    Returns the exit code: 1 when a part of the service broke, 2 for settings that cannot be used.

    At the end, within `shutdown_timeout_seconds`, the web server stops accepting while the consumer
    finishes its batch, the relay publishes what is left, the pool is closed. What does not end in time
    is not waited for: what is not committed will be delivered again, what is not published stays in
    the outbox.
    """
    try:
        settings = load(model)
    except SettingsError as error:
        print(f"bad settings:\n{error}", file=sys.stderr)  # noqa: T201  # for whoever started it
        return EXIT_BAD_SETTING
    logs.configure(settings.log_level, service=source, client_id=settings.kafka_client_id)
    try:
        with stop_signals() as stop:
            return run_until(stop, build(settings), stop.for_good)
    except PortTakenError as error:
        print(error, file=sys.stderr)  # noqa: T201  # for whoever started it
        return EXIT_BAD_SETTING


def run_until(
    stop: threading.Event, service: Service, for_good: Callable[[], bool] = lambda: False
) -> int:
    """Run until `stop` is set, see `main`; raises `PortTakenError` before all else.

    When it ends `for_good`, its consumer leaves the group.
    """
    runtime = service.runtime
    settings = runtime.settings
    consumer = _consumer(service)
    workers = [WorkerThread(worker, settings) for worker in service.workers]
    health = runtime.health
    waiting_for = ["waiting for the database"]
    health.add_readiness(lambda: next(iter(waiting_for), None))
    health.add_readiness(runtime.database.unreachable)
    for check in (consumer.not_ready, *(worker.not_ready for worker in workers)):
        health.add_readiness(check, gates=service.requests_need_consumer)
    if service.requests_need_consumer:
        health.add_liveness(runtime.relay.fatal)
    else:
        # as for its consumer: what is accepted waits in the outbox, and a restart would accept nothing
        health.add_readiness(runtime.relay.fatal, gates=False)
    app = ServiceApp(runtime.source, health)
    add_admin_routes(app, settings.admin_token.get_secret_value(), runtime.faults)
    service.api(app)
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
        if for_good():
            consumer.leave_at_stop()
        _stop(service, web, [consumer, *workers])


def _consumer(service: Service) -> Consumer:
    runtime = service.runtime
    settings = runtime.settings
    processor = BatchProcessor(
        source=runtime.source,
        group=service.group,
        handles=service.handles,
        handle=service.handler,
        takes_replays=service.takes_replays,
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


def _stop(service: Service, web: WebServer, parts: Sequence[Consumer | WorkerThread]) -> None:
    runtime = service.runtime
    runtime.faults.close()
    in_time = stop_in_order(
        runtime.settings.shutdown_timeout_seconds,
        doors=[web.stop, service.close],
        parts=parts,
        relay=runtime.relay,
    )
    if in_time:
        runtime.database.close()
    _log.info("stopped", in_time=in_time)
