"""The rebalances of a group that can be told from one poll to the next.

Groups of the newer protocols tell their epoch, and each step of it counts. DescribeGroups tells no
generation: there a change of the members or of what they hold counts as one rebalance, and so does a
rebalancing state, once until it is stable again. What comes and goes between two polls is not seen,
so the count is a lower bound. A static member that restarts keeps its instance id and its partitions,
and does not rebalance the group.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from monitor.analysis.groups import is_rebalancing
from monitor.analysis.kept import KeptRebalances

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.model import Group, Member

KEPT_SECONDS: Final = 3600.0

Held = frozenset[tuple[str, str, tuple[int, ...]]]
"""(member, topic, partitions); a member that holds nothing has ("", ())."""

# one for all groups without members: most of a large cluster
_NOTHING_HELD: Final[Held] = frozenset()


def _held(members: Iterable[Member]) -> Held:
    return frozenset(
        (member.instance_id or member.id, topic, tuple(partitions))
        for member in members
        for topic, partitions in (member.assignment or {"": ()}).items()
    )


@dataclass(slots=True)
class Rebalances:
    """What was seen of one group.

    `count` is None until it was described once; `seen_at` has when some were seen within the last
    hour (monotonic seconds), and how many.
    """

    count: int | None = None
    epoch: int | None = None
    rebalancing: bool = False
    assignment: Held = _NOTHING_HELD
    seen_at: deque[tuple[float, int]] | None = None

    def observe(self, group: Group, now: float) -> None:
        """Take in the group as a poll saw it; of one that could not be described nothing is learned."""
        if group.members is None or group.is_silent:
            return
        rebalancing = is_rebalancing(group.state)
        assignment = _held(group.members) if group.members else _NOTHING_HELD
        steps = 0
        if self.count is None:
            self.count = 0
        elif group.epoch is not None and self.epoch is not None:
            steps = max(0, group.epoch - self.epoch)
        elif not self.rebalancing:  # else it was counted when it began
            steps = int(rebalancing or assignment != self.assignment)
        self.epoch, self.rebalancing, self.assignment = group.epoch, rebalancing, assignment
        if steps:
            self.count += steps
            self.seen_at = self.seen_at or deque()
            self.seen_at.append((now, steps))

    def export(self) -> KeptRebalances:
        """Return what a restart takes up."""
        return KeptRebalances(
            self.count, self.epoch, self.rebalancing, sorted(self.assignment),
            list(self.seen_at or ()),
        )  # fmt: skip

    @classmethod
    def restored(cls, kept: KeptRebalances, shift: float) -> Rebalances:
        """Return what was kept."""
        return cls(
            kept.count, kept.epoch, kept.rebalancing, frozenset(kept.assignment),
            deque((at + shift, steps) for at, steps in kept.seen_at) or None,
        )  # fmt: skip

    @property
    def last_at(self) -> float:
        """Return when the last was seen, minus infinity where none was within the last hour."""
        return self.seen_at[-1][0] if self.seen_at else -inf

    def within_an_hour(self, now: float) -> int:
        """Return how many were seen within the last hour, and forget the others."""
        kept = self.seen_at
        while kept and now - kept[0][0] > KEPT_SECONDS:
            kept.popleft()
        self.seen_at = kept or None
        return sum(steps for _, steps in kept or ())
