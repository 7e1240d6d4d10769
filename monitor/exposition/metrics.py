"""Every metric about the cluster and the monitor itself, declared once.

To add one, declare it here and yield its samples in `samples.py`; nothing else names it. The
families of other monitors are declared beside their samples, and all together in `catalogue.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter"]
Rollup = Literal["sum", "max", "min"]

# Families can be switched on and off as a whole.
EXPORTER: Final = "kafka_exporter"  # kafka_exporter's names, for dashboards in the wild
MEASURES: Final = "measures"  # what others do not measure
MONITOR: Final = "monitor"  # about the monitor itself


@dataclass(frozen=True, slots=True, eq=False)  # one object each: hashing all fields is slow
class Metric:
    """A metric's declaration; `unit` is for readers and documents, the name carries it too.

    `rollup` is how a group's samples are joined where settings ask for fewer labels than
    partitions have; without it they are left out there. `when` is the condition under which the
    metric has samples at all, empty for those that any cluster with a consumer group has.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    family: str = EXPORTER
    rollup: Rollup | None = None
    when: str = ""


_PARTITION: Final = ("topic", "partition")
_GROUP: Final = ("consumergroup",)
_GROUP_TOPIC: Final = ("consumergroup", "topic")
_GROUP_PARTITION: Final = ("consumergroup", "topic", "partition")
_CLUSTER: Final = ("cluster",)


def _topic(name: str, text: str, unit: str = "", when: str = "") -> Metric:
    return Metric(f"kafka_topic_partition_{name}", "gauge", text, _PARTITION, unit, when=when)


def _group(
    name: str,
    text: str,
    labels: tuple[str, ...] = _GROUP,
    unit: str = "",
    *,
    rollup: Rollup | None = None,
    when: str = "",
    family: str = MEASURES,
) -> Metric:
    kind: Kind = "counter" if name.endswith("_total") else "gauge"
    return Metric(f"kafka_consumergroup_{name}", kind, text, labels, unit, family, rollup, when)


def _monitor(
    name: str, text: str, unit: str = "", labels: tuple[str, ...] = _CLUSTER, when: str = ""
) -> Metric:
    return Metric(f"kafka_monitor_{name}", "gauge", text, labels, unit, MONITOR, when=when)


BROKERS = Metric("kafka_brokers", "gauge", "Brokers in the cluster's metadata.")
BROKER_INFO = Metric(
    "kafka_broker_info", "gauge", "A broker's id and address; always 1.", ("id", "address")
)
TOPIC_PARTITIONS = Metric("kafka_topic_partitions", "gauge", "Partitions of a topic.", ("topic",))
PARTITION_CURRENT_OFFSET = _topic(
    "current_offset", "Log end offset: the offset that the next record gets.", "offset"
)
PARTITION_OLDEST_OFFSET = _topic(
    "oldest_offset", "Log start offset: the oldest record that is still there.", "offset"
)
PARTITION_LEADER = _topic("leader", "Broker id of the leader; absent while there is none.")
PARTITION_REPLICAS = _topic("replicas", "Replicas of a partition.")
PARTITION_IN_SYNC_REPLICAS = _topic("in_sync_replica", "Replicas that are in sync.")
PARTITION_LEADER_IS_PREFERRED = _topic(
    "leader_is_preferred", "1 while the first replica leads, else 0."
)
PARTITION_UNDER_REPLICATED = _topic(
    "under_replicated_partition", "1 while a replica is out of sync, else 0."
)
GROUP_CURRENT_OFFSET = _group(
    "current_offset",
    "Committed offset; absent where nothing is committed.",
    _GROUP_PARTITION,
    "offset",
    family=EXPORTER,
)
GROUP_CURRENT_OFFSET_SUM = _group(
    "current_offset_sum",
    "Sum of the committed offsets of a topic's partitions.",
    _GROUP_TOPIC,
    "offset",
    rollup="sum",
    family=EXPORTER,
)
GROUP_LAG = _group(
    "lag",
    "Log end offset minus committed offset, never negative; absent where either is unknown.",
    _GROUP_PARTITION,
    "messages",
    rollup="sum",
    family=EXPORTER,
)
GROUP_LAG_SUM = _group(
    "lag_sum",
    "Sum of the lag of a topic's partitions.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
    family=EXPORTER,
)
GROUP_MEMBERS = _group(
    "members", "Members of a group; absent where they are not known.", family=EXPORTER
)

