from __future__ import annotations

import re
import uuid
from typing import Any

import orjson
import pytest

from order_services.domain import topics
from order_services.domain.events import (
    TOPIC_OF,
    Event,
    EventType,
    MalformedEventError,
    decode,
    is_traceparent,
    is_uuid,
    new_id,
    new_traceparent,
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVENT = Event(
    EventType.ORDER_CREATED,
    new_id(),
    {"totalCents": 5, "name": "é"},
    "gateway",
    "corr",
    TRACEPARENT,
)


def test_an_event_survives_the_wire() -> None:
    assert decode(EVENT.encode(), EVENT.headers()) == EVENT


def test_the_envelope_and_headers_are_the_documented_ones() -> None:
    body = orjson.loads(EVENT.encode())
    assert set(body) == {"eventId", "eventType", "orderId", "timestamp", "payload", "metadata"}
    assert body["metadata"] == {"version": "1.0", "source": "gateway", "correlationId": "corr"}
    assert EVENT.key() == EVENT.order_id.encode()
    assert dict(EVENT.headers()) == {
        "event-type": b"ORDER_CREATED",
        "timestamp": EVENT.timestamp.isoformat().encode(),
        "correlation-id": b"corr",
        "traceparent": TRACEPARENT.encode(),
    }


def test_what_an_event_causes_keeps_its_order_correlation_and_trace() -> None:
    caused = EVENT.follow(EventType.PAYMENT_PROCESSED, {}, "payment")
    assert (caused.order_id, caused.correlation_id) == (EVENT.order_id, EVENT.correlation_id)
    assert (caused.traceparent, caused.source) == (EVENT.traceparent, "payment")
    assert caused.event_id != EVENT.event_id


def test_every_type_has_one_of_the_topics() -> None:
    assert set(TOPIC_OF) == set(EventType)
    assert set(TOPIC_OF.values()) == {
        topics.ORDERS,
        topics.PAYMENTS,
        topics.INVENTORY,
        topics.SHIPPING,
    }


def changed(**parts: Any) -> bytes:
    return orjson.dumps({**orjson.loads(EVENT.encode()), **parts})


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (None, "no value"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (changed(eventType="ORDER_EATEN"), "ORDER_EATEN"),
        (changed(eventType=["x"]), "eventType"),
        (changed(eventId="1"), "eventId"),
        (changed(eventId=None), "eventId"),
        (changed(orderId=EVENT.order_id.upper()), "orderId"),
        (changed(timestamp="yesterday"), "timestamp"),
        (changed(timestamp=5), "timestamp"),
        (changed(timestamp="2026-01-01T00:00:00"), "time zone"),
        (changed(payload=[]), "payload"),
        (changed(metadata=None), "metadata"),
        (changed(metadata={"version": "2.0"}), "metadata.version"),
        (changed(metadata={"version": "1.0", "source": ""}), "metadata.source"),
        (changed(metadata={"version": "1.0", "source": "s"}), "metadata.correlationId"),
    ],
)
def test_a_message_that_is_no_event_is_refused_with_the_part_that_is_wrong(
    value: bytes | None, part: str
) -> None:
    with pytest.raises(MalformedEventError, match=re.escape(part)):
        decode(value)


def test_ids_are_unique_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(is_uuid(each) and uuid.UUID(each).version == 7 for each in ids)
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


def test_a_replay_is_known_by_its_payload() -> None:
    replay = Event(EventType.ORDER_CREATED, new_id(), {"isReplay": True}, "gateway", "corr")
    assert replay.is_replay
    assert not EVENT.is_replay


@pytest.mark.parametrize(
    ("text", "proper"),
    [
        (TRACEPARENT, True),
        pytest.param(new_traceparent(), True, id="a new one"),
        # a later version may have more fields, version 00 may not
        ("01" + TRACEPARENT[2:] + "-more", True),
        (TRACEPARENT + "-more", False),
        ("ff" + TRACEPARENT[2:], False),
        (TRACEPARENT.upper(), False),
        (TRACEPARENT[:-1], False),
        ("00-" + "0" * 32 + TRACEPARENT[35:], False),
        (TRACEPARENT[:36] + "0" * 16 + "-01", False),
        ("", False),
        ("01" + TRACEPARENT[2:] + "-" + "x" * 200, False),
    ],
)
def test_a_malformed_trace_is_ignored_and_the_event_counts(text: str, *, proper: bool) -> None:
    assert is_traceparent(text) is proper
    headers = [("traceparent", text.encode())]
    assert decode(EVENT.encode(), headers).traceparent == (text if proper else None)


def test_new_traces_differ() -> None:
    assert len({new_traceparent() for _ in range(100)}) == 100
