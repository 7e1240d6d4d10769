"""The samples of each metric, taken from a state.

What is stale for longer than `stale_after_s` is taken out of the state before any family sees it: an
old number must not be taken for a current one for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

from monitor.analysis.guard import Guard
from monitor.analysis.measures import NOTHING_UNREAD, GroupMeasures, age
from monitor.analysis.rates import NEVER, TopicRates
from monitor.analysis.status import Status
from monitor.exposition import burrow, kminion, lag_exporter, own
from monitor.exposition import metrics as m
from monitor.exposition.metrics import Metric
from monitor.exposition.series import (
    Block,
    ByPartition,
    GroupSamples,
    Level,
    Nested,
    Samples,
    Series,
    Values,
)
from monitor.model import Group, Offsets, Refused, Snapshot, Topic
from monitor.state import State

# A group that wakes has the text of its block's others rendered again: a block is a part of them.
_RESTING_BLOCKS: Final = 16
_STATUSES: Final = ("OK", "WARN", "ERR", "STOP", "STALL", "REWIND")
_OTHER_FAMILIES: Final[Mapping[str, Callable[[State], Samples]]] = {
    kminion.KMINION: kminion.samples,
    lag_exporter.LAG_EXPORTER: lag_exporter.samples,
    burrow.BURROW: burrow.samples,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a state is shown: `families` of other monitors, and how far down groups go.

    `hide_empty_groups` leaves out groups without members whose commits do not move. `poll_interval_s`
    is told to who reads the page, None where nobody polls at a pace.
    """

    stale_after_s: float
    level: Level = Level.PARTITION
    families: Collection[str] = ()
    members: bool = True
    hide_empty_groups: bool = False
    poll_interval_s: float | None = None


def blocks(state: State, choice: Choice, guard: Guard | None = None) -> Iterator[Block]:
    """Yield all samples of a state, in blocks that change at different times.

    A group whose samples can't be made costs its own, and is named by `guard`.
    """
    shown = state.without_older_than(choice.stale_after_s)
    if choice.hide_empty_groups:
        shown = shown.without_empty_groups()
    snapshot = shown.snapshot
    if snapshot is not None:
        topics = snapshot.topics
        yield Block((topics,), lambda: _topics(topics), name="topics")
        for metric, offsets, name in (
            (m.PARTITION_OLDEST_OFFSET, snapshot.start_offsets, "start offsets"),
            (m.PARTITION_CURRENT_OFFSET, snapshot.end_offsets, "end offsets"),
        ):
            yield _offsets_block(metric, offsets, name)
        yield Block((), lambda: _brokers(shown, snapshot), name="brokers")
        yield Block((), lambda: _partitions(shown, snapshot), name="partitions")
        yield from _group_blocks(shown, snapshot, choice, guard or Guard())
        for family, samples in _OTHER_FAMILIES.items():
            if family in choice.families:
                yield Block((), partial(samples, shown), name=family)
    yield Block((), lambda: own.samples(state, choice.poll_interval_s), name="monitor")


def _offsets_block(metric: Metric, offsets: Offsets, name: str) -> Block:
    def samples() -> Samples:
        return {metric: ByPartition({(topic,): of for topic, of in offsets.values.items()})}

    return Block((offsets.values,), samples, name=name)


def _topics(topics: Mapping[str, Topic]) -> Samples:
    counts: Series = {(topic.name,): len(topic.partitions) for topic in topics.values()}
    leader: Nested = {}
    replicas: Nested = {}
    in_sync: Nested = {}
    preferred: Nested = {}
    under: Nested = {}
    for topic in topics.values():
        labels = (topic.name,)
        found = topic.partitions.items()
        leader[labels] = {i: p.leader for i, p in found if p.leader is not None}
        replicas[labels] = {i: len(p.replicas) for i, p in found}
        in_sync[labels] = {i: len(p.isr) for i, p in found}
        preferred[labels] = {i: int(p.leader_is_preferred) for i, p in found}
        under[labels] = {i: int(p.under_replicated) for i, p in found}
    return {
        m.TOPIC_PARTITIONS: counts,
        m.PARTITION_LEADER: ByPartition(leader),
        m.PARTITION_REPLICAS: ByPartition(replicas),
        m.PARTITION_IN_SYNC_REPLICAS: ByPartition(in_sync),
        m.PARTITION_LEADER_IS_PREFERRED: ByPartition(preferred),
        m.PARTITION_UNDER_REPLICATED: ByPartition(under),
    }


