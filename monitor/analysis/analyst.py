"""Joins the analyses: one poll's snapshot becomes every measure of every group.

Looked at anew is only what something happened to: a group of which something else is told, or one
that reads a topic of which something else is, for as long as that is within the window; one that may
be told more of (where brokers are asked again), and one for which it is time. All others have the
measures that they had, the same objects; most groups of a large cluster do nothing, and cost nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from monitor.analysis.causes.course import Courses
from monitor.analysis.changed import Changes
from monitor.analysis.group import GroupHistory, GroupMeter, Poll
from monitor.analysis.kept import Kept, KeptGroup, KeptPolls, KeptTopic
from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.analysis.measures import Findings, GroupMeasures
from monitor.analysis.positions import positions, unread_of, with_readable_ends
from monitor.analysis.readable import MAX_LOOKS, OpenTransaction, ReadableLogs
from monitor.analysis.readers import Readers
from monitor.analysis.rebalances import Rebalances
from monitor.analysis.retention import retention_of
from monitor.analysis.status import DEFAULT_RULES, StatusRules
from monitor.analysis.timelag import TimeLag
from monitor.analysis.topic import EndWindow, TopicLog, fresh
from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from monitor.analysis.readable import Position, Readable
    from monitor.analysis.windows import CommitWindow
    from monitor.model import Group, LogLook, PartitionOffsets, Snapshot, Topic

Times: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> Unix time in milliseconds."""
TimeReplies: TypeAlias = "Mapping[str, Mapping[int, tuple[int, int]]]"
"""Topic -> partition -> (offset, time in ms) of the first record that is as new, (-1, -1) if none."""
AskTimes: TypeAlias = "Callable[[Times], TimeReplies]"
LookAtLogs: TypeAlias = "Callable[[PartitionOffsets], Mapping[str, Mapping[int, LogLook]]]"

