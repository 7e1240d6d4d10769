"""Publishes what the outbox holds, at least once, in order for each key while Kafka takes it.

What Kafka will never take is set aside, with its reason, in `outbox_refused`: it neither holds up the
others nor gets lost. Nor does a partition or topic in trouble: a cycle waits for its reports a moment
only, its rows stay where they are, and others go on (see `lanes`).

One transaction per cycle: take the slice's advisory lock, read rows, publish them, wait for the
delivery reports, delete the rows that Kafka acknowledged. The lock belongs to the transaction, so

- no two relays publish one slice at a time, and a relay that dies or loses its connection has
  handed over with that: replicas of a service stand by for each other;
- no session state is needed: it works through PgBouncer in transaction mode.

Each cycle reads from the lowest id: ids are given before the commit, so a row may turn up below those
that were published already, and "id > last" would skip it for ever. While rows wait that cannot go, it
begins behind those (see `storage.outbox_scan`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence
from operator import attrgetter
from typing import Final

import structlog
from confluent_kafka import KafkaError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from order_services.messaging.kafka_errors import FatalClientError, FatalErrors
from order_services.messaging.lanes import WHOLE_TOPIC, Lane, Lanes
from order_services.messaging.publishing import Publisher
from order_services.process import instrumentation
from order_services.process.backoff import Backoff
from order_services.process.pace import Pace
from order_services.process.settings import ServiceSettings
from order_services.process.threads import Threaded
from order_services.storage.database import Database
from order_services.storage.outbox_scan import Scan
from order_services.storage.outbox_slice import OutboxSlice, Row

MAX_IDLE_POLL_SECONDS: Final = 0.5
STANDBY_POLL_SECONDS: Final = 0.5
# A cycle costs as much for one message as for a hundred: they are so far apart on average, and what comes
# meanwhile shares the next.
GATHER_SECONDS: Final = 0.1
# How long a cycle waits for its slowest partition.
FLIGHT_SECONDS: Final = 2.0
# Kafka refuses batches: which message of one was meant shows only when each is sent alone. So many of
# them in one cycle, whose transaction must not last.
SUSPECTS_PER_CYCLE: Final = 20
DEPTH_INTERVAL_SECONDS: Final = 5.0
# They are of a topic as a whole, and end when somebody mends it.
TOPIC_ERRORS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # its public name
    }
)

_age = attrgetter("age_seconds")

_log = structlog.get_logger(__name__)


class PublishError(Exception):
    """Kafka did not take some messages; they stay in the outbox."""

    def __init__(self, refused: int, delivered: int, reason: str) -> None:
        super().__init__(f"Kafka did not take {refused} messages: {reason}")
        self.refused = refused
        self.delivered = delivered


class Relay(Threaded):
    """Publishes the slice `source` on a thread of its own."""

    def __init__(self, source: str, settings: ServiceSettings, database: Database) -> None:
        super().__init__("relay")
        self._source = source
        self._slice = OutboxSlice(source)
        self._settings = settings
        self._database = database
        self._publisher: Publisher | None = None
        self._lanes = Lanes(settings.retry_first_seconds, settings.retry_max_seconds)
        # of refused batches: at least one of each was meant, the others are innocent
        self._suspects: dict[int, None] = {}
        self._scan = Scan()
        self._fatal_errors = FatalErrors("relay", settings)
        self._woken = threading.Event()
        self._depth_due = 0.0
        self._stop_by = float("inf")
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_max_seconds)
        self._pace = Pace(GATHER_SECONDS)
        self._active = instrumentation.OUTBOX_RELAY_ACTIVE.labels(source)
        self._delay = instrumentation.OUTBOX_DELAY.labels(source)
        self._published = instrumentation.OUTBOX_PUBLISHED.labels(source)
        self._refused = instrumentation.OUTBOX_REFUSED.labels(source)
        self._closed = instrumentation.OUTBOX_LANES_CLOSED.labels(source)
        self._replaced = instrumentation.OUTBOX_PRODUCERS_REPLACED.labels(source)
        self._failures = instrumentation.OUTBOX_FAILURES.labels(source)
        self._messages = instrumentation.OUTBOX_MESSAGES.labels(source)
        self._oldest = instrumentation.OUTBOX_OLDEST_SECONDS.labels(source)
        self._flight_seconds = min(FLIGHT_SECONDS, settings.relay_delivery_timeout_seconds)

    def wake(self) -> None:
        """Publish at once: rows were committed."""
        self._woken.set()

    def ask_to_stop(self) -> None:
        """Publish what is left, and end."""
        super().ask_to_stop()
        self._woken.set()

    def stop(self, timeout_seconds: float) -> bool:
        """Publish what is left and end; False when that took too long. What stays is kept."""
        self._stop_by = time.monotonic() + timeout_seconds
        return super().stop(timeout_seconds)

    def not_alive(self) -> str | None:
        """Say why only a restart can help, or None."""
        if self._thread.is_alive() or self._stopping.is_set():
            return None
        return "relay: not running"

    def fatal(self) -> str | None:
        """Say that producer after producer met a fatal error, or None."""
        return self._fatal_errors.too_many()

    def publish_once(self) -> int | None:
        """Run one cycle; return how many messages it dealt with, None when another relay is at it.

        Raises `PublishError` after deleting what Kafka did take, `FatalClientError` after which the
        next cycle has another producer, and database errors.
        """
        lost: dict[int, str] = {}
        try:
            with self._database.begin() as connection:
                if not self._slice.try_lock(connection):
                    return None
                # before what may fail: a relay that gets nowhere tells how long messages wait
                self._measure_depth(connection)
                # what comes of rows that earlier cycles have not waited for
                delivered = self._hear(connection, lost)
                refused = 0
                # a statement of its own: its snapshot must be younger than the lock
                rows = self._read(connection)
                if rows or self._suspects:
                    self._publish(rows)
                    lost |= self._judge(rows)
                    refused = self._try_suspects(connection, lost)
                    delivered += self._take_delivered(connection)
                if self._publisher is not None and self._publisher.is_stale:
                    self._publisher = None
        except (FatalClientError, SQLAlchemyError) as error:
            # what it was given is still in the outbox: the next one gets it again
            if isinstance(error, FatalClientError):
                self._publisher = None
                self._replaced.inc()
                self._fatal_errors.met(error)
            self._scan.begin_anew()
            raise
        self._observe(delivered, refused)
        self._closed.set(len(self._lanes))
        if lost:
            raise PublishError(len(lost), len(delivered), next(iter(lost.values())))
        return len(delivered) + refused

    def _run(self) -> None:
        wait_seconds = 0.0
        while not self._stopping.is_set():
            woken = False
            if wait_seconds > 0:
                woken = self._woken.wait(wait_seconds)
                self._stopping.wait(self._pace.due_in(time.monotonic()))
            # before looking: a wake-up that comes while we look must not be lost
            self._woken.clear()
            wait_seconds = self._turn(wait_seconds, woken=woken)
        while time.monotonic() < self._stop_by and self._turn(0) == 0:
            pass
        self._active.set(0)

    def _turn(self, waited_seconds: float, *, woken: bool = False) -> float:
        """Run a cycle and return how long to wait for the next one."""
        began = time.monotonic()
        try:
            published = self.publish_once()
        except PublishError as error:
            # no pause: what was not taken waits in its lane, and the others go on
            self._pace.began(began)
            _log.warning("outbox not published", slice=self._source, error=str(error))
            return self._settings.relay_poll_seconds
        except (FatalClientError, SQLAlchemyError) as error:
            # the driver's text names host and user
            reason = str(error) if isinstance(error, FatalClientError) else type(error).__name__
            _log.warning("outbox not read", slice=self._source, error=reason)
            return self._sleep(self._backoff.next_seconds())
        self._backoff.reset()
        # a look that finds nothing, and that nobody asked for, holds up no message
        if woken or published:
            self._pace.began(began)
        self._active.set(published is not None)
        if published is None:
            self._messages.set(0)
            self._oldest.set(0)
            return STANDBY_POLL_SECONDS
        if self._suspects or published >= self._settings.relay_batch_max_messages:
            return 0
        if published:
            # of our own rows we are told: after those, others' are looked for as seldom as before
            pause_seconds = waited_seconds if woken and not self._lanes else 0.0
            return max(pause_seconds, self._settings.relay_poll_seconds)
        return min(
            max(2 * waited_seconds, self._settings.relay_poll_seconds), MAX_IDLE_POLL_SECONDS
        )

    def _sleep(self, seconds: float) -> float:
        """Wait whether woken or not: new rows bring back neither Kafka nor the database."""
        self._stopping.wait(seconds)
        return self._settings.relay_poll_seconds

    # -- reading ------------------------------------------------------------------------------

    def _read(self, connection: Connection) -> list[Row]:
        limit = self._settings.relay_batch_max_messages
        flying: Container[int] = () if self._publisher is None else self._publisher.reports.flying
        if not flying and not self._lanes and not self._suspects:
            return self._slice.first(connection, limit)
        due = {each: lane for each, lane in self._lanes.due().items() if each not in flying}

        def can_go(row_id: int, topic: str, key: bytes | None) -> bool:
            return (
                row_id not in flying
                and row_id not in self._suspects
                and self._lanes.is_open(topic, key)
            )

        ids = self._scan.find(
            connection,
            self._source,
            limit,
            closed_topics=self._lanes.closed_topics(),
            can_go=can_go,
        )
        rows = self._slice.these(connection, [*due, *ids])
        for row_id in due.keys() - {row.row_id for row in rows}:
            # another relay has published it
            self._open(due[row_id])
        return rows

    # -- publishing ---------------------------------------------------------------------------

    def _publish(self, rows: Sequence[Row]) -> None:
        publisher = self._publisher
        if publisher is None:
            publisher = self._publisher = Publisher(self._settings)
        publisher.send(rows)
        publisher.listen(rows, self._flight_seconds)

    def _judge(self, rows: Sequence[Row]) -> dict[int, str]:
        """Close the lanes of what failed, or of which nothing has been heard, and open the others.

        Returns why rows were not published, by id.
        """
        if self._publisher is None:
            return {}
        reports = self._publisher.reports
        slow = [row for row in rows if row.row_id in reports.flying]
        failed, reports.failed = reports.failed, {}
        if slow or failed:
            self._lanes.learn(self._publisher.partitions())
        if self._lanes:
            heard = [*reports.delivered, *(row for row, _ in reports.refused.values())]
            for lane in {self._lanes.of(row.topic, row.key) for row in heard}:
                self._open(lane)
        self._suspects.update(dict.fromkeys(reports.refused))
        reports.refused = {}
        first: dict[Lane, int] = {}
        for row in slow:
            first.setdefault(self._lanes.of(row.topic, row.key), row.row_id)
        for lane, row_id in first.items():
            # by then it will have been reported
            self._lanes.close(lane, row_id, self._publisher.report_seconds)
        first.clear()
        for row, error in failed.values():
            lane = self._lanes.of(row.topic, row.key)
            if error.code() in TOPIC_ERRORS:
                lane = Lane(row.topic, WHOLE_TOPIC)
            first[lane] = min(row.row_id, first.get(lane, row.row_id))
        for lane, row_id in first.items():
            self._lanes.close(lane, row_id)
        self._failures.inc(len(failed))
        lost = {row_id: f"{error.name()}: {error.str()}" for row_id, (_, error) in failed.items()}
        return lost | {row.row_id: "no delivery report yet" for row in slow}

    def _open(self, lane: Lane) -> None:
        if self._lanes.open(lane):
            self._scan.begin_anew()

    def _try_suspects(self, connection: Connection, lost: dict[int, str]) -> int:
        """Send some messages of refused batches alone, and set aside those that are refused again."""
        publisher, refused = self._publisher, 0
        if publisher is None or not self._suspects:
            return 0
        ids = list(self._suspects)[:SUSPECTS_PER_CYCLE]
        rows = self._slice.these(connection, ids)
        for row_id in set(ids) - {row.row_id for row in rows}:
            del self._suspects[row_id]  # another relay has seen to it
        for row in rows:
            publisher.send([row])
            publisher.listen([row], self._flight_seconds)
            del self._suspects[row.row_id]
            _, error = publisher.reports.refused.pop(row.row_id, (row, None))
            if error is not None:
                reason = f"{error.name()}: {error.str()}"
                self._slice.set_aside(connection, row.row_id, reason)
                _log.error("message set aside", slice=self._source, topic=row.topic, reason=reason)
                refused += 1
            # a suspect that is not heard of must not hold up the others
            if trouble := self._judge([row]):
                lost |= trouble
                break
        return refused

    def _hear(self, connection: Connection, lost: dict[int, str]) -> list[Row]:
        if self._publisher is None:
            return []
        self._publisher.check()
        self._publisher.listen((), 0)
        lost |= self._judge(())
        # before the next are read: they would be read, and sent, again
        return self._take_delivered(connection)

    def _take_delivered(self, connection: Connection) -> list[Row]:
        if self._publisher is None:
            return []
        reports = self._publisher.reports
        delivered, reports.delivered = reports.delivered, []
        self._slice.delete(connection, [row.row_id for row in delivered])
        return delivered

    def _measure_depth(self, connection: Connection) -> None:
        if time.monotonic() < self._depth_due:
            return
        self._depth_due = time.monotonic() + DEPTH_INTERVAL_SECONDS
        count, oldest = self._slice.depth(connection)
        self._messages.set(count)
        self._oldest.set(oldest)

    def _observe(self, delivered: Sequence[Row], refused: int) -> None:
        if refused:
            self._refused.inc(refused)
        if not delivered:
            return
        self._fatal_errors.forget()
        # the age by the database's clock and what has passed since by ours: they need not agree
        now = time.perf_counter()
        read_at = delivered[0].read_at
        if delivered[-1].read_at == read_at:
            self._delay.observe_all(map(_age, delivered), now - read_at)
        else:
            for row in delivered:
                self._delay.observe(row.age_seconds + now - row.read_at)
        self._published.inc(len(delivered))
