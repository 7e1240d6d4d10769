"""Turns brokers' replies into the monitor's own plain data.

Replies are read by the field names of Kafka's message schemas; no client library is named here.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from monitor.kafka.questions import (
    ClusterMetadata,
    DescribedGroup,
    Failure,
    FoundOffsets,
    GroupCommits,
    ListedGroup,
)
from monitor.model import (
    CLASSIC,
    Assignment,
    Broker,
    Member,
    Partition,
    Topic,
    TopicConfig,
)

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
NOT_LEADER_OR_FOLLOWER: Final = 6
COORDINATOR_NOT_AVAILABLE: Final = 15
NOT_COORDINATOR: Final = 16

_ERROR_NAMES: Final = {
    1: "OFFSET_OUT_OF_RANGE",
    UNKNOWN_TOPIC_OR_PARTITION: "UNKNOWN_TOPIC_OR_PARTITION",
    5: "LEADER_NOT_AVAILABLE",
    NOT_LEADER_OR_FOLLOWER: "NOT_LEADER_OR_FOLLOWER",
    7: "REQUEST_TIMED_OUT",
    9: "REPLICA_NOT_AVAILABLE",
    14: "COORDINATOR_LOAD_IN_PROGRESS",
    COORDINATOR_NOT_AVAILABLE: "COORDINATOR_NOT_AVAILABLE",
    NOT_COORDINATOR: "NOT_COORDINATOR",
    17: "INVALID_TOPIC_EXCEPTION",
    24: "INVALID_GROUP_ID",
    29: "TOPIC_AUTHORIZATION_FAILED",
    30: "GROUP_AUTHORIZATION_FAILED",
    31: "CLUSTER_AUTHORIZATION_FAILED",
    35: "UNSUPPORTED_VERSION",
    43: "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    56: "KAFKA_STORAGE_ERROR",
    69: "GROUP_ID_NOT_FOUND",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    88: "UNSTABLE_OFFSET_COMMIT",
    100: "UNKNOWN_TOPIC_ID",
}

# The metadata that led to the question is out of date when a broker answers with one of these.
LEADER_MOVED: Final = frozenset(
    {UNKNOWN_TOPIC_OR_PARTITION, 5, NOT_LEADER_OR_FOLLOWER, 9, 56, 74, 75}
)
COORDINATOR_MOVED: Final = frozenset({COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR})


def error_name(code: int) -> str:
    """Return the protocol's name of an error code."""
    return _ERROR_NAMES.get(code, f"error {code}")


def read_metadata(reply: Any) -> ClusterMetadata:
    """Read a Metadata reply."""
    return ClusterMetadata(
        cluster_id=reply.cluster_id,
        controller=reply.controller_id if reply.controller_id >= 0 else None,
        brokers={
            broker.node_id: Broker(broker.node_id, broker.host, broker.port, broker.rack)
            for broker in reply.brokers
        },
        topics={
            (name := sys.intern(topic.name)): Topic(
                name=name,
                partitions={
                    partition.partition_index: placed(
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
            for topic in reply.topics
            if topic.name is not None
        },
    )


@lru_cache(maxsize=10_000)
def placed(
    leader: int, replicas: tuple[int, ...], isr: tuple[int, ...], offline: tuple[int, ...]
) -> Partition:
    """Return one object for all partitions that are placed alike: 10,000 take 2 MB otherwise."""
    return Partition(leader if leader >= 0 else None, replicas, isr, offline)


def read_groups(reply: Any) -> list[ListedGroup] | Failure:
    """Read a ListGroups reply; a coordinator that is still loading is a failure of this list."""
    if reply.error_code:
        return Failure(f"ListGroups: {error_name(reply.error_code)}")
    return [
        ListedGroup(
            id=sys.intern(group.group_id),
            type=(group.group_type or CLASSIC).lower(),  # brokers before 3.8 do not say
            state=group.group_state or None,  # nor the state before 2.6
            protocol_type=group.protocol_type or "",
        )
        for group in reply.groups
    ]


def read_classic_descriptions(reply: Any) -> dict[str, DescribedGroup]:
    """Read a DescribeGroups reply."""
    return {
        group.group_id: DescribedGroup(error=_described_error(group))
        if group.error_code
        else DescribedGroup(
            state=group.group_state or None,
            assignor=group.protocol_data or None,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.group_instance_id,
                    # other protocol types (Connect's workers) put something else in these bytes
                    assignment=decode_assignment(bytes(member.member_assignment))
                    if group.protocol_type == "consumer"
                    else {},
                )
                for member in group.members
            ),
        )
        for group in reply.groups
    }


def read_consumer_descriptions(reply: Any) -> dict[str, DescribedGroup]:
    """Read a ConsumerGroupDescribe reply."""
    return {
        group.group_id: DescribedGroup(error=_described_error(group))
        if group.error_code
        else DescribedGroup(
            state=group.group_state or None,
            assignor=group.assignor_name or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.instance_id,
                    assignment=_named_assignment(member.assignment),
                    target=_named_assignment(member.target_assignment),
                    epoch=member.member_epoch,
                )
                for member in group.members
            ),
        )
        for group in reply.groups
    }


