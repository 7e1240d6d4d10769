from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from order_services.domain.events import Event, EventType, new_id
from order_services.shipping.handler import ShippingHandler
from order_services.shipping.timers import Timers
from order_services.storage import decisions
from order_services.storage.decisions import CancelRequest
from tests.integration.order_services.conftest import Lab

PAID = EventType.PAYMENT_PROCESSED
RESERVED = EventType.INVENTORY_RESERVED


def event(order_id: str, event_type: EventType) -> Event:
    payload = {"acceptedAt": "2026-01-02T03:04:05+00:00"}
    return Event(event_type, order_id, payload, "test", "corr-1", "00-trace")


def handle(lab: Lab, events: Sequence[Event]) -> list[Event]:
    with lab.database.begin() as connection:
        return list(ShippingHandler(0)(events, connection).events)


def timers(lab: Lab, delivery_delay_seconds: float = 0) -> Timers:
    return Timers(
        lab.database,
        delivery_delay_seconds=delivery_delay_seconds,
        batch=100,
        on_written=lambda: None,
    )


def fact(lab: Lab, order_id: str) -> str:
    rows = lab.query("SELECT fact::text FROM shipments WHERE order_id = :id", id=order_id)
    return str(rows[0][0])


def outbox(lab: Lab) -> list[str]:
    return [
        row[0] for row in lab.query("SELECT headers::json->>'event-type' FROM outbox ORDER BY id")
    ]


def cancel(lab: Lab, order_id: str) -> decisions.Cancellation:
    with lab.database.begin() as connection:
        return decisions.cancel(
            connection, [CancelRequest(order_id, decisions.REASON_CUSTOMER, "corr-1")], "gateway"
        )


@pytest.mark.parametrize("order", list(itertools.permutations((PAID, RESERVED))))
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_shipment_is_created_once_when_both_facts_hold(
    lab: Lab, order: tuple[EventType, ...], *, in_one_batch: bool
) -> None:
    order_id = new_id()
    events = [event(order_id, each) for each in (*order, *order)]
    batches = [events] if in_one_batch else [[each] for each in events]
    caused = [each for batch in batches for each in handle(lab, batch)]
    assert [each.event_type for each in caused] == [EventType.SHIPMENT_CREATED]
    assert caused[0].payload["trackingNumber"].startswith("TRK-")
    assert (caused[0].correlation_id, caused[0].traceparent) == ("corr-1", "00-trace")
    assert fact(lab, order_id) == "created"


def test_a_fact_that_comes_again_is_told_to_be_repeated(lab: Lab) -> None:
    paid, reserved = (event(new_id(), each) for each in (PAID, RESERVED))
    handle(lab, [paid])
    with lab.database.begin() as connection:
        effects = ShippingHandler(0)([paid, reserved], connection)
    assert (effects.events, effects.repeated) == ([], [paid.event_id])


def test_two_replicas_that_bring_one_fact_each_create_one_shipment(lab: Lab) -> None:
    order_ids = [new_id() for _ in range(30)]
    batches = [[event(order_id, fact_) for order_id in order_ids] for fact_ in (PAID, RESERVED)]
    together = threading.Barrier(2)

    def replica(batch: Sequence[Event]) -> list[Event]:
        together.wait(10)
        return handle(lab, batch)

    with ThreadPoolExecutor(2) as threads:
        caused = [each for events in threads.map(replica, batches) for each in events]
    assert sorted(each.order_id for each in caused) == sorted(order_ids)


@pytest.mark.parametrize(
    "bad",
    [
        EventType.PAYMENT_FAILED,
        EventType.PAYMENT_REFUNDED,
        EventType.INVENTORY_FAILED,
        EventType.INVENTORY_RELEASED,
    ],
)
def test_an_order_that_failed_or_was_undone_first_is_never_shipped(
    lab: Lab, bad: EventType
) -> None:
    order_id = new_id()
    events = [event(order_id, each) for each in (bad, PAID, RESERVED)]
    assert [each for one in events for each in handle(lab, [one])] == []
    assert fact(lab, order_id) == "cancelled"


def test_due_shipments_are_dispatched_and_then_delivered(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [event(order_id, PAID), event(order_id, RESERVED)])
    timers(lab).advance()
    assert fact(lab, order_id) == "dispatched"
    # another process, as after a restart
    timers(lab).advance()
    assert fact(lab, order_id) == "delivered"
    assert timers(lab).advance() is False
    assert outbox(lab) == ["SHIPMENT_DISPATCHED", "SHIPMENT_DELIVERED"]


def test_a_shipment_that_is_not_due_waits(lab: Lab) -> None:
    order_id = new_id()
    with lab.database.begin() as connection:
        ShippingHandler(3600)([event(order_id, PAID), event(order_id, RESERVED)], connection)
    timers(lab).advance()
    assert fact(lab, order_id) == "created"


def test_a_cancellation_before_dispatch_cancels_the_shipment(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [event(order_id, PAID), event(order_id, RESERVED)])
    assert len(cancel(lab, order_id).events) == 1
    timers(lab).advance()
    assert fact(lab, order_id) == "cancelled"
    assert outbox(lab) == []
    assert cancel(lab, order_id) == decisions.Cancellation([], frozenset())


def test_a_refund_cancels_the_shipment_at_once(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [event(order_id, PAID), event(order_id, RESERVED)])
    handle(lab, [event(order_id, EventType.PAYMENT_REFUNDED)])
    assert fact(lab, order_id) == "cancelled"


def test_a_cancellation_after_dispatch_comes_too_late(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [event(order_id, PAID), event(order_id, RESERVED)])
    timers(lab, delivery_delay_seconds=60).advance()
    assert cancel(lab, order_id) == decisions.Cancellation([], frozenset({order_id}))
    assert fact(lab, order_id) == "dispatched"


def test_cancellation_and_dispatch_at_once_leave_exactly_one_end(lab: Lab) -> None:
    order_ids = [new_id() for _ in range(60)]
    handle(lab, [event(order_id, each) for order_id in order_ids for each in (PAID, RESERVED)])
    together = threading.Barrier(3)

    def cancel_all(mine: Sequence[str]) -> set[str]:
        together.wait(10)
        return {o for o in mine if cancel(lab, o).events}

    def dispatch_all() -> set[str]:
        together.wait(10)
        while timers(lab, delivery_delay_seconds=60).advance():
            pass
        return set()

    with ThreadPoolExecutor(3) as threads:
        futures = [
            threads.submit(cancel_all, order_ids[:40]),
            threads.submit(cancel_all, list(reversed(order_ids[:40]))),
            threads.submit(dispatch_all),
        ]
        won = [future.result(30) for future in futures]
    timers(lab, delivery_delay_seconds=60).advance()
    cancelled = {
        row[0] for row in lab.query("SELECT order_id::text FROM shipments WHERE fact = 'cancelled'")
    }
    dispatched = {
        row[0]
        for row in lab.query("SELECT order_id::text FROM shipments WHERE fact = 'dispatched'")
    }
    assert not won[0] & won[1]
    assert won[0] | won[1] == cancelled
    assert cancelled | dispatched == set(order_ids)
    assert not cancelled & dispatched
    assert len(outbox(lab)) == len(dispatched)
