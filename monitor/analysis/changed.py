"""Which topics and groups anything was seen to happen to, from one poll to the next.

The collector keeps the objects of what it was told twice, so most of this is told by identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.model import Group, PartitionOffsets, Snapshot, Topic


class Changes:
    """What is new in a poll: ids of `groups`, names of `topics`, and those whose log ends `moved`.

    `bytes` are the sizes of the leaders' logs, topic -> partition -> bytes.
    """

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.topics: set[str] = set()
        self.moved: set[str] = set()
        self.bytes: PartitionOffsets = nothing()
        self.last_ends: PartitionOffsets = nothing()
        self._last: Snapshot | None = None
        self._kept: dict[str, Group] = {}

    def observe(self, snapshot: Snapshot, ends: PartitionOffsets) -> None:
        """Compare a poll with the one before; `ends` are the log ends that were told in it."""
        last, self._last = self._last, snapshot
        before, self.last_ends = self.last_ends, ends
        kept: dict[str, Group] = {}
        self.groups = set()
        for name, group in snapshot.groups.items():
            known = self._kept.get(name)
            if known is None or (known is not group and known != group):
                self.groups.add(name)
                known = group
            kept[name] = known
        self._kept = kept
        self.moved = differing(ends, before)
        if last is None:
            self.bytes = snapshot.log_bytes if snapshot.log_sizes else nothing()
            self.topics = {*snapshot.topics, *ends}
            return
        self.topics = self.moved.copy()
        if snapshot.log_sizes is not last.log_sizes or snapshot.topics is not last.topics:
            old, self.bytes = self.bytes, snapshot.log_bytes if snapshot.log_sizes else nothing()
            self.topics |= differing(self.bytes, old)
        if snapshot.topics is not last.topics:
            self.topics |= differing(_identities(snapshot.topics), _identities(last.topics))
        self.topics |= differing(snapshot.topic_configs, last.topic_configs)
        for now, earlier in (
            (snapshot.start_offsets, last.start_offsets),
            (snapshot.end_offsets, last.end_offsets),
            (snapshot.stable_offsets, last.stable_offsets),
        ):
            if now is not earlier:
                self.topics |= differing(now.values, earlier.values)
                self.topics |= differing(now.silent, earlier.silent)

    def group(self, name: str) -> Group:
        """Return a group, the same object for as long as the same is told of it."""
        return self._kept[name]


def differing(values: Mapping[str, Any], last: Mapping[str, Any]) -> set[str]:
    """Return the names of which something else is said now."""
    if values is last:
        return set()
    changed = values.keys() ^ last.keys()
    for name, value in values.items():
        before = last.get(name)
        if before is not value and before != value:
            changed.add(name)
    return changed


def _identities(topics: Mapping[str, Topic]) -> Mapping[str, object]:
    """Return what makes a topic another one, or another number of partitions."""
    return {name: (topic.id, topic.partitions.keys()) for name, topic in topics.items()}
