"""A cluster in memory that behaves as brokers do: logs of records and markers, groups, coordinators.

It is put in the place of the wire, for states that a real broker cannot be brought to and for the
fuzz of histories. Two brokers; of each topic, partition n is led by broker n % 2 + 1. What is true
stays known here, so that tests can say what may be told of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.fetch import FoundLooks, LookAtLogs
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.list_offsets import EARLIEST, LATEST, FoundOffsets, ListOffsets
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.coordinators import GROUPS_TOPIC, partition_of
from monitor.kafka.questions import Ask, Failure
from monitor.model import CLASSIC, Broker, LogLook, Member, Partition, Topic, TopicConfig

DATA: Final = "data"
MARKER: Final = "marker"
ABORTED: Final = "aborted"
OPEN: Final = "open"
ADDRESSES: Final = {1: "one", 2: "two"}
STARTED_AT: Final = 10_000.0  # monotonic seconds


class Clock:
    """The monitor's clocks; only the wall clock can be set. `passed` is the monotonic one.

    `begins` is the true Unix time at its start; the brokers' clocks are never set.
    """

    def __init__(self, begins: float = 1_700_000_000.0) -> None:
        self.passed = STARTED_AT
        self.true_offset = begins - STARTED_AT
        self.set_by = 0.0
        self.moved = 0.0  # by how much the wall clock was set in all

    def wall(self) -> float:
        """Return Unix time as the monitor's machine has it."""
        return self.passed + self.true_offset + self.set_by

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return self.passed

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds

    def set_wall(self, by: float) -> None:
        """Set the wall clock back or forth."""
        self.set_by += by
        self.moved += abs(by)


@dataclass(slots=True)
class Record:
    """What takes one offset; `at` is when it was appended, in monotonic seconds."""

    offset: int
    at: float
    stamp_ms: int
    kind: str = DATA


@dataclass
class Log:
    """A partition's log."""

    true_offset: float
    records: list[Record] = field(default_factory=list)
    start: int = 0
    end: int = 0

    def append(self, count: int, at: float, kind: str = DATA, stamp: float | None = None) -> None:
        """Append records, stamped with the true time unless told otherwise (Unix seconds)."""
        stamp_ms = int((at + self.true_offset if stamp is None else stamp) * 1000)
        for _ in range(count):
            self.records.append(Record(self.end, at, stamp_ms, kind))
            self.end += 1

    def end_open(self, kind: str, at: float) -> None:
        """Commit (DATA) or abort (ABORTED) what is open."""
        if any(record.kind == OPEN for record in self.records):
            for record in self.records:
                if record.kind == OPEN:
                    record.kind = kind
            self.append(1, at, MARKER)

    def delete_to(self, offset: int) -> None:
        """Delete what is before an offset."""
        self.start = max(self.start, min(offset, self.end))
        self.records = [record for record in self.records if record.offset >= self.start]

    def compact(self) -> None:
        """Drop every other record but the last."""
        kept = {record.offset for record in self.records[::2]}
        last = self.records[-1:]
        self.records = [r for r in self.records if r.offset in kept or r.kind == OPEN or r in last]

    @property
    def stable_end(self) -> int:
        """Return the last stable offset."""
        return next((r.offset for r in self.records if r.kind == OPEN), self.end)

    def first_since(self, stamp_ms: int) -> tuple[int, int]:
        """Return offset and stamp of the first that is as new; markers count, as in a broker."""
        return next(
            ((r.offset, r.stamp_ms) for r in self.records if r.stamp_ms >= stamp_ms), (-1, -1)
        )

    def readable(self, offset: int) -> list[Record]:
        """Return what a read_committed consumer finds from an offset on."""
        held = self.stable_end
        return [
            r for r in self.records if max(offset, self.start) <= r.offset < held and r.kind == DATA
        ]


@dataclass
class ModelTopic:
    """A topic; `id` is another one each time it is created."""

    id: str
    logs: list[Log]
    config: TopicConfig = field(
        default_factory=lambda: TopicConfig(7 * 86_400_000, -1, frozenset({"delete"}))
    )


