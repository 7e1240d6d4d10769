"""Run a service with one of its guarantees switched off: `python -m tests.crash.sabotage HOW SERVICE`.

The crash run must notice. Production code has no switch for any of this.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import TopicPartition
from sqlalchemy import Connection

from order_services.analytics import counting, service
from order_services.domain.events import Event, new_id
from order_services.messaging.batch import Effects
from order_services.messaging.consumer import Consumer
from order_services.messaging.publishing import Publisher
from order_services.messaging.relay import Relay
from order_services.storage.outbox_slice import Row


def without_event_keys() -> None:
    """Have analytics count every delivery of an event: as if it were another event each time."""
    count = counting.count

    def count_all(given: Sequence[Event], connection: Connection) -> Effects:
        count([replace(event, event_id=new_id()) for event in given], connection)
        return Effects()

    service.count = count_all  # type: ignore[assignment, attr-defined]  # sabotage


def offsets_before_transaction() -> None:
    """Commit to Kafka what PostgreSQL does not have yet."""
    process = Consumer._process_until_it_works

    def commit_first(self: Consumer, kafka: Any, messages: Any) -> Any:
        offsets = [TopicPartition(each.topic, each.partition, each.offset + 1) for each in messages]
        kafka.commit(offsets=offsets, asynchronous=False)
        return process(self, kafka, messages)

    Consumer._process_until_it_works = commit_first  # type: ignore[method-assign]  # sabotage


def rows_before_delivery() -> None:
    """Take outbox rows for published as soon as they are handed to the producer."""

    def publish(self: Relay, rows: Sequence[Row]) -> None:
        publisher = self._publisher = self._publisher or Publisher(self._settings)
        for row in rows:
            publisher._producer.produce(row.topic, key=row.key, value=row.value)
            publisher.reports.delivered.append(row)
        publisher._producer.poll(0)

    Relay._publish = publish  # type: ignore[method-assign]  # sabotage


SABOTAGES: dict[str, Callable[[], None]] = {
    "without-event-keys": without_event_keys,
    "offsets-before-transaction": offsets_before_transaction,
    "rows-before-delivery": rows_before_delivery,
}


def sabotaged_command(how: str) -> Callable[[str], list[str]]:
    """Return the command line that starts a service in this way."""
    return lambda service: [sys.executable, "-m", "tests.crash.sabotage", how, service]


if __name__ == "__main__":
    _, how, name = sys.argv
    SABOTAGES[how]()
    runpy.run_module(f"order_services.{name}", run_name="__main__")
