"""What the monitor asks brokers, and what it gets back: the seam between collector and wire.

The collector builds questions and reads answers; the wire alone knows how they travel. A test puts
a fake in the place of the wire here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from monitor.model import (
    Broker,
    LogLook,
    Member,
    Partition,
    PartitionOffsets,
    Topic,
    TopicConfig,
    nothing,
)

Answer = TypeVar("Answer")

# How much longer than the others a broker that failed in the last poll may take.
GRACE_S: Final = 0.1
# Values of `ListOffsets.wanted` in place of a timestamp in milliseconds (KIP-79).
LATEST: Final = -1
EARLIEST: Final = -2


class UnreachableError(Exception):
    """No bootstrap server could be asked; the message names each address and its cause."""

    def __init__(self, causes: Mapping[str, str]) -> None:
        self.causes = causes
        super().__init__("; ".join(f"{address}: {cause}" for address, cause in causes.items()))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a question has no answer; `broker_down` when the broker itself did not answer.

    `refused` says that it could be reached, and refused our login or our certificate; `unclear` that
    something listens there, and the cause may be that it wants to be spoken to otherwise. `too_large` is a reply that is larger than one may be: less is to be asked for at once. It costs
    the connection, and so the questions that were under way on it: they are `lost`.
    """

    cause: str
    broker_down: bool = False
    refused: bool = False
    unclear: bool = False
    too_large: bool = False
    lost: bool = False


class Question(Generic[Answer]):
    """One request of one API to one broker; the type parameter is its answer's type."""

    __slots__ = ()


