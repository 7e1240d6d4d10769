"""Every metric of the monitor, declared once: name, kind, unit, help and labels.

To add one, declare it here and yield its samples in `samples.py`; nothing else names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter"]

# Families can be switched on and off as a whole.
EXPORTER: Final = "kafka_exporter"  # kafka_exporter's names, for dashboards in the wild
MONITOR: Final = "monitor"  # about the monitor itself


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's declaration; `unit` is for readers and documents, the name carries it too."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    family: str = EXPORTER


_PARTITION: Final = ("topic", "partition")
_GROUP: Final = ("consumergroup",)
_GROUP_TOPIC: Final = ("consumergroup", "topic")
_GROUP_PARTITION: Final = ("consumergroup", "topic", "partition")

BROKERS = Metric("kafka_brokers", "gauge", "Brokers in the cluster's metadata.")
BROKER_INFO = Metric(
    "kafka_broker_info", "gauge", "A broker's id and address; always 1.", ("id", "address")
)
TOPIC_PARTITIONS = Metric("kafka_topic_partitions", "gauge", "Partitions of a topic.", ("topic",))
PARTITION_CURRENT_OFFSET = Metric(
    "kafka_topic_partition_current_offset",
    "gauge",
    "Log end offset: the offset that the next record gets.",
    _PARTITION,
    "offset",
)
PARTITION_OLDEST_OFFSET = Metric(
    "kafka_topic_partition_oldest_offset",
    "gauge",
    "Log start offset: the oldest record that is still there.",
    _PARTITION,
    "offset",
)
PARTITION_LEADER = Metric(
    "kafka_topic_partition_leader",
    "gauge",
    "Broker id of the leader; absent while there is none.",
    _PARTITION,
)
PARTITION_REPLICAS = Metric(
    "kafka_topic_partition_replicas", "gauge", "Replicas of a partition.", _PARTITION
)
PARTITION_IN_SYNC_REPLICAS = Metric(
    "kafka_topic_partition_in_sync_replica", "gauge", "Replicas that are in sync.", _PARTITION
)
PARTITION_LEADER_IS_PREFERRED = Metric(
    "kafka_topic_partition_leader_is_preferred",
    "gauge",
    "1 while the first replica leads.",
    _PARTITION,
)
PARTITION_UNDER_REPLICATED = Metric(
    "kafka_topic_partition_under_replicated_partition",
    "gauge",
    "1 while a replica is out of sync.",
    _PARTITION,
)
GROUP_CURRENT_OFFSET = Metric(
    "kafka_consumergroup_current_offset",
    "gauge",
    "Committed offset; absent where nothing is committed.",
    _GROUP_PARTITION,
    "offset",
)
GROUP_CURRENT_OFFSET_SUM = Metric(
    "kafka_consumergroup_current_offset_sum",
    "gauge",
    "Sum of the committed offsets of a topic's partitions.",
    _GROUP_TOPIC,
    "offset",
)
GROUP_LAG = Metric(
    "kafka_consumergroup_lag",
    "gauge",
    "Log end offset minus committed offset, never negative; absent where either is unknown.",
    _GROUP_PARTITION,
    "messages",
)
GROUP_LAG_SUM = Metric(
    "kafka_consumergroup_lag_sum",
    "gauge",
    "Sum of the lag of a topic's partitions.",
    _GROUP_TOPIC,
    "messages",
)
GROUP_MEMBERS = Metric(
    "kafka_consumergroup_members",
    "gauge",
    "Members of a group; absent where they are not known.",
    _GROUP,
)
MONITOR_UP = Metric(
    "kafka_monitor_up",
    "gauge",
    "1 while the last poll reached at least one broker.",
    ("cluster",),
    family=MONITOR,
)
MONITOR_POLL_DURATION = Metric(
    "kafka_monitor_poll_duration_seconds",
    "gauge",
    "How long the last poll took.",
    ("cluster",),
    "seconds",
    MONITOR,
)
MONITOR_POLL_REQUESTS = Metric(
    "kafka_monitor_poll_requests",
    "gauge",
    "Requests that the last poll sent, by API.",
    ("cluster", "api"),
    family=MONITOR,
)
MONITOR_LAST_POLL = Metric(
    "kafka_monitor_last_poll_timestamp_seconds",
    "gauge",
    "When the last poll that reached a broker ended.",
    ("cluster",),
    "seconds",
    MONITOR,
)
MONITOR_DATA_AGE = Metric(
    "kafka_monitor_data_age_seconds",
    "gauge",
    "Age of the oldest offset or commit that is shown, when this page was rendered.",
    ("cluster",),
    "seconds",
    MONITOR,
)
MONITOR_STALE_PARTITIONS = Metric(
    "kafka_monitor_stale_partitions",
    "gauge",
    "Partitions whose log end offset is an earlier poll's, as their broker does not answer.",
    ("cluster",),
    family=MONITOR,
)
MONITOR_STALE_GROUPS = Metric(
    "kafka_monitor_stale_groups",
    "gauge",
    "Groups whose commits are an earlier poll's, as their coordinator does not answer.",
    ("cluster",),
    family=MONITOR,
)
MONITOR_GROUP_ERRORS = Metric(
    "kafka_monitor_group_errors",
    "gauge",
    "Groups of which something could not be read.",
    ("cluster",),
    family=MONITOR,
)
MONITOR_BROKER_UP = Metric(
    "kafka_monitor_broker_up",
    "gauge",
    "1 while the broker answered all questions of the last poll.",
    ("broker",),
    family=MONITOR,
)
MONITOR_BUILD_INFO = Metric(
    "kafka_monitor_build_info",
    "gauge",
    "The monitor's version; always 1.",
    ("version",),
    family=MONITOR,
)

METRICS: Final[tuple[Metric, ...]] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Metric)
)
