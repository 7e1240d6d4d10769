"""Burrow's metric names, for dashboards made for it."""

from __future__ import annotations

from typing import Final

from monitor.analysis.status import Status
from monitor.exposition.metrics import Metric
from monitor.exposition.series import ByPartition, Nested, Samples, Values
from monitor.state import State

BURROW: Final = "burrow"
_GROUP: Final = ("cluster", "consumer_group")
_PARTITION: Final = ("cluster", "consumer_group", "topic", "partition")

LAG_TOTAL = Metric(
    "burrow_kafka_consumer_lag_total",
    "gauge",
    "Lag of all partitions that the group has committed.",
    _GROUP,
    "messages",
    BURROW,
)
STATUS = Metric(
    "burrow_kafka_consumer_status",
    "gauge",
    "Burrow's status of the group: 0 not found, 1 OK, 2 warning, 3 error.",
    _GROUP,
    family=BURROW,
)
PARTITION_LAG = Metric(
    "burrow_kafka_consumer_partition_lag",
    "gauge",
    "Lag of a partition.",
    _PARTITION,
    "messages",
    BURROW,
)
CURRENT_OFFSET = Metric(
    "burrow_kafka_consumer_current_offset",
    "gauge",
    "Committed offset.",
    _PARTITION,
    "offset",
    BURROW,
)
PARTITION_STATUS = Metric(
    "burrow_kafka_topic_partition_status",
    "gauge",
    "Burrow's status of a partition: 1 OK, 2 warning, 4 stop, 5 stall, 6 rewind.",
    _PARTITION,
    family=BURROW,
)
TOPIC_OFFSET = Metric(
    "burrow_kafka_topic_partition_offset",
    "gauge",
    "Log end offset.",
    ("cluster", "topic", "partition"),
    "offset",
    BURROW,
)
METRICS: Final = (LAG_TOTAL, STATUS, PARTITION_LAG, CURRENT_OFFSET, PARTITION_STATUS, TOPIC_OFFSET)


def samples(state: State) -> Samples:
    """Return the samples of this family, of all that is in the state."""
    snapshot, cluster = state.snapshot, state.cluster
    if snapshot is None:
        return {}
    totals: Values = {}
    statuses: Values = {}
    lags: Nested = {}
    offsets: Nested = {}
    partition_statuses: Nested = {}
    for group_id, measures in state.groups.items():
        group = snapshot.groups[group_id]
        labels = (cluster, group_id)
        statuses[labels] = int(measures.status.status)
        if measures.lag.partitions:
            totals[labels] = measures.lag.total
        bad = {(p.topic, p.partition): int(p.status) for p in measures.status.partitions}
        for topic, commits in group.commits.items():
            offsets[cluster, group_id, topic] = commits
        for topic, found in measures.lag.partitions.items():
            lags[cluster, group_id, topic] = found
            partition_statuses[cluster, group_id, topic] = {
                partition: bad.get((topic, partition), int(Status.OK)) for partition in found
            }
    ends = snapshot.end_offsets.values
    return {
        LAG_TOTAL: totals,
        STATUS: statuses,
        PARTITION_LAG: ByPartition(lags),
        CURRENT_OFFSET: ByPartition(offsets),
        PARTITION_STATUS: ByPartition(partition_statuses),
        TOPIC_OFFSET: ByPartition({(cluster, topic): found for topic, found in ends.items()}),
    }
