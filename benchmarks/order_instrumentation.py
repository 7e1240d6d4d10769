"""How much of a message's cost is its instrumentation.

One payment replica handles the same kind of batches, with metrics and without in turn, in one
process: a disturbance hits both. Without means that nothing is observed, and nothing is prepared for
it either. Cost is the CPU time of the consumer's thread, and of the relay's.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final
from unittest import mock

from prometheus_client import Counter, Gauge

from benchmarks.order_payment_replica import create_schema, fresh_database, send_orders
from benchmarks.support import in_child, median, run, say, servers, table
from order_services import topics
from order_services.payment.service import build
from order_services.payment.settings import PaymentSettings
from order_services.runtime import logs, service
from order_services.runtime.consumer import Consumer
from order_services.runtime.database import Database
from order_services.runtime.histogram import Histogram
from order_services.runtime.relay import Relay

BATCH: Final = 500
MAX_SECONDS: Final = 300.0

# CPU seconds per message, with metrics and without
Costs = tuple[list[float], list[float]]


class _Metrics:
    """Metrics that can be switched off and on."""

    def __init__(self) -> None:
        self._off: ExitStack | None = None

    def switch(self, *, on: bool) -> None:
        if on and self._off is not None:
            self._off.close()
            self._off = None
        elif not on and self._off is None:
            self._off = ExitStack()
            for kind, names in (
                (Counter, ("inc",)),
                (Gauge, ("set",)),
                (Histogram, ("observe", "observe_all", "observe_counts")),
                # what is done only to observe
                (Consumer, ("_count",)),
                (Relay, ("_observe",)),
            ):
                for name in names:
                    self._off.enter_context(mock.patch.object(kind, name, _nothing))


def _nothing(*_arguments: object, **_named: object) -> None:
    pass


def consumer(environment: Mapping[str, str], expected: int) -> Costs:
    """Handle `expected` orders, every other batch without metrics."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    metrics, costs = _Metrics(), ([], [])  # type: tuple[_Metrics, Costs]
    stop = threading.Event()
    done, last_cpu = 0, 0.0

    def committed(events: Sequence[object]) -> None:
        nonlocal done, last_cpu
        cpu = time.thread_time()
        number = done // BATCH
        done += len(events)
        if last_cpu and len(events) == BATCH:
            costs[number % 2].append((cpu - last_cpu) / BATCH)
        if done >= expected:
            stop.set()
        metrics.switch(on=(done // BATCH) % 2 == 0)
        last_cpu = time.thread_time()

    timer = threading.Timer(MAX_SECONDS, stop.set)
    timer.start()
    service.run_until(stop, replace(build(settings), on_committed=committed), settings)
    timer.cancel()
    metrics.switch(on=True)
    return costs


def relay(environment: Mapping[str, str]) -> Costs:
    """Publish what waits, every other cycle without metrics."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    database = Database(settings)
    publisher = Relay("payment", settings, database)
    metrics, costs = _Metrics(), ([], [])  # type: tuple[_Metrics, Costs]
    publisher.publish_once()  # connects
    number = 0
    while True:
        metrics.switch(on=number % 2 == 0)
        began = time.thread_time()
        published = publisher.publish_once()
        if not published:
            break
        costs[number % 2].append((time.thread_time() - began) / published)
        number += 1
    metrics.switch(on=True)
    database.close()
    return costs


def measure(arguments: argparse.Namespace) -> None:
    batches = 40 if arguments.quick else 240
    rounds = 1 if arguments.quick else 3
    consumed: Costs = ([], [])
    published: Costs = ([], [])
    with servers() as own:
        topics.create(topics.admin_client(own.kafka.bootstrap_servers))
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: {batches} batches, with and without in turn")
            environment = fresh_database(own, f"round_{number}")
            environment |= {
                "BATCH_MAX_MESSAGES": str(BATCH),
                "RELAY_BATCH_MAX_MESSAGES": str(BATCH),
            }
            # a batch that waits longer is a full one
            environment["BATCH_LINGER_SECONDS"] = "1"
            in_child(create_schema, environment)
            in_child(send_orders, own.kafka.bootstrap_servers, batches * BATCH)
            for total, part in (
                (consumed, in_child(consumer, environment, batches * BATCH)),
                (published, in_child(relay, environment)),
            ):
                total[0].extend(part[0])
                total[1].extend(part[1])
    rows = [_row("payment's consumer", consumed), _row("its relay", published)]
    with_all = median(consumed[0]) + median(published[0])
    without = median(consumed[1]) + median(published[1])
    rows.append(
        ["both", "", with_all * 1e6, without * 1e6, f"{(with_all - without) / with_all:.1%}"]
    )
    table(
        f"Instrumentation's share of a message's CPU, batches of {BATCH}, medians",
        ["thread", "batches", "with, us", "without, us", "share"],
        rows,
    )


def _row(name: str, costs: Costs) -> list[object]:
    if not costs[0] or not costs[1]:
        raise RuntimeError("too few full batches: run without --quick")
    with_all, without = median(costs[0]), median(costs[1])
    share = (with_all - without) / with_all
    return [
        name,
        len(costs[0]) + len(costs[1]),
        with_all * 1e6,
        without * 1e6,
        f"{share:.1%}",
    ]


def main() -> int:
    return run("order_instrumentation", "Instrumentation's share of a message's cost.", measure)


if __name__ == "__main__":
    sys.exit(main())
