"""What others do not measure: seconds, status, balance, retention, what stands still and why.

At the finest level, too, groups are told by topic here: which partitions they are is in
`kafka_consumergroup_lag` and `kafka_consumergroup_partition_status`, and each of these metrics by
partition would be 20,000 series where kafka_exporter has 117,000. A setting asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from monitor.analysis.measures import NOTHING_UNREAD, GroupMeasures, age
from monitor.analysis.rates import NEVER
from monitor.analysis.status import Status
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric, group_metric
from monitor.exposition.series import (
    Block,
    ByPartition,
    GroupSamples,
    Level,
    Nested,
    Samples,
    Values,
)
from monitor.model import Refused, Snapshot
from monitor.state import State

_PARTITION: Final = ("topic", "partition")
_GROUP_TOPIC: Final = ("consumergroup", "topic")
_GROUP_PARTITION: Final = ("consumergroup", "topic", "partition")

LAG_SECONDS = group_metric(
    "lag_seconds",
    "Time since the oldest unread record that can be read was appended; 0 when nothing readable is "
    "unread, absent while it is not known.",
    _GROUP_PARTITION,
    "seconds",
    rollup="max",
)
LAG_SECONDS_MAX = group_metric(
    "lag_seconds_max",
    "The largest lag in seconds among the partitions of consumed topics; absent while a lag that is "
    "not known may be larger than all known ones, if those are 0.",
    unit="seconds",
)
READABLE_LAG = group_metric(
    "readable_lag",
    "Records that a consumer can read and the group has not: from the committed offset, or the log "
    "start if that is later, to the log end; 0 where only transaction markers and aborted records are "
    "left, or an open transaction holds back all.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
ACTIVE = group_metric(
    "active",
    "1 while somebody consumes, 0 since it was last seen. by is members, or commits: moving commits "
    "of a group without members, as of assign(), Flink or Spark. Absent where that was never seen.",
    ("consumergroup", "by"),
    when="the group had members, or committed without any, since the monitor's start",
)
NOT_CONSUMED = group_metric(
    "not_consumed",
    "1 for a topic on which commits remain while the group is Stable, holds nothing of it and "
    "commits nothing there.",
    _GROUP_TOPIC,
    rollup="sum",
    when="the group's members hold nothing of a topic that it has commits on",
)
PATIENCE = group_metric(
    "commit_patience_seconds",
    "How long without a commit means nothing for this group: twice the longest that something "
    "readable was seen to wait for one, at least 60; 5400 until one whole wait was seen.",
    unit="seconds",
    when="somebody was seen to consume, until then it is 5400",
)
STUCK = group_metric(
    "stuck_partitions",
    "Partitions of consumed topics with readable lag and no commit for longer than 600 s and than "
    "the group's patience, watched for that long.",
    _GROUP_TOPIC,
    "partitions",
    rollup="sum",
    when="the group has members and lag on the topic",
)
UNCOMMITTED = group_metric(
    "uncommitted_partitions",
    "Partitions that a member holds, whose log has records, without any commit.",
    _GROUP_TOPIC,
    "partitions",
    rollup="sum",
    when="the group has members",
)
COMMIT_PAST_END = group_metric(
    "commit_past_end_messages",
    "How many messages the committed offset is past the log end: the topic was truncated or created "
    "anew, or the offset is another cluster's.",
    _GROUP_PARTITION,
    "messages",
    rollup="sum",
    when="a committed offset is past the log end",
)
REWINDS = group_metric(
    "rewinds_total",
    "Steps back of committed offsets seen since the monitor's start, but for topics created anew.",
    _GROUP_TOPIC,
    rollup="sum",
)
ERROR = group_metric(
    "error",
    "1 while a part of the group can't be read; error names why.",
    ("consumergroup", "error"),
    when="a broker refuses a part of the group",
)
STATUS = group_metric(
    "status",
    "Burrow's status of a group, always 1: one of OK, WARN and ERR, and STOP, STALL and REWIND while a "
    "partition is in that status (the group is ERR then); others are absent. A partition is OK until "
    "it was watched for ten polls, and while its silence is usual for the group; a group of which no "
    "partition can be judged, or that is OK and nobody was seen to read with, is absent.",
    ("consumergroup", "status"),
)
PARTITION_STATUS = group_metric(
    "partition_status",
    "Burrow's status of a partition, always 1; absent for those that are OK.",
    ("consumergroup", "topic", "partition", "status"),
    when="a partition is WARN, STOP, STALL or REWIND",
)
STATUS_COMPLETE = group_metric(
    "status_complete_ratio",
    "Share of the group's partitions that were watched long enough for any status (ten polls).",
    unit="ratio",
)
STATE = group_metric(
    "state",
    "The group's state as its coordinator tells it; always 1, other states are absent.",
    ("consumergroup", "state"),
)
INFO = group_metric(
    "info",
    "The group's type (classic, consumer, share, streams), assignor and coordinating broker; always "
    "1.",
    ("consumergroup", "type", "assignor", "coordinator"),
)
IDLE_MEMBERS = group_metric(
    "idle_members",
    "Members that hold no partition and are to get none; absent during a rebalance.",
    when="the group has members",
)
UNASSIGNED = group_metric(
    "unassigned_partitions",
    "Partitions of consumed topics that no member holds; absent during a rebalance.",
    when="the group has members",
)
REBALANCES = group_metric(
    "rebalances_total",
    "Rebalances that polls have seen since the monitor's start: a lower bound for classic groups.",
)
MEMBER_PARTITIONS = group_metric(
    "member_partitions",
    "Partitions that a member holds.",
    ("consumergroup", "client_id", "host", "member_id"),
    "partitions",
    when="the group has members and MONITOR_MEMBER_METRICS is on",
)
IMBALANCE = group_metric(
    "imbalance_ratio",
    "Excess of the largest share over the best possible: 0 is balanced, 0.2 a fifth too much. kind "
    "is assignment (all that the topic's busiest member holds, against those that could take from it; not "
    "of share groups and Kafka Streams), production or lag (messages per partition, chance deducted).",
    ("consumergroup", "topic", "kind"),
    "ratio",
    rollup="max",
    when="the group has members or lag on the topic",
)
_CLOSE: Final = "the group has members, lag or recent commits, from the second poll on"
PRODUCED_RATE = group_metric(
    "produced_messages_per_second",
    "Messages appended to the partitions that the group has committed, over the last ten polls.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
CONSUMED_RATE = group_metric(
    "consumed_messages_per_second",
    "Messages by which the committed offsets moved, over the last ten polls, of which those count that "
    "came after the last rebalance once they are four.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
LAG_VELOCITY = group_metric(
    "lag_velocity_messages_per_second",
    "Growth of the readable lag, over the last ten polls; negative while it shrinks.",
    _GROUP_TOPIC,
    "messages/s",
    rollup="sum",
    when=_CLOSE,
)
COMMIT_RATE = group_metric(
    "commits_per_second",
    "Changes of committed offsets, at most one per partition and poll, over the last ten polls.",
    _GROUP_TOPIC,
    "commits/s",
    rollup="sum",
    when=_CLOSE,
)
COMMIT_AGE = group_metric(
    "commit_age_seconds",
    "Time since a committed offset of the topic last changed, or was first seen.",
    _GROUP_TOPIC,
    "seconds",
    rollup="min",
)
PARTITION_COMMIT_AGE = group_metric(
    "partition_commit_age_seconds",
    "Time since the committed offset of the partition last changed, or was first seen.",
    _GROUP_PARTITION,
    "seconds",
    when="MONITOR_MEASURES_LEVEL is partition",
)
CATCHING_UP = group_metric(
    "catching_up",
    "1 when nothing is unread or the lag ends at the present rates, 0 when it never does; absent "
    "while the rates are not known, in place of 0 also until four polls after a rebalance.",
    _GROUP_TOPIC,
    rollup="min",
    when=_CLOSE,
)
TIME_TO_CATCH_UP = group_metric(
    "time_to_catch_up_seconds",
    "Time until nothing is unread at the present rates; absent when that is never.",
    _GROUP_TOPIC,
    "seconds",
    rollup="max",
    when="the lag ends at the present rates",
)
_LAGGING: Final = "a partition has lag"
LOST = group_metric(
    "messages_lost_total",
    "Messages that were seen to be deleted before the group read them, since the monitor's start: a "
    "lower bound.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
UNREAD_DELETED = group_metric(
    "unread_deleted_messages",
    "Messages between committed offsets and later log starts now, whenever they were deleted.",
    _GROUP_TOPIC,
    "messages",
    rollup="sum",
)
RETENTION_REMAINING = group_metric(
    "retention_remaining_seconds",
    "Time for which the oldest unread message is surely kept, by its own timestamp; absent when it is "
    "kept for ever or that timestamp is not known.",
    _GROUP_PARTITION,
    "seconds",
    rollup="min",
    when="a partition has lag and its topic a retention limit",
)
UNREAD_RATIO = group_metric(
    "log_unread_ratio",
    "Share of the retained log that is unread.",
    _GROUP_PARTITION,
    "ratio",
    rollup="max",
    when=_LAGGING,
)
ADVICE = group_metric(
    "advice",
    "What the monitor would have somebody look at, always 1; cause is one of a fixed list.",
    ("consumergroup", "topic", "severity", "cause"),
    rollup="max",
    when="there is something to do",
)
DATA_AGE = group_metric(
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
    when="a partition's leader does not answer",
)
PARTITION_ERROR = Metric(
    "kafka_topic_partition_error",
    "gauge",
    "1 while a partition's offsets can't be read, or its log not looked into; error names why. "
    'With error "Fetch: ..." transaction markers and aborted records count as readable lag.',
    ("topic", "partition", "error"),
    when="a broker refuses a partition's offsets or a look into its log, or it has no leader",
)
PARTITION_HELD_RECORDS = Metric(
    "kafka_topic_partition_open_transaction_records",
    "gauge",
    "Records that an open transaction holds back from read_committed consumers: from the last stable "
    "offset to the log end.",
    _PARTITION,
    "messages",
    when="an open transaction holds a group back",
)
PARTITION_HELD_SECONDS = Metric(
    "kafka_topic_partition_open_transaction_seconds",
    "gauge",
    "Time since the first record that an open transaction holds back was appended, or first seen.",
    _PARTITION,
    "seconds",
    when="an open transaction holds a group back",
)
PARTITION_LOG_BYTES = Metric(
    "kafka_topic_partition_log_bytes",
    "gauge",
    "Size of the leader's log on disk.",
    _PARTITION,
    "bytes",
    when="MONITOR_LOG_SIZES is on",
)


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is None:
        return
    yield Block((), lambda: _partitions(state, snapshot), name="partitions")
    yield Block((), lambda: _silent_groups(state, snapshot), name="silent groups")


def _partitions(state: State, snapshot: Snapshot) -> Samples:
    ages: Nested = {
        (topic,): {p: round(age(seen_at, state.monotonic_at), 3) for p, seen_at in of.items()}
        for topic, of in snapshot.end_offsets.silent.items()
    }
    errors: Values = {}
    for offsets in (snapshot.start_offsets, snapshot.end_offsets):
        for topic, refused in offsets.refused.items():
            for partition, error in refused.items():
                errors[topic, str(partition), error] = 1
    for topic, refused in snapshot.unreadable.items():
        for partition, error in refused.items():
            errors[topic, str(partition), f"Fetch: {error}"] = 1
    held = state.findings.open_transactions.items()
    now = snapshot.monotonic_at
    sizes = snapshot.log_bytes if snapshot.log_sizes else {}
    return {
        PARTITION_DATA_AGE: ByPartition(ages),
        PARTITION_ERROR: errors,
        PARTITION_HELD_RECORDS: ByPartition(
            {(topic,): {p: each.records for p, each in of.items()} for topic, of in held}
        ),
        PARTITION_HELD_SECONDS: ByPartition(
            {
                (topic,): {p: round(age(each.since, now), 3) for p, each in of.items()}
                for topic, of in held
            }
        ),
        PARTITION_LOG_BYTES: ByPartition({(topic,): of for topic, of in sizes.items()}),
    }


def _silent_groups(state: State, snapshot: Snapshot) -> Samples:
    return {
        DATA_AGE: {
            (group_id,): round(age(group.silent_since, state.monotonic_at), 3)
            for group_id, group in snapshot.groups.items()
            if group.silent_since is not None
        }
    }


def _samples(measures: GroupMeasures, add: GroupSamples) -> None:
    _identity(measures, add)
    _lag(measures, add)
    _status(measures, add)
    _losses(measures, add)
    if not _nobody_reads(measures):
        _membership(measures, add)
        _activity(measures, add)
        _rates(measures, add)
    for advice in measures.advice:
        severity = advice.severity.name.lower()
        labels = (measures.group.id, advice.topic or "", severity, advice.cause)
        add.one(ADVICE, labels, 1)


def _nobody_reads(measures: GroupMeasures) -> bool:
    """Say whether nobody was seen to consume: of most groups of a large cluster that is so.

    What stays is what an alert may need of a service that died before the monitor came.
    """
    activity = measures.activity
    return (
        measures.facts.members == 0
        and activity is not None
        and activity.was_never_active
        and not any(rates.commit_rate for rates in measures.rates.values())
    )


def _ages(measures: GroupMeasures, now: float, add: GroupSamples) -> None:
    group = measures.group.id
    behind = measures.behind(now)
    if behind is not None and measures.behind_since != NOTHING_UNREAD:
        add.one(LAG_SECONDS_MAX, (group,), round(behind, 3))
    for topic, moments in measures.oldest_unread_at.items():
        add.since(LAG_SECONDS, (group, topic), moments, measures.as_of(now))
    if not _nobody_reads(measures):
        for topic, changed_at in measures.changed_at.items():
            add.one(COMMIT_AGE, (group, topic), round(age(changed_at, now), 3))
    if add.level is Level.PARTITION:  # ages that nobody is told cost a tenth of a quiet poll
        for topic in measures.changed_at:
            add.since(PARTITION_COMMIT_AGE, (group, topic), measures.commits_at(topic), now)
    _retention(measures, now, add)


def _retention(measures: GroupMeasures, now: float, add: GroupSamples) -> None:
    for topic, risks in measures.retention.items():
        moments = {p: risk.deleted_at for p, risk in risks.items() if risk.deleted_at is not None}
        add.until(RETENTION_REMAINING, (measures.group.id, topic), moments, now)


def _identity(measures: GroupMeasures, add: GroupSamples) -> None:
    group = measures.group
    coordinator = "" if group.coordinator is None else str(group.coordinator)
    add.one(INFO, (group.id, group.type, group.assignor or "", coordinator), 1)
    if group.state is not None and not (group.state == "Empty" and _nobody_reads(measures)):
        add.one(STATE, (group.id, group.state), 1)
    if isinstance(group.answer, Refused):
        add.one(ERROR, (group.id, group.answer.error), 1)
    # that of a group that nobody reads is not known: a tenth of the series of many clusters are such
    if measures.activity is not None and not _nobody_reads(measures):
        add.one(PATIENCE, (group.id,), round(measures.activity.patience, 3))


def _lag(measures: GroupMeasures, add: GroupSamples) -> None:
    group, lag = measures.group.id, measures.lag
    for topic, lags in lag.partitions.items():
        add.one(READABLE_LAG, (group, topic), lag.readable_sum(topic))
        if topic not in measures.oldest_unread_at:  # nothing is unread, whatever the time is
            add.partitions(LAG_SECONDS, (group, topic), lags)
    if measures.behind_since == NOTHING_UNREAD:
        add.one(LAG_SECONDS_MAX, (group,), 0)
    for topic, past_end in lag.past_end.items():
        add.partitions(COMMIT_PAST_END, (group, topic), past_end)


def _status(measures: GroupMeasures, add: GroupSamples) -> None:
    status, group = measures.status, measures.group.id
    if status.status is Status.NOTFOUND:
        return
    worse = {p.status.name for p in status.partitions if p.status > Status.ERR}
    if status.status is not Status.OK or not _nobody_reads(measures):
        for name in sorted({status.status.name, *worse}):
            add.one(STATUS, (group, name), 1)
    if status.complete < 1 or not _nobody_reads(measures):
        add.one(STATUS_COMPLETE, (group,), round(status.complete, 4))
    for p in status.partitions:
        add.one(PARTITION_STATUS, (group, p.topic, str(p.partition), p.status.name), 1)


def _membership(measures: GroupMeasures, add: GroupSamples) -> None:
    group, facts = measures.group, measures.facts
    if facts.idle is not None:
        add.one(IDLE_MEMBERS, (group.id,), len(facts.idle))
    if facts.unassigned is not None:
        add.one(UNASSIGNED, (group.id,), len(facts.unassigned))
    if add.members:
        for member in group.members or ():
            labels = (group.id, member.client_id, member.host, member.id)
            add.one(MEMBER_PARTITIONS, labels, member.partition_count)
    for topic, kinds in measures.imbalance.items():
        for kind, excess in kinds.items():
            add.one(IMBALANCE, (group.id, topic, kind), round(excess, 4))


def _activity(measures: GroupMeasures, add: GroupSamples) -> None:
    group, activity = measures.group.id, measures.activity
    if activity is not None:
        for by, is_active in (("members", activity.by_members), ("commits", activity.by_commits)):
            if is_active is not None:
                add.one(ACTIVE, (group, by), int(is_active))
    for topic in measures.not_consumed:
        add.one(NOT_CONSUMED, (group, topic), 1)
    for metric, counts in ((STUCK, measures.stuck), (UNCOMMITTED, measures.uncommitted)):
        for topic, count in counts.items():
            add.one(metric, (group, topic), count)


def _rates(measures: GroupMeasures, add: GroupSamples) -> None:
    group = measures.group.id
    # a group that never catches up on one topic has no time at which it has: none may be shown
    is_hidden = add.level is Level.GROUP and any(
        rates.catch_up == NEVER for rates in measures.rates.values()
    )
    for topic, rates in measures.rates.items():
        for metric, value in (
            (PRODUCED_RATE, rates.produced),
            (CONSUMED_RATE, rates.consumed),
            (LAG_VELOCITY, rates.lag_velocity),
            (COMMIT_RATE, rates.commit_rate),
        ):
            if value is not None:
                add.one(metric, (group, topic), round(value, 3))
        if rates.catch_up is None:
            continue
        add.one(CATCHING_UP, (group, topic), int(rates.catch_up != NEVER))
        if rates.catch_up != NEVER and not is_hidden:
            add.one(TIME_TO_CATCH_UP, (group, topic), round(float(rates.catch_up), 3))


def _losses(measures: GroupMeasures, add: GroupSamples) -> None:
    group = measures.group.id
    # counters are there from the first look, at 0: Prometheus counts no step to a series' first value
    if measures.rebalances is not None:
        add.one(REBALANCES, (group,), measures.rebalances)
    for topic, count in measures.lost.items():  # all topics with commits, as far as they exist
        add.one(LOST, (group, topic), count)
        if measures.activity is not None:
            add.one(REWINDS, (group, topic), measures.activity.rewinds.get(topic, 0))
    for topic, count in measures.unread_deleted.items():
        if count or not _nobody_reads(measures):
            add.one(UNREAD_DELETED, (group, topic), count)
    for topic, risks in measures.retention.items() if not _nobody_reads(measures) else ():
        shares = {p: round(risk.unread_share, 4) for p, risk in risks.items()}
        add.partitions(UNREAD_RATIO, (group, topic), shares)


FAMILY: Final = Family(
    "measures",
    "What others do not measure.",
    tuple(value for value in tuple(globals().values()) if isinstance(value, Metric)),
    cluster=_cluster,
    samples=_samples,
    ages=_ages,
    is_default=True,
    has_levels=True,
)
