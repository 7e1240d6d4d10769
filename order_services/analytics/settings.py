"""The settings of analytics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from order_services.analytics.websocket import MAX_CLIENTS, MAX_UNSENT_BYTES
from order_services.runtime.settings import Port, PositiveInt, PositiveSeconds, ServiceSettings


class AnalyticsSettings(ServiceSettings):
    """What analytics reads beside what all services read."""

    port: Port = 4004
    kafka_client_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")] = (
        "analytics-service"
    )
    websocket_max_clients: PositiveInt = MAX_CLIENTS
    websocket_max_unsent_bytes: PositiveInt = MAX_UNSENT_BYTES
    # how often clients are told the new totals, when there are any
    stats_interval_seconds: PositiveSeconds = 0.5
