"""A shop of producers and consumers, to which whatever makes a group lag can be done, on any cluster.

`Shop` says what comes, who reads, and how fast; `ModelShop` does it on the model of a cluster, and
`tests/support/lagging_on_broker.py` on a real one. The monitor over both is the real one: collector,
analysis, API. Time is the shop's own: nothing depends on how fast the machine is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from monitor.model import Member
from monitor.pools.report import PoolReport
from monitor.state import State
from tests.unit.monitor.model_cluster import OPEN, Log
from tests.unit.monitor.watched_cluster import WatchedCluster

POLL_SECONDS: Final = 15.0
GROUP: Final = "g"
TOPIC: Final = "t"
CALM: Final = 16
"""Polls before anything happens: the group's rhythm and what usually comes are known then."""


class LogEnds(Protocol):
    """Where a partition's log begins and ends, and up to where it is stable."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def stable_end(self) -> int: ...


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
    # so many messages of one partition before the next one's turn, as clients work through what they
    # fetched; None: a share of each at once
    turn: int | None = None
    turns: dict[str, tuple[int, float]] = field(
        default_factory=dict
    )  # of each: partition, left of it
    # by assign(): consumers hold partitions, and are no members
    by_assign: bool = False
    done: dict[int, float] = field(default_factory=dict)


class Shop(ABC):
    """One topic of `partitions`, each gets `rate` messages a second; and a group that reads it."""

    def __init__(
        self,
        *,
        partitions: int = 6,
        rate: float = 2.0,
        members: int = 3,
        pace: float = 10.0,
        by_assign: bool = False,
    ) -> None:
        self.rates: dict[str, list[float]] = {}
        self.owed: dict[tuple[str, int], float] = {}
        self.groups: dict[str, Readers] = {}
        self.away: set[int] = set()  # partitions whose leader takes nothing
        self.polls = 0
        self.states: list[str] = []  # of the group that is asked about, poll by poll
        self.pools: PoolReport | None = None
        self.add_topic(TOPIC, partitions, rate)
        self.add_group(GROUP, TOPIC, members, pace, by_assign=by_assign)

    # -- the cluster ------------------------------------------------------------------------------

    @abstractmethod
    def create(self, topic: str, partitions: int) -> None:
        """Create a topic whose partition p is led by broker p % 2 + 1."""

    @abstractmethod
    def log(self, topic: str, partition: int) -> LogEnds:
        """Return where a log begins and ends."""

    @abstractmethod
    def append(self, topic: str, partition: int, count: int) -> None:
        """Append records."""

    @abstractmethod
    def commit(self, readers: Readers, by: Consumer | None, offsets: Mapping[int, int], /) -> None:
        """Commit by a member, None: by somebody who is none."""

    @abstractmethod
    def show_members(self, readers: Readers) -> None:
        """Have the coordinator tell the members as they are now, and `held` be what they hold."""

    @abstractmethod
    def latest(self) -> State:
        """Return what the monitor knows."""

    @abstractmethod
    def explain(self) -> Mapping[str, Any]:
        """Return what the API answers about the group that is asked about."""

    # -- who is there -----------------------------------------------------------------------------

    @property
    def main(self) -> Readers:
        """Return the group that is asked about."""
        return self.groups[GROUP]

    def add_topic(self, topic: str, partitions: int, rate: float) -> None:
        """Create a topic; each partition gets `rate` messages a second."""
        self.create(topic, partitions)
        self.rates[topic] = [rate] * partitions

    def add_group(
        self, group: str, topic: str, members: int, pace: float, *, by_assign: bool = False
    ) -> None:
        """Have a group read a topic from its end on."""
        consumers = [Consumer(f"{group}-{n}", pace) for n in range(members)]
        readers = Readers(group, topic, consumers, by_assign=by_assign)
        self.groups[group] = readers
        self._begin(readers)
        self.show_members(readers)

    def _begin(self, readers: Readers) -> None:
        ends = {p: self.log(readers.topic, p).end for p in range(self.partitions_of(readers))}
        readers.done = {p: float(end) for p, end in ends.items()}
        self.commit(readers, None, ends)

    def partitions_of(self, readers: Readers) -> int:
        """Return how many partitions the topic of a group has."""
        return len(self.rates[readers.topic])

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
        self.show_members(main)

    def move_to(self, topic: str) -> None:
        """Have the group read another topic, with one member; its old commits stay."""
        old = self.main
        old.consumers = []
        self.show_members(old)
        self.groups[GROUP] = readers = Readers(GROUP, topic, [Consumer(f"{GROUP}-new", 20.0)])
        self._begin(readers)
        self.show_members(readers)

    # -- what may happen --------------------------------------------------------------------------

    def pace(self, pace: float, *members: int) -> None:
        """Have these members, or all, read so many messages a second."""
        for n, consumer in enumerate(self.main.consumers):
            if not members or n in members:
                consumer.pace = pace

    def hang(self, *members: int) -> None:
        """Have these members, or all, commit nothing any more."""
        for n, consumer in enumerate(self.main.consumers):
            consumer.hangs |= not members or n in members

    def stand(self, *partitions: int) -> None:
        """Have the group not go on at these partitions."""
        self.main.stands.update(partitions)

    def rate(self, rate: float, *partitions: int) -> None:
        """Have so many messages a second come to these partitions, or to all."""
        for index in partitions or range(len(self.rates[TOPIC])):
            self.rates[TOPIC][index] = rate

    def serve(self, share: float, broker: int) -> None:
        """Have what a broker leads be read by all groups at this share of their pace."""
        for readers in self.groups.values():
            count = self.partitions_of(readers)
            readers.served = {p: share for p in range(count) if p % 2 + 1 == broker}

    def seek_back(self, messages: int, *partitions: int) -> None:
        """Move commits back."""
        done = self.main.done
        for p in partitions or tuple(done):
            done[p] = max(0.0, done[p] - messages)

    @abstractmethod
    def stay_rebalancing(self) -> None:
        """Have a member never answer: the group does not come out of a rebalance."""

    @abstractmethod
    def open_transaction(self, *partitions: int) -> None:
        """Have a producer leave a transaction open from here on."""

    @abstractmethod
    def delete_unread(self, left: int) -> None:
        """Have retention delete all but the last messages."""

    @abstractmethod
    def silence_broker(self) -> None:
        """Have a broker that is not the group's coordinator answer nobody."""

    @abstractmethod
    def lose_broker(self) -> None:
        """Have that broker be gone for good, with the only replica of what it led."""

    def without(self, broker: int) -> None:
        """Have nobody write or read what a broker leads."""
        for topic, rates in self.rates.items():
            gone = {p for p in range(len(rates)) if p % 2 + 1 == broker}
            self.away |= gone
            for readers in self.groups.values():
                if readers.topic == topic:
                    readers.stands |= gone

    # -- time -------------------------------------------------------------------------------------

    def produce(self) -> None:
        """Have come what comes between two polls."""
        for topic, rates in self.rates.items():
            for partition, rate in enumerate(rates):
                if partition in self.away:
                    continue
                owed = self.owed.get((topic, partition), 0.0) + rate * POLL_SECONDS
                self.owed[topic, partition] = owed - int(owed)
                if int(owed):
                    self.append(topic, partition, int(owed))

    def consume(self) -> None:
        """Have read and committed what is read between two polls."""
        self.polls += 1
        for readers in self.groups.values():
            for consumer in readers.consumers:
                if consumer.hangs:
                    continue
                going = [p for p in consumer.held if p not in readers.stands]
                if readers.turn is None:
                    self._read(readers, consumer.pace * POLL_SECONDS, going)
                else:
                    self._read_in_turns(readers, consumer, readers.turn, going)
                if going and self.polls % readers.commits_every == 0:
                    self.commit(
                        readers,
                        None if readers.by_assign else consumer,
                        {p: int(readers.done[p]) for p in going},
                    )

    def _read(self, readers: Readers, budget: float, partitions: Sequence[int]) -> None:
        """Share what a consumer manages among its partitions, those with little first."""
        waiting = {p: self._unread(readers, p) for p in partitions}
        for left, p in zip(
            range(len(waiting), 0, -1), sorted(waiting, key=waiting.__getitem__), strict=True
        ):
            taken = max(0.0, min(budget / left * readers.served.get(p, 1.0), waiting[p]))
            readers.done[p] += taken
            budget -= taken

    def _read_in_turns(
        self, readers: Readers, consumer: Consumer, turn: int, partitions: Sequence[int]
    ) -> None:
        """Spend what a consumer manages on one partition after the other, up to `turn` messages of each."""
        budget = consumer.pace * POLL_SECONDS
        now, left = readers.turns.get(consumer.id, (-1, 0.0))
        finished = 0  # partitions in a row that had nothing
        while budget > 0 and partitions and finished <= len(partitions):
            if now in partitions and left > 0:
                piece = min(budget, left)
                readers.done[now] += piece
                budget, left, finished = budget - piece, left - piece, 0
            else:
                now = min((p for p in partitions if p > now), default=min(partitions))
                # what it fetched then: what comes meanwhile waits for the next turn
                left = max(0.0, min(turn, self._unread(readers, now)))
                finished += 1
        readers.turns[consumer.id] = now, left

    def _unread(self, readers: Readers, partition: int) -> float:
        log = self.log(readers.topic, partition)
        readers.done[partition] = max(readers.done[partition], log.start)
        end = log.stable_end if readers.reads_committed else log.end
        return end - readers.done[partition]

    def keep_state(self) -> None:
        """Remember in which state the monitor saw the group."""
        snapshot = self.latest().snapshot
        group = snapshot.groups.get(self.group_id) if snapshot is not None else None
        if group is not None:
            self.states.append(group.state or "Unknown")

    @property
    def group_id(self) -> str:
        """Return what the group that is asked about is called on the cluster."""
        return GROUP


