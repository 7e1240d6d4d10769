"""The last lags of each group, for the small curve in its row.

Of a group to which nothing happened nothing is added: its last lag holds on. 40 points of a group are
640 bytes, 1.3 MB where 2,000 groups move.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot
from monitor.state import State

POINTS: Final = 40


@dataclass(slots=True)
class _Trend:
    """Unix time and lag in turn; NaN is a lag that was not known."""

    last: GroupMeasures
    points: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class _OfCluster:
    snapshot: Snapshot
    groups: dict[str, _Trend] = field(default_factory=dict)


class Trends:
    """Remembers, for the threads that make pages; `record` is called by one thread at a time."""

    def __init__(self) -> None:
        self._clusters: dict[str, _OfCluster] = {}

    def record(self, state: State) -> None:
        """Take what a poll found; a state without a new poll has nothing."""
        snapshot = state.snapshot
        before = self._clusters.get(state.cluster)
        if snapshot is None or (before is not None and before.snapshot is snapshot):
            return
        old = {} if before is None else before.groups
        # a new table, as pages read the one before
        groups = {}
        for group, measures in state.groups.items():
            trend = old.get(group)
            if trend is None or trend.last is not measures:
                points = array("d") if trend is None else trend.points[-2 * (POINTS - 1) :]
                lag = measures.lag.total if measures.lag.partitions else nan
                if len(points) < 2 or points[-1] != lag:
                    points.extend((snapshot.taken_at, lag))
                trend = _Trend(measures, points)
            groups[group] = trend
        self._clusters[state.cluster] = _OfCluster(snapshot, groups)

    def of(self, cluster: str, group: str) -> Sequence[tuple[float, float | None]]:
        """Return (Unix time, lag) of the moments at which a group's lag changed, oldest first."""
        of_cluster = self._clusters.get(cluster)
        trend = None if of_cluster is None else of_cluster.groups.get(group)
        if trend is None:
            return ()
        points = trend.points
        return [
            (points[i], None if isnan(points[i + 1]) else points[i + 1])
            for i in range(0, len(points), 2)
        ]
