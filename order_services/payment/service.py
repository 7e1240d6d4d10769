"""Puts the payment service together."""

from __future__ import annotations

from order_services.domain.topics import PAYMENT_GROUP
from order_services.payment.handler import HANDLES, SOURCE, PaymentHandler
from order_services.payment.rules import Rules
from order_services.payment.settings import PaymentSettings
from order_services.process.faults import injector
from order_services.service import run as service


def build(settings: PaymentSettings) -> service.Service:
    """Return the service that these settings describe."""
    rules = Rules(settings.payment_refusal_rate, settings.payment_limit_cents)
    faults = injector(SOURCE, settings)
    return service.Service(
        name=SOURCE,
        group=PAYMENT_GROUP,
        handles=HANDLES,
        handler=PaymentHandler(
            rules,
            announces_processing=settings.payment_announces_processing,
            refuses=faults.refuses_payment,
        ),
        faults=faults,
    )


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return service.main(PaymentSettings, build)
