"""A shop of producers and consumers on the model cluster, to which whatever makes a group lag can be done.

The monitor over it is the real one: collector, analysis, API. Time is the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from monitor.model import Member
from tests.unit.monitor.model_cluster import OPEN
from tests.unit.monitor.watched_cluster import WatchedCluster

POLL_SECONDS: Final = 15.0
GROUP: Final = "g"
TOPIC: Final = "t"
CALM: Final = 16
"""Polls before anything happens: the group's rhythm and what usually comes are known then."""


@dataclass
class Consumer:
    """A member: it reads up to `pace` messages a second of what it holds, and commits at each poll."""

    id: str
    pace: float
    held: tuple[int, ...] = ()
    hangs: bool = False


@dataclass
class Readers:
    """A group of consumers of one topic; `stands` are partitions on which it can't go on."""

    group: str
    topic: str
    consumers: list[Consumer]
    stands: set[int] = field(default_factory=set)
    # of partitions led by a broker that is slow: the share that it still serves
    served: dict[int, float] = field(default_factory=dict)
    commits_every: int = 1
    reads_committed: bool = False
    done: dict[int, float] = field(default_factory=dict)


class Shop:
    """One topic of `partitions`, each gets `rate` messages a second; and a group that reads it."""

    def __init__(
        self,
        *,
        partitions: int = 6,
        rate: float = 2.0,
        members: int = 3,
        pace: float = 10.0,
        pools: Callable[[], Any] = lambda: None,
    ) -> None:
        self.watched = WatchedCluster(pools=pools)
        self.cluster = self.watched.cluster
        self.cluster.create(TOPIC, partitions)
        self.rates: dict[str, list[float]] = {TOPIC: [rate] * partitions}
        self.owed: dict[tuple[str, int], float] = {}
        self.groups: dict[str, Readers] = {}
        self.kinds: dict[tuple[str, int], str] = {}
        self.each_poll: list[Callable[[int], None]] = []
        self.polls = 0
        self.states: list[str] = []  # of the group that is asked about, poll by poll
        self.add_group(GROUP, TOPIC, members, pace)

    @property
    def main(self) -> Readers:
        """Return the group that is asked about."""
        return self.groups[GROUP]

    def add_topic(self, topic: str, partitions: int, rate: float) -> None:
        """Create another topic."""
        self.cluster.create(topic, partitions)
        self.rates[topic] = [rate] * partitions

    def add_group(self, group: str, topic: str, members: int, pace: float) -> Readers:
        """Have another group read a topic from its end on."""
        readers = Readers(group, topic, [Consumer(f"{group}-{n}", pace) for n in range(members)])
        self.groups[group] = readers
        ends = [log.end for log in self.cluster.topics[topic].logs]
        self.cluster.commit(group, topic, *ends)
        readers.done = dict(enumerate(map(float, ends)))
        self.assign(group)
        return readers

    def assign(self, group: str = GROUP) -> None:
        """Spread the partitions evenly over the members that there are."""
        readers = self.groups[group]
        count = len(self.cluster.topics[readers.topic].logs)
        for n, consumer in enumerate(readers.consumers):
            consumer.held = tuple(range(n, count, len(readers.consumers)))
        self.show_members(group)

    def show_members(self, group: str = GROUP) -> None:
        """Have the coordinator tell the members as they are."""
        readers = self.groups[group]
        self.cluster.groups[group].members = tuple(
            Member(
                c.id, f"client-{c.id}", f"/host-{c.id}", {readers.topic: c.held} if c.held else {}
            )
            for c in readers.consumers
        )

    def members(self, count: int, pace: float | None = None) -> None:
        """Have so many members, the first ones staying."""
        main = self.main
        usual = main.consumers[0].pace if main.consumers else 10.0
        main.consumers = [
            main.consumers[n] if n < len(main.consumers) else Consumer(f"{GROUP}-{n}", usual)
            for n in range(count)
        ]
        if pace is not None:
            self.pace(pace)
        self.assign()

    def pace(self, pace: float) -> None:
        """Have each member read so many messages a second."""
        for consumer in self.main.consumers:
            consumer.pace = pace

    def rate(self, rate: float, *partitions: int) -> None:
        """Have so many messages a second come to these partitions, or to all."""
        for index in partitions or range(len(self.rates[TOPIC])):
            self.rates[TOPIC][index] = rate

    def run(self, polls: int) -> Shop:
        """Let time pass: what comes, what is read, and a poll every 15 s."""
        for _ in range(polls):
            self.polls += 1
            for do in self.each_poll:
                do(self.polls)
            self._produce()
            for readers in self.groups.values():
                self._consume(readers)
            self.watched.poll()
            snapshot = self.watched.poller.latest.state.snapshot
            if snapshot is not None:
                self.states.append(snapshot.groups[GROUP].state or "Unknown")
        return self

    def _produce(self) -> None:
        for topic, rates in self.rates.items():
            for partition, rate in enumerate(rates):
                owed = self.owed.get((topic, partition), 0.0) + rate * POLL_SECONDS
                self.owed[topic, partition] = owed - int(owed)
                if int(owed):
                    kind = self.kinds.get((topic, partition))
                    options = {"kind": kind} if kind else {}
                    self.cluster.append(topic, int(owed), partition, **options)

    def _consume(self, readers: Readers) -> None:
        logs = self.cluster.topics[readers.topic].logs
        for consumer in readers.consumers:
            if consumer.hangs:
                continue
            budget = consumer.pace * POLL_SECONDS
            open_for = [p for p in consumer.held if p not in readers.stands]
            for left, partition in zip(range(len(open_for), 0, -1), sorted(
                open_for, key=lambda p: self._end(readers, p) - readers.done[p]
            ), strict=True):  # fmt: skip
                at = max(readers.done[partition], logs[partition].start)
                share = budget / left * readers.served.get(partition, 1.0)
                taken = max(0.0, min(share, self._end(readers, partition) - at))
                readers.done[partition] = at + taken
                budget -= taken
        if self.polls % readers.commits_every == 0:
            commits = self.cluster.groups[readers.group].commits[readers.topic]
            held = {p for c in readers.consumers if not c.hangs for p in c.held}
            commits.update({p: int(readers.done[p]) for p in held - readers.stands})

    def _end(self, readers: Readers, partition: int) -> int:
        log = self.cluster.topics[readers.topic].logs[partition]
        return log.stable_end if readers.reads_committed else log.end

    # -- what may happen --------------------------------------------------------------------------

    def seek_back(self, messages: int, *partitions: int) -> None:
        """Move commits back."""
        main = self.main
        commits = self.cluster.groups[GROUP].commits[TOPIC]
        for p in partitions or tuple(commits):
            main.done[p] = commits[p] = max(0, commits[p] - messages)

    def open_transaction(self, *partitions: int) -> None:
        """Have a producer leave a transaction open from here on."""
        for p in partitions:
            self.kinds[TOPIC, p] = OPEN

    def delete_unread(self, left: int) -> None:
        """Have retention delete all but the last messages."""
        for log in self.cluster.topics[TOPIC].logs:
            log.delete_to(log.end - left)

    def explain(self, group: str = GROUP) -> Mapping[str, Any]:
        """Return what the API answers about a group."""
        found: Mapping[str, Any] = self.watched.get(f"/explain/{group}")
        return found
