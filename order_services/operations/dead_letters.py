"""Reads the dead letters of each consumer group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from order_services.domain.topics import DEAD_LETTER_SUFFIX
from order_services.messaging.client_settings import MAX_MESSAGE_BYTES
from order_services.messaging.dead_letters import HEADER_PREFIX
from order_services.messaging.messages import UnreadableHeadersError, headers_of
from order_services.process.kafka_settings import kafka_settings

REQUEST_TIMEOUT_SECONDS: Final = 10.0
# Short, so that Ctrl-C is heard: the client's calls return to Python only between them.
POLL_SECONDS: Final = 0.2
CLIENT_ID: Final = "order-services-dead-letters"

Headers = list[tuple[str, bytes | None]]


class DeadLetterError(Exception):
    """Dead letters cannot be read or sent back; the text says which and why."""


class UnknownGroupError(DeadLetterError):
    """There is no dead-letter topic of this group."""

    def __init__(self, group_id: str, existing: Sequence[str]) -> None:
        there_are = f"there are {', '.join(existing)}" if existing else "there is none of any group"
        super().__init__(f"group {group_id} has no dead-letter topic; {there_are}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a group could not process; `headers` are those that it came with.

    The origin is None for what somebody else put into the topic.
    """

    group_id: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    origin_topic: str | None
    origin_partition: int | None
    origin_offset: int | None
    error: str
    attempts: int | None
    failed_at: datetime | None

    @property
    def error_kind(self) -> str:
        """The class of the error, which is what its text begins with."""
        return self.error.split(":", 1)[0]

    @property
    def event_type(self) -> str | None:
        """The type of the event, as its header or its value says; unchecked."""
        for name, value in self.headers:
            if name == "event-type":
                return (value or b"").decode("utf-8", "replace")
        try:
            body = json.loads(self.value or b"")
        except ValueError:
            return None
        found = body.get("eventType") if isinstance(body, dict) else None
        return found if isinstance(found, str) else None


def find(brokers: str, group_id: str, offset: int, partition: int = 0) -> DeadLetter:
    """Return one dead letter; raises `DeadLetterError` when it is not there (any more)."""
    with reading(brokers, CLIENT_ID) as consumer:
        if partition not in partitions_of(consumer, group_id):
            raise DeadLetterError(f"{topic_of(group_id)} has no partition {partition}")
        low, high = bounds_of(consumer, group_id, partition)
        if low <= offset < high:
            for letter in read(consumer, group_id, {partition: offset}):
                if letter.offset == offset:
                    return letter
    there_are = f"they go from {low} to {high - 1}" if high > low else "there are none"
    raise DeadLetterError(f"{group_id} has no dead letter at offset {offset}; {there_are}")


def groups(brokers: str) -> list[str]:
    """Return the groups that have a dead-letter topic; raises `DeadLetterError`."""
    with reading(brokers, CLIENT_ID) as consumer:
        return _groups(consumer)


def read(
    consumer: Consumer,
    group_id: str,
    start: Mapping[int, int],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[DeadLetter]:
    """Read what is there at the call, from the beginning or from the offsets given."""
    ends: dict[int, int] = {}
    assigned = []
    for partition in partitions_of(consumer, group_id):
        low, high = bounds_of(consumer, group_id, partition)
        first = max(low, start.get(partition, 0))
        if first < high:
            ends[partition] = high
            assigned.append(TopicPartition(topic_of(group_id), partition, first))
    consumer.assign(assigned)
    heard_at = time.monotonic()
    while ends and not stopping():
        message = consumer.poll(POLL_SECONDS)
        if message is None:
            if time.monotonic() - heard_at > REQUEST_TIMEOUT_SECONDS:
                raise DeadLetterError(f"Kafka has sent nothing of {topic_of(group_id)} for 10 s")
            continue
        heard_at = time.monotonic()
        number, offset = message.partition(), message.offset()
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
            raise DeadLetterError(f"cannot read {topic_of(group_id)}: {error.str()}")
        if number is None or offset is None or number not in ends:
            continue
        # end of partition: what was behind it has been deleted since
        if error is not None or offset + 1 >= ends[number]:
            del ends[number]
        if error is None:
            yield _letter(group_id, number, offset, message)


def _letter(group_id: str, partition: int, offset: int, message: Message) -> DeadLetter:
    about: dict[str, str] = {}
    headers: Headers = []
    # somebody else put a letter there whose headers cannot be read: it does not say where it came from
    with suppress(UnreadableHeadersError):
        for name, value in headers_of(message):
            if name.startswith(HEADER_PREFIX):
                about[name.removeprefix(HEADER_PREFIX)] = (value or b"").decode("utf-8", "replace")
            else:
                headers.append((name, value))
    return DeadLetter(
        group_id=group_id,
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        headers=headers,
        origin_topic=about.get("topic"),
        origin_partition=_integer(about.get("partition")),
        origin_offset=_integer(about.get("offset")),
        error=about.get("error", "unknown"),
        attempts=_integer(about.get("attempts")),
        failed_at=_moment(about.get("time"), message),
    )


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _moment(text: str | None, message: Message) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        kind, milliseconds = message.timestamp()
        return None if kind == 0 else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def topic_of(group_id: str) -> str:
    """Return the topic of a group's dead letters."""
    return group_id + DEAD_LETTER_SUFFIX


def _groups(consumer: Consumer) -> list[str]:
    with kafka_errors("list topics"):
        names = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    return sorted(
        name.removesuffix(DEAD_LETTER_SUFFIX) for name in names if name.endswith(DEAD_LETTER_SUFFIX)
    )


def partitions_of(consumer: Consumer, group_id: str) -> list[int]:
    """Return the partitions of a group's dead letters; raises `UnknownGroupError`."""
    with kafka_errors("list topics"):
        # all topics: asking for one by name would create it
        found = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics.get(topic_of(group_id))
    if found is None:
        raise UnknownGroupError(group_id, _groups(consumer))
    return sorted(found.partitions)


def bounds_of(consumer: Consumer, group_id: str, partition: int) -> tuple[int, int]:
    """Return the first offset that is there, and the one behind the last."""
    with kafka_errors(f"ask for the offsets of {topic_of(group_id)}"):
        bounds: tuple[int, int] = consumer.get_watermark_offsets(
            TopicPartition(topic_of(group_id), partition), timeout=REQUEST_TIMEOUT_SECONDS
        )
    return bounds


@contextmanager
def kafka_errors(doing: str) -> Iterator[None]:
    """Raise `DeadLetterError` for what the Kafka client raises inside the block."""
    try:
        yield
    except KafkaException as error:
        raise DeadLetterError(f"cannot {doing}: {reason_of(error)}") from error


@contextmanager
def reading(brokers: str, group_id: str) -> Iterator[Consumer]:
    """Yield a client that reads, and that may ask for and commit the offsets of `group_id`."""
    # never a member of the group: partitions are assigned by hand
    consumer = Consumer(
        {
            **kafka_settings(brokers),
            "group.id": group_id,
            "client.id": CLIENT_ID,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": MAX_MESSAGE_BYTES,
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def reason_of(error: KafkaException) -> str:
    """Return the Kafka client's own words."""
    return str(error.args[0].str())