def _brokers(state: State, snapshot: Snapshot) -> Samples:
    ages: Nested = {
        (topic,): {p: round(state.monotonic_at - seen_at, 3) for p, seen_at in partitions.items()}
        for topic, partitions in snapshot.end_offsets.silent.items()
    }
    return {
        m.BROKERS: {(): len(snapshot.brokers)} if snapshot.brokers else {},
        m.BROKER_INFO: {(str(b.id), b.address): 1 for b in snapshot.brokers.values()},
        m.MONITOR_BROKER_UP: {
            **{
                (str(broker),): int(broker not in snapshot.broker_errors)
                for broker in snapshot.brokers
            },
            **{(str(broker),): 0 for broker in snapshot.missing_brokers},
        },
        m.PARTITION_DATA_AGE: ByPartition(ages),
        m.PARTITION_LOG_BYTES: ByPartition(
            {(topic,): found for topic, found in snapshot.log_bytes.items()}
            if snapshot.log_sizes
            else {}
        ),
    }


def _partitions(state: State, snapshot: Snapshot) -> Samples:
    errors: Values = {}
    for offsets in (snapshot.start_offsets, snapshot.end_offsets):
        for topic, refused in offsets.refused.items():
            for partition, error in refused.items():
                errors[topic, str(partition), error] = 1
    for topic, refused in snapshot.unreadable.items():
        for partition, error in refused.items():
            errors[topic, str(partition), f"Fetch: {error}"] = 1
    held = state.findings.open_transactions.items()
    now = snapshot.monotonic_at
    return {
        m.PARTITION_ERROR: errors,
        m.PARTITION_HELD_RECORDS: ByPartition(
            {(topic,): {p: each.records for p, each in of.items()} for topic, of in held}
        ),
        m.PARTITION_HELD_SECONDS: ByPartition(
            {
                (topic,): {p: round(now - each.since, 3) for p, each in of.items()}
                for topic, of in held
            }
        ),
    }


def _group_blocks(
    state: State, snapshot: Snapshot, choice: Choice, guard: Guard
) -> Iterator[Block]:
    """Yield what was the same for some polls apart from the rest: its text is kept."""
    lively: list[GroupMeasures] = []
    resting: defaultdict[int, list[GroupMeasures]] = defaultdict(list)
    for group_id, measures in state.groups.items():
        if measures.measured_at <= state.findings.resting_since:
            resting[crc32(group_id.encode()) % _RESTING_BLOCKS].append(measures)
        else:
            lively.append(measures)

    def samples(groups: Iterable[GroupMeasures]) -> Samples:
        return _groups(groups, choice)

    def ages(groups: Iterable[GroupMeasures]) -> Samples:
        return _ages(state, snapshot, groups, choice)

    for groups in resting.values():
        yield Block(tuple(groups), partial(_guarded, samples, groups, guard), "groups", "groups")
    yield Block((), partial(_guarded, samples, lively, guard), "groups", "groups")
    every = list(state.groups.values())
    yield Block((), partial(_guarded, ages, every, guard), "groups", "ages of groups")


def _guarded(
    samples: Callable[[Iterable[GroupMeasures]], Samples],
    groups: list[GroupMeasures],
    guard: Guard,
) -> Samples:
    """Return the samples of groups, without those of which they can't be made."""
    try:
        return samples(groups)
    except Exception:  # noqa: BLE001  # one group must not cost the others: find out which
        return samples(
            [g for g in groups if guard.runs("exposition", g.group.id, _make, samples, g)]
        )


def _make(samples: Callable[[Iterable[GroupMeasures]], Samples], group: GroupMeasures) -> None:
    samples([group])


