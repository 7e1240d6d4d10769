"""What is told of past polls."""

from __future__ import annotations

from monitor.analysis.status import Status
from monitor.answers.models import PastPoint
from monitor.history.summary import Summary


def past_point(summary: Summary) -> PastPoint:
    """Return what was found of a group at a time."""
    return PastPoint(
        at=summary.at,
        seconds=summary.seconds,
        lag=summary.lag,
        lag_seconds=summary.behind,
        behind_since=summary.behind_since,
        members=summary.members,
        status=None if summary.status is None else Status(summary.status).name,
        produced_per_second=summary.produced,
        consumed_per_second=summary.consumed,
        rebalances=summary.rebalances,
    )
