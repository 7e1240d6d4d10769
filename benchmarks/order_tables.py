"""Whether full tables slow an order down, and what forgetting old inbox rows costs.

One payment replica works on an empty database and on one with five days of inbox rows, a million
orders and a million payments, in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from benchmarks.order_payment_replica import (
    Figures,
    create_schema,
    fresh_database,
    replica,
    send_orders,
    with_servers,
)
from benchmarks.support import in_child, median, run, say, servers, table
from order_services import topics
from order_services.payment.settings import PaymentSettings
from order_services.runtime import inbox_partitions
from order_services.runtime.database import Database

DAYS: Final = 5  # today is the last of them

# ids of version 7 carry the time that their row is about, as the real ones do
_INBOX: Final = """
    INSERT INTO inbox (event_time, event_id, consumer_group)
    SELECT at, uuidv7(at - clock_timestamp()), 'payment-service-group'
    FROM (SELECT to_timestamp(:start + n * :step) AS at FROM generate_series(1, :count) n) AS times
"""
_PAYMENTS: Final = """
    INSERT INTO payments (order_id, fact, charged_cents)
    SELECT uuidv7(make_interval(secs => -0.1 * (:count - n))), 'processed', 30700
    FROM generate_series(1, :count) n
"""
_ORDERS: Final = """
    INSERT INTO orders (order_id, customer_id, items, total_cents, currency, correlation_id,
                        payment_fact)
    SELECT order_id, 'customer-17', '[{"productId": "PROD-001", "quantity": 2}]', charged_cents,
           'EUR', order_id::text, 'processed'
    FROM payments
"""
_DELETE_DAY: Final = "DELETE FROM inbox WHERE event_time >= :start AND event_time < :end"


def fill(environment: Mapping[str, str], per_day: int, orders: int) -> None:
    """Fill a database's tables with the past."""
    database = _database(environment)
    now = datetime.now(UTC)
    with database.engine.begin() as connection:
        for day in range(DAYS - 1):
            # each call makes the partition of the day before `today`
            inbox_partitions.create(connection, (now - timedelta(days=day)).date())
    for start in _days(now):
        # today ends now: the ids of the coming events follow those that are there
        end = min(start + timedelta(days=1), now)
        step = (end - start).total_seconds() / (per_day + 1)
        with database.engine.begin() as connection:
            connection.execute(
                text(_INBOX), {"start": start.timestamp(), "step": step, "count": per_day}
            )
    with database.engine.begin() as connection:
        connection.execute(text(_PAYMENTS), {"count": orders})
        connection.execute(text(_ORDERS))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE inbox, payments, orders"))
        connection.execute(text("CHECKPOINT"))
    database.close()


def prune(environment: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """Forget one day by dropping its partition and another by deleting: rows and seconds of each."""
    database = _database(environment)
    now = datetime.now(UTC)
    oldest, second, *_ = _days(now)
    results = {}
    with database.engine.begin() as connection:
        rows = _count(connection, oldest)
        began = time.perf_counter()
        kept = (now.date() - second.date()).days
        dropped = inbox_partitions.drop_old(connection, retention_days=kept)
    results["dropping its partition"] = (rows, time.perf_counter() - began)
    if len(dropped) != 1:
        raise RuntimeError(f"one partition was to be dropped, not {dropped}")
    with database.engine.begin() as connection:
        rows = _count(connection, second)
        began = time.perf_counter()
        bounds = {"start": second, "end": second + timedelta(days=1)}
        connection.execute(text(_DELETE_DAY), bounds)
    results["deleting its rows"] = (rows, time.perf_counter() - began)
    database.close()
    return results


def _days(now: datetime) -> list[datetime]:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [today - timedelta(days=day) for day in reversed(range(DAYS))]


def _count(connection: Any, day: datetime) -> int:
    statement = "SELECT count(*) FROM inbox WHERE event_time >= :start AND event_time < :end"
    bounds = {"start": day, "end": day + timedelta(days=1)}
    return int(connection.execute(text(statement), bounds).scalar_one())


def _database(environment: Mapping[str, str]) -> Database:
    os.environ.update(environment)
    # filling takes longer than any statement of a service may
    return Database(PaymentSettings(db_statement_timeout_seconds=3_600.0))


def measure(arguments: argparse.Namespace) -> None:
    per_day, orders = (60_000, 60_000) if arguments.quick else (1_000_000, 1_000_000)
    rounds, count = (1, 5_000) if arguments.quick else (5, 20_000)
    results: dict[str, list[Figures]] = {"empty": [], "full": []}
    with servers(postgres={"max_wal_size": "4GB"}) as own:
        topics.create(topics.admin_client(own.kafka.bootstrap_servers))
        environments = {name: fresh_database(own, name) for name in results}
        for environment in environments.values():
            in_child(create_schema, environment)
        say(f"writing {DAYS * per_day:,} inbox rows, {orders:,} orders and payments")
        in_child(fill, environments["full"], per_day, orders)
        for number in range(rounds):
            # the other way round each time: neither is always the one with the warmer machine
            for name in list(results)[:: 1 if number % 2 == 0 else -1]:
                say(f"round {number + 1} of {rounds}: {name} tables, {count:,} orders")
                results[name].append(_handle(own, environments[name], count))
        say("pruning")
        pruned = in_child(prune, environments["full"])
    _print(results, pruned, DAYS * per_day)


def _handle(own: Any, environment: Mapping[str, str], count: int) -> Figures:
    in_child(send_orders, own.kafka.bootstrap_servers, count)
    return with_servers(own, count, lambda: in_child(replica, environment, count))


def _print(
    results: Mapping[str, Sequence[Figures]], pruned: Mapping[str, tuple[int, float]], rows: int
) -> None:
    figures = {
        name: [
            median(each.per_second for each in runs),
            median(each.cpu_us for each in runs),
            median(each.postgres_us for each in runs),
        ]
        for name, runs in results.items()
    }
    ratios = [full / empty for empty, full in zip(figures["empty"], figures["full"], strict=True)]
    table(
        f"One payment replica with empty tables and with {rows:,} inbox rows",
        ["tables", "orders/s", "CPU us", "PostgreSQL us"],
        [
            ["empty", *figures["empty"]],
            ["full", *figures["full"]],
            ["full / empty", *(f"{ratio:.2f}" for ratio in ratios)],
        ],
    )
    table(
        "Forgetting a day of inbox rows",
        ["by", "rows", "seconds"],
        [[name, count, seconds] for name, (count, seconds) in pruned.items()],
    )


def main() -> int:
    return run("order_tables", "Whether full tables slow an order down.", measure)


if __name__ == "__main__":
    sys.exit(main())
