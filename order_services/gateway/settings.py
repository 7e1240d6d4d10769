"""The gateway's settings."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from order_services.domain.services import PORTS
from order_services.process.settings import Port, PositiveSeconds, ServiceSettings

_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[^\s,?#]*)?")


def _urls(text: str) -> str:
    for url in text.split(","):
        if not _URL.fullmatch(url.strip()):
            raise ValueError("must be http://HOST:PORT, or several with commas between them")
    return text


Urls = Annotated[str, AfterValidator(_urls)]


class GatewaySettings(ServiceSettings):
    """What the gateway reads beside what all services read."""

    port: Port = PORTS["gateway"]
    kafka_client_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")] = (
        "gateway-service"
    )
    # how many orders one transaction takes at most
    accept_batch_max_orders: Annotated[int, Field(ge=1, le=1_000)] = 200
    # after this a client hears that its order was not accepted in time
    accept_timeout_seconds: PositiveSeconds = 10.0
    # how long a repeated Idempotency-Key returns the first order; later it makes a new one
    idempotency_key_retention_hours: Annotated[float, Field(ge=1, le=8_760)] = 168.0
    # where /api/services/status asks; with replicas, one address for each
    payment_url: Urls = f"http://127.0.0.1:{PORTS['payment']}"
    inventory_url: Urls = f"http://127.0.0.1:{PORTS['inventory']}"
    shipping_url: Urls = f"http://127.0.0.1:{PORTS['shipping']}"
    analytics_url: Urls = f"http://127.0.0.1:{PORTS['analytics']}"

    @property
    def service_urls(self) -> dict[str, tuple[str, ...]]:
        """The base addresses of each service's replicas."""
        texts = {
            "payment": self.payment_url,
            "inventory": self.inventory_url,
            "shipping": self.shipping_url,
            "analytics": self.analytics_url,
        }
        return {
            name: tuple(url.strip().rstrip("/") for url in text.split(","))
            for name, text in texts.items()
        }
