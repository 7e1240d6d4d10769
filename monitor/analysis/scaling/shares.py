"""How partitions fall upon consumers: the largest share decides, as the sum hides a hot partition.

An assignor counts partitions, it does not weigh them. So one more consumer helps only where it makes
the largest share smaller: of six partitions with even load, four or five consumers carry as much at
most as three do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Partition: TypeAlias = tuple[str, int]
"""A topic and the number of one of its partitions."""
Loads: TypeAlias = Mapping[Partition, float]

RANGE: Final = "range"
# Shares that differ by less are equal: loads are measured.
EQUAL: Final = 0.05


def split(partitions: Sequence[Partition], consumers: int, assignor: str | None) -> list[list[int]]:
    """Return for each consumer the positions in `partitions`, sorted ones, that it would be assigned.

    The range assignor cuts each topic into blocks and gives the first consumers the larger ones; all
    others deal the partitions of all topics out in turn (which gets which is the sticky ones' own
    affair: the counts are the same). Raises ValueError without a consumer.
    """
    if consumers < 1:
        raise ValueError(f"{consumers} consumers: there must be one")
    held: list[list[int]] = [[] for _ in range(consumers)]
    if assignor != RANGE:
        for position in range(len(partitions)):
            held[position % consumers].append(position)
        return held
    by_topic: defaultdict[str, list[int]] = defaultdict(list)
    for position, (topic, _) in enumerate(partitions):
        by_topic[topic].append(position)
    for positions in by_topic.values():
        each, more = divmod(len(positions), consumers)
        start = 0
        for consumer in range(consumers):
            end = start + each + (consumer < more)
            held[consumer].extend(positions[start:end])
            start = end
    return held


def most_useful(partitions: Sequence[Partition], assignor: str | None) -> int:
    """Return how many consumers get a partition at most; at least 1."""
    if assignor != RANGE:
        return max(1, len(partitions))
    counts: defaultdict[str, int] = defaultdict(int)
    for topic, _ in partitions:
        counts[topic] += 1
    return max(counts.values(), default=1)


def largest_share(loads: Loads, consumers: int, assignor: str | None) -> float:
    """Return the load of the consumer that would have most, in the loads' unit."""
    partitions = sorted(loads)
    return max(
        sum(loads[partitions[position]] for position in held)
        for held in split(partitions, consumers, assignor)
    )


def fewest(loads: Loads, capacity: float, most: int, assignor: str | None) -> int:
    """Return the fewest consumers, `most` at most, of which none has more than its capacity.

    Where no number is enough, the fewest whose largest share is as small as it gets: more would be
    idle, or relieve those that have enough time as it is.
    """
    shares = [largest_share(loads, consumers, assignor) for consumers in range(1, most + 1)]
    for consumers, share in enumerate(shares, start=1):
        if share <= capacity:
            return consumers
    least = min(shares)
    return next(n for n, share in enumerate(shares, start=1) if share <= least * (1 + EQUAL))
