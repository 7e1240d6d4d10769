"""Lag in messages: log end offset minus committed offset, per partition, topic and group.

A partition without a commit, or without an end offset that was seen, has no lag: it is absent.
A commit past the log end (a topic created anew, or truncated) is lag 0 and named as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.model import Group, PartitionOffsets, Snapshot


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One group's lag in messages.

    `partitions` has topic -> partition -> lag, `topics` the sum per topic, `total` the sum over
    all; `past_end` has the partitions whose commit is past the log end, by topic.
    """

    partitions: PartitionOffsets = field(default_factory=dict)
    topics: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    past_end: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def get(self, topic: str, partition: int) -> int | None:
        """Return a partition's lag, None when it is not known."""
        return self.partitions.get(topic, {}).get(partition)


def lag_of_groups(snapshot: Snapshot) -> dict[str, GroupLag]:
    """Return each group's lag, by group id."""
    ends = snapshot.end_offsets.values
    return {group_id: lag_of_group(group, ends) for group_id, group in snapshot.groups.items()}


def lag_of_group(group: Group, ends: PartitionOffsets) -> GroupLag:
    """Return one group's lag against these log end offsets."""
    partitions: dict[str, dict[int, int]] = {}
    past_end: dict[str, tuple[int, ...]] = {}
    for topic, commits in group.commits.items():
        topic_ends = ends.get(topic)
        if topic_ends is None:
            continue
        lags = {
            index: topic_ends[index] - committed
            for index, committed in commits.items()
            if index in topic_ends
        }
        if not lags:
            continue
        if min(lags.values()) < 0:
            past_end[topic] = tuple(sorted(index for index, lag in lags.items() if lag < 0))
            lags.update(dict.fromkeys(past_end[topic], 0))
        partitions[topic] = lags
    topics = {topic: sum(lags.values()) for topic, lags in partitions.items()}
    return GroupLag(partitions, topics, sum(topics.values()), past_end)
