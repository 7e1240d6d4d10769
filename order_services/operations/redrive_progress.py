"""Remembers which dead letters were sent back.

It is kept in Kafka, as the committed offset of a group of its own: all before that offset, and with it,
as the commit's metadata, a bitmap of those behind it. So a monitor shows how many dead letters wait as
the lag of `dead-letters-redrive-GROUP`, and who deletes a topic deletes the memory of it too.
"""

from __future__ import annotations

import base64
import time
import zlib
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from order_services.operations.dead_letters import (
    POLL_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    DeadLetterError,
    bounds_of,
    kafka_errors,
    partitions_of,
    topic_of,
)

MEMORY_GROUP_PREFIX: Final = "dead-letters-redrive-"
# Brokers refuse larger metadata (offset.metadata.max.bytes, 4096 by default).
MAX_METADATA_BYTES: Final = 4000


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

    def checked_metadata(self) -> str:
        """Return `metadata()`; raises `DeadLetterError` where brokers would refuse it."""
        metadata = self.metadata()
        if len(metadata) > MAX_METADATA_BYTES:
            raise DeadLetterError("too many gaps between those sent back: send older ones first")
        return metadata

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


def progress_of(consumer: Consumer, group_id: str) -> dict[int, Progress]:
    """Return what was sent back of each partition; what is deleted needs no memory."""
    wanted = [
        TopicPartition(topic_of(group_id), each) for each in partitions_of(consumer, group_id)
    ]
    committed = _committed(consumer, wanted)
    progress = {}
    for each in committed:
        progress[each.partition] = Progress.of(each.offset, each.metadata)
        progress[each.partition].forget(bounds_of(consumer, group_id, each.partition)[0])
    return progress


def _committed(consumer: Consumer, wanted: list[TopicPartition]) -> list[TopicPartition]:
    give_up_at = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while True:
        with kafka_errors("ask what was sent back before"):
            try:
                return consumer.committed(wanted, timeout=REQUEST_TIMEOUT_SECONDS)
            except KafkaException as error:
                # a broker that has just started looks for its coordinator
                if not error.args[0].retriable() or time.monotonic() > give_up_at:
                    raise
        time.sleep(POLL_SECONDS)