@dataclass
class ModelGroup:
    """A group; `refused` is the error that asking for it gives, `loading` that of a coordinator."""

    commits: dict[str, dict[int, int]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    refused: str | None = None
    loading: bool = False
    unlisted: bool = False
    ghost: GroupCommits | None = None  # what the other broker, which lists it as Empty, answers
    says: str | None = None  # its state, where it is neither Stable nor Empty

    @property
    def state(self) -> str:
        """Return what the coordinator says of it."""
        return self.says or ("Stable" if self.members else "Empty")


class ModelCluster:
    """The brokers; `clock` goes on while they are slow or silent."""

    def __init__(
        self, clock: Clock, *, tells_ids: bool = True, hides_coordinators: bool = False
    ) -> None:
        self.clock = clock
        self.tells_ids = tells_ids
        self.hides_coordinators = hides_coordinators
        self.topics: dict[str, ModelTopic] = {}
        self.groups: dict[str, ModelGroup] = {}
        self.silent: set[int] = set()
        self.starting: set[int] = set()  # list no groups, and say no error
        self.fenced: set[int] = set()
        self.slow: dict[int, float] = {}
        self.slow_by_time: dict[int, float] = {}
        self.errors: dict[tuple[str, int], str] = {}
        self.counts: Counter[str] = Counter()
        self.order: Sequence[int] = (1, 2)
        self.raises: Callable[[Any], None] = lambda _: None
        self._created = 0
        self._answers: Mapping[str, Callable[[int, Any], Any]] = {
            "Metadata": lambda _, __: self._metadata(),
            "ListGroups": lambda broker, _: self._listed(broker),
            "FetchCommits": lambda broker, q: {g: self._commits(broker, g) for g in q.groups},
            "FetchShareOffsets": lambda broker, q: {g: self._commits(broker, g) for g in q.groups},
            "FindCoordinators": lambda _, q: {
                g: at for g in q.groups if (at := self.coordinator(g)) is not None
            },
            "ListOffsets": lambda _, q: self._offsets(q),
            "LookAtLogs": lambda _, q: self._looks(q),
            "DescribeTopicConfigs": lambda _, q: {
                name: self.topics[name].config for name in q.topics if name in self.topics
            },
            "DescribeLogDirs": lambda _, __: {},
            "DescribeOwnRights": lambda _, __: True,
            **dict.fromkeys(
                (
                    "DescribeClassicGroups",
                    "DescribeConsumerGroups",
                    "DescribeShareGroups",
                    "DescribeStreamsGroups",
                ),
                lambda broker, q: {g: self._described(broker, g) for g in q.groups},
            ),
        }

    # -- what happens to it -----------------------------------------------------------------------

    def create(self, name: str, partitions: int = 1) -> ModelTopic:
        """Create a topic, or another under its name."""
        self._created += 1
        self.topics[name] = topic = ModelTopic(
            f"id{self._created}", [Log(self.clock.true_offset) for _ in range(partitions)]
        )
        return topic

    def append(self, name: str, count: int, partition: int = 0, **options: Any) -> None:
        """Append records now."""
        self.topics[name].logs[partition].append(count, self.clock.passed, **options)

    def append_to_all(self, name: str, count: int) -> None:
        """Append as many records to each partition."""
        for index in range(len(self.topics[name].logs)):
            self.append(name, count, index)

    def commit(self, group: str, topic: str, *offsets: int | None) -> None:
        """Commit offsets by partition; None for no commit."""
        commits = self.groups.setdefault(group, ModelGroup()).commits.setdefault(topic, {})
        commits.update({i: offset for i, offset in enumerate(offsets) if offset is not None})

    def join(self, group: str, *topics: str) -> None:
        """Have one member hold all partitions of these topics."""
        held = {name: tuple(range(len(self.topics[name].logs))) for name in topics}
        self.groups.setdefault(group, ModelGroup()).members = (
            Member("m-1", "client", "/host", held),
        )

    def coordinator(self, group: str) -> int | None:
        """Return the broker that coordinates a group."""
        broker = partition_of(group, 2) + 1
        return None if broker in self.fenced else broker

    # -- the seam ---------------------------------------------------------------------------------

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Answer as the bootstrap servers do."""
        if self.silent >= {1, 2}:
            self.clock.passed += timeout_s
            raise UnreachableError({"one:9092": "connection refused"})
        return self._metadata()

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        """Answer, or fail, as the brokers do."""
        begun = self.clock.passed
        waited = 0.0
        for ask in asks:
            name = type(ask.question).__name__
            self.counts[name] += 1
            self.raises(ask.question)
            takes = self.slow.get(ask.broker, 0.0)
            if isinstance(ask.question, ListOffsets) and any(
                at >= 0 for of in ask.question.wanted.values() for at in of.values()
            ):
                takes = max(takes, self.slow_by_time.get(ask.broker, 0.0))
            if ask.broker in self.silent or ask.broker in self.fenced or takes > timeout_s:
                waited = max(waited, timeout_s if ask.broker not in not_awaited else 0.0)
                ask.failure = Failure("timed out", broker_down=True)
            else:
                waited = max(waited, takes)
                ask.answer = self._answers[name](ask.broker, ask.question)
                ask.answered_at = begun + takes
        self.clock.passed += waited

    def take_recovered(self) -> frozenset[int]:
        """Return the brokers that are well again."""
        return frozenset({1, 2} - self.silent - self.fenced)

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests since the last call."""
        counts, self.counts = self.counts, Counter()
        return dict(counts)

    def close(self) -> None:
        """Close nothing."""

    # -- answers ----------------------------------------------------------------------------------

    def _metadata(self) -> ClusterMetadata:
        def partition(index: int, *, replicas: tuple[int, ...] = ()) -> Partition:
            leader = index % 2 + 1
            held = replicas or (leader,)
            alive = tuple(one for one in held if one not in self.fenced)
            return Partition(None if leader in self.fenced else leader, held, alive)

        topics = {
            name: Topic(
                name,
                {index: partition(index) for index in range(len(topic.logs))},
                id=topic.id if self.tells_ids else None,
            )
            for name, topic in self.topics.items()
        }
        if not self.hides_coordinators:
            topics[GROUPS_TOPIC] = Topic(
                GROUPS_TOPIC, {n: partition(n) for n in range(2)}, internal=True
            )
        brokers = {n: Broker(n, ADDRESSES[n], 9092) for n in self.order if n not in self.fenced}
        return ClusterMetadata("model", 1, brokers, topics)

    def _listed(self, broker: int) -> list[ListedGroup]:
        if broker in self.starting:
            return []
        found = []
        for name, group in self.groups.items():
            if self.coordinator(name) == broker:
                if not group.unlisted:
                    found.append(ListedGroup(name, CLASSIC, group.state, "consumer"))
            elif group.ghost is not None:
                found.append(ListedGroup(name, CLASSIC, "Empty", "consumer"))
        return found

    def _commits(self, broker: int, name: str) -> GroupCommits:
        group = self.groups.get(name)
        if self.coordinator(name) != broker:
            if group is not None and group.ghost is not None:
                return group.ghost
            return GroupCommits(error="NOT_COORDINATOR", moved=True)
        if broker in self.starting or (group is not None and group.loading):
            return GroupCommits(error="COORDINATOR_LOAD_IN_PROGRESS")
        if group is None:
            return GroupCommits()
        if group.refused:
            return GroupCommits(error=group.refused)
        # as the decoder has it: a negative offset is no commit
        return GroupCommits(
            {
                topic: {index: offset for index, offset in commits.items() if offset >= 0}
                for topic, commits in group.commits.items()
                if any(offset >= 0 for offset in commits.values())
            }
        )

    def _described(self, broker: int, name: str) -> DescribedGroup:
        group = self.groups.get(name)
        if self.coordinator(name) != broker:
            return DescribedGroup(error="NOT_COORDINATOR")
        if broker in self.starting or (group is not None and group.loading):
            return DescribedGroup(error="COORDINATOR_LOAD_IN_PROGRESS")
        if group is None:
            return DescribedGroup(state="Dead", members=())
        if group.refused:
            return DescribedGroup(error=group.refused)
        return DescribedGroup(group.state, "range", members=group.members)

    def _logs(self, wanted: Mapping[str, Mapping[int, int]]) -> list[tuple[str, int, int, Log]]:
        return [
            (name, index, at, self.topics[name].logs[index])
            for name, partitions in wanted.items()
            for index, at in partitions.items()
            if name in self.topics and index < len(self.topics[name].logs)
        ]

    def _offsets(self, question: ListOffsets) -> FoundOffsets:
        offsets: defaultdict[str, dict[int, int]] = defaultdict(dict)
        stamps: defaultdict[str, dict[int, int]] = defaultdict(dict)
        errors: defaultdict[str, dict[int, str]] = defaultdict(dict)
        moved = False
        for name, partitions in question.wanted.items():
            for index in partitions:
                if name == GROUPS_TOPIC:
                    offsets[name][index] = 0
                elif name not in self.topics or index >= len(self.topics[name].logs):
                    errors[name][index] = "UNKNOWN_TOPIC_OR_PARTITION"
                    moved = True
        for name, index, at, log in self._logs(question.wanted):
            if (name, index) in self.errors:
                errors[name][index] = self.errors[name, index]
            elif at == LATEST:
                offsets[name][index] = log.stable_end if question.read_committed else log.end
            elif at == EARLIEST:
                offsets[name][index] = log.start
            else:
                offsets[name][index], stamps[name][index] = log.first_since(at)
        return FoundOffsets(dict(offsets), dict(stamps), dict(errors), moved)

    def _looks(self, question: LookAtLogs) -> FoundLooks:
        found: defaultdict[str, dict[int, LogLook]] = defaultdict(dict)
        for name, index, offset, log in self._logs(question.wanted):
            if (name, index) not in self.errors and offset >= log.start:
                readable = log.readable(offset)
                at = readable[0].offset if readable else None
                found[name][index] = LogLook(at, log.stable_end, log.stable_end)
        return FoundLooks(dict(found))
