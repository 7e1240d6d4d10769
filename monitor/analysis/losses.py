"""Messages that were deleted before they were read, counted once and for good.

A counter, as the loss itself passes from sight: a consumer that goes on at the log start, or an
operator who resets it, leaves nothing that would tell of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Losses:
    """Counts lost messages by group, topic and partition, from the first look on.

    What was lost before the first look is in the counter from the start: nobody can tell when it was.
    """

    def __init__(self) -> None:
        # partition -> [messages lost, offset below which all losses are counted]
        self._groups: dict[str, dict[str, dict[int, list[int]]]] = {}

    def see(self, group: str, topic: str, partition: int, committed: int, log_start: int) -> None:
        """Take in one partition with unread messages."""
        partitions = self._groups.setdefault(group, {}).setdefault(topic, {})
        known = partitions.get(partition)
        if known is None:
            known = partitions[partition] = [0, 0]
        first_uncounted = max(committed, known[1])
        if log_start > first_uncounted:
            known[0] += log_start - first_uncounted
            known[1] = log_start

    def retain(self, groups: Collection[str]) -> None:
        """Forget the groups that exist no more."""
        for group in self._groups.keys() - groups:
            del self._groups[group]

    def forget(self, topic: str) -> None:
        """Start a topic anew that was deleted, or re-created under its name."""
        for topics in self._groups.values():
            topics.pop(topic, None)

    def of(self, group: str) -> Mapping[str, Mapping[int, int]]:
        """Return topic -> partition -> messages lost, of every partition that ever had lag."""
        topics = self._groups.get(group)
        if not topics:
            return nothing()
        return {
            topic: {partition: known[0] for partition, known in partitions.items()}
            for topic, partitions in topics.items()
        }
