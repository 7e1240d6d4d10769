"""Groups that lag on real brokers: real records, members, commits, rebalances and transactions.

All scenes are brought about at the same time on a cluster of two brokers, and one monitor polls them. Only
the clock is not real: it stands still but for the 15 s between two polls, so that neither a busy machine
nor the time that a rebalance takes changes what is seen. Members commit what they have read at the pace
that the scene gives them; they fetch nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import ConsumerGroupDescription

from monitor.analysis.causes.finding import Cause
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.poller import Poller
from monitor.settings import KafkaSettings
from monitor.state import State
from monitor.web.app import create_app
from tests.states.stage import Ahead, Clock, Stage
from tests.support import lagging
from tests.support.asgi import Client
from tests.support.causes_table import Fate, Scene
from tests.support.cluster import Cluster
from tests.support.lagging import GROUP, POLL_SECONDS, Readers, Shop
from tests.support.waiting import wait_for

# a busy machine is not to take a member for dead: that would be a true cause
_MEMBER: Final[Mapping[str, Any]] = {
    "session.timeout.ms": 600_000,
    "max.poll.interval.ms": 1_800_000,
    # how soon members hear of a rebalance
    "heartbeat.interval.ms": 500,
    # whole partitions in turn, as the model's shop gives them
    "partition.assignment.strategy": "roundrobin",
    "log_level": 0,
}
# a broker that is frozen is not to be taken for dead, which would be told in another way
SESSION_TIMEOUT_MS: Final = 900_000
SETTLED_WITHIN_SECONDS: Final = 240.0
REQUEST_TIMEOUT_SECONDS: Final = 5.0


class StoppedClock(Clock):
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()

    def wall(self) -> float:
        return self._wall + self.ahead

    def monotonic(self) -> float:
        return self._monotonic + self.ahead

    def seen(self, _: float) -> float:
        return self.monotonic()


@dataclass
class BrokerLog:
    """A partition's log as far as the shop has written and deleted it; `held_at` is the last stable offset."""

    start: int = 0
    end: int = 0
    held_at: int | None = None

    @property
    def stable_end(self) -> int:
        """Return up to where readers of committed records may read."""
        return self.end if self.held_at is None else self.held_at


