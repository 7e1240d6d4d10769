"""What the status page shows of a state: the groups that need somebody first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.answers.clusters import NOT_IN_METADATA
from monitor.model import Group, Snapshot
from monitor.ranking import status_word, urgency
from monitor.state import State
from monitor.words import duration, with_remedy

# More rows than these nobody reads without the page's scripts, which search and sort all.
MAX_GROUPS: Final = 100


@dataclass(frozen=True, slots=True)
class Todo:
    """One piece of advice; `level` is info, warning or critical."""

    level: str
    finding: str
    action: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group; `lag` is None when no part of it is known."""

    id: str
    type: str
    state: str
    status: str | None
    members: int | None
    lag: int | None
    behind: str
    note: str
    advice: list[Todo]


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
    now, behind = snapshot.monotonic_at, measures.behind(snapshot.seen_at)
    return GroupRow(
        id=group.id,
        type=group.type,
        state=group.state or "unknown",
        status=status_word(measures),
        members=None if group.members is None else len(group.members),
        lag=measures.lag.total if measures.lag.partitions else None,
        behind="" if behind is None else duration(behind),
        note="; ".join(
            filter(None, ("stale" if group.is_silent else "", with_remedy(group.error)))
        ),
        advice=[Todo(a.severity.name.lower(), a.finding(now), a.action) for a in measures.advice],
    )
