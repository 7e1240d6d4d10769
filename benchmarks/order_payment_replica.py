"""How many orders one payment replica handles a second, in batches and one by one.

The replica is the real one (consumer, handler, outbox, metrics, web server) in a process of
its own, with its relay switched off: what the relay costs is measured after it. The bare loops do
the same inserts with confluent-kafka and psycopg2 and nothing else: the most that Python can do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import orjson
import psycopg2
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition
from psycopg2.extras import execute_values

from benchmarks.support import Servers, in_child, median, run, say, servers, table
from order_services.domain import topics
from order_services.domain.events import Event, EventType, new_id
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.payment.service import build
from order_services.payment.settings import PaymentSettings
from order_services.process import logs
from order_services.service.run import run_until
from order_services.storage import schema
from order_services.storage.database import Database

BATCH: Final = 500
ITEMS: Final = (
    {"productId": "PROD-001", "quantity": 2, "unitPriceCents": 12_900},
    {"productId": "PROD-005", "quantity": 1, "unitPriceCents": 4_900},
)
MAX_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Figures:
    """What one run cost, from its first commit to its last."""

    per_second: float
    cpu_us: float  # of the process that did it, per message
    kafka_us: float = 0.0
    postgres_us: float = 0.0


def send_orders(brokers: str, count: int) -> None:
    """Publish `count` new orders, as the gateway's relay would."""
    producer = Producer(
        {"bootstrap.servers": brokers, "linger.ms": 20, "partitioner": "murmur2_random"}
    )
    for _ in range(count):
        event = order()
        while True:
            try:
                producer.produce(
                    topics.ORDERS, event.encode(), event.key(), headers=[*event.headers()]
                )
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError("Kafka did not take the orders in time")


def order() -> Event:
    """Return an order of two lines."""
    payload = {
        "customerId": "customer-17",
        "items": ITEMS,
        "totalCents": 30_700,
        "currency": "EUR",
    }
    return Event(EventType.ORDER_CREATED, new_id(), payload, "gateway", new_id())


def replica(environment: Mapping[str, str], expected: int) -> Figures:
    """Run a payment replica until it has committed `expected` orders."""
    os.environ.update(environment)
    stop = threading.Event()
    marks: list[tuple[int, float, float]] = []  # orders, time, CPU seconds

    def committed(events: Sequence[Event]) -> None:
        done = (marks[-1][0] if marks else 0) + len(events)
        marks.append((done, time.perf_counter(), _cpu()))
        if done >= expected:
            stop.set()

    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    timer = threading.Timer(MAX_SECONDS, stop.set)
    timer.start()
    run_until(stop, replace(build(settings), on_committed=committed))
    timer.cancel()
    return _figures(marks, expected)


