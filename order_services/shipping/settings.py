"""The settings of the shipping service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from order_services.domain.services import PORTS
from order_services.process.settings import Port, PositiveInt, PositiveSeconds, ServiceSettings

Delay = Annotated[float, Field(ge=0, le=30 * 86_400)]


class ShippingSettings(ServiceSettings):
    """What shipping reads from the environment beside what all services do."""

    port: Port = PORTS["shipping"]
    kafka_client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "shipping-service"
    # from creating a shipment to dispatching it: until then a customer can still cancel
    shipping_dispatch_delay_seconds: Delay = 0.5
    # from dispatching a shipment to delivering it
    shipping_delivery_delay_seconds: Delay = 2.0
    shipping_timer_interval_seconds: PositiveSeconds = 0.25
    shipping_timer_batch: PositiveInt = 500
