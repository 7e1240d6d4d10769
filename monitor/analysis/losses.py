"""Messages that were deleted before they were read, counted once and for good.

A counter, as the loss itself passes from sight: a consumer that goes on at the log start, or an
operator who resets it, leaves nothing that would tell of it. It starts at 0 with the first look:
when older losses were, nobody can tell, and a restart of the monitor must not announce them again.
How far a group stands before the log start *now* is a gauge (`unread_deleted`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.analysis.kept import KeptLosses, by_topic
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.model import PartitionOffsets


class Counted(NamedTuple):
    """The log starts up to which losses are counted, and what was committed when they were told.

    The very mappings that the poll brought: groups of a topic share them.
    """

    starts: Mapping[int, int]
    commits: Mapping[int, int]


_NEVER: Final = Counted(nothing(), nothing())


@dataclass(slots=True)
class Losses:
    """Counts the messages that a group lost, by topic, from the first look on.

    `counted` says up to where. `lost` has the topics on which any were; `lost_at` is when a standing
    loss was seen, or grew, in monotonic seconds.
    """

    counted: dict[str, Counted] = field(default_factory=dict)
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
        for topic, committed in commits.items():
            found = starts.get(topic)
            is_first = topic not in self.counted
            before, then = self.counted.get(topic, _NEVER)
            if not found:
                if then:
                    self.counted[topic] = Counted(before, _furthest(then, committed))
                continue
            if found is before or found == before:
                self.counted[topic] = Counted(found, committed)
                continue
            self.is_kept = False
            known = {p: s for p, s in found.items() if s <= ends.get(topic, nothing()).get(p, s)}
            lost = _lost(committed, then, before, known)
            if lost:
                self.lost = {**self.lost, topic: self.lost.get(topic, 0) + lost}
            stands_before = is_first and any(
                committed.get(partition, start) < start for partition, start in known.items()
            )
            if lost or stands_before:
                self.lost_at = {**self.lost_at, topic: now}
            # of a start that was not told, losses count from where they did; one past its end is an
            # older log's, and nothing is known of this one
            kept = {p: s for p, s in before.items() if p not in found}
            counted = found if len(known) == len(found) and not kept else {**kept, **known}
            if kept:
                told = {p: offset for p, offset in committed.items() if p not in kept}
                untold = _furthest({p: then[p] for p in kept if p in then}, committed)
                self.counted[topic] = Counted(counted, {**told, **untold})
            else:
                self.counted[topic] = Counted(counted, committed)
        for topic in self.counted.keys() - commits.keys():
            del self.counted[topic]

    def export(self) -> KeptLosses:
        """Return what a restart takes up."""
        starts = {topic: counted.starts for topic, counted in self.counted.items()}
        return KeptLosses(by_topic(starts), dict(self.lost), dict(self.lost_at))

    @classmethod
    def restored(cls, kept: KeptLosses, committed: PartitionOffsets, shift: float) -> Losses:
        """Return what was kept, of a group that had committed this."""
        lost_at = {topic: at + shift for topic, at in kept.lost_at.items()}
        counted = {
            topic: Counted(starts, committed.get(topic, nothing()))
            for topic, starts in kept.counted_to.items()
        }
        return cls(counted, kept.lost, lost_at)

    def forget(self, topic: str) -> None:
        """Start a topic anew that was deleted or re-created; what was counted stays counted."""
        self.counted.pop(topic, None)
        if topic in self.lost_at:
            self.lost_at = {t: at for t, at in self.lost_at.items() if t != topic}


def _furthest(then: Mapping[int, int], committed: Mapping[int, int]) -> Mapping[int, int]:
    """Return up to where all was read since starts were told: what is read stays so after a rewind."""
    if all(committed.get(p, offset) <= offset for p, offset in then.items()):
        return then
    return {p: max(offset, committed.get(p, offset)) for p, offset in then.items()}


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
