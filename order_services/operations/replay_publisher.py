"""Publishes the history of a replay, and waits until analytics has read it.

A copy has the id of its original and carries `isReplay`, which every service but analytics passes over.
Analytics counts an event whose id it has no row of, and nothing else: so a replay may be broken off,
sent twice, or run beside live traffic, and nothing is to be locked, leased or put in place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from sqlalchemy.exc import SQLAlchemyError

from order_services.domain import topics
from order_services.domain.events import IS_REPLAY, Event, EventType
from order_services.messaging.client_settings import producer_settings
from order_services.messaging.publishing import REPORT_MARGIN_SECONDS
from order_services.operations.recount import recount
from order_services.operations.replay import (
    SILENT_AFTER_SECONDS,
    Replay,
    ReplayError,
    ReplayState,
    note,
)
from order_services.operations.topic_admin import REQUEST_TIMEOUT_SECONDS
from order_services.process import instrumentation
from order_services.process.kafka_settings import kafka_settings
from order_services.process.settings import ServiceSettings
from order_services.storage.database import Database, allow_long_statements

DEFAULT_EVENTS_PER_SECOND: Final = 2_000
MIN_EVENTS_PER_SECOND: Final = 100
PAGE_EVENTS: Final = 1_000
# How long analytics may take to read what was published before nobody waits for it any more.
READ_TIMEOUT_SECONDS: Final = 300.0
READ_POLL_SECONDS: Final = 0.5

REPLAY_ID: Final = "replayId"

_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_EVENT: Final = """
    order_id::text, event_id::text, event_type, event_time, source, correlation_id, payload
"""
# Ids of orders are time-ordered: those of the replayed days are the end of the primary key.
_OF_NEW_ORDERS: Final = f"""
    SELECT {_EVENT} FROM order_events
    WHERE (order_id, event_time, event_id) > (%s::uuid, %s, %s::uuid)
      AND order_id <= %s::uuid AND event_time >= %s
    ORDER BY order_events.order_id, event_time, order_events.event_id LIMIT %s
"""
# Orders from before, to which something happened since: found by the time of the event, and not by
# going through all that happened before.
_OF_OLD_ORDERS: Final = f"""
    WITH recent AS MATERIALIZED (
        SELECT * FROM order_events
        WHERE (order_id, event_time, event_id) > (%s::uuid, %s, %s::uuid)
          AND order_id <= %s::uuid AND event_time >= %s
    )
    SELECT {_EVENT} FROM recent ORDER BY recent.order_id, event_time, recent.event_id LIMIT %s
