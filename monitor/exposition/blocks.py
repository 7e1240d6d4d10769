"""What a page is made of: the blocks of each family that is chosen, from a state.

What is stale for longer than `stale_after_s` is taken out of the state before any family sees it: an
old number must not be taken for a current one for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.catalogue import DEFAULT_FAMILIES, FAMILIES
from monitor.exposition.families import measures, monitor
from monitor.exposition.families.family import Family, OfCluster
from monitor.exposition.series import Block, GroupSamples, Level, Samples, coarser
from monitor.guard import Guard
from monitor.state import State

# A group to which something happens has the text of its block's others rendered again: a block is a
# part of the groups that rest.
_RESTING_BLOCKS: Final = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a state is shown: the families, and how far down groups go.

    `level` is of all families that have levels; ours go no further than `measures_level`.
    `hide_empty_groups` leaves out
    groups without members whose commits do not move. `poll_interval_s` is told to who reads the page,
    None where nobody polls at a pace.
    """

    stale_after_s: float
    level: Level = Level.PARTITION
    families: Collection[str] = DEFAULT_FAMILIES
    measures_level: Level = Level.PARTITION
    members: bool = True
    hide_empty_groups: bool = False
    poll_interval_s: float | None = None

    def level_of(self, family: Family) -> Level:
        """Return how far down a family's samples of groups go."""
        if not family.has_levels:
            return Level.PARTITION
        is_ours = family is measures.FAMILY
        return coarser(self.level, self.measures_level) if is_ours else self.level


def blocks(state: State, choice: Choice, guard: Guard | None = None) -> Iterator[Block]:
    """Yield all samples of a state, in blocks that change at different times.

    A group whose samples can't be made costs its own, and is named by `guard`.
    """
    shown = state.without_older_than(choice.stale_after_s)
    if choice.hide_empty_groups:
        shown = shown.without_empty_groups()
    for family in FAMILIES:
        if not (family.is_always_on or family.name in choice.families):
            continue
        if family.cluster is not None:
            yield from _of_cluster(family.name, family.cluster, shown, guard)
        if family.samples is not None and shown.snapshot is not None:
            yield from _of_groups(family, shown, choice, guard or Guard())
    yield Block((), lambda: monitor.samples(state, choice.poll_interval_s), name="monitor")


def _of_cluster(
    name: str, cluster: OfCluster, state: State, guard: Guard | None
) -> Iterable[Block]:
    if guard is None:
        return cluster(state)
    return guard.attempt("exposition", name, lambda: tuple(cluster(state))) or ()


def _of_groups(family: Family, state: State, choice: Choice, guard: Guard) -> Iterator[Block]:
    """Yield what was the same for some polls apart from the rest: its text is kept."""
    lively: list[GroupMeasures] = []
    resting: defaultdict[int, list[GroupMeasures]] = defaultdict(list)
    for group_id, group in state.groups.items():
        if group.measured_at <= state.findings.resting_since:
            resting[crc32(group_id.encode()) % _RESTING_BLOCKS].append(group)
        else:
            lively.append(group)

    def make(
        add: Callable[[GroupMeasures, GroupSamples], None], groups: Iterable[GroupMeasures]
    ) -> Samples:
        level = choice.level_of(family)
        samples = GroupSamples(level, state.cluster, members=choice.members)
        for group in groups:
            add(group, samples)
        return samples.samples()

    def block(
        add: Callable[[GroupMeasures, GroupSamples], None],
        groups: list[GroupMeasures],
        sources: tuple[object, ...] = (),
    ) -> Block:
        return Block(sources, partial(_guarded, partial(make, add), groups, guard), family.name)

    if family.samples is not None:
        for groups in resting.values():
            yield block(family.samples, groups, (family, state.cluster, *groups))
        yield block(family.samples, lively)
    if family.ages is not None and state.snapshot is not None:
        ages, now = family.ages, state.snapshot.seen_at
        yield block(lambda group, add: ages(group, now, add), list(state.groups.values()))


def _guarded(
    samples: Callable[[Iterable[GroupMeasures]], Samples],
    groups: list[GroupMeasures],
    guard: Guard,
) -> Samples:
    """Return the samples of groups, without those of which they can't be made."""
    try:
        return samples(groups)
    except Exception:  # noqa: BLE001  # one group must not cost the others: find out which
        return samples(
            [g for g in groups if guard.runs("exposition", g.group.id, _make, samples, g)]
        )


def _make(samples: Callable[[Iterable[GroupMeasures]], Samples], group: GroupMeasures) -> None:
    samples([group])
