"""What a poll found that is of no single group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.analysis.causes.course import Course
    from monitor.analysis.open_transactions import OpenTransaction
    from monitor.guard import Failure
    from monitor.model import PartitionOffsets


@dataclass(frozen=True, slots=True)
class Findings:
    """What a poll found beside the measures of groups.

    `open_transactions` (topic -> partition) hold readers back; `failures` has the steps that failed,
    with the group, topic or partition on which they did, and why. Measures of before
    `resting_since` (monotonic seconds) have been the same for some polls. `courses` has what was
    seen of each group over the last hour, by its id.
    """

    open_transactions: Mapping[str, Mapping[int, OpenTransaction]] = field(default_factory=nothing)
    failures: Mapping[Failure, str] = field(default_factory=nothing)
    resting_since: float = -inf
    courses: Mapping[str, Course] = field(default_factory=nothing)

    def within(self, ends: PartitionOffsets) -> Findings:
        """Return what was found of partitions of which the log end is known."""
        held = {
            topic: {p: each for p, each in of.items() if p in ends.get(topic, ())}
            for topic, of in self.open_transactions.items()
        }
        return replace(self, open_transactions={topic: of for topic, of in held.items() if of})
