"""What one poll costs on a cluster of 100,000 partitions, 20,000 groups and 200,000 commits.

The cluster is a stand-in in a process of its own (benchmarks/stub_brokers.py): three brokers that
answer the questions of a monitor from memory. The monitor is `monitor serve`: it asks, analyses and
renders. As in monitor_poll every tenth group lags on all of its partitions, and a twentieth of the
groups has a live member. *busy*: before each poll a tenth of the topics got records and their live
groups committed; *quiet*: nothing happened.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.monitor_load import Monitor
from benchmarks.support import median, run, say, table

TOPICS: Final = 10_000
PARTITIONS: Final = 10
GROUPS_PER_TOPIC: Final = 2
WARM_UP: Final = 11  # as in monitor_poll: the first ten look closely at every group
# what is refreshed rarely is so in some of the polls, as at the usual intervals
INTERVALS: Final = {
    "MONITOR_METADATA_INTERVAL": "60",
    "MONITOR_START_OFFSETS_INTERVAL": "60",
    "MONITOR_REQUEST_TIMEOUT": "60",  # the stand-in may take long to make an answer, once
}


@contextmanager
def brokers(topics: int, *options: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Start the stand-in; yield its address, and what has it go on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stub_brokers", str(topics), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the benchmark
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = process.stdout.readline().split()
        if not ports:
            raise RuntimeError("the stand-in for the brokers did not start")
        write, read = process.stdin, process.stdout

        def go_on() -> None:
            write.write("\n")
            write.flush()
            read.readline()

        yield ",".join(f"127.0.0.1:{port}" for port in ports), go_on
    finally:
        process.kill()
        process.communicate()


def measure(arguments: argparse.Namespace) -> None:
    topics = arguments.topics or (TOPICS // 10 if arguments.quick else TOPICS)
    polls = 6 if arguments.quick else 16
    rows: list[list[Any]] = []
    for kind in ("busy", "quiet"):
        with brokers(topics) as (address, go_on), Monitor(address, INTERVALS) as monitor:
            say(f"{kind}: the first poll")
            first = monitor.poll()
            say(f"{kind}: {WARM_UP} + {polls} polls")
            found = []
            for _ in range(WARM_UP + polls):
                if kind == "busy":
                    go_on()
                found.append(monitor.poll())
        rows.append(_row(f"{kind}, first", [first]))
        rows.append(_row(kind, found[WARM_UP:]))
    table(
        f"Per poll, median: {topics * PARTITIONS:,} partitions, {topics * GROUPS_PER_TOPIC:,} groups, "
        f"{topics * PARTITIONS * GROUPS_PER_TOPIC:,} commits on a stand-in for brokers",
        ["", "requests", "CPU s", "collect", "ask for times", "analyse, render", "wall s", "RSS MB",
         "highest RSS MB", "samples"],
        rows,
    )  # fmt: skip


def _row(kind: str, polls: list[dict[str, Any]]) -> list[Any]:
    def middle(name: str) -> float:
        return median(float(poll[name]) for poll in polls)

    rest = median(p["cpu_s"] - p["collect_cpu_s"] - p["times_cpu_s"] for p in polls)
    return [
        kind,
        f"{median(sum(poll['requests'].values()) for poll in polls):.0f}",
        middle("cpu_s"),
        middle("collect_cpu_s"),
        middle("times_cpu_s"),
        rest,
        middle("wall_s"),
        max(poll["memory"]["now"] for poll in polls),
        max(poll["memory"]["highest"] for poll in polls),
        polls[-1]["samples"],
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topics", type=int, metavar="N", help=f"instead of {TOPICS:,}")


if __name__ == "__main__":
    sys.exit(run("monitor_large", __doc__ or "", measure, _options))