def relay(environment: Mapping[str, str]) -> Figures:
    """Publish all that is in payment's outbox."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    database = Database(settings)
    publisher = Relay("payment", settings, database)
    marks: list[tuple[int, float, float]] = []
    while published := publisher.publish_once():
        done = (marks[-1][0] if marks else 0) + published
        marks.append((done, time.perf_counter(), _cpu()))
    database.close()
    return _figures(marks, marks[-1][0] if marks else 1)


def bare(environment: Mapping[str, str], expected: int, batch: int) -> Figures:
    """Do the replica's inserts with the two clients alone."""
    connection = psycopg2.connect(
        host=environment["DB_HOST"],
        port=environment["DB_PORT"],
        dbname=environment["DB_NAME"],
        user=environment["DB_USER"],
    )
    consumer = KafkaConsumer(
        {
            "bootstrap.servers": environment["KAFKA_BROKERS"],
            "group.id": "bare-loop",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.subscribe([topics.ORDERS])
    marks: list[tuple[int, float, float]] = []
    done, deadline = 0, time.monotonic() + MAX_SECONDS
    while done < expected and time.monotonic() < deadline:
        messages = consumer.consume(batch, 0.25)
        if not messages:
            continue
        events = [json.loads(message.value() or b"") for message in messages]
        with connection, connection.cursor() as cursor:
            _bare_transaction(cursor, events)
        consumer.commit(asynchronous=False)
        done += len(events)
        marks.append((done, time.perf_counter(), _cpu()))
    consumer.close()
    connection.close()
    return _figures(marks, expected)


def _bare_transaction(cursor: Any, events: Sequence[Mapping[str, Any]]) -> None:
    execute_values(
        cursor,
        "INSERT INTO payments (order_id, fact, charged_cents) VALUES %s ON CONFLICT DO NOTHING",
        [(event["orderId"], "processed", event["payload"]["totalCents"]) for event in events],
        page_size=BATCH,
    )
    execute_values(
        cursor,
        "INSERT INTO outbox (slice, topic, key, value, headers) VALUES %s",
        [
            (
                "bare",
                topics.PAYMENTS,
                event["orderId"].encode(),
                orjson.dumps({**event, "eventType": "PAYMENT_PROCESSED", "eventId": new_id()}),
                "{}",
            )
            for event in events
        ],
        page_size=BATCH,
    )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _figures(marks: Sequence[tuple[int, float, float]], expected: int) -> Figures:
    if len(marks) < 2 or marks[-1][0] < expected:
        done = marks[-1][0] if marks else 0
        raise RuntimeError(f"only {done} of {expected} messages within {MAX_SECONDS:.0f} s")
    (first, began, cpu_began), (last, ended, cpu_ended) = marks[0], marks[-1]
    count = last - first
    return Figures(count / (ended - began), (cpu_ended - cpu_began) / count * 1e6)


def fresh_database(own: Servers, name: str) -> dict[str, str]:
    """Create a database with all tables and return the environment of a service that uses it."""
    own.postgres.create_database(name)
    return own.environment(name) | {
        "PORT": "0",
        "RELAY_ENABLED": "false",
        "RELAY_BATCH_MAX_MESSAGES": "2000",
        "LOG_LEVEL": "ERROR",
        "DB_POOL_MAX": "5",
        "RETRY_MAX_SECONDS": "1",
        "SESSION_TIMEOUT_SECONDS": "10",
    }


def create_schema(environment: Mapping[str, str]) -> None:
    """Create the tables, where no service has done it."""
    os.environ.update(environment)
    database = Database(PaymentSettings())
    schema.migrate(database.engine)
    database.close()


def with_servers(own: Servers, messages: int, work: Callable[[], Figures]) -> Figures:
    """Add what broker and database spent on it, per message."""
    before = own.cpu_seconds()
    figures = work()
    after = own.cpu_seconds()
    spent = {name: (after[name] - before[name]) / messages * 1e6 for name in after}
    return replace(figures, kafka_us=spent["Kafka"], postgres_us=spent["PostgreSQL"])


def measure(arguments: argparse.Namespace) -> None:
    rounds = 1 if arguments.quick else 3
    many, few = (10_000, 1_000) if arguments.quick else (60_000, 6_000)
    kinds = {
        f"replica, batches of {BATCH}": (many, "replica", BATCH),
        f"replica, batches of {BATCH}, PAYMENT_PROCESSING too": (many, "announcing", BATCH),
        "replica, one transaction per message": (few, "replica", 1),
        f"bare loop, batches of {BATCH}": (many, "bare", BATCH),
        "bare loop, one transaction per message": (few, "bare", 1),
    }
    results: dict[str, list[Figures]] = {name: [] for name in (*kinds, "relay")}
    with servers() as own:
        topic_admin.create(topic_admin.admin_client(own.kafka.bootstrap_servers))
        for number in range(rounds):
            for name, (count, kind, batch) in kinds.items():
                say(f"round {number + 1} of {rounds}: {name}, {count:,} orders")
                environment = fresh_database(own, f"b{number}_{kind}_{batch}")
                environment["BATCH_MAX_MESSAGES"] = str(batch)
                environment["PAYMENT_ANNOUNCES_PROCESSING"] = str(kind == "announcing")
                in_child(create_schema, environment)
                in_child(send_orders, own.kafka.bootstrap_servers, count)
                results[name].append(_one(own, environment, count, kind, batch))
                if kind == "replica" and batch == BATCH:
                    say(f"round {number + 1} of {rounds}: its relay")
                    drain = partial(in_child, relay, environment)
                    results["relay"].append(with_servers(own, count, drain))
    _print(results)


def _one(
    own: Servers, environment: Mapping[str, str], count: int, kind: str, batch: int
) -> Figures:
    if kind == "bare":
        figures = with_servers(own, count, lambda: in_child(bare, environment, count, batch))
    else:
        figures = with_servers(own, count, lambda: in_child(replica, environment, count))
    # the other group has not read these: it would find them in its own measurement
    other = topics.PAYMENT_GROUP.group_id if kind == "bare" else "bare-loop"
    in_child(skip, environment["KAFKA_BROKERS"], other)
    return figures


def skip(brokers: str, group_id: str) -> None:
    """Move a group without members to the end of the orders."""
    consumer = KafkaConsumer({"bootstrap.servers": brokers, "group.id": group_id})
    partitions = topics.TOPIC_OF_NAME[topics.ORDERS].partitions
    ends = []
    for partition in range(partitions):
        place = TopicPartition(topics.ORDERS, partition)
        _, place.offset = consumer.get_watermark_offsets(place, timeout=10)
        ends.append(place)
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


def _print(results: Mapping[str, Sequence[Figures]]) -> None:
    rows = {
        name: {key: median(asdict(one)[key] for one in each) for key in asdict(each[0])}
        for name, each in results.items()
    }
    slow = rows["replica, one transaction per message"]["per_second"]
    bare_loop = rows[f"bare loop, batches of {BATCH}"]["per_second"]
    table(
        "One payment replica: payments and outbox rows for each order, relay apart",
        [
            "what",
            "per second",
            "x one by one",
            "x bare loop",
            "CPU us",
            "PostgreSQL us",
            "Kafka us",
        ],
        [
            (
                name,
                row["per_second"],
                f"{row['per_second'] / slow:.1f}" if name != "relay" else "",
                f"{row['per_second'] / bare_loop:.2f}" if name != "relay" else "",
                row["cpu_us"],
                row["postgres_us"],
                row["kafka_us"],
            )
            for name, row in rows.items()
        ],
    )
    print(
        "CPU is per message: of the measured process, of all PostgreSQL processes, of the broker.\n"
        f"'x bare loop' compares with the bare loop in batches of {BATCH}: it says how fast this machine\n"
        "is, and how much of that the replica makes use of."
    )


def main() -> int:
    return run("order_payment_replica", "One payment replica, in orders a second.", measure)


if __name__ == "__main__":
    sys.exit(main())
