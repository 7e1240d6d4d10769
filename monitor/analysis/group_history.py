"""What is remembered of one group from one poll to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from monitor.analysis.activity import GroupActivity
from monitor.analysis.kept import KeptGroup
from monitor.analysis.losses import Losses
from monitor.analysis.rebalances import Rebalances
from monitor.analysis.windows import CommitWindows

if TYPE_CHECKING:
    from monitor.analysis.measures import GroupMeasures
    from monitor.analysis.status import StatusRules
    from monitor.model import PartitionOffsets


@dataclass(slots=True)
class GroupHistory:
    """What is remembered of a group from one poll to the next.

    `changed_in` is the number of the last poll in which anything was new about it, or about a topic
    that it reads; `due_at` is when time alone changes what is said of it (monotonic seconds).
    """

    commits: CommitWindows
    activity: GroupActivity = field(default_factory=GroupActivity)
    losses: Losses = field(default_factory=Losses)
    rebalances: Rebalances = field(default_factory=Rebalances)
    measures: GroupMeasures | None = None
    not_consumed: frozenset[str] = frozenset()
    changed_in: int = 0
    due_at: float = -inf

    @classmethod
    def begin(cls, rules: StatusRules) -> GroupHistory:
        """Return the history of a group of which nothing is known yet."""
        return cls(CommitWindows(window=rules.intervals))

    def observe_commits(
        self, commits: PartitionOffsets, ends: PartitionOffsets, now: float, poll: int
    ) -> None:
        """Take in what a poll saw to be committed, and the log ends of that poll."""
        for topic in self.activity.leaves_old_log(commits):
            self.commits.forget(topic)
        self.commits.observe(commits, ends, now, poll)

    def export(self) -> KeptGroup:
        """Return what a restart takes up."""
        self.losses.is_kept = True
        return KeptGroup(
            self.commits.export(), self.activity.export(), self.losses.export(),
            self.rebalances.export(), sorted(self.not_consumed),
        )  # fmt: skip

    @classmethod
    def restored(
        cls, kept: KeptGroup, rules: StatusRules, shift: float, away_until: float | None
    ) -> GroupHistory:
        """Return what was kept, see `GroupActivity.restored`; raises ValueError where it can't be."""
        commits = CommitWindows(window=rules.intervals)
        commits.restore(kept.commits, shift)
        return cls(
            commits,
            GroupActivity.restored(kept.activity, commits.last(), shift, away_until),
            Losses.restored(kept.losses, commits.last(), shift),
            Rebalances.restored(kept.rebalances, shift),
            not_consumed=frozenset(kept.not_consumed),
        )

    def replace_topic(self, topic: str) -> None:
        """Note that a topic was deleted, or created anew under its name."""
        self.losses.forget(topic)
        self.activity.replace_topic(topic)
