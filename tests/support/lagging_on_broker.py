"""Groups that lag on a real broker: real records, real members, real commits; only the clock is ahead.

All scenes run on one broker at once, and one monitor polls them every 15 s of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer

from monitor.analysis.causes.finding import Cause, Finding
from monitor.analysis.causes.ranking import Explainer
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.poller import Poller
from monitor.settings import KafkaSettings
from monitor.state import State
from order_services.local.kafka import EmbeddedKafka
from tests.states.stage import Ahead, Stage, committed_by
from tests.support.waiting import wait_for

POLL_SECONDS: Final = 15.0
CALM: Final = 14
IN_TROUBLE: Final = 14


@dataclass
class RealGroup:
    """A group and its topic, both called `name`; each partition gets `rate` messages a second."""

    stage: Stage
    name: str
    partitions: int = 6
    members: int = 3
    rate: float = 2.0
    pace: float = 10.0
    consumers: list[Consumer] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    stands: set[int] = field(default_factory=set)
    hangs: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stage.topic(self.name, self.partitions)
        self.rates = [self.rate] * self.partitions
        self.ends = [0] * self.partitions
        self.done = [0.0] * self.partitions
        self.readable: dict[int, int] = {}
        self.stage.commit(self.name, self.name, *[0] * self.partitions)
        self.join(self.members)

    def join(self, count: int) -> None:
        """Have so many members more."""
        each = self.partitions // (len(self.consumers) + count)
        self.consumers += [
            self.stage.member(self.name, self.name, partitions=each) for _ in range(count)
        ]

    def leave(self, count: int) -> None:
        """Have the last members leave, and the others take over."""
        for _ in range(count):
            self.stage.leave(self.consumers.pop())

        def taken_over() -> bool:
            held = 0
            for consumer in self.consumers:
                consumer.poll(0)
                if assigned := consumer.assignment():
                    consumer.pause(assigned)
                held += len(assigned)
            return held == self.partitions

        if self.consumers:
            wait_for("the others hold all partitions", taken_over)

    def step(self) -> None:
        """Produce, and consume, what 15 s have."""
        for partition, rate in enumerate(self.rates):
            count = int(rate * POLL_SECONDS)
            self.stage.produce(self.name, count, partition)
            self.ends[partition] += count

    def consume(self) -> None:
        """Have each member read what it can, and commit."""
        for number, consumer in enumerate(self.consumers):
            consumer.poll(0)  # a member that does not poll is put out of its group
            held = sorted(each.partition for each in consumer.assignment())
            if number in self.hangs or not held:
                continue
            budget = self.pace * POLL_SECONDS
            going = [p for p in held if p not in self.stands]
            for left, p in zip(
                range(len(going), 0, -1),
                sorted(going, key=lambda p: self._end(p) - self.done[p]),
                strict=True,
            ):
                taken = max(0.0, min(budget / left, self._end(p) - self.done[p]))
                self.done[p] += taken
                budget -= taken
            committed_by(
                consumer, self.name,
                *[int(self.done[p]) if p in going else None for p in range(self.partitions)],
            )  # fmt: skip

    def _end(self, partition: int) -> int:
        return self.readable.get(partition, self.ends[partition])

    def rewind(self) -> None:
        """Go back to the beginning."""
        self.done = [0.0] * self.partitions

    def hold_back(self) -> None:
        """Leave a transaction open on partition 0."""
        self.readable[0] = self.ends[0]
        self.stage.transaction(self.stage.transactional(self.name), self.name, 1, "open")
        self.ends[0] += 1

    def lose(self) -> None:
        """Have retention delete what nobody has read."""
        for partition, end in enumerate(self.ends):
            self.stage.delete_records(self.name, end, partition)


@dataclass(frozen=True)
class RealScene:
    """What is done to a group once it has run well, and what is true then."""

    truth: Cause
    do: Callable[[RealGroup], object]
    given: Mapping[str, Any] = field(default_factory=dict)


SCENES: Final[Mapping[str, RealScene]] = {
    "well": RealScene(Cause.HEALTHY, lambda _: None),
    "gone": RealScene(Cause.NO_MEMBERS, lambda g: g.leave(3)),
    "poison": RealScene(Cause.MESSAGE_STANDS, lambda g: g.stands.add(2)),
    "wedged": RealScene(Cause.MEMBER_WEDGED, lambda g: g.hangs.add(1)),
    "replay": RealScene(Cause.REWOUND, RealGroup.rewind, {"pace": 4.4}),
    "hot": RealScene(Cause.HOT_PARTITION, lambda g: g.rates.__setitem__(3, 20.0)),
}
"""The fast ones."""

MORE_SCENES: Final[Mapping[str, RealScene]] = {
    "all-stand": RealScene(Cause.ALL_STAND, lambda g: g.hangs.update(range(3))),
    "held": RealScene(Cause.OPEN_TRANSACTION, RealGroup.hold_back),
    "slower": RealScene(Cause.SLOW_PROCESSING, lambda g: setattr(g, "pace", 1.0)),
    "fewer": RealScene(Cause.FEWER_MEMBERS_THAN_NEEDED, lambda g: g.leave(2), {"pace": 5.0}),
    "gone-and-lost": RealScene(Cause.NO_MEMBERS, lambda g: (g.leave(3), g.lose())),
    "single": RealScene(
        Cause.MESSAGE_STANDS, lambda g: g.stands.add(0), {"members": 1, "pace": 20.0}
    ),
    "pair": RealScene(Cause.MEMBER_WEDGED, lambda g: g.hangs.add(0), {"members": 2}),
    "spare": RealScene(Cause.HEALTHY, lambda _: None, {"partitions": 2, "members": 2}),
}
"""The others that one broker can be brought to."""


def explained(
    kafka: EmbeddedKafka, scenes: Mapping[str, RealScene], unique: Callable[[str], str]
) -> dict[str, tuple[Finding, State]]:
    """Bring all scenes about at once; return why each group is behind, and what was seen."""
    stage = Stage(kafka)
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    try:
        groups = {
            name: RealGroup(stage, unique(name), **scene.given) for name, scene in scenes.items()
        }
        stage.settle()
        ours = frozenset(group.name for group in groups.values())
        clocks: dict[str, Any] = {"clock": stage.clock.wall, "monotonic": stage.clock.monotonic}
        collector = Collector(
            Ahead(wire, stage.clock), Intervals(), wants_group=ours.__contains__, **clocks
        )
        poller = Poller(collector, stale_after_s=45, **clocks)
        for poll in range(CALM + IN_TROUBLE):
            if poll == CALM:
                for name, scene in scenes.items():
                    scene.do(groups[name])
            for group in groups.values():
                group.step()
            stage.finish()
            for group in groups.values():
                group.consume()
            poller.poll()
            stage.clock.go_on(POLL_SECONDS)
        state = poller.latest.state
        assert state.snapshot is not None
        explainer = Explainer(state.snapshot, state.groups, state.findings)
        return {name: (explainer.explain(group.name), state) for name, group in groups.items()}
    finally:
        wire.close()
        stage.close()
