"""Publishes what the outbox holds, at least once, in order for each key.

What Kafka will never take is set aside, with its reason, in `outbox_refused`: it neither holds up the
others nor gets lost.

One transaction per cycle: take the slice's advisory lock, read rows, publish them, wait for the
delivery reports, delete the rows that Kafka acknowledged. The lock belongs to the transaction, so

- no two relays publish one slice at a time, and a relay that dies or loses its connection has
  handed over with that: replicas of a service stand by for each other;
- no session state is needed: it works through PgBouncer in transaction mode.

Each cycle reads from the lowest id: ids are given before the commit, so a row may turn up below those
that were published already, and "id > last" would skip it for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

import orjson
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from order_services.runtime import instrumentation
from order_services.runtime.backoff import Backoff
from order_services.runtime.database import Database
from order_services.runtime.kafka_settings import kafka_settings
from order_services.runtime.logs import KafkaLog
from order_services.runtime.settings import ServiceSettings

LOCK_CLASS: Final = 0x6F75_7462  # the first key of the advisory locks on slices
MAX_IDLE_POLL_SECONDS: Final = 0.25
STANDBY_POLL_SECONDS: Final = 0.5
# A cycle costs as much for one message as for a hundred: those that come so soon after one share the
# next. After a pause the first message waits for nobody.
GATHER_SECONDS: Final = 0.1
# Kafka took some of a cycle's messages: what it refused must not hold up the others for long.
MAX_PARTIAL_WAIT_SECONDS: Final = 1.0
DEPTH_INTERVAL_SECONDS: Final = 5.0
# Counting more than this costs more than it tells.
DEPTH_COUNTED: Final = 100_000
# A dead letter is its message and more: the broker's default would refuse the largest.
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
REPORT_MARGIN_SECONDS: Final = 5.0
# Kafka refuses such a message however often it is sent.
PERMANENT_ERRORS: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})

_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))"
_READ: Final = """
    SELECT id, topic, key, value, headers,
        extract(epoch FROM statement_timestamp() - created_at)::float8
    FROM outbox WHERE slice = %s ORDER BY id LIMIT %s
"""
_ID: Final = 0
_age = itemgetter(5)
_SET_ASIDE: Final = """
    INSERT INTO outbox_refused (id, slice, topic, key, value, headers, created_at, reason)
    SELECT id, slice, topic, key, value, headers, created_at, %s
    FROM outbox WHERE slice = %s AND id = %s
"""
_DELETE: Final = "DELETE FROM outbox WHERE slice = %s AND id = ANY(%s::bigint[])"
_DEPTH: Final = """
    SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
    FROM (SELECT created_at FROM outbox WHERE slice = %s ORDER BY id LIMIT %s) AS waiting
"""

_log = structlog.get_logger(__name__)


class PublishError(Exception):
    """Kafka did not take some messages; they stay in the outbox."""

    def __init__(self, refused: int, delivered: int, reason: str) -> None:
        super().__init__(f"Kafka did not take {refused} messages: {reason}")
        self.refused = refused
        self.delivered = delivered


class _Cycle:
    """The delivery reports of one cycle; those that come after its end change nothing."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.refused: dict[int, KafkaError] = {}  # for good
        self.error: KafkaError | None = None

    def report(self, row_id: int, error: KafkaError | None, _message: object = None) -> None:
        if error is None:
            self.delivered.append(row_id)
        elif error.code() in PERMANENT_ERRORS:
            self.refused[row_id] = error
        else:
            self.error = error


