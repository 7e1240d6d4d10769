"""The settings of the payment service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from order_services.domain.services import PORTS
from order_services.process.settings import Port, ServiceSettings


class PaymentSettings(ServiceSettings):
    """What payment reads from the environment beside what all services do."""

    port: Port = PORTS["payment"]
    kafka_client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "payment-service"
    # the share of orders whose payment is refused
    payment_refusal_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    payment_limit_cents: Annotated[int, Field(ge=0)] = 5_000_000
    # whether PAYMENT_PROCESSING is published before the outcome: it comes from the same transaction,
    # so nobody can act on it in time, and costs a third of what charging an order does
    payment_announces_processing: bool = False
