"""What is told of a consumer group: the one place that turns its measures into the API's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from monitor.analysis.advice import Advice, Severity
from monitor.analysis.causes.finding import Finding
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.rates import NEVER
from monitor.answers.models import (
    AdviceOfGroup,
    GroupDetail,
    GroupOfTopic,
    GroupSummary,
    Heard,
    MemberOfGroup,
    PartitionOfGroup,
    TopicOfGroup,
)
from monitor.model import Group, Refused, Silent, Snapshot
from monitor.ranking import NOT_JUDGED, status_word

_NO_ANSWER: Final = "its leader did not answer"
_SEVERITIES: Final = {severity: severity.name.lower() for severity in Severity}


def group_summary(
    cluster: str,
    snapshot: Snapshot,
    group: Group,
    measures: GroupMeasures,
    why: Finding | None = None,
) -> GroupSummary:
    """Return what a list tells of a group, and why it is behind."""
    return GroupSummary(**_summary(cluster, snapshot, group, measures, why))


def group_detail(
    cluster: str,
    snapshot: Snapshot,
    group: Group,
    measures: GroupMeasures,
    wants_topic: Callable[[str], bool] | None = None,
    *,
    max_partitions: int | None = None,
    why: Finding | None = None,
) -> GroupDetail:
    """Return all that is known of a group; on all topics unless told which.

    With `max_partitions` the first so many: of 20,000 half a second goes into rows nobody reads.
    """
    facts, activity = measures.facts, measures.activity
    partitions = [
        row
        for row in islice(partitions_of(snapshot, group, measures), max_partitions)
        if wants_topic is None or wants_topic(row.topic)
    ]
    return GroupDetail(
        **_summary(cluster, snapshot, group, measures, why),
        assignor=group.assignor,
        coordinator=group.coordinator,
        rebalances=measures.rebalances,
        idle_members=None if facts.idle is None else len(facts.idle),
        unassigned_partitions=None if facts.unassigned is None else len(facts.unassigned),
        active_by_members=None if activity is None else activity.by_members,
        active_by_commits=None if activity is None else activity.by_commits,
        patience_seconds=None if activity is None else round(activity.patience, 3),
        member_list=[
            MemberOfGroup(
                consumer_id=member.id,
                client_id=member.client_id,
                host=member.host,
                instance_id=member.instance_id,
                assignment={topic: list(held) for topic, held in member.assignment.items()},
            )
            for member in group.members or ()
        ],
        topics=[
            topic_of_group(snapshot, measures, topic)
            for topic in sorted(group.topics)
            if wants_topic is None or wants_topic(topic)
        ],
        partitions=partitions,
    )


def group_of_topic(
    snapshot: Snapshot, group: Group, measures: GroupMeasures, topic: str
) -> GroupOfTopic:
    """Return how far a group is on a topic."""
    return GroupOfTopic(
        **topic_of_group(snapshot, measures, topic).model_dump(),
        group=group.id,
        state=group.state,
        status=status_word(measures),
        members=None if group.members is None else len(group.members),
    )


def topic_of_group(snapshot: Snapshot, measures: GroupMeasures, topic: str) -> TopicOfGroup:
    """Return what a group does on a topic."""
    rates, activity = measures.rates.get(topic), measures.activity
    catch_up = rates.catch_up if rates is not None else None
    committed_at = measures.changed_at.get(topic)
    is_known = topic in measures.lag.partitions
    return TopicOfGroup(
        topic=topic,
        lag=measures.lag.topics.get(topic),
        unread=measures.lag.readable_sum(topic) if is_known else None,
        max_lag_seconds=rounded(
            max(measures.behind_by_partition(topic, snapshot.seen_at).values(), default=None)
        ),
        committed_at=None if committed_at is None else unix(snapshot, committed_at),
        produced_per_second=rounded(rates and rates.produced),
        consumed_per_second=rounded(rates and rates.consumed),
        lag_growth_per_second=rounded(rates and rates.lag_velocity),
        commits_per_second=rounded(rates and rates.commit_rate),
        catching_up=None if catch_up is None else catch_up != NEVER,
        catch_up_seconds=None if catch_up in (None, NEVER) else round(float(catch_up), 3),
        imbalance={
            kind: round(excess, 4) for kind, excess in measures.imbalance.get(topic, {}).items()
        },
        is_consumed=topic not in measures.not_consumed,
        stuck_partitions=measures.stuck.get(topic),
        uncommitted_partitions=measures.uncommitted.get(topic),
        lost=measures.lost.get(topic),
        unread_deleted=measures.unread_deleted.get(topic),
        rewinds=None if activity is None else activity.rewinds.get(topic, 0),
    )


def advice_of_group(cluster: str, snapshot: Snapshot, group: str, advice: Advice) -> AdviceOfGroup:
    """Return a piece of advice with the group that it is about."""
    return AdviceOfGroup(cluster=cluster, group=group, **_advice(advice, snapshot))


def partitions_of(
    snapshot: Snapshot, group: Group, measures: GroupMeasures
) -> Iterator[PartitionOfGroup]:
    """Yield the partitions that a group committed or holds, by topic and number."""
    return (PartitionOfGroup(**row) for row in partition_rows(snapshot, group, measures))


def partition_rows(
    snapshot: Snapshot, group: Group, measures: GroupMeasures
) -> Iterator[dict[str, Any]]:
    """Yield the fields of each `PartitionOfGroup`: who shows 20,000 has no use for the objects."""
    lag = measures.lag
    owners = {(topic, index): member for member, topic, index in group.assignments()}
    committed = {
        (topic, index): offset
        for topic, commits in group.commits.items()
        for index, offset in commits.items()
    }
    bad = {(p.topic, p.partition): p.status.name for p in measures.status.partitions}
    behind = {
        topic: measures.behind_by_partition(topic, snapshot.seen_at) for topic in lag.partitions
    }
    healthy = None if status_word(measures) in (None, NOT_JUDGED) else "OK"
    for topic, index in sorted(owners.keys() | committed.keys()):
        owner = owners.get((topic, index))
        heard, error = log_end_heard(snapshot, topic, index)
        risk = measures.retention.get(topic, {}).get(index)
        partition_lag = lag.get(topic, index)
        yield {
            "topic": topic,
            "partition": index,
            "current_offset": committed.get((topic, index)),
            "log_end_offset": snapshot.end_offsets.get(topic, index),
            "lag": partition_lag,
            "lag_seconds": rounded(behind.get(topic, {}).get(index)),
            "status": bad.get((topic, index), None if partition_lag is None else healthy),
            "past_end": index in lag.past_end.get(topic, ()),
            "heard": heard,
            "error": error,
            "topic_is_gone": topic not in snapshot.topics,
            "unread_share": None if risk is None else round(risk.unread_share, 4),
            "retention_remaining_seconds": rounded(
                None
                if risk is None or risk.deleted_at is None
                else max(0.0, risk.deleted_at - measures.as_of(snapshot.seen_at))
            ),
            "consumer_id": owner.id if owner else None,
            "host": owner.host if owner else None,
            "client_id": owner.client_id if owner else None,
        }


def log_end_heard(snapshot: Snapshot, topic: str, partition: int) -> tuple[Heard, str | None]:
    """Return whether a partition's leader told its log end in the last poll, and why not."""
    ends = snapshot.end_offsets
    if (refused := ends.refused.get(topic, {}).get(partition)) is not None:
        return Heard.REFUSED, refused
    if ends.is_silent(topic, partition):
        return Heard.SILENT, _NO_ANSWER
    known = snapshot.topics.get(topic)
    if known is not None and partition in known.partitions and ends.get(topic, partition) is None:
        return Heard.SILENT, _NO_ANSWER
    return Heard.ANSWERED, None


