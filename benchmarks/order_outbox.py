"""How long a message stays in the outbox, and how many one relay publishes a second.

The delay is what `outbox_delay_seconds` observes: from writing the row, just before its commit, to
its acknowledgement by Kafka.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import Final
from unittest import mock

from benchmarks.order_payment_replica import (
    Figures,
    create_schema,
    fresh_database,
    relay,
    with_servers,
)
from benchmarks.support import in_child, percentile, run, say, servers, table
from order_services.domain.events import Event, EventType, new_id
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.payment.settings import PaymentSettings
from order_services.process import instrumentation, logs
from order_services.storage import outbox
from order_services.storage.database import Database

SOURCE: Final = "payment"
BATCH: Final = 500


def delays(environment: Mapping[str, str], rate: float, seconds: float, size: int) -> list[float]:
    """Commit `rate` transactions of `size` messages a second beside a relay; return the delays."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service=SOURCE, client_id="benchmark")
    database = Database(settings)
    seen: list[float] = []
    with mock.patch.object(
        instrumentation.OUTBOX_DELAY.labels(SOURCE),
        "observe_all",
        side_effect=lambda ages, since: seen.extend(age + since for age in ages),
    ):
        publisher = Relay(SOURCE, settings, database)
        publisher.start()
        _write(database, 1)  # the first one also pays for connecting
        publisher.wake()
        time.sleep(2.0)
        seen.clear()
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            _write(database, size)
            publisher.wake()
        publisher.stop(30.0)
    database.close()
    return seen


def fill(environment: Mapping[str, str], count: int) -> None:
    """Put `count` messages into the outbox."""
    os.environ.update(environment)
    database = Database(PaymentSettings())
    for _ in range(count // BATCH):
        _write(database, BATCH)
    database.close()


def _write(database: Database, count: int) -> None:
    events = [
        Event(
            EventType.PAYMENT_PROCESSED,
            new_id(),
            {"amountCents": 30_700, "acceptedAt": "2026-01-01T00:00:00Z"},
            SOURCE,
            new_id(),
        )
        for _ in range(count)
    ]
    with database.begin() as connection:
        outbox.write(connection, SOURCE, events)


def measure(arguments: argparse.Namespace) -> None:
    seconds = 5.0 if arguments.quick else 20.0
    count = 10_000 if arguments.quick else 60_000
    rows = []
    with servers() as own:
        topic_admin.create(topic_admin.admin_client(own.kafka.bootstrap_servers))
        environment = fresh_database(own, "outbox")
        in_child(create_schema, environment)
        for rate, size in ((10.0, 1), (50.0, 10), (20.0, 50)):
            say(f"{rate:.0f} transactions/s of {size}, {seconds:.0f} s")
            seen = in_child(delays, environment, rate, seconds, size)
            rows.append(
                [
                    f"{rate:.0f} transactions/s of {size}",
                    len(seen),
                    *(percentile(seen, percent) * 1000 for percent in (50, 99, 100)),
                ]
            )
        say(f"publishing {count:,} that wait")
        in_child(fill, environment, count)
        drained: Figures = with_servers(own, count, lambda: in_child(relay, environment))
    table(
        "Delay in the outbox, in milliseconds",
        ["written", "messages", "p50", "p99", "worst"],
        rows,
    )
    table(
        f"One relay with {count:,} messages waiting",
        ["messages/s", "CPU us", "PostgreSQL us", "Kafka us"],
        [[drained.per_second, drained.cpu_us, drained.postgres_us, drained.kafka_us]],
    )


def main() -> int:
    return run("order_outbox", "Delay in the outbox and throughput of a relay.", measure)


if __name__ == "__main__":
    sys.exit(main())
