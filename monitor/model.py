"""The snapshot of a cluster that one poll brings home: plain immutable data, no I/O.

Offsets are plain ints in mappings of topic -> partition, not objects: 10,000 partitions and 20,000
commits are rebuilt every few seconds and must stay cheap. What was not seen is absent: there is no
-1 and no zero in place of an unknown value.

Moments are seconds of the monotonic clock: the wall clock may be set back or forth while the monitor
runs. `Snapshot.wall_offset` turns them into Unix time where text is made.

An answer has three kinds, which stay apart from the wire to the page: *answered*, *refused* (the
broker said no, and why), *silent* (nothing was heard, since when).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

PartitionOffsets: TypeAlias = Mapping[str, Mapping[int, int]]
"""Topic -> partition -> offset."""

Assignment: TypeAlias = Mapping[str, tuple[int, ...]]
"""Topic -> partitions, ascending."""

# Group types, as ListGroups v5 names them (in lower case here: brokers differ).
CLASSIC: Final = "classic"
CONSUMER: Final = "consumer"  # KIP-848
SHARE: Final = "share"  # KIP-932
STREAMS: Final = "streams"  # KIP-1071

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


def nothing() -> Mapping[Any, Any]:
    """Return the empty mapping that all share: thousands of groups have little to tell."""
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Answered:
    """All was told."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A part was refused: `error` has each cause; what else is shown was told in this poll."""

    error: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody answered: what is shown is from `since` (monotonic seconds), None if never told."""

    since: float | None
    error: str | None = None


Answer: TypeAlias = Answered | Refused | Silent

ANSWERED: Final = Answered()


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker as the cluster's metadata advertises it."""

    id: int
    host: str
    port: int
    rack: str | None = None

    @property
    def address(self) -> str:
        """Return `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition's leader and replicas, by broker id; the first replica is the preferred one."""

    leader: int | None
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()
    offline: tuple[int, ...] = ()

    @property
    def under_replicated(self) -> bool:
        """Say whether a replica is out of sync."""
        return len(self.isr) < len(self.replicas)

    @property
    def leader_is_preferred(self) -> bool:
        """Say whether the leader is the first replica."""
        return bool(self.replicas) and self.leader == self.replicas[0]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and its partitions by index."""

    name: str
    partitions: Mapping[int, Partition]
    internal: bool = False
    id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Offsets:
    """One offset per partition, and when each was seen.

    `seen_at` holds for every partition but those in `silent` (topic -> partition -> since when):
    their broker did not answer this time, so their last value is kept with its own time. `refused`
    (topic -> partition -> error) has those that their broker answered with an error, as for want of
    a leader or a permission: they have no value.
    """

    values: PartitionOffsets = field(default_factory=dict)
    seen_at: float = 0.0
    silent: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    refused: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def get(self, topic: str, partition: int) -> int | None:
        """Return the offset, None when it was never seen."""
        partitions = self.values.get(topic)
        return None if partitions is None else partitions.get(partition)

    def time_of(self, topic: str, partition: int) -> float:
        """Return when this partition's offset was seen."""
        silent = self.silent.get(topic)
        return self.seen_at if silent is None else silent.get(partition, self.seen_at)

    def is_silent(self, topic: str, partition: int) -> bool:
        """Say whether the value is an earlier one, kept because its broker did not answer."""
        return partition in self.silent.get(topic, _NOTHING)

    def silent_before(self, moment: float) -> dict[str, frozenset[int]]:
        """Return the partitions, by topic, whose value is from before a moment."""
        found = {
            topic: frozenset(p for p, seen_at in partitions.items() if seen_at < moment)
            for topic, partitions in self.silent.items()
        }
        return {topic: partitions for topic, partitions in found.items() if partitions}

    def without(self, gone: Mapping[str, frozenset[int]]) -> Offsets:
        """Return the offsets without these partitions; itself where it has none of them."""
        cut = {
            topic: {p: offset for p, offset in self.values[topic].items() if p not in partitions}
            for topic, partitions in gone.items()
            if topic in self.values and not partitions.isdisjoint(self.values[topic])
        }
        if not cut:
            return self
        values = {topic: found for topic, found in {**self.values, **cut}.items() if found}
        silent = {
            topic: {p: at for p, at in partitions.items() if p in values.get(topic, _NOTHING)}
            for topic, partitions in self.silent.items()
        }
        silent = {topic: partitions for topic, partitions in silent.items() if partitions}
        return replace(self, values=values, silent=silent)


