"""What one consumer of a group manages, from what polls saw: known only of those that had to hurry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.analysis.measures import GroupMeasures


@dataclass(frozen=True, slots=True)
class Capacity:
    """A group's work on one topic; rates in messages per second.

    `consumers` are the members that hold partitions. `per_consumer` is what one of them consumed; if
    `had_backlog`, messages waited all the time, and that is what it manages; else it is the least that
    it manages, as nobody knows what it would do with more.
    """

    produced: float
    consumed: float
    consumers: int
    per_consumer: float
    had_backlog: bool


def capacity(polls: Sequence[GroupMeasures], topic: str, interval_s: float) -> Capacity | None:
    """Return what was measured over polls, oldest first; None while rates or members are not known.

    A consumer that keeps pace has what came within a poll's time in flight: that is no backlog.
    """
    if not polls:
        return None
    last = polls[-1]
    rates = last.rates.get(topic)
    held = last.facts.per_topic.get(topic, ())
    consumers = sum(count > 0 for count in held)
    if rates is None or rates.produced is None or rates.consumed is None or not consumers:
        return None
    waiting = min(measures.lag.readable_sum(topic) for measures in polls)
    return Capacity(
        rates.produced,
        rates.consumed,
        consumers,
        rates.consumed / consumers,
        had_backlog=rates.consumed > 0 and waiting > rates.consumed * interval_s,
    )
