"""A cluster in memory, put in the place of the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monitor.kafka.apis.describe_cluster import DescribeOwnRights
from monitor.kafka.apis.describe_configs import DescribeTopicConfigs
from monitor.kafka.apis.describe_groups import (
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribedGroup,
    DescribeShareGroups,
    DescribeStreamsGroups,
)
from monitor.kafka.apis.describe_log_dirs import DescribeLogDirs
from monitor.kafka.apis.fetch import FoundLooks, LookAtLogs
from monitor.kafka.apis.find_coordinator import FindCoordinators
from monitor.kafka.apis.list_groups import ListedGroup, ListGroups
from monitor.kafka.apis.list_offsets import LATEST, FoundOffsets, ListOffsets
from monitor.kafka.apis.metadata import ClusterMetadata, Metadata
from monitor.kafka.apis.offset_fetch import FetchCommits, GroupCommits
from monitor.kafka.apis.share_offsets import FetchShareOffsets
from monitor.kafka.brokers import GRACE_S, UnreachableError
from monitor.kafka.coordinators import GROUPS_TOPIC, partition_of
from monitor.kafka.questions import Ask, Failure
from monitor.model import Broker, LogLook, Partition, Topic, TopicConfig


@dataclass
class FakeBrokers:
    """Two brokers; topic "t" has partition 0 on broker 1 and partition 1 on broker 2.

    A fenced broker is not in the metadata, and leads nothing. A log of which nothing is said in
    `looks` has nothing but records that can be read; with `first_only` a reply has room for the
    first that is asked for.

    `latency` is how long each broker takes for an answer, in seconds of `now`, which goes on while
    the answers are awaited; a broker that takes longer than it may is silent.
    """

    down: set[int] = field(default_factory=set)
    fenced: set[int] = field(default_factory=set)
    groups: dict[int, list[ListedGroup]] = field(default_factory=dict)
    commits: dict[str, GroupCommits] = field(default_factory=dict)
    configs: dict[str, TopicConfig] = field(default_factory=dict)
    log_dirs: dict[int, dict[str, dict[int, int]]] = field(default_factory=dict)
    described: dict[str, DescribedGroup] = field(default_factory=dict)
    coordinators: dict[str, int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=lambda: {("t", 0): 10, ("t", 1): 20})
    stable: dict[tuple[str, int], int] = field(default_factory=dict)
    by_time: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    looks: dict[tuple[str, int], LogLook] = field(default_factory=dict)
    look_errors: dict[tuple[str, int], str] = field(default_factory=dict)
    looked_from: list[Mapping[str, Mapping[int, int]]] = field(default_factory=list)
    first_only: bool = False
    refusing: set[str] = field(default_factory=set)
    errors: dict[tuple[str, int], str] = field(default_factory=dict)
    topics: dict[str, Topic] = field(
        default_factory=lambda: {
            "t": Topic("t", {0: Partition(1, (1, 2), (1, 2)), 1: Partition(2, (2, 1), (2,))})
        }
    )
    asked: list[list[tuple[int, str]]] = field(default_factory=list)
    not_awaited: list[Collection[int]] = field(default_factory=list)
    latency: dict[int, float] = field(default_factory=dict)
    late: dict[int, float] = field(default_factory=dict)  # broker -> when its answer comes
    timeouts: set[int] = field(default_factory=set)  # that ListOffsets was sent with
    now: float = 1_000.0
    appended_at: float = 990.0  # every record, in Unix seconds
    counts: Counter[str] = field(default_factory=Counter)

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        assert timeout_s > 0
        if self.down >= {1, 2}:
            raise UnreachableError({"one:9092": "connection refused"})
        return replace(self._metadata(), bootstrap="bootstrap:9092")

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        assert timeout_s > 0
        self.asked.append([(ask.broker, type(ask.question).__name__) for ask in asks])
        self.not_awaited.append(not_awaited)
        begun = self.now
        awaited = [
            min(timeout_s, self.latency.get(ask.broker, 0.0))
            for ask in asks
            if ask.broker not in not_awaited
        ]
        patience = {False: timeout_s, True: max(awaited) + GRACE_S if awaited else timeout_s}
        for ask in asks:
            self.counts[type(ask.question).__name__] += 1
            latency = self.latency.get(ask.broker, 0.0)
            if ask.broker in self.down:
                ask.failure = Failure("timed out", broker_down=True)
            elif latency > patience[ask.broker in not_awaited]:
                ask.failure = Failure("timed out", broker_down=True)
                if latency <= timeout_s:
                    self.late[ask.broker] = begun + latency
            elif (name := type(ask.question).__name__) in self.refusing:
                ask.failure = Failure(f"{name} refused")
            else:
                answer = self.answer_or_failure(ask.broker, ask.question)
                if isinstance(answer, Failure):
                    ask.failure = answer
                else:
                    ask.answer = answer
                ask.answered_at = begun + latency
        self.now += max(awaited, default=0.0)

    def take_recovered(self) -> frozenset[int]:
        recovered = frozenset(broker for broker, at in self.late.items() if at <= self.now)
        for broker in recovered:
            del self.late[broker]
        return recovered

    def delete_group(self, group: str) -> None:
        """Delete a group with its commits, wherever it is."""
        for broker, listed in self.groups.items():
            self.groups[broker] = [known for known in listed if known.id != group]
        self.commits.pop(group, None)
        self.described.pop(group, None)

    def take_request_counts(self) -> dict[str, int]:
        counts, self.counts = self.counts, Counter()
        return dict(counts)

    def close(self) -> None:
        pass

    def _metadata(self) -> ClusterMetadata:
        brokers = {1: Broker(1, "one", 9092), 2: Broker(2, "two", 9092)}
        return ClusterMetadata(
            "cluster",
            1,
            {number: broker for number, broker in brokers.items() if number not in self.fenced},
            {
                name: replace(
                    topic,
                    partitions={
                        index: replace(of, leader=None) if of.leader in self.fenced else of
                        for index, of in topic.partitions.items()
                    },
                )
                for name, topic in self.topics.items()
            },
        )

    def answer_or_failure(self, broker: int, question: Any) -> Any:
        """Return what a broker that is up says; a test may have it fail."""
        return self._answer(broker, question)

    def _answer(self, broker: int, question: Any) -> Any:
        answer: Any
        match question:
            case Metadata():
                answer = self._metadata()
            case ListGroups():
                answer = self.groups.get(broker, [])
            case FetchCommits(groups) | FetchShareOffsets(groups):
                answer = {
                    group: self.commits.get(group, GroupCommits())
                    if self._coordinates(broker, group)
                    else GroupCommits(error="NOT_COORDINATOR", moved=True)
                    for group in groups
                }
            case (
                DescribeClassicGroups(groups)
                | DescribeConsumerGroups(groups)
                | DescribeShareGroups(groups)
                | DescribeStreamsGroups(groups)
            ):
                answer = {
                    group: self.described.get(group, DescribedGroup(error="GROUP_ID_NOT_FOUND"))
                    if self._coordinates(broker, group)
                    else DescribedGroup(error="NOT_COORDINATOR")
                    for group in groups
                }
            case FindCoordinators(groups):
                found = {group: self._coordinator(group) for group in groups}
                answer = {group: found[group] for group in groups if found[group] is not None}
            case DescribeTopicConfigs(topics):
                answer = {name: self.configs[name] for name in topics if name in self.configs}
            case DescribeOwnRights():
                answer = True
            case DescribeLogDirs():
                answer = self.log_dirs.get(broker, {})
            case ListOffsets():
                answer = self._offsets(question)
            case LookAtLogs():
                answer = self._looks(question)
            case _:
                raise TypeError(question)
        return answer

    def _coordinates(self, broker: int, group: str) -> bool:
        return self.coordinators.get(group, broker) == broker

    def _coordinator(self, group: str) -> int | None:
        """Return who coordinates a group, whether there is such a group or not."""
        if group in self.coordinators:
            return self.coordinators[group]
        for broker, listed in self.groups.items():
            if any(known.id == group for known in listed):
                return broker
        if GROUPS_TOPIC in self.topics:
            partitions = self._metadata().topics[GROUPS_TOPIC].partitions
            return partitions[partition_of(group, len(partitions))].leader
        return min({1, 2} - self.fenced, default=None)

    def _offsets(self, question: ListOffsets) -> FoundOffsets:
        self.timeouts.add(question.timeout_ms)
        found = FoundOffsets({})
        for topic, partitions in question.wanted.items():
            for index, at in partitions.items():
                if (topic, index) in self.errors:
                    found.errors.setdefault(topic, {})[index] = self.errors[topic, index]
                elif at >= 0:
                    appended = int(self.appended_at * 1000)
                    found_at = (0, appended) if at <= appended else (-1, -1)
                    offset, time = self.by_time.get((topic, index), found_at)
                    found.offsets.setdefault(topic, {})[index] = offset
                    found.timestamps.setdefault(topic, {})[index] = time
                else:
                    ends = self.stable if question.read_committed else self.ends
                    end = ends[topic, index] if at == LATEST else 0
                    found.offsets.setdefault(topic, {})[index] = end
        return FoundOffsets(found.offsets, found.timestamps, found.errors, bool(found.errors))

    def _looks(self, question: LookAtLogs) -> FoundLooks:
        self.looked_from.append(question.wanted)
        found: dict[str, dict[int, LogLook]] = {}
        errors: dict[str, dict[int, str]] = {}
        for topic, partitions in question.wanted.items():
            for index, offset in partitions.items():
                if (topic, index) in self.look_errors:
                    errors.setdefault(topic, {})[index] = self.look_errors[topic, index]
                    continue
                end = self.ends[topic, index]
                held = self.stable.get((topic, index), end)
                look = LogLook(offset if offset < held else None, held, held)
                if found and self.first_only:
                    look = LogLook(None, offset, held)
                found.setdefault(topic, {})[index] = self.looks.get((topic, index), look)
        return FoundLooks(found, errors)
