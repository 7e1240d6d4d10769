"""Measures one group at one poll; each step runs under a guard.

What a group does on a topic is looked at closely while something is unread, somebody is a member, or
commits were seen within the window. What fails is absent, and costs nobody else.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.analysis.activity import Activity, GroupActivity, topics_not_consumed
from monitor.analysis.advice import advise, turns_at
from monitor.analysis.balance import assignment_excess, imbalance_of, is_judged
from monitor.analysis.groups import GroupFacts, group_facts, uncommitted_partitions
from monitor.analysis.lag import GroupLag
from monitor.analysis.losses import Losses, unread_deleted
from monitor.analysis.measures import NOTHING_UNREAD, GroupMeasures
from monitor.analysis.picture import Beside, picture_of
from monitor.analysis.rates import TopicRates, group_rates, produce_rates, produced_messages
from monitor.analysis.rebalances import KEPT_SECONDS as REBALANCES_KEPT_SECONDS
from monitor.analysis.retention import retention_of, retention_risks
from monitor.analysis.status import NOT_FOUND, GroupStatus, StatusRules, group_status
from monitor.model import Group, nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from monitor.analysis.advice import Advice
    from monitor.analysis.group_history import GroupHistory
    from monitor.analysis.open_transactions import OpenTransaction
    from monitor.analysis.readable import Readable
    from monitor.analysis.retention import RetentionRisk
    from monitor.analysis.timelag import TimeLag
    from monitor.analysis.topic import TopicLog
    from monitor.analysis.windows import CommitWindows
    from monitor.guard import Guard
    from monitor.model import PartitionOffsets, Snapshot

# what has nothing to tell is the same object in all groups
_NOTHING_KNOWN: Final = GroupMeasures(Group(""), GroupLag(), GroupFacts(None, None))


class Poll(NamedTuple):
    """One poll, and what all groups of a topic share of it.

    It is the `number`-th. `ends` are the log ends that were told in it, `last` is when the one before
    was, `window_began` when the window's oldest was; who reads since `settling_since` is not judged
    yet; `interval` the mean time between two; `topics` and `times` have what was learned of logs in
    all polls; `produced` (messages per second) and `messages` (within the window) are reckoned by
    topic and partition when a group first asks.
    """

    snapshot: Snapshot
    number: int
    ends: PartitionOffsets
    now: float
    last: float | None
    interval: float
    window_began: float
    settling_since: float
    log_bytes: PartitionOffsets
    partitions_of: Mapping[str, Collection[int]]
    topics: Mapping[str, TopicLog]
    times: TimeLag
    open_transactions: Mapping[str, Mapping[int, OpenTransaction]]
    produced: dict[str, dict[int, float]]
    messages: dict[str, dict[int, int]]


class GroupMeter:
    """Makes the measures of one group after another, in one poll."""

    def __init__(self, poll: Poll, rules: StatusRules, guard: Guard) -> None:
        self._poll = poll
        self._rules = rules
        self._guard = guard

    def measure(
        self,
        group: Group,
        lag: GroupLag | None,
        readable: Mapping[str, Mapping[int, Readable]],
        history: GroupHistory,
    ) -> GroupMeasures:
        """Return the measures, the last ones where they are the same; `lag` is None where it failed.

        `readable` is by topic and partition. Sets when the history is due.
        """
        last = history.measures
        measures = (
            GroupMeasures(
                group, GroupLag(), self._facts(group), rebalances=history.rebalances.count
            )
            if lag is None
            else self._measures(group, lag, readable, history)
        )
        beside = Beside(
            self._poll.snapshot, readable, self._poll.open_transactions, self._poll.messages,
            history.losses.lost_at, history.rebalances.within_an_hour(self._poll.now),
        )  # fmt: skip
        advice, history.due_at = self._guard.attempt(
            "advice", group.id, self._advice, measures, beside, history
        ) or ((), -inf)
        measures = replace(measures, advice=advice, measured_at=self._poll.now)
        if last is not None and measures == last:
            return last
        history.measures = measures.sharing(last or _NOTHING_KNOWN)
        return history.measures

    def _advice(
        self, measures: GroupMeasures, beside: Beside, history: GroupHistory
    ) -> tuple[tuple[Advice, ...], float]:
        """Return the advice, and when time alone changes that or another measure."""
        now = self._poll.now
        picture = picture_of(measures, beside)
        turns = [measures.status.stops_at]
        if measures.activity is not None:
            turns += measures.activity.turns()
        for topic in picture.topics:
            turns += turns_at(topic)
        if history.rebalances.seen_at:
            turns.append(history.rebalances.seen_at[0][0] + REBALANCES_KEPT_SECONDS)
        # one that is hardly over may have come out either way: then once more
        return tuple(advise(picture, now)), min((at for at in turns if at > now - 1), default=inf)

    def _facts(self, group: Group) -> GroupFacts:
        facts = self._guard.attempt("facts", group.id, group_facts, group, self._poll.partitions_of)
        return GroupFacts(group.state, None) if facts is None else facts

    def _measures(
        self,
        group: Group,
        lag: GroupLag,
        readable: Mapping[str, Mapping[int, Readable]],
        history: GroupHistory,
    ) -> GroupMeasures:
        guard, poll, name = self._guard, self._poll, group.id
        commits = history.commits
        facts = self._facts(group)
        changed = {topic: commits.changed_at(topic) for topic in group.commits}
        changed_at = {topic: at for topic, at in changed.items() if at is not None}
        moved_at = {t: at for t, at in changed_at.items() if commits.has_moved(t)}
        left = guard.attempt(
            "activity", name, topics_not_consumed, group, facts, moved_at, poll.window_began,
            history.not_consumed,
        ) or _NOTHING_KNOWN.not_consumed  # fmt: skip
        history.not_consumed = left
        activity = guard.attempt(
            "activity", name, history.activity.observe,
            group.commits, _unread(lag, left), facts.members,
            now=poll.now, last_poll=poll.last, window=poll.now - poll.window_began,
        )  # fmt: skip
        if activity is None:
            history.activity = GroupActivity()
        close = {
            topic: of
            for topic, of in group.commits.items()
            if lag.topics.get(topic)
            or facts.members
            or changed_at.get(topic, poll.window_began) >= poll.window_began
        }
        status = guard.attempt("status", name, self._status, group, lag, left, activity, commits)
        rates = guard.attempt("rates", name, self._rates, close, lag, history) or {}
        oldest = guard.attempt("times", name, self._oldest_unread_at, lag, readable)
        losses = guard.attempt("losses", name, self._lost, group, history.losses)
        if losses is None:
            history.losses = Losses()
        lost, deleted = losses or (nothing(), nothing())
        return GroupMeasures(
            group=group,
            lag=lag,
            facts=facts,
            status=NOT_FOUND if status is None else status,
            # what failed is not known: no topic may pass for one on which nothing is unread
            oldest_unread_at=dict.fromkeys(lag.partitions, nothing()) if oldest is None else oldest,
            behind_since=None if oldest is None else behind_since(lag, oldest, left),
            changed_at=changed_at,
            committed_at={
                topic: commits.committed_at(topic)
                for topic in group.commits
                if commits.has_moved(topic)
            } or nothing(),
            rates=rates,
            imbalance=guard.attempt(
                "imbalance", name, self._imbalance, group, close, lag, facts, rates
            ) or nothing(),
            retention=guard.attempt(
                "retention", name, self._retention, group, lag, readable
            ) or nothing(),
            activity=activity,
            stuck=nothing() if activity is None else {
                topic: len(activity.stuck(topic, poll.now))
                for topic, unread in lag.topics.items()
                if unread and facts.members and topic not in left
            },
            uncommitted=guard.attempt(
                "facts", name, uncommitted_partitions,
                group, facts, poll.snapshot.start_offsets.values, poll.ends,
            ) or nothing(),
            not_consumed=left,
            rebalances=history.rebalances.count,
            lost=lost,
            unread_deleted=deleted,
        )  # fmt: skip

    def _status(
        self,
        group: Group,
        lag: GroupLag,
        left: Collection[str],
        activity: Activity | None,
        windows: CommitWindows,
    ) -> GroupStatus:
        poll = self._poll
        caught_up = {
            topic: len(lag.partitions[topic])
            for topic, unread in lag.topics.items()
            if not unread and topic in poll.ends and topic not in left
        }
        commits = group.commits
        if left:
            commits = {topic: of for topic, of in commits.items() if topic not in left}
        return group_status(
            commits, poll.ends, windows, poll.topics,
            now=poll.now, poll=poll.number, rules=self._rules, caught_up=caught_up,
            unread=lag.unread,
            patience=Activity().patience if activity is None else activity.patience,
        )  # fmt: skip

    def _rates(
        self, commits: PartitionOffsets, lag: GroupLag, history: GroupHistory
    ) -> dict[str, TopicRates]:
        poll = self._poll
        for topic in commits:
            if topic not in poll.produced:
                known = poll.topics.get(topic)
                poll.produced[topic] = {} if known is None else produce_rates(known.ends)
        return group_rates(
            commits, poll.ends, history.commits, poll.topics,
            now=poll.now, produced=poll.produced, unread=lag.unread,
            since=history.rebalances.last_at,
            is_settled=history.rebalances.last_at < poll.settling_since,
        )  # fmt: skip

    def _oldest_unread_at(
        self, lag: GroupLag, readable: Mapping[str, Mapping[int, Readable]]
    ) -> dict[str, dict[int, float]]:
        silent = self._poll.snapshot.end_offsets.silent
        oldest: dict[str, dict[int, float]] = {}
        for topic, unread in lag.topics.items():
            if not unread and topic not in silent:
                continue
            answered, of_topic = (
                self._poll.ends.get(topic, nothing()),
                readable.get(topic, nothing()),
            )
            of = oldest[topic] = {}
            for partition, messages in lag.readable(topic).items():
                if partition not in answered:
                    continue
                if not messages:
                    of[partition] = NOTHING_UNREAD
                    continue
                told = of_topic.get(partition)
                if told is None or told.first is None:
                    continue
                moment = self._poll.times.oldest_at((topic, partition), told.first)
                if moment is not None:
                    of[partition] = moment
        return oldest

    def _retention(
        self, group: Group, lag: GroupLag, readable: Mapping[str, Mapping[int, Readable]]
    ) -> dict[str, dict[int, RetentionRisk]]:
        poll = self._poll
        expires_at: dict[str, dict[int, float]] = {}
        for topic, partitions in readable.items():
            kept = retention_of(poll.snapshot, topic)
            if not kept.deletes or kept.milliseconds is None:
                continue
            for partition, told in partitions.items():
                if told.first is None:
                    continue
                moment = self._poll.times.expires_at(
                    (topic, partition), told.first, kept.milliseconds / 1000
                )
                if moment is not None:
                    expires_at.setdefault(topic, {})[partition] = moment
        return retention_risks(
            poll.snapshot, group, lag,
            now=poll.now, expires_at=expires_at, log_bytes=poll.log_bytes, produced=poll.produced,
        )  # fmt: skip

    def _lost(self, group: Group, losses: Losses) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return, by topic, what was lost since the first look and what stands unread and deleted."""
        snapshot = self._poll.snapshot
        starts, ends = snapshot.start_offsets.values, snapshot.end_offsets.values
        losses.observe(group.commits, starts, ends, self._poll.now)
        deleted = {}
        for topic, commits in group.commits.items():
            if topic in starts and topic in ends:
                amount = unread_deleted(commits, starts[topic], ends[topic])
                if amount is not None:
                    deleted[topic] = amount
        lost = {
            topic: losses.lost.get(topic, 0)
            for topic in group.commits
            if topic in ends or topic in self._poll.partitions_of
        }
        return lost, deleted

    def _imbalance(
        self,
        group: Group,
        close: Collection[str],
        lag: GroupLag,
        facts: GroupFacts,
        rates: Mapping[str, TopicRates],
    ) -> dict[str, dict[str, float]]:
        poll = self._poll
        imbalance = {}
        assignment = assignment_excess(group.members or ()) if is_judged(group) else nothing()
        # a topic that the monitor is not to look at counts in what members hold, and is told nowhere
        for topic in sorted(poll.partitions_of.keys() & {*facts.per_topic, *close}):
            if topic not in poll.messages:
                known = poll.topics.get(topic)
                poll.messages[topic] = {} if known is None else produced_messages(known.ends)
            excess = imbalance_of(
                topic, lag, facts, rates.get(topic),
                assignment=assignment.get(topic), produced=poll.messages[topic].values(),
                interval=poll.interval,
            )  # fmt: skip
            if excess:
                imbalance[topic] = excess
        return imbalance


def _unread(lag: GroupLag, left_out: Collection[str]) -> dict[str, Mapping[int, int]]:
    """Return topic -> partition -> readable messages, of the consumed topics that have lag."""
    return {
        topic: lag.readable(topic)
        for topic, unread in lag.topics.items()
        if unread and topic not in left_out
    }


def behind_since(
    lag: GroupLag, oldest: Mapping[str, Mapping[int, float]], left_out: Collection[str]
) -> float | None:
    """Return the earliest moment of `oldest` (topic -> partition -> moment) on consumed topics.

    None where a lag that is not known may be longer than none at all.
    """
    earliest, is_known = NOTHING_UNREAD, True
    topics = lag.partitions.keys() - left_out
    for topic in topics:
        moments = oldest.get(topic)
        if moments is None:
            continue  # nothing is unread
        earliest = min(earliest, min(moments.values(), default=NOTHING_UNREAD))
        is_known = is_known and len(moments) >= len(lag.partitions[topic])
    return earliest if earliest < NOTHING_UNREAD or (topics and is_known) else None
