"""kafka_exporter's metric names: brokers, topics, and the offsets and lags of groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric, group_metric, partition_metric
from monitor.exposition.series import (
    Block,
    ByPartition,
    GroupSamples,
    Nested,
    Samples,
    Series,
)
from monitor.model import PartitionOffsets, Snapshot, Topic
from monitor.state import State

_GROUP_TOPIC: Final = ("consumergroup", "topic")
_GROUP_PARTITION: Final = ("consumergroup", "topic", "partition")

BROKERS = Metric("kafka_brokers", "gauge", "Brokers in the cluster's metadata.")
BROKER_INFO = Metric(
    "kafka_broker_info", "gauge", "A broker's id and address; always 1.", ("id", "address")
)
TOPIC_PARTITIONS = Metric("kafka_topic_partitions", "gauge", "Partitions of a topic.", ("topic",))
PARTITION_CURRENT_OFFSET = partition_metric(
    "current_offset", "Log end offset: the offset that the next record gets.", "offset"
)
PARTITION_OLDEST_OFFSET = partition_metric(
    "oldest_offset", "Log start offset: the oldest record that is still there.", "offset"
)
PARTITION_LEADER = partition_metric(
    "leader", "Broker id of the leader; absent while there is none."
)
PARTITION_REPLICAS = partition_metric("replicas", "Replicas of a partition.")
PARTITION_IN_SYNC_REPLICAS = partition_metric("in_sync_replica", "Replicas that are in sync.")
PARTITION_LEADER_IS_PREFERRED = partition_metric(
    "leader_is_preferred", "1 while the first replica leads, else 0."
)
PARTITION_UNDER_REPLICATED = partition_metric(
    "under_replicated_partition", "1 while a replica is out of sync, else 0."
)
CURRENT_OFFSET = group_metric(
    "current_offset",
    "Committed offset; absent where nothing is committed.",
    _GROUP_PARTITION,
    "offset",
)
CURRENT_OFFSET_SUM = group_metric(
    "current_offset_sum",
    "Sum of the committed offsets of a topic's partitions.",
    _GROUP_TOPIC,
    "offset",
    rollup="sum",
)
LAG = group_metric(
    "lag",
    "Log end offset minus committed offset, never negative; absent where either is unknown.",
    _GROUP_PARTITION,
    "messages",
    rollup="sum",
)
LAG_SUM = group_metric(
    "lag_sum",
    "Sum of the lag of a topic's partitions.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
MEMBERS = group_metric("members", "Members of a group; absent where they are not known.")


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is None:
        return
    topics = snapshot.topics
    yield Block((topics,), lambda: _topics(topics), name="topics")
    for metric, offsets, name in (
        (PARTITION_OLDEST_OFFSET, snapshot.start_offsets.values, "start offsets"),
        (PARTITION_CURRENT_OFFSET, snapshot.end_offsets.values, "end offsets"),
    ):
        yield Block((offsets,), partial(_offsets, metric, offsets), name=name)
    yield Block((), lambda: _brokers(snapshot), name="brokers")


def _brokers(snapshot: Snapshot) -> Samples:
    return {
        BROKERS: {(): len(snapshot.brokers)} if snapshot.brokers else {},
        BROKER_INFO: {(str(b.id), b.address): 1 for b in snapshot.brokers.values()},
    }


def _offsets(metric: Metric, offsets: PartitionOffsets) -> Samples:
    return {metric: ByPartition({(topic,): of for topic, of in offsets.items()})}


def _topics(topics: Mapping[str, Topic]) -> Samples:
    counts: Series = {(topic.name,): len(topic.partitions) for topic in topics.values()}
    leader: Nested = {}
    replicas: Nested = {}
    in_sync: Nested = {}
    preferred: Nested = {}
    under: Nested = {}
    for topic in topics.values():
        labels = (topic.name,)
        partitions = topic.partitions.items()
        leader[labels] = {i: p.leader for i, p in partitions if p.leader is not None}
        replicas[labels] = {i: len(p.replicas) for i, p in partitions}
        in_sync[labels] = {i: len(p.isr) for i, p in partitions}
        preferred[labels] = {i: int(p.leader_is_preferred) for i, p in partitions}
        under[labels] = {i: int(p.under_replicated) for i, p in partitions}
    return {
        TOPIC_PARTITIONS: counts,
        PARTITION_LEADER: ByPartition(leader),
        PARTITION_REPLICAS: ByPartition(replicas),
        PARTITION_IN_SYNC_REPLICAS: ByPartition(in_sync),
        PARTITION_LEADER_IS_PREFERRED: ByPartition(preferred),
        PARTITION_UNDER_REPLICATED: ByPartition(under),
    }


def _samples(measures: GroupMeasures, add: GroupSamples) -> None:
    group, lag = measures.group.id, measures.lag
    for topic, commits in measures.group.commits.items():
        add.partitions(CURRENT_OFFSET, (group, topic), commits)
        add.one(CURRENT_OFFSET_SUM, (group, topic), sum(commits.values()))
    for topic, lags in lag.partitions.items():
        add.partitions(LAG, (group, topic), lags)
        add.one(LAG_SUM, (group, topic), lag.topics[topic])
    if measures.facts.members is not None:
        add.one(MEMBERS, (group,), measures.facts.members)


FAMILY: Final = Family(
    "kafka_exporter",
    "kafka_exporter's names: dashboards and alerts made for it work unchanged.",
    (
        BROKERS, BROKER_INFO, TOPIC_PARTITIONS, PARTITION_CURRENT_OFFSET, PARTITION_OLDEST_OFFSET,
        PARTITION_LEADER, PARTITION_REPLICAS, PARTITION_IN_SYNC_REPLICAS,
        PARTITION_LEADER_IS_PREFERRED, PARTITION_UNDER_REPLICATED, CURRENT_OFFSET,
        CURRENT_OFFSET_SUM, LAG, LAG_SUM, MEMBERS,
    ),
    cluster=_cluster,
    samples=_samples,
    is_default=True,
    has_levels=True,
)  # fmt: skip
