"""The events that the services exchange, and their form on the wire.

On the wire an event is JSON:

    {"eventId": UUID, "eventType": ..., "orderId": UUID, "timestamp": RFC 3339, "payload": {...},
     "metadata": {"version": "1.0", "source": service, "correlationId": ...}}

under the key `orderId`, with the headers `event-type`, `timestamp`, `correlation-id` and, where a
trace is being followed, `traceparent` (W3C Trace Context).

Payloads, beside what each service adds for the curious; money is integer cents:

    ORDER_CREATED       customerId, items [{productId, quantity, unitPriceCents}], totalCents, currency
    ORDER_CANCELLED     reason ("customer", "payment_failed", "inventory_failed")
    PAYMENT_PROCESSING  amountCents
    PAYMENT_PROCESSED   amountCents, acceptedAt
    PAYMENT_FAILED      amountCents, reason
    PAYMENT_REFUNDED    amountCents: what was given back, 0 when nothing had been charged
    INVENTORY_RESERVED  items [{productId, quantity}], acceptedAt
    INVENTORY_FAILED    reason, missing [productId]
    INVENTORY_RELEASED  items: what was put back, empty when nothing had been taken
    SHIPMENT_*          trackingNumber
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from order_services.domain import topics

VERSION: Final = "1.0"
IS_REPLAY: Final = "isReplay"

_is_uuid: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may carry more
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
MAX_TRACEPARENT_LENGTH: Final = 128

# RFC 9562, 5.7: the version and the variant, and the bits between and after them
_VERSION_7: Final = 0x7 << 76 | 0x2 << 62
_RANDOM_BITS: Final = 0xFFF << 64 | (1 << 62) - 1

Headers = Sequence[tuple[str, bytes | None]]


class EventType(StrEnum):
    """What happened."""

    ORDER_CREATED = "ORDER_CREATED"
    ORDER_CANCELLED = "ORDER_CANCELLED"
    PAYMENT_PROCESSING = "PAYMENT_PROCESSING"
    PAYMENT_PROCESSED = "PAYMENT_PROCESSED"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    PAYMENT_REFUNDED = "PAYMENT_REFUNDED"
    INVENTORY_RESERVED = "INVENTORY_RESERVED"
    INVENTORY_RELEASED = "INVENTORY_RELEASED"
    INVENTORY_FAILED = "INVENTORY_FAILED"
    SHIPMENT_CREATED = "SHIPMENT_CREATED"
    SHIPMENT_DISPATCHED = "SHIPMENT_DISPATCHED"
    SHIPMENT_DELIVERED = "SHIPMENT_DELIVERED"


_TOPIC_OF_PREFIX: Final = {
    "ORDER": topics.ORDERS,
    "PAYMENT": topics.PAYMENTS,
    "INVENTORY": topics.INVENTORY,
    "SHIPMENT": topics.SHIPPING,
}
TOPIC_OF: Final[Mapping[EventType, str]] = {
    event_type: _TOPIC_OF_PREFIX[event_type.split("_", 1)[0]] for event_type in EventType
}
_TYPE_OF_NAME: Final = {event_type.value: event_type for event_type in EventType}


class MalformedEventError(ValueError):
    """A message is not an event; the text says which part is wrong."""


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562) as text.

    Ids of one time lie side by side in an index, so that inserting stays cheap as tables grow.
    """
    # uniqueness is enough here: no id is a secret
    noise = random.getrandbits(80) & _RANDOM_BITS
    digits = f"{time.time_ns() // 1_000_000 << 80 | _VERSION_7 | noise:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_uuid(text: object) -> bool:
    """Say whether this is a UUID in its canonical form, in lower case."""
    return isinstance(text, str) and _is_uuid(text) is not None


def new_traceparent() -> str:
    """Return the W3C `traceparent` of a new trace, marked as sampled."""
    noise = random.getrandbits(192) | 1 << 64 | 1  # neither id may be zero
    return f"00-{noise >> 64:032x}-{noise & 0xFFFF_FFFF_FFFF_FFFF:016x}-01"


def is_traceparent(text: str) -> bool:
    """Say whether this is a W3C `traceparent`; a malformed one must be ignored."""
    if len(text) > MAX_TRACEPARENT_LENGTH or _TRACEPARENT.fullmatch(text) is None:
        return False
    return not text.startswith("00-") or len(text) == 55