# Per poll and broker. With five, one figure in eighty on a compacted topic that two groups read was
# more than half a second off; with six, one in a hundred and forty.
MAX_TIME_QUESTIONS: Final = 6
# With no polls to narrow the search it takes longer, most of all where a bulk load gave thousands of
# records one timestamp.
MAX_FIRST_TIME_QUESTIONS: Final = 12
# A restart within so many polls is one in which nothing was missed.
AWAY_INTERVALS: Final = 3.0
# A group that was the same for so many polls is likely to stay so.
POLLS_TO_REST: Final = 3


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
        self._look_at_logs = look_at_logs
        self._rules = rules
        self._guard = guard = Guard()
        self._changes = Changes()
        self._readers = Readers()
        self._readable = ReadableLogs(guard)
        self._courses = Courses(guard)
        self._histories: dict[str, GroupHistory] = {}
        self._topics: dict[str, TopicLog] = {}
        self._times = TimeLag(self._topics, guard=guard)
        self._polls = 0  # how many were made
        self._topic_ids: dict[str, str | None] = {}
        self._topics_in_doubt: set[str] = set()
        # (topic, partition) -> last stable offset, and when it was first seen to hold readers back
        self._held_from: dict[tuple[str, int], tuple[int, float]] = {}
        self._poll_times: deque[float] = deque(maxlen=max(rules.intervals, POLLS_TO_REST))
        # of what is exported: what is new since the last time
        self._is_kept = is_kept
        self._new_groups: set[str] = set()
        self._new_topics: set[str] = set()
        self._is_first = True
        self._was_away = False
        self.findings = Findings()

    def measure(self, snapshot: Snapshot) -> dict[str, GroupMeasures]:
        """Return the measures of each group, by group id; asks brokers where in doubt."""
        changes, now = self._changes, snapshot.monotonic_at
        # whatever a fault has spoiled is made good by looking at everything
        has_failed = bool(self._guard.failures)
        self._guard.start_poll()
        last_poll = self._poll_times[-1] if self._poll_times and not self._was_away else None
        self._polls += 1
        self._poll_times.append(now)
        ends = fresh(snapshot.end_offsets.values, snapshot.end_offsets.silent)
        last_ends = changes.last_ends
        changes.observe(snapshot, ends)
        replaced = self._forget_replaced(snapshot.topics, ends, last_ends)
        self._observe_ends(ends)
        touched = self._follow_readers(snapshot.groups)
        awake = self._awake(snapshot, all_groups=has_failed)
        touched |= changes.topics | self._topics_in_doubt
        lags, stands = self._lags(snapshot, ends, awake)
        for group_id in awake:
            touched.update(self._readers.topics(group_id))
        self._look(touched)
        for group_id in awake:
            lags[group_id] = self._read(snapshot, group_id, lags[group_id], stands.get(group_id))
        self._find_times(snapshot, ends, touched)
        self._topics_in_doubt = self._times.topics_in_doubt() | self._readable.topics_in_doubt()
        poll = Poll(
            snapshot, self._polls, ends, now, last_poll, self._interval(), self._window_began,
            changes.bytes, {name: topic.partitions for name, topic in snapshot.topics.items()},
            self._topics, self._times, self._open_transactions(ends, now), {}, {},
        )  # fmt: skip
        self._count_rebalances(snapshot.groups if has_failed else changes.groups, now)
        meter = GroupMeter(poll, self._rules, self._guard)
        before = {group_id: self._histories[group_id].measures for group_id in lags}
        measured = {}
        for group_id in snapshot.groups:
            history = self._histories[group_id]
            if (
                group_id in lags or history.measures is None
            ):  # None: its coordinator was never heard
                measured[group_id] = meter.measure(
                    changes.group(group_id),
                    lags.get(group_id),
                    self._readers.readable(group_id),
                    history,
                )
            else:
                measured[group_id] = history.measures
        self._note_new(measured, before)
        self._is_first = self._was_away = False
        resting = self._poll_times[-min(POLLS_TO_REST, len(self._poll_times))]
        courses = self._courses.observe(measured, lags, ends, replaced, now)
        self.findings = Findings(
            poll.open_transactions, dict(self._guard.failures), resting, courses
        )
        return measured

    def commit_windows(self, group: str) -> Mapping[str, Mapping[int, CommitWindow]]:
        """Return the last commits seen, by topic and partition; any thread may ask."""
        history = self._histories.get(group)
        return {} if history is None else history.commits.all(self._polls)

    # -- what a restart takes up ------------------------------------------------------------------

    def export(self, snapshot: Snapshot) -> Kept:
        """Return what is new since the last call, to be kept; after `measure` of this snapshot."""
        groups, topics = self._new_groups, self._new_topics
        self._new_groups, self._new_topics = set(), set()
        held = [(*key, held_at, since) for key, (held_at, since) in self._held_from.items()]
        return Kept(
            KeptPolls(
                snapshot.cluster_id, snapshot.wall_offset, self._polls, [*self._poll_times], held
            ),
            {group_id: self._export_group(group_id) for group_id in groups},
            {topic: self._export_topic(topic) for topic in topics},
        )

    def _export_group(self, group_id: str) -> KeptGroup | None:
        history = self._histories.get(group_id)
        return None if history is None else history.export()

    def _export_topic(self, topic: str) -> KeptTopic | None:
        log = self._topics.get(topic)
        if log is None:
            return None
        return log.export(self._topic_ids.get(topic), self._polls, self._poll_times[-1])

    def restore(self, kept: Kept, wall_offset: float, now: float) -> None:
        """Go on from what was kept, before the first poll: as if those in between had been missed.

        Raises ValueError where that can't be; the analyst is of no use then.
        """
        polls = kept.polls
        shift = polls.wall_offset - wall_offset
        times = [at + shift for at in polls.times]
        if not times:
            raise ValueError("no poll was made")
        self._polls = polls.number
        self._poll_times.extend(times)
        interval = (times[-1] - times[0]) / max(1, len(times) - 1)
        self._was_away = now - times[-1] > AWAY_INTERVALS * interval
        for held, partition, held_at, since in polls.held_from:
            self._held_from[held, partition] = held_at, since + shift
        away_until = now if self._was_away else None
        for group_id, group in kept.groups.items():
            if group is not None:
                self._histories[group_id] = GroupHistory.restored(
                    group, self._rules, shift, away_until
                )
        times_ms = [int(at * 1000) for at in self._poll_times]
        last_ends = {}
        for name, topic in kept.topics.items():
            if topic is not None:
                later = times_ms[max(0, len(times_ms) - (polls.number - topic.poll)) :]
                log = self._topics[name] = TopicLog.restored(topic, later, shift, wall_offset)
                self._topic_ids[name] = topic.id
                last_ends[name] = log.ends.newest
        self._changes.last_ends = last_ends

    def _note_new(
        self,
        measured: Mapping[str, GroupMeasures],
        before: Mapping[str, GroupMeasures | None],
    ) -> None:
        """Note of which groups and topics something is to be kept that is not yet."""
        changes = self._changes
        if not self._is_kept:
            self._new_groups.clear()
            self._new_topics.clear()
            return
        self._new_groups |= changes.groups
        for group_id, last in before.items():
            now, history = measured[group_id], self._histories[group_id]
            if last is not now and (
                last is None
                or not history.losses.is_kept
                or last.activity != now.activity
                or last.rebalances != now.rebalances
                or last.not_consumed != now.not_consumed
            ):
                self._new_groups.add(group_id)
        self._new_topics |= changes.topics | self._topics_in_doubt
        for group_id in changes.groups:
            self._new_topics.update(self._readers.topics(group_id))

    # -- what to look at --------------------------------------------------------------------------

    def _follow_readers(self, groups: Mapping[str, Group]) -> set[str]:
        """Take in who reads what now; return the topics that somebody no longer reads."""
        left = self._readers.forget(groups.keys())
        for group_id in self._histories.keys() - groups.keys():
            del self._histories[group_id]
            self._new_groups.add(group_id)
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
        number, now = self._polls, snapshot.monotonic_at
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
            history.measures = replace(
                history.measures, group=group, measured_at=self._poll_times[-1]
            )

    def _forget_replaced(
        self, topics: Mapping[str, Topic], ends: PartitionOffsets, last_ends: PartitionOffsets
    ) -> set[str]:
        """Drop what was known of topics that are gone or were created anew; return their names.

        Not all brokers tell ids, and metadata comes late: a log end that moved back says the same.
        """
        replaced = {
            topic
            for topic in self._changes.moved
            if any(
                end < last_ends.get(topic, nothing()).get(partition, end)
                for partition, end in ends.get(topic, nothing()).items()
            )
        }
        ids = {name: topic.id for name, topic in topics.items()}
        if ids != self._topic_ids:
            for name, old in self._topic_ids.items():
                new = ids.get(name)
                if name not in ids or (old is not None and new is not None and new != old):
                    replaced.add(name)
            self._topic_ids = ids
        for name in replaced:
            self._times.forget(name)
            self._topics.pop(name, None)
            self._new_topics.add(name)
            self._new_groups.update(self._histories)
            self._readable.forget(name)
            for history in self._histories.values():
                history.replace_topic(name)
        return replaced

    def _observe_ends(self, ends: PartitionOffsets) -> None:
        """Take in the log ends of a poll; what lies before the window goes, answered or not."""
        now, began = self._poll_times[-1], self._window_began
        for topic in ends.keys() - self._topics.keys():
            self._topics[topic] = TopicLog()
        for topic, log in self._topics.items():
            offsets = ends.get(topic)
            if offsets is None:
                log.ends.go_on(began)
            elif not self._guard.runs("end_windows", topic, log.ends.see, offsets, now, began):
                log.ends = EndWindow()

    # -- before the groups ------------------------------------------------------------------------

    def _lags(
        self, snapshot: Snapshot, ends: PartitionOffsets, awake: Iterable[str]
    ) -> tuple[dict[str, GroupLag | None], dict[str, list[Position]]]:
        """Return the lag of each group that is to be looked at, and where those that lag stand."""
        lags: dict[str, GroupLag | None] = {}
        stands: dict[str, list[Position]] = {}
        caught_up: dict[str, dict[int, int]] = {}
        for group_id in awake:
            group = self._changes.group(group_id)
            history = self._histories[group_id]
            before = history.commits.last()
            if not self._guard.runs(
                "commit_windows", group_id, history.observe_commits,
                group.commits, ends, snapshot.monotonic_at, self._polls,
            ):  # fmt: skip
                history.commits = GroupHistory.begin(self._rules).commits
            lag = self._guard.attempt("lag", group_id, lag_of_group, group, snapshot, caught_up)
            lags[group_id] = lag
            positions_of: list[Position] | None = None
            if lag is not None and (lag.total or snapshot.stable_offsets.values):
                positions_of = self._guard.attempt(
                    "positions", group_id, self._positions, snapshot, group, lag, ends, before
                )
                if positions_of is not None:
                    stands[group_id] = positions_of
            self._readers.stand(group_id, positions_of or ())
        return lags, stands

    def _positions(
        self,
        snapshot: Snapshot,
        group: Group,
        lag: GroupLag,
        ends: PartitionOffsets,
        before: PartitionOffsets,
    ) -> list[Position]:
        return list(
            positions(
                snapshot,
                group,
                lag,
                ends=ends,
                before=before,
                windows=self._histories[group.id].commits,
            )
        )

    def _look(self, topics: Iterable[str]) -> None:
        """Look into the logs where groups stand."""
        self._readable.observe({topic: self._readers.positions(topic) for topic in topics})
        for _ in range(MAX_LOOKS if self._look_at_logs else 0):
            asked = self._readable.questions()
            if not asked or self._look_at_logs is None:
                break
            replies = self._guard.attempt("looks", "", self._look_at_logs, asked)
            if replies is None:
                break
            self._readable.answers(replies)

    def _read(
        self,
        snapshot: Snapshot,
        group_id: str,
        lag: GroupLag | None,
        stands: Collection[Position] | None,
    ) -> GroupLag | None:
        """Return the lag of a group with what of it can be read where it stands."""
        readable: Mapping[str, Mapping[int, Readable]] | None = None
        if stands is not None:
            readable = self._guard.attempt("looks", group_id, self._readable_at, snapshot, stands)
        self._readers.can_read(group_id, readable or nothing())
        if lag is None or readable is None:
            return lag
        group = self._changes.group(group_id)
        unread = self._guard.attempt("looks", group_id, unread_of, snapshot, group, lag, readable)
        return replace(lag, unread=unread) if unread else lag

    def _readable_at(
        self, snapshot: Snapshot, stands: Collection[Position]
    ) -> dict[str, dict[int, Readable]]:
        return with_readable_ends(
            snapshot, ((position, self._readable.of(position)) for position in stands)
        )

    def _find_times(
        self, snapshot: Snapshot, ends: PartitionOffsets, topics: Iterable[str]
    ) -> None:
        times = self._times
        # a broker that hangs makes the poll long after the others have told their log ends
        now = snapshot.seen_at
        times.observe(
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
        times.want({topic: self._readers.offsets_in_doubt(topic) for topic in topics})
        if self._ask_times is None:
            return
        for _ in range(MAX_FIRST_TIME_QUESTIONS if self._is_first else MAX_TIME_QUESTIONS):
            asked = times.questions()
            if not asked:
                return
            wanted: defaultdict[str, dict[int, int]] = defaultdict(dict)
            for (topic, partition), milliseconds in asked.items():
                wanted[topic][partition] = milliseconds
            replies = self._guard.attempt("times", "", self._ask_times, wanted) or {}
            times.answers(
                asked,
                {
                    (topic, partition): answer
                    for topic, partitions in replies.items()
                    for partition, answer in partitions.items()
                },
            )

    def _open_transactions(
        self, ends: PartitionOffsets, now: float
    ) -> dict[str, dict[int, OpenTransaction]]:
        """Return the open transactions that hold somebody back, by topic and partition."""
        transactions: dict[str, dict[int, OpenTransaction]] = {}
        held_from: dict[tuple[str, int], tuple[int, float]] = {}
        for topic, partition, held_at in self._readers.held_at():
            key = topic, partition
            if key in held_from or partition not in ends.get(topic, nothing()):
                continue
            before = self._held_from.get(key)
            is_same = before is not None and before[0] == held_at
            held_from[key] = before if before and is_same else (held_at, now)
            appended = self._guard.attempt(
                "times", f"{topic}-{partition}", self._times.oldest_at, key, held_at
            )
            since = held_from[key][1] if appended is None else min(appended, now)
            transactions.setdefault(topic, {})[partition] = OpenTransaction(
                ends[topic][partition] - held_at, since
            )
        self._held_from = held_from
        return transactions

    def _count_rebalances(self, groups: Iterable[str], now: float) -> None:
        """Count those of the groups of which anything else is told; no other had any."""
        for group_id in groups:
            history, group = self._histories[group_id], self._changes.group(group_id)
            if not self._guard.runs("rebalances", group_id, history.rebalances.observe, group, now):
                history.rebalances = Rebalances()

    @property
    def _window_began(self) -> float:
        times, window = self._poll_times, self._rules.intervals
        return times[max(0, len(times) - window)]

    def _interval(self) -> float:
        polls = min(len(self._poll_times), self._rules.intervals)
        return (self._poll_times[-1] - self._window_began) / (polls - 1) if polls > 1 else 0.0


def _uncompacted(snapshot: Snapshot) -> Collection[str]:
    """Return the topics that are known to be without compaction."""
    return {
        topic
        for topic, config in snapshot.topic_configs.items()
        if config.cleanup_policies is not None and "compact" not in config.cleanup_policies
    }
