from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import httpx

from order_services.domain import topics
from order_services.domain.events import Event, EventType, decode
from order_services.domain.topics import ConsumerGroup
from order_services.gateway.service import build
from order_services.gateway.settings import GatewaySettings
from order_services.local.ports import free_port
from order_services.operations import topic_admin
from order_services.service.run import run_until
from tests.integration.order_services.conftest import Lab
from tests.support.waiting import wait_for

ORDER = {"customerId": "c-1", "items": [{"productId": "PROD-002", "quantity": 3}]}


@contextmanager
def running(
    lab: Lab, group: ConsumerGroup, *, waits_for: str = "ready", **changes: Any
) -> Iterator[str]:
    """Run the gateway reading topics of its own; yields its address once its status is so."""
    port = free_port()
    given = changes.pop("settings", None) or lab.kafka_settings
    settings = GatewaySettings(
        **{**given.model_dump(exclude={"port", "kafka_client_id"}), "port": port, **changes},
        payment_url=f"http://127.0.0.1:{port}",  # any service that answers will do
        inventory_url="http://127.0.0.1:1",
        shipping_url=f"http://127.0.0.1:{port},http://127.0.0.1:1",
        analytics_url=f"http://127.0.0.1:{port}/elsewhere",
    )
    service = replace(build(settings), group=group)
    stop = threading.Event()
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_until(stop, service)))
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(waits_for, lambda: status_of(url)["status"] == waits_for)
        yield url
    finally:
        stop.set()
        thread.join(30)
        assert results == [0]


def status_of(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/ready", timeout=5)
    except httpx.HTTPError:
        return {"status": "away"}
    return {**answer.json(), "code": answer.status_code}


def on_orders_topic(lab: Lab, order_id: str) -> list[EventType]:
    messages = lab.read(topics.ORDERS, 10_000, timeout_s=3)
    key = order_id.encode()
    return [decode(message.value()).event_type for message in messages if message.key() == key]


def accept(url: str) -> dict[str, Any]:
    answer = httpx.post(f"{url}/api/orders", json=ORDER)
    assert answer.status_code == HTTPStatus.ACCEPTED
    return dict(answer.json())


def test_an_order_goes_out_to_kafka_and_what_comes_back_shows_in_its_status(lab: Lab) -> None:
    group = lab.group()
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    with running(lab, group) as url:
        good, bad = accept(url), accept(url)

        def happened(order: dict[str, Any], kind: EventType) -> Event:
            payload = {"amountCents": order["totalCents"]}
            return Event(kind, order["orderId"], payload, "test", order["correlationId"])

        def status(order: dict[str, Any]) -> str:
            return str(httpx.get(f"{url}/api/orders/{order['orderId']}").json()["status"])

        wait_for(
            "ORDER_CREATED on the topic",
            lambda: on_orders_topic(lab, good["orderId"]) == [EventType.ORDER_CREATED],
        )
        steps = [
            happened(good, EventType.SHIPMENT_DISPATCHED),
            happened(good, EventType.PAYMENT_PROCESSED),
            happened(good, EventType.INVENTORY_RESERVED),
            happened(bad, EventType.PAYMENT_FAILED),
        ]
        lab.send(group.topics[0], [*steps, *steps])
        wait_for("shipped", lambda: status(good) == "shipped")
        wait_for("cancelling", lambda: status(bad) == "cancelling")
        wait_for(
            "one ORDER_CANCELLED on the topic",
            lambda: (
                on_orders_topic(lab, bad["orderId"])
                == [EventType.ORDER_CREATED, EventType.ORDER_CANCELLED]
            ),
        )
        lab.send(group.topics[0], [happened(bad, EventType.INVENTORY_RELEASED)])
        wait_for("cancelled", lambda: status(bad) == "cancelled")
        metrics = httpx.get(f"{url}/metrics").text
        assert 'http_requests_total{method="POST",route="/api/orders",status="202"}' in metrics


def test_the_status_of_each_replica_is_asked(lab: Lab) -> None:
    with running(lab, lab.group()) as url:
        services = httpx.get(f"{url}/api/services/status", timeout=10).json()["services"]
    states = [(service["service"], service["status"]) for service in services]
    assert states == [
        ("payment", "ready"),
        ("inventory", "unreachable"),
        ("shipping", "ready"),
        ("shipping", "unreachable"),
        ("analytics", "unreachable"),
    ]
    assert services[1]["reasons"] == ["connection refused"]


def test_orders_are_accepted_while_kafka_is_away(lab: Lab) -> None:
    no_kafka = lab.settings.model_copy(update={"kafka_brokers": f"127.0.0.1:{free_port()}"})
    group = ConsumerGroup("nobody", ("nothing",))
    with running(lab, group, settings=no_kafka, waits_for="degraded") as url:
        order_id = accept(url)["orderId"]
        ready = status_of(url)
        assert ready["code"] == HTTPStatus.OK
        assert any("consumer" in reason for reason in ready["reasons"])
        assert httpx.get(f"{url}/health").status_code == HTTPStatus.OK
    # the outbox keeps it
    assert lab.number("SELECT count(*) FROM outbox WHERE key = :id", id=order_id.encode()) == 1


def test_orders_are_accepted_while_the_status_consumer_is_stopped(lab: Lab) -> None:
    group = lab.group()
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    with running(lab, group, dead_letter_limit=0) as url:
        lab.send(group.topics[0], [b"no event at all"])
        wait_for("a stop", lambda: status_of(url)["status"] == "degraded")
        ready = status_of(url)
        assert ready["code"] == HTTPStatus.OK
        assert "consumer: stopped" in str(ready["reasons"])
        accept(url)
        assert "kafka_consumer_stopped 1.0" in httpx.get(f"{url}/metrics").text
