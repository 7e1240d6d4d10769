"""What one poll costs the monitor and the broker, and how it grows with the cluster.

The cluster has 1,000 topics x 10 partitions and 2,000 groups with 20,000 commits; every tenth group
lags on all of its partitions, and 200 groups have a live member. The monitor is `monitor serve`: it
asks, analyses and renders. *busy*: before each poll a tenth of the partitions got records and their
live groups committed; *quiet*: nothing happened. *spread*: the lag is one partition of each group
instead, the worst that 10 % can be. *incident*: every group lags on all of its partitions, each by
another number of records; before each poll a tenth of the partitions got records, and 200 groups
committed elsewhere. Every fourth poll also refreshes metadata and log start offsets,
as it does at the usual intervals of 15 and 60 s.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.monitor_load import (
    Commits,
    Coordinator,
    Membership,
    Monitor,
    beating,
    broker,
    create_topics,
    produce,
)
from benchmarks.support import cpu_seconds, median, run, say, table
from order_services.local.kafka import EmbeddedKafka

PARTITIONS: Final = 10
RECORDS: Final = 20
UNREAD: Final = 8
MORE_RECORDS: Final = 3  # per partition and busy poll
TOPICS: Final = 1_000
SIZES: Final = (TOPICS // 10, TOPICS // 3, TOPICS)
GROUPS_PER_TOPIC: Final = 2
COMMITS_PER_TOPIC: Final = GROUPS_PER_TOPIC * PARTITIONS
WARM_UP: Final = (
    11  # the first ten polls look closely at every group: they may all have just committed
)
REFRESH_EVERY: Final = 4  # polls
POLL_INTERVAL_S: Final = 2.0
# as 60 s and 300 s are to the usual 15 s; a little less, so that the fourth poll is never too early
INTERVALS: Final = {
    "MONITOR_METADATA_INTERVAL": str(POLL_INTERVAL_S * (REFRESH_EVERY - 0.5)),
    "MONITOR_START_OFFSETS_INTERVAL": str(POLL_INTERVAL_S * (REFRESH_EVERY - 0.5)),
    "MONITOR_TOPIC_CONFIGS_INTERVAL": str(POLL_INTERVAL_S * (5 * REFRESH_EVERY - 0.5)),
}


@dataclass
class Cluster:
    """A broker's topics and groups; `ends` is what was written to each partition of a topic."""

    kafka: EmbeddedKafka
    coordinator: Coordinator
    topics: int
    members: Mapping[str, Membership] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Return how many groups there are."""
        return self.topics * GROUPS_PER_TOPIC

    def topic_of(self, group: int) -> str:
        """Return the topic that a group reads."""
        return f"topic-{group % self.topics:04}"

    def fill(self) -> None:
        """Create topics, records, commits and members."""
        names = [self.topic_of(index) for index in range(self.topics)]
        say(f"creating {len(names):,} topics of {PARTITIONS} partitions")
        create_topics(self.kafka.bootstrap_servers, names, PARTITIONS)
        say(f"writing {len(names) * PARTITIONS * RECORDS:,} records")
        produce(self.kafka.bootstrap_servers, names, PARTITIONS, RECORDS)
        self.ends = dict.fromkeys(names, RECORDS)
        say(f"committing {self.groups * PARTITIONS:,} offsets of {self.groups:,} groups")
        # a group with members takes commits of members only
        live = {g: self.topic_of(g) for g in range(self.groups) if _is_live(g)}
        self.members = self.coordinator.join(
            {_name(g): topic for g, topic in live.items()}, PARTITIONS
        )
        self.commit(range(self.groups), _whole_groups)

    def commit(self, groups: Sequence[int], unread: Callable[[int, int], int]) -> None:
        """Commit the log ends of the groups' topics, less the records that `unread` says."""
        commits: dict[str, Commits] = {}
        for group in groups:
            topic = self.topic_of(group)
            end = self.ends[topic]
            commits[_name(group)] = {
                topic: {p: max(0, end - unread(group, p)) for p in range(PARTITIONS)}
            }
        self.coordinator.commit(commits, self.members)

    def go_on(self) -> None:
        """Write to a tenth of the topics, and commit of their groups those that are live."""
        self._write_and_commit(_whole_groups)

    def go_on_behind(self) -> None:
        """Write to a tenth of the topics; their live groups commit, all still behind."""
        dice = random.Random(self.ends[self.topic_of(0)])
        self._write_and_commit(lambda _group, _partition: dice.randint(1, RECORDS))

    def fall_behind(self) -> None:
        """Have every group lag on every partition."""
        dice = random.Random(0)
        self.commit(range(self.groups), lambda _group, _partition: dice.randint(1, RECORDS))

    def _write_and_commit(self, unread: Callable[[int, int], int]) -> None:
        live = [g for g in range(self.groups) if _is_live(g)]
        topics = sorted({self.topic_of(group) for group in live})
        produce(self.kafka.bootstrap_servers, topics, PARTITIONS, MORE_RECORDS)
        for topic in topics:
            self.ends[topic] += MORE_RECORDS
        self.commit(live, unread)


