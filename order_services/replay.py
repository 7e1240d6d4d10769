"""Replays the last days' orders to `orders-replay`, from which analytics rebuilds its counts.

What is counted by whom, so that nothing is counted twice or missed:

1. A replay begins in a transaction that holds `COUNT_LOCK` alone; every batch of live events holds it
   shared. So each batch is wholly before the beginning, or sees the replay and counts its events of
   the replayed days also into the fresh table, by event id.
2. What was counted before the beginning is in the orders' history by the time the history is read:
   the publisher waits until it is. All of the history's events of those days are published, up to
   the last order that is in it then: what happens to later ones is counted by the live stream.
3. Analytics adds them to the fresh table, each event id once, whoever brought it first.
4. The swap notes every event of the fresh table in analytics' inbox, so that the live stream passes
   over those that it has not delivered yet; then, holding `COUNT_LOCK` alone, it replaces the days'
   rows. All in one transaction.

A replay is a row: whoever works on it holds its lease, and one whose lease has run out half way is
given up, which leaves the counts as they were.

Copies carry `isReplay`, the original's id, and an id of their own: were it the original's, a service's
inbox that took a copy for the original would then pass over the original. The own id is derived from
replay and original, so that the same copy sent twice is one to every inbox.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import orjson
from confluent_kafka import KafkaError, Message, Producer
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    DateTime,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from order_services.events import IS_REPLAY, Event, EventType
from order_services.runtime import instrumentation
from order_services.runtime.database import Database
from order_services.runtime.publishing import REPORT_MARGIN_SECONDS, producer_settings
from order_services.runtime.settings import ServiceSettings
from order_services.tables import metadata
from order_services.topics import ANALYTICS_GROUP, GATEWAY_GROUP, ORDERS_REPLAY

MIN_DAYS: Final = 1
MAX_DAYS: Final = 30
DEFAULT_EVENTS_PER_SECOND: Final = 2_000
PAGE_EVENTS: Final = 1_000
MIN_EVENTS_PER_SECOND: Final = 100  # a page within half a lease
LEASE_SECONDS: Final = 30.0  # a database that is away for longer costs the replay
# How long the orders' history may take to catch up with what analytics has counted.
HISTORY_TIMEOUT_SECONDS: Final = 60.0
HISTORY_POLL_SECONDS: Final = 0.5
# The few statements that read whole days take longer than a request may.
LONG_STATEMENT_SECONDS: Final = 600
# Any number will do; shared while counting, alone while a replay begins or its result is put in place.
COUNT_LOCK: Final = 0x7265_706C_6179

REPLAY_ID: Final = "replayId"
ORIGINAL_ID: Final = "originalEventId"
REPLAY_HEADER: Final = "replay-id"

_id = Uuid(as_uuid=False)
_moment = DateTime(timezone=True)


class ReplayState(StrEnum):
    """How far a replay is."""

    PUBLISHING = "publishing"
    PUBLISHED = "published"  # analytics rebuilds from it
    DONE = "done"
    FAILED = "failed"


replays = Table(
    "replays",
    metadata,
    Column("replay_id", _id, primary_key=True),
    Column("days", Integer, nullable=False),
    Column("since", _moment, nullable=False),  # the beginning of the first day (UTC)
    Column("state", Text, nullable=False),
    Column("reason", Text),  # why it failed
    Column("owner", Text),  # who works on it
    Column("lease_until", _moment, nullable=False),
    Column("events", BigInteger, nullable=False, server_default=text("0")),  # published
    Column("orders", BigInteger, nullable=False, server_default=text("0")),
    Column("counted", BigInteger, nullable=False, server_default=text("0")),  # taken by analytics
    # {partition: [offset to read next, offset behind the last]}
    Column("positions", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("updated_at", _moment, nullable=False, server_default=func.now()),
)
# The events in the fresh table, so that each counts once.
rebuild_events = Table(
    "analytics_rebuild_events",
    metadata,
    Column("replay_id", _id, nullable=False),
    Column("event_id", _id, nullable=False),
    Column("event_time", _moment, nullable=False),
    PrimaryKeyConstraint("replay_id", "event_id"),
)
# The fresh table.
rebuild_daily = Table(
    "analytics_rebuild_daily",
    metadata,
    Column("replay_id", _id, nullable=False),
    Column("day", Date, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    PrimaryKeyConstraint("replay_id", "day", "event_type"),
)

_COLUMNS: Final = """
    replay_id::text, days, since, state, reason, orders, events, counted, positions, created_at
