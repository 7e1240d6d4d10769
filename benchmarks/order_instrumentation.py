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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final
from unittest import mock

from prometheus_client import Counter, Gauge

from benchmarks.order_payment_replica import create_schema, fresh_database, send_orders
from benchmarks.support import in_child, median, run, say, servers, table
from order_services.messaging.consumer import Consumer
from order_services.messaging.relay import Relay
from order_services.operations import topic_admin
from order_services.payment.service import build
from order_services.payment.settings import PaymentSettings
from order_services.process import logs
from order_services.process.histogram import Histogram
from order_services.service.run import run_until
from order_services.storage.database import Database

BATCH: Final = 500
MAX_SECONDS: Final = 300.0


@dataclass
class Costs:
    """CPU seconds per message of each batch, and of those with metrics, the part spent on them."""

    complete: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    observing: list[float] = field(default_factory=list)

    def add(self, metrics: _Metrics, seconds: float, count: int, *, on: bool) -> None:
        """Note a batch of `count` messages."""
        (self.complete if on else self.without).append(seconds / count)
        if on:
            self.observing.append(metrics.seconds / count)

    def extend(self, other: Costs) -> None:
        """Add another run's batches."""
        self.complete += other.complete
        self.without += other.without
        self.observing += other.observing


_OBSERVING: Final = (
    (Counter, ("inc",)),
    (Gauge, ("set",)),
    (Histogram, ("observe", "observe_all")),
    # what is done only to observe
    (Consumer, ("_count",)),
    (Relay, ("_observe",)),
)


class _Metrics:
    """Metrics that can be switched off, and are timed while they are on."""

    def __init__(self) -> None:
        self._patches = ExitStack()
        self._within = False
        self.seconds = 0.0  # CPU seconds spent observing

    def switch(self, *, on: bool) -> None:
        self.restore()
        for kind, names in _OBSERVING:
            for name in names:
                replacement = self._timed(getattr(kind, name)) if on else _nothing
                self._patches.enter_context(mock.patch.object(kind, name, replacement))

    def restore(self) -> None:
        self._patches.close()

    def _timed(self, observe: Callable[..., object]) -> Callable[..., object]:
        thread = threading.get_ident()

        def timed(*arguments: object, **named: object) -> object:
            # counted once when one calls another, and only on the thread that is measured
            if self._within or threading.get_ident() != thread:
                return observe(*arguments, **named)
            self._within = True
            began = time.thread_time()
            try:
                return observe(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - began
                self._within = False

        return timed


def _nothing(*_arguments: object, **_named: object) -> None:
    pass


def consumer(environment: Mapping[str, str], expected: int) -> Costs:
    """Handle `expected` orders, every other batch without metrics."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    metrics, costs = _Metrics(), Costs()
    stop = threading.Event()
    done, last_cpu = 0, 0.0

    def committed(events: Sequence[object]) -> None:
        nonlocal done, last_cpu
        cpu = time.thread_time()
        is_on = done // BATCH % 2 == 0
        done += len(events)
        if last_cpu and len(events) == BATCH:
            costs.add(metrics, cpu - last_cpu, BATCH, on=is_on)
        if done >= expected:
            stop.set()
        metrics.switch(on=done // BATCH % 2 == 0)
        metrics.seconds = 0.0
        last_cpu = time.thread_time()

    timer = threading.Timer(MAX_SECONDS, stop.set)
    timer.start()
    run_until(stop, replace(build(settings), on_committed=committed))
    timer.cancel()
    metrics.restore()
    return costs


def relay(environment: Mapping[str, str]) -> Costs:
    """Publish what waits, every other cycle without metrics."""
    os.environ.update(environment)
    settings = PaymentSettings()
    logs.configure(settings.log_level, service="payment", client_id="benchmark")
    database = Database(settings)
    publisher = Relay("payment", settings, database)
    metrics, costs = _Metrics(), Costs()
    publisher.publish_once()  # connects
    is_on = True
    while True:
        metrics.switch(on=is_on)
        metrics.seconds = 0.0
        began = time.thread_time()
        published = publisher.publish_once()
        if not published:
            break
        costs.add(metrics, time.thread_time() - began, published, on=is_on)
        is_on = not is_on
    metrics.restore()
    database.close()
    return costs


def measure(arguments: argparse.Namespace) -> None:
    batches = 40 if arguments.quick else 240
    rounds = 1 if arguments.quick else 3
    consumed, published = Costs(), Costs()
    servers_spent: list[float] = []
    with servers() as own:
        topic_admin.create(topic_admin.admin_client(own.kafka.bootstrap_servers))
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
            before = sum(own.cpu_seconds().values())
            consumed.extend(in_child(consumer, environment, batches * BATCH))
            published.extend(in_child(relay, environment))
            servers_spent.append((sum(own.cpu_seconds().values()) - before) / (batches * BATCH))
    rows = [_row("payment's consumer", consumed), _row("its relay", published)]
    observing = median(consumed.observing) + median(published.observing)
    threads = median(consumed.complete) + median(published.complete)
    for name, cost in (
        ("both", threads),
        ("both, PostgreSQL and Kafka", threads + median(servers_spent)),
    ):
        rows.append([name, "", cost * 1e6, "", "", observing * 1e6, f"{observing / cost:.1%}"])
    table(
        f"Instrumentation's share of a message's CPU, batches of {BATCH}, medians",
        [
            "thread",
            "batches",
            "with, us",
            "without, us",
            "difference",
            "within metrics, us",
            "share",
        ],
        rows,
    )
    print(
        "'within metrics' is the time inside the calls that observe, clock readings included; the\n"
        "difference of batches with and without is as noisy as the machine."
    )


def _row(name: str, costs: Costs) -> list[object]:
    if not costs.complete or not costs.without:
        raise RuntimeError("too few full batches: run without --quick")
    complete, without = median(costs.complete), median(costs.without)
    observing = median(costs.observing)
    return [
        name,
        len(costs.complete) + len(costs.without),
        complete * 1e6,
        without * 1e6,
        f"{(complete - without) / complete:.1%}",
        observing * 1e6,
        f"{observing / complete:.1%}",
    ]


def main() -> int:
    return run("order_instrumentation", "Instrumentation's share of a message's cost.", measure)


if __name__ == "__main__":
    sys.exit(main())
