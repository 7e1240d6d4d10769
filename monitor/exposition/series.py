"""Samples on their way to the page, and how they are joined where fewer labels are wanted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

from monitor.analysis.measures import age
from monitor.exposition.metric import Metric

Labels: TypeAlias = tuple[str, ...]
"""Label values, in the order of a metric's label names."""
Values: TypeAlias = dict[Labels, float]
Nested: TypeAlias = dict[Labels, Mapping[int, float]]
Series: TypeAlias = Mapping[Labels, float]
"""Label values -> value: no two samples can have the same labels."""


@dataclass(frozen=True, slots=True)
class ByPartition:
    """Samples of which the last label is the partition: the other labels' values -> partition ->
    value. A poll's own mappings serve as they are, so 20,000 samples need no 20,000 keys.
    """  # noqa: D205 - what is mapped to what is the summary

    values: Mapping[Labels, Mapping[int, float]]

    def __len__(self) -> int:
        """Return the number of samples."""
        return sum(map(len, self.values.values()))


Samples: TypeAlias = Mapping[Metric, "Series | ByPartition"]


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that change together.

    `sources` is what they are made of: a block whose sources are the very same objects as at the
    last poll has the same samples, and need not make them. Without sources it always does. Only
    blocks that are `pieces_of` the same thing may have metrics in common: no series is in two.
    `name` says what is missing where its samples can't be made.
    """

    sources: tuple[object, ...]
    samples: Callable[[], Samples]
    pieces_of: str | None = None
    name: str = ""


class Level(StrEnum):
    """How far down the samples of consumer groups go: a large cluster has many partitions."""

    PARTITION = "partition"
    TOPIC = "topic"
    GROUP = "group"


_COARSER: Final = (Level.PARTITION, Level.TOPIC, Level.GROUP)
_DROPPED: Final = {
    Level.PARTITION: frozenset[str](),
    Level.TOPIC: frozenset({"partition"}),
    Level.GROUP: frozenset({"topic", "partition"}),
}
_JOIN: Final[Mapping[str, Callable[[Iterable[float]], float]]] = {
    "sum": sum,
    "max": max,
    "min": min,
}


def coarser(one: Level, other: Level) -> Level:
    """Return the level that has fewer labels."""
    return max(one, other, key=_COARSER.index)


@lru_cache(maxsize=1_000)
def at_level(metric: Metric, level: Level) -> Metric | None:
    """Return the metric with the labels that it has at a level, None where it is left out."""
    labels = tuple(label for label in metric.labels if label not in _DROPPED[level])
    if labels == metric.labels:
        return metric
    return None if metric.rollup is None else replace(metric, labels=labels)


@dataclass(slots=True)
class GroupSamples:
    """Collects the samples of consumer groups at one level.

    `cluster` is the cluster's name, for families that have it in a label of their own; `members`
    whether single members are shown.
    """

    level: Level = Level.PARTITION
    cluster: str = ""
    members: bool = True
    _joined: defaultdict[Metric, defaultdict[Labels, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _single: defaultdict[Metric, Values] = field(default_factory=lambda: defaultdict(dict))
    _nested: defaultdict[Metric, Nested] = field(default_factory=lambda: defaultdict(dict))

    def partitions(self, metric: Metric, labels: Labels, values: Mapping[int, float]) -> None:
        """Add a topic's partitions; the metric's last label is the partition, before it the topic."""
        if not values:
            return
        if self.level is Level.PARTITION:
            self._nested[metric][labels] = values
        elif metric.rollup is not None:
            self.one(metric, labels, _JOIN[metric.rollup](values.values()))

    def since(
        self, metric: Metric, labels: Labels, moments: Mapping[int, float], now: float
    ) -> None:
        """Add the ages of moments, by partition; joined, that is the age of the earliest."""
        if self.level is Level.PARTITION:
            ages = {partition: round(age(at, now), 3) for partition, at in moments.items()}
            self.partitions(metric, labels, ages)
        elif moments:
            self.one(metric, labels, round(age(min(moments.values()), now), 3))

    def until(
        self, metric: Metric, labels: Labels, moments: Mapping[int, float], now: float
    ) -> None:
        """Add the time that is left to moments, by partition; joined, that is to the earliest."""
        if self.level is Level.PARTITION:
            left = {partition: round(age(now, at), 1) for partition, at in moments.items()}
            self.partitions(metric, labels, left)
        elif moments:
            self.one(metric, labels, round(age(now, min(moments.values())), 1))

    def one(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add one sample; of labels (group, topic, ...) the level may drop the topic."""
        shown = metric if self.level is Level.PARTITION else at_level(metric, self.level)
        if shown is metric:
            self._single[metric][labels] = value
        elif shown is not None:
            if self.level is Level.GROUP:
                labels = (labels[0], *labels[2:])
            self._joined[shown][labels].append(value)

    def samples(self) -> Samples:
        """Return what was collected."""
        samples: dict[Metric, Series | ByPartition] = dict(self._single)
        for metric, nested in self._nested.items():
            samples[metric] = ByPartition(nested)
        for metric, joined in self._joined.items():
            join = _JOIN[metric.rollup or "sum"]
            samples[metric] = {labels: join(values) for labels, values in joined.items()}
        return samples