"""
_ACTIVE: Final = "state IN ('publishing', 'published')"
_LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
_ABANDON: Final = f"""
    UPDATE replays SET state = 'failed', reason = 'given up half way', updated_at = now()
    WHERE {_ACTIVE} AND lease_until < clock_timestamp()
"""
_FIND_ACTIVE: Final = f"SELECT {_COLUMNS} FROM replays WHERE {_ACTIVE}"
_BEGIN: Final = f"""
    INSERT INTO replays (replay_id, days, since, state, owner, lease_until)
    VALUES (%s, %s, %s, 'publishing', %s, clock_timestamp() + make_interval(secs => %s))
    RETURNING {_COLUMNS}
"""
_GET: Final = f"SELECT {_COLUMNS} FROM replays WHERE replay_id = %s::uuid"
_HOLD: Final = """
    UPDATE replays SET orders = %s, events = %s, updated_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => %s)
    WHERE replay_id = %s AND owner = %s AND state = 'publishing'
"""
_PUBLISHED: Final = """
    UPDATE replays SET state = 'published', owner = NULL, positions = %s::jsonb, updated_at = now()
    WHERE replay_id = %s AND owner = %s AND state = 'publishing'
"""
_FAIL: Final = f"""
    UPDATE replays SET state = 'failed', reason = %s, updated_at = now()
    WHERE replay_id = %s AND owner = %s AND {_ACTIVE}
"""
_NOT_IN_HISTORY: Final = """
    SELECT count(*) FROM inbox
    WHERE consumer_group = %s AND event_time >= %s
      AND NOT EXISTS (SELECT FROM order_events WHERE order_events.event_id = inbox.event_id)
      AND NOT EXISTS (SELECT FROM analytics_rebuild_events AS fresh
                      WHERE fresh.replay_id = %s AND fresh.event_id = inbox.event_id)
"""
# Ids of orders are time-ordered: those of the replayed days are the end of the primary key.
_PAGE: Final = """
    SELECT order_id::text, event_id::text, event_type, event_time, source, correlation_id, payload
    FROM order_events WHERE order_id > %s::uuid AND order_id <= %s::uuid AND event_time >= %s
    ORDER BY order_id, event_id LIMIT %s
"""
_LAST_ORDER: Final = "SELECT order_id::text FROM order_events ORDER BY order_id DESC LIMIT 1"
# Orders from before, to which something happened since.
_EARLIER_ORDERS: Final = """
    SELECT DISTINCT order_id::text FROM order_events WHERE order_id <= %s::uuid AND event_time >= %s
"""
_OF_ORDERS: Final = """
    SELECT order_id::text, event_id::text, event_type, event_time, source, correlation_id, payload
    FROM order_events WHERE order_id = ANY(%s::uuid[]) AND event_time >= %s
    ORDER BY order_id, event_id
