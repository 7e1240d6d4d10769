from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from order_services.domain.events import Event, EventType, new_id
from order_services.gateway import reading
from order_services.gateway.accepting import OrderWriter
from order_services.gateway.following import follow
from order_services.gateway.settings import GatewaySettings
from order_services.gateway.validation import parse_order
from order_services.storage.database import Database

E = EventType
ORDER = parse_order({"customerId": "c", "items": [{"productId": "PROD-001", "quantity": 1}]})
FULFILLED = [
    E.PAYMENT_PROCESSING,
    E.PAYMENT_PROCESSED,
    E.INVENTORY_RESERVED,
    E.SHIPMENT_CREATED,
    E.SHIPMENT_DISPATCHED,
    E.SHIPMENT_DELIVERED,
]
REFUSED = [E.PAYMENT_PROCESSING, E.PAYMENT_FAILED, E.INVENTORY_RESERVED, E.INVENTORY_RELEASED]


@pytest.fixture
def connected(database: Any) -> Iterator[Database]:
    settings = GatewaySettings(
        db_host=database.host,
        db_port=database.port,
        db_name=database.name,
        db_user=database.user,
        db_password=database.password,
    )
    connected = Database(settings)
    yield connected
    connected.close()


@pytest.fixture
def writer(connected: Database) -> Iterator[OrderWriter]:
    writer = OrderWriter(connected, on_committed=lambda: None, max_orders=50, timeout_seconds=20)
    writer.start()
    yield writer
    assert writer.close(20)


def new_order(writer: OrderWriter) -> str:
    return asyncio.run(writer.accept(ORDER, key=None, correlation_id="shop-1")).order_id


def happened(order_id: str, kind: EventType) -> Event:
    return Event(kind, order_id, {"amountCents": 1}, "test", "shop-1")


def status(database: Database, order_id: str) -> dict[str, Any]:
    with database.begin() as connection:
        order = reading.order(connection, order_id)
    assert order is not None
    return order


def history(database: Database, order_id: str) -> list[str]:
    with database.begin() as connection:
        return [event["eventType"] for event in reading.events(connection, order_id)]


@pytest.mark.parametrize(
    ("kinds", "end"), [(FULFILLED, "delivered"), (REFUSED, "cancelled")], ids=["paid", "refused"]
)
def test_any_order_of_arrival_ends_the_same(
    connected: Database, writer: OrderWriter, kinds: list[EventType], end: str
) -> None:
    arrivals = list(itertools.permutations(kinds))
    for arrival in random.Random(7).sample(arrivals, 20):
        order_id = new_order(writer)
        for kind in arrival:
            with connected.begin() as connection:
                follow([happened(order_id, kind)], connection)
        order = status(connected, order_id)
        assert order["status"] == end, arrival
        expected = {E.ORDER_CREATED, *kinds} | ({E.ORDER_CANCELLED} if kinds is REFUSED else set())
        assert sorted(history(connected, order_id)) == sorted(expected)


def test_a_batch_of_many_orders_is_one_step_for_each(
    connected: Database, writer: OrderWriter
) -> None:
    ids = [new_order(writer) for _ in range(30)]
    events = [happened(order_id, kind) for kind in FULFILLED[::-1] for order_id in ids]
    with connected.begin() as connection:
        assert follow(events, connection).events == []
    assert {status(connected, order_id)["status"] for order_id in ids} == {"delivered"}