class Relay:
    """Publishes the slice `source` on a thread of its own."""

    def __init__(self, source: str, settings: ServiceSettings, database: Database) -> None:
        self._source = source
        self._settings = settings
        self._database = database
        self._producer: Producer | None = None
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._depth_due = 0.0
        self._stop_by = float("inf")
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_max_seconds)
        self._active = instrumentation.OUTBOX_RELAY_ACTIVE.labels(source)
        self._delay = instrumentation.OUTBOX_DELAY.labels(source)
        self._published = instrumentation.OUTBOX_PUBLISHED.labels(source)
        self._refused = instrumentation.OUTBOX_REFUSED.labels(source)
        self._failures = instrumentation.OUTBOX_FAILURES.labels(source)
        self._messages = instrumentation.OUTBOX_MESSAGES.labels(source)
        self._oldest = instrumentation.OUTBOX_OLDEST_SECONDS.labels(source)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Begin to publish, or to stand by."""
        self._thread.start()

    def wake(self) -> None:
        """Publish at once: rows were committed."""
        self._woken.set()

    def stop(self, timeout_seconds: float) -> bool:
        """Publish what is left and end; False when that took too long. What stays is kept."""
        self._stop_by = time.monotonic() + timeout_seconds
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def not_alive(self) -> str | None:
        """Say why only a restart can help, or None."""
        if self._thread.is_alive() or self._stopping.is_set():
            return None
        return "relay: not running"

    def publish_once(self) -> int | None:
        """Run one cycle; return how many messages it dealt with, None when another relay is at it.

        Raises `PublishError` after deleting what Kafka did take, and database errors.
        """
        cycle = _Cycle()
        with self._database.begin() as connection:
            locked = connection.exec_driver_sql(_TRY_LOCK, (LOCK_CLASS, self._source)).scalar_one()
            if not locked:
                return None
            # a statement of its own: its snapshot must be younger than the lock
            read_at = time.perf_counter()
            rows = self._read(connection)
            # before what may fail: a relay that gets nowhere tells how long messages wait
            self._measure_depth(connection)
            if rows:
                self._publish(rows, cycle)
                self._set_aside(connection, rows, cycle)
                self._delete(connection, [*cycle.delivered, *cycle.refused])
        self._observe(rows, cycle, read_at)
        lost = len(rows) - len(cycle.delivered) - len(cycle.refused)
        if lost:
            self._failures.inc(lost)
            reason = cycle.error.str() if cycle.error is not None else "no delivery report in time"
            if cycle.error is None or cycle.error.fatal():
                self._producer = None
            raise PublishError(lost, len(cycle.delivered), reason)
        return len(rows)

    def _run(self) -> None:
        wait_seconds = 0.0
        began = float("-inf")
        while not self._stopping.is_set():
            if wait_seconds > 0:
                self._woken.wait(wait_seconds)
                self._stopping.wait(max(0.0, began + GATHER_SECONDS - time.monotonic()))
            began = time.monotonic()
            # before looking: a wake-up that comes while we look must not be lost
            self._woken.clear()
            wait_seconds = self._turn(wait_seconds)
        while time.monotonic() < self._stop_by and self._turn(0) == 0:
            pass
        self._active.set(0)

    def _turn(self, waited_seconds: float) -> float:
        """Run a cycle and return how long to wait for the next one."""
        try:
            published = self.publish_once()
        except PublishError as error:
            _log.warning("outbox not published", slice=self._source, error=str(error))
            wait_seconds = self._backoff.next_seconds()
            if error.delivered:
                wait_seconds = min(wait_seconds, MAX_PARTIAL_WAIT_SECONDS)
            return self._sleep(wait_seconds)
        except (SQLAlchemyError, KafkaException) as error:
            _log.warning("outbox not read", slice=self._source, error=type(error).__name__)
            return self._sleep(self._backoff.next_seconds())
        self._backoff.reset()
        self._active.set(published is not None)
        if published is None:
            self._messages.set(0)
            self._oldest.set(0)
            return STANDBY_POLL_SECONDS
        if published >= self._settings.relay_batch_max_messages:
            return 0
        if published:
            return self._settings.relay_poll_seconds
        return min(
            max(2 * waited_seconds, self._settings.relay_poll_seconds), MAX_IDLE_POLL_SECONDS
        )

    def _sleep(self, seconds: float) -> float:
        """Wait whether woken or not: new rows do not bring Kafka back."""
        self._stopping.wait(seconds)
        return self._settings.relay_poll_seconds

    def _read(self, connection: Connection) -> Sequence[Any]:
        limit = self._settings.relay_batch_max_messages
        return connection.exec_driver_sql(_READ, (self._source, limit)).all()

    def _publish(self, rows: Sequence[Any], cycle: _Cycle) -> None:
        producer = self._producer = self._producer or Producer(producer_settings(self._settings))
        report = cycle.report
        for row in rows:
            self._produce(producer, row, report)
        # every message is reported within the delivery timeout, one way or the other
        producer.flush(self._settings.relay_delivery_timeout_seconds + REPORT_MARGIN_SECONDS)

    def _produce(self, producer: Producer, row: Any, report: Callable[..., None]) -> None:
        row_id, topic, key, value, headers, _ = row
        message: dict[str, Any] = {
            "topic": topic,
            "key": None if key is None else bytes(key),
            "value": None if value is None else bytes(value),
            "headers": list(orjson.loads(headers).items()),
            "on_delivery": partial(report, row_id),
        }
        try:
            producer.produce(**message)
        except BufferError:
            producer.poll(1.0)
            producer.produce(**message)
        except KafkaException as error:
            # the client itself finds it too large
            report(row_id, error.args[0])

    def _set_aside(self, connection: Connection, rows: Sequence[Any], cycle: _Cycle) -> None:
        if not cycle.refused:
            return
        suspects = [row for row in rows if row[0] in cycle.refused]
        cycle.refused.clear()
        for row in suspects:
            # alone: Kafka refuses batches, and the message next to the bad one may be innocent
            self._publish([row], cycle)
        for row_id, topic, *_ in suspects:
            error = cycle.refused.get(row_id)
            if error is not None:
                reason = f"{error.name()}: {error.str()}"
                connection.exec_driver_sql(_SET_ASIDE, (reason, self._source, row_id))
                _log.error("message set aside", slice=self._source, topic=topic, reason=reason)

    def _delete(self, connection: Connection, row_ids: Sequence[int]) -> None:
        if row_ids:
            ids = "{" + ",".join(map(str, row_ids)) + "}"
            connection.exec_driver_sql(_DELETE, (self._source, ids))

    def _measure_depth(self, connection: Connection) -> None:
        if time.monotonic() < self._depth_due:
            return
        self._depth_due = time.monotonic() + DEPTH_INTERVAL_SECONDS
        count, oldest = connection.exec_driver_sql(_DEPTH, (self._source, DEPTH_COUNTED)).one()
        self._messages.set(count)
        self._oldest.set(oldest)

    def _observe(self, rows: Sequence[Any], cycle: _Cycle, read_at: float) -> None:
        if cycle.refused:
            self._refused.inc(len(cycle.refused))
        if not cycle.delivered:
            return
        if len(cycle.delivered) < len(rows):
            delivered = set(cycle.delivered)
            rows = [row for row in rows if row[_ID] in delivered]
        # the age by the database's clock and what has passed since by ours: they need not agree
        self._delay.observe_all(map(_age, rows), time.perf_counter() - read_at)
        self._published.inc(len(rows))


def producer_settings(settings: ServiceSettings) -> dict[str, Any]:
    """Return the Kafka client's settings for a producer that neither loses nor reorders."""
    return {
        **kafka_settings(settings),
        "client.id": settings.kafka_client_id,
        "enable.idempotence": True,
        "acks": "all",
        # the Java client's: the same key goes to the same partition whoever publishes
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": int(settings.relay_delivery_timeout_seconds * 1000),
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "linger.ms": 5,
        "compression.type": "lz4",
        "log_level": 4,
        "logger": KafkaLog(),
    }
