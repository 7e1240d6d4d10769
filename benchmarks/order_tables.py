"""Whether full tables slow a batch or a relay down, and what forgetting old rows costs.

Two databases on one server, one empty and one with five million payments, five million rows in the
outbox and as many events that analytics has counted (five weeks). Batches go through payment's handler, and cycles through
its relay, on both in turn: a disturbance of the machine hits both. Rows of the past are made by the
server itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from benchmarks.order_payment_replica import create_schema, fresh_database, order
from benchmarks.support import in_child, median, run, say, servers, table
from order_services.domain import topics
from order_services.messaging.batch import BatchProcessor
from order_services.messaging.dead_letters import DeadLetterLimit
from order_services.messaging.messages import ReceivedMessage
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.payment.handler import HANDLES, SOURCE, PaymentHandler
from order_services.payment.rules import Rules
from order_services.payment.settings import PaymentSettings
from order_services.process import logs
from order_services.storage import tables
from order_services.storage.database import Database
from order_services.storage.rings import ANALYTICS_EVENTS

WEEKS: Final = 5  # this one is the last of them
BATCH: Final = 500
RELAY_BATCH: Final = 2_000
# The past is not what is measured: making it need not compete with checkpoints and vacuum.
_POSTGRES: Final = {
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "512MB",
    "autovacuum": "off",
}
# each batch is new and each commit waits for the disk: the first ones also fill caches
WARM_UP: Final = 5

# ids of version 7 carry the time that their row is about, as the real ones do
_COUNTED: Final = """
    INSERT INTO analytics_events (event_id, slot, day, event_type, amount_cents)
    SELECT uuidv7(at - clock_timestamp()), :slot, (at AT TIME ZONE 'UTC')::date, 'ORDER_CREATED', 30700
    FROM (SELECT to_timestamp(:start + n * :step) AS at FROM generate_series(1, :count) n) AS times
"""
_PAYMENTS: Final = """
    INSERT INTO payments (order_id, fact, charged_cents)
    SELECT uuidv7(make_interval(secs => -0.1 * (:count - n))), 'processed', 30700
    FROM generate_series(1, :count) n
"""
# behind what a stopped relay left: the rows that the benchmark adds come last
_OUTBOX: Final = """
    INSERT INTO outbox (slice, topic, key, value, headers)
    SELECT 'payment', 'payments', n::text::bytea, '{"eventType": "PAYMENT_PROCESSED"}', '{}'
    FROM generate_series(1, :count) n
