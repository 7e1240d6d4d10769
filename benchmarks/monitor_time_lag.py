"""How far lag in seconds is from the truth, over eight workloads on a real broker.

All workloads run side by side, each on a topic of its own, watched by the monitor with a poll every
15 s. Two groups read each topic: a *near* one some seconds behind, and a *far* one that starts from
the beginning and follows a minute behind. At each poll a second monitor is started afresh: what its
first poll says is the workload "monitor restarted", and of the other topics a line of its own.

The truth is the broker's log files: the timestamp (CreateTime, and of a transaction's marker the
broker's) of the first record at or after the committed offset, against the time at which the poll
saw the log ends. Polls at which nothing was unread must say 0 and are not in the percentiles.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer
from kafka.record.memory_records import MemoryRecords

from benchmarks.monitor_load import Coordinator, Monitor, broker, create_topics
from benchmarks.support import median, percentile, run, say, table
from order_services.local.kafka import EmbeddedKafka

POLL_INTERVAL_S: Final = 15.0
TICK_S: Final = 0.05
PARTITIONS: Final = 2
FRESH_LEAD_S: Final = 5.0  # how long before a poll the fresh monitor is started
FAR_S: Final = 60.0
IDLE_RECORDS: Final = 200
IDLE_AFTER_S: Final = 8.0
TRICKLE_EVERY_S: Final = 12.0
BURST_RECORDS: Final = 1_500
TRANSACTION_RECORDS_PER_S: Final = 10.0
ABORTED: Final = 0.2
KEYS: Final = 40
SEED: Final = 4
LOG_READINGS: Final = 100

RESTARTED: Final = "restarted"
COMPACTED: Final = "compacted"
TRANSACTIONAL: Final = "transactional"
WORKLOADS: Final = (
    "steady",
    "burst",
    "stall",
    "trickle",
    "idle",
    RESTARTED,
    COMPACTED,
    TRANSACTIONAL,
)
TOPIC_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    COMPACTED: {
        "cleanup.policy": "compact",
        "segment.ms": "8000",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "8000",
    }
}
BROKER_SETTINGS: Final = {"log.cleaner.backoff.ms": "1000"}

TopicPartition = tuple[str, int]
Times = tuple[Sequence[int], Sequence[int]]
"""Offsets, ascending, and each record's time in milliseconds."""


@dataclass
class Written:
    """What was written to one partition, as the delivery reports tell: offsets and times."""

    offsets: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def position_at(self, time_s: float) -> int:
        """Return the position of a consumer that has read all that was written by then."""
        read = bisect_left(self.times, time_s)
        return self.offsets[read - 1] + 1 if read else 0