"""
_LAST_ORDER: Final = "SELECT order_id::text FROM order_events ORDER BY order_id DESC LIMIT 1"


def copy_of(event: Event, replay_id: str) -> Event:
    """Return the copy of an event that a replay sends: the same event, marked."""
    return Event(
        event.event_type,
        event.order_id,
        {**event.payload, IS_REPLAY: True, REPLAY_ID: replay_id},
        event.source,
        event.correlation_id,
        event_id=event.event_id,
        timestamp=event.timestamp,
    )


class Publisher:
    """Carries one replay out. `on_progress` is told the number of events published so far.

    `group_id` is the consumer group that counts them.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        database: Database,
        *,
        events_per_second: float = DEFAULT_EVENTS_PER_SECOND,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        group_id: str = topics.ANALYTICS_GROUP.group_id,
        on_progress: Callable[[int], None] = lambda _events: None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._events_per_second = events_per_second
        self._read_timeout_seconds = read_timeout_seconds
        self._group_id = group_id
        self._on_progress = on_progress
        self._stopping = stopping or threading.Event()
        self._ends: dict[int, int] = {}  # by partition: the offset behind our last event
        self._orders = self._events = 0
        self._last_order: str | None = None

    def publish(self, replay: Replay) -> None:
        """Recount and publish; raises `ReplayError` or a database error, which the replay's row tells."""
        started = time.monotonic()
        try:
            with instrumentation.REPLAYS_RUNNING.labels(instrumentation.PUBLISH).track_inprogress():
                with self._database.begin() as connection:
                    recount(connection, replay.since)
                self._publish_history(replay)
            seconds = instrumentation.REPLAY_SECONDS.labels(instrumentation.PUBLISH)
            seconds.observe(time.monotonic() - started)
            self._note(replay, ReplayState.PUBLISHED)
        except Exception as error:
            reason = str(error) if isinstance(error, ReplayError) else type(error).__name__
            # where the database is away too, it has fallen silent
            with suppress(SQLAlchemyError):
                self._note(replay, ReplayState.FAILED, reason)
            raise

    def wait_until_read(self, replay: Replay) -> bool:
        """Wait until analytics has read all of it; False when that takes too long or we are to stop."""
        started = time.monotonic()
        with (
            instrumentation.REPLAYS_RUNNING.labels(instrumentation.COUNT).track_inprogress(),
            _looking_at(self._settings, self._group_id) as committed,
        ):
            while True:
                done = committed(self._ends)
                self._note(replay, ReplayState.DONE if done else ReplayState.PUBLISHED)
                if done:
                    seconds = instrumentation.REPLAY_SECONDS.labels(instrumentation.COUNT)
                    seconds.observe(time.monotonic() - started)
                    return True
                if time.monotonic() - started > self._read_timeout_seconds:
                    return False
                if self._stopping.wait(READ_POLL_SECONDS):
                    return False

    def _publish_history(self, replay: Replay) -> None:
        producer = Producer(producer_settings(self._settings))
        started = time.monotonic()
        for events in self._history(replay):
            self._send(producer, [copy_of(event, replay.replay_id) for event in events])
            self._count(events)
            self._note(replay, ReplayState.PUBLISHING)
            self._on_progress(self._events)
            ahead_seconds = self._events / self._events_per_second
            pause_seconds = started + ahead_seconds - time.monotonic()
            # a low rate must not look like a publisher that has ended
            if self._stopping.wait(min(max(0.0, pause_seconds), SILENT_AFTER_SECONDS / 2)):
                raise ReplayError("interrupted")

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            # the events of an order follow each other, from page to page too
            self._orders += event.order_id != self._last_order
            self._last_order = event.order_id
        self._events += len(events)
        instrumentation.REPLAY_EVENTS.inc(len(events))

    def _history(self, replay: Replay) -> Iterator[list[Event]]:
        """Yield the history in pages, order by order, those of each order as they happened.

        Each page is a transaction of its own: one that lasts would keep the outbox's dead rows.
        """
        border = _first_id_at(replay.since)
        # orders that come faster than their events are published must not keep it from ending
        last = self._query(_LAST_ORDER, ())
        if not last:
            return
        yield from self._pages(_OF_NEW_ORDERS, border, last[0][0], replay.since)
        yield from self._pages(_OF_OLD_ORDERS, _FIRST_ID, border, replay.since)

    def _pages(
        self, statement: str, after: str, last: str, since: datetime
    ) -> Iterator[list[Event]]:
        cursor = (after, since, _FIRST_ID)
        while page := self._query(statement, (*cursor, last, since, PAGE_EVENTS)):
            events = [_event(row) for row in page]
            # not by ids alone: those of one millisecond are in no order
            cursor = (events[-1].order_id, events[-1].timestamp, events[-1].event_id)
            yield events

    def _query(self, statement: str, parameters: tuple[Any, ...]) -> Sequence[Any]:
        with self._database.begin() as connection:
            allow_long_statements(connection)
            return connection.exec_driver_sql(statement, parameters).all()

    def _send(self, producer: Producer, copies: Sequence[Event]) -> None:
        errors: list[KafkaError] = []

        def report(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                errors.append(error or KafkaError(KafkaError._FAIL))  # noqa: SLF001  # its public name
                return
            self._ends[partition] = max(self._ends.get(partition, 0), offset + 1)

        for event in copies:
            producer.produce(
                topics.ORDERS_REPLAY,
                event.encode(),
                event.key(),
                headers=dict(event.headers()),
                on_delivery=report,
            )
        timeout_seconds = self._settings.relay_delivery_timeout_seconds + REPORT_MARGIN_SECONDS
        unreported = producer.flush(timeout_seconds)
        if errors or unreported:
            reason = errors[0].str() if errors else "no delivery report in time"
            raise ReplayError(f"Kafka did not take {len(errors) + unreported} events: {reason}")

    def _note(self, replay: Replay, state: ReplayState, reason: str | None = None) -> None:
        with self._database.begin() as connection:
            note(connection, replay, state, reason, orders=self._orders, events=self._events)


@contextmanager
def _looking_at(
    settings: ServiceSettings, group_id: str
) -> Iterator[Callable[[Mapping[int, int]], bool]]:
    """Yield a function that says whether the group has committed as far as these offsets."""
    # never a member of the group: it only asks for its offsets
    consumer = Consumer({**kafka_settings(settings), "group.id": group_id, "log_level": 0})

    def reached(ends: Mapping[int, int]) -> bool:
        wanted = [TopicPartition(topics.ORDERS_REPLAY, partition) for partition in ends]
        try:
            found = consumer.committed(wanted, timeout=REQUEST_TIMEOUT_SECONDS) if wanted else []
        except KafkaException:
            return False  # the broker is away: it is asked again
        return all(each.offset >= ends[each.partition] for each in found)

    try:
        yield reached
    finally:
        consumer.close()


def _first_id_at(moment: datetime) -> str:
    """Return what is just below every time-ordered id (UUID version 7) of `moment` or later."""
    time_ms = int(moment.timestamp() * 1000)
    return f"{time_ms >> 16:08x}-{time_ms & 0xFFFF:04x}-0000-0000-000000000000"


def _event(row: Sequence[Any]) -> Event:
    order_id, event_id, event_type, event_time, source, correlation_id, payload = row
    return Event(
        EventType(event_type),
        order_id,
        payload,
        source,
        correlation_id,
        event_id=event_id,
        timestamp=event_time,
    )