def read_share_descriptions(reply: Any) -> dict[str, DescribedGroup]:
    """Read a ShareGroupDescribe reply; members share partitions, so that several hold the same."""
    return {
        group.group_id: DescribedGroup(error=_described_error(group))
        if group.error_code
        else DescribedGroup(
            state=group.group_state or None,
            assignor=group.assignor_name or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    assignment=_named_assignment(member.assignment),
                    epoch=member.member_epoch,
                )
                for member in group.members
            ),
        )
        for group in reply.groups
    }


def read_streams_descriptions(reply: Any) -> dict[str, DescribedGroup]:
    """Read a StreamsGroupDescribe reply; a member holds what its active tasks read.

    Standby and warm-up tasks read changelogs only. Task n of a subtopology reads partition n of
    each of its source topics.
    """
    found = {}
    for group in reply.groups:
        if group.error_code:
            found[group.group_id] = DescribedGroup(error=_described_error(group))
            continue
        sources = {
            subtopology.subtopology_id: [
                *subtopology.source_topics,
                *(topic.name for topic in subtopology.repartition_source_topics),
            ]
            for subtopology in (group.topology.subtopologies if group.topology else None) or ()
        }
        found[group.group_id] = DescribedGroup(
            state=group.group_state or None,
            epoch=group.group_epoch,
            members=tuple(
                Member(
                    id=member.member_id,
                    client_id=member.client_id,
                    host=member.client_host,
                    instance_id=member.instance_id,
                    assignment=_read_by(member.assignment.active_tasks, sources),
                    target=_read_by(member.target_assignment.active_tasks, sources),
                    epoch=member.member_epoch,
                )
                for member in group.members
            ),
        )
    return found


def _read_by(tasks: Iterable[Any], sources: Mapping[str, Sequence[str]]) -> Assignment:
    assignment: dict[str, set[int]] = {}
    for task in tasks:
        for topic in sources.get(task.subtopology_id, ()):
            assignment.setdefault(topic, set()).update(task.partitions)
    return {topic: tuple(sorted(partitions)) for topic, partitions in assignment.items()}


def read_share_offsets(reply: Any) -> dict[str, GroupCommits]:
    """Read a DescribeShareGroupOffsets reply; -1 is a partition that nobody has fetched yet."""
    found = {}
    for group in reply.groups:
        if group.error_code:
            moved = group.error_code in COORDINATOR_MOVED
            found[group.group_id] = GroupCommits(error=error_name(group.error_code), moved=moved)
            continue
        offsets: dict[str, dict[int, int]] = {}
        lags: dict[str, dict[int, int]] = {}
        error = None
        for topic in group.topics:
            for partition in topic.partitions:
                index = partition.partition_index
                if partition.error_code:
                    error = f"{topic.topic_name}-{index}: {error_name(partition.error_code)}"
                    continue
                if partition.start_offset >= 0:
                    offsets.setdefault(topic.topic_name, {})[index] = partition.start_offset
                if (partition.lag if partition.lag is not None else -1) >= 0:
                    lags.setdefault(topic.topic_name, {})[index] = partition.lag
        found[group.group_id] = GroupCommits(offsets, lags, error)
    return found


def read_group_commits(topics: Iterable[Any], error_code: int) -> GroupCommits:
    """Read one group's topics of an OffsetFetch reply; -1 means that a partition has no commit, and is left out."""
    if error_code:
        return GroupCommits(error=error_name(error_code), moved=error_code in COORDINATOR_MOVED)
    offsets: dict[str, dict[int, int]] = {}
    error = None
    for topic in topics:
        committed = {}
        for partition in topic.partitions:
            if partition.error_code:
                error = (
                    f"{topic.name}-{partition.partition_index}: {error_name(partition.error_code)}"
                )
            elif partition.committed_offset >= 0:
                committed[partition.partition_index] = partition.committed_offset
        if committed:
            offsets[topic.name] = committed
    return GroupCommits(offsets, error=error)


def read_coordinators(coordinators: Iterable[Any]) -> dict[str, int]:
    """Read the coordinators of a FindCoordinator reply (v4 and later)."""
    return {c.key: c.node_id for c in coordinators if not c.error_code and c.node_id >= 0}


