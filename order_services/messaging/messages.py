"""What the consumer needs of a Kafka message."""

from __future__ import annotations

from operator import methodcaller
from typing import Final, NamedTuple

import structlog
from confluent_kafka import Message as KafkaMessage

from order_services.domain.events import Headers
from order_services.process import instrumentation

# Whom a message is for that was sent back: the consumer group that could not process it.
DEAD_LETTER_FOR: Final = "dead-letter-for"

# Not as a method: for a name that is not UTF-8 the client returns tuples without a name, and an error
# besides. A method that is called often is called without a look at the error, and the interpreter
# crashes on the tuples; this way it looks always.
_ask_headers: Final = methodcaller("headers")

_log = structlog.get_logger(__name__)


class ReceivedMessage(NamedTuple):
    """A message as it was read, without the Kafka client's own type."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class UnreadableHeadersError(ValueError):
    """The Kafka client cannot tell a message's headers."""


def headers_of(message: KafkaMessage) -> Headers:
    """Return a message's headers, byte for byte; raises `UnreadableHeadersError`.

    They must not be asked for again after that: the client would return what crashes the interpreter.
    """
    try:
        found = _ask_headers(message)
    except (SystemError, UnicodeDecodeError) as error:
        cause = error.__cause__ if isinstance(error, SystemError) else error
        raise UnreadableHeadersError(f"a header's name is not UTF-8: {cause}") from None
    if not isinstance(found, list):
        return ()
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in found]


def header(headers: Headers, wanted: str) -> bytes | None:
    """Return the first value of a header, or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def correlation_id(message: ReceivedMessage) -> str:
    """Return a message's correlation id, "none" where it has none."""
    return (header(message.headers, "correlation-id") or b"none").decode("utf-8", "replace")


def received(message: KafkaMessage) -> ReceivedMessage | None:
    """Return a message as it was read; one whose headers cannot be told has none."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        return None  # only errors have none; this tells the type checker
    try:
        headers = headers_of(message)
    except UnreadableHeadersError as error:
        # all that an event must say is in its value, and is judged there
        instrumentation.CONSUMER_ERRORS.labels(type(error).__name__).inc()
        _log.warning(
            "headers ignored", topic=topic, partition=partition, offset=offset, error=str(error)
        )
        headers = ()
    return ReceivedMessage(topic, partition, offset, message.key(), message.value(), headers)
