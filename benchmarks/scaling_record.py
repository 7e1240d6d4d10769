"""Records a load on the running order system, for the simulation: `python -m benchmarks.scaling_record step`.

A message takes a payment replica 50 ms, so one manages at most 20 a second. Each second it writes down
what came to each partition of `orders`, what was consumed of it, by whom, and the lag in seconds. The
files are in benchmarks/scaling/recorded/; --seconds ends sooner, for a trial.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Final, TextIO

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.scaling.recorded import FOLDER, NOBODY, Row, heading
from benchmarks.support import run
from order_services.domain.topics import GROUP_OF, ORDERS, TOPICS
from order_services.local.ports import LOOPBACK
from order_services.local.replicas import Replicas
from order_services.local.traffic import Traffic
from tests.support.running_system import RunningSystem
from tests.support.waiting import wait_for

GROUP: Final = GROUP_OF["payment"].group_id
[PARTITIONS] = [topic.partitions for topic in TOPICS if topic.name == ORDERS]
SETTINGS: Final = {
    "FAULT_MESSAGE_DELAY_SECONDS": "0.05",
    # progress is seen when a batch is committed: within the second
    "BATCH_MAX_MESSAGES": "10",
}
EVERY_SECONDS: Final = 1.0
ANSWER_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Scenario:
    """What is done to the system: orders a second and payment replicas, by the second.

    Of each of the `connections` an order waits for the one before it.
    """

    told: str
    connections: int
    rate: Callable[[float], float]
    replicas: Callable[[float], int]
    seconds: int


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "step": Scenario(
        "15 orders/s, 75/s for 150 s, 15/s, to two payment replicas",
        4,
        lambda second: 75.0 if 90 <= second < 240 else 15.0,
        lambda _: 2,
        480,
    ),
    "day": Scenario(
        "a day in eight minutes, 12 to 50 orders/s, which is all that its one connection carries; "
        "two payment replicas, five from 130 s to 350 s",
        1,
        lambda second: 45 - 33 * cos(2 * pi * second / 480),
        lambda second: 5 if 130 <= second < 350 else 2,
        480,
    ),
}


class Watch:
    """Asks the broker how far the group is; counts are since the last look."""

    def __init__(self, brokers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": brokers})
        # it never subscribes, so it is no member: it only reads what the group has committed
        self._consumer = Consumer({"bootstrap.servers": brokers, "group.id": GROUP})
        self._partitions = [TopicPartition(ORDERS, number) for number in range(PARTITIONS)]
        self._began = time.monotonic()
        self._ends, self._commits = self._offsets()
        # when each end was seen first, of what is not consumed yet
        self._seen: list[list[tuple[float, int]]] = [[] for _ in range(PARTITIONS)]
        self._members: list[str] = []

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()

    def look(self) -> Row:
        """Return what has happened since the last look."""
        ends, commits = self._offsets()
        now = time.monotonic() - self._began
        row = Row(
            seconds=now,
            owners=self._owners(),
            came=tuple(map(int.__sub__, ends, self._ends)),
            done=tuple(map(int.__sub__, commits, self._commits)),
            lag_seconds=max(
                map(self._behind, range(PARTITIONS), ends, commits, [now] * PARTITIONS)
            ),
        )
        self._ends, self._commits = ends, commits
        return row

    def members(self) -> int:
        """Return how many consumers hold partitions."""
        return len(set(self._owners()) - {NOBODY})

    def _offsets(self) -> tuple[list[int], list[int]]:
        ends = [
            self._consumer.get_watermark_offsets(each, ANSWER_TIMEOUT_S, cached=False)[1]
            for each in self._partitions
        ]
        committed = self._consumer.committed(self._partitions, ANSWER_TIMEOUT_S)
        # negative: nothing was committed yet
        return ends, [max(0, each.offset) for each in committed]

    def _owners(self) -> str:
        """Return a letter for the member of each partition; a member keeps its letter."""
        found = self._admin.describe_consumer_groups([GROUP])[GROUP].result(ANSWER_TIMEOUT_S)
        owners = [NOBODY] * PARTITIONS
        for member in found.members:
            if member.member_id not in self._members:
                self._members.append(member.member_id)
            letter = chr(ord("a") + self._members.index(member.member_id))
            for each in member.assignment.topic_partitions:
                owners[each.partition] = letter
        return "".join(owners)

    def _behind(self, partition: int, end: int, commit: int, now: float) -> float:
        seen = self._seen[partition]
        if not seen or seen[-1][1] < end:
            seen.append((now, end))
        seen[:] = [(at, until) for at, until in seen if until > commit]
        return now - seen[0][0] if seen else 0.0


@contextmanager
def running_system(replicas: int) -> Iterator[RunningSystem]:
    """Run the order system with slow handlers, so many payment replicas and no orders."""
    os.environ.update(SETTINGS)
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        system = RunningSystem(
            Path(folder), ("--no-traffic", "--replicas", f"payment={replicas}")
        ).start()
        try:
            system.wait_until_up()
            with closing(Watch(system.bootstrap_servers)) as watch:
                wait_for("members", lambda: watch.members() == replicas, READY_TIMEOUT_S)
            yield system
        finally:
            system.stop()


@contextmanager
def finished(file: Path) -> Iterator[TextIO]:
    """Write a file that is there once it is whole: half of a scenario is none."""
    unfinished = file.with_suffix(".unfinished")
    try:
        with unfinished.open("w", newline="") as out:
            yield out
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def record(scenario: Scenario, seconds: int, file: Path) -> None:
    """Run a scenario and write its rows, telling of each half minute."""
    with (
        running_system(scenario.replicas(0)) as system,
        closing(Watch(system.bootstrap_servers)) as watch,
        finished(file) as out,
    ):
        out.write(f"# {scenario.told}\n")
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(heading(PARTITIONS))
        replicas = Replicas(system.data_dir)
        share = 1 / scenario.connections
        customers = [
            Traffic(LOOPBACK, system.base_port, share * scenario.rate(0))
            for _ in range(scenario.connections)
        ]
        for each in customers:
            each.start()
        try:
            watch.look()
            began = time.monotonic()
            for number in range(1, seconds + 1):
                for each in customers:
                    each.rate = share * scenario.rate(number)
                if replicas.running()["payment"] != scenario.replicas(number):
                    replicas.ask({"payment": scenario.replicas(number)})
                time.sleep(max(0.0, began + number * EVERY_SECONDS - time.monotonic()))
                row = watch.look()
                rows.writerow(row.cells())
                if number % 30 == 0:
                    print(
                        f"{row.seconds:.0f} s: {sum(row.came)} orders, partitions of {row.owners}, "
                        f"lag {row.lag_seconds:.0f} s",
                        flush=True,
                    )
        finally:
            for each in customers:
                each.stop()


def measure(given: argparse.Namespace) -> None:
    """Record what was asked for."""
    scenario = SCENARIOS[given.scenario]
    file = given.to or FOLDER / f"{given.scenario}.csv"
    record(scenario, min(given.seconds or scenario.seconds, scenario.seconds), file)
    print(f"{file}: {file.stat().st_size} bytes")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("scenario", choices=list(SCENARIOS))
    parser.add_argument("--to", type=Path, help="the file; else the simulation's own")
    parser.add_argument("--seconds", type=int, help="how long; else all of it")


if __name__ == "__main__":
    sys.exit(run("scaling_record", __doc__ or "", measure, options))
