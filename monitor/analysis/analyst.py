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

from monitor.analysis.activity import Activities
from monitor.analysis.causes.course import Courses
from monitor.analysis.changed import Changes
from monitor.analysis.group import GroupHistory, GroupMeter, Memory, Poll
from monitor.analysis.groups import RebalanceCounter
from monitor.analysis.guard import Guard
from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.analysis.losses import Losses
from monitor.analysis.measures import Findings, GroupMeasures
from monitor.analysis.positions import positions, unread_of, with_readable_ends
from monitor.analysis.readable import MAX_LOOKS, OpenTransaction, ReadableLogs
from monitor.analysis.readers import Readers
from monitor.analysis.retention import retention_of
from monitor.analysis.status import DEFAULT_RULES, StatusRules
from monitor.analysis.timelag import TimeLag
from monitor.analysis.windows import CommitWindow, CommitWindows, EndWindows, fresh
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from monitor.analysis.readable import Position, Readable
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
# A group that was the same for so many polls is likely to stay so.
POLLS_TO_REST: Final = 3


class Analyst:
    """Measures one poll after the other; remembers what rates, statuses and times need.

    `findings` has what the last poll found beside the measures of groups.
    """

    def __init__(
        self,
        ask_times: AskTimes | None = None,
        look_at_logs: LookAtLogs | None = None,
        *,
        rules: StatusRules = DEFAULT_RULES,
    ) -> None:
        self._ask_times = ask_times
        self._look_at_logs = look_at_logs
        self._guard = guard = Guard()
        self._memory = Memory(
            CommitWindows(window=rules.intervals),
            EndWindows(window=rules.intervals, guard=guard),
            TimeLag(guard=guard),
            Activities(),
            Losses(),
            rules,
            guard,
        )
        self._changes = Changes()
        self._readers = Readers()
        self._readable = ReadableLogs(guard)
        self._rebalances = RebalanceCounter(guard)
        self._courses = Courses(guard)
        self._histories: dict[str, GroupHistory] = {}
        self._topic_ids: dict[str, str | None] = {}
        self._topics_in_doubt: set[str] = set()
        # (topic, partition) -> last stable offset, and when it was first seen to hold readers back
        self._held_from: dict[tuple[str, int], tuple[int, float]] = {}
        self._poll_times: deque[float] = deque(maxlen=max(rules.intervals, POLLS_TO_REST))
        self.findings = Findings()

    def measure(self, snapshot: Snapshot) -> dict[str, GroupMeasures]:
        """Return the measures of each group, by group id; asks brokers where in doubt."""
        memory, changes, now = self._memory, self._changes, snapshot.monotonic_at
        # whatever a fault has spoiled is made good by looking at everything
        has_failed = bool(self._guard.failures)
        self._guard.start_poll()
        self._poll_times.append(now)
        ends = fresh(snapshot.end_offsets.values, snapshot.end_offsets.silent)
        last_ends = changes.last_ends
        changes.observe(snapshot, ends)
        replaced = self._forget_replaced(snapshot.topics, ends, last_ends)
        memory.ends.observe(ends, now)
        memory.commits.start_poll(snapshot.groups.keys())
        memory.activities.start_poll(snapshot.groups.keys(), now)
        memory.losses.retain(snapshot.groups.keys())
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
        self._topics_in_doubt = memory.times.topics_in_doubt() | self._readable.topics_in_doubt()
        poll = Poll(
            snapshot, ends, now, self._interval(), self._window_began, changes.bytes,
            {name: topic.partitions for name, topic in snapshot.topics.items()},
            self._open_transactions(ends, now), {}, {},
        )  # fmt: skip
        rebalances = self._count_rebalances(snapshot)
        meter = GroupMeter(memory, poll)
        measured = {}
        for group_id in snapshot.groups:
            history = self._histories[group_id]
            if group_id in lags:
                measured[group_id] = meter.measure(
                    changes.group(group_id), lags[group_id], self._readers.readable(group_id),
                    rebalances.get(group_id), history,
                )  # fmt: skip
            elif history.measures is not None:
                measured[group_id] = history.measures
            else:  # its coordinator was never heard
                measured[group_id] = meter.measure(
                    changes.group(group_id), None, {}, rebalances.get(group_id), history
                )
        resting = self._poll_times[-min(POLLS_TO_REST, len(self._poll_times))]
        courses = self._courses.observe(measured, lags, ends, replaced, now)
        self.findings = Findings(
            poll.open_transactions, dict(self._guard.failures), resting, courses
        )
        return measured

    def commit_windows(self, group: str) -> Mapping[str, Mapping[int, CommitWindow]]:
        """Return the last commits seen, by topic and partition; any thread may ask."""
        return self._memory.commits.of_group(group)

    # -- what to look at --------------------------------------------------------------------------

    def _follow_readers(self, groups: Mapping[str, Group]) -> set[str]:
        """Take in who reads what now; return the topics that somebody no longer reads."""
        left = self._readers.forget(groups.keys())
        for group_id in self._histories.keys() - groups.keys():
            del self._histories[group_id]
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
        number, now = self._memory.commits.polls, snapshot.monotonic_at
        window = self._memory.rules.intervals
        changed = self._changes.groups | self._readers.of(self._changes.topics)
        if all_groups:
            changed = set(snapshot.groups)
        in_doubt = self._readers.of(self._topics_in_doubt)
        awake = []
        for group_id, group in snapshot.groups.items():
            history = self._histories.get(group_id)
            if history is None:
                history = self._histories[group_id] = GroupHistory()
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
        self._memory.activities.miss(group_id)
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
            self._memory.times.forget(name)
            self._memory.ends.forget(name)
            self._memory.losses.forget(name)
            self._readable.forget(name)
            self._memory.activities.replace_topic(name)
        return replaced

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
            before = self._memory.commits.last(group_id)
            self._observe_commits(group, ends, snapshot.monotonic_at)
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

    def _observe_commits(self, group: Group, ends: PartitionOffsets, now: float) -> None:
        commits = self._memory.commits
        for topic in self._memory.activities.leaves_old_log(group.id, group.commits):
            commits.forget(group.id, topic)
        if not self._guard.runs(
            "commit_windows", group.id, commits.observe, group.id, group.commits, ends, now
        ):
            commits.forget_group(group.id)

    def _positions(
        self,
        snapshot: Snapshot,
        group: Group,
        lag: GroupLag,
        ends: PartitionOffsets,
        before: PartitionOffsets,
    ) -> list[Position]:
        return list(
            positions(snapshot, group, lag, ends=ends, before=before, windows=self._memory.commits)
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
        times = self._memory.times
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
        is_first = len(self._poll_times) == 1
        for _ in range(MAX_FIRST_TIME_QUESTIONS if is_first else MAX_TIME_QUESTIONS):
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
                "times", f"{topic}-{partition}", self._memory.times.oldest_at, key, held_at
            )
            since = held_from[key][1] if appended is None else min(appended, now)
            transactions.setdefault(topic, {})[partition] = OpenTransaction(
                ends[topic][partition] - held_at, since
            )
        self._held_from = held_from
        return transactions

    def _count_rebalances(self, snapshot: Snapshot) -> Mapping[str, int]:
        before = self._rebalances.counts()
        self._rebalances.observe(snapshot.groups.values())
        counts = self._rebalances.counts()
        now = snapshot.monotonic_at
        for group_id, count in counts.items():
            if (steps := count - before.get(group_id, 0)) > 0:
                self._histories[group_id].note_rebalances(steps, now)
        return counts

    @property
    def _window_began(self) -> float:
        times, window = self._poll_times, self._memory.rules.intervals
        return times[max(0, len(times) - window)]

    def _interval(self) -> float:
        polls = min(len(self._poll_times), self._memory.rules.intervals)
        return (self._poll_times[-1] - self._window_began) / (polls - 1) if polls > 1 else 0.0


def _uncompacted(snapshot: Snapshot) -> Collection[str]:
    """Return the topics that are known to be without compaction."""
    return {
        topic
        for topic, config in snapshot.topic_configs.items()
        if config.cleanup_policies is not None and "compact" not in config.cleanup_policies
    }
