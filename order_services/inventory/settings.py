"""The settings of the inventory service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from order_services.domain.services import PORTS
from order_services.process.settings import Port, ServiceSettings


class InventorySettings(ServiceSettings):
    """What inventory reads from the environment: what all services do."""

    port: Port = PORTS["inventory"]
    kafka_client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "inventory-service"
