"""What a poll found of each group: facts and moments, never ages.

A measure says *when*; seconds are made where text is made, by `age`. So a group to which nothing
happens has the same measures at each poll, the same object, and that identity is the one key by which
anything made of them is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final

from monitor.analysis.status import NOT_FOUND, GroupStatus
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.analysis.activity import Activity
    from monitor.analysis.advice import Advice
    from monitor.analysis.groups import GroupFacts
    from monitor.analysis.lag import GroupLag
    from monitor.analysis.rates import TopicRates
    from monitor.analysis.retention import RetentionRisk
    from monitor.model import Group

NOTHING_UNREAD: Final = inf
"""When the oldest unread record was appended where there is none: its age is 0."""


def age(moment: float, now: float) -> float:
    """Return the seconds since a moment, 0 for one that has not come; all seconds are made here."""
    return max(0.0, now - moment)


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """All that is known of a group after a poll; what is not known is absent or None.

    Moments are seconds of the monotonic clock. `group` is what the rest was made from.
    `oldest_unread_at` (topic -> partition -> when its oldest unread record was appended) has only
    topics with unread messages: on the others nothing is unread. `behind_since` is the earliest that
    is known, of topics that are consumed. `changed_at` is when a commit on the topic last changed or
    was first seen, `committed_at` the same by partition, of topics on which one was seen to change.
    `rates` has the topics that were looked at closely, `imbalance` (topic -> kind -> excess) those
    with members or lag, `retention` (topic -> partition) the partitions with lag.

    By topic: `lost` counts the messages deleted unread since the monitor's start, `unread_deleted`
    those before the log starts now, `stuck` and `uncommitted` partitions. `not_consumed` are topics
    with commits that its members no longer read.

    `measured_at` is when they became as they are: as long as they are the same, it is the same object.
    """

    group: Group
    lag: GroupLag
    facts: GroupFacts
    status: GroupStatus = NOT_FOUND
    oldest_unread_at: Mapping[str, Mapping[int, float]] = field(default_factory=nothing)
    behind_since: float | None = None
    changed_at: Mapping[str, float] = field(default_factory=nothing)
    committed_at: Mapping[str, Mapping[int, float]] = field(default_factory=nothing)
    rates: Mapping[str, TopicRates] = field(default_factory=nothing)
    imbalance: Mapping[str, Mapping[str, float]] = field(default_factory=nothing)
    retention: Mapping[str, Mapping[int, RetentionRisk]] = field(default_factory=nothing)
    lost: Mapping[str, int] = field(default_factory=nothing)
    unread_deleted: Mapping[str, int] = field(default_factory=nothing)
    activity: Activity | None = None
    stuck: Mapping[str, int] = field(default_factory=nothing)
    uncommitted: Mapping[str, int] = field(default_factory=nothing)
    not_consumed: frozenset[str] = frozenset()
    rebalances: int | None = None
    advice: tuple[Advice, ...] = ()
    measured_at: float = field(default=0.0, compare=False)

    def sharing(self, last: GroupMeasures) -> GroupMeasures:
        """Return the same with each part that is as it was as the object that it was."""
        parts = {
            name: before
            for name in self.__slots__
            if (before := getattr(last, name)) == getattr(self, name)
        }
        return replace(self, **parts)

    def as_of(self, now: float) -> float:
        """Return the moment of which ages are told: of a silent group that when it last answered."""
        since = self.group.silent_since
        return now if since is None else min(now, since)

    def behind(self, now: float) -> float | None:
        """Return the largest lag in seconds, None where it is not known."""
        return None if self.behind_since is None else age(self.behind_since, self.as_of(now))

    def commits_at(self, topic: str) -> Mapping[int, float]:
        """Return partition -> when its commit on a topic last changed or was first seen."""
        moments = self.committed_at.get(topic)
        if moments is not None or topic not in self.changed_at:
            return moments or nothing()
        # none was seen to change: so it is of most groups, and 20,000 moments take 1 MB
        return dict.fromkeys(self.group.commits.get(topic, ()), self.changed_at[topic])

    def behind_by_partition(self, topic: str, now: float) -> Mapping[int, float]:
        """Return partition -> lag in seconds of a topic, where it is known."""
        moments = self.oldest_unread_at.get(topic)
        if moments is None:  # nothing is unread: every lag is 0, in seconds as in messages
            return self.lag.partitions.get(topic, nothing())
        now = self.as_of(now)
        return {partition: age(moment, now) for partition, moment in moments.items()}
