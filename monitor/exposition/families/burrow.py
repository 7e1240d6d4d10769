"""Burrow's metric names, for dashboards made for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.analysis.status import Status
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, ByPartition, GroupSamples, Samples
from monitor.model import PartitionOffsets
from monitor.state import State

_GROUP: Final = ("cluster", "consumer_group")
_PARTITION: Final = ("cluster", "consumer_group", "topic", "partition")

LAG_TOTAL = Metric(
    "burrow_kafka_consumer_lag_total",
    "gauge",
    "Lag of all partitions that the group has committed.",
    _GROUP,
    "messages",
)
STATUS = Metric(
    "burrow_kafka_consumer_status",
    "gauge",
    "Burrow's status of the group: 0 not found, 1 OK, 2 warning, 3 error.",
    _GROUP,
)
PARTITION_LAG = Metric(
    "burrow_kafka_consumer_partition_lag",
    "gauge",
    "Lag of a partition.",
    _PARTITION,
    "messages",
)
CURRENT_OFFSET = Metric(
    "burrow_kafka_consumer_current_offset",
    "gauge",
    "Committed offset.",
    _PARTITION,
    "offset",
)
PARTITION_STATUS = Metric(
    "burrow_kafka_topic_partition_status",
    "gauge",
    "Burrow's status of a partition: 1 OK, 2 warning, 4 stop, 5 stall, 6 rewind.",
    _PARTITION,
)
TOPIC_OFFSET = Metric(
    "burrow_kafka_topic_partition_offset",
    "gauge",
    "Log end offset.",
    ("cluster", "topic", "partition"),
    "offset",
)


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is not None:
        ends = snapshot.end_offsets.values
        yield Block((ends, state.cluster), lambda: _offsets(state.cluster, ends), name="burrow")


def _offsets(cluster: str, ends: PartitionOffsets) -> Samples:
    return {TOPIC_OFFSET: ByPartition({(cluster, topic): of for topic, of in ends.items()})}


def _samples(measures: GroupMeasures, add: GroupSamples) -> None:
    group, lag, status = measures.group, measures.lag, measures.status
    labels = (add.cluster, group.id)
    add.one(STATUS, labels, int(status.status))
    if lag.partitions:
        add.one(LAG_TOTAL, labels, lag.total)
    for topic, commits in group.commits.items():
        add.partitions(CURRENT_OFFSET, (*labels, topic), commits)
    bad = {(p.topic, p.partition): int(p.status) for p in status.partitions}
    for topic, lags in lag.partitions.items():
        add.partitions(PARTITION_LAG, (*labels, topic), lags)
        statuses = {partition: bad.get((topic, partition), int(Status.OK)) for partition in lags}
        add.partitions(PARTITION_STATUS, (*labels, topic), statuses)


FAMILY: Final = Family(
    "burrow",
    "Burrow's names; off unless named.",
    (LAG_TOTAL, STATUS, PARTITION_LAG, CURRENT_OFFSET, PARTITION_STATUS, TOPIC_OFFSET),
    cluster=_cluster,
    samples=_samples,
)
