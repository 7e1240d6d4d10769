"""What the status page shows of a state: the groups and partitions with the most lag first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from monitor.state import State

# More rows than this nobody reads, and a browser gets slow.
MAX_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group's line: `lag` is None when no part of it is known."""

    id: str
    type: str
    state: str
    members: int | None
    lag: int | None
    note: str


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition's line within a group."""

    group: str
    topic: str
    partition: int
    committed: int
    end: int | None
    lag: int | None
    note: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows."""

    cluster: str
    seen: str
    brokers: int
    brokers_down: dict[str, str]
    topics: int
    partitions: int
    group_count: int
    groups: list[GroupRow]
    row_count: int
    rows: list[PartitionRow]


Row = TypeVar("Row", GroupRow, PartitionRow)


def overview(state: State) -> Overview:
    """Select and sort what the page shows."""
    snapshot = state.snapshot
    if snapshot is None:
        return Overview(state.cluster, "never", 0, {}, 0, 0, 0, [], 0, [])
    rows = list(_partition_rows(state))
    groups = [
        GroupRow(
            id=group.id,
            type=group.type,
            state=group.state or "unknown",
            members=None if group.members is None else len(group.members),
            lag=state.lag[group.id].total if state.lag[group.id].partitions else None,
            note="; ".join(filter(None, ("stale" if group.stale else "", group.error))),
        )
        for group in snapshot.groups.values()
    ]
    return Overview(
        cluster=state.cluster,
        seen=datetime.fromtimestamp(snapshot.taken_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        brokers=len(snapshot.brokers),
        brokers_down={
            snapshot.brokers[broker].address: cause
            for broker, cause in snapshot.broker_errors.items()
            if broker in snapshot.brokers
        },
        topics=len(snapshot.topics),
        partitions=sum(len(topic.partitions) for topic in snapshot.topics.values()),
        group_count=len(groups),
        groups=_worst(groups),
        row_count=len(rows),
        rows=_worst(rows),
    )


def _worst(rows: list[Row]) -> list[Row]:
    return heapq.nlargest(MAX_ROWS, rows, key=lambda row: -1 if row.lag is None else row.lag)


def _partition_rows(state: State) -> Iterator[PartitionRow]:
    snapshot = state.snapshot
    if snapshot is None:
        return
    ends = snapshot.end_offsets
    for group in snapshot.groups.values():
        lag = state.lag[group.id]
        for topic, commits in group.commits.items():
            past_end = lag.past_end.get(topic, ())
            for partition, committed in commits.items():
                notes = (
                    "past the log end" if partition in past_end else "",
                    "stale" if group.stale or ends.is_stale(topic, partition) else "",
                )
                yield PartitionRow(
                    group.id,
                    topic,
                    partition,
                    committed,
                    ends.get(topic, partition),
                    lag.get(topic, partition),
                    ", ".join(filter(None, notes)),
                )
