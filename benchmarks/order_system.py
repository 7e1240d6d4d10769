"""The whole system on this machine, from accepting an order to dispatching it.

Five services, one process each, as `order-services up` starts them, relays on. A shipment is
dispatched without the pause in which a customer may still cancel
(SHIPPING_DISPATCH_DELAY_SECONDS=0), which is a rule of the shop and no work. The limit is what comes
out when more goes in: all accepted orders, over the time until the last of them is dispatched.
Latency is measured by the database: from the order's own time to the commit of its dispatch.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from benchmarks import load
from benchmarks.shop import DATABASE, running
from benchmarks.support import in_child, percentile, run, say, servers, table

CONNECTIONS: Final = 64  # with 32 the gateway waits for its clients a tenth of the time
MAX_DRAIN_SECONDS: Final = 300.0
SETTINGS: Final = {"SHIPPING_DISPATCH_DELAY_SECONDS": "0"}

_DISPATCHED: Final = """
    SELECT extract(epoch FROM o.created_at)::float8,
           extract(epoch FROM pg_xact_commit_timestamp(d.xmin))::float8
    FROM order_decisions d JOIN orders o USING (order_id)
    WHERE d.decision = 'dispatched' AND o.created_at >= to_timestamp(%s)
"""
_COUNT: Final = "SELECT count(*) FROM order_decisions WHERE decision = 'dispatched'"


def measure(arguments: argparse.Namespace) -> None:
    seconds = 5.0 if arguments.quick else 20.0
    paced_seconds = 8.0 if arguments.quick else 40.0
    with (
        # commits remember their time: latency is not measured by asking again and again
        servers(postgres={"track_commit_timestamp": "on"}) as own,
        running(own, settings=SETTINGS) as shop,
    ):
        database = own.postgres.connect(DATABASE)
        cursor = database.cursor()

        def dispatched() -> int:
            cursor.execute(_COUNT)
            row = cursor.fetchone()
            return int(row[0]) if row else 0

        def wait_for(count: int) -> None:
            deadline = time.monotonic() + MAX_DRAIN_SECONDS
            while (done := dispatched()) < count:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"only {done} of {count} orders were dispatched")
                time.sleep(0.25)

        say("warming up")
        total = in_child(load.as_fast_as_answered, shop.gateway_port, CONNECTIONS, 3.0).accepted
        wait_for(total)
        rows, shares = [], {}
        limit = arguments.rate or 0.0
        phases = ("at this rate",) if arguments.rate else ("at the limit", "at half")
        for name in phases:
            pace = arguments.rate or limit / 2
            say(f"{name}{f', {pace:,.0f} orders/s' if pace else ''}")
            began, before = time.time(), shop.cpu_seconds()
            if pace:
                sent = in_child(load.at_rate, shop.gateway_port, CONNECTIONS, pace, paced_seconds)
            else:
                sent = in_child(load.as_fast_as_answered, shop.gateway_port, CONNECTIONS, seconds)
            total += sent.accepted
            wait_for(total)
            after = shop.cpu_seconds()
            cursor.execute(_DISPATCHED, (began,))
            times = cursor.fetchall()
            rate = len(times) / (max(end for _, end in times) - min(start for start, _ in times))
            limit = limit or rate
            waits = [end - start for start, end in times]
            spent = {each: (after[each] - before[each]) / len(times) * 1e6 for each in after}
            shares[name] = spent | {"load generator": sent.cpu_seconds / len(times) * 1e6}
            rows.append(
                [
                    name,
                    sent.accepted,
                    sent.refused,
                    sent.accepted / sent.seconds,
                    rate,
                    percentile(waits, 50),
                    percentile(waits, 99),
                    sum(spent.values()) / 1000,
                    2e6 / sum(spent.values()),
                ]
            )
        database.close()
    table(
        "The whole system, accepted to dispatched (SHIPPING_DISPATCH_DELAY_SECONDS=0)",
        [
            "load",
            "orders",
            "refused",
            "accepted/s",
            "dispatched/s",
            "p50 s",
            "p99 s",
            "CPU ms/order",
            "2 cores carry/s",
        ],
        rows,
    )
    table(
        "CPU microseconds per order",
        ["load", *shares[phases[-1]]],
        [[name, *spent.values()] for name, spent in shares.items()],
    )
    print(
        "'2 cores carry' is what two undisturbed cores could do at that cost, the load generator,\n"
        "which shares them, left out; at the limit orders wait in Kafka, so only the latency at half\n"
        "says anything."
    )


def main() -> int:
    return run("order_system", "The whole system, accepted to dispatched.", measure, options)


def options(parser: argparse.ArgumentParser) -> None:
    """Take what is this benchmark's own."""
    parser.add_argument(
        "--rate",
        type=float,
        help="so many orders a second and nothing else: what two versions are compared at, as an "
        "order's cost hangs on how many share a batch",
    )


if __name__ == "__main__":
    sys.exit(main())
