"""Messages that were deleted before they were read, counted once and for good.

A counter, as the loss itself passes from sight: a consumer that goes on at the log start, or an
operator who resets it, leaves nothing that would tell of it. It starts at 0 with the first look:
when older losses were, nobody can tell, and a restart of the monitor must not announce them again.
How far a group stands before the log start *now* is a gauge (`unread_deleted`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monitor.analysis.kept import KeptLosses, by_topic
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.model import PartitionOffsets


@dataclass(slots=True)
class Losses:
    """Counts the messages that a group lost, by topic, from the first look on.

    `counted_to` has the log starts up to which losses are counted, and `committed` what the group had
    committed when they were told: the very mappings that the poll brought, as groups of a topic share
    them. `lost` has the topics on which any were; `lost_at` is when a standing loss was seen, or grew,
    in monotonic seconds.
    """

    counted_to: dict[str, Mapping[int, int]] = field(default_factory=dict)
    committed: dict[str, Mapping[int, int]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=nothing)
    lost_at: Mapping[str, float] = field(default_factory=nothing)
    is_kept: bool = False  # as it is now

    def observe(
        self,
        commits: PartitionOffsets,
        starts: PartitionOffsets,
        ends: PartitionOffsets,
        now: float,
    ) -> None:
        """Take in the commits and the log starts, as one poll saw them."""
        counted = self.counted_to
        for topic, committed in commits.items():
            found = starts.get(topic)
            before = counted.get(topic)
            if not found:
                continue
            if found is before or found == before:
                counted[topic], self.committed[topic] = found, committed
                continue
            self.is_kept = False
            known = {p: s for p, s in found.items() if s <= ends.get(topic, nothing()).get(p, s)}
            then = self.committed.get(topic, nothing())
            lost = _lost(committed, then, before or nothing(), known)
            if lost:
                self.lost = {**self.lost, topic: self.lost.get(topic, 0) + lost}
            stands_before = before is None and any(
                committed.get(partition, start) < start for partition, start in known.items()
            )
            if lost or stands_before:
                self.lost_at = {**self.lost_at, topic: now}
            # of a start that was not told, losses count from where they did; one past its end is an
            # older log's, and nothing is known of this one
            kept = {p: s for p, s in (before or nothing()).items() if p not in found}
            counted[topic] = found if len(known) == len(found) and not kept else {**kept, **known}
            self.committed[topic] = committed
            if kept:
                told = {p: offset for p, offset in committed.items() if p not in kept}
                untold = {p: offset for p, offset in then.items() if p in kept}
                self.committed[topic] = {**told, **untold}
        for topic in counted.keys() - commits.keys():
            del counted[topic], self.committed[topic]

    def export(self) -> KeptLosses:
        """Return what a restart takes up."""
        return KeptLosses(by_topic(self.counted_to), dict(self.lost), dict(self.lost_at))

    @classmethod
    def restored(cls, kept: KeptLosses, committed: PartitionOffsets, shift: float) -> Losses:
        """Return what was kept, of a group that had committed this."""
        lost_at = {topic: at + shift for topic, at in kept.lost_at.items()}
        then = {topic: committed.get(topic, nothing()) for topic in kept.counted_to}
        return cls(dict(kept.counted_to), then, kept.lost, lost_at)

    def forget(self, topic: str) -> None:
        """Start a topic anew that was deleted or re-created; what was counted stays counted."""
        self.counted_to.pop(topic, None)
        self.committed.pop(topic, None)
        if topic in self.lost_at:
            self.lost_at = {t: at for t, at in self.lost_at.items() if t != topic}


def _lost(
    committed: Mapping[int, int],
    then: Mapping[int, int],
    before: Mapping[int, int],
    starts: Mapping[int, int],
) -> int:
    """Return what was deleted unread since losses were counted up to the starts before.

    Nothing at a first look at a partition, nor where the start moved back: that log is another one.
    A start may have moved at any time since the one before it was told: a first commit, or a rewind,
    that came meanwhile may have come after it, and then what it asks for was not deleted unread.
    """
    return sum(
        max(0, start - max(committed[partition], then[partition], before[partition]))
        for partition, start in starts.items()
        if partition in committed and partition in then and partition in before
    )


def unread_deleted(
    commits: Mapping[int, int], starts: Mapping[int, int], ends: Mapping[int, int]
) -> int | None:
    """Return how many messages before the log starts a group had not read, None if not known.

    A start past its end is an older log's: it says nothing.
    """
    known = [
        max(0, start - commits[partition])
        for partition, start in starts.items()
        if partition in commits and partition in ends and start <= ends[partition]
    ]
    return sum(known) if known else None
