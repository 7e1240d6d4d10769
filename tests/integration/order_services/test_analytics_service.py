from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from order_services.analytics.service import build
from order_services.analytics.settings import AnalyticsSettings
from order_services.domain.events import Event, EventType
from order_services.domain.topics import ConsumerGroup
from order_services.local.ports import free_port
from order_services.service.run import run_until
from tests.integration.order_services.conftest import Lab, order_cancelled, order_created
from tests.support.waiting import wait_for


@contextmanager
def running(lab: Lab, group: ConsumerGroup, **changes: Any) -> Iterator[str]:
    """Run analytics on topics of its own; yields HOST:PORT."""
    settings = AnalyticsSettings(
        **{
            **lab.kafka_settings.model_dump(exclude={"port", "kafka_client_id"}),
            "port": free_port(),
        },
        stats_interval_seconds=0.05,
        **changes,
    )
    service = replace(build(settings), group=group)
    stop = threading.Event()
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_until(stop, service)))
    thread.start()
    address = f"127.0.0.1:{settings.port}"
    try:
        wait_for("readiness", lambda: is_ready(address))
        yield address
    finally:
        stop.set()
        thread.join(30)
        assert results == [0]


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/ready", timeout=5).status_code == HTTPStatus.OK
    except httpx.HTTPError:
        return False


def stats(address: str) -> dict[str, Any]:
    return dict(httpx.get(f"http://{address}/api/stats", timeout=10).json())


def story(count: int) -> list[Event]:
    events = []
    for _ in range(count):
        created = order_created()
        paid = created.follow(EventType.PAYMENT_PROCESSED, {"amountCents": 1000}, "payment")
        shipped = created.follow(EventType.SHIPMENT_DISPATCHED, {"trackingNumber": "T"}, "shipping")
        events += [created, paid, shipped]
    return [*events, order_cancelled(events[0].order_id)]


def test_counts_are_exact_under_duplicates_and_restarts(lab: Lab) -> None:
    group = lab.group()
    events = story(20)
    with running(lab, group) as address:
        lab.send(group.topics[0], [*events[:30], *events[:30], *events[10:]])
        wait_for("all events", lambda: lab.committed(group) == 30 + 30 + len(events) - 10)
        before = stats(address)
    lab.send(group.topics[0], events)
    with running(lab, group) as address:
        wait_for("the same again", lambda: lab.committed(group) == 50 + 2 * len(events))
        assert stats(address) == before
    assert before["orders"] == before["shipped"] == 20
    assert before["cancelled"] == 1
    assert before["chargedCents"] == 20 * 1000
    assert before["events"] == dict(Counter(event.event_type for event in events))
    assert before["today"]["events"] == before["events"]
    assert lab.number("SELECT sum(events) FROM analytics_daily") == len(events)


def test_two_replicas_count_each_event_once(lab: Lab) -> None:
    group = lab.group()
    events = story(100)
    with running(lab, group), running(lab, group, kafka_client_id="second") as address:
        lab.send(group.topics[0], [*events, *events])
        wait_for("all events", lambda: lab.committed(group) == 2 * len(events))
        assert stats(address)["events"] == dict(Counter(event.event_type for event in events))


def read_until(client: ClientConnection, frames: list[dict[str, Any]], orders: int) -> None:
    while frames[-1].get("stats", {}).get("orders") != orders:
        frames.append(json.loads(client.recv(timeout=20)))


def test_a_client_sees_each_event_once_and_the_totals(lab: Lab) -> None:
    group = lab.group()
    early, late = story(3), story(5)
    with running(lab, group) as address:
        lab.send(group.topics[0], early)
        wait_for("early events", lambda: lab.committed(group) == len(early))
        with connect(f"ws://{address}/ws") as client:
            frames = [json.loads(client.recv(timeout=20))]
            assert frames[0]["type"] == "CONNECTED"
            assert frames[0]["stats"]["orders"] == 3
            lab.send(group.topics[0], [*late, *late, *early])
            frames[0]["stats"]["orders"] = None
            read_until(client, frames, 8)
    assert {frame["type"] for frame in frames} == {"CONNECTED", "EVENT", "STATS_UPDATE"}
    seen = [frame["event"]["eventId"] for frame in frames if frame["type"] == "EVENT"]
    assert sorted(seen) == sorted(event.event_id for event in late)


def test_a_client_past_the_limit_is_asked_to_come_again(lab: Lab) -> None:
    with running(lab, lab.group(), websocket_max_clients=1) as address:
        with connect(f"ws://{address}/ws") as first:
            first.recv(timeout=20)
            answer = httpx.get(
                f"http://{address}/ws",
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                },
            )
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert int(answer.headers["Retry-After"]) > 0


def test_the_page_is_served_with_a_policy_that_lets_nothing_in(lab: Lab) -> None:
    with running(lab, lab.group()) as address:
        page = httpx.get(f"http://{address}/")
        plain = httpx.get(f"http://{address}/ws")
    assert page.status_code == HTTPStatus.OK
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert plain.status_code == HTTPStatus.UPGRADE_REQUIRED


@pytest.mark.parametrize("amount", [None, "5"])
def test_an_event_that_cannot_be_counted_is_set_aside_and_the_others_count(
    lab: Lab, amount: object
) -> None:
    group = lab.group()
    good, bad = order_created(), order_created(totalCents=amount)
    with running(lab, group) as address:
        lab.send(group.topics[0], [good, bad, good])
        wait_for("all three", lambda: lab.committed(group) == 3)
        assert stats(address)["orders"] == 1
    [dead] = lab.read(group.dead_letter_topic, 1)
    assert dead.key() == bad.key()
