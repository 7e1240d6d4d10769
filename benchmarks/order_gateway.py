"""How many orders a second one gateway accepts, and how long its answers take.

The load generator is a process of its own with connections that stay open and an Idempotency-Key
of its own for each order. The gateway's relay publishes all the while.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Final

from benchmarks import load
from benchmarks.shop import Shop, running
from benchmarks.support import in_child, percentile, run, say, servers, table

CONNECTIONS: Final = 64


def measure(arguments: argparse.Namespace) -> None:
    seconds = 5.0 if arguments.quick else 20.0
    rows = []
    with servers() as own, running(own, ["gateway"]) as shop:
        port = shop.gateway_port
        say("warming up")
        in_child(load.as_fast_as_answered, port, CONNECTIONS, 3.0)
        name, pace = "at this rate", arguments.rate
        if pace is None:
            say(f"at the limit, {seconds:.0f} s")
            row, limit = _row(
                shop,
                "at the limit",
                lambda: in_child(load.as_fast_as_answered, port, CONNECTIONS, seconds),
            )
            rows.append(row)
            name, pace = "at half", limit / 2
        say(f"{name}, {pace:,.0f} orders/s, {seconds:.0f} s")
        row, _ = _row(shop, name, lambda: in_child(load.at_rate, port, CONNECTIONS, pace, seconds))
        rows.append(row)
    table(
        f"One gateway, {CONNECTIONS} connections, durable before each answer",
        [
            "load",
            "accepted/s",
            "refused",
            "p50 ms",
            "p99 ms",
            "gateway CPU us",
            "PostgreSQL us",
            "Kafka us",
        ],
        rows,
    )
    print("CPU is per order, relay included. At half, latency counts from when an order was due.")


def _row(shop: Shop, name: str, send: Callable[[], load.Load]) -> tuple[list[object], float]:
    before = shop.cpu_seconds()
    done = send()
    after = shop.cpu_seconds()
    if not done.accepted:
        raise RuntimeError("the gateway accepted nothing")
    rate = done.accepted / done.seconds
    spent = [
        (after[each] - before[each]) / done.accepted * 1e6
        for each in ("gateway", "PostgreSQL", "Kafka")
    ]
    times = [percentile(done.latencies, percent) * 1000 for percent in (50, 99)]
    return [name, rate, done.refused, *times, *spent], rate


def main() -> int:
    return run("order_gateway", "One gateway, in accepted orders a second.", measure, options)


def options(parser: argparse.ArgumentParser) -> None:
    """Take what is this benchmark's own."""
    parser.add_argument("--rate", type=float, help="so many orders a second and nothing else")


if __name__ == "__main__":
    sys.exit(main())
