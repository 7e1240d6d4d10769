"""Joins the analyses: one poll's snapshot becomes every measure of every group.

What a group does on a topic is looked at closely while something is unread, somebody is a member,
or commits were seen within the window; most groups of a large cluster do nothing, and cost nothing.
Each step of each group runs under a guard: what fails is absent, and costs nobody else.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from monitor.analysis.activity import Activities, Activity
from monitor.analysis.advice import IMBALANCE_EXCESS, TopicPicture, advise
from monitor.analysis.balance import hottest
from monitor.analysis.groups import (
    GroupFacts,
    RebalanceCounter,
    group_facts,
    uncommitted_partitions,
)
from monitor.analysis.guard import Guard
from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.analysis.losses import Losses, unread_deleted
from monitor.analysis.rates import TopicRates, group_rates, produce_rates, produced_messages
from monitor.analysis.readable import MAX_LOOKS, OpenTransaction, ReadableLogs
from monitor.analysis.status import (
    DEFAULT_RULES,
    NOT_FOUND,
    GroupStatus,
    StatusRules,
    group_status,
)
from monitor.analysis.steps import (
    group_picture,
    imbalance_of,
    largest,
    positions,
    retention_of,
    retention_risks,
    topics_not_consumed,
    unread_of,
    with_readable_ends,
)
from monitor.analysis.timelag import TimeLag
from monitor.analysis.windows import CommitWindows, EndWindows, fresh
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from monitor.analysis.advice import Advice
    from monitor.analysis.guard import Failure
    from monitor.analysis.readable import Position, Readable
    from monitor.analysis.retention import RetentionRisk
    from monitor.analysis.windows import CommitWindow, PartitionOffsets
    from monitor.model import Group, LogLook, Snapshot, Topic

Times: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> Unix time in milliseconds."""
Found: TypeAlias = "Mapping[str, Mapping[int, tuple[int, int]]]"
"""Topic -> partition -> (offset, time in ms) of the first record that is as new, (-1, -1) if none."""
AskTimes: TypeAlias = "Callable[[Times], Found]"
LookAtLogs: TypeAlias = "Callable[[PartitionOffsets], Mapping[str, Mapping[int, LogLook]]]"

# Per poll and broker. With five, one figure in eighty on a compacted topic that two groups read was
# more than half a second off; with six, one in a hundred and forty.
MAX_TIME_QUESTIONS: Final = 6
# With no polls to narrow the search it takes longer, most of all where a bulk load gave thousands of
# records one timestamp.
MAX_FIRST_TIME_QUESTIONS: Final = 12
REBALANCES_KEPT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """All that is known of a group after a poll; what is not known is absent or None.

    `seconds` (topic -> partition -> lag in seconds) has only topics with unread messages: on the
    others nothing is unread, and it is 0. `seconds_max` is the largest that is known, of topics that
    are consumed. `changed_at` is when a commit on the topic last changed or was first seen, in
    monotonic seconds. `rates` has the topics that were looked at closely, `imbalance` (topic -> kind
    -> excess) those with members or lag, `retention` (topic -> partition) the partitions with lag.

    By topic: `lost` counts the messages deleted unread since the monitor's start, `unread_deleted`
    those before the log starts now, `stuck` and `uncommitted` partitions. `not_consumed` are topics
    with commits that its members no longer read.

    While nothing happens to a group that time would change, it is `steady`, and its measures are the
    same object at each poll.
    """

    lag: GroupLag
    facts: GroupFacts
    status: GroupStatus = NOT_FOUND
    seconds: Mapping[str, Mapping[int, float]] = field(default_factory=nothing)
    seconds_max: float | None = None
    changed_at: Mapping[str, float] = field(default_factory=nothing)
    rates: Mapping[str, TopicRates] = field(default_factory=nothing)
    imbalance: Mapping[str, Mapping[str, float]] = field(default_factory=nothing)
    retention: Mapping[str, Mapping[int, RetentionRisk]] = field(default_factory=nothing)
    lost: Mapping[str, int] = field(default_factory=nothing)
    unread_deleted: Mapping[str, int] = field(default_factory=nothing)
    activity: Activity | None = None
    stuck: Mapping[str, int] = field(default_factory=nothing)
    uncommitted: Mapping[str, int] = field(default_factory=nothing)
    not_consumed: frozenset[str] = frozenset()
    rebalances: int | None = None
    advice: tuple[Advice, ...] = ()
    steady: bool = False

    def seconds_of(self, topic: str) -> Mapping[int, float]:
        """Return partition -> lag in seconds of a topic, where it is known."""
        known = self.seconds.get(topic)
        # nothing is unread: every lag is 0, in seconds as in messages
        return self.lag.partitions.get(topic, {}) if known is None else known


