"""Analytics as a service: its parts put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from order_services.analytics.counting import HANDLES, SERVICE, archive, cause_nothing, count
from order_services.analytics.live import Live
from order_services.analytics.routes import add_routes
from order_services.analytics.settings import AnalyticsSettings
from order_services.domain.topics import ANALYTICS_GROUP
from order_services.service.run import MAINTENANCE_INTERVAL_SECONDS, Runtime, Service
from order_services.service.worker import Worker
from order_services.web.bus import EventBus, make_bus
from order_services.web.websocket import Hub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from order_services.domain.events import Event
    from order_services.domain.topics import ConsumerGroup
    from order_services.web.app import ServiceApp


class Analytics:
    """Puts the parts together once the runtime has a database for them."""

    def __init__(self, settings: AnalyticsSettings, group: ConsumerGroup = ANALYTICS_GROUP) -> None:
        self._settings = settings
        self._group = group
        self._live: Live | None = None
        self._bus: EventBus | None = None

    def service(self) -> Service:
        """Return what the runtime needs to run analytics."""
        return Service(
            name=SERVICE,
            group=self._group,
            handles=HANDLES,
            admit=count,
            handler=cause_nothing,
            takes_replays=True,
            on_committed=self._announce,
            configure=self._configure,
            close=self._close,
            workers=self._workers,
        )

    def _configure(self, app: ServiceApp, runtime: Runtime) -> None:
        hub = Hub(
            max_clients=self._settings.websocket_max_clients,
            max_unsent_bytes=self._settings.websocket_max_unsent_bytes,
        )
        self._bus = make_bus(self._settings.redis_url.get_secret_value())
        self._live = Live(hub, self._bus, runtime.database)
        add_routes(app, database=runtime.database, hub=hub, live=self._live)

    def _close(self, _timeout_seconds: float) -> None:
        if self._bus is not None:
            self._bus.close()

    def _announce(self, events: Sequence[Event]) -> None:
        if self._live is not None:
            self._live.announce(events)

    def _workers(self, runtime: Runtime) -> Sequence[Worker]:
        def forget() -> bool:
            with runtime.database.begin() as connection:
                archive(connection, self._settings.analytics_events_retention_days)
            return False

        return [
            Worker("live-stats", self._settings.stats_interval_seconds, self._tell_stats),
            Worker("archive", MAINTENANCE_INTERVAL_SECONDS, forget),
        ]

    def _tell_stats(self) -> bool:
        return self._live is not None and self._live.tell_stats()
