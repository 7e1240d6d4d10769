"""Puts the shipping service together."""

from __future__ import annotations

from order_services.domain.topics import SHIPPING_GROUP
from order_services.service.service import Runtime, Service
from order_services.service.worker import Worker
from order_services.shipping.handler import HANDLES, SOURCE, ShippingHandler
from order_services.shipping.settings import ShippingSettings
from order_services.shipping.timers import Timers


def build(settings: ShippingSettings) -> Service:
    """Return the service that these settings describe."""
    runtime = Runtime(SOURCE, settings)
    timers = Timers(
        runtime.database,
        delivery_delay_seconds=settings.shipping_delivery_delay_seconds,
        batch=settings.shipping_timer_batch,
        on_written=runtime.wake_relay,
    )
    return Service(
        runtime,
        SHIPPING_GROUP,
        HANDLES,
        ShippingHandler(settings.shipping_dispatch_delay_seconds),
        workers=[
            Worker("shipment-timers", settings.shipping_timer_interval_seconds, timers.advance)
        ],
    )