GROUP_LAG_SECONDS = _group(
    "lag_seconds",
    "Time since the oldest unread record that can be read was appended; 0 when nothing readable is "
    "unread, absent while it is not known.",
    _GROUP_PARTITION,
    "seconds",
    rollup="max",
)
GROUP_LAG_SECONDS_MAX = _group(
    "lag_seconds_max",
    "The largest lag in seconds among the partitions of consumed topics; absent while a lag that is "
    "not known may be larger than all known ones, if those are 0.",
    unit="seconds",
)
GROUP_READABLE_LAG = _group(
    "readable_lag",
    "Records that a consumer can read and the group has not: from the committed offset, or the log "
    "start if that is later, to the log end; 0 where only transaction markers and aborted records are "
    "left, or an open transaction holds back all.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
GROUP_ACTIVE = _group(
    "active",
    "1 while somebody consumes, 0 since it was last seen. by is members, or commits: moving commits "
    "of a group without members, as of assign(), Flink or Spark. Absent where that was never seen.",
    ("consumergroup", "by"),
    when="the group had members, or committed without any, since the monitor's start",
)
GROUP_NOT_CONSUMED = _group(
    "not_consumed",
    "1 for a topic on which commits remain while the group is Stable, holds nothing of it and "
    "commits nothing there.",
    _GROUP_TOPIC,
    rollup="sum",
    when="the group's members hold nothing of a topic that it has commits on",
)
GROUP_PATIENCE = _group(
    "commit_patience_seconds",
    "How long without a commit means nothing for this group: twice the longest that something "
    "readable was seen to wait for one, at least 60; 5400 until one whole wait was seen.",
    unit="seconds",
)
GROUP_STUCK = _group(
    "stuck_partitions",
    "Partitions of consumed topics with readable lag and no commit for longer than 600 s and than "
    "the group's patience, watched for that long.",
    _GROUP_TOPIC,
    "partitions",
    rollup="sum",
    when="the group has members and lag on the topic",
)
GROUP_UNCOMMITTED = _group(
    "uncommitted_partitions",
    "Partitions that a member holds, whose log has records, without any commit.",
    _GROUP_TOPIC,
    "partitions",
    rollup="sum",
    when="the group has members",
)
GROUP_COMMIT_PAST_END = _group(
    "commit_past_end_messages",
    "How many messages the committed offset is past the log end: the topic was truncated or created "
    "anew, or the offset is another cluster's.",
    _GROUP_PARTITION,
    "messages",
    rollup="sum",
    when="a committed offset is past the log end",
)
GROUP_REWINDS = _group(
    "rewinds_total",
    "Steps back of committed offsets seen since the monitor's start, but for topics created anew.",
    _GROUP_TOPIC,
    rollup="sum",
)
GROUP_ERROR = _group(
    "error",
    "1 while a part of the group can't be read; error names why.",
    ("consumergroup", "error"),
    when="a broker refuses a part of the group",
)
GROUP_STATUS = _group(
    "status",
    "Burrow's status of a group: one of OK, WARN and ERR is 1; STOP, STALL and REWIND are 1 while a "
    "partition is in that status (the group is ERR then). Others are 0. A partition is OK until it "
    "was watched for ten polls, and while its silence is usual for the group; a group of which no "
    "partition can be judged is absent.",
    ("consumergroup", "status"),
)
GROUP_PARTITION_STATUS = _group(
    "partition_status",
    "Burrow's status of a partition, always 1; absent for those that are OK.",
    ("consumergroup", "topic", "partition", "status"),
    when="a partition is WARN, STOP, STALL or REWIND",
)
GROUP_STATUS_COMPLETE = _group(
    "status_complete_ratio",
    "Share of the group's partitions that were watched long enough for any status (ten polls).",
    unit="ratio",
)
GROUP_STATE = _group(
    "state",
    "The group's state as its coordinator tells it; always 1, other states are absent.",
    ("consumergroup", "state"),
)
GROUP_INFO = _group(
    "info",
    "The group's type (classic, consumer, share, streams), assignor and coordinating broker; always "
    "1.",
    ("consumergroup", "type", "assignor", "coordinator"),
)
GROUP_IDLE_MEMBERS = _group(
    "idle_members",
    "Members that hold no partition and are to get none; absent during a rebalance.",
    when="the group has members",
)
GROUP_UNASSIGNED = _group(
    "unassigned_partitions",
    "Partitions of consumed topics that no member holds; absent during a rebalance.",
    when="the group has members",
)
GROUP_REBALANCES = _group(
    "rebalances_total",
    "Rebalances that polls have seen since the monitor's start: a lower bound for classic groups.",
)
GROUP_MEMBER_PARTITIONS = _group(
    "member_partitions",
    "Partitions that a member holds.",
    ("consumergroup", "client_id", "host", "member_id"),
    "partitions",
    when="the group has members and MONITOR_MEMBER_METRICS is on",
)
GROUP_IMBALANCE = _group(
    "imbalance_ratio",
    "Excess of the largest share over the best possible: 0 is balanced, 0.2 a fifth too much. kind "
    "is assignment (partitions per member), production or lag (messages per partition, chance "
    "deducted).",
    ("consumergroup", "topic", "kind"),
    "ratio",
    rollup="max",
    when="the group has members or lag on the topic",
)
_CLOSE: Final = "the group has members, lag or recent commits, from the second poll on"
GROUP_PRODUCED_RATE = _group(
    "produced_messages_per_second",
    "Messages appended to the partitions that the group has committed, over the last ten polls.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
GROUP_CONSUMED_RATE = _group(
    "consumed_messages_per_second",
    "Messages by which the committed offsets moved, over the last ten polls.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
GROUP_LAG_VELOCITY = _group(
    "lag_velocity_messages_per_second",
    "Growth of the readable lag, over the last ten polls; negative while it shrinks.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
GROUP_COMMIT_RATE = _group(
    "commits_per_second",
    "Changes of committed offsets, at most one per partition and poll, over the last ten polls.",
    _GROUP_TOPIC,
    "commits/s",
    rollup="sum",
    when=_CLOSE,
)
GROUP_COMMIT_AGE = _group(
    "commit_age_seconds",
    "Time since a committed offset of the topic last changed, or was first seen.",
    _GROUP_TOPIC,
    "seconds",
    rollup="min",
)
GROUP_CATCHING_UP = _group(
    "catching_up",
    "1 when nothing is unread or the lag ends at the present rates, 0 when it never does; absent "
    "while the rates are not known.",
    _GROUP_TOPIC,
    rollup="min",
    when=_CLOSE,
)
GROUP_TIME_TO_CATCH_UP = _group(
    "time_to_catch_up_seconds",
    "Time until nothing is unread at the present rates; absent when that is never.",
    _GROUP_TOPIC,
    "seconds",
    rollup="max",
    when="the lag ends at the present rates",
)
_LAGGING: Final = "a partition has lag"
GROUP_LOST = _group(
    "messages_lost_total",
    "Messages that were seen to be deleted before the group read them, since the monitor's start: a "
    "lower bound.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
GROUP_UNREAD_DELETED = _group(
    "unread_deleted_messages",
    "Messages between committed offsets and later log starts now, whenever they were deleted.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
GROUP_RETENTION_REMAINING = _group(
    "retention_remaining_seconds",
    "Time for which the oldest unread message is surely kept, by its own timestamp; absent when it is "
    "kept for ever or that timestamp is not known.",
    _GROUP_PARTITION,
    "seconds",
    rollup="min",
    when="a partition has lag and its topic a retention limit",
)
GROUP_UNREAD_RATIO = _group(
    "log_unread_ratio",
    "Share of the retained log that is unread.",
    _GROUP_PARTITION,
    "ratio",
    rollup="max",
    when=_LAGGING,
)
GROUP_ADVICE = _group(
    "advice",
    "What the monitor would have somebody look at, always 1; cause is one of a fixed list.",
    ("consumergroup", "topic", "severity", "cause"),
    rollup="max",
    when="there is something to do",
)
GROUP_DATA_AGE = _group(
    "data_age_seconds",
    "Age of a group's figures while its coordinator does not answer.",
    unit="seconds",
    when="the group's coordinator does not answer",
)
PARTITION_DATA_AGE = Metric(
    "kafka_topic_partition_data_age_seconds",
    "gauge",
    "Age of a partition's offsets while its leader does not answer.",
    _PARTITION,
    "seconds",
    MEASURES,
    when="a partition's leader does not answer",
)
PARTITION_ERROR = Metric(
    "kafka_topic_partition_error",
    "gauge",
    "1 while a partition's offsets can't be read, or its log not looked into; error names why. "
    'With error "Fetch: ..." transaction markers and aborted records count as readable lag.',
    ("topic", "partition", "error"),
    family=MEASURES,
    when="a broker refuses a partition's offsets or a look into its log, or it has no leader",
)
PARTITION_HELD_RECORDS = Metric(
    "kafka_topic_partition_open_transaction_records",
    "gauge",
    "Records that an open transaction holds back from read_committed consumers: from the last stable "
    "offset to the log end.",
    _PARTITION,
    "messages",
    MEASURES,
    when="an open transaction holds a group back",
)
PARTITION_HELD_SECONDS = Metric(
    "kafka_topic_partition_open_transaction_seconds",
    "gauge",
    "Time since the first record that an open transaction holds back was appended, or first seen.",
    _PARTITION,
    "seconds",
    MEASURES,
    when="an open transaction holds a group back",
)
PARTITION_LOG_BYTES = Metric(
    "kafka_topic_partition_log_bytes",
    "gauge",
    "Size of the leader's log on disk.",
    _PARTITION,
    "bytes",
    MEASURES,
    when="MONITOR_LOG_SIZES is on",
)

MONITOR_UP = _monitor("up", "1 while the last poll reached at least one broker.")
MONITOR_POLL_FAILED = _monitor(
    "poll_failed",
    "1 while the last poll failed, with its cause: what is shown is an earlier poll's, and ages.",
    labels=("cluster", "error"),
    when="the last poll failed",
)
MONITOR_POLL_ERRORS = _monitor(
    "poll_errors",
    "1 for each cause for which the last poll lacks figures, or doubts them: of a broker that did not "
    "answer, or (with an empty broker) of the cluster as a whole.",
    labels=("cluster", "broker", "error"),
    when="the last poll was not answered in full",
)
MONITOR_INTERNAL_ERRORS = _monitor(
    "internal_errors",
    "1 while a step of the monitor's own work fails for a subject (a group, a topic, a family of "
    "metrics; empty for the step as a whole): its figures are absent, all others stand.",
    labels=("cluster", "step", "subject"),
    when="a part of the monitor's own work fails",
)
MONITOR_RELOAD_SUCCESSFUL = _monitor(
    "config_last_reload_successful",
    "1 if the settings could be used when they were read last, 0 if those before are still in force.",
    labels=(),
)
MONITOR_RELOADED_AT = _monitor(
    "config_last_reload_success_timestamp_seconds",
    "Unix time at which the settings in force were read.",
    "seconds",
    labels=(),
)
MONITOR_POLL_INTERVAL = _monitor("poll_interval_seconds", "Time between two polls.", "seconds")
MONITOR_POLL_DURATION = _monitor(
    "poll_duration_seconds", "How long the last poll took, analysis included.", "seconds"
)
MONITOR_POLL_REQUESTS = _monitor(
    "poll_requests", "Requests that the last poll sent, by API.", labels=("cluster", "api")
)
MONITOR_LAST_POLL = _monitor(
    "last_poll_timestamp_seconds", "When the last poll that reached a broker ended.", "seconds"
)
MONITOR_DATA_AGE = _monitor(
    "data_age_seconds",
    "Age of the oldest offset or commit that is shown, when this page was sent.",
    "seconds",
)
MONITOR_STALE_PARTITIONS = _monitor(
    "stale_partitions",
    "Partitions whose log end offset is an earlier poll's, as their broker does not answer.",
)
MONITOR_STALE_GROUPS = _monitor(
    "stale_groups",
    "Groups whose commits are an earlier poll's, as their coordinator does not answer.",
)
MONITOR_GROUP_ERRORS = _monitor("group_errors", "Groups of which something could not be read.")
MONITOR_BROKER_UP = _monitor(
    "broker_up",
    "1 while the broker answered all questions of the last poll, else 0; also 0 for one that left the "
    "cluster's metadata while partitions still name it as a replica.",
    labels=("broker",),
)
MONITOR_BUILD_INFO = _monitor("build_info", "The monitor's version; always 1.", labels=("version",))

METRICS: Final[tuple[Metric, ...]] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Metric)
)
