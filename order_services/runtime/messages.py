"""What the runtime needs of a Kafka message."""

from __future__ import annotations

from typing import NamedTuple

from order_services.events import Headers


class ReceivedMessage(NamedTuple):
    """A message as it was read, without the Kafka client's own type."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
