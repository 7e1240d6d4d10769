"""From the measures of a group to what advice needs to know of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from monitor.analysis.activity import Activity
from monitor.analysis.advice import IMBALANCE_EXCESS, GroupPicture, TopicPicture
from monitor.analysis.balance import hottest
from monitor.analysis.retention import retention_of
from monitor.analysis.status import Status
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.analysis.measures import GroupMeasures
    from monitor.analysis.open_transactions import OpenTransaction
    from monitor.analysis.readable import Readable
    from monitor.model import Snapshot


class Beside(NamedTuple):
    """What the measures of a group do not have: of the poll, and of its history.

    `readable` and `open_transactions` are by topic and partition, `messages` has what was appended
    within the window by topic and partition, `lost_at` when a loss was last seen by topic.
    """

    snapshot: Snapshot
    readable: Mapping[str, Mapping[int, Readable]]
    open_transactions: Mapping[str, Mapping[int, OpenTransaction]]
    messages: Mapping[str, Mapping[int, int]]
    lost_at: Mapping[str, float]
    rebalances_last_hour: int


def picture_of(measures: GroupMeasures, beside: Beside) -> GroupPicture:
    """Return the picture of a group; of topics that are gone there is none.

    Commits remain of them, and nothing is to be done about it.
    """
    group, facts = measures.group, measures.facts
    activity = measures.activity or Activity()
    topics = {
        *measures.rates, *measures.imbalance, *measures.lag.past_end,
        *(topic for topic, count in measures.uncommitted.items() if count),
        *(topic for topic, count in measures.unread_deleted.items() if count),
    }  # fmt: skip
    return GroupPicture(
        group.id,
        members=facts.members,
        had_members=activity.by_members is not None,
        had_commits=activity.by_commits is not None,
        commits_move=activity.by_commits is True,
        idle=None if facts.idle is None else len(facts.idle),
        unassigned=None if facts.unassigned is None else len(facts.unassigned),
        rebalances_last_hour=beside.rebalances_last_hour,
        topics=tuple(
            _topic(topic, measures, activity, beside)
            for topic in sorted(topics & beside.snapshot.topics.keys())
        ),
    )


def _topic(topic: str, measures: GroupMeasures, activity: Activity, beside: Beside) -> TopicPicture:
    lag = measures.lag
    rates = measures.rates.get(topic)
    imbalance = measures.imbalance.get(topic, {})
    risks = measures.retention.get(topic, {}).values()
    retention = retention_of(beside.snapshot, topic)
    is_hot = imbalance.get("production", 0.0) > IMBALANCE_EXCESS
    picture = TopicPicture(
        topic,
        partitions=len(beside.snapshot.topics[topic].partitions),
        consumers=measures.facts.consumers(topic),
        lag=lag.readable_sum(topic),
        consumed_topic=topic not in measures.not_consumed,
        produced=rates.produced if rates else None,
        consumed=rates.consumed if rates else None,
        catch_up=rates.catch_up if rates else None,
        behind_since=_behind_since(measures, topic),
        patience_seconds=activity.patience,
        in_error=sum(
            p.topic == topic and p.status > Status.WARN for p in measures.status.partitions
        ),
        uncommitted=measures.uncommitted.get(topic, 0),
        hottest=hottest(beside.messages[topic].items()) if is_hot else None,
        production_excess=imbalance.get("production"),
        assignment_excess=imbalance.get("assignment"),
        unread_deleted=measures.unread_deleted.get(topic, 0),
        lost_at=beside.lost_at.get(topic),
        deleted_at=min((r.deleted_at for r in risks if r.deleted_at is not None), default=None),
        retention_seconds=retention.milliseconds and retention.milliseconds / 1000,
        past_end=sum(lag.past_end.get(topic, nothing()).values()),
    )
    if stuck := activity.stuck(topic, beside.snapshot.monotonic_at):
        picture = replace(picture, stuck=len(stuck), stuck_since=min(stuck))
    transactions = beside.open_transactions.get(topic, nothing())
    readable = beside.readable.get(topic, nothing())
    held = [transactions[p] for p, of in readable.items() if of.held_at is not None]
    if held:
        records = sum(each.records for each in held)
        picture = replace(picture, held=records, held_since=min(each.since for each in held))
    return picture


def _behind_since(measures: GroupMeasures, topic: str) -> float | None:
    """Return since when the oldest message of a topic is unread, None unless all are known."""
    moments = measures.oldest_unread_at.get(topic, nothing())
    if measures.lag.partitions.get(topic, nothing()).keys() - moments.keys():
        return None
    return min(moments.values(), default=None)
