"""Puts analytics together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from order_services.analytics.counting import HANDLES, SOURCE, archive, count
from order_services.analytics.live import Live
from order_services.analytics.routes import add_routes
from order_services.analytics.settings import AnalyticsSettings
from order_services.domain.topics import ANALYTICS_GROUP
from order_services.service.service import Runtime, Service
from order_services.service.worker import MAINTENANCE_INTERVAL_SECONDS, Worker
from order_services.web.bus import make_bus
from order_services.web.websocket import Hub

if TYPE_CHECKING:
    from order_services.web.app import ServiceApp


def build(settings: AnalyticsSettings) -> Service:
    """Return the service that these settings describe."""
    runtime = Runtime(SOURCE, settings)
    hub = Hub(
        max_clients=settings.websocket_max_clients,
        max_unsent_bytes=settings.websocket_max_unsent_bytes,
    )
    bus = make_bus(settings.redis_url.get_secret_value())
    live = Live(hub, bus, runtime.database)

    def api(app: ServiceApp) -> None:
        add_routes(app, database=runtime.database, hub=hub, live=live)

    def forget() -> bool:
        with runtime.database.begin() as connection:
            archive(connection, settings.analytics_events_retention_days)
        return False

    return Service(
        runtime,
        ANALYTICS_GROUP,
        HANDLES,
        count,
        takes_replays=True,
        on_committed=live.announce,
        api=api,
        close=lambda _seconds: bus.close(),
        workers=[
            Worker("live-stats", settings.stats_interval_seconds, live.tell_stats),
            Worker("archive", MAINTENANCE_INTERVAL_SECONDS, forget),
        ],
    )
