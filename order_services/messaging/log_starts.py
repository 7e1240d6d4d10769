"""Sets partitions to where their log starts when what was to be read next is not there.

A group without a committed offset begins there. One that has been away, or behind, for so long that
retention has taken records which it had not read goes on from there, and tells how many those were:
left to itself, the Kafka client would skip them without a word.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import structlog
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition

from order_services.messaging.commits import Partition
from order_services.process import instrumentation

# A leader that does not answer gives no records either; the other partitions must not wait for it.
ASK_TIMEOUT_SECONDS: Final = 1.0
ASK_AGAIN_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class LogStarts:
    """The partitions of one Kafka client that read nothing until they are told from where."""

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._wanted: dict[Partition, int | None] = {}
        self._due_at = 0.0

    def need(self, topic: str, partition: int, wanted: int | None) -> None:
        """Note that a partition has no record at the offset `wanted`, None where none is committed."""
        self._wanted[topic, partition] = wanted
        self._due_at = 0.0

    def forget(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that are not ours any more."""
        for partition in partitions:
            self._wanted.pop(partition, None)

    def settle(
        self, kafka: KafkaConsumer, busy: Collection[Partition] = ()
    ) -> dict[Partition, int]:
        """Let the partitions go on from their log's start, unless their messages wait in a `busy` one.

        Returns the offsets to commit: what is lost is told once, and not again after each restart.
        """
        if not self._wanted or time.monotonic() < self._due_at:
            return {}
        passed: dict[Partition, int] = {}
        for key in self._wanted.keys() - busy:
            wanted = self._wanted[key]
            try:
                start, end = kafka.get_watermark_offsets(
                    TopicPartition(*key), timeout=ASK_TIMEOUT_SECONDS
                )
                # the client seeks only where it reads, and it has given this partition up
                with suppress(KafkaException):  # it was taken away by an earlier try
                    kafka.incremental_unassign([TopicPartition(*key)])
                kafka.incremental_assign([TopicPartition(*key, start)])
            except KafkaException as error:
                _log.warning("no log start", topic=key[0], partition=key[1], error=str(error))
                self._due_at = time.monotonic() + ASK_AGAIN_SECONDS
                break
            del self._wanted[key]
            if wanted is not None:
                self._tell(key, wanted, start, end)
                passed[key] = start
        return passed

    def _tell(self, key: Partition, wanted: int, start: int, end: int) -> None:
        about = {"group": self._group_id, "topic": key[0], "partition": key[1], "offset": wanted}
        if wanted > end:
            _log.error("the log ends before what was read: it is read again", end=end, **about)
        elif start > wanted:
            instrumentation.RECORDS_LOST.labels(key[0]).inc(start - wanted)
            _log.error(
                "retention has taken records before they were read",
                records=start - wanted,
                log_start=start,
                **about,
            )
