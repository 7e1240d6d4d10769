"""Follows the groups of which somebody wants to know how many replicas they should have.

An answer rests on what the last polls saw, and few groups are ever asked for: those, and only those,
are looked at after each poll.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monitor.analysis.groups import is_rebalancing
from monitor.analysis.scaling.decision import Scaler
from monitor.analysis.scaling.measuring import Sight
from monitor.analysis.scaling.rules import Decision, ScalingRules
from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from monitor.analysis.measures import GroupMeasures
    from monitor.analysis.scaling.shares import Partition
    from monitor.model import Group, Snapshot

# Autoscalers ask every few seconds; who has not asked for so long has gone.
FORGET_SECONDS: Final = 3_600.0
# Whoever asks for everything must not make every poll dear.
MAX_FOLLOWED: Final = 200

BudgetOf = Callable[[str], tuple[int, str] | None]
"""Returns for how many replicas of a group's service databases have connections, and says where."""


@dataclass(slots=True)
class _Followed:
    scaler: Scaler
    asked_at: float
    decision: Decision | None = None


class Advisor:
    """The decisions for one cluster; `decision` may be asked for by any thread."""

    def __init__(
        self, rules: ScalingRules | None = None, budget_of: BudgetOf = lambda _: None
    ) -> None:
        self._rules = rules or ScalingRules()
        self._budget_of = budget_of
        self._guard = Guard()
        self._lock = threading.Lock()
        self._followed: dict[str, _Followed] = {}

    def observe(self, snapshot: Snapshot, groups: Mapping[str, GroupMeasures]) -> None:
        """Take in a poll, for those who are followed."""
        with self._lock:
            self._guard.start_poll()
            now = snapshot.monotonic_at
            for group_id, followed in list(self._followed.items()):
                if now - followed.asked_at > FORGET_SECONDS or group_id not in groups:
                    del self._followed[group_id]
                else:
                    self._decide(group_id, followed, snapshot, groups[group_id])

    def decision(
        self, group_id: str, snapshot: Snapshot, measures: GroupMeasures
    ) -> Decision | None:
        """Return the decision for a group after the last poll, and follow it from now on.

        None where its members or offsets are not known, or too many others are followed.
        """
        with self._lock:
            followed = self._followed.get(group_id)
            if followed is None:
                if len(self._followed) >= MAX_FOLLOWED:
                    return None
                followed = self._followed[group_id] = _Followed(
                    Scaler(self._rules), snapshot.monotonic_at
                )
                self._decide(group_id, followed, snapshot, measures)
            followed.asked_at = snapshot.monotonic_at
            return followed.decision

    def _decide(
        self, group_id: str, followed: _Followed, snapshot: Snapshot, measures: GroupMeasures
    ) -> None:
        followed.decision = self._guard.attempt(
            "scaling", group_id, self._decided, followed.scaler, snapshot, measures
        )

    def _decided(
        self, scaler: Scaler, snapshot: Snapshot, measures: GroupMeasures
    ) -> Decision | None:
        group = measures.group
        sight = sight_of(snapshot, group, measures)
        if sight is None:
            return None
        budget, where = self._budget_of(group.id) or (None, "")
        return scaler.decide(sight, assignor=group.assignor, budget=budget, budget_of=where)


def sight_of(
    snapshot: Snapshot, group: Group, measures: GroupMeasures, only_topic: str | None = None
) -> Sight | None:
    """Return what a poll saw of a group at work; None where that is not all known.

    Topics with commits that nobody reads any more are left out, unless the group has no members.
    """
    if group.is_silent or group.error is not None or group.members is None:
        return None
    topics = {topic for topic in group.topics if topic in snapshot.topics}
    topics -= measures.not_consumed
    if only_topic is not None:
        topics &= {only_topic}
    ends: dict[Partition, int] = {}
    commits: dict[Partition, int] = {}
    for topic in topics:
        for partition in snapshot.topics[topic].partitions:
            end = snapshot.end_offsets.get(topic, partition)
            if end is None or snapshot.end_offsets.is_silent(topic, partition):
                return None
            ends[topic, partition] = end
            committed = group.commits.get(topic, {}).get(partition)
            if committed is not None:
                commits[topic, partition] = committed
    owners = {
        (topic, partition): member.id
        for member, topic, partition in group.assignments()
        if (topic, partition) in ends
    }
    return Sight(
        at=snapshot.monotonic_at,
        ends=ends,
        commits=commits,
        owners=owners,
        members=len(group.members),
        seconds_behind=measures.behind(snapshot.seen_at),
        is_rebalancing=is_rebalancing(group.state),
        # what no consumer can read, as what an open transaction holds, waits for none of them
        unread={
            (topic, partition): lag
            for topic in topics
            for partition, lag in measures.lag.unread.get(topic, nothing()).items()
        },
    )
