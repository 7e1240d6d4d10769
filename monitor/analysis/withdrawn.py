"""Takes back what was measured by log ends that are too old to pass for today's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from monitor.analysis.lag import GroupLag
from monitor.analysis.measures import NOTHING_UNREAD, GroupMeasures
from monitor.analysis.rates import TopicRates


def withdraw(measures: GroupMeasures, gone: Mapping[str, frozenset[int]]) -> GroupMeasures:
    """Return the measures without these partitions (by topic); itself where it has none of them.

    Of a topic that lost a partition, what was reckoned from all its log ends goes as well; sums are
    of the partitions that are left.
    """
    changes = {
        field.name: cut
        for field in fields(measures)
        if field.name != "committed_at"  # commits are the coordinator's to tell, not the leaders'
        and (cut := _without(known := getattr(measures, field.name), gone)) is not known
    }
    if not changes:
        return measures
    status = measures.status
    left = tuple(p for p in status.partitions if p.partition not in gone.get(p.topic, ()))
    left_over = replace(measures, **changes, status=status._replace(partitions=left))
    if not left_over.lag.partitions:
        return replace(left_over, behind_since=None)
    if measures.behind_since not in {None, NOTHING_UNREAD} and "oldest_unread_at" in changes:
        known = [at for topic in left_over.oldest_unread_at.values() for at in topic.values()]
        earliest = max(measures.behind_since or 0.0, min(known)) if known else None
        return replace(left_over, behind_since=earliest)
    return left_over


def _without(value: Any, gone: Mapping[str, frozenset[int]]) -> Any:
    if isinstance(value, GroupLag):
        return _lag_without(value, gone)
    if not isinstance(value, Mapping) or gone.keys().isdisjoint(value):
        return value
    found = dict(value)
    for topic in gone.keys() & value.keys():
        match value[topic]:
            case TopicRates() as rates:
                found[topic] = rates._replace(produced=None, lag_velocity=None, catch_up=None)
            case Mapping() as of if not gone[topic].isdisjoint(of):
                found[topic] = {p: known for p, known in of.items() if p not in gone[topic]}
    return found if found != value else value


def _lag_without(lag: GroupLag, gone: Mapping[str, frozenset[int]]) -> GroupLag:
    changes = {
        field.name: cut
        for field in fields(lag)
        if (cut := _without(known := getattr(lag, field.name), gone)) is not known
    }
    if not changes:
        return lag
    found = replace(lag, **changes)
    partitions = {topic: lags for topic, lags in found.partitions.items() if lags}
    topics = {
        topic: sum(lags.values()) if topic in gone else lag.topics[topic]
        for topic, lags in partitions.items()
    }
    return replace(found, partitions=partitions, topics=topics, total=sum(topics.values()))
