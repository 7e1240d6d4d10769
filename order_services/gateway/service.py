"""Puts the gateway together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from order_services.domain.topics import GATEWAY_GROUP
from order_services.gateway.accepting import SOURCE, OrderWriter, prune_keys
from order_services.gateway.fleet import Fleet
from order_services.gateway.following import HANDLES, follow
from order_services.gateway.replaying import ReplayJobs, add_replay_routes
from order_services.gateway.routes import add_routes
from order_services.gateway.settings import GatewaySettings
from order_services.service.service import Runtime, Service
from order_services.service.worker import MAINTENANCE_INTERVAL_SECONDS, Worker

if TYPE_CHECKING:
    from order_services.web.app import ServiceApp


def build(settings: GatewaySettings) -> Service:
    """Return the service that these settings describe."""
    runtime = Runtime(SOURCE, settings)
    database = runtime.database
    writer = OrderWriter(
        database,
        on_committed=runtime.wake_relay,
        max_orders=settings.accept_batch_max_orders,
        timeout_seconds=settings.accept_timeout_seconds,
    )
    fleet = Fleet(settings.service_urls)
    replays = ReplayJobs(settings, database)
    runtime.health.add_liveness(lambda: writer.dead)

    def api(app: ServiceApp) -> None:
        writer.start()
        add_routes(
            app, database=database, writer=writer, fleet=fleet, wake_relay=runtime.wake_relay
        )
        add_replay_routes(app, settings.admin_token.get_secret_value(), replays)

    def close(timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        # a replay may be begun again; orders that were let in have to be written
        replays.ask_to_stop()
        fleet.close()
        writer.close(max(0.0, deadline - time.monotonic()))
        replays.close(max(0.0, deadline - time.monotonic()))

    def prune() -> bool:
        return prune_keys(database, settings.idempotency_key_retention_hours * 3600)

    return Service(
        runtime,
        GATEWAY_GROUP,
        HANDLES,
        follow,
        api=api,
        close=close,
        workers=[Worker("idempotency-keys", MAINTENANCE_INTERVAL_SECONDS, prune)],
        # orders go into the outbox: they are accepted while Kafka is away
        requests_need_consumer=False,
    )
