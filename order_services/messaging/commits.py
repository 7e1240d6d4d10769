"""Commits offsets in the background: the consume loop never waits for the broker's answer."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from order_services.process import instrumentation
from order_services.process.backoff import Backoff

Partition = tuple[str, int]

# A commit that finds no coordinator is given up by the client itself after the session timeout.
PATIENCE_SECONDS: Final = 10.0
# What counts of the time between two polls: nobody listened in the rest of it.
MAX_GAP_SECONDS: Final = 1.0
# A commit is a write for the broker, whatever it covers: those of a busy consumer are so far apart. What
# a crash leaves uncommitted comes again, and changes nothing.
COMMIT_INTERVAL_SECONDS: Final = 0.5
# A commit may fail for as long as a topic is gone: each try is a request, and a line in the log.
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class ClientHangsError(Exception):
    """The Kafka client has lost a commit and waits for its answer: only another client can go on."""


class OffsetCommits:
    """The offsets that one Kafka client has to commit, and its commits that are under way.

    An offset is remembered until the broker has it: what a commit that failed leaves is in the next.
    There is one commit at a time, and what is handled meanwhile goes with the next. After one, and for
    longer after a failure, the next one waits a while.

    A commit under way while its broker shuts down in good order can be lost within librdkafka, which
    then neither answers nor lets the member rejoin its group, for ever. `send` raises ClientHangsError
    when a commit has had no answer for `timeout_seconds` in which the client was polled: answers are
    only taken in then, and a long batch must not cost a healthy client.
    """

    def __init__(self, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._pending: dict[Partition, int] = {}
        self._listened = 0.0  # seconds
        self._polled_at = -math.inf
        self._sent_at: deque[float] = deque()  # by `_listened`
        self._backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS)
        self._due_at = -math.inf

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

    def polled(self) -> None:
        """Note that the client has just been polled."""
        now = self._clock()
        self._listened += min(now - self._polled_at, MAX_GAP_SECONDS)
        self._polled_at = now

    def send(self, kafka: KafkaConsumer) -> None:
        """Begin to commit what is pending, unless a commit is under way or was begun just now."""
        if not self._sent_at:
            if self._pending and self._clock() >= self._due_at:
                self._due_at = self._clock() + COMMIT_INTERVAL_SECONDS
                self.send_now(kafka)
        elif self._listened - self._sent_at[0] > self._timeout_seconds:
            raise ClientHangsError(f"no answer to a commit for {self._timeout_seconds:.0f} s")

    def send_now(self, kafka: KafkaConsumer) -> None:
        """Begin to commit what is pending, behind what is under way.

        A client finishes its commits before it gives up partitions or leaves the group.
        """
        if not self._pending:
            return
        offsets = [TopicPartition(*partition, at) for partition, at in self._pending.items()]
        self._sent_at.append(self._listened)
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
            # the next commit covers it; a crash before that delivers it again, which changes nothing
            self._failed(failure)
            return
        self._backoff.reset()
        for each in offsets:
            if self._pending.get((each.topic, each.partition)) == each.offset:
                del self._pending[each.topic, each.partition]

    def _failed(self, error: KafkaError) -> None:
        self._due_at = self._clock() + self._backoff.next_seconds()
        instrumentation.OFFSET_COMMIT_FAILURES.inc()
        _log.warning("offsets not committed", code=error.name(), error=error.str())