class BrokerShop(Shop):
    """A shop whose topics and groups are on real brokers, where they are called `name` and more."""

    def __init__(
        self, stage: Stage, cluster: Cluster, name: str, watch: _Watch, **given: Any
    ) -> None:
        self.names: set[str] = set()
        watch.shops.append(self)
        self._watch = watch
        self.poller = watch.poller
        self.stage = stage
        self.cluster = cluster
        self.name = name
        self.logs: dict[tuple[str, int], BrokerLog] = {}
        self.clients: dict[str, dict[str, Consumer]] = {}
        self.unsettled: dict[str, Readers] = {}
        self.commits: list[tuple[Consumer, list[TopicPartition]]] = []
        super().__init__(**given)

    def named(self, local: str) -> str:
        """Return what a topic or group is called on the brokers."""
        name = self.name if local == GROUP else f"{self.name}-{local}"
        self.names.add(name)
        return name

    @property
    def group_id(self) -> str:
        return self.named(GROUP)

    # -- the cluster ------------------------------------------------------------------------------

    def create(self, topic: str, partitions: int) -> None:
        self.stage.topic(self.named(topic), leaders=[p % 2 + 1 for p in range(partitions)])
        for p in range(partitions):
            self.logs[topic, p] = BrokerLog()

    def log(self, topic: str, partition: int) -> BrokerLog:
        return self.logs[topic, partition]

    def append(self, topic: str, partition: int, count: int) -> None:
        self.stage.produce(self.named(topic), count, partition)
        self.logs[topic, partition].end += count

    def commit(
        self, readers: Readers, consumer: lagging.Consumer | None, offsets: Mapping[int, int]
    ) -> None:
        group, topic = self.named(readers.group), self.named(readers.topic)
        if consumer is not None:
            client = self.clients[readers.group][consumer.id]
            self.commits.append(
                (client, [TopicPartition(topic, *each) for each in offsets.items()])
            )
            return
        self._leave(readers.group, keep=())  # who has members takes no commit of others
        self.stage.commit(
            group, topic, *[offsets.get(p) for p in range(self.partitions_of(readers))]
        )

    # -- members ----------------------------------------------------------------------------------

    def show_members(self, readers: Readers) -> None:
        if readers.by_assign:
            for n, consumer in enumerate(readers.consumers):
                consumer.held = tuple(range(n, self.partitions_of(readers), len(readers.consumers)))
        else:
            self.unsettled[readers.group] = readers

    def change_members(self) -> None:
        """Have members leave and join, as far as these are others than they were."""
        for group, readers in self.unsettled.items():
            self._leave(group, keep=[consumer.id for consumer in readers.consumers])
            clients = self.clients.setdefault(group, {})
            for consumer in readers.consumers:
                if consumer.id not in clients:
                    clients[consumer.id] = self._client(readers)

    def _client(self, readers: Readers) -> Consumer:
        return self.stage.member(self.named(readers.group), self.named(readers.topic), **_MEMBER)

    def _leave(self, group: str, keep: Sequence[str]) -> None:
        clients = self.clients.get(group, {})
        for one in clients.keys() - set(keep):
            self.stage.leave_soon(clients.pop(one))

    def holding(self) -> dict[str, int]:
        """Return name -> number of members, of groups whose members hold partitions as they are to."""
        found = {}
        for group, readers in self.unsettled.items():
            held = [_held(client) for client in self.clients[group].values()]
            count = self.partitions_of(readers)
            if not held or (
                sorted(p for of in held for p in of) == list(range(count))
                and sum(map(bool, held)) == min(len(held), count)
            ):
                found[group] = len(held)
        return found

    def settle(self, group: str) -> None:
        """Number the members of a group by what they hold, as the model's shop does."""
        readers, clients = self.unsettled.pop(group), self.clients[group]
        by_held = sorted(clients.values(), key=lambda client: _held(client) or (10_000,))
        for consumer, client in zip(readers.consumers, by_held, strict=True):
            clients[consumer.id] = client
            consumer.held = _held(client)

    # -- what may happen --------------------------------------------------------------------------

    def stay_rebalancing(self) -> None:
        self.stand(*range(self.partitions_of(self.main)))
        late = self.clients[GROUP]["late"] = self._client(self.main)

        def is_rebalancing() -> bool:
            late.poll(0)  # the others do not poll: they never hear that they are to join again
            told = _described(self.stage, [self.group_id]).values()
            return any(one.state == ConsumerGroupState.PREPARING_REBALANCING for one in told)

        wait_for("rebalance", is_rebalancing, SETTLED_WITHIN_SECONDS)

    def open_transaction(self, *partitions: int) -> None:
        for p in partitions:
            log = self.logs[lagging.TOPIC, p]
            log.held_at, log.end = log.end, log.end + 1
        producer = self.stage.transactional(self.name)
        topic = self.named(lagging.TOPIC)
        self.stage.transaction(producer, topic, 1, "open", partitions)

    def delete_unread(self, left: int) -> None:
        for p in range(self.partitions_of(self.main)):
            log = self.logs[lagging.TOPIC, p]
            log.start = max(log.start, log.end - left)
            self.stage.delete_records(self.named(lagging.TOPIC), log.start, p)

    def silence_broker(self) -> None:
        self.without(2)
        self.cluster.second.pause()

    def lose_broker(self) -> None:
        self.without(2)
        self.stage.leave_topics()  # who deletes them may be sent to the lost one
        self.cluster.second.stop()

    # -- the monitor ------------------------------------------------------------------------------

    def latest(self) -> State:
        return self.poller.latest.state

    def told(self) -> Told:
        """Return what is told of the group, and of what."""
        return Told(self.explain(), self.latest(), self.group_id, self.states)

    def explain(self) -> Mapping[str, Any]:
        app = create_app(self.poller, pools=lambda: self.pools)
        answer = Client(app).get(f"/api/v1/explain/{self.group_id}")
        found: Mapping[str, Any] = answer.json()
        return found

    def close(self) -> None:
        """Have all members leave, and the monitor forget the group."""
        for group in self.clients:
            self._leave(group, keep=())
        self._watch.shops.remove(self)


def _held(client: Consumer) -> tuple[int, ...]:
    client.poll(0)  # it hears of a rebalance only so
    held = client.assignment()
    if held:
        client.pause(held)
    return tuple(sorted(each.partition for each in held))


def _described(stage: Stage, groups: Sequence[str]) -> dict[str, ConsumerGroupDescription]:
    """Return what the coordinators say of groups, of those of which they say something."""
    if not groups:
        return {}
    futures = stage.admin.describe_consumer_groups(list(groups), request_timeout=30)
    return {
        group: future.result()
        for group, future in futures.items()
        if future.exception(SETTLED_WITHIN_SECONDS) is None
    }


def _settle(stage: Stage, shops: Sequence[BrokerShop]) -> None:
    """Wait until whoever is to be a member holds partitions, and whoever has left is gone."""
    stage.finish()
    for shop in shops:
        shop.change_members()

    def is_settled() -> bool:
        holding = {
            shop.named(group): (shop, group, members)
            for shop in shops
            for group, members in shop.holding().items()
        }
        for name, told in _described(stage, [*holding]).items():
            shop, group, members = holding[name]
            # one that is about to join may not be known to the others yet
            expected = ConsumerGroupState.STABLE if members else ConsumerGroupState.EMPTY
            if told.state == expected and len(told.members) == members:
                shop.settle(group)
        return not any(shop.unsettled for shop in shops)

    wait_for("assignment of all members", is_settled, SETTLED_WITHIN_SECONDS)


