"""kafka-lag-exporter's metric names, for dashboards made for it.

A partition without a member has "unknown" for it, as there; what is not known is absent instead of
NaN.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.metrics import Metric
from monitor.exposition.series import ByPartition, Samples, Values
from monitor.model import Group
from monitor.state import State

LAG_EXPORTER: Final = "kafka-lag-exporter"
_UNKNOWN: Final = ("unknown", "unknown", "unknown")
_PARTITION: Final = ("cluster_name", "topic", "partition")
_GROUP: Final = ("cluster_name", "group")
_MEMBER: Final = (
    *("cluster_name", "group", "topic", "partition"),
    *("member_host", "consumer_id", "client_id"),
)


def _metric(name: str, text: str, labels: tuple[str, ...], unit: str) -> Metric:
    return Metric(f"kafka_{name}", "gauge", text, labels, unit, LAG_EXPORTER)


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
    LAG_EXPORTER,
)
METRICS: Final = (
    LATEST, EARLIEST, OFFSET, LAG, LAG_SECONDS, MAX_LAG, MAX_LAG_SECONDS, SUM_LAG, TOPIC_SUM_LAG,
    POLL_TIME,
)  # fmt: skip


def samples(state: State) -> Samples:
    """Return the samples of this family, of all that is in the state."""
    snapshot, cluster = state.snapshot, state.cluster
    if snapshot is None:
        return {}
    found: defaultdict[Metric, Values] = defaultdict(dict)
    for group_id, measures in state.groups.items():
        group = snapshot.groups[group_id]
        _partitions(found, cluster, group, measures, snapshot.seen_at)
        _totals(found, (cluster, group_id), measures, snapshot.seen_at)
    ends, starts = snapshot.end_offsets.values, snapshot.start_offsets.values
    return {
        LATEST: ByPartition({(cluster, topic): found for topic, found in ends.items()}),
        EARLIEST: ByPartition({(cluster, topic): found for topic, found in starts.items()}),
        **found,
        POLL_TIME: {(cluster,): round(state.duration_seconds * 1000)},
    }


def _partitions(
    found: defaultdict[Metric, Values],
    cluster: str,
    group: Group,
    measures: GroupMeasures,
    now: float,
) -> None:
    owners = _owners(group)
    for topic, commits in group.commits.items():
        lags = measures.lag.partitions.get(topic, {})
        times = measures.behind_by_partition(topic, now)
        for partition, committed in commits.items():
            member = owners.get((topic, partition), _UNKNOWN)
            labels = (cluster, group.id, topic, str(partition), *member)
            found[OFFSET][labels] = committed
            if partition in lags:
                found[LAG][labels] = lags[partition]
            if partition in times:
                found[LAG_SECONDS][labels] = round(times[partition], 3)


def _totals(
    found: defaultdict[Metric, Values], labels: tuple[str, str], measures: GroupMeasures, now: float
) -> None:
    lag = measures.lag
    for topic, total in lag.topics.items():
        found[TOPIC_SUM_LAG][*labels, topic] = total
    if lag.partitions:
        found[SUM_LAG][labels] = lag.total
        found[MAX_LAG][labels] = max(max(lags.values()) for lags in lag.partitions.values())
    behind = measures.behind(now)
    if behind is not None:
        found[MAX_LAG_SECONDS][labels] = round(behind, 3)


def _owners(group: Group) -> dict[tuple[str, int], tuple[str, str, str]]:
    return {
        (topic, partition): (member.host, member.id, member.client_id)
        for member, topic, partition in group.assignments()
    }