@dataclass(slots=True)
class Ask(Generic[Answer]):
    """A question to a broker, and after the exchange its answer or its failure.

    `answered_at` is when the answer came, in seconds of the monotonic clock.
    """

    broker: int
    question: Question[Answer]
    answer: Answer | None = None
    failure: Failure | None = None
    answered_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ClusterMetadata:
    """Brokers, topics and partitions as one broker's metadata has them.

    `bootstrap` is the address that told it, where one was asked that the settings name.
    `group_partitions` are those of `__consumer_offsets`, whose leaders coordinate the groups.
    `missing_brokers` are replicas of some partition, also of a topic that is not wanted, and not in
    `brokers`.
    """

    cluster_id: str | None
    controller: int | None
    brokers: Mapping[int, Broker]
    topics: Mapping[str, Topic]
    group_partitions: Mapping[int, Partition] = field(default_factory=dict)
    missing_brokers: frozenset[int] = frozenset()
    bootstrap: str | None = None

    @property
    def leaderless(self) -> bool:
        """Say whether a partition has no leader: a broker is away, and may be back soon."""
        partitions = [topic.partitions for topic in self.topics.values()]
        return any(
            p.leader is None for of in (*partitions, self.group_partitions) for p in of.values()
        )


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group in a coordinator's list; `state` is None where the broker is too old to tell."""

    id: str
    type: str
    state: str | None
    protocol_type: str


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group's description, or its own error."""

    state: str | None = None
    assignor: str | None = None
    epoch: int | None = None
    members: tuple[Member, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class GroupCommits:
    """A group's positions, or its own error; `moved` when another broker coordinates it.

    `lags` has the lag of a share group's partitions, from brokers that tell it. `size` is what it
    took of the reply, in bytes, 0 where that is not known.
    """

    offsets: PartitionOffsets = field(default_factory=nothing)
    lags: PartitionOffsets = field(default_factory=nothing)
    error: str | None = None
    moved: bool = False
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class FoundOffsets:
    """Offsets of partitions; each missing one has its error.

    `timestamps` (milliseconds) has the found record's time where a timestamp was asked for; offset
    and time are both -1 where no record is as new.
    `leader_moved` says that the metadata behind the question is out of date.
    """

    offsets: dict[str, dict[int, int]]
    timestamps: dict[str, dict[int, int]] = field(default_factory=dict)
    errors: dict[str, dict[int, str]] = field(default_factory=dict)
    leader_moved: bool = False


@dataclass(frozen=True, slots=True)
class FoundLooks:
    """What was found in each log; partitions that may not be read, or failed, have their error.

    `leader_moved` says that the metadata behind the question is out of date.
    """

    looks: dict[str, dict[int, LogLook]]
    errors: dict[str, dict[int, str]] = field(default_factory=dict)
    leader_moved: bool = False


@dataclass(frozen=True, slots=True)
class Metadata(Question[ClusterMetadata]):
    """All brokers, topics and partitions."""


@dataclass(frozen=True, slots=True)
class ListGroups(Question[list[ListedGroup]]):
    """The groups that the broker coordinates."""


@dataclass(frozen=True, slots=True)
class DescribeClassicGroups(Question[dict[str, DescribedGroup]]):
    """State and members of groups of the classic protocol."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class DescribeConsumerGroups(Question[dict[str, DescribedGroup]]):
    """State and members of groups of the consumer protocol (KIP-848)."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class DescribeShareGroups(Question[dict[str, DescribedGroup]]):
    """State and members of share groups (KIP-932)."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class DescribeStreamsGroups(Question[dict[str, DescribedGroup]]):
    """State and members of streams groups (KIP-1071)."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class FetchShareOffsets(Question[dict[str, GroupCommits]]):
    """The start offset, and the lag where the broker tells it, of each group's share-partitions."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class FetchCommits(Question[dict[str, GroupCommits]]):
    """All committed offsets of each group."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class FindCoordinators(Question[dict[str, int]]):
    """The coordinating broker of each group; groups without one are absent."""

    groups: Sequence[str]


@dataclass(eq=False, slots=True)
class ListOffsets(Question[FoundOffsets]):
    """The offset of each partition at LATEST, EARLIEST or a timestamp in milliseconds.

    The same question is asked at every poll, so `encoded` is for the wire to keep it as bytes:
    encoding 10,000 partitions costs as much CPU as reading the reply. `wanted` must not change.
    `read_committed` has LATEST mean the last stable offset. The broker searches remote storage for
    `timeout_ms` at most (from version 10 on; 0 would be its own default, 30 s).
    """

    wanted: Mapping[str, Mapping[int, int]]
    read_committed: bool = False
    timeout_ms: int = 3_500
    encoded: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class LookAtLogs(Question[FoundLooks]):
    """The batches of each partition from an offset on, as a read_committed consumer takes them.

    The reply is small, and so tells of some partitions nothing but their last stable offset; of the
    first that has records it tells at least one batch.
    """

    wanted: Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class DescribeTopicConfigs(Question[dict[str, TopicConfig]]):
    """The settings of topics; any broker knows them. Those that can't be read are absent."""

    topics: Sequence[str]


@dataclass(frozen=True, slots=True)
class DescribeLogDirs(Question[dict[str, dict[int, int]]]):
    """The bytes of each of the broker's replicas, topic -> partition -> bytes."""


@dataclass(frozen=True, slots=True)
class DescribeOwnRights(Question[bool]):
    """Whether this login may describe the cluster, and so all of its groups."""


class Brokers(Protocol):
    """A connection to a cluster's brokers."""

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Ask all bootstrap servers, return with the first that answers; raise UnreachableError."""

    def ask(
        self,
        asks: Sequence[Ask[object]],
        timeout_s: float,
        not_awaited: Collection[int] = (),
    ) -> None:
        """Send all, then await all and fill in each one's answer or failure.

        Brokers in `not_awaited` are asked too, but nobody waits for them longer than for the others
        and GRACE_S. Their questions go on until `timeout_s`: see `take_recovered`.
        """

    def take_recovered(self) -> frozenset[int]:
        """Return the brokers whose answer came when nobody waited any longer, since the last call."""

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last call, by API name."""

    def close(self) -> None:
        """Close all connections."""
