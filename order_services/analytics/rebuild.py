"""Rebuilds the counts of the last days from `orders-replay`, beside the live stream.

`order_services.replay` says which events are counted by whom, and why none is counted twice.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from order_services.analytics.counting import count, tally
from order_services.events import MalformedEventError, decode, new_id
from order_services.replay import (
    COUNT_LOCK,
    LEASE_SECONDS,
    ORIGINAL_ID,
    REPLAY_HEADER,
    Replay,
    allow_long_statements,
)
from order_services.runtime import instrumentation
from order_services.runtime.inbox_partitions import RETENTION_DAYS
from order_services.runtime.kafka_settings import kafka_settings
from order_services.runtime.logs import KafkaLog
from order_services.topics import ORDERS_REPLAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from order_services.events import Event
    from order_services.runtime.database import Database
    from order_services.runtime.settings import ServiceSettings

INTERVAL_SECONDS: Final = 0.5
BATCH_EVENTS: Final = 1_000
READ_SECONDS: Final = 1.0

# The second statement has a snapshot of its own: it sees what the one waited for has committed.
_ACTIVE: Final = """
    SELECT pg_advisory_xact_lock_shared(%s);
    SELECT replay_id::text, since FROM replays WHERE state IN ('publishing', 'published')
"""
_ADD: Final = """
    INSERT INTO analytics_rebuild_events (replay_id, event_id, event_time)
    SELECT %s, event_id, event_time
    FROM json_to_recordset(%s::json) AS given(event_id uuid, event_time timestamptz)
    ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id::text
"""
_COUNT: Final = """
    INSERT INTO analytics_rebuild_daily AS fresh (replay_id, day, event_type, events, amount_cents)
    SELECT %s, day, event_type, events, amount_cents
    FROM json_to_recordset(%s::json) AS counted(
        day date, event_type text, events bigint, amount_cents bigint)
    ORDER BY day, event_type
    ON CONFLICT (replay_id, day, event_type) DO UPDATE SET
        events = fresh.events + excluded.events,
        amount_cents = fresh.amount_cents + excluded.amount_cents
"""
_CLAIM: Final = """
    UPDATE replays SET owner = %s, lease_until = clock_timestamp() + make_interval(secs => %s)
    WHERE state = 'published' AND (owner IS NULL OR owner = %s OR lease_until < clock_timestamp())
    RETURNING replay_id::text, days, since, state, reason, orders, events, counted, positions,
        created_at
"""
_ADVANCE: Final = """
    UPDATE replays SET positions = %s::jsonb, counted = counted + %s, updated_at = now()
    WHERE replay_id = %s AND owner = %s AND state = 'published'
"""
_END: Final = """
    UPDATE replays SET state = %s, reason = %s, updated_at = now()
    WHERE replay_id = %s AND owner = %s AND state = 'published'
"""
_GIVE_UP_STALE: Final = """
    UPDATE replays SET state = 'failed', reason = 'its publisher has ended half way',
        updated_at = now()
    WHERE state = 'publishing' AND lease_until < clock_timestamp()
"""
# Events that the live stream has yet to deliver; older ones are in no topic any more.
_NOTE_AS_HANDLED: Final = """
    INSERT INTO inbox (event_time, event_id, consumer_group)
    SELECT event_time, event_id, %s FROM analytics_rebuild_events AS fresh
    WHERE replay_id = %s AND event_time >= now() - make_interval(days => %s)
      AND NOT EXISTS (SELECT FROM inbox WHERE inbox.event_id = fresh.event_id
                      AND consumer_group = %s AND inbox.event_time = fresh.event_time)
    ORDER BY event_id
    ON CONFLICT DO NOTHING
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
_CLEAR_DAYS: Final = "DELETE FROM analytics_daily WHERE day >= (%s AT TIME ZONE 'UTC')::date"
_FILL_DAYS: Final = """
    INSERT INTO analytics_daily (day, event_type, events, amount_cents)
    SELECT day, event_type, events, amount_cents FROM analytics_rebuild_daily WHERE replay_id = %s
"""
_LEFT_OVER: Final = """
    SELECT replay_id::text FROM analytics_rebuild_daily GROUP BY replay_id
    EXCEPT SELECT replay_id::text FROM replays WHERE state IN ('publishing', 'published')
"""

