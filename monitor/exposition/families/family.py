"""What a family of metrics is: its declarations, and what makes its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from monitor.analysis.measures import GroupMeasures
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, GroupSamples
from monitor.state import State

OfCluster: TypeAlias = Callable[[State], Iterable[Block]]
OfGroup: TypeAlias = Callable[[GroupMeasures, GroupSamples], None]
AgesOfGroup: TypeAlias = Callable[[GroupMeasures, float, GroupSamples], None]


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that are switched on and off together.

    `cluster` yields what is not of a single group. `samples` adds what is told of a group, from its
    measures alone: it is kept for as long as those are the same object. `ages` adds what time changes,
    at a moment, at each poll; no series may come from both. `has_levels` says that settings decide how
    far down its samples of groups go.
    """

    name: str
    about: str
    metrics: tuple[Metric, ...]
    cluster: OfCluster | None = None
    samples: OfGroup | None = None
    ages: AgesOfGroup | None = None
    is_always_on: bool = False
    is_default: bool = False
    has_levels: bool = False
