"""Parts of a group's measures that are put together from several analyses: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monitor.analysis.activity import not_consumed
from monitor.analysis.advice import GroupPicture, TopicPicture
from monitor.analysis.balance import assignment_excess, lag_excess, production_excess
from monitor.analysis.groups import is_rebalancing
from monitor.analysis.readable import Position
from monitor.analysis.retention import Retention, RetentionRisk, retention_risk
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from monitor.analysis.activity import Activity
    from monitor.analysis.groups import GroupFacts
    from monitor.analysis.lag import GroupLag
    from monitor.analysis.rates import TopicRates
    from monitor.analysis.readable import Readable
    from monitor.analysis.windows import CommitWindows
    from monitor.model import Group, PartitionOffsets, Snapshot

# A consumer that goes on and commits the last record + 1 leaves markers of the transactions since.
FEW_MARKERS: Final = 100


def positions(
    snapshot: Snapshot,
    group: Group,
    lag: GroupLag,
    *,
    ends: PartitionOffsets,
    before: PartitionOffsets,
    windows: CommitWindows,
) -> Iterator[Position]:
    """Yield where a group stands, on the partitions that answered and have records after that.

    `before` has its commits at the last poll. A share group's coordinator knows better what is
    unread than its start offsets.
    """
    stable = snapshot.stable_offsets.values
    for topic, commits in group.commits.items():
        if not (lag.topics.get(topic) or topic in stable) or topic not in ends:
            continue
        answered = ends[topic]
        starts = snapshot.start_offsets.values.get(topic, nothing())
        told = group.lags.get(topic, nothing())
        last = before.get(topic, nothing())
        readable_ends = stable.get(topic, nothing())
        for partition, committed in commits.items():
            end = answered.get(partition)
            if end is None or told.get(partition) == 0:
                continue
            start = starts.get(partition, 0)
            # a start past the end is that of a log that is no more
            offset = max(committed, start) if start <= end else committed
            if offset >= end:
                continue
            if readable_ends.get(partition, end) <= offset or partition in told:
                yield Position(topic, partition, offset, end, stands=False)
            elif last.get(partition, committed) == committed:
                yield Position(topic, partition, offset, end, stands=True)
            else:
                is_never_at_end = end - offset <= FEW_MARKERS and windows.was_never_read_up(
                    group.id, topic, partition
                )
                yield Position(topic, partition, offset, end, False, is_never_at_end)


def with_readable_ends(
    snapshot: Snapshot, found: Iterable[tuple[Position, Readable]]
) -> dict[str, dict[int, Readable]]:
    """Return topic -> partition -> what can be read, up to the last stable offset where known."""
    stable = snapshot.stable_offsets
    by_topic: dict[str, dict[int, Readable]] = {}
    for (topic, partition, offset, end, _, _), told in found:
        readable = told
        last = stable.get(topic, partition)
        if last is not None and last < end and not stable.is_silent(topic, partition):
            if offset >= last:
                held_at = last if offset == last else None
                readable = readable._replace(messages=0, first=None, held_at=held_at)
            elif readable.messages:
                readable = readable._replace(messages=last - offset)
        by_topic.setdefault(topic, {})[partition] = readable
    return by_topic


def unread_of(
    snapshot: Snapshot,
    group: Group,
    lag: GroupLag,
    found: Mapping[str, Mapping[int, Readable]],
) -> PartitionOffsets:
    """Return what can be read of each topic of which that is not all up to the log end."""
    stable, silent = snapshot.stable_offsets.values, snapshot.end_offsets.silent
    unread = {}
    for topic, lags in lag.partitions.items():
        if not (lag.topics[topic] or topic in stable):
            continue
        missed, told = silent.get(topic, nothing()), group.lags.get(topic, nothing())
        known = found.get(topic, nothing())
        readable = {}
        for partition, messages in lags.items():
            if partition in missed or partition in told:
                readable[partition] = messages
            else:
                of = known.get(partition)
                readable[partition] = 0 if of is None else min(of.messages, messages)
        if readable != lags or topic in stable:
            unread[topic] = readable
    return unread or nothing()


def largest(
    lag: GroupLag, seconds: Mapping[str, Mapping[int, float]], left_out: Collection[str]
) -> float | None:
    """Return the largest lag in seconds; None where a lag that is not known may be larger than 0."""
    found, is_known = 0.0, True
    topics = lag.partitions.keys() - left_out
    for topic in topics:
        times = seconds.get(topic)
        if times is None:
            continue  # nothing is unread
        found = max(found, max(times.values(), default=0.0))
        is_known = is_known and len(times) >= len(lag.partitions[topic])
    return found if found or (topics and is_known) else None


def topics_not_consumed(
    group: Group,
    facts: GroupFacts,
    changed_at: Mapping[str, float],
    recent: float,
    before: frozenset[str],
) -> frozenset[str]:
    """Return the topics with commits that a group no longer consumes.

    While it rebalances nobody knows: then those of the last poll, `before`.
    """
    if not facts.members:
        return frozenset()
    if (facts.state or "").lower() != "stable":
        return before & group.commits.keys() if is_rebalancing(facts.state) else frozenset()
    return not_consumed(group.commits, facts.held, changed_at, recent=recent)


def retention_risks(
    snapshot: Snapshot,
    group: Group,
    lag: GroupLag,
    *,
    record_ages: Mapping[str, Mapping[int, float]],
    log_bytes: PartitionOffsets,
    produced: Mapping[str, Mapping[int, float]],
) -> dict[str, dict[int, RetentionRisk]]:
    """Return the risk on each partition with lag whose log start and end are known."""
    found: dict[str, dict[int, RetentionRisk]] = {}
    for topic, unread in lag.topics.items():
        starts = snapshot.start_offsets.values.get(topic)
        commits = group.commits.get(topic)
        ends = snapshot.end_offsets.values.get(topic)
        if not unread or not (starts and commits and ends):
            continue
        retention = retention_of(snapshot, topic)
        sizes = log_bytes.get(topic, nothing())
        rates = produced.get(topic, nothing())
        ages = record_ages.get(topic, nothing())
        risks = {
            partition: retention_risk(
                commits[partition],
                starts[partition],
                ends[partition],
                record_age=ages.get(partition),
                retention=retention,
                log_bytes=sizes.get(partition),
                produced_per_second=rates.get(partition),
            )
            for partition, messages in lag.partitions[topic].items()
            if messages
            and partition in commits
            and partition in ends
            and starts.get(partition, ends[partition] + 1) <= ends[partition]
        }
        if risks:
            found[topic] = risks
    return found


def retention_of(snapshot: Snapshot, topic: str) -> Retention:
    """Return how long records of a topic are kept, as far as that is known."""
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


def imbalance_of(
    topic: str,
    lag: GroupLag,
    facts: GroupFacts,
    rates: TopicRates | None,
    *,
    produced: Collection[int],
    interval: float,
) -> dict[str, float]:
    """Return kind -> excess of what can be told; `produced` are messages by partition."""
    found: dict[str, float | None] = {}
    if facts.members and not is_rebalancing(facts.state) and topic in facts.per_topic:
        found["assignment"] = assignment_excess(facts.per_topic[topic])
    if facts.members or lag.topics.get(topic):
        found["production"] = production_excess(produced)
        lags = lag.readable(topic)
        if lags:
            consumed = (rates.consumed if rates else None) or 0.0
            found["lag"] = lag_excess(
                lags.values(), in_flight_per_partition=consumed * interval / len(lags)
            )
    return {kind: excess for kind, excess in found.items() if excess is not None}


def group_picture(
    group: Group,
    facts: GroupFacts,
    activity: Activity,
    topics: Collection[TopicPicture],
    *,
    rebalances_last_hour: int,
) -> GroupPicture:
    """Return what advice needs to know of a group beside its status."""
    return GroupPicture(
        group.id,
        members=facts.members,
        had_members=activity.by_members is not None,
        had_commits=activity.by_commits is not None,
        commits_move=activity.by_commits is True,
        idle=None if facts.idle is None else len(facts.idle),
        unassigned=None if facts.unassigned is None else len(facts.unassigned),
        rebalances_last_hour=rebalances_last_hour,
        topics=tuple(topics),
    )