def _groups(groups: Iterable[GroupMeasures], choice: Choice) -> Samples:
    """Return all that is shown of `groups`, but what grows with time alone."""
    found = GroupSamples(choice.level)
    for measures in groups:
        group = measures.group
        _identity(found, group)
        _offsets_and_lag(found, group, measures)
        _status(found, group.id, measures)
        _membership(found, group, measures, members=choice.members)
        _activity(found, group.id, measures)
        _rates(found, group.id, measures)
        _losses(found, group.id, measures)
        _nothing_unread(found, group.id, measures)
        for advice in measures.advice:
            labels = (group.id, advice.topic or "", advice.severity.name.lower(), advice.cause)
            found.add(m.GROUP_ADVICE, labels, 1)
    return found.samples()


def _ages(
    state: State, snapshot: Snapshot, groups: Iterable[GroupMeasures], choice: Choice
) -> Samples:
    found = GroupSamples(choice.level)
    now = snapshot.monotonic_at
    for measures in groups:
        group = measures.group
        if group.silent_since is not None:
            silent = round(age(group.silent_since, state.monotonic_at), 3)
            found.add(m.GROUP_DATA_AGE, (group.id,), silent)
        for topic, changed_at in measures.changed_at.items():
            found.add(m.GROUP_COMMIT_AGE, (group.id, topic), round(age(changed_at, now), 3))
        _seconds(found, group.id, measures, snapshot.seen_at)
        _retention(found, group.id, measures, now)
    return found.samples()


def _identity(found: GroupSamples, group: Group) -> None:
    coordinator = "" if group.coordinator is None else str(group.coordinator)
    found.add(m.GROUP_INFO, (group.id, group.type, group.assignor or "", coordinator), 1)
    if group.state is not None:
        found.add(m.GROUP_STATE, (group.id, group.state), 1)
    if isinstance(group.answer, Refused):
        found.add(m.GROUP_ERROR, (group.id, group.answer.error), 1)


def _offsets_and_lag(found: GroupSamples, group: Group, measures: GroupMeasures) -> None:
    lag = measures.lag
    for topic, commits in group.commits.items():
        found.partitions(m.GROUP_CURRENT_OFFSET, group.id, topic, commits)
        found.add(m.GROUP_CURRENT_OFFSET_SUM, (group.id, topic), sum(commits.values()))
    for topic, lags in lag.partitions.items():
        found.partitions(m.GROUP_LAG, group.id, topic, lags)
        found.add(m.GROUP_LAG_SUM, (group.id, topic), lag.topics[topic])
        found.add(m.GROUP_READABLE_LAG, (group.id, topic), lag.readable_sum(topic))
    for topic, past_end in lag.past_end.items():
        found.partitions(m.GROUP_COMMIT_PAST_END, group.id, topic, past_end)


def _nothing_unread(found: GroupSamples, group_id: str, measures: GroupMeasures) -> None:
    """Add the lags in seconds that are 0 whatever the time is."""
    for topic, lags in measures.lag.partitions.items():
        if topic not in measures.oldest_unread_at:
            found.partitions(m.GROUP_LAG_SECONDS, group_id, topic, lags)
    if measures.behind_since == NOTHING_UNREAD:
        found.add(m.GROUP_LAG_SECONDS_MAX, (group_id,), 0)


def _seconds(found: GroupSamples, group_id: str, measures: GroupMeasures, now: float) -> None:
    for topic in measures.oldest_unread_at:
        seconds = measures.behind_by_partition(topic, now).items()
        found.partitions(m.GROUP_LAG_SECONDS, group_id, topic, {p: round(s, 3) for p, s in seconds})
    if measures.behind_since not in {None, NOTHING_UNREAD}:
        found.add(m.GROUP_LAG_SECONDS_MAX, (group_id,), round(measures.behind(now) or 0.0, 3))


def _status(found: GroupSamples, group_id: str, measures: GroupMeasures) -> None:
    status = measures.status
    if status.status is Status.NOTFOUND:
        return
    seen = {
        status.status.name,
        *(p.status.name for p in status.partitions if p.status > Status.ERR),
    }
    for name in _STATUSES:
        found.add(m.GROUP_STATUS, (group_id, name), int(name in seen))
    found.add(m.GROUP_STATUS_COMPLETE, (group_id,), round(status.complete, 4))
    for p in status.partitions:
        labels = (group_id, p.topic, str(p.partition), p.status.name)
        found.add(m.GROUP_PARTITION_STATUS, labels, 1)


