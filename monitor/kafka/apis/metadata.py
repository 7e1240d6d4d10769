"""Metadata: all brokers, topics and partitions, as one broker has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from kafka.protocol.metadata import MetadataRequest, MetadataResponse

from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.encoded import EncodedRequest, LastAnswer, Reply
from monitor.kafka.questions import Failure, Question, VersionOf
from monitor.model import Broker, Partition, Topic, nothing

# The first version whose reply begins with the throttle time, as `Reply` takes it.
THROTTLE_TIME: Final = 3


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
class Metadata(Question[ClusterMetadata]):
    """All brokers, topics and partitions.

    Where the reply says the same as that of `last`, the answer is the same object; a topic that is as
    it is `known` is that object.
    """

    last: LastAnswer[ClusterMetadata] = field(default_factory=LastAnswer, compare=False, repr=False)
    known: Mapping[str, Topic] = field(default_factory=nothing, compare=False, repr=False)

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Ask for all topics, and have none created."""
        request = MetadataRequest(topics=None, allow_auto_topic_creation=False)
        version = version_of(MetadataRequest)
        if version < THROTTLE_TIME:
            return [request]
        # raw: of the bootstrap servers that all answer only the first is read
        body = request.encode(version=version)
        return [EncodedRequest(MetadataRequest, version, body, raw=True)]

    def read(self, replies: Sequence[Any]) -> ClusterMetadata | Failure:
        """Read the reply; raises ValueError when it has no brokers: the broker is starting."""
        (reply,) = replies
        if not isinstance(reply, Reply):
            return _read(reply, self.known)
        return self.last.read(
            reply,
            lambda body: _read(MetadataResponse.decode(body, version=reply.version), self.known),
        )


def _read(reply: Any, known: Mapping[str, Topic]) -> ClusterMetadata:
    if not reply.brokers:
        raise ValueError("its metadata names no brokers yet")
    return ClusterMetadata(
        cluster_id=reply.cluster_id,
        controller=reply.controller_id if reply.controller_id >= 0 else None,
        brokers={b.node_id: Broker(b.node_id, b.host, b.port, b.rack) for b in reply.brokers},
        topics={
            sys.intern(topic.name): _topic(topic, known.get(topic.name))
            for topic in reply.topics
            if topic.name is not None
        },
    )


def _topic(topic: Any, known: Topic | None) -> Topic:
    found = Topic(
        name=sys.intern(topic.name),
        partitions={
            partition.partition_index: _placed(
                partition.leader_id,
                tuple(partition.replica_nodes),
                tuple(partition.isr_nodes),
                tuple(partition.offline_replicas or ()),
            )
            for partition in sorted(topic.partitions, key=lambda p: p.partition_index)
        },
        internal=bool(topic.is_internal),
        id=str(topic.topic_id) if topic.topic_id else None,
        error=error_name(topic.error_code) if topic.error_code else None,
    )
    return known if known == found else found  # the answer is kept, and another copy with it


@lru_cache(maxsize=10_000)
def _placed(
    leader: int, replicas: tuple[int, ...], isr: tuple[int, ...], offline: tuple[int, ...]
) -> Partition:
    """Return one object for all partitions that are placed alike: 10,000 take 2 MB otherwise."""
    return Partition(leader if leader >= 0 else None, replicas, isr, offline)
