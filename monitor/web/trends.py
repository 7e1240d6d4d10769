"""The last lags of each group, for the small curve in its row.

Of a group to which nothing happened nothing is added: its last lag holds on, but where nobody looked or
it did not answer nothing is known. 40 points of a group are 640 bytes, 1.3 MB where 2,000 groups move.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.history.summary import AFTER_SECONDS
from monitor.model import Snapshot
from monitor.state import State

POINTS: Final = 40


@dataclass(slots=True)
class _Trend:
    """Unix time and lag in turn; NaN is a lag that was not known."""

    last: GroupMeasures | None
    points: array[float] = field(default_factory=lambda: array("d"))

    def add(self, at: float, lag: float) -> None:
        """Have a lag from a time on, if it is another."""
        before = self.points[-1] if self.points else None
        if before == lag or (before is not None and isnan(before) and isnan(lag)):
            return
        self.points.extend((at, lag))
        del self.points[: -2 * POINTS]


@dataclass(slots=True)
class _OfCluster:
    snapshot: Snapshot
    groups: dict[str, _Trend] = field(default_factory=dict)


class Trends:
    """Remembers, for the threads that make pages; `record` is called by one thread at a time.

    A lag holds on as long as polls follow each other within `patience_s`, and the group's was not
    older in one.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._clusters: dict[str, _OfCluster] = {}

    def record(self, state: State) -> None:
        """Take what a poll found; a state without a new poll that reached a broker has nothing."""
        snapshot = state.snapshot
        before = self._clusters.get(state.cluster)
        last, old = (None, {}) if before is None else (before.snapshot, before.groups)
        if snapshot is None or snapshot is last or state.error is not None:
            return
        nobody_looked_from = None
        if last is not None and snapshot.monotonic_at - last.monotonic_at > self._patience_s:
            nobody_looked_from = last.taken_at + AFTER_SECONDS
        # those that are left out are not known any more
        known = state.without_older_than(self._patience_s).groups
        # a new table, as pages read the one before
        groups = {}
        for group in state.groups:
            measures, trend = known.get(group), old.get(group)
            if trend is None:
                trend = _Trend(measures)
                trend.add(snapshot.taken_at, _lag(measures))
            elif trend.last is not measures or nobody_looked_from is not None:
                trend = _Trend(measures, trend.points[:])
                if nobody_looked_from is not None:
                    trend.add(nobody_looked_from, nan)
                trend.add(snapshot.taken_at, _lag(measures))
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


def _lag(measures: GroupMeasures | None) -> float:
    return measures.lag.total if measures is not None and measures.lag.partitions else nan
