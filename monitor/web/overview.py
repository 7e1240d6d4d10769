"""What the status page shows of a state: the groups that need somebody first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from monitor.analysis.measures import GroupMeasures, age
from monitor.analysis.rates import NEVER
from monitor.answers.clusters import NOT_IN_METADATA
from monitor.model import Group, Snapshot
from monitor.ranking import status_word, urgency
from monitor.state import State
from monitor.words import duration, with_remedy

# More rows than these nobody reads, and a browser gets slow.
MAX_GROUPS: Final = 100
MAX_PARTITIONS: Final = 24

# A shape beside each colour, for those who can't tell the colours apart.
_SHAPES: Final = {"OK": "✓", "WARN": "▲", "ERR": "✖"}


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition's line within a group."""

    topic: str
    partition: int
    committed: int
    end: int | None
    lag: int | None
    behind: str
    note: str


@dataclass(frozen=True, slots=True)
class TopicRow:
    """What a group does on a topic, in words; empty for what is not known."""

    topic: str
    lag: int | None
    behind: str
    rates: str
    catch_up: str
    balance: str
    retention: str


@dataclass(frozen=True, slots=True)
class Todo:
    """One piece of advice; `level` is info, warning or critical."""

    level: str
    finding: str
    action: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group and what can be unfolded of it; `lag` is None when no part of it is known."""

    id: str
    type: str
    state: str
    status: str
    shape: str
    members: int | None
    lag: int | None
    behind: str
    note: str
    advice: list[Todo]
    topics: list[TopicRow]
    partition_count: int
    partitions: list[PartitionRow]


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows."""

    cluster: str
    seen: str
    brokers: int = 0
    brokers_down: tuple[tuple[str, str], ...] = ()
    errors: tuple[str, ...] = ()
    topics: int = 0
    partitions: int = 0
    group_count: int = 0
    groups: tuple[GroupRow, ...] = ()


def overview(state: State) -> Overview:
    """Select and sort what the page shows."""
    snapshot = state.snapshot
    if snapshot is None:
        return Overview(state.cluster, "never")
    worst = heapq.nlargest(MAX_GROUPS, state.groups, key=lambda g: urgency(state.groups[g]))
    return Overview(
        cluster=state.cluster,
        seen=datetime.fromtimestamp(snapshot.taken_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        brokers=len(snapshot.brokers),
        brokers_down=(
            *(
                (snapshot.brokers[broker].address, cause)
                for broker, cause in snapshot.broker_errors.items()
                if broker in snapshot.brokers
            ),
            *((str(broker), NOT_IN_METADATA) for broker in sorted(snapshot.missing_brokers)),
        ),
        errors=snapshot.errors,
        topics=len(snapshot.topics),
        partitions=sum(len(topic.partitions) for topic in snapshot.topics.values()),
        group_count=len(snapshot.groups),
        groups=tuple(
            _group_row(snapshot, snapshot.groups[group], state.groups[group]) for group in worst
        ),
    )


def _group_row(snapshot: Snapshot, group: Group, measures: GroupMeasures) -> GroupRow:
    status = status_word(measures) or "-"
    lagging = heapq.nlargest(MAX_PARTITIONS, _by_lag(group, measures))
    now, behind = snapshot.monotonic_at, measures.behind(snapshot.seen_at)
    return GroupRow(
        id=group.id or "(empty id)",
        type=group.type,
        state=group.state or "unknown",
        status=status,
        shape=_SHAPES.get(status, "○"),
        members=None if group.members is None else len(group.members),
        lag=measures.lag.total if measures.lag.partitions else None,
        behind="" if behind is None else duration(behind),
        note="; ".join(
            filter(None, ("stale" if group.is_silent else "", with_remedy(group.error)))
        ),
        advice=[Todo(a.severity.name.lower(), a.finding(now), a.action) for a in measures.advice],
        topics=[_topic_row(topic, measures, snapshot) for topic in sorted(group.commits)],
        partition_count=sum(map(len, group.commits.values())),
        partitions=list(_partition_rows(snapshot, group, measures, lagging)),
    )


def _topic_row(topic: str, measures: GroupMeasures, snapshot: Snapshot) -> TopicRow:
    rates = measures.rates.get(topic)
    seconds = measures.behind_by_partition(topic, snapshot.seen_at).values()
    deleted_at = [
        risk.deleted_at
        for risk in measures.retention.get(topic, {}).values()
        if risk.deleted_at is not None
    ]
    lost = measures.lost.get(topic, 0)
    told = ""
    if rates is not None and rates.produced is not None and rates.consumed is not None:
        told = f"{rates.produced:,.1f} in, {rates.consumed:,.1f} out"
    catch_up = rates.catch_up if rates is not None else None
    imbalance = measures.imbalance.get(topic, {})
    retention = []
    if deleted_at:
        retention.append(f"{duration(age(snapshot.monotonic_at, min(deleted_at)))} left")
    if lost:
        retention.append(f"{lost:,} lost")
    return TopicRow(
        topic=topic,
        lag=measures.lag.topics.get(topic),
        behind=duration(max(seconds)) if seconds else "",
        rates=told,
        catch_up="" if catch_up is None else NEVER if catch_up == NEVER else duration(catch_up),
        balance=", ".join(f"{kind} +{excess:.0%}" for kind, excess in imbalance.items()),
        retention=", ".join(retention),
    )


def _by_lag(group: Group, measures: GroupMeasures) -> Iterator[tuple[int, str, int]]:
    """Yield (lag, topic, partition) of all partitions: rows are made of a few of them."""
    for topic, commits in group.commits.items():
        lags = measures.lag.partitions.get(topic, {})
        for partition in commits:
            yield lags.get(partition, -1), topic, partition


def _partition_rows(
    snapshot: Snapshot,
    group: Group,
    measures: GroupMeasures,
    wanted: Iterable[tuple[int, str, int]],
) -> Iterator[PartitionRow]:
    ends, lag = snapshot.end_offsets, measures.lag
    bad = {(p.topic, p.partition): p.status.name for p in measures.status.partitions}
    for _, topic, partition in wanted:
        seconds = measures.behind_by_partition(topic, snapshot.seen_at)
        notes = (
            bad.get((topic, partition), ""),
            "past the log end" if partition in lag.past_end.get(topic, ()) else "",
            "stale" if group.is_silent or ends.is_silent(topic, partition) else "",
            with_remedy(ends.refused.get(topic, {}).get(partition)),
        )
        yield PartitionRow(
            topic,
            partition,
            group.commits[topic][partition],
            ends.get(topic, partition),
            lag.get(topic, partition),
            duration(seconds[partition]) if partition in seconds else "",
            ", ".join(filter(None, notes)),
        )
