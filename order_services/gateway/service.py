"""The gateway as a service: its parts put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from order_services.domain.topics import GATEWAY_GROUP
from order_services.gateway.accepting import SERVICE, OrderWriter, prune_keys
from order_services.gateway.fleet import Fleet
from order_services.gateway.following import HANDLES, follow
from order_services.gateway.replaying import ReplayJobs, add_replay_routes
from order_services.gateway.routes import add_routes
from order_services.gateway.settings import GatewaySettings
from order_services.service.run import MAINTENANCE_INTERVAL_SECONDS, Runtime, Service
from order_services.service.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from order_services.web.app import ServiceApp


def gateway_service(settings: GatewaySettings) -> Service:
    """Return what the runtime needs to run the gateway."""
    closing: list[Callable[[float], object]] = []

    def configure(app: ServiceApp, runtime: Runtime) -> None:
        writer = OrderWriter(
            runtime.database,
            on_committed=runtime.wake_relay,
            max_orders=settings.accept_batch_max_orders,
            timeout_seconds=settings.accept_timeout_seconds,
        )
        fleet = Fleet(settings.service_urls)
        writer.start()
        closing.extend((writer.close, fleet.close))
        runtime.health.add_liveness(lambda: writer.dead)
        add_routes(
            app,
            database=runtime.database,
            writer=writer,
            fleet=fleet,
            wake_relay=runtime.wake_relay,
        )
        add_replay_routes(
            app, settings.admin_token.get_secret_value(), ReplayJobs(settings, runtime.database)
        )

    def workers(runtime: Runtime) -> Sequence[Worker]:
        retention_seconds = settings.idempotency_key_retention_hours * 3600

        def prune() -> bool:
            return prune_keys(runtime.database, retention_seconds)

        return [Worker("idempotency-keys", MAINTENANCE_INTERVAL_SECONDS, prune)]

    def close(timeout_seconds: float) -> None:
        for part in closing:
            part(timeout_seconds)

    return Service(
        name=SERVICE,
        group=GATEWAY_GROUP,
        handles=HANDLES,
        handler=follow,
        configure=configure,
        close=close,
        # orders go into the outbox: they are accepted while Kafka is away
        requests_need_consumer=False,
        workers=workers,
    )