def _name(group: int) -> str:
    return f"group-{group:04}"


def _is_live(group: int) -> bool:
    return group % 20 in {0, 1}  # half of them lag


def _whole_groups(group: int, _partition: int) -> int:
    return UNREAD * (group % 10 == 0)


def _spread(group: int, partition: int) -> int:
    return UNREAD * ((group + partition) % 10 == 0)


@contextmanager
def cluster(topics: int) -> Iterator[Cluster]:
    """Start a broker and fill it."""
    with broker(heap_mb=1024, settings={"log.index.size.max.bytes": "65536"}) as kafka:
        coordinator = Coordinator(kafka.bootstrap_servers)
        try:
            filled = Cluster(kafka, coordinator, topics)
            filled.fill()
            with beating(kafka.bootstrap_servers, filled.members.values()):
                yield filled
        finally:
            coordinator.close()


@dataclass(frozen=True)
class Figures:
    """The polls of one run, the first one, and the broker's CPU seconds per poll."""

    first: dict[str, Any]
    plain: list[dict[str, Any]]
    refreshing: list[dict[str, Any]]
    broker_cpu_s: float

    @property
    def all(self) -> list[dict[str, Any]]:
        """Return all polls after the warm-up."""
        return [*self.plain, *self.refreshing]

    def middle(self, name: str) -> float:
        """Return the median over the polls that refresh nothing."""
        return median(float(poll[name]) for poll in self.plain)


def measure_polls(own: Cluster, polls: int, between: Callable[[], None]) -> Figures:
    """Have a fresh monitor poll; what the broker costs without polls is taken off."""
    pid = own.kafka.pid
    plain: list[dict[str, Any]] = []
    refreshing: list[dict[str, Any]] = []
    polling_s = polling_cpu = idle_s = idle_cpu = 0.0
    with Monitor(own.kafka.bootstrap_servers, INTERVALS) as monitor:
        first = monitor.poll()
        due = time.monotonic()
        for number in range(WARM_UP + polls):
            _progress(number + 1, WARM_UP + polls)
            between()
            before, began = cpu_seconds(pid), time.monotonic()
            due = max(due + POLL_INTERVAL_S, began)
            time.sleep(due - began)
            middle, told = cpu_seconds(pid), time.monotonic()
            figures = monitor.poll()
            if number < WARM_UP:
                continue
            after, ended = cpu_seconds(pid), time.monotonic()
            idle_s, idle_cpu = idle_s + told - began, idle_cpu + middle - before
            polling_s, polling_cpu = polling_s + ended - told, polling_cpu + after - middle
            (refreshing if "Metadata" in figures["requests"] else plain).append(figures)
    spent = polling_cpu - polling_s * idle_cpu / idle_s
    return Figures(first, plain, refreshing, spent / polls)


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  .. poll {done} of {of} ", end="" if done < of else "\n", file=sys.stderr)


def _requests(poll: Mapping[str, Any]) -> int:
    return sum(poll["requests"].values())