def _commit(offsets_of: tuple[Consumer, list[TopicPartition]]) -> None:
    client, offsets = offsets_of

    def is_committed() -> bool:
        try:
            client.commit(offsets=offsets, asynchronous=False)
        except KafkaException:  # a coordinator that is busy
            return False
        return True

    wait_for("commit", is_committed)


@dataclass(frozen=True)
class Told:
    """What the API answered about a group, what the monitor knew, and the states that it saw."""

    answer: Mapping[str, Any]
    state: State
    group: str
    states: Sequence[str]


class _Watch:
    """A monitor of some shops."""

    def __init__(self, wire: KafkaWire, clock: Clock) -> None:
        self.shops: list[BrokerShop] = []
        clocks: dict[str, Any] = {"clock": clock.wall, "monotonic": clock.monotonic}
        collector = Collector(
            Ahead(wire, clock),
            Intervals(request_timeout=REQUEST_TIMEOUT_SECONDS),
            wants_group=self._is_ours,
            wants_topic=self._is_ours,
            **clocks,
        )
        self.poller = Poller(collector, stale_after_s=45, **clocks)

    def _is_ours(self, name: str) -> bool:
        return any(name in shop.names for shop in self.shops)


class Theatre:
    """Plays scenes on a cluster, all at the same time."""

    def __init__(self, cluster: Cluster, unique: Callable[[str], str]) -> None:
        self._cluster = cluster
        self._unique = unique
        self._stack = ExitStack()
        self._clock = StoppedClock()
        self._stage = Stage(cluster.first, self._clock)

    def play(self, scenes: Sequence[Scene]) -> dict[str, Told]:
        """Return what is told of each scene at its end, by its id."""
        with ExitStack() as stack:
            self._stack = stack
            stack.callback(self._stage.close)
            stack.callback(self._cluster.wake_second)
            threads = stack.enter_context(ThreadPoolExecutor(8))
            everybodys = self._watch()
            going = {
                scene.id: self._begin(
                    # what the others do would tell it that it is not the broker
                    scene, self._watch() if scene.truth == Cause.BROKER_TROUBLE else everybodys,
                )
                for scene in scenes
            }  # fmt: skip
            found: dict[str, Told] = {}
            while going:
                for one, (shop, course) in list(going.items()):
                    if next(course, _OVER) is _OVER:
                        found[one] = shop.told()
                        shop.close()
                        del going[one]
                shops = [shop for shop, _ in going.values()]
                self._go_on(shops, threads)
            return found

    def _watch(self) -> _Watch:
        servers = (self._cluster.bootstrap_servers,)
        wire = KafkaWire(KafkaSettings(bootstrap_servers=servers))
        self._stack.callback(wire.close)
        return _Watch(wire, self._clock)

    def _begin(self, scene: Scene, watch: _Watch) -> tuple[BrokerShop, Iterator[object]]:
        name = self._unique(f"{GROUP}-causes")
        if scene.truth == Cause.BROKER_TROUBLE:
            # what it is known by stays when the other broker goes
            name = self._cluster.group_of_first(self._stage.topic(name))
        shop = BrokerShop(self._stage, self._cluster, name, watch, **scene.play.given)
        return shop, scene.play.play(shop)

    def _go_on(self, shops: Sequence[BrokerShop], threads: ThreadPoolExecutor) -> None:
        """Let 15 s pass: what comes, what is read and committed, and a poll."""
        _settle(self._stage, shops)
        for shop in shops:
            shop.produce()
        self._stage.finish()
        for shop in shops:
            shop.consume()
        list(threads.map(_commit, [each for shop in shops for each in shop.commits]))
        self._stage.finish()
        self._clock.go_on(POLL_SECONDS)
        for poller in {id(shop.poller): shop.poller for shop in shops}.values():
            poller.poll()
        for shop in shops:
            shop.commits.clear()
            shop.keep_state()


def on_brokers(
    cluster: Cluster, scenes: Sequence[Scene], unique: Callable[[str], str]
) -> dict[str, Told]:
    """Bring scenes about: those in which both brokers live, then those that silence one or lose it."""
    found: dict[str, Told] = {}
    for fate in Fate:
        chosen = [scene for scene in scenes if scene.fate == fate]
        if chosen:
            found |= Theatre(cluster, unique).play(chosen)
    return found


_OVER: Final = object()
