"""kafka-lag-exporter's metric names, for dashboards made for it.

A partition without a member has "unknown" for it, as there; what is not known is absent instead of
NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, ByPartition, GroupSamples, Samples
from monitor.model import Snapshot, nothing
from monitor.state import State

_UNKNOWN: Final = ("unknown", "unknown", "unknown")
_PARTITION: Final = ("cluster_name", "topic", "partition")
_GROUP: Final = ("cluster_name", "group")
_MEMBER: Final = (
    *("cluster_name", "group", "topic", "partition"),
    *("member_host", "consumer_id", "client_id"),
)


def _metric(name: str, text: str, labels: tuple[str, ...], unit: str) -> Metric:
    return Metric(f"kafka_{name}", "gauge", text, labels, unit)


LATEST = _metric("partition_latest_offset", "Log end offset.", _PARTITION, "offset")
EARLIEST = _metric("partition_earliest_offset", "Log start offset.", _PARTITION, "offset")
OFFSET = _metric("consumergroup_group_offset", "Committed offset.", _MEMBER, "offset")
LAG = _metric("consumergroup_group_lag", "Lag of a partition.", _MEMBER, "messages")
LAG_SECONDS = _metric(
    "consumergroup_group_lag_seconds",
    "Time since the oldest unread record was appended.",
    _MEMBER,
    "seconds",
)
MAX_LAG = _metric("consumergroup_group_max_lag", "Largest lag.", _GROUP, "messages")
MAX_LAG_SECONDS = _metric(
    "consumergroup_group_max_lag_seconds", "Largest lag in seconds.", _GROUP, "seconds"
)
SUM_LAG = _metric("consumergroup_group_sum_lag", "Lag of all partitions.", _GROUP, "messages")
TOPIC_SUM_LAG = _metric(
    "consumergroup_group_topic_sum_lag",
    "Lag of all partitions of a topic.",
    ("cluster_name", "group", "topic"),
    "messages",
)
POLL_TIME = Metric(
    "kafka_consumergroup_poll_time_ms",
    "gauge",
    "How long the last poll took, in milliseconds.",
    ("cluster_name",),
    "milliseconds",
)


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is not None:
        yield Block((), lambda: _of_cluster(state, snapshot), name="kafka-lag-exporter")


def _of_cluster(state: State, snapshot: Snapshot) -> Samples:
    cluster = state.cluster
    ends, starts = snapshot.end_offsets.values, snapshot.start_offsets.values
    return {
        LATEST: ByPartition({(cluster, topic): of for topic, of in ends.items()}),
        EARLIEST: ByPartition({(cluster, topic): of for topic, of in starts.items()}),
        POLL_TIME: {(cluster,): round(state.duration_seconds * 1000)},
    }


def _samples(measures: GroupMeasures, add: GroupSamples) -> None:
    group, lag = measures.group, measures.lag
    for topic, partition, labels in _partitions(measures, add.cluster):
        add.one(OFFSET, labels, group.commits[topic][partition])
        messages = lag.get(topic, partition)
        if messages is not None:
            add.one(LAG, labels, messages)
    for topic, total in lag.topics.items():
        add.one(TOPIC_SUM_LAG, (add.cluster, group.id, topic), total)
    if lag.partitions:
        add.one(SUM_LAG, (add.cluster, group.id), lag.total)
        most = max(max(lags.values()) for lags in lag.partitions.values())
        add.one(MAX_LAG, (add.cluster, group.id), most)


def _ages(measures: GroupMeasures, now: float, add: GroupSamples) -> None:
    seconds = {topic: measures.behind_by_partition(topic, now) for topic in measures.lag.partitions}
    for topic, partition, labels in _partitions(measures, add.cluster):
        behind = seconds.get(topic, nothing()).get(partition)
        if behind is not None:
            add.one(LAG_SECONDS, labels, round(behind, 3))
    most = measures.behind(now)
    if most is not None:
        add.one(MAX_LAG_SECONDS, (add.cluster, measures.group.id), round(most, 3))


def _partitions(
    measures: GroupMeasures, cluster: str
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield (topic, partition, labels) of each committed offset."""
    group = measures.group
    owners = {
        (topic, partition): (member.host, member.id, member.client_id)
        for member, topic, partition in group.assignments()
    }
    for topic, commits in group.commits.items():
        for partition in commits:
            member = owners.get((topic, partition), _UNKNOWN)
            yield topic, partition, (cluster, group.id, topic, str(partition), *member)


FAMILY: Final = Family(
    "kafka-lag-exporter",
    "kafka-lag-exporter's names; off unless named.",
    (
        LATEST, EARLIEST, OFFSET, LAG, LAG_SECONDS, MAX_LAG, MAX_LAG_SECONDS, SUM_LAG,
        TOPIC_SUM_LAG, POLL_TIME,
    ),
    cluster=_cluster,
    samples=_samples,
    ages=_ages,
)  # fmt: skip
