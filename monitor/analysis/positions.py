"""Where groups stand in the logs, and what of their lag they can read there: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monitor.analysis.readable import Position
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.analysis.lag import GroupLag
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
) -> list[Position]:
    """Return where a group stands, on the partitions that answered and have records after that.

    `before` has its commits at the last poll. A share group's coordinator knows better what is
    unread than its start offsets.
    """
    stable = snapshot.stable_offsets.values
    found: list[Position] = []
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
                found.append(Position(topic, partition, offset, end, stands=False))
            elif last.get(partition, committed) == committed:
                found.append(Position(topic, partition, offset, end, stands=True))
            else:
                is_never_at_end = end - offset <= FEW_MARKERS and windows.was_never_read_up(
                    topic, partition
                )
                found.append(Position(topic, partition, offset, end, False, is_never_at_end))
    return found


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
