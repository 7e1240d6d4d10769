"""Hands outbox rows to a Kafka producer, and keeps what became of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from order_services.messaging.client_settings import producer_settings
from order_services.messaging.kafka_errors import FatalClientError, is_fatal
from order_services.process.settings import ServiceSettings
from order_services.storage.outbox import decode_headers
from order_services.storage.outbox_slice import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT_MARGIN_SECONDS: Final = 5.0
METADATA_TIMEOUT_SECONDS: Final = 1.0
# Kafka refuses such a message however often it is sent, whoever may write to the topic.
PERMANENT_ERRORS: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,  # no topic can have this name
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    }
)


@dataclass(slots=True)
class Reports:
    """What Kafka said about rows since somebody looked, and of which it has said nothing yet."""

    flying: dict[int, Row] = field(default_factory=dict)
    delivered: list[Row] = field(default_factory=list)
    refused: dict[int, tuple[Row, KafkaError]] = field(default_factory=dict)  # for good
    failed: dict[int, tuple[Row, KafkaError]] = field(default_factory=dict)

    def take(self, row: Row, error: KafkaError | None, _message: object = None) -> None:
        """Note a delivery report."""
        self.flying.pop(row.row_id, None)
        if error is None:
            self.delivered.append(row)
        elif error.code() in PERMANENT_ERRORS:
            self.refused[row.row_id] = row, error
        else:
            self.failed[row.row_id] = row, error


class Publisher:
    """A producer, and the rows that it was given.

    Every method raises `FatalClientError` once the producer can do nothing more: all that it was given
    is then to be given to another one.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        with _fatal_errors():
            self._producer = Producer(producer_settings(settings))
        # every message is reported within this time, one way or the other
        self.report_seconds = settings.relay_delivery_timeout_seconds + REPORT_MARGIN_SECONDS
        self._is_stale = False
        # apart from us: what the producer holds must not hold the producer
        self.reports = Reports()

    def send(self, rows: Iterable[Row]) -> None:
        """Give rows to the producer; what comes of each is reported while we listen."""
        produce, flying, take = self._producer.produce, self.reports.flying, self.reports.take
        with _fatal_errors():
            for row in rows:
                message: dict[str, Any] = {
                    "topic": row.topic,
                    "key": row.key,
                    "value": row.value,
                    "headers": decode_headers(row.headers),
                    "on_delivery": partial(take, row),
                }
                flying[row.row_id] = row
                try:
                    try:
                        produce(**message)
                    except BufferError:
                        self._producer.poll(1.0)
                        produce(**message)
                except BufferError:
                    take(row, KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001  # its public name
                except KafkaException as error:
                    if is_fatal(error.args[0]):
                        # says which error it was, where this one only says that there was one
                        self._producer.poll(0)
                        raise
                    # the client itself finds it too large, or remembers that it may not write there
                    take(row, error.args[0])
                    self._is_stale |= row.row_id in self.reports.failed

    @property
    def is_stale(self) -> bool:
        """Whether the client refuses by itself what Kafka may take by now: it asks no more."""
        return self._is_stale and not self.reports.flying

    def listen(self, rows: Iterable[Row], seconds: float) -> None:
        """Wait at most so long for the reports of these rows."""
        reports = self.reports
        waiting = {row.row_id for row in rows} & reports.flying.keys()
        deadline = time.monotonic() + seconds
        with _fatal_errors():
            if len(waiting) == len(reports.flying):
                # sends what lingers at once
                self._producer.flush(seconds)
                return
            while waiting and (left := deadline - time.monotonic()) > 0:
                self._producer.poll(min(left, 0.05))
                waiting &= reports.flying.keys()
            self._producer.poll(0)

    def check(self) -> None:
        """Raise when reports are missing that must have come."""
        oldest = next(iter(self.reports.flying.values()), None)
        if oldest is not None and time.perf_counter() - oldest.read_at > self.report_seconds:
            raise FatalClientError("no delivery report in time")

    def partitions(self) -> dict[str, int]:
        """Return how many partitions each topic has; nothing where nobody answers."""
        try:
            topics = self._producer.list_topics(timeout=METADATA_TIMEOUT_SECONDS).topics
        except KafkaException:
            return {}
        return {name: len(topic.partitions) for name, topic in topics.items() if not topic.error}


@contextmanager
def _fatal_errors() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise FatalClientError(error.args[0].str()) from error
    except SystemError as error:
        # the client calls back for its reports with its fatal error raised: whatever they ask fails
        if not isinstance(error.__cause__, KafkaException):
            raise
        raise FatalClientError(error.__cause__.args[0].str()) from error