# Not frozen: that makes it four times slower to construct, which is a tenth of a charge's cost.
@dataclass(slots=True)
class Event:
    """One thing that happened to one order; ids are UUIDs as text, `timestamp` is aware.

    An event is never changed once it is made.
    """

    event_type: EventType
    order_id: str
    payload: Mapping[str, Any]
    source: str
    correlation_id: str
    traceparent: str | None = None
    event_id: str = field(default_factory=new_id)
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def topic(self) -> str:
        """The topic that events of this type are published on."""
        return TOPIC_OF[self.event_type]

    @property
    def is_replay(self) -> bool:
        """Whether this is a copy from the past, on which nobody must act again."""
        return self.payload.get(IS_REPLAY) is True

    def follow(self, event_type: EventType, payload: Mapping[str, Any], source: str) -> Event:
        """Return the event that this one causes: same order, correlation id and trace."""
        return Event(
            event_type, self.order_id, payload, source, self.correlation_id, self.traceparent
        )

    def key(self) -> bytes:
        """Return the message key: all events of an order share it, hence their partition."""
        return self.order_id.encode()

    def encode(self) -> bytes:
        """Return the message value."""
        return orjson.dumps(
            {
                "eventId": self.event_id,
                "eventType": self.event_type,
                "orderId": self.order_id,
                "timestamp": self.timestamp,
                "payload": self.payload,
                "metadata": {
                    "version": VERSION,
                    "source": self.source,
                    "correlationId": self.correlation_id,
                },
            }
        )

    def header_fields(self) -> dict[str, str | datetime]:
        """Return the message headers as values that orjson writes."""
        fields: dict[str, str | datetime] = {
            "event-type": self.event_type,
            "timestamp": self.timestamp,
            "correlation-id": self.correlation_id,
        }
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        return fields

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the message headers as the Kafka client takes them."""
        fields: dict[str, str] = orjson.loads(orjson.dumps(self.header_fields()))
        return [(name, text.encode()) for name, text in fields.items()]


def decode(value: bytes | None, headers: Headers | None = None) -> Event:
    """Return the event in a message; raises `MalformedEventError` that names the wrong part."""
    # each message of each service comes through here: what is wrong is looked for only when something is
    try:
        body = orjson.loads(value or b"")
        metadata, payload = body["metadata"], body["payload"]
        order_id, event_id = body["orderId"], body["eventId"]
        source, correlation_id = metadata["source"], metadata["correlationId"]
        if (
            metadata["version"] == VERSION
            and type(payload) is dict
            and _is_uuid(order_id)
            and _is_uuid(event_id)
            and source
            and correlation_id
            and type(source) is type(correlation_id) is str
            and (moment := datetime.fromisoformat(body["timestamp"])).tzinfo is not None
        ):
            return Event(
                _TYPE_OF_NAME[body["eventType"]],
                order_id,
                payload,
                source,
                correlation_id,
                _traceparent(headers),
                event_id,
                moment,
            )
    except (TypeError, KeyError, ValueError):
        pass
    raise MalformedEventError(_what_is_wrong(value))


def _what_is_wrong(value: bytes | None) -> str:
    if value is None:
        return "the message has no value"
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return f"the value is not JSON: {error.msg} at character {error.pos}"
    if not isinstance(body, dict):
        return "the value is not a JSON object"
    return next(
        _problems(body),
        f"timestamp must be an RFC 3339 time that names its time zone, not {body.get('timestamp')!r}",
    )


def _problems(body: dict[str, Any]) -> Iterator[str]:
    for name in ("metadata", "payload"):
        if not isinstance(body.get(name), dict):
            yield f"{name} must be an object, not {body.get(name)!r}"
    metadata, event_type = body["metadata"], body.get("eventType")
    if metadata.get("version") != VERSION:
        yield f"metadata.version must be {VERSION!r}, not {metadata.get('version')!r}"
    if not isinstance(event_type, str) or event_type not in _TYPE_OF_NAME:
        yield f"eventType {event_type!r} is not known"
    for name in ("orderId", "eventId"):
        if not is_uuid(body.get(name)):
            yield f"{name} must be a UUID in lower case, not {body.get(name)!r}"
    for name in ("source", "correlationId"):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            yield f"metadata.{name} must be a text that is not empty"


def created_and_cancelled(events: Iterable[Event]) -> tuple[dict[str, Event], dict[str, Event]]:
    """Return the orders to carry out and those to undo, by order id, each in the order of arrival.

    An order that is created and cancelled in one batch is only undone: the rest would be work for
    nothing.
    """
    created: dict[str, Event] = {}
    cancelled: dict[str, Event] = {}
    for event in events:
        if event.event_type is EventType.ORDER_CREATED:
            created[event.order_id] = event
        elif event.event_type is EventType.ORDER_CANCELLED:
            cancelled[event.order_id] = event
    for order_id in created.keys() & cancelled.keys():
        del created[order_id]
    return created, cancelled


def ids_of_others(events: Mapping[str, Event], order_ids: Collection[str]) -> list[str]:
    """Return the ids of the events of all orders but these."""
    if len(events) == len(order_ids):
        return []
    return [event.event_id for order_id, event in events.items() if order_id not in order_ids]


def _traceparent(headers: Headers | None) -> str | None:
    for name, value in headers or ():
        if name == "traceparent" and value:
            text = value.decode("ascii", "replace")
            # a malformed one says nothing: the event counts, its trace begins anew
            return text if is_traceparent(text) else None
    return None
