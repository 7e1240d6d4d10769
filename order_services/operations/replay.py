"""Replays the history of the last days to `orders-replay`, from which analytics adds what it lacks.

A copy has the id of its original and carries `isReplay`, which every service but analytics passes over.
Analytics counts an event whose id it has no row of, and nothing else: so a replay may be broken off,
sent twice, or run beside live traffic, and nothing is to be locked, leased or put in place.

Before that the counts of those days are set to what analytics' rows say, in one statement: should
anybody have changed them by hand, they are right again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from order_services.domain import topics
from order_services.domain.events import IS_REPLAY, Event, EventType
from order_services.messaging.publishing import REPORT_MARGIN_SECONDS, producer_settings
from order_services.operations.topic_admin import REQUEST_TIMEOUT_SECONDS
from order_services.process import instrumentation
from order_services.process.kafka_settings import kafka_settings
from order_services.process.settings import ServiceSettings
from order_services.storage.database import Database
from order_services.storage.rings import ANALYTICS_EVENTS, utc_today

MIN_DAYS: Final = 1
MAX_DAYS: Final = 30
DEFAULT_EVENTS_PER_SECOND: Final = 2_000
MIN_EVENTS_PER_SECOND: Final = 100
PAGE_EVENTS: Final = 1_000
# How long analytics may take to read what was published before nobody waits for it any more.
READ_TIMEOUT_SECONDS: Final = 300.0
READ_POLL_SECONDS: Final = 0.5
# A publisher writes down how far it is several times in this time: one that does not has ended.
SILENT_AFTER_SECONDS: Final = 60
# The few statements that read whole days take longer than a request may.
LONG_STATEMENT_SECONDS: Final = 600

REPLAY_ID: Final = "replayId"

_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_COLUMNS: Final = f"""
    replay_id::text, days, since,
    CASE WHEN silent THEN 'failed' ELSE state END,
    CASE WHEN silent THEN 'its publisher has ended half way' ELSE reason END,
    orders, events, created_at
    FROM history_replays CROSS JOIN LATERAL (
        SELECT state = 'publishing'
           AND updated_at < clock_timestamp() - interval '{SILENT_AFTER_SECONDS}s' AS silent
    ) AS publisher
"""
_RUNNING: Final = f"SELECT {_COLUMNS} WHERE NOT silent AND state = 'publishing'"
_GET: Final = f"SELECT {_COLUMNS} WHERE replay_id = %s::uuid"
_BEGIN: Final = """
    INSERT INTO history_replays (replay_id, days, since, state)
    SELECT %s::uuid, %s, date_trunc('day', now(), 'UTC') - make_interval(days => %s), 'publishing'
"""
_NOTE: Final = """
    UPDATE history_replays SET state = %s, reason = %s, orders = %s, events = %s,
        updated_at = clock_timestamp()
    WHERE replay_id = %s::uuid
"""
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
# Waits for the batches that are under way; those that come later wait, and add what they bring after it.
# Days that are closed have no rows, and days that the first release counted have some without a type:
# their counts stay.
_LOCK_COUNTS: Final = "LOCK TABLE analytics_daily IN EXCLUSIVE MODE"
_RECOUNT: Final = """
    WITH days AS (
        SELECT DISTINCT day FROM (
            SELECT day FROM analytics_events WHERE slot = ANY(%(slots)s::smallint[])
            UNION ALL SELECT day FROM analytics_daily
        ) AS known
        WHERE day >= (%(since)s AT TIME ZONE 'UTC')::date
          AND day >= (SELECT counted_from FROM analytics_archive)
          AND NOT EXISTS (SELECT FROM analytics_events AS untold
                          WHERE untold.day = known.day AND untold.event_type IS NULL
                            AND slot = ANY(%(slots)s::smallint[]))
    ), fresh AS (
        SELECT day, event_type, count(*) AS events, sum(amount_cents) AS amount_cents
        FROM analytics_events JOIN days USING (day)
        WHERE slot = ANY(%(slots)s::smallint[]) GROUP BY day, event_type
    ), gone AS (
        DELETE FROM analytics_daily USING days
        WHERE analytics_daily.day = days.day
          AND NOT EXISTS (SELECT FROM fresh WHERE fresh.day = analytics_daily.day
                          AND fresh.event_type = analytics_daily.event_type)
    )
    INSERT INTO analytics_daily (day, event_type, events, amount_cents)
    SELECT day, event_type, events, amount_cents FROM fresh
    ON CONFLICT (day, event_type) DO UPDATE SET
        events = excluded.events, amount_cents = excluded.amount_cents
"""


class ReplayError(Exception):
    """A replay cannot be carried out; the text says why."""


class ReplayRunningError(ReplayError):
    """Another replay is under way."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(f"replay {replay.replay_id} is under way: {replay.state}")
        self.replay = replay


class ReplayState(StrEnum):
    """How far a replay is."""

    PUBLISHING = "publishing"
    PUBLISHED = "published"  # analytics has yet to read it to its end
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as its row has it; `orders` and `events` are what was published."""

    replay_id: str
    days: int
    since: datetime
    state: ReplayState
    reason: str | None
    orders: int
    events: int
    created_at: datetime

    @classmethod
    def of(cls, row: Sequence[Any]) -> Replay:
        """Return what a row of `history_replays` says."""
        replay_id, days, since, state, *rest = row
        return cls(replay_id, days, since, ReplayState(state), *rest)


def begin(connection: Connection, days: int) -> Replay:
    """Begin a replay of the last `days` days (UTC, today included), for a `Publisher`.

    Raises `ReplayRunningError` while another one is under way: two would do no harm, and no good.
    """
    running = connection.exec_driver_sql(_RUNNING).first()
    if running is not None:
        raise ReplayRunningError(Replay.of(running))
    replay_id = str(uuid.uuid4())
    connection.exec_driver_sql(_BEGIN, (replay_id, days, days - 1))
    return Replay.of(connection.exec_driver_sql(_GET, (replay_id,)).one())


def get(connection: Connection, replay_id: str) -> Replay | None:
    """Return a replay, or None; one whose publisher fell silent half way has failed."""
    row = connection.exec_driver_sql(_GET, (replay_id,)).one_or_none()
    return None if row is None else Replay.of(row)


def recount(connection: Connection, since: datetime) -> None:
    """Set the counts of the days from `since` on to what analytics' rows say."""
    _allow_long_statements(connection)
    first, last = since.astimezone(UTC).date(), utc_today(connection) + timedelta(days=2)
    slots = {
        ANALYTICS_EVENTS.slot(first + timedelta(days=n)) for n in range((last - first).days + 1)
    }
    connection.exec_driver_sql(_LOCK_COUNTS)
    connection.exec_driver_sql(_RECOUNT, {"since": since, "slots": sorted(slots)})


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
            _allow_long_statements(connection)
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
        parameters = (state, reason, self._orders, self._events, replay.replay_id)
        with self._database.begin() as connection:
            connection.exec_driver_sql(_NOTE, parameters)


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


def _allow_long_statements(connection: Connection) -> None:
    """Let the statements of this transaction read whole days."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_SECONDS}s'")


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
