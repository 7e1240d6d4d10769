"""Puts the payment service together."""

from __future__ import annotations

from order_services.domain.topics import PAYMENT_GROUP
from order_services.payment.handler import HANDLES, SOURCE, PaymentHandler
from order_services.payment.rules import Rules
from order_services.payment.settings import PaymentSettings
from order_services.service.service import Runtime, Service


def build(settings: PaymentSettings) -> Service:
    """Return the service that these settings describe."""
    runtime = Runtime(SOURCE, settings)
    handler = PaymentHandler(
        Rules(settings.payment_refusal_rate, settings.payment_limit_cents),
        announces_processing=settings.payment_announces_processing,
        refuses=runtime.faults.refuses_payment,
    )
    return Service(runtime, PAYMENT_GROUP, HANDLES, handler)
