"""Reads the dead letters of each consumer group, and sends them back to where they came from.

What was sent back is remembered in Kafka, as the committed offset of a group of its own: all before
that offset, and with it, as the commit's metadata, a bitmap of those behind it. So a monitor shows
how many dead letters wait as the lag of `dead-letters-replay-GROUP`, and who deletes a topic deletes
the memory of it too.
"""

from __future__ import annotations

import base64
import copy
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from order_services.domain.topics import DEAD_LETTER_SUFFIX
from order_services.messaging.dead_letters import HEADER_PREFIX
from order_services.messaging.messages import (
    DEAD_LETTER_FOR,
    UnreadableHeadersError,
    headers_of,
)
from order_services.messaging.publishing import MAX_MESSAGE_BYTES
from order_services.process.kafka_settings import kafka_settings

MEMORY_GROUP_PREFIX: Final = "dead-letters-replay-"
REQUEST_TIMEOUT_SECONDS: Final = 10.0
# Short, so that Ctrl-C is heard: the client's calls return to Python only between them.
POLL_SECONDS: Final = 0.2
# What one commit covers: a process that dies sends at most these again, and the inbox knows them.
CHUNK: Final = 100
# Brokers refuse larger metadata (offset.metadata.max.bytes, 4096 by default).
MAX_METADATA_BYTES: Final = 4000

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


@dataclass(slots=True)
class Progress:
    """Which offsets of a partition were sent back: all below `first`, and those `beyond`."""

    first: int = 0
    beyond: set[int] = field(default_factory=set)

    def __contains__(self, offset: int) -> bool:
        return offset < self.first or offset in self.beyond

    def add(self, offset: int) -> None:
        """Note an offset."""
        if offset not in self:
            self.beyond.add(offset)
        self._advance()

    def forget(self, oldest: int) -> None:
        """Forget what is below `oldest`: it is deleted."""
        self.first = max(self.first, oldest)
        self.beyond = {each for each in self.beyond if each >= oldest}
        self._advance()

    def _advance(self) -> None:
        while self.first in self.beyond:
            self.beyond.remove(self.first)
            self.first += 1

    def metadata(self) -> str:
        """Return `beyond` as text: base64 of a deflated bitmap, whose bit 0 is offset `first`."""
        if not self.beyond:
            return ""
        bits = sum(1 << (offset - self.first) for offset in self.beyond)
        packed = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        return base64.b64encode(zlib.compress(packed, 9)).decode()

    @classmethod
    def of(cls, first: int, metadata: str | None) -> Progress:
        """Return what `metadata()` and a committed offset stand for."""
        progress = cls(max(0, first))
        if metadata:
            try:
                packed = zlib.decompress(base64.b64decode(metadata, validate=True))
            except (ValueError, zlib.error):
                # committed by another tool: its offset counts, its note is not ours
                return progress
            bits = int.from_bytes(packed, "little")
            progress.beyond = {
                progress.first + n for n in range(bits.bit_length()) if bits >> n & 1
            }
        return progress


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
class Replayed:
    """What came of a replay so far: sent back now, sent back before, and not to be sent at all."""

    sent: int = 0
    sent_before: int = 0
    without_origin: int = 0


def groups(brokers: str) -> list[str]:
    """Return the groups that have a dead-letter topic; raises `DeadLetterError`."""
    with _consumer(brokers, "dead-letters-list") as consumer:
        return _groups(consumer)


def heaps(brokers: str) -> list[Heap]:
    """Return what there is of each group and topic; a group without dead letters has no topic."""
    found: list[Heap] = []
    for group_id in groups(brokers):
        of_topic: dict[str | None, Heap] = {}
        with _consumer(brokers, MEMORY_GROUP_PREFIX + group_id) as consumer:
            progress = _progress(consumer, group_id)
            for letter in _read(consumer, group_id, {}):
                heap = of_topic.setdefault(letter.origin_topic, Heap(group_id, letter.origin_topic))
                heap.count += 1
                heap.waiting += letter.offset not in progress[letter.partition]
                heap.errors[letter.error_kind] = heap.errors.get(letter.error_kind, 0) + 1
                if letter.failed_at is not None:
                    heap.oldest = min(heap.oldest or letter.failed_at, letter.failed_at)
                    heap.newest = max(heap.newest or letter.failed_at, letter.failed_at)
        found += of_topic.values() or [Heap(group_id, None)]
    return found


def find(brokers: str, group_id: str, offset: int, partition: int = 0) -> DeadLetter:
    """Return one dead letter; raises `DeadLetterError` when it is not there (any more)."""
    with _consumer(brokers, MEMORY_GROUP_PREFIX + group_id) as consumer:
        if partition not in _partitions(consumer, group_id):
            raise DeadLetterError(f"{_topic(group_id)} has no partition {partition}")
        low, high = _bounds(consumer, group_id, partition)
        if low <= offset < high:
            for letter in _read(consumer, group_id, {partition: offset}):
                if letter.offset == offset:
                    return letter
    there_are = f"they go from {low} to {high - 1}" if high > low else "there are none"
    raise DeadLetterError(f"{group_id} has no dead letter at offset {offset}; {there_are}")