"""
_KEY_OF: Final = {
    each.name: ", ".join(column.name for column in each.primary_key)
    for each in (tables.analytics_events, tables.outbox, tables.payments)
}
_DELETE_WEEK: Final = "DELETE FROM analytics_events WHERE slot = :slot"


def fill(environment: Mapping[str, str], per_week: int, payments: int, outbox: int) -> None:
    """Fill a database's tables with the past."""
    database = _database(environment)
    now = datetime.now(UTC)
    # an index of all rows at once is built in a fraction of the time
    statements = [f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey" for name in _KEY_OF]
    _run(database, statements)
    for start in _weeks(now):
        end = min(start + timedelta(weeks=1), now)
        step = (end - start).total_seconds() / (per_week + 1)
        with database.engine.begin() as connection:
            times = {"start": start.timestamp(), "step": step, "count": per_week}
            connection.execute(
                text(_COUNTED), times | {"slot": ANALYTICS_EVENTS.slot(start.date())}
            )
    with database.engine.begin() as connection:
        connection.execute(text(_PAYMENTS), {"count": payments})
    with database.engine.begin() as connection:
        connection.execute(text(_OUTBOX), {"count": outbox})
    _run(
        database,
        [
            *(f"ALTER TABLE {name} ADD PRIMARY KEY ({key})" for name, key in _KEY_OF.items()),
            *(f"ANALYZE {name}" for name in _KEY_OF),
            "CHECKPOINT",
        ],
    )
    database.close()


def _run(database: Database, statements: Iterable[str]) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def in_turn(
    environments: Mapping[str, Mapping[str, str]], batches: int, cycles: int
) -> dict[str, dict[str, float]]:
    """Return the median seconds of a batch and of a relay's cycle in each database."""
    logs.configure("ERROR", service="payment", client_id="benchmark")
    databases = {name: _database(environment) for name, environment in environments.items()}
    processors = {name: _processor(database) for name, database in databases.items()}
    batch = _alternate(
        {
            name: lambda each=each: each.process(_messages())  # type: ignore[misc]
            for name, each in processors.items()
        },
        batches,
    )
    relays = {name: Relay(SOURCE, PaymentSettings(), each) for name, each in databases.items()}
    for relay in relays.values():
        relay.publish_once()  # connects
    cycle = _alternate({name: each.publish_once for name, each in relays.items()}, cycles)
    for database in databases.values():
        database.close()
    return {name: {"batch": batch[name], "cycle": cycle[name]} for name in databases}


def _alternate(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(WARM_UP + rounds):
        # the other way round each time: neither is always the one after a pause
        for name in list(work)[:: 1 if number % 2 == 0 else -1]:
            began = time.perf_counter()
            work[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(each[WARM_UP:]) for name, each in seconds.items()}


def _messages() -> list[ReceivedMessage]:
    orders = [order() for _ in range(BATCH)]
    return [
        ReceivedMessage(topics.ORDERS, 0, number, each.key(), each.encode(), each.headers())
        for number, each in enumerate(orders)
    ]


def _processor(database: Database) -> BatchProcessor:
    return BatchProcessor(
        source=SOURCE,
        group=topics.PAYMENT_GROUP,
        handles=HANDLES,
        handle=PaymentHandler(Rules()),
        takes_replays=False,
        database=database,
        limit=DeadLetterLimit(1, 1.0),
        timeout_seconds=30.0,
    )


def prune(environment: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """Forget one week by truncating its partition and another by deleting: rows and seconds of each."""
    database = _database(environment)
    now = datetime.now(UTC)
    oldest, second, *_ = _weeks(now)
    results = {}
    with database.engine.begin() as connection:
        rows = _count(connection, oldest)
        began = time.perf_counter()
        emptied = ANALYTICS_EVENTS.forget(connection, first_kept=second.date(), today=now.date())
    results["truncating its partition"] = (rows, time.perf_counter() - began)
    if len(emptied) != 1:
        raise RuntimeError(f"one partition was to be emptied, not {emptied}")
    with database.engine.begin() as connection:
        if _count(connection, oldest):
            raise RuntimeError("the rows of the week that was forgotten are still there")
        rows = _count(connection, second)
        began = time.perf_counter()
        connection.execute(text(_DELETE_WEEK), {"slot": ANALYTICS_EVENTS.slot(second.date())})
    results["deleting its rows"] = (rows, time.perf_counter() - began)
    database.close()
    return results


def _weeks(now: datetime) -> list[datetime]:
    # as the ring's turns: weeks that begin on a Thursday, as 1970 did
    turn = ANALYTICS_EVENTS.turn(now.date())
    return [
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(weeks=turn - week)
        for week in reversed(range(WEEKS))
    ]


def _count(connection: Any, week: datetime) -> int:
    statement = "SELECT count(*) FROM analytics_events WHERE slot = :slot"
    return int(
        connection.execute(
            text(statement), {"slot": ANALYTICS_EVENTS.slot(week.date())}
        ).scalar_one()
    )


def _database(environment: Mapping[str, str]) -> Database:
    os.environ.update(environment)
    # filling takes longer than any statement of a service may
    return Database(PaymentSettings(db_statement_timeout_seconds=3_600.0))


def measure(arguments: argparse.Namespace) -> None:
    scale = 50 if arguments.quick else 1
    per_week, payments, outbox = (count // scale for count in (1_000_000, 5_000_000, 5_000_000))
    batches, cycles = (10, 5) if arguments.quick else (60, 30)
    with servers(postgres=_POSTGRES) as own:
        topic_admin.create(topic_admin.admin_client(own.kafka.bootstrap_servers))
        environments = {name: fresh_database(own, name) for name in ("empty", "full")}
        for environment in environments.values():
            in_child(create_schema, environment)
        began = time.monotonic()
        say(
            f"filling: {payments:,} payments, {outbox:,} outbox, {WEEKS * per_week:,} counted events"
        )
        in_child(fill, environments["full"], per_week, payments, outbox)
        # both relays have as many rows before them as they are to publish
        in_child(fill, environments["empty"], 0, 0, RELAY_BATCH * (cycles + WARM_UP + 1))
        say(f"filled in {time.monotonic() - began:.0f} s; batches and cycles in turn")
        measured = in_child(in_turn, environments, batches, cycles)
        say("pruning")
        pruned = in_child(prune, environments["full"])
    rows: list[list[object]] = [
        [
            name,
            seconds["batch"] * 1000,
            2 * BATCH / seconds["batch"],
            seconds["cycle"] * 1000,
            RELAY_BATCH / seconds["cycle"],
        ]
        for name, seconds in measured.items()
    ]
    ratios = [measured["full"][part] / measured["empty"][part] for part in ("batch", "cycle")]
    rows.append(["full / empty", f"{ratios[0]:.2f}", "", f"{ratios[1]:.2f}", ""])
    table(
        f"Empty tables, and {payments:,} payments and {outbox:,} rows in the outbox: medians",
        [
            "tables",
            f"batch of {BATCH}, ms",
            "inserts/s",
            f"relay cycle of {RELAY_BATCH:,}, ms",
            "published/s",
        ],
        rows,
    )
    table(
        "Forgetting a week of counted events",
        ["by", "rows", "seconds"],
        [[name, count, seconds] for name, (count, seconds) in pruned.items()],
    )
    print(
        "A batch inserts a row each into payments and outbox for every order. The outbox needs no\n"
        "pruning: a row is deleted when Kafka has acknowledged it."
    )


def main() -> int:
    return run("order_tables", "Whether full tables slow a batch or a relay down.", measure)


if __name__ == "__main__":
    sys.exit(main())