def test_a_fact_never_goes_back(connected: Database, writer: OrderWriter) -> None:
    order_id = new_order(writer)
    for kind in (E.PAYMENT_REFUNDED, E.PAYMENT_PROCESSED, E.PAYMENT_PROCESSING):
        with connected.begin() as connection:
            follow([happened(order_id, kind)], connection)
    assert status(connected, order_id)["payment"] == "refunded"
    # late news of one fact together with fresh news of another
    late = [happened(order_id, kind) for kind in (E.PAYMENT_PROCESSED, E.INVENTORY_RELEASED)]
    with connected.begin() as connection:
        follow(late, connection)
    order = status(connected, order_id)
    assert (order["payment"], order["inventory"]) == ("refunded", "released")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(E.PAYMENT_FAILED, "payment_failed"), (E.INVENTORY_FAILED, "inventory_failed")],
)
def test_a_failure_cancels_the_order_once(
    connected: Database, writer: OrderWriter, kind: EventType, reason: str
) -> None:
    order_id = new_order(writer)
    with connected.begin() as connection:
        [cancelled] = follow([happened(order_id, kind)], connection).events
    assert cancelled.event_type is E.ORDER_CANCELLED
    assert cancelled.order_id == order_id
    assert cancelled.correlation_id == "shop-1"
    assert cancelled.payload == {"reason": reason}
    with connected.begin() as connection:
        # delivered again, and the other side fails too
        others = [happened(order_id, k) for k in (E.PAYMENT_FAILED, E.INVENTORY_FAILED)]
        assert follow(others, connection).events == []
    order = status(connected, order_id)
    assert order["cancelReason"] == reason
    assert order["shipment"] == "cancelled"
    assert history(connected, order_id).count("ORDER_CANCELLED") == 1


def test_events_of_orders_that_are_not_ours_change_nothing(
    connected: Database, writer: OrderWriter
) -> None:
    order_id = new_order(writer)
    with connected.begin() as connection:
        follow([happened(new_id(), E.PAYMENT_PROCESSED)], connection)
    assert status(connected, order_id)["status"] == "accepted"


def test_what_is_in_the_history_is_told_to_be_repeated(
    connected: Database, writer: OrderWriter
) -> None:
    order_id = new_order(writer)
    failed, reserved = (happened(order_id, k) for k in (E.PAYMENT_FAILED, E.INVENTORY_RESERVED))
    with connected.begin() as connection:
        follow([failed], connection)
    with connected.begin() as connection:
        effects = follow([failed, reserved], connection)
    assert effects.events == []
    assert effects.repeated == {failed.event_id}
    assert len(history(connected, order_id)) == 4


def test_the_same_events_at_two_replicas_do_not_deadlock(
    connected: Database, writer: OrderWriter
) -> None:
    """As after a rebalance: both have the batch, and each has it in an order of its own."""
    ids = [new_order(writer) for _ in range(40)]
    events = [happened(order_id, E.PAYMENT_FAILED) for order_id in ids]

    def apply(seed: int) -> list[Event]:
        with connected.begin() as connection:
            return list(follow(random.Random(seed).sample(events, len(events)), connection).events)

    for _ in range(5):
        events = [happened(order_id, E.PAYMENT_FAILED) for order_id in ids]
        with ThreadPoolExecutor(4) as pool:
            caused = [event for each in pool.map(apply, range(4)) for event in each]
    assert caused == []
    assert all(history(connected, each).count("ORDER_CANCELLED") == 1 for each in ids)


def test_replicas_that_share_orders_do_not_deadlock(
    connected: Database, writer: OrderWriter
) -> None:
    ids = [new_order(writer) for _ in range(40)]

    def apply(kind: EventType) -> None:
        # each topic is another replica's: the same orders, in another sequence
        mixed = random.Random(kind).sample(ids, len(ids))
        for _ in range(5):
            with connected.begin() as connection:
                follow([happened(order_id, kind) for order_id in mixed], connection)

    kinds = [E.PAYMENT_FAILED, E.INVENTORY_FAILED, E.SHIPMENT_CREATED, E.PAYMENT_PROCESSING]
    with ThreadPoolExecutor(len(kinds)) as pool:
        list(pool.map(apply, kinds))
    assert {status(connected, order_id)["status"] for order_id in ids} == {"cancelled"}
    with connected.begin() as connection:
        count = text("SELECT count(*) FROM order_events WHERE event_type = 'ORDER_CANCELLED'")
        assert connection.execute(count).scalar_one() == len(ids)