@dataclass(frozen=True, slots=True)
class Findings:
    """What a poll found that is of no single group.

    `open_transactions` (topic -> partition) hold readers back; `failures` has the steps that failed,
    with the group, topic or partition on which they did, and why.
    """

    open_transactions: Mapping[str, Mapping[int, OpenTransaction]] = field(default_factory=nothing)
    failures: Mapping[Failure, str] = field(default_factory=nothing)

    def within(self, ends: PartitionOffsets) -> Findings:
        """Return what was found of partitions of which the log end is known."""
        held = {
            topic: {p: each for p, each in of.items() if p in ends.get(topic, ())}
            for topic, of in self.open_transactions.items()
        }
        return replace(self, open_transactions={topic: of for topic, of in held.items() if of})


class _Poll(NamedTuple):
    """One poll, and what all groups of a topic share of it."""

    snapshot: Snapshot
    ends: PartitionOffsets
    now: float
    interval: float
    log_bytes: PartitionOffsets
    produced: dict[str, dict[int, float]]
    messages: dict[str, dict[int, int]]
    rebalances: Mapping[str, int]
    partitions_of: Mapping[str, Collection[int]]
    readable: Mapping[str, Mapping[str, Mapping[int, Readable]]]  # by group
    open_transactions: Mapping[str, Mapping[int, OpenTransaction]]


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
        self._rules = rules
        self._guard = Guard()
        self._commits = CommitWindows(window=rules.intervals)
        self._ends = EndWindows(window=rules.intervals, guard=self._guard)
        self._times = TimeLag(guard=self._guard)
        self._readable = ReadableLogs(self._guard)
        self._activities = Activities()
        self._rebalances = RebalanceCounter(self._guard)
        self._rebalanced_at: dict[str, deque[tuple[float, int]]] = {}
        self._losses = Losses()
        self._topic_ids: dict[str, str | None] = {}
        # (topic, partition) -> last stable offset, and when it was first seen to hold readers back
        self._held_from: dict[tuple[str, int], tuple[int, float]] = {}
        self._poll_times: deque[float] = deque(maxlen=rules.intervals)
        self._last: Mapping[str, GroupMeasures] = {}
        self._last_ends: PartitionOffsets = {}
        self._last_snapshot: Snapshot | None = None
        self._unchanged: Mapping[str, int] = {}  # group -> polls since anything was new about it
        self.findings = Findings()

    def measure(self, snapshot: Snapshot) -> dict[str, GroupMeasures]:
        """Return the measures of each group, by group id; asks brokers where in doubt."""
        now = snapshot.monotonic_at
        self._guard.start_poll()
        self._poll_times.append(now)
        ends = fresh(snapshot.end_offsets.values, snapshot.end_offsets.silent)
        moved = _differing(ends, self._last_ends)
        self._forget_replaced(snapshot.topics, ends, moved)
        self._ends.observe(ends, now)
        self._find_unchanged(snapshot, moved)
        self._last_ends = ends
        self._commits.start_poll(snapshot.groups.keys())
        self._activities.start_poll(snapshot.groups.keys(), now)
        self._losses.retain(snapshot.groups.keys())
        lags, stands = self._lags(snapshot, ends)
        readable = self._look(snapshot, stands)
        for group_id, found in readable.items():
            group, lag = snapshot.groups[group_id], lags[group_id]
            if unread := self._guard.attempt(
                "looks", group_id, unread_of, snapshot, group, lag, found
            ):
                lags[group_id] = replace(lag, unread=unread)
        self._find_times(snapshot, ends, readable)
        poll = _Poll(
            snapshot, ends, now, self._interval(),
            snapshot.log_bytes if snapshot.log_sizes else {}, {}, {},
            self._count_rebalances(snapshot),
            {name: topic.partitions for name, topic in snapshot.topics.items()},
            readable, self._open_transactions(readable, ends, now),
        )  # fmt: skip
        measured = {}
        for group_id, group in snapshot.groups.items():
            last = self._last.get(group_id)
            if last is not None and (group.is_silent or self._is_at_rest(group_id)):
                measured[group_id] = last  # who may go on unseen has the lag of when it was seen
                continue
            known = lags.get(group_id)
            measured[group_id] = (
                self._bare(poll, group) if known is None else self._group(poll, group, known)
            )
        self._last = measured
        self.findings = Findings(poll.open_transactions, dict(self._guard.failures))
        return measured

    def commit_windows(self, group: str) -> Mapping[str, Mapping[int, CommitWindow]]:
        """Return the last commits seen, by topic and partition; any thread may ask."""
        return self._commits.of_group(group)

    # -- groups to which nothing happens ----------------------------------------------------------

    def _find_unchanged(self, snapshot: Snapshot, moved: set[str]) -> None:
        """Count for how many polls all that is told of each group has been the same."""
        last, self._last_snapshot = self._last_snapshot, snapshot
        counts, self._unchanged = self._unchanged, {}
        if last is None:
            return
        moved = moved | _differing(snapshot.start_offsets.values, last.start_offsets.values)
        if snapshot.topics is not last.topics:
            moved |= _differing(_identities(snapshot.topics), _identities(last.topics))
        self._unchanged = {
            group_id: counts.get(group_id, 0) + 1
            for group_id, group in snapshot.groups.items()
            if (before := last.groups.get(group_id)) is not None
            # what happened while it could not be seen is not known
            and not (group.is_silent or before.is_silent)
            and group.commits == before.commits
            and _described(group) == _described(before)
            and moved.isdisjoint(group.topics if group.members else group.commits)
        }

    def _is_at_rest(self, group_id: str) -> bool:
        """Tell whether all measures of the last poll still hold."""
        last = self._last.get(group_id)
        return last is not None and last.steady and group_id in self._unchanged

    # -- before the groups ------------------------------------------------------------------------

    def _forget_replaced(
        self, topics: Mapping[str, Topic], ends: PartitionOffsets, moved: Collection[str]
    ) -> None:
        """Drop what was known of topics that are gone or were created anew under their names.

        Not all brokers tell ids, and metadata comes late: a log end that moved back says the same.
        """
        replaced = {
            topic
            for topic in moved
            if any(
                end < self._last_ends.get(topic, nothing()).get(partition, end)
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
            self._ends.forget(name)
            self._losses.forget(name)
            self._readable.forget(name)
            self._activities.replace_topic(name)

    def _lags(
        self, snapshot: Snapshot, ends: PartitionOffsets
    ) -> tuple[dict[str, GroupLag], dict[str, list[Position]]]:
        """Return the lag of each group that is to be measured, and where those that lag stand."""
        lags: dict[str, GroupLag] = {}
        stands: dict[str, list[Position]] = {}
        caught_up: dict[str, dict[int, int]] = {}
        for group_id, group in snapshot.groups.items():
            if group.is_silent:
                self._activities.miss(group_id)
                continue
            if self._is_at_rest(group_id):
                continue
            before = self._commits.last(group_id)
            self._observe_commits(group, ends, snapshot.monotonic_at)
            lag = self._guard.attempt("lag", group_id, lag_of_group, group, snapshot, caught_up)
            if lag is None:
                continue
            lags[group_id] = lag
            if lag.total or snapshot.stable_offsets.values:
                found = self._guard.attempt(
                    "positions", group_id, self._positions, snapshot, group, lag, ends, before
                )
                if found is not None:
                    stands[group_id] = found
        return lags, stands

    def _observe_commits(self, group: Group, ends: PartitionOffsets, now: float) -> None:
        for topic in self._activities.leaves_old_log(group.id, group.commits):
            self._commits.forget(group.id, topic)
        if not self._guard.runs(
            "commit_windows", group.id, self._commits.observe, group.id, group.commits, ends, now
        ):
            self._commits.forget_group(group.id)

    def _positions(
        self,
        snapshot: Snapshot,
        group: Group,
        lag: GroupLag,
        ends: PartitionOffsets,
        before: PartitionOffsets,
    ) -> list[Position]:
        return list(
            positions(snapshot, group, lag, ends=ends, before=before, windows=self._commits)
        )

    def _look(
        self, snapshot: Snapshot, stands: Mapping[str, list[Position]]
    ) -> dict[str, dict[str, dict[int, Readable]]]:
        """Look into the logs where groups stand; return what of them each can read."""
        self._readable.observe(position for found in stands.values() for position in found)
        for _ in range(MAX_LOOKS if self._look_at_logs else 0):
            asked = self._readable.questions()
            if not asked or self._look_at_logs is None:
                break
            replies = self._guard.attempt("looks", "", self._look_at_logs, asked)
            if replies is None:
                break
            self._readable.answers(replies)
        readable = {}
        for group_id, found in stands.items():
            told = self._guard.attempt("looks", group_id, self._readable_of, snapshot, found)
            if told is not None:
                readable[group_id] = told
        return readable

    def _readable_of(
        self, snapshot: Snapshot, found: list[Position]
    ) -> dict[str, dict[int, Readable]]:
        return with_readable_ends(
            snapshot, ((position, self._readable.of(position)) for position in found)
        )

    def _find_times(
        self,
        snapshot: Snapshot,
        ends: PartitionOffsets,
        readable: Mapping[str, Mapping[str, Mapping[int, Readable]]],
    ) -> None:
        # a broker that hangs makes the poll long after the others have told their log ends
        now = snapshot.end_offsets.seen_at or snapshot.monotonic_at
        self._times.observe(
            ends,
            _offsets_in_doubt(readable),
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
        if self._ask_times is None:
            return
        is_first = len(self._poll_times) == 1
        for _ in range(MAX_FIRST_TIME_QUESTIONS if is_first else MAX_TIME_QUESTIONS):
            asked = self._times.questions()
            if not asked:
                return
            wanted: defaultdict[str, dict[int, int]] = defaultdict(dict)
            for (topic, partition), milliseconds in asked.items():
                wanted[topic][partition] = milliseconds
            found = self._guard.attempt("times", "", self._ask_times, wanted) or {}
            self._times.answers(
                asked,
                {
                    (topic, partition): answer
                    for topic, partitions in found.items()
                    for partition, answer in partitions.items()
                },
            )

    def _open_transactions(
        self,
        readable: Mapping[str, Mapping[str, Mapping[int, Readable]]],
        ends: PartitionOffsets,
        now: float,
    ) -> dict[str, dict[int, OpenTransaction]]:
        """Return the open transactions that hold somebody back, by topic and partition."""
        found: dict[str, dict[int, OpenTransaction]] = {}
        held_from: dict[tuple[str, int], tuple[int, float]] = {}
        for topics in readable.values():
            for topic, partitions in topics.items():
                for partition, of in partitions.items():
                    key = topic, partition
                    if of.held_at is None or key in held_from:
                        continue
                    before = self._held_from.get(key)
                    is_same = before is not None and before[0] == of.held_at
                    held_from[key] = before if before and is_same else (of.held_at, now)
                    age = self._guard.attempt(
                        "times", f"{topic}-{partition}", self._times.seconds, key, of.held_at
                    )
                    since = held_from[key][1] if age is None else now - age
                    found.setdefault(topic, {})[partition] = OpenTransaction(
                        ends[topic][partition] - of.held_at, since
                    )
        self._held_from = held_from
        return found

    def _count_rebalances(self, snapshot: Snapshot) -> Mapping[str, int]:
        before = self._rebalances.counts()
        self._rebalances.observe(snapshot.groups.values())
        counts = self._rebalances.counts()
        now = snapshot.monotonic_at
        for group, count in counts.items():
            if (steps := count - before.get(group, 0)) > 0:
                self._rebalanced_at.setdefault(group, deque()).append((now, steps))
        for group in list(self._rebalanced_at):
            steps_at = self._rebalanced_at[group]
            while steps_at and now - steps_at[0][0] > REBALANCES_KEPT_SECONDS:
                steps_at.popleft()
            if not steps_at or group not in counts:
                del self._rebalanced_at[group]
        return counts

    def _interval(self) -> float:
        times = self._poll_times
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0

    # -- a group ----------------------------------------------------------------------------------

    def _bare(self, poll: _Poll, group: Group) -> GroupMeasures:
        """Return what is known of a group that was never seen to commit, or whose lag failed."""
        facts = self._facts(poll, group)
        return GroupMeasures(GroupLag(), facts, rebalances=poll.rebalances.get(group.id))

    def _facts(self, poll: _Poll, group: Group) -> GroupFacts:
        facts = self._guard.attempt("facts", group.id, group_facts, group, poll.partitions_of)
        return GroupFacts(group.state, None) if facts is None else facts

    def _group(self, poll: _Poll, group: Group, lag: GroupLag) -> GroupMeasures:
        guard, snapshot, name = self._guard, poll.snapshot, group.id
        facts = self._facts(poll, group)
        last = self._last.get(name)
        changed = {topic: self._commits.changed_at(name, topic) for topic in group.commits}
        changed_at = {topic: at for topic, at in changed.items() if at is not None}
        recent = self._poll_times[0]  # when the window's oldest poll was
        left = guard.attempt(
            "activity", name, topics_not_consumed, group, facts, self._moved_at(name, changed_at),
            recent, frozenset() if last is None else last.not_consumed,
        ) or frozenset()  # fmt: skip
        activity = guard.attempt(
            "activity", name, self._activities.observe,
            name, group.commits, _unread(lag, left), facts.members, window=poll.now - recent,
        )  # fmt: skip
        if activity is None:
            self._activities.forget_group(name)
        close = {
            topic: commits
            for topic, commits in group.commits.items()
            if lag.topics.get(topic) or facts.members or changed_at.get(topic, recent) >= recent
        }
        status = guard.attempt("status", name, self._status, poll, group, lag, left, activity)
        rates = guard.attempt("rates", name, self._rates, poll, group, close, lag) or {}
        seconds = guard.attempt("times", name, self._seconds, poll, group, lag)
        losses = guard.attempt("losses", name, self._lost, poll, group)
        if losses is None:
            self._losses.forget_group(name)
        lost, deleted = losses or (nothing(), nothing())
        measures = GroupMeasures(
            lag=lag,
            facts=facts,
            status=NOT_FOUND if status is None else status,
            # what failed is not known: no topic may pass for one on which nothing is unread
            seconds=dict.fromkeys(lag.partitions, nothing()) if seconds is None else seconds,
            seconds_max=None if seconds is None else largest(lag, seconds, left),
            changed_at=changed_at,
            rates=rates,
            imbalance=guard.attempt(
                "imbalance", name, self._imbalance, poll, close, lag, facts, rates
            ) or nothing(),
            retention=guard.attempt(
                "retention", name, self._retention, poll, group, lag, seconds or {}
            ) or nothing(),
            activity=activity,
            stuck=nothing() if activity is None else {
                topic: activity.stuck(topic, poll.now)[0]
                for topic, unread in lag.topics.items()
                if unread and facts.members and topic not in left
            },
            uncommitted=guard.attempt(
                "facts", name, uncommitted_partitions,
                group, facts, snapshot.start_offsets.values, poll.ends,
            ) or nothing(),
            not_consumed=left,
            rebalances=poll.rebalances.get(name),
            lost=lost,
            unread_deleted=deleted,
        )  # fmt: skip
        advice = guard.attempt("advice", name, self._advice, poll, group, measures)
        # while it has members, rates and balance are those of the window: it must be over
        is_quiet = self._unchanged.get(name, 0) > self._rules.intervals or not (
            close or facts.members
        )
        is_steady = (
            is_quiet
            and measures.status.complete >= 1
            and not (lag.readable_total or lag.past_end or advice)
            and activity is not None
            and not activity.by_commits
            and not (snapshot.end_offsets.silent or snapshot.stable_offsets.values)
            and not any(subject == name for _, subject in guard.failures)
        )
        return replace(measures, advice=tuple(advice or ()), steady=is_steady)

    def _moved_at(self, group: str, changed_at: Mapping[str, float]) -> dict[str, float]:
        """Return when commits were last seen to move: a first sight is no move."""
        return {
            topic: at for topic, at in changed_at.items() if self._commits.has_moved(group, topic)
        }

    def _status(
        self,
        poll: _Poll,
        group: Group,
        lag: GroupLag,
        left: Collection[str],
        activity: Activity | None,
    ) -> GroupStatus:
        caught_up = {
            topic: len(lag.partitions[topic])
            for topic, unread in lag.topics.items()
            if not unread and topic in poll.ends and topic not in left
        }
        commits = group.commits
        if left:
            commits = {topic: of for topic, of in commits.items() if topic not in left}
        return group_status(
            group.id, commits, poll.ends, self._commits, self._ends,
            now=poll.now, rules=self._rules, caught_up=caught_up, unread=lag.unread,
            patience=Activity().patience if activity is None else activity.patience,
        )  # fmt: skip

    def _rates(
        self, poll: _Poll, group: Group, commits: PartitionOffsets, lag: GroupLag
    ) -> dict[str, TopicRates]:
        for topic in commits:
            if topic not in poll.produced:
                poll.produced[topic] = produce_rates(self._ends, topic)
        return group_rates(
            group.id, commits, poll.ends, self._commits, self._ends,
            now=poll.now, produced=poll.produced, unread=lag.unread,
        )  # fmt: skip

    def _seconds(self, poll: _Poll, group: Group, lag: GroupLag) -> dict[str, dict[int, float]]:
        stale = poll.snapshot.end_offsets.silent
        readable = poll.readable.get(group.id, nothing())
        found: dict[str, dict[int, float]] = {}
        for topic, unread in lag.topics.items():
            if not unread and topic not in stale:
                continue
            answered, of_topic = poll.ends.get(topic, nothing()), readable.get(topic, nothing())
            of = found[topic] = {}
            for partition, messages in lag.readable(topic).items():
                if partition not in answered:
                    continue
                if not messages:
                    of[partition] = 0.0
                    continue
                told = of_topic.get(partition)
                if told is None or told.first is None:
                    continue
                seconds = self._times.seconds((topic, partition), told.first)
                if seconds is not None:
                    of[partition] = seconds
        return found

    def _retention(
        self,
        poll: _Poll,
        group: Group,
        lag: GroupLag,
        seconds: Mapping[str, Mapping[int, float]],
    ) -> dict[str, dict[int, RetentionRisk]]:
        wall = self._times.wall
        ages: dict[str, dict[int, float]] = {}
        for topic, partitions in poll.readable.get(group.id, nothing()).items():
            for partition, told in partitions.items():
                if told.first is None:
                    continue
                stamp = self._times.record_time((topic, partition), told.first)
                if stamp is not None:
                    waited = seconds.get(topic, nothing()).get(partition, 0.0)
                    ages.setdefault(topic, {})[partition] = max(wall - stamp, waited)
        return retention_risks(
            poll.snapshot, group, lag,
            record_ages=ages, log_bytes=poll.log_bytes, produced=poll.produced,
        )  # fmt: skip

    def _lost(self, poll: _Poll, group: Group) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return, by topic, what was lost since the first look and what stands unread and deleted."""
        starts, ends = poll.snapshot.start_offsets.values, poll.snapshot.end_offsets.values
        name = group.id
        self._losses.observe(name, group.commits, starts, ends, poll.now)
        deleted = {}
        for topic, commits in group.commits.items():
            if topic in starts and topic in ends:
                amount = unread_deleted(commits, starts[topic], ends[topic])
                if amount is not None:
                    deleted[topic] = amount
        lost = {
            topic: self._losses.of(name, topic)
            for topic in group.commits
            if topic in ends or topic in poll.partitions_of
        }
        return lost, deleted

    def _imbalance(
        self,
        poll: _Poll,
        close: Collection[str],
        lag: GroupLag,
        facts: GroupFacts,
        rates: Mapping[str, TopicRates],
    ) -> dict[str, dict[str, float]]:
        found = {}
        for topic in sorted({*facts.per_topic, *close}):
            produced = self._messages(poll, topic).values()
            excess = imbalance_of(
                topic, lag, facts, rates.get(topic), produced=produced, interval=poll.interval
            )
            if excess:
                found[topic] = excess
        return found

    def _messages(self, poll: _Poll, topic: str) -> Mapping[int, int]:
        found = poll.messages.get(topic)
        if found is None:
            found = poll.messages[topic] = produced_messages(self._ends, topic)
        return found

    def _advice(self, poll: _Poll, group: Group, measures: GroupMeasures) -> list[Advice]:
        activity = measures.activity or Activity()
        topics = {
            *measures.rates, *measures.imbalance, *measures.lag.past_end,
            *(topic for topic, count in measures.uncommitted.items() if count),
            *(topic for topic, count in measures.unread_deleted.items() if count),
        }  # fmt: skip
        picture = group_picture(
            group,
            measures.facts,
            activity,
            # commits remain of a topic that is gone: nothing is to be done about it
            [
                self._topic_picture(poll, group, measures, activity, topic)
                for topic in sorted(topics & poll.partitions_of.keys())
            ],
            rebalances_last_hour=sum(n for _, n in self._rebalanced_at.get(group.id, ())),
        )
        return advise(replace(picture, status=measures.status.status))

    def _topic_picture(
        self,
        poll: _Poll,
        group: Group,
        measures: GroupMeasures,
        activity: Activity,
        topic: str,
    ) -> TopicPicture:
        lag = measures.lag
        rates = measures.rates.get(topic)
        imbalance = measures.imbalance.get(topic, {})
        risks = measures.retention.get(topic, {}).values()
        stuck, since = activity.stuck(topic, poll.now)
        lost_at = self._losses.lost_at(group.id, topic)
        retention = retention_of(poll.snapshot, topic)
        readable = poll.readable.get(group.id, nothing()).get(topic, nothing())
        transactions = poll.open_transactions.get(topic, nothing())
        held = [transactions[p] for p, of in readable.items() if of.held_at is not None]
        return TopicPicture(
            topic,
            partitions=len(poll.partitions_of[topic]),
            lag=lag.readable_sum(topic),
            consumed_topic=topic not in measures.not_consumed,
            produced=rates.produced if rates else None,
            consumed=rates.consumed if rates else None,
            catch_up=rates.catch_up if rates else None,
            lag_seconds=_largest_of(lag, topic, measures.seconds.get(topic, nothing())),
            patience_seconds=activity.patience,
            stuck=stuck,
            stuck_seconds=poll.now - since,
            held=sum(each.records for each in held),
            held_seconds=max((poll.now - each.since for each in held), default=0.0),
            uncommitted=measures.uncommitted.get(topic, 0),
            hottest=hottest(self._messages(poll, topic).items())
            if imbalance.get("production", 0.0) > IMBALANCE_EXCESS
            else None,
            production_excess=imbalance.get("production"),
            assignment_excess=imbalance.get("assignment"),
            unread_deleted=measures.unread_deleted.get(topic, 0),
            loss_age_seconds=None if lost_at is None else poll.now - lost_at,
            retention_remaining_seconds=min(
                (r.remaining_seconds for r in risks if r.remaining_seconds is not None),
                default=None,
            ),
            retention_seconds=retention.milliseconds and retention.milliseconds / 1000,
            past_end=sum(lag.past_end.get(topic, nothing()).values()),
        )


def _largest_of(lag: GroupLag, topic: str, seconds: Mapping[int, float]) -> float | None:
    """Return the largest lag in seconds of a topic, None unless all are known."""
    if lag.partitions.get(topic, nothing()).keys() - seconds.keys():
        return None
    return max(seconds.values(), default=None)


def _differing(values: Mapping[str, object], last: Mapping[str, object]) -> set[str]:
    """Return the topics of which something else is said now."""
    if values is last:
        return set()
    return {topic for topic in values.keys() | last.keys() if values.get(topic) != last.get(topic)}


def _identities(topics: Mapping[str, Topic]) -> Mapping[str, object]:
    """Return what makes a topic another one, or another number of partitions."""
    return {name: (topic.id, topic.partitions.keys()) for name, topic in topics.items()}


def _described(group: Group) -> tuple[object, ...]:
    """Return what is told of a group beside its commits."""
    return (
        group.type, group.state, group.assignor, group.coordinator, group.members, group.lags,
        group.epoch, group.answer,
    )  # fmt: skip


def _unread(lag: GroupLag, left_out: Collection[str]) -> dict[str, Mapping[int, int]]:
    """Return topic -> partition -> readable messages, of the consumed topics that have lag."""
    return {
        topic: lag.readable(topic)
        for topic, unread in lag.topics.items()
        if unread and topic not in left_out
    }


def _offsets_in_doubt(
    readable: Mapping[str, Mapping[str, Mapping[int, Readable]]],
) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield (partition, offset) of the oldest records that wait, to be read or for a transaction."""
    for topics in readable.values():
        for topic, partitions in topics.items():
            for partition, of in partitions.items():
                if of.first is not None:
                    yield (topic, partition), of.first
                if of.held_at is not None:
                    yield (topic, partition), of.held_at


def _uncompacted(snapshot: Snapshot) -> Collection[str]:
    """Return the topics that are known to be without compaction."""
    return {
        topic
        for topic, config in snapshot.topic_configs.items()
        if config.cleanup_policies is not None and "compact" not in config.cleanup_policies
    }
