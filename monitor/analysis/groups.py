"""Members and assignments of a group.

Only what a stable group shows is called idle or unassigned: while it rebalances, members hold
nothing for a moment. A topic counts as consumed when a member holds a partition of it, which leaves
out the commits that remain of topics no longer consumed, and subscriptions to topics that are not
there yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from monitor.model import Group, PartitionOffsets

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
    which consumes nothing. `per_topic` counts partitions per member, the members' order being the
    group's; `held` has topic -> partitions that any member holds.
    """

    state: str | None
    members: int | None
    idle: tuple[str, ...] | None = None
    unassigned: tuple[tuple[str, int], ...] | None = None
    per_topic: Mapping[str, tuple[int, ...]] = nothing()
    held: Mapping[str, Collection[int]] = nothing()

    def consumers(self, topic: str) -> int:
        """Return how many members hold partitions of a topic."""
        return sum(map(bool, self.per_topic.get(topic, ())))


def group_facts(group: Group, partitions_of: Mapping[str, Collection[int]]) -> GroupFacts:
    """Return the facts of a group; `partitions_of` holds topic -> partitions that exist."""
    members = group.members
    if not members:
        return GroupFacts(group.state, None if members is None else 0)
    held: dict[str, set[int]] = {}
    for member in members:
        for topic, partitions in member.assignment.items():
            held.setdefault(topic, set()).update(partitions)
    per_topic = {
        topic: tuple(len(member.assignment.get(topic, ())) for member in members) for topic in held
    }
    if is_rebalancing(group.state):
        return GroupFacts(group.state, len(members), None, None, per_topic, held)
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
