"""Members and assignments of a group, and the rebalances that polls have seen of it.

Only what a stable group shows is called idle or unassigned: while it rebalances, members hold
nothing for a moment. Topics that a group is subscribed to are not told by the brokers; a topic
counts as consumed when a member holds a partition of it, which leaves out the commits that remain
of topics no longer consumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.guard import Guard
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from monitor.model import Group, Member, PartitionOffsets

# States in which members may hold nothing for the moment; brokers differ in how they spell them.
REBALANCING: Final = frozenset(
    {"preparingrebalance", "completingrebalance", "assigning", "reconciling", "notready"}
)


def is_rebalancing(state: str | None) -> bool:
    """Tell whether a group in this state is between two assignments."""
    return state is not None and state.replace("_", "").replace(" ", "").lower() in REBALANCING


class GroupFacts(NamedTuple):
    """Who is in a group and what they hold; None for what is not known now.

    `idle` are the members that hold nothing and are to get nothing; `unassigned` the (topic,
    partition) pairs of consumed topics that no member holds: None for a group without members,
    which consumes nothing. `per_member` and `per_topic` count partitions per member, the members'
    order being the group's; `held` has topic -> partitions that any member holds.
    """

    state: str | None
    members: int | None
    idle: tuple[str, ...] | None = None
    unassigned: tuple[tuple[str, int], ...] | None = None
    per_member: tuple[int, ...] = ()
    per_topic: Mapping[str, tuple[int, ...]] = nothing()
    held: Mapping[str, Collection[int]] = nothing()


def group_facts(group: Group, partitions_of: Mapping[str, Collection[int]]) -> GroupFacts:
    """Return the facts of a group; `partitions_of` holds topic -> partitions that exist."""
    members = group.members
    if not members:
        return GroupFacts(group.state, None if members is None else 0)
    held: dict[str, set[int]] = {}
    for member in members:
        for topic, partitions in member.assignment.items():
            held.setdefault(topic, set()).update(partitions)
    per_member = tuple(member.partition_count for member in members)
    per_topic = {
        topic: tuple(len(member.assignment.get(topic, ())) for member in members) for topic in held
    }
    if is_rebalancing(group.state):
        return GroupFacts(group.state, len(members), None, None, per_member, per_topic, held)
    return GroupFacts(
        group.state,
        len(members),
        tuple(member.id for member in members if not member.partition_count and not member.target),
        tuple(
            (topic, partition)
            for topic, owned in held.items()
            for partition in sorted(partitions_of.get(topic, ()))
            if partition not in owned
        ),
        per_member,
        per_topic,
        held,
    )


def uncommitted_partitions(
    group: Group, facts: GroupFacts, starts: PartitionOffsets, ends: PartitionOffsets
) -> dict[str, int]:
    """Return topic -> how many partitions a member holds that have records and no commit.

    Of held topics whose log ends are known; a log whose start is not known is taken to be whole.
    """
    found = {}
    for topic, partitions in facts.held.items():
        log_ends = ends.get(topic)
        if log_ends is None:
            continue
        commits = group.commits.get(topic, nothing())
        log_starts = starts.get(topic, nothing())
        found[topic] = sum(
            log_ends[partition] > log_starts.get(partition, 0)
            for partition in partitions
            if partition in log_ends and partition not in commits
        )
    return found


# one for all groups without members: most of a large cluster
_NOTHING_HELD: Final[frozenset[object]] = frozenset()


def _held(members: Iterable[Member]) -> frozenset[object]:
    return frozenset(
        (member.instance_id or member.id, topic, partitions)
        for member in members
        for topic, partitions in (member.assignment or {"": ()}).items()
    )


@dataclass(slots=True)
class _Seen:
    rebalances: int
    epoch: int | None
    rebalancing: bool
    assignment: frozenset[object]


class RebalanceCounter:
    """Counts the rebalances of each group that can be told from one poll to the next.

    Groups of the newer protocols tell their epoch, and each step of it counts. DescribeGroups tells
    no generation: there a change of the members or of what they hold counts as one rebalance, and
    so does a rebalancing state, once until it is stable again. What comes and goes between two
    polls is not seen, so the count is a lower bound. A static member that restarts keeps its
    instance id and its partitions, and does not rebalance the group.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._groups: dict[str, _Seen] = {}

    def observe(self, groups: Iterable[Group]) -> None:
        """Take in one poll: all groups that exist, those that could not be described too."""
        seen = {}
        for group in groups:
            before = self._groups.get(group.id)
            if group.members is None or group.is_silent:
                if before is not None:
                    seen[group.id] = before
                continue
            try:
                seen[group.id] = self._next(group, group.members, before)
            except Exception as error:  # noqa: BLE001  # one group's fault must not cost the others
                self._guard.failed("rebalances", group.id, error)
        self._groups = seen

    @staticmethod
    def _next(group: Group, members: tuple[Member, ...], before: _Seen | None) -> _Seen:
        rebalancing = is_rebalancing(group.state)
        assignment = _held(members) if members else _NOTHING_HELD
        if before is None:
            return _Seen(0, group.epoch, rebalancing, assignment)
        if group.epoch is not None and before.epoch is not None:
            steps = max(0, group.epoch - before.epoch)
        elif before.rebalancing:
            steps = 0  # counted when it began
        else:
            steps = int(rebalancing or assignment != before.assignment)
        return _Seen(before.rebalances + steps, group.epoch, rebalancing, assignment)

    def counts(self) -> dict[str, int]:
        """Return group -> rebalances seen since the first poll that described it."""
        return {group: seen.rebalances for group, seen in self._groups.items()}
