"""What is told of a topic: its partitions, and how far each group is on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitor.answers.groups import group_of_topic, log_end_heard, unix
from monitor.answers.models import GroupOfTopic, Heard, PartitionOfTopic, TopicDetail, TopicSummary
from monitor.model import Partition, Topic
from monitor.state import State


def readers(state: State) -> Mapping[str, Sequence[str]]:
    """Return topic -> ids of the groups that committed it or hold partitions of it."""
    found: dict[str, list[str]] = {}
    if state.snapshot is not None:
        for group in state.snapshot.groups.values():
            for topic in group.topics:
                found.setdefault(topic, []).append(group.id)
    return found


def topic_summary(state: State, topic: Topic, groups: Sequence[str]) -> TopicSummary:
    """Return what a list tells of a topic; `groups` are its readers."""
    lags = [
        lag
        for group in groups
        if (lag := state.groups[group].lag.topics.get(topic.name)) is not None
    ]
    seconds = [
        value
        for group in groups
        if state.snapshot is not None
        for value in state.groups[group]
        .behind_by_partition(topic.name, state.snapshot.seen_at)
        .values()
    ]
    return TopicSummary(
        cluster=state.cluster,
        topic=topic.name,
        internal=topic.internal,
        partitions=len(topic.partitions),
        groups=len(groups),
        max_lag=max(lags, default=None),
        max_lag_seconds=round(max(seconds), 3) if seconds else None,
        error=topic.error,
    )


def topic_detail(state: State, topic: Topic) -> TopicDetail:
    """Return all that is known of a topic; the state must have a snapshot."""
    snapshot = state.snapshot
    assert snapshot is not None  # noqa: S101  # that is where the topic is from
    groups = readers(state).get(topic.name, ())
    config = snapshot.topic_configs.get(topic.name)
    policies = None if config is None else config.cleanup_policies
    read = [
        group_of_topic(snapshot, snapshot.groups[group], state.groups[group], topic.name)
        for group in groups
    ]
    return TopicDetail(
        **topic_summary(state, topic, groups).model_dump(),
        id=topic.id,
        retention_ms=None if config is None else config.retention_ms,
        retention_bytes=None if config is None else config.retention_bytes,
        cleanup_policies=None if policies is None else sorted(policies),
        partition_list=[
            _partition(state, topic.name, index, partition)
            for index, partition in sorted(topic.partitions.items())
        ],
        group_list=sorted(read, key=_behind, reverse=True),
    )


def _behind(group: GroupOfTopic) -> tuple[float, int, str]:
    return group.max_lag_seconds or 0.0, group.lag or 0, group.group


def _partition(state: State, topic: str, index: int, partition: Partition) -> PartitionOfTopic:
    snapshot = state.snapshot
    assert snapshot is not None  # noqa: S101
    ends = snapshot.end_offsets
    heard, error = log_end_heard(snapshot, topic, index)
    held = state.findings.open_transactions.get(topic, {}).get(index)
    return PartitionOfTopic(
        partition=index,
        leader=partition.leader,
        replicas=list(partition.replicas),
        in_sync=list(partition.isr),
        offline=list(partition.offline),
        log_start_offset=snapshot.start_offsets.get(topic, index),
        log_end_offset=ends.get(topic, index),
        heard=heard,
        seen_at=None
        if heard is Heard.REFUSED or index not in ends.values.get(topic, {})
        else unix(snapshot, ends.time_of(topic, index)),
        error=error,
        held_records=None if held is None else held.records,
        held_since=None if held is None else unix(snapshot, held.since),
    )