Action = Callable[[Shop], object]


@dataclass(frozen=True)
class Script:
    """A shop and what happens to it: each step is for how many polls it lasts, and what begins it."""

    given: Mapping[str, Any]
    steps: Sequence[tuple[Any, ...]]

    def then(self, *steps: tuple[Any, ...]) -> Script:
        """Return a script that goes on."""
        return Script(self.given, (*self.steps, *steps))

    def play(self, shop: Shop) -> Iterator[None]:
        """Do what it says; time for one poll is to pass at each item."""
        for polls, *actions in self.steps:
            for action in actions:
                action(shop)
            for _ in range(polls):
                yield


def script(*steps: tuple[Any, ...], calm: int = CALM, **given: Any) -> Script:
    """Return a script that begins with so many polls in which all is well."""
    return Script(given, ((calm,), *steps))


class ModelShop(Shop):
    """A shop on the model cluster."""

    def __init__(self, **given: Any) -> None:
        self.watched = WatchedCluster(pools=lambda: self.pools)
        self.cluster = self.watched.cluster
        self.kinds: dict[tuple[str, int], str] = {}
        super().__init__(**given)

    def run(self, polls: int) -> ModelShop:
        """Let time pass."""
        for _ in range(polls):
            self.produce()
            self.consume()
            self.watched.poll()
            self.keep_state()
        return self

    def create(self, topic: str, partitions: int) -> None:
        self.cluster.create(topic, partitions)

    def log(self, topic: str, partition: int) -> Log:
        return self.cluster.topics[topic].logs[partition]

    def append(self, topic: str, partition: int, count: int) -> None:
        kind = self.kinds.get((topic, partition))
        self.cluster.append(topic, count, partition, **({"kind": kind} if kind else {}))

    def commit(self, readers: Readers, _: Consumer | None, offsets: Mapping[int, int]) -> None:
        count = self.partitions_of(readers)
        self.cluster.commit(readers.group, readers.topic, *map(offsets.get, range(count)))

    def show_members(self, readers: Readers) -> None:
        count = len(readers.consumers)
        for n, consumer in enumerate(readers.consumers):
            consumer.held = tuple(range(n, self.partitions_of(readers), count))
        self.cluster.groups[readers.group].members = tuple(
            Member(
                c.id, f"client-{c.id}", f"/host-{c.id}", {readers.topic: c.held} if c.held else {}
            )
            for c in (() if readers.by_assign else readers.consumers)
        )

    def stay_rebalancing(self) -> None:
        self.cluster.groups[GROUP].says = "PreparingRebalance"
        self.stand(*range(self.partitions_of(self.main)))

    def open_transaction(self, *partitions: int) -> None:
        for p in partitions:
            self.kinds[TOPIC, p] = OPEN

    def delete_unread(self, left: int) -> None:
        for log in self.cluster.topics[TOPIC].logs:
            log.delete_to(log.end - left)

    def silence_broker(self) -> None:
        self.cluster.silent.add(self._other_broker())
        self.without(self._other_broker())

    def lose_broker(self) -> None:
        self.without(self._other_broker())
        self.cluster.fenced.add(self._other_broker())

    def _other_broker(self) -> int:
        return 3 - (self.cluster.coordinator(GROUP) or 1)

    def latest(self) -> State:
        return self.watched.poller.latest.state

    def explain(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.watched.get(f"/explain/{GROUP}")
        return found


def on_the_model(play: Script) -> ModelShop:
    """Return a shop on the model cluster in which all of a script has happened."""
    shop = ModelShop(**play.given)
    for _ in play.play(shop):
        shop.run(1)
    return shop