_log = structlog.get_logger(__name__)


class RebuildError(Exception):
    """The replay cannot be rebuilt from: its events are not there as they should be."""


def count_live(events: Sequence[Event], connection: Connection) -> Sequence[Event]:
    """Count events, and during a rebuild into its fresh table too; causes no events."""
    # before anything is counted: the swap locks in this order too
    active = connection.exec_driver_sql(_ACTIVE, (COUNT_LOCK,)).first()
    count(events, connection)
    if active is not None:
        replay_id, since = active
        add(connection, replay_id, {e.event_id: e for e in events if e.timestamp >= since})
    return ()


def add(connection: Connection, replay_id: str, events: Mapping[str, Event]) -> None:
    """Count events, by their original ids, into the fresh table unless they are in it.

    Raises `ValueError` for an event whose amount is not an integer.
    """
    if not events:
        return
    given = [{"event_id": key, "event_time": event.timestamp} for key, event in events.items()]
    new = connection.exec_driver_sql(_ADD, (replay_id, orjson.dumps(given).decode())).scalars()
    rows = [
        {"day": day, "event_type": event_type, "events": number, "amount_cents": amount_cents}
        for (day, event_type), (number, amount_cents) in tally(events[key] for key in new).items()
    ]
    if rows:
        connection.exec_driver_sql(_COUNT, (replay_id, orjson.dumps(rows).decode()))


