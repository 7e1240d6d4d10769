"""What analysis and rendering cost the monitor, without a broker: one process, memory only.

The cluster is that of `monitor_poll`: 1,000 topics x 10 partitions, 2,000 groups with 20,000 commits,
200 of them with a member. *quiet*: a tenth lags, nothing happens. *busy*: and before each poll a tenth
of the partitions got records, and 200 groups committed. *standing*: every group lags, each partition by
another number of records, and nothing happens. *incident*: every group lags, and as much happens as
when it is busy. *fleet*: as busy, but the groups that commit are other ones before each poll.
`--history` measures each kind twice, one after the other: as it is, and with each poll kept in a SQLite file, as
`monitor serve` does. What waits to be written counts in full, although a poll does not wait for it.
`--code DIR` measures the monitor of another working tree, so that two are compared in pairs of runs.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

if "--code" in sys.argv:
    sys.path.insert(0, sys.argv[sys.argv.index("--code") + 1])

from benchmarks.support import median, run, table
from monitor.history.recorder import Recorder
from monitor.history.store import Store
from monitor.model import (
    Broker,
    Group,
    LogLook,
    Member,
    Offsets,
    Partition,
    Snapshot,
    Topic,
    TopicConfig,
)
from monitor.poller import Poller

PARTITIONS: Final = 10
GROUPS_PER_TOPIC: Final = 2
RECORDS: Final = 20
UNREAD: Final = 8
MORE_RECORDS: Final = 3
POLL_S: Final = 15.0
WEEK_MS: Final = 7 * 86_400_000
WARM_UP: Final = 12  # the first ten polls look closely at every group
WALL: Final = 1_800_000_000.0


class Cluster:
    """What a collector would bring home; `poll` answers as the collector does, objects kept."""

    def __init__(self, topics: int, kind: str) -> None:
        self.kind = kind
        self.now = 1_000.0
        self.dice = random.Random(0)
        self.topics = [f"topic-{n:04}" for n in range(topics)]
        self.ends = {name: dict.fromkeys(range(PARTITIONS), RECORDS) for name in self.topics}
        self.starts = {name: dict.fromkeys(range(PARTITIONS), 0) for name in self.topics}
        partition = Partition(1, (1,), (1,))
        self.metadata = {
            name: Topic(name, dict.fromkeys(range(PARTITIONS), partition), id=name)
            for name in self.topics
        }
        self.configs = dict.fromkeys(self.topics, TopicConfig(WEEK_MS, -1, frozenset({"delete"})))
        self.appended: dict[str, list[tuple[int, float]]] = {
            name: [(0, self.now - 500.0)] for name in self.topics
        }
        behind = kind in {"standing", "incident"}
        self.groups = {
            f"group-{n:04}": self._group(n, self.topics[n % topics], behind=behind)
            for n in range(topics * GROUPS_PER_TOPIC)
        }
        self.own_s = 0.0  # what the model itself costs
        self.polls = 0

    def _group(self, number: int, topic: str, *, behind: bool) -> Group:
        commits = {
            p: RECORDS - (self.dice.randint(1, RECORDS) if behind else UNREAD * (number % 10 == 0))
            for p in range(PARTITIONS)
        }
        member = Member("m", "client", "/host", {topic: tuple(range(PARTITIONS))})
        return Group(
            f"group-{number:04}",
            state="Stable" if _is_live(number) else "Empty",
            protocol_type="consumer",
            assignor="range" if _is_live(number) else None,
            coordinator=1,
            members=(member,) if _is_live(number) else (),
            commits={topic: commits},
        )

    def _go_on(self) -> None:
        if self.kind in {"quiet", "standing"}:
            return
        live = [n for n in range(len(self.groups)) if _is_live(n)]
        if self.kind == "fleet":
            live = [(n + 2 * self.polls) % len(self.groups) for n in live]
        for topic in {self.topics[n % len(self.topics)] for n in live}:
            self.appended[topic].append((self.ends[topic][0], self.now + WALL))
            self.ends = {
                **self.ends, topic: {p: end + MORE_RECORDS for p, end in self.ends[topic].items()}
            }  # fmt: skip
        for number in live:
            name, topic = f"group-{number:04}", self.topics[number % len(self.topics)]
            left = self.dice.randint(1, RECORDS) if self.kind == "incident" else 0
            ends = self.ends[topic]
            unread = left or UNREAD * (number % 10 == 0)
            commits = {topic: {p: max(0, end - unread) for p, end in ends.items()}}
            self.groups[name] = _with(self.groups[name], commits)

    def poll(self) -> Snapshot:
        """Return a snapshot after what happens between two polls."""
        began = time.process_time()
        self.now += POLL_S
        self.polls += 1
        self._go_on()
        snapshot = Snapshot(
            "cluster",
            taken_at=self.now + WALL,
            monotonic_at=self.now,
            brokers={1: Broker(1, "localhost", 9092)},
            topics=self.metadata,
            start_offsets=Offsets(self.starts, self.now),
            end_offsets=Offsets(self.ends, self.now),
            groups={name: _with(group, group.commits) for name, group in self.groups.items()},
            requests={"ListOffsets": 1},
            topic_configs=self.configs,
        )
        self.own_s += time.process_time() - began
        return snapshot

    def offsets_for_times(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """Answer as a broker does, off the clock."""
        began = time.process_time()
        found: dict[str, dict[int, tuple[int, int]]] = {}
        for topic, times in wanted.items():
            appended = self.appended[topic]
            of = found[topic] = {}
            for partition, milliseconds in times.items():
                of[partition] = next(
                    (
                        (offset, int((at if at > WALL else at + WALL) * 1000))
                        for offset, at in appended
                        if (at if at > WALL else at + WALL) * 1000 >= milliseconds
                    ),
                    (-1, -1),
                )
        self.own_s += time.process_time() - began
        return found

    def look_at_logs(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> Mapping[str, Mapping[int, LogLook]]:
        """Say that every record can be read."""
        began = time.process_time()
        found = {
            topic: {p: LogLook(at, at, self.ends[topic][p]) for p, at in of.items()}
            for topic, of in wanted.items()
        }
        self.own_s += time.process_time() - began
        return found

    def take_request_counts(self) -> Mapping[str, int]:
        """Return nothing: what is asked for times is not counted here."""
        return {}


def _with(group: Group, commits: Mapping[str, Mapping[int, int]]) -> Group:
    # a new object, as each poll's
    return Group(
        group.id, group.type, group.state, group.protocol_type, group.assignor, group.coordinator,
        group.members, commits,
    )  # fmt: skip


def _is_live(number: int) -> bool:
    return number % 20 in {0, 1}


def _kept_in(folder: Path) -> Recorder:
    """Return a recorder that has begun."""
    recorder = Recorder(Store(f"sqlite:///{folder / 'history.sqlite'}"), patience_s=45)
    recorder.start()
    return recorder


def _measure(kind: str, topics: int, polls: int, folder: Path | None) -> list[Any]:
    source = Cluster(topics, kind)
    recorder = None if folder is None else _kept_in(folder)
    named: dict[str, Any] = {}  # of another tree's, which may not know them
    if recorder:
        named = {
            "keeper": recorder,
            "published": lambda: recorder.record(poller.latest.state),
        }
    poller: Poller = Poller(source, stale_after_s=45.0, clock=lambda: source.now + WALL,
                    monotonic=lambda: source.now, **named)  # fmt: skip
    spent: list[float] = []
    for number in range(WARM_UP + polls):
        gc.collect()
        source.own_s = 0.0
        began = time.process_time()
        poller.poll()
        while recorder and not recorder.is_written:
            time.sleep(0.002)
        if number >= WARM_UP:
            spent.append((time.process_time() - began - source.own_s) * 1000)
    if recorder:
        recorder.stop()
    page: Any = poller.page()
    lines = page.plain.splitlines()
    return [
        kind,
        median(spent),
        min(spent),
        max(spent),
        sum(not line.startswith(b"#") for line in lines),
    ]


def measure(arguments: argparse.Namespace) -> None:
    topics, polls = (100, 6) if arguments.quick else (1_000, 15)
    cluster = f"{topics * PARTITIONS:,} partitions, {topics * GROUPS_PER_TOPIC:,} groups"
    if arguments.history:
        _measure_history(arguments.kinds, topics, polls, cluster)
        return
    table(
        f"Analysis and rendering of a poll, {cluster}: CPU ms",
        ["", "median", "least", "most", "samples"],
        [_measure(kind, topics, polls, None) for kind in arguments.kinds],
    )


def _measure_history(kinds: Sequence[str], topics: int, polls: int, cluster: str) -> None:
    rows = []
    for kind in kinds:
        _, without, *_ = _measure(kind, topics, polls, None)
        with TemporaryDirectory() as folder:
            _, kept, *_ = _measure(kind, topics, polls, Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        rows.append([kind, without, kept, kept - without, size / (WARM_UP + polls) / 1_000])
    table(
        f"A poll without and with a history in SQLite, {cluster}: median CPU ms, kB a poll",
        ["", "without", "with", "history", "kB"],
        rows,
    )


def _options(parser: argparse.ArgumentParser) -> None:
    kinds = ["quiet", "busy", "fleet", "standing", "incident"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument(
        "--history", action="store_true", help="what it costs to keep what polls find"
    )
    parser.add_argument("--code", type=Path, metavar="DIR", help="another working tree's monitor")


if __name__ == "__main__":
    sys.exit(run("monitor_analysis", __doc__ or "", measure, _options))