def measure(arguments: argparse.Namespace) -> None:
    polls = 8 if arguments.quick else 24
    sizes = arguments.topics or ([TOPICS // 10] if arguments.quick else list(SIZES))
    found: dict[tuple[int, str], Figures] = {}
    for topics in sizes:
        with cluster(topics) as own:
            for kind, between in (("busy", own.go_on), ("quiet", lambda: None)):
                say(f"{kind}: {WARM_UP} + {polls} polls")
                found[topics, kind] = measure_polls(own, polls, between)
            if topics == sizes[-1]:
                own.commit(range(own.groups), _spread)
                say(f"spread: {WARM_UP} + {polls} polls")
                found[topics, "spread"] = measure_polls(own, polls, lambda: None)
                own.fall_behind()
                say(f"incident: {WARM_UP} + {polls} polls")
                found[topics, "incident"] = measure_polls(own, polls, own.go_on_behind)
    _print(found, sizes)


def _print(found: Mapping[tuple[int, str], Figures], sizes: Sequence[int]) -> None:
    table(
        "Per poll; median of those that refresh nothing, in brackets of those that do. "
        "Broker: mean of all, less what it takes when nobody polls.",
        ["partitions, groups, commits", "", "requests", "CPU s", "wall s", "RSS MB", "highest RSS MB", "broker CPU s", "samples"],
        [
            [
                ", ".join(f"{topics * times:,}" for times in (PARTITIONS, GROUPS_PER_TOPIC, COMMITS_PER_TOPIC)),
                kind,
                f"{median(map(_requests, f.plain)):.0f} ({max(map(_requests, f.refreshing)):.0f})",
                f"{f.middle('cpu_s'):.3f} ({median(p['cpu_s'] for p in f.refreshing):.3f})",
                f"{f.middle('wall_s'):.3f} ({median(p['wall_s'] for p in f.refreshing):.3f})",
                max(p["memory"]["now"] for p in f.all),
                max(p["memory"]["highest"] for p in f.all),
                f.broker_cpu_s,
                f.all[-1]["samples"],
            ]
            for (topics, kind), f in found.items()
        ],
    )  # fmt: skip
    largest = sizes[-1]
    table(
        f"Where the CPU goes, seconds, {largest * PARTITIONS:,} partitions",
        ["", "collect", "ask for times", "analyse, render", "all"],
        [
            [
                f"{kind}, {which}",
                median(p["collect_cpu_s"] for p in those),
                median(p["times_cpu_s"] for p in those),
                median(p["cpu_s"] - p["collect_cpu_s"] - p["times_cpu_s"] for p in those),
                median(p["cpu_s"] for p in those),
            ]
            for (topics, kind), f in found.items()
            if topics == largest
            for which, those in (
                ("plain", f.plain), ("refreshing", f.refreshing), ("first", [f.first])
            )
        ],
    )  # fmt: skip
    for (topics, kind), figures in found.items():
        if topics == largest:
            print(f"\n{kind}: {figures.plain[-1]['requests']}, refreshing "
                  f"{figures.refreshing[-1]['requests']}, first poll {figures.first['requests']}")  # fmt: skip
    if len(sizes) > 1:
        table(
            "Growth: a tenth of the size is 1",
            ["busy", "size", "requests", "CPU", "wall", "RSS", "broker CPU"],
            [
                _growth(found[topics, "busy"], found[sizes[0], "busy"], topics, sizes[0])
                for topics in sizes
            ],
        )


def _growth(now: Figures, least: Figures, topics: int, smallest: int) -> list[object]:
    def memory(figures: Figures) -> float:
        return float(max(poll["memory"]["now"] for poll in figures.all))

    return [
        f"{topics * PARTITIONS:,} partitions",
        topics / smallest,
        median(map(_requests, now.plain)) / median(map(_requests, least.plain)),
        now.middle("cpu_s") / least.middle("cpu_s"),
        now.middle("wall_s") / least.middle("wall_s"),
        memory(now) / memory(least),
        now.broker_cpu_s / least.broker_cpu_s,
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topics", nargs="+", type=int, metavar="N", help="cluster sizes instead of 100, 333, 1000"
    )


if __name__ == "__main__":
    sys.exit(run("monitor_poll", __doc__ or "", measure, _options))
