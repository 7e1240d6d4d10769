"""Balance as excess over the best that is possible: 0 is perfect, 0.2 is a fifth more than need be.

The largest share is compared with the smallest that the largest share could be (for whole items
``ceil(items / holders)``: the lower bound of makespan scheduling, as Graham 1969 has it). Hence six
partitions over four members as 2, 2, 1, 1 are balanced, where a variance would call them uneven.

Messages that keys spread at random never fall evenly. Of P partitions with a mean of m messages the
fullest is expected near ``m + sqrt(2 ln P) sqrt(m)`` (maximum of P Poisson counts, by the normal
approximation); that and one deviation more is taken for chance and subtracted, so what remains is
skew. Below `MINIMUM_MEAN` messages per partition nothing can be told: None.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from monitor.analysis.groups import is_rebalancing

if TYPE_CHECKING:
    from collections.abc import Collection

    from monitor.analysis.groups import GroupFacts
    from monitor.analysis.lag import GroupLag
    from monitor.analysis.rates import TopicRates

MINIMUM_MEAN = 5.0  # messages per partition, below which the normal approximation says nothing


def assignment_excess(partitions_per_member: Collection[int]) -> float | None:
    """Return by how much the largest assignment exceeds the best possible largest one.

    One count per member, idle ones too. None without members or partitions.
    """
    total = sum(partitions_per_member)
    if not total:
        return None
    return max(partitions_per_member) / ceil(total / len(partitions_per_member)) - 1


def production_excess(messages_per_partition: Collection[int]) -> float | None:
    """Return by how much the fullest partition's messages exceed an even spread, chance deducted.

    One count per partition, over any time. None when they are too few to tell.
    """
    return _skew(messages_per_partition)


def lag_excess(
    lag_per_partition: Collection[int], *, in_flight_per_partition: float = 0.0
) -> float | None:
    """Return by how much the largest lag exceeds an even spread of all lag, chance deducted.

    What is merely in flight is no lag to spread: `in_flight_per_partition`, the messages that a
    partition's consumer takes in one poll interval, is deducted from each. 0 when no more than that
    is unread; None when it is too little to tell.
    """
    lags = [max(0.0, lag - in_flight_per_partition) for lag in lag_per_partition]
    return 0.0 if lags and not any(lags) else _skew(lags)


def _skew(amounts: Collection[float]) -> float | None:
    count = len(amounts)
    if count == 0:
        return None
    mean = sum(amounts) / count
    if mean < MINIMUM_MEAN:
        return None
    if count == 1:
        return 0.0
    chance = (sqrt(2 * log(count)) + 1) / sqrt(mean)
    return max(0.0, max(amounts) / mean - 1 - chance)


def hottest(amounts: Collection[tuple[int, float]]) -> tuple[int, float] | None:
    """Return (partition, share of the total) of the largest of (partition, amount); None if all 0."""
    total = sum(amount for _, amount in amounts)
    if not total:
        return None
    partition, amount = max(amounts, key=lambda item: (item[1], -item[0]))
    return partition, amount / total


def imbalance_of(
    topic: str,
    lag: GroupLag,
    facts: GroupFacts,
    rates: TopicRates | None,
    *,
    produced: Collection[int],
    interval: float,
) -> dict[str, float]:
    """Return kind -> excess of what can be told; `produced` are messages by partition."""
    kinds: dict[str, float | None] = {}
    if facts.members and not is_rebalancing(facts.state) and topic in facts.per_topic:
        kinds["assignment"] = assignment_excess(facts.per_topic[topic])
    if facts.members or lag.topics.get(topic):
        kinds["production"] = production_excess(produced)
        lags = lag.readable(topic)
        if lags:
            consumed = (rates.consumed if rates else None) or 0.0
            kinds["lag"] = lag_excess(
                lags.values(), in_flight_per_partition=consumed * interval / len(lags)
            )
    return {kind: excess for kind, excess in kinds.items() if excess is not None}