def _membership(
    found: GroupSamples, group: Group, measures: GroupMeasures, *, members: bool
) -> None:
    facts = measures.facts
    if facts.members is not None:
        found.add(m.GROUP_MEMBERS, (group.id,), facts.members)
    if facts.idle is not None:
        found.add(m.GROUP_IDLE_MEMBERS, (group.id,), len(facts.idle))
    if facts.unassigned is not None:
        found.add(m.GROUP_UNASSIGNED, (group.id,), len(facts.unassigned))
    if measures.rebalances is not None:
        found.add(m.GROUP_REBALANCES, (group.id,), measures.rebalances)
    if members:
        for member in group.members or ():
            labels = (group.id, member.client_id, member.host, member.id)
            found.add(m.GROUP_MEMBER_PARTITIONS, labels, member.partition_count)
    for topic, kinds in measures.imbalance.items():
        for kind, excess in kinds.items():
            found.add(m.GROUP_IMBALANCE, (group.id, topic, kind), round(excess, 4))


def _activity(found: GroupSamples, group_id: str, measures: GroupMeasures) -> None:
    activity = measures.activity
    if activity is not None:
        for by, is_active in (("members", activity.by_members), ("commits", activity.by_commits)):
            if is_active is not None:
                found.add(m.GROUP_ACTIVE, (group_id, by), int(is_active))
        found.add(m.GROUP_PATIENCE, (group_id,), round(activity.patience, 3))
        for topic in measures.lost:  # all topics with commits, as far as they exist
            found.add(m.GROUP_REWINDS, (group_id, topic), activity.rewinds.get(topic, 0))
    for topic in measures.not_consumed:
        found.add(m.GROUP_NOT_CONSUMED, (group_id, topic), 1)
    for metric, counts in (
        (m.GROUP_STUCK, measures.stuck),
        (m.GROUP_UNCOMMITTED, measures.uncommitted),
    ):
        for topic, count in counts.items():
            found.add(metric, (group_id, topic), count)


def _rates(found: GroupSamples, group_id: str, measures: GroupMeasures) -> None:
    for topic, rates in measures.rates.items():
        labels = (group_id, topic)
        for metric, value in (
            (m.GROUP_PRODUCED_RATE, rates.produced),
            (m.GROUP_CONSUMED_RATE, rates.consumed),
            (m.GROUP_LAG_VELOCITY, rates.lag_velocity),
            (m.GROUP_COMMIT_RATE, rates.commit_rate),
        ):
            if value is not None:
                found.add(metric, labels, round(value, 3))
    _catch_up(found, group_id, measures.rates)


def _catch_up(found: GroupSamples, group_id: str, rates: Mapping[str, TopicRates]) -> None:
    never = any(each.catch_up == NEVER for each in rates.values())
    # a group that never catches up on one topic has no time at which it has: none may be shown
    hidden = never and found.level is Level.GROUP
    for topic, topic_rates in rates.items():
        seconds = topic_rates.catch_up
        if seconds is None:
            continue
        found.add(m.GROUP_CATCHING_UP, (group_id, topic), int(seconds != NEVER))
        if seconds != NEVER and not hidden:
            found.add(m.GROUP_TIME_TO_CATCH_UP, (group_id, topic), round(float(seconds), 3))


def _losses(found: GroupSamples, group_id: str, measures: GroupMeasures) -> None:
    for metric, counts in (
        (m.GROUP_LOST, measures.lost),
        (m.GROUP_UNREAD_DELETED, measures.unread_deleted),
    ):
        for topic, count in counts.items():
            found.add(metric, (group_id, topic), count)
    for topic, risks in measures.retention.items():
        shares = {p: round(risk.unread_share, 4) for p, risk in risks.items()}
        found.partitions(m.GROUP_UNREAD_RATIO, group_id, topic, shares)


def _retention(found: GroupSamples, group_id: str, measures: GroupMeasures, now: float) -> None:
    for topic, risks in measures.retention.items():
        remaining = {
            p: round(age(now, risk.deleted_at), 1)
            for p, risk in risks.items()
            if risk.deleted_at is not None
        }
        found.partitions(m.GROUP_RETENTION_REMAINING, group_id, topic, remaining)