def read_offsets(replies: Sequence[Any], *, with_timestamps: bool) -> FoundOffsets:
    """Read ListOffsets replies; offset -1 is an answer only where a timestamp was asked for."""
    found = FoundOffsets({})
    leader_moved = False
    for reply in replies:
        for topic in reply.topics:
            offsets = found.offsets.setdefault(topic.name, {})
            for partition in topic.partitions:
                if partition.error_code:
                    leader_moved = leader_moved or partition.error_code in LEADER_MOVED
                    errors = found.errors.setdefault(topic.name, {})
                    errors[partition.partition_index] = error_name(partition.error_code)
                elif with_timestamps:
                    offsets[partition.partition_index] = partition.offset
                    times = found.timestamps.setdefault(topic.name, {})
                    times[partition.partition_index] = partition.timestamp
                elif partition.offset >= 0:
                    offsets[partition.partition_index] = partition.offset
    return FoundOffsets(found.offsets, found.timestamps, found.errors, leader_moved)


TOPIC_RESOURCE: Final = 2
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
CLEANUP_POLICY: Final = "cleanup.policy"


def read_topic_configs(reply: Any) -> dict[str, TopicConfig]:
    """Read a DescribeConfigs reply; topics with an error are left out."""
    found = {}
    for result in reply.results:
        if result.error_code or result.resource_type != TOPIC_RESOURCE:
            continue
        values = {config.name: config.value for config in result.configs}
        found[result.resource_name] = _topic_config(
            values.get(RETENTION_MS), values.get(RETENTION_BYTES), values.get(CLEANUP_POLICY)
        )
    return found


@lru_cache(maxsize=1_000)
def _topic_config(
    retention_ms: str | None, retention_bytes: str | None, policies: str | None
) -> TopicConfig:
    """Return one object for all topics that are set alike."""
    return TopicConfig(
        _int_or_none(retention_ms),
        _int_or_none(retention_bytes),
        None
        if policies is None
        else frozenset(policy.strip() for policy in policies.split(",") if policy.strip()),
    )


def read_log_dirs(reply: Any) -> dict[str, dict[int, int]] | Failure:
    """Read a DescribeLogDirs reply; replicas on a directory that failed are left out."""
    if reply.error_code:
        return Failure(f"DescribeLogDirs: {error_name(reply.error_code)}")
    sizes: dict[str, dict[int, int]] = {}
    for directory in reply.results:
        if directory.error_code:
            continue
        for topic in directory.topics:
            for partition in topic.partitions:
                # a future replica is a copy on its way to another directory of the same broker
                if not partition.is_future_key:
                    partitions = sizes.setdefault(topic.name, {})
                    partitions[partition.partition_index] = partition.partition_size
    # before version 3 a broker that refuses answers with no directories at all
    return sizes if reply.results else Failure("DescribeLogDirs: refused, or it has none")


# The longest assignment that is cached: 4,096 of them take 2 MB.
CACHED_BYTES: Final = 512


def _int_or_none(value: str | None) -> int | None:
    return None if value is None else int(value)


def decode_assignment(data: bytes) -> Assignment:
    """Decode a classic member's assignment (ConsumerProtocolAssignment, any version).

    Malformed bytes, which a client of its own making may send, give an empty assignment. Short ones
    are cached, as they stay the same for thousands of polls; Kafka Streams puts 30 kB into a
    member's, new at every rebalance.
    """
    return _cached_assignment(data) if len(data) <= CACHED_BYTES else _decode_assignment(data)


@lru_cache(maxsize=4_096)
def _cached_assignment(data: bytes) -> Assignment:
    return _decode_assignment(data)


def _decode_assignment(data: bytes) -> Assignment:
    assignment: dict[str, tuple[int, ...]] = {}
    try:
        (topics,) = struct.unpack_from(">i", data, 2)  # after the version
        position = 6
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", data, position)
            position += 2
            topic = sys.intern(data[position : position + length].decode())
            position += length
            (count,) = struct.unpack_from(">i", data, position)
            position += 4
            assignment[topic] = tuple(sorted(struct.unpack_from(f">{count}i", data, position)))
            position += 4 * count
    except (struct.error, UnicodeDecodeError):
        return {}
    return assignment


def _named_assignment(assignment: Any) -> Assignment:
    return {
        topic.topic_name: tuple(sorted(topic.partitions)) for topic in assignment.topic_partitions
    }


def _described_error(group: Any) -> str:
    return error_name(group.error_code)


def read_own_rights(reply: Any) -> bool | Failure:
    """Read a DescribeCluster reply; who may not describe the cluster may do nothing to it (KIP-430)."""
    if reply.error_code:
        return Failure(f"DescribeCluster: {error_name(reply.error_code)}")
    return bool(reply.authorized_operations)
