"""kminion's metric names, for dashboards made for it.

What it tells of itself (its log, its own Kafka client, its end-to-end probe) has no counterpart
here. Of a topic's settings, `kafka_topic_info` has the cleanup policy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, ByPartition, GroupSamples, Samples, Values
from monitor.exposition.version import VERSION
from monitor.model import Group, Snapshot
from monitor.state import State

_BROKER: Final = ("broker_id", "address", "port", "rack_id")
_TOPIC: Final = ("topic_name",)
_PARTITION: Final = ("topic_name", "partition_id")
_GROUP: Final = ("group_id",)
_GROUP_TOPIC: Final = ("group_id", "topic_name")


def _metric(
    name: str, text: str, labels: tuple[str, ...], unit: str = "", when: str = ""
) -> Metric:
    return Metric(f"kminion_{name}", "gauge", text, labels, unit, when=when)


def _kafka(name: str, text: str, labels: tuple[str, ...], unit: str = "", when: str = "") -> Metric:
    return _metric(f"kafka_{name}", text, labels, unit, when)


_SIZES: Final = "MONITOR_LOG_SIZES is on"
_MEMBERS: Final = "the group has members"

EXPORTER_UP = _metric("exporter_up", "The monitor's version; always 1.", ("version",))
CLUSTER_INFO = _kafka(
    "cluster_info",
    "The cluster; always 1. Its version is not known here and empty.",
    ("cluster_version", "broker_count", "controller_id", "cluster_id"),
)
BROKER_INFO = _kafka("broker_info", "A broker; always 1.", (*_BROKER, "is_controller"))
BROKER_BYTES = _kafka(
    "broker_log_dir_size_total_bytes", "Size of a broker's logs.", _BROKER, "bytes", _SIZES
)
TOPIC_BYTES = _kafka(
    "topic_log_dir_size_total_bytes", "Size of a topic's logs.", _TOPIC, "bytes", _SIZES
)
TOPIC_INFO = _kafka(
    "topic_info",
    "A topic; always 1.",
    ("topic_name", "partition_count", "replication_factor", "cleanup_policy"),
)
LOW = _kafka("topic_partition_low_water_mark", "Log start offset.", _PARTITION, "offset")
HIGH = _kafka("topic_partition_high_water_mark", "Log end offset.", _PARTITION, "offset")
LOW_SUM = _kafka("topic_low_water_mark_sum", "Sum of the log start offsets.", _TOPIC, "offset")
HIGH_SUM = _kafka("topic_high_water_mark_sum", "Sum of the log end offsets.", _TOPIC, "offset")
GROUP_INFO = _kafka(
    "consumer_group_info",
    "A group; 1 while it is Stable, else 0.",
    ("group_id", "protocol", "protocol_type", "state", "coordinator_id"),
)
MEMBERS = _kafka("consumer_group_members", "Members of a group.", _GROUP)
EMPTY_MEMBERS = _kafka("consumer_group_empty_members", "Members that hold no partition.", _GROUP)
TOPIC_MEMBERS = _kafka(
    "consumer_group_topic_members",
    "Members that hold partitions of a topic.",
    _GROUP_TOPIC,
    when=_MEMBERS,
)
TOPIC_ASSIGNED = _kafka(
    "consumer_group_topic_assigned_partitions",
    "Partitions of a topic that members hold.",
    _GROUP_TOPIC,
    "partitions",
    _MEMBERS,
)
TOPIC_OFFSETS = _kafka(
    "consumer_group_topic_offset_sum", "Sum of the committed offsets.", _GROUP_TOPIC, "offset"
)
TOPIC_LAG = _kafka("consumer_group_topic_lag", "Lag on a topic.", _GROUP_TOPIC, "messages")
LAG = _kafka(
    "consumer_group_topic_partition_lag",
    "Lag on a partition.",
    ("group_id", "topic_name", "partition_id"),
    "messages",
)


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is not None:
        yield Block((), lambda: _of_cluster(snapshot), name="kminion")


def _of_cluster(snapshot: Snapshot) -> Samples:
    controller = "" if snapshot.controller is None else str(snapshot.controller)
    brokers = {
        broker.id: (str(broker.id), broker.host, str(broker.port), broker.rack or "")
        for broker in snapshot.brokers.values()
    }
    cluster = ("", str(len(brokers)), controller, snapshot.cluster_id or "")
    topic_bytes: Counter[str] = Counter()
    broker_bytes: Values = {}
    for broker_id, sizes in snapshot.log_sizes.items():
        by_topic = {topic: sum(found.values()) for topic, found in sizes.partitions.items()}
        topic_bytes.update(by_topic)
        if broker_id in brokers:
            broker_bytes[brokers[broker_id]] = sum(by_topic.values())
    lows, highs = snapshot.start_offsets.values, snapshot.end_offsets.values
    return {
        EXPORTER_UP: {(VERSION,): 1},
        CLUSTER_INFO: {cluster: 1} if brokers else {},
        BROKER_INFO: {
            (*labels, str(broker_id == snapshot.controller).lower()): 1
            for broker_id, labels in brokers.items()
        },
        BROKER_BYTES: broker_bytes,
        TOPIC_BYTES: {(topic,): size for topic, size in topic_bytes.items()},
        TOPIC_INFO: _topic_info(snapshot),
        LOW: ByPartition({(topic,): found for topic, found in lows.items()}),
        HIGH: ByPartition({(topic,): found for topic, found in highs.items()}),
        LOW_SUM: {(topic,): sum(found.values()) for topic, found in lows.items()},
        HIGH_SUM: {(topic,): sum(found.values()) for topic, found in highs.items()},
    }


def _topic_info(snapshot: Snapshot) -> Values:
    found: Values = {}
    for topic in snapshot.topics.values():
        config = snapshot.topic_configs.get(topic.name)
        policies = (config and config.cleanup_policies) or ()
        replicas = max((len(p.replicas) for p in topic.partitions.values()), default=0)
        labels = (topic.name, str(len(topic.partitions)), str(replicas), ",".join(sorted(policies)))
        found[labels] = 1
    return found


def _samples(measures: GroupMeasures, add: GroupSamples) -> None:
    group, lag = measures.group, measures.lag
    coordinator = "" if group.coordinator is None else str(group.coordinator)
    labels = (
        group.id, group.assignor or "", group.protocol_type, group.state or "", coordinator
    )  # fmt: skip
    add.one(GROUP_INFO, labels, int(group.state == "Stable"))
    if group.members is not None:
        add.one(MEMBERS, (group.id,), len(group.members))
        empty = sum(not member.partition_count for member in group.members)
        add.one(EMPTY_MEMBERS, (group.id,), empty)
        _assigned(group, add)
    for topic, commits in group.commits.items():
        add.one(TOPIC_OFFSETS, (group.id, topic), sum(commits.values()))
    for topic, lags in lag.partitions.items():
        add.one(TOPIC_LAG, (group.id, topic), lag.topics[topic])
        add.partitions(LAG, (group.id, topic), lags)


def _assigned(group: Group, add: GroupSamples) -> None:
    held: defaultdict[str, list[int]] = defaultdict(list)
    for member in group.members or ():
        for topic, partitions in member.assignment.items():
            held[topic].append(len(partitions))
    for topic, counts in held.items():
        add.one(TOPIC_MEMBERS, (group.id, topic), len(counts))
        add.one(TOPIC_ASSIGNED, (group.id, topic), sum(counts))


FAMILY: Final = Family(
    "kminion",
    "kminion's names; off unless named.",
    (
        EXPORTER_UP, CLUSTER_INFO, BROKER_INFO, BROKER_BYTES, TOPIC_BYTES, TOPIC_INFO, LOW, HIGH,
        LOW_SUM, HIGH_SUM, GROUP_INFO, MEMBERS, EMPTY_MEMBERS, TOPIC_MEMBERS, TOPIC_ASSIGNED,
        TOPIC_OFFSETS, TOPIC_LAG, LAG,
    ),
    cluster=_cluster,
    samples=_samples,
)  # fmt: skip
