"""What is told of a scaling decision."""

from __future__ import annotations

from monitor.analysis.scaling.rules import Decision
from monitor.answers.groups import rounded, unix
from monitor.answers.models import ScalingAnswer
from monitor.model import Snapshot


def scaling_answer(
    cluster: str, snapshot: Snapshot, group: str, decision: Decision
) -> ScalingAnswer:
    """Return a decision as the API tells it."""
    return ScalingAnswer(
        cluster=cluster,
        group=group,
        replicas=decision.replicas,
        verdict=decision.verdict,
        reason=decision.reason,
        members=decision.members,
        limit=decision.limit,
        limited_by=decision.limited_by,
        produced_per_second=rounded(decision.arrival),
        consumed_per_second=rounded(decision.consumed),
        per_consumer_per_second=rounded(decision.per_consumer),
        unread=decision.lag,
        max_lag_seconds=rounded(decision.lag_seconds),
        seen_at=unix(snapshot, snapshot.monotonic_at),
    )
