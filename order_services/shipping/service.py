"""Puts the shipping service together."""

from __future__ import annotations

from collections.abc import Sequence

from order_services.domain.topics import SHIPPING_GROUP
from order_services.service import run as service
from order_services.service.worker import Worker
from order_services.shipping.handler import HANDLES, SOURCE, ShippingHandler
from order_services.shipping.settings import ShippingSettings
from order_services.shipping.timers import Timers


def build(settings: ShippingSettings) -> service.Service:
    """Return the service that these settings describe."""

    def workers(runtime: service.Runtime) -> Sequence[Worker]:
        timers = Timers(
            runtime.database,
            delivery_delay_seconds=settings.shipping_delivery_delay_seconds,
            batch=settings.shipping_timer_batch,
            on_written=runtime.wake_relay,
        )
        interval_seconds = settings.shipping_timer_interval_seconds
        return (Worker("shipment-timers", interval_seconds, timers.advance),)

    return service.Service(
        name=SOURCE,
        group=SHIPPING_GROUP,
        handles=HANDLES,
        handler=ShippingHandler(settings.shipping_dispatch_delay_seconds),
        workers=workers,
    )


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return service.main(ShippingSettings, build)