class Rebuild:
    """Takes a published replay to its end, one batch at a time; one replica does at a time.

    `counting_group` is the group whose inbox says which events were counted.
    """

    def __init__(self, settings: ServiceSettings, database: Database, counting_group: str) -> None:
        self._settings = settings
        self._database = database
        self._counting_group = counting_group
        self._owner = f"analytics {new_id()}"
        self._consumer: Consumer | None = None
        self._reading: Mapping[str, list[int]] | None = None

    def step(self) -> bool:
        """Do the next piece of work; true when there is more to do at once."""
        with self._database.begin() as connection:
            row = connection.exec_driver_sql(
                _CLAIM, (self._owner, LEASE_SECONDS, self._owner)
            ).first()
            if row is None:
                connection.exec_driver_sql(_GIVE_UP_STALE)
        instrumentation.REPLAYS_RUNNING.labels(instrumentation.REBUILD).set(row is not None)
        if row is None:
            self._stop_reading()
            self._clean_up()
            return False
        replay = Replay.of(row)
        try:
            if any(position < end for position, end in replay.positions.values()):
                return self._take(replay)
            self._swap(replay)
        except RebuildError as error:
            self._end(replay, str(error))
        return True

    def _take(self, replay: Replay) -> bool:
        """Add what comes next to the fresh table and note how far that is, in one transaction."""
        positions, events, refused = self._read(replay)
        if positions == replay.positions:
            return False
        with self._database.begin() as connection:
            # first of all: a replica that lost its lease must add nothing
            changed = connection.exec_driver_sql(
                _ADVANCE,
                (
                    orjson.dumps(positions).decode(),
                    len(events) + refused,
                    replay.replay_id,
                    self._owner,
                ),
            ).rowcount
            if not changed:
                self._stop_reading()
                return False
            add(connection, replay.replay_id, events)
        self._reading = positions
        return True

    def _read(self, replay: Replay) -> tuple[dict[str, list[int]], dict[str, Event], int]:
        """Return new positions, the replay's events by original id, and how many do not count."""
        consumer = self._reader(replay.positions)
        positions = {partition: list(range_) for partition, range_ in replay.positions.items()}
        events: dict[str, Event] = {}
        refused = 0
        for message in consumer.consume(BATCH_EVENTS, READ_SECONDS):
            error = message.error()
            if error is not None:
                self._stop_reading()
                if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
                    raise RebuildError(f"{ORDERS_REPLAY} has lost a part of it: {error.str()}")
                _log.warning("kafka reports", code=error.name(), error=error.str())
                break
            partition, offset = str(message.partition()), message.offset()
            if offset is None or offset >= positions[partition][1]:
                continue
            positions[partition][0] = offset + 1
            headers = message.headers()
            given = headers if isinstance(headers, list) else []
            if (REPLAY_HEADER, replay.replay_id.encode()) not in given:
                continue  # of a replay that was given up
            try:
                event = decode(message.value())
                tally([event])
            except (MalformedEventError, ValueError) as problem:
                # the live stream has it among its dead letters, hence uncounted too
                _log.warning("replayed event does not count", error=str(problem))
                refused += 1
                continue
            events[str(event.payload[ORIGINAL_ID])] = event
        return positions, events, refused

    def _reader(self, positions: Mapping[str, list[int]]) -> Consumer:
        if self._consumer is None or self._reading != positions:
            self._stop_reading()
            self._consumer = Consumer(
                {
                    **kafka_settings(self._settings),
                    "client.id": f"{self._settings.kafka_client_id}-rebuild",
                    # required, but never joined: partitions are assigned, progress is in the database
                    "group.id": "analytics-rebuild",
                    "enable.auto.commit": False,
                    # a part that is gone must be noticed, not passed over
                    "auto.offset.reset": "error",
                    "log_level": 4,
                    "logger": KafkaLog(),
                }
            )
            self._consumer.assign(
                [
                    TopicPartition(ORDERS_REPLAY, int(partition), position)
                    for partition, (position, end) in positions.items()
                    if position < end
                ]
            )
            self._reading = dict(positions)
        return self._consumer

    def _stop_reading(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = self._reading = None

    def _swap(self, replay: Replay) -> None:
        """Put the fresh table in the old one's place, for the replayed days."""
        if replay.counted != replay.events:
            raise RebuildError(f"{replay.events} events were published, {replay.counted} came")
        started = time.monotonic()
        group = self._counting_group
        with self._database.begin() as connection:
            allow_long_statements(connection)
            ended = connection.exec_driver_sql(
                _END, ("done", None, replay.replay_id, self._owner)
            ).rowcount
            if not ended:
                return  # another replica has taken it over
            # inbox before lock, as a batch does: the other way round they would deadlock
            connection.exec_driver_sql(
                _NOTE_AS_HANDLED, (group, replay.replay_id, RETENTION_DAYS, group)
            )
            connection.exec_driver_sql(_LOCK, (COUNT_LOCK,))
            connection.exec_driver_sql(_CLEAR_DAYS, (replay.since,))
            connection.exec_driver_sql(_FILL_DAYS, (replay.replay_id,))
        seconds = time.monotonic() - started
        instrumentation.REBUILDS.labels("done").inc()
        instrumentation.REBUILD_SWAP_SECONDS.observe(seconds)
        whole_seconds = (datetime.now(UTC) - replay.created_at).total_seconds()
        # the database's clock may be ahead of ours
        instrumentation.REPLAY_SECONDS.labels(instrumentation.REBUILD).observe(
            max(0.0, whole_seconds)
        )
        _log.info(
            "rebuilt", replay_id=replay.replay_id, days=replay.days, swap_seconds=round(seconds, 2)
        )

    def _end(self, replay: Replay, reason: str) -> None:
        with self._database.begin() as connection:
            connection.exec_driver_sql(_END, ("failed", reason, replay.replay_id, self._owner))
        instrumentation.REBUILDS.labels("failed").inc()
        _log.error("rebuild given up", replay_id=replay.replay_id, reason=reason)

    def _clean_up(self) -> None:
        with self._database.begin() as connection:
            left_over: Sequence[Any] = connection.exec_driver_sql(_LEFT_OVER).scalars().all()
            for replay_id in left_over:
                allow_long_statements(connection)
                for table in ("analytics_rebuild_events", "analytics_rebuild_daily"):
                    connection.exec_driver_sql(
                        f"DELETE FROM {table} WHERE replay_id = %s", (replay_id,)
                    )