"""
_EARLIER_PAGE_ORDERS: Final = 200


class ReplayError(Exception):
    """A replay cannot be carried out; the text says why."""


class ReplayRunningError(ReplayError):
    """Another replay is under way."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(f"replay {replay.replay_id} is under way: {replay.state}")
        self.replay = replay


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as its row has it."""

    replay_id: str
    days: int
    since: datetime
    state: ReplayState
    reason: str | None
    orders: int
    events: int
    counted: int
    positions: dict[str, list[int]]
    created_at: datetime

    @classmethod
    def of(cls, row: Sequence[Any]) -> Replay:
        """Return what a row of `replays` says."""
        replay_id, days, since, state, *rest = row
        return cls(replay_id, days, since, ReplayState(state), *rest)

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in (ReplayState.DONE, ReplayState.FAILED)


def begin(connection: Connection, days: int, owner: str) -> Replay:
    """Begin a replay of the last `days` days (UTC, today included), to be published by `owner`.

    Raises `ReplayRunningError` while another one is under way.
    """
    connection.exec_driver_sql(_LOCK, (COUNT_LOCK,))
    connection.exec_driver_sql(_ABANDON)
    active = connection.exec_driver_sql(_FIND_ACTIVE).first()
    if active is not None:
        raise ReplayRunningError(Replay.of(active))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=days - 1)
    parameters = (str(uuid.uuid4()), days, since, owner, LEASE_SECONDS)
    return Replay.of(connection.exec_driver_sql(_BEGIN, parameters).one())


def get(connection: Connection, replay_id: str) -> Replay | None:
    """Return a replay, or None."""
    row = connection.exec_driver_sql(_GET, (replay_id,)).one_or_none()
    return None if row is None else Replay.of(row)


def copy_of(event: Event, replay_id: str) -> Event:
    """Return the copy of an event that a replay sends."""
    return Event(
        event.event_type,
        event.order_id,
        {
            **event.payload,
            IS_REPLAY: True,
            REPLAY_ID: replay_id,
            ORIGINAL_ID: event.event_id,
        },
        event.source,
        event.correlation_id,
        event_id=str(uuid.uuid5(uuid.UUID(replay_id), event.event_id)),
        timestamp=event.timestamp,
    )


class Publisher:
    """Publishes one replay; `owner` is who began it.

    `on_progress` is told the number of events published so far.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        database: Database,
        *,
        owner: str,
        events_per_second: float = DEFAULT_EVENTS_PER_SECOND,
        counting_group: str = ANALYTICS_GROUP.group_id,
        on_progress: Callable[[int], None] = lambda _events: None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._owner = owner
        self._events_per_second = events_per_second
        self._counting_group = counting_group
        self._on_progress = on_progress
        self._stopping = stopping or threading.Event()
        self._positions: dict[str, list[int]] = {}
        self._orders = self._events = 0

    def publish(self, replay: Replay) -> None:
        """Publish all of it; raises `ReplayError` or a database error after giving it up."""
        started = time.monotonic()
        try:
            with instrumentation.REPLAYS_RUNNING.labels(instrumentation.PUBLISH).track_inprogress():
                self._wait_for_history(replay)
                self._publish_history(replay)
                positions = orjson.dumps(self._positions).decode()
                self._change(_PUBLISHED, positions, replay.replay_id)
            seconds = instrumentation.REPLAY_SECONDS.labels(instrumentation.PUBLISH)
            seconds.observe(time.monotonic() - started)
        except Exception as error:
            reason = str(error) if isinstance(error, ReplayError) else type(error).__name__
            # when the database is away too, the lease runs out
            with self._database.begin() as connection:
                connection.exec_driver_sql(_FAIL, (reason, replay.replay_id, self._owner))
            raise

    def _wait_for_history(self, replay: Replay) -> None:
        give_up_at = time.monotonic() + HISTORY_TIMEOUT_SECONDS
        parameters = (self._counting_group, replay.since, replay.replay_id)
        while True:
            self._hold(replay)
            with self._database.begin() as connection:
                allow_long_statements(connection)
                missing = connection.exec_driver_sql(_NOT_IN_HISTORY, parameters).scalar_one()
            if not missing:
                return
            if time.monotonic() > give_up_at:
                raise ReplayError(
                    f"{missing} events that analytics has counted are not in the orders' history: "
                    f"{GATEWAY_GROUP.group_id} is behind, or has dead letters"
                )
            self._pause(HISTORY_POLL_SECONDS)

    def _publish_history(self, replay: Replay) -> None:
        producer = Producer(producer_settings(self._settings))
        started = time.monotonic()
        for events in self._history(replay):
            self._send(producer, [copy_of(event, replay.replay_id) for event in events], replay)
            self._orders += len({event.order_id for event in events})
            self._events += len(events)
            instrumentation.REPLAY_EVENTS.inc(len(events))
            self._hold(replay)
            self._on_progress(self._events)
            ahead_seconds = self._events / self._events_per_second
            pause_seconds = started + ahead_seconds - time.monotonic()
            # half a lease at most: a low rate must not look like a publisher that died
            self._pause(min(max(0.0, pause_seconds), LEASE_SECONDS / 2))

    def _history(self, replay: Replay) -> Iterator[list[Event]]:
        """Yield the events of whole orders, those of each order as they happened.

        Each page is a transaction of its own: one that lasts would keep the outbox's dead rows.
        """
        border = _first_id_at(replay.since)
        after = border
        # orders that come faster than their events are published must not keep it from ending
        last = self._query(_LAST_ORDER, ())
        while last:
            page = self._query(_PAGE, (after, last[0][0], replay.since, PAGE_EVENTS))
            if len(page) == PAGE_EVENTS:
                # the last order may go on beyond the page
                page = [row for row in page if row[0] != page[-1][0]]
            if not page:
                break
            after = page[-1][0]
            yield _in_order(page)
        earlier = [row[0] for row in self._query(_EARLIER_ORDERS, (border, replay.since))]
        for n in range(0, len(earlier), _EARLIER_PAGE_ORDERS):
            ids = "{" + ",".join(earlier[n : n + _EARLIER_PAGE_ORDERS]) + "}"
            yield _in_order(self._query(_OF_ORDERS, (ids, replay.since)))

    def _query(self, statement: str, parameters: tuple[Any, ...]) -> Sequence[Any]:
        with self._database.begin() as connection:
            allow_long_statements(connection)
            return connection.exec_driver_sql(statement, parameters).all()

    def _send(self, producer: Producer, copies: Sequence[Event], replay: Replay) -> None:
        errors: list[KafkaError] = []

        def report(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                errors.append(error or KafkaError(KafkaError._FAIL))  # noqa: SLF001  # its public name
                return
            first, end = self._positions.get(str(partition), [offset, offset + 1])
            self._positions[str(partition)] = [min(first, offset), max(end, offset + 1)]

        for event in copies:
            headers: dict[str, str | bytes | None] = dict(event.headers())
            headers[REPLAY_HEADER] = replay.replay_id.encode()
            producer.produce(
                ORDERS_REPLAY, event.encode(), event.key(), headers=headers, on_delivery=report
            )
        timeout_seconds = self._settings.relay_delivery_timeout_seconds + REPORT_MARGIN_SECONDS
        unreported = producer.flush(timeout_seconds)
        if errors or unreported:
            reason = errors[0].str() if errors else "no delivery report in time"
            raise ReplayError(f"Kafka did not take {len(errors) + unreported} events: {reason}")

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise ReplayError("interrupted")

    def _hold(self, replay: Replay) -> None:
        self._change(_HOLD, self._orders, self._events, LEASE_SECONDS, replay.replay_id)

    def _change(self, statement: str, *parameters: Any) -> None:
        with self._database.begin() as connection:
            changed = connection.exec_driver_sql(statement, (*parameters, self._owner)).rowcount
        if not changed:
            raise ReplayError("the lease ran out: this replay was given up")


def allow_long_statements(connection: Connection) -> None:
    """Let the statements of this transaction read whole days."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_SECONDS}s'")


def _first_id_at(moment: datetime) -> str:
    """Return what is just below every time-ordered id (UUID version 7) of `moment` or later."""
    time_ms = int(moment.timestamp() * 1000)
    return f"{time_ms >> 16:08x}-{time_ms & 0xFFFF:04x}-0000-0000-000000000000"


def _in_order(rows: Sequence[Any]) -> list[Event]:
    events = [
        Event(
            EventType(event_type),
            order_id,
            payload,
            source,
            correlation_id,
            event_id=event_id,
            timestamp=event_time,
        )
        for order_id, event_id, event_type, event_time, source, correlation_id, payload in rows
    ]
    return sorted(events, key=lambda event: (event.order_id, event.timestamp, event.event_id))