def replay(
    brokers: str,
    group_id: str,
    selection: Selection,
    *,
    again: bool = False,
    on_progress: Callable[[Replayed], None] = lambda _replayed: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Replayed:
    """Send dead letters back to the topics that they came from, with key, headers and event id.

    The group lets them in, since a dead letter leaves no row in its inbox; every other group that
    reads the topic passes them over, as a header says whom they are for. What was sent back before is
    passed over unless `again`. Once `stopping` it ends, with all that was sent remembered. Raises
    `DeadLetterError`.
    """
    replayed = Replayed()
    with _consumer(brokers, MEMORY_GROUP_PREFIX + group_id) as consumer:
        progress = _progress(consumer, group_id)
        producer = Producer(_producer_settings(brokers))
        chunk: list[DeadLetter] = []

        def finish_chunk() -> None:
            nonlocal progress
            progress = _send_and_remember(consumer, producer, progress, chunk)
            replayed.sent += len(chunk)
            chunk.clear()
            on_progress(replayed)

        # with `again` the whole topic counts, else only what is behind the part that is done
        start = {} if again else {partition: each.first for partition, each in progress.items()}
        for letter in _read(consumer, group_id, start, stopping):
            if not selection.takes(letter):
                continue
            if not again and letter.offset in progress[letter.partition]:
                replayed.sent_before += 1
            elif letter.origin_topic is None:
                replayed.without_origin += 1
            else:
                chunk.append(letter)
                if len(chunk) == CHUNK:
                    finish_chunk()
            if replayed.sent + len(chunk) == selection.limit:
                break
        if chunk and not stopping():
            finish_chunk()
    return replayed


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
        TopicPartition(_topic(group_id), partition, each.first, _checked(each.metadata()))
        for partition, each in after.items()
    ]
    _send(producer, chunk)
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        raise DeadLetterError(
            f"{len(chunk)} were sent but could not be noted as such: {_reason(error)}"
        ) from error
    return after


def _checked(metadata: str) -> str:
    if len(metadata) > MAX_METADATA_BYTES:
        raise DeadLetterError("too many gaps between those sent back: send older ones first")
    return metadata


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


def _read(
    consumer: Consumer,
    group_id: str,
    start: Mapping[int, int],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[DeadLetter]:
    """Read what is there at the call, from the beginning or from the offsets given."""
    ends: dict[int, int] = {}
    assigned = []
    for partition in _partitions(consumer, group_id):
        low, high = _bounds(consumer, group_id, partition)
        first = max(low, start.get(partition, 0))
        if first < high:
            ends[partition] = high
            assigned.append(TopicPartition(_topic(group_id), partition, first))
    consumer.assign(assigned)
    heard_at = time.monotonic()
    while ends and not stopping():
        message = consumer.poll(POLL_SECONDS)
        if message is None:
            if time.monotonic() - heard_at > REQUEST_TIMEOUT_SECONDS:
                raise DeadLetterError(f"Kafka has sent nothing of {_topic(group_id)} for 10 s")
            continue
        heard_at = time.monotonic()
        number, offset = message.partition(), message.offset()
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
            raise DeadLetterError(f"cannot read {_topic(group_id)}: {error.str()}")
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


def _topic(group_id: str) -> str:
    return group_id + DEAD_LETTER_SUFFIX


def _groups(consumer: Consumer) -> list[str]:
    with _kafka_errors("list topics"):
        names = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    return sorted(
        name.removesuffix(DEAD_LETTER_SUFFIX) for name in names if name.endswith(DEAD_LETTER_SUFFIX)
    )


def _partitions(consumer: Consumer, group_id: str) -> list[int]:
    with _kafka_errors("list topics"):
        # all topics: asking for one by name would create it
        found = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics.get(_topic(group_id))
    if found is None:
        raise UnknownGroupError(group_id, _groups(consumer))
    return sorted(found.partitions)


def _bounds(consumer: Consumer, group_id: str, partition: int) -> tuple[int, int]:
    with _kafka_errors(f"ask for the offsets of {_topic(group_id)}"):
        bounds: tuple[int, int] = consumer.get_watermark_offsets(
            TopicPartition(_topic(group_id), partition), timeout=REQUEST_TIMEOUT_SECONDS
        )
    return bounds


def _progress(consumer: Consumer, group_id: str) -> dict[int, Progress]:
    """Return what was sent back of each partition; what is deleted needs no memory."""
    wanted = [TopicPartition(_topic(group_id), each) for each in _partitions(consumer, group_id)]
    committed = _committed(consumer, wanted)
    progress = {}
    for each in committed:
        progress[each.partition] = Progress.of(each.offset, each.metadata)
        progress[each.partition].forget(_bounds(consumer, group_id, each.partition)[0])
    return progress


def _committed(consumer: Consumer, wanted: list[TopicPartition]) -> list[TopicPartition]:
    give_up_at = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while True:
        with _kafka_errors("ask what was sent back before"):
            try:
                return consumer.committed(wanted, timeout=REQUEST_TIMEOUT_SECONDS)
            except KafkaException as error:
                # a broker that has just started looks for its coordinator
                if not error.args[0].retriable() or time.monotonic() > give_up_at:
                    raise
        time.sleep(POLL_SECONDS)


@contextmanager
def _kafka_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise DeadLetterError(f"cannot {doing}: {_reason(error)}") from error


@contextmanager
def _consumer(brokers: str, group_id: str) -> Iterator[Consumer]:
    # never a member of the group: partitions are assigned by hand
    consumer = Consumer(
        {
            **kafka_settings(brokers),
            "group.id": group_id,
            "client.id": "order-services-dead-letters",
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


def _producer_settings(brokers: str) -> dict[str, Any]:
    return {
        **kafka_settings(brokers),
        "client.id": "order-services-dead-letters",
        "enable.idempotence": True,
        "acks": "all",
        # the Java client's, as the relay's: the key leads to the partition that it came from
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": int(REQUEST_TIMEOUT_SECONDS * 1000),
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "log_level": 0,
    }


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())
