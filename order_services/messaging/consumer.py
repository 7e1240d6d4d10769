"""The one consume loop: takes batches from Kafka, has them processed, commits their offsets.

Offsets are committed after the database transaction, so a crash in between delivers the batch again,
and it changes nothing: its effects are found by their keys. Nothing is committed by the Kafka client on
its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from order_services.domain.events import Event
from order_services.domain.topics import ConsumerGroup
from order_services.messaging.batch import BatchProcessor
from order_services.messaging.client_settings import consumer_settings
from order_services.messaging.commits import (
    PATIENCE_SECONDS,
    ClientHangsError,
    OffsetCommits,
    Partition,
)
from order_services.messaging.dead_letters import DeadLetterLimitError, describe
from order_services.messaging.half_way import HalfWayRebalances
from order_services.messaging.kafka_errors import FatalClientError, FatalErrors, is_fatal, means
from order_services.messaging.log_starts import LogStarts
from order_services.messaging.messages import ReceivedMessage, correlation_id, received
from order_services.messaging.outcomes import tell
from order_services.messaging.parking import Parked, Parking
from order_services.process import instrumentation
from order_services.process.backoff import Backoff
from order_services.process.settings import GroupProtocol, ServiceSettings
from order_services.process.threads import Threaded
from order_services.storage.database import is_transient

POLL_SECONDS: Final = 0.25
# How long before a batch is due what has come meanwhile is fetched: a look after the back-off, a fetch,
# and time to spare.
LAST_LOOK_SECONDS: Final = 0.06
# While it waits for a retry the consumer must keep polling, or it would lose its partitions.
PAUSED_POLL_SECONDS: Final = 0.1
# The broker is not waited for longer by a member that leaves for good.
LEAVE_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)

RebalanceCallback = Callable[[KafkaConsumer, list[TopicPartition]], None]


class InstanceIdTakenError(Exception):
    """Another process is the static member that this one was."""


class Consumer(Threaded):
    """Runs the loop on a thread of its own; `stop` commits and leaves the group.

    Transient errors undo a batch and it is tried again. While the database is away all partitions are
    paused; when it answers, and only the messages of some partitions fail (a row that somebody keeps
    locked), those are parked and retried on their own while the others go on. Either way the consumer
    keeps polling, so that the group does not take it for dead.

    A batch cannot hold up a rebalance for long: the database ends a transaction that takes more than
    its share of the revoke budget (`ServiceSettings.revoke_budget_seconds`), and a batch that waits for
    a retry is given up at once.

    A Kafka client that hangs in a commit, or has met a fatal error, is left behind for a new one. What
    it had not committed is delivered again. Who was fenced does not come back: it would fence the other one
    in turn.

    `on_handled` is told of the events of each batch after its commit; `on_written` is called when
    rows were committed to the outbox.
    """

    def __init__(
        self,
        *,
        group: ConsumerGroup,
        settings: ServiceSettings,
        processor: BatchProcessor,
        on_written: Callable[[], None],
        on_handled: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        super().__init__("consumer")
        self._group = group
        self._settings = settings
        self._processor = processor
        self._on_written = on_written
        self._on_handled = on_handled
        self._kafka: KafkaConsumer | None = None
        self._assigned: set[Partition] = set()
        self._joined = False
        self._paused = False
        self._backlog: list[KafkaMessage] = []
        self._parked = Parking()
        # since the batch at hand was taken: its messages of these are not ours any more, even if the
        # partition has come back
        self._given_up: set[Partition] = set()
        self._commits = OffsetCommits(math.inf)
        self._log_starts = LogStarts(group.group_id)
        self._half_way = HalfWayRebalances(group, settings)
        self._leaves = False
        self._stopped_because: str | None = None
        self._last_error: str | None = None
        self._renewals = self._new_backoff()
        self._fatal_errors = FatalErrors("consumer", settings)
        self._broken = False
        self._last_turn = time.monotonic()
        self._taken_at = float("-inf")
        self._was_full = False
        for topic in group.topics:
            instrumentation.children(topic)
            instrumentation.RECORDS_LOST.labels(topic)

    def not_ready(self) -> str | None:
        """Say why no messages are being processed, or None."""
        if self._stopped_because is not None:
            return f"consumer: stopped: {self._stopped_because}"
        if not self._joined:
            why = "" if self._last_error is None else f": {self._last_error}"
            return f"consumer: not a member of {self._group.group_id} yet{why}"
        return None

    def not_alive(self) -> str | None:
        """Say why only a restart can help, or None."""
        if self._broken:
            return f"consumer: ended: {self._stopped_because}"
        silent_seconds = time.monotonic() - self._last_turn
        is_running = self._thread.is_alive() and self._stopped_because is None
        if is_running and silent_seconds > self._settings.max_poll_interval_seconds:
            return f"consumer: no progress for {silent_seconds:.0f} s"
        return self._fatal_errors.too_many()

    def leave_at_stop(self) -> None:
        """Give the partitions to others at the end, at once.

        A static member that only stops keeps them for the session timeout: it may be restarting.
        """
        self._leaves = True

    def _run(self) -> None:
        instrumentation.CONSUMER_STOPPED.set(0)
        try:
            while not self._stopping.is_set():
                try:
                    self._consume()
                except ClientHangsError as error:
                    self._leave_behind(error)
                except FatalClientError as error:
                    self._fatal_errors.met(error)
                    self._leave_behind(error)
                    self._stopping.wait(self._renewals.next_seconds())
        except DeadLetterLimitError as error:
            self._stop_because(str(error))
        except InstanceIdTakenError as error:
            self._broken = True
            self._stop_because(str(error))
        except Exception as error:  # noqa: BLE001  # a thread has nobody to raise to
            self._broken = True
            self._stop_because(describe(error))
            _log.exception("consumer ended", group=self._group.group_id)
        finally:
            if self._kafka is not None:
                if self._leaves:
                    self._leave(self._kafka)
                self._kafka.close()

    def _leave(self, kafka: KafkaConsumer) -> None:
        if self._settings.group_protocol is GroupProtocol.CONSUMER:
            # there the client has no way out for a static member; others leave when they are closed
            return
        until = time.monotonic() + LEAVE_SECONDS
        # a client that is closed while it joins, or before its partitions are revoked, stays a member
        while not self._joined and time.monotonic() < until:
            kafka.poll(PAUSED_POLL_SECONDS)
        kafka.unsubscribe()
        while kafka.memberid() and time.monotonic() < until:
            kafka.poll(PAUSED_POLL_SECONDS)

    def _consume(self) -> None:
        """Consume until we are stopped.

        Raises ClientHangsError or FatalClientError when only a new client can go on, and
        InstanceIdTakenError when none can.
        """
        # a client's own: answers to a client that was left behind are not for its successor
        commits = self._commits = OffsetCommits(
            self._settings.session_timeout_seconds + PATIENCE_SECONDS
        )
        kafka = self._kafka = KafkaConsumer(
            {**consumer_settings(self._group, self._settings), "on_commit": commits.answered}
        )
        self._subscribe(kafka)
        while not self._stopping.is_set():
            self._last_turn = time.monotonic()
            if self._half_way.found():
                # leaves the group, as a static member that only stops does not, and joins anew
                kafka.unsubscribe()
                self._subscribe(kafka)
            self._retry_parked(kafka)
            self._commits.add(self._log_starts.settle(kafka, self._waiting()))
            messages = self._take(kafka)
            if messages:
                self._process_until_it_works(kafka, messages)
            # what failed too, and not with the next batch only: until that comes it would show as lag
            commits.send(kafka)

    def _subscribe(self, kafka: KafkaConsumer) -> None:
        kafka.subscribe(
            list(self._group.topics),
            on_assign=self._unless_left_behind(self._on_assign),
            on_revoke=self._unless_left_behind(self._on_revoke),
            on_lost=self._unless_left_behind(self._on_lost),
        )

    def _unless_left_behind(self, callback: RebalanceCallback) -> RebalanceCallback:
        def call(kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
            # the client does by itself what a callback leaves undone; ours would touch its successor's
            if kafka is self._kafka:
                callback(kafka, partitions)

        return call

    def _leave_behind(self, error: ClientHangsError | FatalClientError) -> None:
        """Forget the client, and all that it has handed out."""
        instrumentation.CLIENTS_LEFT_BEHIND.inc()
        _log.error("kafka client left behind", group=self._group.group_id, reason=str(error))
        kafka, self._kafka = self._kafka, None
        self._joined = self._paused = False
        self._give_up(_partitions(self._assigned))
        # also its errors, which are of no partition
        self._backlog = []
        if kafka is not None:
            # it may get to leave its group, and may as well hang in that
            threading.Thread(target=kafka.close, name="close", daemon=True).start()

    def _stop_because(self, reason: str) -> None:
        self._stopped_because = reason
        instrumentation.CONSUMER_STOPPED.set(1)
        _log.error("consumer stopped", group=self._group.group_id, reason=reason)

    def _take(self, kafka: KafkaConsumer) -> list[ReceivedMessage]:
        """Return the next batch: all that is there, waiting only for the first and to gather more."""
        fetched: list[KafkaMessage]
        fetched, self._backlog = self._backlog, []
        if not fetched:
            first = kafka.poll(min(POLL_SECONDS, self._parked.due_in()))
            self._commits.polled()
            if first is None:
                return []
            fetched.append(first)
        missing = self._settings.batch_max_messages - len(fetched)
        if missing > 0:
            fetched += self._gather(kafka, missing)
            self._commits.polled()
        self._was_full = len(fetched) >= self._settings.batch_max_messages
        self._taken_at = time.monotonic()
        # the client's queue may still hold messages of partitions that were revoked since
        ours = [
            each
            for each in map(self._received, fetched)
            if each is not None and (each.topic, each.partition) in self._assigned
        ]
        return self._parked.queue_behind(ours) if self._parked else ours

    def _gather(self, kafka: KafkaConsumer, missing: int) -> list[KafkaMessage]:
        """Return what comes until the batch is due, or is full."""
        seconds = self._gather_seconds()
        rest_seconds = seconds - LAST_LOOK_SECONDS
        # The client fetches only while nothing waits for us: who takes each message as it comes has it
        # ask for every piece of what a relay publishes, and each fetch is as much work for the broker
        # as a hundred messages. What has come since is fetched in one, at the last look. Behind a full
        # batch there is more at once.
        if rest_seconds > 0 and not self._was_full:
            self._stopping.wait(rest_seconds)
            seconds = LAST_LOOK_SECONDS
        return kafka.consume(missing, seconds)

    def _gather_seconds(self) -> float:
        due_at = self._taken_at + self._settings.batch_interval_seconds
        return max(self._settings.batch_linger_seconds, due_at - time.monotonic())

    def _still_ours(self, messages: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Return those of a batch at hand whose partitions we have kept."""
        return [each for each in messages if (each.topic, each.partition) not in self._given_up]

    def _received(self, message: KafkaMessage) -> ReceivedMessage | None:
        error = message.error()
        if error is not None:
            self._on_error(message, error)
            return None
        return received(message)

    def _waiting(self) -> set[Partition]:
        """Return the partitions of which messages wait: to commit past those would lose them."""
        fetched = ((each.topic(), each.partition()) for each in self._backlog)
        return {*self._parked, *((t, p) for t, p in fetched if t is not None and p is not None)}

    def _on_error(self, message: KafkaMessage, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
            topic, partition = message.topic(), message.partition()
            # one that was revoked since is for its next owner to begin
            if topic is not None and partition is not None and (topic, partition) in self._assigned:
                self._log_starts.need(topic, partition, message.offset())
            return
        instrumentation.CONSUMER_ERRORS.labels(error.name()).inc()
        self._last_error = error.str()
        instance = f"INSTANCE_ID {self._settings.instance_id!r}"
        if means(error, KafkaError.FENCED_INSTANCE_ID):
            raise InstanceIdTakenError(
                f"another process uses {instance} with KAFKA_CLIENT_ID "
                f"{self._settings.kafka_client_id!r}: each replica needs one of its own"
            )
        if means(error, KafkaError.UNRELEASED_INSTANCE_ID):
            # or has used it, and died a moment ago
            self._last_error = f"another process uses {instance}"
        if is_fatal(error):
            raise FatalClientError(self._last_error)
        _log.warning("kafka reports", code=error.name(), error=error.str())

    def _process_until_it_works(
        self, kafka: KafkaConsumer, messages: list[ReceivedMessage]
    ) -> None:
        """Process a batch, through transient errors and for as long as its messages are ours."""
        self._given_up.clear()
        taken_at = time.perf_counter()
        backoff = self._new_backoff()
        while messages and not self._attempt(messages, taken_at):
            if not self._processor.database_away():
                self._process_apart(kafka, messages, taken_at)
                break
            self._wait(kafka, backoff.next_seconds())
            if self._stopping.is_set():
                break
            messages = self._still_ours(messages)
        self._resume(kafka)

    def _process_apart(
        self, kafka: KafkaConsumer, messages: list[ReceivedMessage], taken_at: float
    ) -> None:
        """Process each partition's messages alone, and park those that still fail."""
        apart: dict[Partition, list[ReceivedMessage]] = {}
        for message in messages:
            apart.setdefault((message.topic, message.partition), []).append(message)
        for key, own in apart.items():
            # each attempt may take long: the group must hear of us in between
            self._wait(kafka, 0)
            if self._stopping.is_set():
                return
            started = time.perf_counter()
            # one partition alone has just failed alone
            if len(apart) > 1 and self._attempt(self._still_ours(own), taken_at):
                continue
            if key not in self._given_up:
                kafka.pause([TopicPartition(*key)])
                parked = Parked(own, taken_at, self._new_backoff())
                self._parked.park(key, parked, time.perf_counter() - started)

    def _retry_parked(self, kafka: KafkaConsumer) -> None:
        if (due := self._parked.due()) is None:
            return
        key, parked = due
        started = time.perf_counter()
        if self._attempt(parked.messages, parked.taken_at):
            self._parked.release([key])
            kafka.resume([TopicPartition(*key)])
        else:
            parked.postpone(time.perf_counter() - started)

    def _attempt(self, messages: Sequence[ReceivedMessage], taken_at: float) -> bool:
        """Process messages and remember their offsets; False when a transient error has undone it."""
        if not messages:
            return True
        started = time.perf_counter()
        try:
            outcome = self._processor.process(messages)
        except Exception as error:
            if not is_transient(error):
                raise
            instrumentation.RETRIES.labels(type(error).__name__).inc()
            _log.warning(
                "batch will be tried again",
                error=type(error).__name__,
                messages=len(messages),
                correlation_id=correlation_id(messages[0]),
            )
            return False
        seconds = time.perf_counter() - taken_at
        if outcome.written:
            self._on_written()
        tell(messages, outcome, seconds)
        if self._on_handled is not None and outcome.events:
            try:
                self._on_handled(outcome.events)
            except Exception:  # noqa: BLE001  # a listener may fail in any way
                # the events are committed: failing to tell of them must not stop the consumer
                _log.exception("a listener failed")
        # in order within a partition: the last one wins
        self._commits.add({(each.topic, each.partition): each.offset + 1 for each in messages})
        instrumentation.BATCH_SECONDS.observe(time.perf_counter() - started)
        return True

    def _new_backoff(self) -> Backoff:
        return Backoff(self._settings.retry_first_seconds, self._settings.retry_max_seconds)

    def _wait(self, kafka: KafkaConsumer, seconds: float) -> None:
        """Wait with all partitions paused, polling so that the group does not think us dead."""
        if not self._paused:
            self._paused = True
            kafka.pause(_partitions(self._assigned))
        until = time.monotonic() + seconds
        while True:
            self._last_turn = time.monotonic()
            message = kafka.poll(max(0.0, min(until - time.monotonic(), PAUSED_POLL_SECONDS)))
            self._commits.polled()
            if message is not None and (error := message.error()) is not None:
                self._on_error(message, error)
            elif message is not None:
                # fetched before the pause: it would be lost if it were dropped here
                self._backlog.append(message)
            if time.monotonic() >= until or self._stopping.is_set():
                return

    def _resume(self, kafka: KafkaConsumer) -> None:
        if self._paused:
            self._paused = False
            kafka.resume(_partitions(self._assigned - self._parked.keys()))

    def _on_assign(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        kafka.incremental_assign(partitions)
        if self._paused and partitions:
            kafka.pause(partitions)
        self._assigned.update((each.topic, each.partition) for each in partitions)
        self._joined = True
        self._last_error = None
        self._renewals.reset()
        self._fatal_errors.forget()
        self._rebalanced("assigned", partitions)

    def _on_revoke(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        # no batch is at work: callbacks run only while we poll, and what waits for a retry is given
        # up here, uncommitted, for the next owner to handle
        self._commits.send_now(kafka)
        self._give_up(partitions)
        kafka.incremental_unassign(partitions)
        self._rebalanced("revoked", partitions)

    def _on_lost(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        # others may own them already: a commit now would overwrite theirs
        self._give_up(partitions)
        kafka.incremental_unassign(partitions)
        self._joined = False
        self._rebalanced("lost", partitions)

    def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        keys = [(each.topic, each.partition) for each in partitions]
        self._given_up.update(keys)
        self._assigned.difference_update(keys)
        self._parked.release(keys)
        self._commits.forget(keys)
        self._log_starts.forget(keys)
        # the next owner gets these, and commits past them: handled late, they would set it back
        self._backlog = [
            each for each in self._backlog if (each.topic(), each.partition()) not in keys
        ]

    def _rebalanced(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        self._half_way.rebalanced()
        instrumentation.REBALANCES.labels(kind).inc()
        for topic in self._group.topics:
            count = sum(assigned == topic for assigned, _ in self._assigned)
            instrumentation.ASSIGNED_PARTITIONS.labels(topic).set(count)
        names = sorted(f"{each.topic}-{each.partition}" for each in partitions)
        _log.info("partitions " + kind, group=self._group.group_id, partitions=names)


def _partitions(keys: set[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*key) for key in keys]
