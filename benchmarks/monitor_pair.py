"""What a poll costs two versions of the monitor that poll the same cluster in turn.

`--code DIR` is the working tree of the other version, with its environment in `.venv`. The cluster is the
stand-in of monitor_large; kinds are those of monitor_poll. Each poll of one version is followed by one of
the other, and who is first changes: what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.monitor_large import INTERVALS, WARM_UP, brokers
from benchmarks.monitor_load import Monitor
from benchmarks.support import median, run, say, table

TOPICS: Final = 1_000
KINDS: Final = ("busy", "quiet", "incident")


def measure(arguments: argparse.Namespace) -> None:
    polls = 6 if arguments.quick else 16
    table(
        f"Per poll: {arguments.topics:,} topics, median of {polls}; ratio to the other version's, "
        "and that of each pair",
        ["", "CPU s, other", "this", "ratio", "of pairs", "RSS MB, other", "this", "samples, other", "this"],
        [_pairs(kind, arguments.topics, polls, arguments.code) for kind in arguments.kinds],
    )  # fmt: skip


def _pairs(kind: str, topics: int, polls: int, code: Path) -> list[Any]:
    options = ("behind",) if kind == "incident" else ()
    with (
        brokers(topics, *options) as (address, go_on),
        Monitor(address, INTERVALS, code=code) as other,
        Monitor(address, INTERVALS) as this,
    ):
        say(f"{kind}: the first poll, {WARM_UP} + {polls} polls")
        found: dict[Monitor, list[dict[str, Any]]] = {other: [], this: []}
        for number in range(1 + WARM_UP + polls):
            if kind != "quiet":
                go_on()
            for monitor in (other, this) if number % 2 else (this, other):
                found[monitor].append(monitor.poll())
    before, now = found[other][-polls:], found[this][-polls:]
    ratios = [b["cpu_s"] / a["cpu_s"] for a, b in zip(before, now, strict=True)]
    middle = [median(poll["cpu_s"] for poll in of) for of in (before, now)]
    return [
        kind,
        *middle,
        middle[1] / middle[0],
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        *(max(poll["memory"]["now"] for poll in of) for of in (before, now)),
        *(of[-1]["samples"] for of in (before, now)),
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--code", type=Path, required=True, metavar="DIR", help="the other version")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--topics", type=int, default=TOPICS, metavar="N")


if __name__ == "__main__":
    sys.exit(run("monitor_pair", __doc__ or "", measure, _options))
