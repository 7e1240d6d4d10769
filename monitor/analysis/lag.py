"""Lag in messages: log end offset minus committed offset, per partition, topic and group.

A partition without a commit, or without an end offset that was seen, has no lag: it is absent.
A commit past the log end (a topic created anew, or truncated) is lag 0 and named as such. What of
the lag a consumer can read is told apart (`readable`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from monitor.model import Group, PartitionOffsets, Snapshot, nothing


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One group's lag in messages.

    `partitions` has topic -> partition -> lag, `topics` the sum per topic, `total` the sum over
    all; `past_end` has by how much commits are past the log end: topic -> partition -> messages.
    `unread` has what of the lag can be read, of the topics of which that is not the whole lag.
    """

    partitions: PartitionOffsets = field(default_factory=dict)
    topics: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    past_end: PartitionOffsets = field(default_factory=nothing)
    unread: PartitionOffsets = field(default_factory=nothing)

    def get(self, topic: str, partition: int) -> int | None:
        """Return a partition's lag, None when it is not known."""
        return self.partitions.get(topic, {}).get(partition)

    def readable(self, topic: str) -> Mapping[int, int]:
        """Return partition -> messages that a consumer can read and the group has not."""
        found = self.unread.get(topic)
        return self.partitions.get(topic, nothing()) if found is None else found

    def readable_sum(self, topic: str) -> int:
        """Return how many messages of a topic can be read and were not."""
        found = self.unread.get(topic)
        return self.topics.get(topic, 0) if found is None else sum(found.values())

    @property
    def readable_total(self) -> int:
        """Return how many messages can be read and were not."""
        if not self.unread:
            return self.total
        return sum(map(self.readable_sum, self.topics))


def lag_of_group(
    group: Group, snapshot: Snapshot, caught_up: dict[str, dict[int, int]] | None = None
) -> GroupLag:
    """Return one group's lag.

    Up to the last stable offset where the snapshot has it: there read_committed consumers stop. A
    lag that the group's coordinator told (share groups) goes before ours. `caught_up` keeps a
    topic's lags of all zeros, which most groups of a large cluster can share.
    """
    ends, stale = snapshot.end_offsets.values, snapshot.end_offsets.silent
    readable = snapshot.stable_offsets.values
    partitions: dict[str, Mapping[int, int]] = {}
    past_end: dict[str, Mapping[int, int]] = {}
    for topic, commits in group.commits.items():
        topic_ends = ends.get(topic)
        if topic_ends is None:
            continue
        if caught_up is not None and commits and commits == topic_ends:
            zeros = caught_up.get(topic)
            if zeros is None:
                zeros = caught_up[topic] = dict.fromkeys(commits, 0)
            partitions[topic] = zeros
            continue
        lags = {
            index: topic_ends[index] - committed
            for index, committed in commits.items()
            if index in topic_ends
        }
        if lags and min(lags.values()) < 0 and (past := _take_past_end(lags, stale.get(topic, ()))):
            past_end[topic] = past
        for index, offset in readable.get(topic, {}).items():
            if index in lags:
                lags[index] = max(0, offset - commits[index])
        if lags:
            partitions[topic] = lags
    for topic, told in group.lags.items():
        partitions[topic] = {**partitions.get(topic, {}), **told}
    topics = {topic: sum(lags.values()) for topic, lags in partitions.items()}
    return GroupLag(partitions, topics, sum(topics.values()), past_end or nothing())


def _take_past_end(lags: dict[int, int], stale: Collection[int]) -> dict[int, int]:
    """Make negative lags 0 and return them, by partition, as messages past the end.

    Past an old log end is where a consumer that goes on is to be: there the lag is not known.
    """
    past = {}
    for index in sorted(index for index, lag in lags.items() if lag < 0):
        if index in stale:
            del lags[index]
        else:
            past[index] = -lags[index]
            lags[index] = 0
    return past
