"""Joins the analyses: one poll's snapshot becomes every measure of every group.

What a group does on a topic is looked at closely while something is unread, somebody is a member,
or commits were seen within the window; most groups of a large cluster do nothing, and cost nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from monitor.analysis.advice import IMBALANCE_EXCESS, GroupPicture, TopicPicture, advise
from monitor.analysis.balance import (
    assignment_excess,
    hottest,
    lag_excess,
    production_excess,
)
from monitor.analysis.groups import GroupFacts, RebalanceCounter, group_facts, is_rebalancing
from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.analysis.losses import Losses
from monitor.analysis.rates import TopicRates, group_rates, produce_rates, produced_messages
from monitor.analysis.retention import Retention, RetentionRisk, retention_risk
from monitor.analysis.status import (
    DEFAULT_RULES,
    NOT_FOUND,
    GroupStatus,
    Status,
    StatusRules,
    group_status,
)
from monitor.analysis.timelag import TimeLag
from monitor.analysis.windows import CommitWindows, EndWindows, fresh
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from monitor.analysis.advice import Advice
    from monitor.analysis.windows import PartitionOffsets
    from monitor.model import Group, Snapshot, Topic

Times: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> Unix time in milliseconds."""
Found: TypeAlias = "Mapping[str, Mapping[int, tuple[int, int]]]"
"""Topic -> partition -> (offset, time in ms) of the first record that is as new, (-1, -1) if none."""
AskTimes: TypeAlias = "Callable[[Times], Found]"

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
    others nothing is unread, and it is 0. `seconds_max` is the largest that is known. `changed_at`
    is when a commit on the topic last changed or was first seen, in monotonic seconds. `rates` has the topics that were looked
    at closely, `imbalance` (topic -> kind -> excess) those with members or lag, `retention` (topic
    -> partition) the partitions with lag. `lost` counts the messages deleted unread (topic ->
    partition -> messages, since the monitor's start), of partitions that had lag.

    While nothing but time passes, a group is `steady`: `basis` is then the same object as at the
    poll before, and so is all but `seconds`, `seconds_max`, `retention` and `advice`.
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
    lost: PartitionOffsets = field(default_factory=nothing)
    rebalances: int | None = None
    advice: tuple[Advice, ...] = ()
    steady: bool = False
    basis: object = field(default_factory=object, compare=False)

    def seconds_of(self, topic: str) -> Mapping[int, float]:
        """Return partition -> lag in seconds of a topic, where it is known."""
        known = self.seconds.get(topic)
        # nothing is unread: every lag is 0, in seconds as in messages
        return self.lag.partitions.get(topic, {}) if known is None else known


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


class Analyst:
    """Measures one poll after the other; remembers what rates, statuses and times need."""

    def __init__(
        self, ask_times: AskTimes | None = None, *, rules: StatusRules = DEFAULT_RULES
    ) -> None:
        self._ask_times = ask_times
        self._rules = rules
        self._commits = CommitWindows(window=rules.intervals)
        self._ends = EndWindows(window=rules.intervals)
        self._times = TimeLag()
        self._rebalances = RebalanceCounter()
        self._rebalanced_at: dict[str, deque[tuple[float, int]]] = {}
        self._losses = Losses()
        self._topic_ids: dict[str, str | None] = {}
        self._retentions: dict[str, Retention] = {}
        self._poll_times: deque[float] = deque(maxlen=rules.intervals)
        self._last: Mapping[str, GroupMeasures] = {}
        self._last_ends: PartitionOffsets = {}
        self._last_snapshot: Snapshot | None = None
        self._unchanged: Mapping[str, int] = {}  # group -> polls since anything was new about it

    def measure(self, snapshot: Snapshot) -> dict[str, GroupMeasures]:
        """Return the measures of each group, by group id; asks brokers for times where in doubt."""
        now = snapshot.monotonic_at
        self._poll_times.append(now)
        self._forget_replaced(snapshot.topics)
        ends = fresh(snapshot.end_offsets.values, snapshot.end_offsets.silent)
        self._ends.observe(ends, now)
        self._count_unchanged(snapshot, ends)
        self._commits.start_poll(snapshot.groups.keys())
        lags = {}
        caught_up: dict[str, dict[int, int]] = {}
        standing = set()
        for group_id, group in snapshot.groups.items():
            if group.is_silent or self._is_at_rest(group_id):
                continue
            if self._stands(group_id, snapshot):
                standing.add(group_id)
                lags[group_id] = self._last[group_id].lag
                continue
            self._commits.observe(group_id, group.commits, ends, now)
            lags[group_id] = lag_of_group(group, snapshot, caught_up)
        self._find_times(snapshot, ends, lags)
        rebalances = self._count_rebalances(snapshot)
        log_bytes = snapshot.log_bytes if snapshot.log_sizes else {}
        poll = _Poll(snapshot, ends, now, self._interval(), log_bytes, {}, {}, rebalances)
        partitions_of = {name: topic.partitions for name, topic in snapshot.topics.items()}
        self._losses.retain(snapshot.groups.keys())
        measured = {}
        for group_id, group in snapshot.groups.items():
            lag = lags.get(group_id)
            if lag is None:  # at rest, or as of its `seen_at`: who may go on unseen has no lag
                measured[group_id] = self._last.get(group_id) or GroupMeasures(
                    GroupLag(), group_facts(group, partitions_of)
                )
            elif group_id in standing:
                measured[group_id] = self._still_standing(poll, group, self._last[group_id])
            else:
                facts = group_facts(group, partitions_of)
                measured[group_id] = self._group(poll, group, lag, facts)
        self._last = measured
        return measured

    # -- groups to which nothing happens ----------------------------------------------------------

    def _count_unchanged(self, snapshot: Snapshot, ends: PartitionOffsets) -> None:
        """Count for how many polls all that is told of each group has been the same."""
        last, last_ends = self._last_snapshot, self._last_ends
        self._last_snapshot, self._last_ends = snapshot, ends
        if last is None:
            return
        moved = _differing(ends, last_ends)
        moved |= _differing(snapshot.start_offsets.values, last.start_offsets.values)
        if snapshot.topics is not last.topics:
            moved |= _differing(_identities(snapshot.topics), _identities(last.topics))
        counts = self._unchanged
        self._unchanged = {
            group_id: counts.get(group_id, 0) + 1
            for group_id, group in snapshot.groups.items()
            if (before := last.groups.get(group_id)) is not None
            # what happened while it could not be seen is not known
            and not (group.is_silent or before.is_silent)
            and group.commits == before.commits
            and _described(group) == _described(before)
            and moved.isdisjoint(group.commits)
        }

    def _is_at_rest(self, group_id: str) -> bool:
        """Tell whether all measures of the last poll still hold."""
        last = self._last.get(group_id)
        return last is not None and last.steady and not last.seconds and group_id in self._unchanged

    def _stands(self, group_id: str, snapshot: Snapshot) -> bool:
        """Tell whether a group with lag has done nothing, nor anybody for it, for a whole window.

        Its rates and imbalances then are what they were: only times grow.
        """
        last = self._last.get(group_id)
        return (
            last is not None
            and self._unchanged.get(group_id, 0) > self._rules.intervals
            and last.status.complete >= 1
            and all(last.lag.topics.get(topic) or last.facts.members for topic in last.rates)
            and not snapshot.end_offsets.silent
            and not snapshot.stable_offsets.values
        )

    def _still_standing(self, poll: _Poll, group: Group, last: GroupMeasures) -> GroupMeasures:
        lag = last.lag
        status = last.status
        stopped = sum(p.status is Status.STOP for p in status.partitions)
        if stopped < sum(1 for of in lag.partitions.values() for unread in of.values() if unread):
            status = self._status(poll, group, lag)  # the longer its silence, the worse it gets
        rebalances = poll.rebalances.get(group.id)
        seconds = self._seconds(poll, group, lag)
        measures = replace(
            last,
            seconds=seconds,
            seconds_max=_largest(lag, seconds),
            retention=self._retention(poll, group, lag, seconds),
            status=status,
            rebalances=rebalances,
            steady=True,
            basis=last.basis
            if (status, rebalances) == (last.status, last.rebalances)
            else object(),
        )
        return replace(measures, advice=tuple(self._advice(poll, group, measures)))

    # -- before the groups ------------------------------------------------------------------------

    def _forget_replaced(self, topics: Mapping[str, Topic]) -> None:
        """Drop what was known of topics that are gone or were created anew under their names."""
        ids = {name: topic.id for name, topic in topics.items()}
        if ids == self._topic_ids:
            return
        for name, old in self._topic_ids.items():
            new = ids.get(name)
            if name not in ids or (old is not None and new is not None and new != old):
                self._times.forget(name)
                self._ends.forget(name)
                self._losses.forget(name)
        self._topic_ids = ids

    def _find_times(
        self, snapshot: Snapshot, ends: PartitionOffsets, lags: Mapping[str, GroupLag]
    ) -> None:
        # a broker that hangs makes the poll long after the others have told their log ends
        now = snapshot.end_offsets.seen_at or snapshot.monotonic_at
        lagging = (
            ((topic, partition), offset)
            for group_id, lag in lags.items()
            if lag.total
            for topic, partition, offset in _unread(snapshot, snapshot.groups[group_id], lag, ends)
        )
        self._times.observe(
            ends,
            lagging,
            now=now,
            wall=now + snapshot.wall_offset,
            uncompacted=_uncompacted(snapshot),
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
            found = self._ask_times(wanted)
            self._times.answers(
                asked,
                {
                    (topic, partition): answer
                    for topic, partitions in found.items()
                    for partition, answer in partitions.items()
                },
            )

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

    def _group(self, poll: _Poll, group: Group, lag: GroupLag, facts: GroupFacts) -> GroupMeasures:
        status = self._status(poll, group, lag)
        changed = {topic: self._commits.changed_at(group.id, topic) for topic in group.commits}
        changed_at = {topic: at for topic, at in changed.items() if at is not None}
        rebalances = poll.rebalances.get(group.id)
        recent = poll.now - poll.interval * self._rules.intervals
        close = {
            topic: commits
            for topic, commits in group.commits.items()
            if lag.topics.get(topic) or facts.members or changed_at.get(topic, recent) >= recent
        }
        lost = self._losses.of(group.id)
        stale = poll.snapshot.end_offsets.silent
        if not (close or facts.members or lag.past_end or stale):
            at_rest = status.complete >= 1 and not poll.snapshot.stable_offsets.values
            zero = 0.0 if lag.partitions else None
            return GroupMeasures(
                lag, facts, status, seconds_max=zero, changed_at=changed_at,
                lost=lost, rebalances=rebalances, steady=at_rest,
            )  # fmt: skip
        rates = self._rates(poll, group, close)
        seconds = self._seconds(poll, group, lag)
        retention = self._retention(poll, group, lag, seconds)
        imbalance = {
            topic: found
            for topic in sorted(facts.per_topic.keys() | close.keys())
            if (found := self._imbalance(poll, topic, lag, facts, rates.get(topic)))
        }
        measures = GroupMeasures(
            lag=lag,
            facts=facts,
            status=status,
            seconds=seconds,
            seconds_max=_largest(lag, seconds),
            changed_at=changed_at,
            rates=rates,
            imbalance=imbalance,
            retention=retention,
            lost=self._losses.of(group.id),
            rebalances=rebalances,
        )
        return replace(measures, advice=tuple(self._advice(poll, group, measures)))

    def _status(self, poll: _Poll, group: Group, lag: GroupLag) -> GroupStatus:
        caught_up = {
            topic: len(lag.partitions[topic])
            for topic, unread in lag.topics.items()
            if not unread and topic in poll.ends
        }
        return group_status(
            group.id, group.commits, poll.ends, self._commits, self._ends,
            now=poll.now, rules=self._rules, caught_up=caught_up,
        )  # fmt: skip

    def _rates(self, poll: _Poll, group: Group, commits: PartitionOffsets) -> dict[str, TopicRates]:
        for topic in commits:
            if topic not in poll.produced:
                poll.produced[topic] = produce_rates(self._ends, topic)
        return group_rates(
            group.id, commits, poll.ends, self._commits, self._ends,
            now=poll.now, produced=poll.produced,
        )  # fmt: skip

    def _seconds(self, poll: _Poll, group: Group, lag: GroupLag) -> dict[str, dict[int, float]]:
        stale = poll.snapshot.end_offsets.silent
        found: dict[str, dict[int, float]] = {}
        for topic, unread in lag.topics.items():
            if unread:
                found[topic] = {
                    p: 0.0 for p, messages in lag.partitions[topic].items() if not messages
                }
            if topic in stale:
                found[topic] = {
                    p: 0.0
                    for p, messages in lag.partitions[topic].items()
                    if not messages and p not in stale[topic]
                }
        for topic, partition, offset in _unread(poll.snapshot, group, lag, poll.ends):
            seconds = self._times.seconds((topic, partition), offset)
            if seconds is not None:
                found[topic][partition] = seconds
        return found

    def _retention(
        self,
        poll: _Poll,
        group: Group,
        lag: GroupLag,
        seconds: Mapping[str, Mapping[int, float]],
    ) -> dict[str, dict[int, RetentionRisk]]:
        snapshot = poll.snapshot
        found: dict[str, dict[int, RetentionRisk]] = {}
        for topic, unread in lag.topics.items():
            starts = snapshot.start_offsets.values.get(topic)
            commits = group.commits.get(topic)
            ends = snapshot.end_offsets.values.get(topic)
            if not unread or not (starts and commits and ends):
                continue
            retention = _retention_of(snapshot, topic)
            sizes = poll.log_bytes.get(topic, {})
            produced = poll.produced.get(topic, {})
            risks = found[topic] = {}
            for partition, messages in lag.partitions[topic].items():
                if not messages or partition not in starts or partition not in commits:
                    continue
                committed, start = commits[partition], starts[partition]
                risks[partition] = retention_risk(
                    committed,
                    start,
                    ends[partition],
                    lag_seconds=seconds[topic].get(partition),
                    retention=retention,
                    log_bytes=sizes.get(partition),
                    produced_per_second=produced.get(partition),
                )
                self._losses.see(group.id, topic, partition, committed, start)
        return found

    def _imbalance(
        self,
        poll: _Poll,
        topic: str,
        lag: GroupLag,
        facts: GroupFacts,
        rates: TopicRates | None,
    ) -> dict[str, float]:
        """Return kind -> excess of what can be told."""
        found: dict[str, float | None] = {}
        if facts.members and not is_rebalancing(facts.state) and topic in facts.per_topic:
            found["assignment"] = assignment_excess(facts.per_topic[topic])
        if facts.members or lag.topics.get(topic):
            found["production"] = production_excess(self._messages(poll, topic).values())
            lags = lag.partitions.get(topic)
            if lags:
                consumed = (rates.consumed if rates else None) or 0.0
                found["lag"] = lag_excess(
                    lags.values(), in_flight_per_partition=consumed * poll.interval / len(lags)
                )
        return {kind: excess for kind, excess in found.items() if excess is not None}

    def _messages(self, poll: _Poll, topic: str) -> Mapping[int, int]:
        found = poll.messages.get(topic)
        if found is None:
            found = poll.messages[topic] = produced_messages(self._ends, topic)
        return found

    def _advice(self, poll: _Poll, group: Group, measures: GroupMeasures) -> Iterator[Advice]:
        facts, lag = measures.facts, measures.lag
        topics = []
        for topic in sorted(
            measures.rates.keys() | measures.imbalance.keys() | lag.past_end.keys()
        ):
            known = poll.snapshot.topics.get(topic)
            if known is None:
                continue  # commits remain of a topic that is gone: nothing is to be done about it
            rates = measures.rates.get(topic)
            imbalance = measures.imbalance.get(topic, {})
            risks = measures.retention.get(topic, {}).values()
            topics.append(
                TopicPicture(
                    topic,
                    partitions=len(known.partitions),
                    lag=lag.topics.get(topic, 0),
                    lag_seconds=max(measures.seconds.get(topic, {}).values(), default=None),
                    produced=rates.produced if rates else None,
                    consumed=rates.consumed if rates else None,
                    catch_up=rates.catch_up if rates else None,
                    commit_age_seconds=None
                    if topic not in measures.changed_at
                    else poll.now - measures.changed_at[topic],
                    hottest=hottest(self._messages(poll, topic).items())
                    if imbalance.get("production", 0.0) > IMBALANCE_EXCESS
                    else None,
                    production_excess=imbalance.get("production"),
                    assignment_excess=imbalance.get("assignment"),
                    unread_deleted=sum(risk.unread_deleted for risk in risks),
                    retention_remaining_seconds=min(
                        (r.remaining_seconds for r in risks if r.remaining_seconds is not None),
                        default=None,
                    ),
                    past_end=len(lag.past_end.get(topic, ())),
                )
            )
        yield from advise(
            GroupPicture(
                group.id,
                status=measures.status.status,
                members=facts.members,
                idle=None if facts.idle is None else len(facts.idle),
                unassigned=None if facts.unassigned is None else len(facts.unassigned),
                rebalances_last_hour=sum(n for _, n in self._rebalanced_at.get(group.id, ())),
                topics=topics,
            )
        )


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
        group.epoch,
    )  # fmt: skip


def _unread(
    snapshot: Snapshot, group: Group, lag: GroupLag, ends: PartitionOffsets
) -> Iterator[tuple[str, int, int]]:
    """Yield (topic, partition, offset of the oldest unread record that is still there)."""
    for topic, unread in lag.topics.items():
        if not unread or topic not in ends or topic not in group.commits:
            continue
        commits, answered = group.commits[topic], ends[topic]
        starts = snapshot.start_offsets.values.get(topic, {})
        for partition, messages in lag.partitions[topic].items():
            if messages and partition in answered and partition in commits:
                # what is before the log start is deleted: its time can't be found out any more
                yield topic, partition, max(commits[partition], starts.get(partition, 0))


def _largest(lag: GroupLag, seconds: Mapping[str, Mapping[int, float]]) -> float | None:
    known = [s for partitions in seconds.values() for s in partitions.values() if s]
    if known:
        return max(known)
    return 0.0 if lag.partitions and not lag.total else None


def _uncompacted(snapshot: Snapshot) -> Collection[str]:
    """Return the topics that are known to be without compaction."""
    return {
        topic
        for topic, config in snapshot.topic_configs.items()
        if config.cleanup_policies is not None and "compact" not in config.cleanup_policies
    }


def _retention_of(snapshot: Snapshot, topic: str) -> Retention:
    config = snapshot.topic_configs.get(topic)
    if config is None:
        return Retention()
    return Retention(
        _limit(config.retention_ms),
        _limit(config.retention_bytes),
        deletes="delete" in (config.cleanup_policies or ("delete",)),
    )


def _limit(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
