"""The fewest replica-seconds with which somebody who knows the future would keep the goal."""

from __future__ import annotations

from math import ceil

from benchmarks.scaling.curves import Curve


def fewest_replica_seconds(curve: Curve, goal_seconds: float) -> int:
    """Return a lower bound: replicas come and go at once, and share all partitions freely.

    Each message is due `goal_seconds` after it came; what one second cannot do is done before. Where
    that is not possible either, all work at once.
    """
    goal = int(goal_seconds)
    due = [0.0] * curve.seconds
    arrived = [0.0] * curve.seconds
    for second in range(curve.seconds):
        messages = sum(curve.arrivals(second))
        if second == curve.replay_at:
            messages += curve.replay_messages
        arrived[second] += messages
        if second + goal < curve.seconds:
            due[second + goal] += messages
    most = [
        min(curve.partitions * curve.capacity(s), curve.ceiling(s)) for s in range(curve.seconds)
    ]
    for second in range(curve.seconds - 1, 0, -1):
        excess = due[second] - most[second]
        if excess > 0:
            due[second] -= excess
            due[second - 1] += excess
    total, waiting, owed = 0, 0.0, 0.0
    for second in range(curve.seconds):
        waiting += arrived[second]
        owed += due[second]
        capacity = curve.capacity(second)
        replicas = max(1, min(curve.partitions, ceil(min(owed, most[second]) / capacity - 1e-9)))
        done = min(waiting, replicas * capacity, curve.ceiling(second))
        waiting -= done
        owed -= done
        total += replicas
    return total
