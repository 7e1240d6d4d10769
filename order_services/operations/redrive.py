"""Sends dead letters back to the topics that they came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from order_services.messaging.client_settings import MAX_MESSAGE_BYTES
from order_services.messaging.messages import DEAD_LETTER_FOR
from order_services.operations.dead_letters import (
    CLIENT_ID,
    REQUEST_TIMEOUT_SECONDS,
    DeadLetter,
    DeadLetterError,
    groups,
    read,
    reading,
    reason_of,
    topic_of,
)
from order_services.operations.redrive_progress import MEMORY_GROUP_PREFIX, Progress, progress_of
from order_services.process.kafka_settings import kafka_settings

# What one commit covers: a process that dies sends at most these again, which changes nothing.
CHUNK: Final = 100


@dataclass(slots=True)
class Heap:
    """What a group has of one topic: how many, how many not sent back yet, since when, why."""

    group_id: str
    topic: str | None
    count: int = 0
    waiting: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant; empty filters let all pass."""

    event_types: frozenset[str] = frozenset()
    offsets: frozenset[int] = frozenset()
    limit: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether the filters let a letter pass; `limit` is the caller's to apply."""
        return (not self.offsets or letter.offset in self.offsets) and (
            not self.event_types or letter.event_type in self.event_types
        )


@dataclass(slots=True)
class Redriven:
    """What came of a redrive so far: sent back now, sent back before, and not to be sent at all."""

    sent: int = 0
    sent_before: int = 0
    without_origin: int = 0


def heaps(brokers: str) -> list[Heap]:
    """Return what there is of each group and topic; a group without dead letters has no topic."""
    found: list[Heap] = []
    for group_id in groups(brokers):
        of_topic: dict[str | None, Heap] = {}
        with reading(brokers, MEMORY_GROUP_PREFIX + group_id) as consumer:
            progress = progress_of(consumer, group_id)
            for letter in read(consumer, group_id, {}):
                heap = of_topic.setdefault(letter.origin_topic, Heap(group_id, letter.origin_topic))
                heap.count += 1
                heap.waiting += letter.offset not in progress[letter.partition]
                heap.errors[letter.error_kind] = heap.errors.get(letter.error_kind, 0) + 1
                if letter.failed_at is not None:
                    heap.oldest = min(heap.oldest or letter.failed_at, letter.failed_at)
                    heap.newest = max(heap.newest or letter.failed_at, letter.failed_at)
        found += of_topic.values() or [Heap(group_id, None)]
    return found


def redrive(
    brokers: str,
    group_id: str,
    selection: Selection,
    *,
    again: bool = False,
    on_progress: Callable[[Redriven], None] = lambda _redriven: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Redriven:
    """Send dead letters back to the topics that they came from, with key, headers and event id.

    Every other group that reads the topic passes them over, as a header says whom they are for. What
    was sent back before is passed over unless `again`. Once `stopping` it ends, with all that was sent
    remembered. Raises `DeadLetterError`.
    """
    redriven = Redriven()
    with reading(brokers, MEMORY_GROUP_PREFIX + group_id) as consumer:
        progress = progress_of(consumer, group_id)
        producer = Producer(_producer_settings(brokers))
        chunk: list[DeadLetter] = []

        def finish_chunk() -> None:
            nonlocal progress
            progress = _send_and_remember(consumer, producer, progress, chunk)
            redriven.sent += len(chunk)
            chunk.clear()
            on_progress(redriven)

        # with `again` the whole topic counts, else only what is behind the part that is done
        start = {} if again else {partition: each.first for partition, each in progress.items()}
        for letter in read(consumer, group_id, start, stopping):
            if not selection.takes(letter):
                continue
            if not again and letter.offset in progress[letter.partition]:
                redriven.sent_before += 1
            elif letter.origin_topic is None:
                redriven.without_origin += 1
            else:
                chunk.append(letter)
                if len(chunk) == CHUNK:
                    finish_chunk()
            if redriven.sent + len(chunk) == selection.limit:
                break
        if chunk and not stopping():
            finish_chunk()
    return redriven


def _send_and_remember(
    consumer: Consumer,
    producer: Producer,
    progress: Mapping[int, Progress],
    chunk: Sequence[DeadLetter],
) -> dict[int, Progress]:
    """Return the progress with the chunk sent; what cannot be remembered is not sent."""
    group_id = chunk[0].group_id
    after = copy.deepcopy(dict(progress))
    for letter in chunk:
        after[letter.partition].add(letter.offset)
    offsets = [
        TopicPartition(topic_of(group_id), partition, each.first, each.checked_metadata())
        for partition, each in after.items()
    ]
    _send(producer, chunk)
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        raise DeadLetterError(
            f"{len(chunk)} were sent but could not be noted as such: {reason_of(error)}"
        ) from error
    return after


def _send(producer: Producer, letters: Sequence[DeadLetter]) -> None:
    errors: list[KafkaError] = []

    def report(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error)

    for letter in letters:
        message: dict[str, Any] = {
            "topic": letter.origin_topic,
            "key": letter.key,
            "value": letter.value,
            # whoever else reads the topic has had it, however long ago: they pass it over
            "headers": [*letter.headers, (DEAD_LETTER_FOR, letter.group_id.encode())],
            "on_delivery": report,
        }
        if letter.key is None and letter.origin_partition is not None:
            message["partition"] = letter.origin_partition
        try:
            producer.produce(**message)
        except KafkaException as error:
            errors.append(error.args[0])
    unreported = producer.flush(REQUEST_TIMEOUT_SECONDS + 1)
    if errors or unreported:
        reason = errors[0].str() if errors else "no delivery report in time"
        raise DeadLetterError(
            f"Kafka did not take {len(errors) + unreported} of {len(letters)}: {reason}; "
            "none of these counts as sent"
        )


def _producer_settings(brokers: str) -> dict[str, Any]:
    return {
        **kafka_settings(brokers),
        "client.id": CLIENT_ID,
        "enable.idempotence": True,
        "acks": "all",
        # the Java client's, as the relay's: the key leads to the partition that it came from
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": int(REQUEST_TIMEOUT_SECONDS * 1000),
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "log_level": 0,
    }
