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

from collections import Counter, defaultdict
from math import ceil, log, sqrt
from typing import TYPE_CHECKING, Final

from monitor.analysis.groups import is_rebalancing
from monitor.model import CLASSIC, CONSUMER

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from monitor.analysis.groups import GroupFacts
    from monitor.analysis.lag import GroupLag
    from monitor.analysis.rates import TopicRates
    from monitor.model import Group, Member

STREAMS_ASSIGNOR: Final = "stream"  # of Kafka Streams in the classic protocol

MINIMUM_MEAN = 5.0  # messages per partition, below which the normal approximation says nothing


def is_judged(group: Group) -> bool:
    """Say whether a group's partitions are to be spread evenly over its members, as of now.

    Not while it rebalances; nor in a share group, whose members share partitions, nor in Kafka
    Streams, which spreads tasks, each of as many partitions as its topics are.
    """
    if group.type not in (CLASSIC, CONSUMER) or group.assignor == STREAMS_ASSIGNOR:
        return False
    return not is_rebalancing(group.state)


def assignment_excess(members: Sequence[Member]) -> dict[str, float]:
    """Return topic -> by how much the busiest of its members exceeds the best that it could have.

    Of topics that a member holds. A member counts with all that it holds: assignors even out totals,
    and who holds none of a topic may hold more of others. It is compared with those that hold no
    more and could take from it, directly or from hand to hand: those subscribed to a topic that it
    holds, where subscriptions are told, and those that hold some of it, too. 0 where no partition
    given away would even anything out, which is when Kafka's sticky assignors leave all as it is.
    """
    held = [{topic: len(of) for topic, of in m.assignment.items() if of} for m in members]
    totals = [sum(of.values()) for of in held]
    topics = {topic for of in held for topic in of}
    if not topics or max(totals) - min(totals) <= 1:
        return dict.fromkeys(topics, 0.0)
    takers: defaultdict[str, set[int]] = defaultdict(set)
    for number, member in enumerate(members):
        for topic in topics.intersection(member.subscription or ()).union(held[number]):
            takers[topic].add(number)
    # what is alike is reckoned once: large groups have few kinds of members
    known: dict[tuple[int, frozenset[str]], float] = {}
    excess = {}
    for topic in topics:
        holders = [number for number in takers[topic] if topic in held[number]]
        most = max(totals[number] for number in holders)
        busiest = {frozenset(held[n]): n for n in holders if totals[n] == most}
        for kind, number in busiest.items():
            if (most, kind) not in known:
                known[most, kind] = _excess_of(number, held, totals, takers)
        excess[topic] = max(known[most, kind] for kind in busiest)
    return excess


def _excess_of(
    number: int,
    held: Sequence[Mapping[str, int]],
    totals: Sequence[int],
    takers: Mapping[str, AbstractSet[int]],
) -> float:
    """Return by how much one member's total exceeds the lowest that others could bring it to."""
    total = totals[number]
    among = {other for other, count in enumerate(totals) if count <= total}
    reached, to_ask, shared = {number}, [number], Counter[str]()
    while to_ask:
        of = held[to_ask.pop()]
        for topic in of.keys() - shared.keys():
            new = takers[topic] & among - reached
            reached |= new
            to_ask.extend(new)
        shared.update(of)
    # Who shares topics shares their partitions evenly at best: neither the whole circle nor those of
    # it that may take the same can come to less than their mean (Hall's condition).
    shares: Counter[frozenset[int]] = Counter()
    for topic, count in shared.items():
        shares[frozenset(takers[topic] & reached)] += count
    shares[frozenset(reached)] = shared.total()
    return total / max(ceil(n / len(who)) for who, n in shares.items() if number in who) - 1


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
    assignment: float | None,
    produced: Collection[int],
    interval: float,
) -> dict[str, float]:
    """Return kind -> excess of what can be told.

    `assignment` is that of the topic's members, `produced` are messages by partition.
    """
    kinds = {"assignment": assignment}
    if facts.members or lag.topics.get(topic):
        kinds["production"] = production_excess(produced)
        lags = lag.readable(topic)
        if lags:
            consumed = (rates.consumed if rates else None) or 0.0
            kinds["lag"] = lag_excess(
                lags.values(), in_flight_per_partition=consumed * interval / len(lags)
            )
    return {kind: excess for kind, excess in kinds.items() if excess is not None}