def unix(snapshot: Snapshot, moment: float) -> float:
    """Return a moment of the monotonic clock as Unix time."""
    return round(moment + snapshot.wall_offset, 3)


def _summary(
    cluster: str,
    snapshot: Snapshot,
    group: Group,
    measures: GroupMeasures,
    why: Finding | None,
) -> dict[str, Any]:
    lag = measures.lag
    seen_at = group.silent_since if group.is_silent else snapshot.monotonic_at
    return {
        "cluster": cluster,
        "group": group.id,
        "type": group.type,
        "state": group.state,
        "status": status_word(measures),
        "members": None if group.members is None else len(group.members),
        "total_lag": lag.total if lag.partitions else None,
        "unread": lag.readable_total if lag.partitions else None,
        "lag_complete": all(
            len(commits) == len(lag.partitions.get(topic, ()))
            for topic, commits in group.commits.items()
            if topic in snapshot.topics
        ),
        "max_lag_seconds": rounded(measures.behind(snapshot.seen_at)),
        "heard": _heard(group),
        "stale": group.is_silent,
        "seen_at": None if seen_at is None else unix(snapshot, seen_at),
        "error": group.error,
        "advice": [_advice(advice, snapshot) for advice in measures.advice],
        "cause": why and why.cause,
        "cause_word": why and why.word,
    }


def _heard(group: Group) -> Heard:
    match group.answer:
        case Refused():
            return Heard.REFUSED
        case Silent():
            return Heard.SILENT
    return Heard.ANSWERED


def _advice(advice: Advice, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "severity": _SEVERITIES[advice.severity],
        "cause": advice.cause,
        "topic": advice.topic,
        "finding": advice.finding(snapshot.monotonic_at),
        "action": advice.action,
    }


def rounded(seconds: float | None) -> float | None:
    """Return a figure to the thousandth, None for what is not known."""
    return None if seconds is None else round(seconds, 3)