class Workloads:
    """Writes each workload's records, a tick at a time."""

    def __init__(self, bootstrap_servers: str, chosen: Collection[str]) -> None:
        self._chosen = chosen
        common = {"bootstrap.servers": bootstrap_servers, "linger.ms": 5}
        self._plain = Producer(common)
        # on a loaded machine a poll can outlast the usual minute, and the broker fences the producer
        self._transactional = Producer(
            {**common, "transactional.id": "benchmark", "transaction.timeout.ms": 600_000}
        )
        self._transactional.init_transactions(30)
        self._transaction_ends_at = 0.0
        self._random = random.Random(SEED)
        self._next_burst: dict[TopicPartition, float] = {}
        self._next_record: dict[TopicPartition, float] = {}
        self._idle_written: defaultdict[int, int] = defaultdict(int)
        self.written: defaultdict[TopicPartition, Written] = defaultdict(Written)

    def tick(self, now: float, passed: float) -> None:
        """Write what is due; `passed` is the time since the last tick."""
        for partition in range(PARTITIONS):
            for topic, count in (
                ("steady", self._some(40.0 * passed)),
                ("burst", self._burst("burst", partition, now, 15.0, 40.0)),
                ("stall", self._some(20.0 * passed)),
                ("trickle", self._trickled(partition, now)),
                ("idle", self._until_idle(partition, passed)),
                (
                    RESTARTED,
                    self._some(5.0 * passed) + self._burst(RESTARTED, partition, now, 10.0, 30.0),
                ),
                (COMPACTED, self._some(20.0 * passed)),
            ):
                for _ in range(count if topic in self._chosen else 0):
                    key = f"key-{self._random.randrange(KEYS)}"
                    self._write(self._plain, topic, partition, key)
        self._plain.poll(0)
        if TRANSACTIONAL in self._chosen:
            self._transact(now, passed)

    def _transact(self, now: float, passed: float) -> None:
        producer = self._transactional
        if not self._transaction_ends_at:
            producer.begin_transaction()
            self._transaction_ends_at = now + self._random.uniform(0.5, 6.0)
        for partition in range(PARTITIONS):
            for _ in range(self._some(TRANSACTION_RECORDS_PER_S * passed)):
                self._write(producer, TRANSACTIONAL, partition, "key")
        producer.poll(0)
        if now >= self._transaction_ends_at:
            self._transaction_ends_at = 0.0
            if self._random.random() < ABORTED:
                producer.flush(5)  # else the records would not be written at all
                producer.abort_transaction(5)
            else:
                producer.commit_transaction(5)

    def close(self) -> None:
        """Write out what is left."""
        self._plain.flush(10)
        if self._transaction_ends_at:
            self._transactional.abort_transaction(10)

    def _write(self, producer: Producer, topic: str, partition: int, key: str) -> None:
        producer.produce(topic, b"a record", key, partition=partition, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            written = self.written[message.topic() or "", message.partition() or 0]
            written.offsets.append(message.offset() or 0)
            written.times.append(message.timestamp()[1] / 1_000)

    def _some(self, expected: float) -> int:
        """Return a number of records at random, as often as expected."""
        return int(expected) + (self._random.random() < expected % 1)

    def _burst(self, topic: str, partition: int, now: float, least: float, most: float) -> int:
        due = self._next_burst.setdefault((topic, partition), now)
        if now < due:
            return 0
        self._next_burst[topic, partition] = now + self._random.uniform(least, most)
        return BURST_RECORDS

    def _trickled(self, partition: int, now: float) -> int:
        due = self._next_record.setdefault(("trickle", partition), now)
        if now < due:
            return 0
        pause = self._random.expovariate(1 / TRICKLE_EVERY_S)
        self._next_record["trickle", partition] = now + pause
        return 1

    def _until_idle(self, partition: int, passed: float) -> int:
        left = IDLE_RECORDS - self._idle_written[partition]
        count = min(left, self._some(IDLE_RECORDS / IDLE_AFTER_S * passed))
        self._idle_written[partition] += count
        return count


class Readers:
    """Commits what a near and a far group would have read of each topic."""

    def __init__(
        self, coordinator: Coordinator, chosen: Collection[str], started: float, lasting: float
    ) -> None:
        self._coordinator, self._chosen = coordinator, chosen
        self._started, self._lasting = started, lasting
        self._random = random.Random(SEED + 1)
        self._due: dict[str, float] = {}

    def tick(self, now: float, written: Mapping[TopicPartition, Written]) -> None:
        """Commit what is due."""
        commits = {}
        for topic in self._chosen:
            for group in (f"{topic}-near", f"{topic}-far"):
                if now < self._due.get(group, 0.0):
                    continue
                self._due[group] = now + self._random.uniform(1.0, 5.0)
                read_up_to = self._read_up_to(group, topic, now)
                if read_up_to is None:
                    continue
                commits[group] = {
                    topic: {
                        partition: self._position(
                            written.get((topic, partition)), group, read_up_to
                        )
                        for partition in range(PARTITIONS)
                    }
                }
        if commits:
            self._coordinator.commit(commits)

    def _read_up_to(self, group: str, topic: str, now: float) -> float | None:
        """Return up to which time the group has read, None when it stands still."""
        since = now - self._started
        if topic == "stall" and since > self._lasting / 4:
            if group.endswith("near"):
                return None
            stands_until = self._lasting / 2
            if since < stands_until:
                return None
            # then reads three times as fast as is written
            return min(now, self._started + self._lasting / 4 + 3 * (since - stands_until))
        if topic == "idle":
            return now
        if group.endswith("far"):
            return now - FAR_S
        return now - self._random.uniform(0.0, 8.0)

    def _position(self, written: Written | None, group: str, read_up_to: float) -> int:
        position = written.position_at(read_up_to) if written else 0
        if group == "idle-near":
            return min(position, IDLE_RECORDS // 2)  # the rest stays unread
        return position


@dataclass(frozen=True)
class Sample:
    """What one poll said of a lagging partition; `truth` in seconds, `seconds` None for unknown."""

    fresh: bool
    group: str
    topic: str
    partition: int
    committed: int
    seen_at: float
    seconds: float | None
    unread: int


def log_of(data_dir: Path, topic: str, partition: int) -> Times:
    """Return offset and timestamp of each record and marker in a partition's log files."""
    directory = data_dir / "log" / f"{topic}-{partition}"
    for _ in range(LOG_READINGS):
        before = _segments(directory)
        found: dict[int, int] = {}
        for path in before:
            with contextlib.suppress(FileNotFoundError):  # compaction replaced it
                records = MemoryRecords(path.read_bytes())
                while (batch := records.next_batch()) is not None:
                    found.update((record.offset, record.timestamp) for record in batch)
        # while the cleaner swaps segments, some are missing or there twice
        if before == _segments(directory) and not any(directory.glob("*.swap")):
            offsets = sorted(found)
            return offsets, [found[offset] for offset in offsets]
        time.sleep(0.01)
    raise RuntimeError(f"the log of {topic}-{partition} does not stand still")


def _segments(directory: Path) -> dict[Path, int]:
    """Return the segments and which file each is: compaction writes a new one of the same name."""
    found = {}
    for path in sorted(directory.glob("*.log")):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_ino
    return found


def truth_of(sample: Sample, logs: Iterable[Times]) -> list[float]:
    """Return the lag in seconds by each reading of the log; 0 when nothing was unread."""
    found = []
    for offsets, times in logs:
        at = bisect_left(offsets, sample.committed)
        unread = at < len(offsets) and sample.unread
        found.append(sample.seen_at - times[at] / 1_000 if unread else 0.0)
    return found


def compacted_logs(kafka: EmbeddedKafka) -> dict[int, Times]:
    """Return the compacted topic's logs as they are now: later, records will be gone."""
    return {p: log_of(kafka.data_dir, COMPACTED, p) for p in range(PARTITIONS)}


@dataclass
class Polls:
    """All samples, the logs of the compacted topic around each poll, and the questions asked."""

    samples: list[Sample] = field(default_factory=list)
    compacted: dict[float, list[dict[int, Times]]] = field(default_factory=dict)
    questions: defaultdict[bool, list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, answer: Mapping[str, Any], *, fresh: bool, logs: list[dict[int, Times]]) -> None:
        """Note what one poll said."""
        seen_at = answer["seen_at"]
        self.questions[fresh].append(answer["time_questions"])
        self.compacted[seen_at] = logs
        for group, topic, partition, committed, unread, seconds in answer["lags"]:
            if topic in WORKLOADS:
                self.samples.append(
                    Sample(fresh, group, topic, partition, committed, seen_at, seconds, unread)
                )


def watch(kafka: EmbeddedKafka, chosen: Collection[str], lasting: float) -> Polls:
    """Run the workloads, and poll them every 15 s with an old and a fresh monitor."""
    for topic in chosen:
        create_topics(kafka.bootstrap_servers, [topic], PARTITIONS, TOPIC_SETTINGS.get(topic))
    polls = Polls()
    with contextlib.ExitStack() as stack:
        coordinator = Coordinator(kafka.bootstrap_servers)
        stack.callback(coordinator.close)
        old = stack.enter_context(Monitor(kafka.bootstrap_servers))
        workloads = Workloads(kafka.bootstrap_servers, chosen)
        started = time.time()
        run_for = _Ticks(workloads, Readers(coordinator, chosen, started, lasting))
        for number in range(1, int(lasting / POLL_INTERVAL_S) + 1):
            due = started + number * POLL_INTERVAL_S
            run_for.until(due - FRESH_LEAD_S)
            with Monitor(kafka.bootstrap_servers) as fresh:
                run_for.until(due)
                before = compacted_logs(kafka)
                old.ask(lags=True)
                fresh.ask(lags=True)
                answers = [(old.answer(), False), (fresh.answer(), True)]
                logs = [before, compacted_logs(kafka)]
            for answer, is_fresh in answers:
                polls.take(answer, fresh=is_fresh, logs=logs)
            say(f"poll {number} of {int(lasting / POLL_INTERVAL_S)}: {len(polls.samples)} figures")
        workloads.close()
    return polls


class _Ticks:
    """Writes and reads on, in this thread."""

    def __init__(self, workloads: Workloads, readers: Readers) -> None:
        self._workloads, self._readers = workloads, readers
        self._last = time.time()

    def until(self, end: float) -> None:
        while (now := time.time()) < end:
            self._workloads.tick(now, now - self._last)
            self._last = now
            self._readers.tick(now, self._workloads.written)
            time.sleep(max(0.0, min(now + TICK_S, end) - time.time()))


@dataclass
class Errors:
    """What is wrong by how much in one workload; seconds."""

    errors: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    unknown: int = 0
    nothing_unread: int = 0
    wrong_zero: int = 0
    worst: str = ""
    unanswered: str = ""

    def add(self, sample: Sample, truths: Sequence[float]) -> None:
        """Count one figure; where the log changed during the poll, the nearer reading holds."""
        if not sample.unread:
            self.nothing_unread += 1
            self.wrong_zero += sample.seconds != 0
        elif sample.seconds is None:
            self.unknown += 1
            self.unanswered = f"{sample.group}-{sample.partition}, is {truths[-1]:.2f}"
        else:
            error = min(abs(sample.seconds - truth) for truth in truths)
            if error >= max(self.errors, default=0.0):
                self.worst = f"{sample.group}-{sample.partition} said {sample.seconds:.2f}, is {truths[-1]:.2f}"
            self.errors.append(error)
            self.lags.append(truths[-1])


def measure(arguments: argparse.Namespace) -> None:
    lasting = 75.0 if arguments.quick else arguments.seconds
    by_workload: dict[str, Errors] = {name: Errors() for name in arguments.workloads}
    others_fresh = Errors()
    with broker(settings=BROKER_SETTINGS) as kafka:
        polls = watch(kafka, arguments.workloads, lasting)
        logs = {
            (topic, p): log_of(kafka.data_dir, topic, p)
            for topic in arguments.workloads
            for p in range(PARTITIONS)
        }
    for sample in polls.samples:
        if sample.topic == COMPACTED:
            readings = [each[sample.partition] for each in polls.compacted[sample.seen_at]]
        else:
            readings = [logs[sample.topic, sample.partition]]
        truths = truth_of(sample, readings)
        if (sample.topic == RESTARTED) == sample.fresh:
            by_workload[sample.topic].add(sample, truths)
        elif sample.fresh:
            others_fresh.add(sample, truths)
    everything = Errors()
    for errors in (*by_workload.values(), others_fresh):
        everything.errors += errors.errors
        everything.lags += errors.lags
        everything.unknown += errors.unknown
        everything.nothing_unread += errors.nothing_unread
        everything.wrong_zero += errors.wrong_zero
    _print(by_workload, others_fresh, everything, polls)


def _print(
    by_workload: Mapping[str, Errors], others: Errors, everything: Errors, polls: Polls
) -> None:
    named = {
        **{
            "monitor restarted" if name == RESTARTED else name: e for name, e in by_workload.items()
        },
        "others, first poll": others,
        "all": everything,
    }
    table(
        "Error of lag in seconds at a 15 s poll (seconds; percentiles over figures with unread records)",
        ["", "figures", "median lag", "p50", "p99", "worst", "unknown", "nothing unread", "of it not 0"],
        [
            [
                name, len(e.errors), *(
                    (f"{median(e.lags):.1f}", f"{median(e.errors):.3f}",
                     f"{percentile(e.errors, 99):.3f}", f"{max(e.errors):.3f}")
                    if e.errors else ("", "", "", "")
                ), e.unknown, e.nothing_unread, e.wrong_zero,
            ]
            for name, e in named.items()
        ],
    )  # fmt: skip
    table(
        "Requests that lag in seconds adds to a poll",
        ["monitor", "polls", "mean", "most"],
        [
            [name, len(counts), sum(counts) / len(counts), max(counts)]
            for name, counts in (
                ("running", polls.questions[False]),
                ("first poll", polls.questions[True]),
            )
        ],
    )
    print("\nworst of each:")
    for name, errors in named.items():
        if errors.worst:
            print(f"  {name}: {errors.worst}")
        if errors.unanswered:
            print(f"  {name}: unknown, e.g. {errors.unanswered}")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS, help="only these"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to run (300)")


if __name__ == "__main__":
    sys.exit(run("monitor_time_lag", __doc__ or "", measure, _options))