class LogLook(NamedTuple):
    """What a read_committed consumer finds in a partition from an offset on.

    `readable_at` is the first offset that carries a record which it can read: no marker of a
    transaction, no record of an aborted one (None: none before `looked_to`). Batches were looked at
    up to `looked_to`; what lies between it and `stable_end` is not known. `stable_end` is the last
    stable offset: an open transaction holds back all from there on.
    """

    readable_at: int | None
    looked_to: int
    stable_end: int


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """What a topic's settings say about how long records are kept; None for what is not known.

    `retention_ms` and `retention_bytes` (per partition) are -1 where the topic sets no limit.
    `cleanup_policies` has "delete", "compact" or both.
    """

    retention_ms: int | None = None
    retention_bytes: int | None = None
    cleanup_policies: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class LogSizes:
    """The bytes on one broker's disks, topic -> partition -> bytes, and when they were seen."""

    partitions: Mapping[str, Mapping[int, int]]
    seen_at: float


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group; `assignment` is what it holds now.

    `subscription` are the topics that it may be given partitions of, None where that is not told.
    `target` is what the coordinator wants it to hold, `epoch` the member's epoch: both only in
    groups of the newer protocols (None elsewhere).
    """

    id: str
    client_id: str
    host: str
    assignment: Assignment = field(default_factory=dict)
    instance_id: str | None = None
    epoch: int | None = None
    target: Assignment | None = None
    subscription: frozenset[str] | None = None

    @property
    def partition_count(self) -> int:
        """Return how many partitions are assigned to this member."""
        return sum(map(len, self.assignment.values()))


@dataclass(frozen=True, slots=True)
class Group:
    """A group, its members and its committed offsets.

    `members` is None when they are not known (the group may not be described, or its type cannot
    be yet), and empty when the group is known to have none. `commits` has only partitions that
    carry a commit; for a share group it holds the share-partition start offsets, and `lags` the lag
    that its coordinator reports (brokers from 4.2 on): records between the start offset and the log
    end may be acknowledged already, which only it knows. `epoch` is the last that its coordinator
    told (newer types only): empty groups are asked about rarely. `left_out` are topics that members hold and that the
    monitor is not to look at: they count in what a member holds. `answer` says whether all of it was
    told in this poll: refused keeps a part from being read, and the rest stands; silent is a
    coordinator that did not answer, and commits and members are then as of its `since`.
    """

    id: str
    type: str = CLASSIC
    state: str | None = None
    protocol_type: str = ""
    assignor: str | None = None
    coordinator: int | None = None
    members: tuple[Member, ...] | None = None
    commits: PartitionOffsets = field(default_factory=nothing)
    lags: PartitionOffsets = field(default_factory=nothing)
    epoch: int | None = None
    left_out: frozenset[str] = frozenset()
    answer: Answer = ANSWERED

    @property
    def is_silent(self) -> bool:
        """Say whether its coordinator did not answer."""
        return isinstance(self.answer, Silent)

    @property
    def silent_since(self) -> float | None:
        """Return when its coordinator last answered, None while it does or if it never did."""
        return self.answer.since if isinstance(self.answer, Silent) else None

    @property
    def error(self) -> str | None:
        """Return what kept a part from being read, None when nothing did."""
        return None if isinstance(self.answer, Answered) else self.answer.error

    @property
    def topics(self) -> frozenset[str]:
        """Return the topics that it committed, lags on or holds partitions of, less those left out."""
        held = (topic for member in self.members or () for topic in member.assignment)
        return frozenset((*self.commits, *self.lags, *held)) - self.left_out

    def is_since(self, moment: float) -> bool:
        """Say whether nothing of it is older than a moment."""
        if not isinstance(self.answer, Silent):
            return True
        return self.answer.since is not None and self.answer.since >= moment

    def assignments(self) -> Iterator[tuple[Member, str, int]]:
        """Yield each assigned (member, topic, partition), but of topics that are left out."""
        for member in self.members or ():
            for topic, partitions in member.assignment.items():
                if topic in self.left_out:
                    continue
                for partition in partitions:
                    yield member, topic, partition


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one poll saw of a cluster.

    `broker_errors` has the brokers that did not answer and why; all others answered. A broker that is
    fenced leaves `brokers`: `missing_brokers` has those that a partition names as a replica and the
    metadata no longer lists. `requests`
    counts what the poll sent, by API name. `taken_at` is when the last reply was in, `monotonic_at`
    the same moment on the monotonic clock, in seconds, for differences between polls that a clock
    set back must not disturb; every other moment here is on the monotonic clock.

    `groups_complete` says whether a group that is not here does not exist: every broker sent its
    list, and none is just starting. A group that was here stays until its absence is proven.

    `stable_offsets` (the last stable offset, where a read_committed consumer stops), `topic_configs`
    and `log_sizes` (by broker id) are empty unless they were asked for. A topic without an entry in
    `topic_configs` has settings that could not be read.

    `unreadable` has the partitions whose logs may not be looked into, topic -> partition -> error,
    where that was tried since the poll before: all that is there counts as readable.

    `failures` has the faults of our own, (step, subject) -> cause: what the step would have told of
    the subject was not seen.
    """

    cluster_id: str | None
    taken_at: float
    monotonic_at: float
    duration_seconds: float = 0.0
    controller: int | None = None
    brokers: Mapping[int, Broker] = field(default_factory=dict)
    broker_errors: Mapping[int, str] = field(default_factory=dict)
    missing_brokers: frozenset[int] = frozenset()
    topics: Mapping[str, Topic] = field(default_factory=dict)
    start_offsets: Offsets = field(default_factory=Offsets)
    end_offsets: Offsets = field(default_factory=Offsets)
    stable_offsets: Offsets = field(default_factory=Offsets)
    groups: Mapping[str, Group] = field(default_factory=dict)
    groups_complete: bool = True
    requests: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    topic_configs: Mapping[str, TopicConfig] = field(default_factory=dict)
    log_sizes: Mapping[int, LogSizes] = field(default_factory=dict)
    unreadable: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    failures: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def wall_offset(self) -> float:
        """Return what the wall clock is ahead of the monotonic one, in seconds."""
        return self.taken_at - self.monotonic_at

    @property
    def seen_at(self) -> float:
        """Return when the log ends were seen, which lags in seconds are of (monotonic seconds)."""
        return self.end_offsets.seen_at or self.monotonic_at

    @property
    def log_bytes(self) -> PartitionOffsets:
        """Return topic -> partition -> bytes of the leader's log, where its broker told."""
        found: dict[str, dict[int, int]] = {}
        for name, topic in self.topics.items():
            for index, partition in topic.partitions.items():
                sizes = (
                    self.log_sizes.get(partition.leader) if partition.leader is not None else None
                )
                size = sizes.partitions.get(name, {}).get(index) if sizes is not None else None
                if size is not None:
                    found.setdefault(name, {})[index] = size
        return found

    def without_older_than(self, moment: float) -> Snapshot:
        """Return what was seen since a moment (monotonic seconds); itself where all was.

        A partition whose log end is older loses its other offsets as well: they are one log's. What
        was refused is no older for it. Brokers that do not answer stay: that they do not is of now.
        """
        if self.monotonic_at < moment:
            return Snapshot(self.cluster_id, self.taken_at, self.monotonic_at)
        gone = self.end_offsets.silent_before(moment)
        groups = {
            group_id: group for group_id, group in self.groups.items() if group.is_since(moment)
        }
        sizes = {
            broker: size
            for broker, size in self.log_sizes.items()
            if size.seen_at >= moment or broker not in self.broker_errors
        }
        if not gone and len(groups) == len(self.groups) and len(sizes) == len(self.log_sizes):
            return self
        ends = self.end_offsets.without(gone)
        # where nobody has answered for so long, nobody knows who leads what, either
        is_lost = not ends.values and self.broker_errors.keys() >= self.brokers.keys()
        return replace(
            self,
            topics={} if is_lost else self.topics,
            start_offsets=self.start_offsets.without(gone),
            end_offsets=ends,
            stable_offsets=self.stable_offsets.without(gone),
            groups=groups if len(groups) < len(self.groups) else self.groups,
            log_sizes=sizes,
        )
