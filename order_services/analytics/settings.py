"""The settings of analytics."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator

from order_services.domain.services import PORTS
from order_services.domain.topics import DEAD_LETTER_RETENTION_DAYS
from order_services.process.settings import Port, PositiveInt, PositiveSeconds, ServiceSettings
from order_services.storage.rings import ANALYTICS_EVENTS
from order_services.web.websocket import MAX_CLIENTS, MAX_UNSENT_BYTES

_REDIS_URL: Final = re.compile(r"rediss?://[^\s/]+(:[0-9]+)?(/[0-9]+)?")


# Events come back for as long as dead letters are kept, and no later than the ring of weeks has places.
MIN_RETENTION_DAYS: Final = DEAD_LETTER_RETENTION_DAYS + 2
MAX_RETENTION_DAYS: Final = (ANALYTICS_EVENTS.places - 3) * ANALYTICS_EVENTS.days


class AnalyticsSettings(ServiceSettings):
    """What analytics reads beside what all services read."""

    port: Port = PORTS["analytics"]
    kafka_client_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")] = (
        "analytics-service"
    )
    websocket_max_clients: PositiveInt = MAX_CLIENTS
    websocket_max_unsent_bytes: PositiveInt = MAX_UNSENT_BYTES
    # how often clients are told the new totals, when there are any
    stats_interval_seconds: PositiveSeconds = 0.5
    # how long an event that comes again is recognised, and one that comes late still counts
    analytics_events_retention_days: Annotated[
        int, Field(ge=MIN_RETENTION_DAYS, le=MAX_RETENTION_DAYS)
    ] = 90
    # where several replicas tell each other what happens (redis://[USER:PASSWORD@]HOST:PORT/0);
    # without it clients see the events of the replica that they are connected to
    redis_url: SecretStr = SecretStr("")

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and not _REDIS_URL.fullmatch(url):
            raise ValueError("must be redis://[USER:PASSWORD@]HOST:PORT/0, or rediss:// for TLS")
        if url and find_spec("redis") is None:
            raise ValueError("needs the package redis, which is not installed")
        return value
