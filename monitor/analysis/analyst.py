"""Joins the analyses: one poll's snapshot becomes every measure of every group.

Looked at anew is only what something happened to: a group of which something else is told, or one
that reads a topic of which something else is, for as long as that is within the window; one that may
be told more of (where brokers are asked again), and one for which it is time. All others have the
measures that they had, the same objects; most groups of a large cluster do nothing, and cost nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from monitor.analysis.causes.course import Courses
from monitor.analysis.changed import Changes
from monitor.analysis.findings import Findings
from monitor.analysis.group import GroupMeter, Poll
from monitor.analysis.group_history import GroupHistory
from monitor.analysis.kept import Kept, KeptGroup, KeptPolls, KeptTopic
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.open_transactions import OpenTransactions
from monitor.analysis.polls import Polls
from monitor.analysis.readers import Readers
from monitor.analysis.rebalances import Rebalances
from monitor.analysis.replaced_topics import TopicIds
from monitor.analysis.retention import retention_of
from monitor.analysis.status import DEFAULT_RULES, StatusRules
from monitor.analysis.time_questions import find_times
from monitor.analysis.timelag import TimeLag
from monitor.analysis.topic import EndWindow, TopicLog, fresh
from monitor.analysis.unkept import Unkept
from monitor.analysis.unread import Unread
from monitor.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from monitor.analysis.lag import GroupLag
    from monitor.analysis.time_questions import AskTimes
    from monitor.analysis.unread import LookAtLogs
    from monitor.analysis.windows import CommitWindow, CommitWindows
    from monitor.model import Group, PartitionOffsets, Snapshot


class Analyst:
    """Measures one poll after the other; remembers what rates, statuses and times need.

    `findings` has what the last poll found beside the measures of groups. `is_kept` says whether
    `export` is called after each poll.
    """

    def __init__(
        self,
        ask_times: AskTimes | None = None,
        look_at_logs: LookAtLogs | None = None,
        *,
        rules: StatusRules = DEFAULT_RULES,
        is_kept: bool = False,
    ) -> None:
        self._ask_times = ask_times
        self._rules = rules
        self._guard = guard = Guard()
        self._polls = Polls(rules.intervals)
        self._changes = Changes()
        self._readers = Readers()
        self._unread = Unread(self._readers, look_at_logs, guard)
        self._courses = Courses(guard)
        self._histories: dict[str, GroupHistory] = {}
        self._topics: dict[str, TopicLog] = {}
        self._times = TimeLag(self._topics, guard=guard)
        self._topic_ids = TopicIds()
        self._topics_in_doubt: set[str] = set()
        self._transactions = OpenTransactions(guard)
        self._unkept = Unkept(is_kept=is_kept)
        self.findings = Findings()

    def measure(self, snapshot: Snapshot) -> dict[str, GroupMeasures]:
        """Return the measures of each group, by group id; asks brokers where in doubt."""
        changes, polls, now = self._changes, self._polls, snapshot.monotonic_at
        # whatever a fault has spoiled is made good by looking at everything
        has_failed = bool(self._guard.failures)
        self._guard.start_poll()
        polls.begin(now)
        ends = fresh(snapshot.end_offsets.values, snapshot.end_offsets.silent)
        last_ends = changes.last_ends
        changes.observe(snapshot, ends)
        replaced = self._topic_ids.observe(snapshot.topics, changes.moved, ends, last_ends)
        self._forget(replaced)
        self._observe_ends(ends)
        touched = self._follow_readers(snapshot.groups)
        awake = self._awake(snapshot, all_groups=has_failed)
        touched |= changes.topics | self._topics_in_doubt
        for group_id in awake:
            touched.update(self._readers.topics(group_id))
        lags = self._unread.lags(snapshot, self._observe_commits(awake, ends, now), ends, touched)
        self._find_times(snapshot, ends, touched)
        self._topics_in_doubt = self._times.topics_in_doubt() | self._unread.topics_in_doubt()
        transactions = self._transactions.observe(self._readers.held_at(), ends, self._times, now)
        poll = Poll(
            snapshot, polls.number, ends, now, polls.last, polls.interval, polls.window_began,
            polls.settling_since, changes.bytes,
            {name: topic.partitions for name, topic in snapshot.topics.items()},
            self._topics, self._times, transactions, {}, {},
        )  # fmt: skip
        self._count_rebalances(snapshot.groups if has_failed else changes.groups, now)
        before = {group_id: self._histories[group_id].measures for group_id in lags}
        measured = self._measure(poll, lags)
        self._unkept.note(
            ((last, measured[name], self._histories[name]) for name, last in before.items()),
            changes, self._readers, self._topics_in_doubt,
        )  # fmt: skip
        polls.end()
        courses = self._courses.observe(measured, lags, ends, replaced, now)
        self.findings = Findings(
            transactions, dict(self._guard.failures), polls.resting_since, courses
        )
        return measured

    def commit_windows(self, group: str) -> Mapping[str, Mapping[int, CommitWindow]]:
        """Return the last commits seen, by topic and partition; any thread may ask."""
        history = self._histories.get(group)
        return {} if history is None else history.commits.all(self._polls.number)

    # -- what to look at --------------------------------------------------------------------------

    def _follow_readers(self, groups: Mapping[str, Group]) -> set[str]:
        """Take in who reads what now; return the topics that somebody no longer reads."""
        left = self._readers.forget(groups.keys())
        for group_id in self._histories.keys() - groups.keys():
            del self._histories[group_id]
            self._unkept.groups.add(group_id)
        for group_id in self._changes.groups:
            group = self._changes.group(group_id)
            before = self._readers.topics(group_id)
            if group.is_silent:
                left.update(self._readers.drop(group_id))
                continue
            topics = group.topics
            left.update(topic for topic in before if topic not in topics)
            self._readers.read(group_id, topics)
        return left

    def _awake(self, snapshot: Snapshot, *, all_groups: bool) -> list[str]:
        """Return the groups that are to be looked at anew."""
        number, now = self._polls.number, snapshot.monotonic_at
        window = self._rules.intervals
        changed = self._changes.groups | self._readers.of(self._changes.topics)
        if all_groups:
            changed = set(snapshot.groups)
        in_doubt = self._readers.of(self._topics_in_doubt)
        awake = []
        for group_id, group in snapshot.groups.items():
            history = self._histories.get(group_id)
            if history is None:
                history = self._histories[group_id] = GroupHistory.begin(self._rules)
            if group_id in changed:
                history.changed_in = number
            if group.is_silent:
                self._miss(group_id, history)
            elif (
                number - history.changed_in <= window
                or group_id in in_doubt
                or now > history.due_at
            ):
                awake.append(group_id)
        return awake

    def _miss(self, group_id: str, history: GroupHistory) -> None:
        """Keep what was seen of a group: who may go on unseen has the lag of when it was seen."""
        history.activity.miss()
        group = self._changes.group(group_id)
        if history.measures is not None and history.measures.group is not group:
            history.measures = replace(history.measures, group=group, measured_at=self._polls.now)

    def _forget(self, replaced: Iterable[str]) -> None:
        """Drop what was known of topics that are gone or were created anew."""
        for name in replaced:
            self._times.forget(name)
            self._topics.pop(name, None)
            self._unkept.topics.add(name)
            self._unkept.groups.update(self._histories)
            self._unread.forget(name)
            for history in self._histories.values():
                history.replace_topic(name)

    # -- what is taken in of a poll ----------------------------------------------------------------

    def _observe_ends(self, ends: PartitionOffsets) -> None:
        """Take in the log ends of a poll; what lies before the window goes, answered or not."""
        now, began = self._polls.now, self._polls.window_began
        for topic in ends.keys() - self._topics.keys():
            self._topics[topic] = TopicLog()
        for topic, log in self._topics.items():
            offsets = ends.get(topic)
            if offsets is None:
                log.ends.go_on(began)
            elif not self._guard.runs("end_windows", topic, log.ends.see, offsets, now, began):
                log.ends = EndWindow()

    def _observe_commits(
        self, awake: Iterable[str], ends: PartitionOffsets, now: float
    ) -> Iterator[tuple[Group, CommitWindows, PartitionOffsets]]:
        """Take in the commits of groups; yield each with its windows and its commits of before."""
        for group_id in awake:
            group, history = self._changes.group(group_id), self._histories[group_id]
            before = history.commits.last()
            if not self._guard.runs(
                "commit_windows", group_id, history.observe_commits,
                group.commits, ends, now, self._polls.number,
            ):  # fmt: skip
                history.commits = GroupHistory.begin(self._rules).commits
            yield group, history.commits, before

    def _find_times(
        self, snapshot: Snapshot, ends: PartitionOffsets, topics: Iterable[str]
    ) -> None:
        """Find when the oldest records were appended that wait on these topics."""
        # a broker that hangs makes the poll long after the others have told their log ends
        now = snapshot.seen_at
        self._times.observe(
            ends,
            now=now,
            wall=now + snapshot.wall_offset,
            uncompacted=_uncompacted(snapshot),
            dated={
                topic
                for topic in snapshot.topic_configs
                if (kept := retention_of(snapshot, topic)).deletes and kept.milliseconds
            },
            starts=snapshot.start_offsets.values,
        )
        self._times.want({topic: self._readers.offsets_in_doubt(topic) for topic in topics})
        if self._ask_times is not None:
            find_times(
                self._times, self._ask_times, self._guard, is_first_poll=self._polls.is_first
            )

    def _count_rebalances(self, groups: Iterable[str], now: float) -> None:
        """Count those of the groups of which anything else is told; no other had any."""
        for group_id in groups:
            history, group = self._histories[group_id], self._changes.group(group_id)
            if not self._guard.runs("rebalances", group_id, history.rebalances.observe, group, now):
                history.rebalances = Rebalances()

    def _measure(self, poll: Poll, lags: Mapping[str, GroupLag | None]) -> dict[str, GroupMeasures]:
        """Return the measures of all groups, those without a lag here as they were."""
        meter = GroupMeter(poll, self._rules, self._guard)
        measured = {}
        for group_id in poll.snapshot.groups:
            history = self._histories[group_id]
            if (
                group_id in lags or history.measures is None
            ):  # None: its coordinator was never heard
                measured[group_id] = meter.measure(
                    self._changes.group(group_id),
                    lags.get(group_id),
                    self._readers.readable(group_id),
                    history,
                )
            else:
                measured[group_id] = history.measures
        return measured

    # -- what a restart takes up ------------------------------------------------------------------

    def export(self, snapshot: Snapshot) -> Kept:
        """Return what is new since the last call, to be kept; after `measure` of this snapshot."""
        groups, topics = self._unkept.take()
        polls = self._polls
        return Kept(
            KeptPolls(
                snapshot.cluster_id, snapshot.wall_offset, polls.number, [*polls.times],
                self._transactions.export(),
            ),
            {group_id: self._export_group(group_id) for group_id in groups},
            {topic: self._export_topic(topic) for topic in topics},
        )  # fmt: skip

    def _export_group(self, group_id: str) -> KeptGroup | None:
        history = self._histories.get(group_id)
        return None if history is None else history.export()

    def _export_topic(self, topic: str) -> KeptTopic | None:
        log = self._topics.get(topic)
        if log is None:
            return None
        kept = log.export(self._topic_ids.of(topic), self._polls.number, self._polls.now)
        self._times.export(topic, kept.logs)
        return kept

    def restore(self, kept: Kept, wall_offset: float, now: float) -> None:
        """Go on from what was kept, before the first poll: as if those in between had been missed.

        Raises ValueError where that can't be; the analyst is of no use then.
        """
        polls = kept.polls
        shift = polls.wall_offset - wall_offset
        was_away = self._polls.restore(polls.number, [at + shift for at in polls.times], now)
        self._transactions.restore(polls.held_from, shift)
        away_until = now if was_away else None
        for group_id, group in kept.groups.items():
            if group is not None:
                self._histories[group_id] = GroupHistory.restored(
                    group, self._rules, shift, away_until
                )
        times_ms = [int(at * 1000) for at in self._polls.times]
        last_ends = {}
        for name, topic in kept.topics.items():
            if topic is not None:
                later = times_ms[max(0, len(times_ms) - (polls.number - topic.poll)) :]
                log = self._topics[name] = TopicLog.restored(topic, later, shift)
                self._times.restore(name, topic.logs, shift, wall_offset)
                self._topic_ids.restore(name, topic.id)
                last_ends[name] = log.ends.newest
        self._changes.last_ends = last_ends


def _uncompacted(snapshot: Snapshot) -> Collection[str]:
    """Return the topics that are known to be without compaction."""
    return {
        topic
        for topic, config in snapshot.topic_configs.items()
        if config.cleanup_policies is not None and "compact" not in config.cleanup_policies
    }
