"""What is told of a cluster, and of how much of it was seen."""

from __future__ import annotations

from collections import Counter
from typing import Final

from monitor.answers.models import BrokerAnswer, ClusterAnswer, Seen
from monitor.model import Snapshot
from monitor.ranking import status_word
from monitor.state import State

NOT_IN_METADATA: Final = "not in the cluster's metadata, though partitions have replicas on it"


def cluster_answer(state: State, reason: str | None) -> ClusterAnswer:
    """Return what is told of a cluster; `reason` is why its figures can't be relied on."""
    snapshot = state.snapshot
    is_empty = snapshot is None or (not snapshot.topics and not snapshot.groups and not state.up)
    words = Counter(status_word(measures) or "unknown" for measures in state.groups.values())
    return ClusterAnswer(
        cluster=state.cluster,
        cluster_id=None if snapshot is None else snapshot.cluster_id,
        up=state.up,
        ready=reason is None,
        reason=reason,
        error=state.error,
        seen_at=seen_at(snapshot),
        controller=None if snapshot is None else snapshot.controller,
        brokers=[] if snapshot is None else _brokers(snapshot),
        topics=None if snapshot is None or is_empty else len(snapshot.topics),
        partitions=None
        if snapshot is None or is_empty
        else sum(len(topic.partitions) for topic in snapshot.topics.values()),
        groups=None if snapshot is None or is_empty else len(snapshot.groups),
        groups_complete=why_incomplete(state) is None,
        groups_by_status=dict(sorted(words.items())),
    )


def seen(state: State, hidden: int = 0) -> Seen:
    """Return how much of a cluster a list is made of."""
    error = why_incomplete(state)
    return Seen(
        cluster=state.cluster,
        up=state.up,
        seen_at=seen_at(state.snapshot),
        complete=error is None,
        error=error,
        hidden=hidden,
    )


def seen_at(snapshot: Snapshot | None) -> float | None:
    """Return when a snapshot was taken, in Unix seconds."""
    return None if snapshot is None else round(snapshot.taken_at, 3)


def why_incomplete(state: State) -> str | None:
    """Say why a group that is not in the state may exist all the same, None where it doesn't."""
    if state.snapshot is None:
        return state.error or "the first poll has not ended"
    if state.error is not None:
        return state.error
    if state.is_too_old:
        return f"the data is {state.monotonic_at - state.snapshot.monotonic_at:.0f} s old"
    return None if state.snapshot.groups_complete else who_is_silent(state.snapshot)


def who_is_silent(snapshot: Snapshot) -> str:
    """Say which brokers did not list their groups."""
    silent = [
        snapshot.brokers[broker].address if broker in snapshot.brokers else str(broker)
        for broker in snapshot.broker_errors
    ]
    if not silent and snapshot.errors:
        return "; ".join(snapshot.errors)
    if not silent:
        return "a broker has just started, or denies a group that another lists"
    if len(silent) == len(snapshot.brokers):
        return "no broker answers"
    return f"{'broker' if len(silent) == 1 else 'brokers'} {', '.join(silent)} did not answer"


def _brokers(snapshot: Snapshot) -> list[BrokerAnswer]:
    known = [
        BrokerAnswer(
            id=broker.id,
            address=broker.address,
            rack=broker.rack,
            up=broker.id not in snapshot.broker_errors,
            error=snapshot.broker_errors.get(broker.id),
        )
        for broker in snapshot.brokers.values()
    ]
    missing = [
        BrokerAnswer(id=broker, address=None, rack=None, up=False, error=NOT_IN_METADATA)
        for broker in snapshot.missing_brokers
    ]
    return sorted((*known, *missing), key=lambda broker: broker.id)
