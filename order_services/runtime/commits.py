"""Commits offsets in the background: the consume loop never waits for the broker's answer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from order_services.runtime import instrumentation

Partition = tuple[str, int]

# A commit that finds no coordinator is given up by the client itself after the session timeout.
PATIENCE_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class ClientHangsError(Exception):
    """The Kafka client has lost a commit and waits for its answer: only another client can go on."""


class OffsetCommits:
    """The offsets that one Kafka client has to commit, and its commits that are under way.

    An offset is remembered until the broker has it: what a commit that failed leaves is in the next.
    There is one commit at a time, and what is handled meanwhile goes with the next.

    A commit under way while its broker shuts down in good order can be lost within librdkafka, which
    then neither answers nor lets the member rejoin its group, for ever. `send` raises ClientHangsError
    when a commit is older than `timeout_seconds`.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._pending: dict[Partition, int] = {}
        self._sent_at: deque[float] = deque()

    @property
    def pending(self) -> Mapping[Partition, int]:
        """The offsets that the broker has not confirmed."""
        return self._pending

    def add(self, offsets: Mapping[Partition, int]) -> None:
        """Take in what to commit next."""
        self._pending.update(offsets)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Commit these no more: somebody else owns the partitions."""
        for partition in partitions:
            self._pending.pop(partition, None)

    def send(self, kafka: KafkaConsumer) -> None:
        """Begin to commit what is pending, unless a commit is under way."""
        if not self._sent_at:
            self.send_now(kafka)
        elif time.monotonic() - self._sent_at[0] > self._timeout_seconds:
            raise ClientHangsError(f"no answer to a commit for {self._timeout_seconds:.0f} s")

    def send_now(self, kafka: KafkaConsumer) -> None:
        """Begin to commit what is pending, behind what is under way.

        A client finishes its commits before it gives up partitions or leaves the group.
        """
        if not self._pending:
            return
        offsets = [TopicPartition(*partition, at) for partition, at in self._pending.items()]
        self._sent_at.append(time.monotonic())
        try:
            kafka.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._sent_at.pop()
            self._failed(error.args[0])

    def answered(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take in the broker's answer; the client calls this while it is polled."""
        if self._sent_at:
            self._sent_at.popleft()
        failure = error or next((each.error for each in offsets if each.error), None)
        if failure is not None:
            # the next commit covers it; a crash before that delivers it again, to the inbox
            self._failed(failure)
            return
        for each in offsets:
            if self._pending.get((each.topic, each.partition)) == each.offset:
                del self._pending[each.topic, each.partition]

    def _failed(self, error: KafkaError) -> None:
        instrumentation.OFFSET_COMMIT_FAILURES.inc()
        _log.warning("offsets not committed", code=error.name(), error=error.str())
