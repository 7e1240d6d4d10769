"""Who is compared: our decision, the CPU HPA of the scaling guide, KEDA's lag rule and Flink's.

Each is asked every 15 s, as a HorizontalPodAutoscaler is. Replicas range from 1 to the partitions.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final, Protocol

from benchmarks.scaling.world import World
from monitor.analysis.scaling.decision import Scaler
from monitor.analysis.scaling.measuring import Sight
from monitor.analysis.scaling.rules import ScalingRules
from monitor.analysis.scaling.shares import RANGE

SYNC_SECONDS: Final = 15
POLL_SECONDS: Final = 5


class Autoscaler(Protocol):
    """Looks at a world each second, and says how many replicas when it is asked."""

    def watch(self, world: World) -> None:
        """See a second."""

    def replicas(self, world: World) -> int:
        """Return how many there should be."""


class Ours:
    """What the monitor answers at /api/v1/scaling."""

    def __init__(self, rules: ScalingRules) -> None:
        self._scaler = Scaler(rules)
        self._wanted = 1

    def watch(self, world: World) -> None:
        """Poll offsets, as the monitor does."""
        if world.now % POLL_SECONDS:
            return
        owners = world.owners
        sight = Sight(
            at=float(world.now),
            ends={p: int(world.written[p[1]]) for p in world.partitions},
            commits={p: int(world.read[p[1]]) for p in world.partitions},
            owners={p: f"consumer-{owners[p[1]]}" for p in world.partitions},
            members=world.consumers,
            seconds_behind=world.lag_seconds[-1] if world.lag_seconds else None,
            is_rebalancing=world.is_rebalancing,
        )
        self.decision = self._scaler.decide(sight, assignor=RANGE)
        self._wanted = self.decision.replicas

    def replicas(self, world: World) -> int:  # noqa: ARG002  # others look at it
        """Return the last answer."""
        return self._wanted


class Hpa:
    """Kubernetes' HorizontalPodAutoscaler with its defaults (autoscaling/v2).

    None within 10 % of the target; up by 100 % or 4 pods in 15 s, whichever is more; down to the
    largest recommendation of the last 300 s.
    """

    TOLERANCE: Final = 0.1
    DOWN_SECONDS: Final = 300

    def __init__(self, most: int) -> None:
        self._most = most
        self._recommended: deque[tuple[int, int]] = deque()

    def bounded(self, now: int, current: int, desired: int) -> int:
        """Return what is allowed of a desired number."""
        desired = max(1, min(desired, self._most))
        self._recommended.append((now, desired))
        while now - self._recommended[0][0] > self.DOWN_SECONDS:
            self._recommended.popleft()
        if desired > current:
            return min(desired, current + max(current, 4))
        return min(current, max(each for _, each in self._recommended))


class CpuHpa:
    """The scaling guide's: CPU at 70 %."""

    TARGET: Final = 0.7
    METRICS_SECONDS: Final = 30

    def __init__(self, most: int) -> None:
        self._hpa = Hpa(most)
        self._cpu: deque[float] = deque(maxlen=self.METRICS_SECONDS)

    def watch(self, world: World) -> None:
        """Measure CPU, of all that run."""
        self._cpu.append(world.cpu)

    def replicas(self, world: World) -> int:
        """Return ceil(current x usage / target)."""
        usage = sum(self._cpu) / len(self._cpu)
        # pods that are not ready count as idle when it is about more of them
        ratio = usage * world.consumers / world.replicas / self.TARGET
        current = world.replicas
        desired = current if abs(ratio - 1) <= Hpa.TOLERANCE else ceil(current * ratio)
        return self._hpa.bounded(world.now, current, desired)


def keda_lag(lags: list[int], threshold: int, *, even: bool = False) -> int:
    """Return the metric of KEDA's Apache Kafka scaler: lag that is not more than partitions allow."""
    total = sum(lags)
    if even:
        total = keda_even_replicas(total, len(lags), threshold) * threshold
    if total // threshold > len(lags):
        total = len(lags) * threshold
    return total


def divisors(partitions: int) -> list[int]:
    """Return the numbers of consumers among which partitions are shared evenly (`FindFactors`)."""
    return [n for n in range(1, partitions + 1) if partitions % n == 0]


def keda_even_replicas(lag: int, partitions: int, threshold: int) -> int:
    """Return the first of them that is enough (`getNextFactorThatBalancesConsumersToTopicPartitions`)."""
    return next((n for n in divisors(partitions) if n * threshold >= lag), partitions)


class Keda:
    """KEDA's Apache Kafka scaler, which feeds an HPA with lag / lagThreshold replicas."""

    def __init__(self, threshold: int, most: int) -> None:
        self.threshold = threshold
        self._hpa = Hpa(most)

    def watch(self, world: World) -> None:
        """See nothing: it asks when it is asked."""

    def replicas(self, world: World) -> int:
        """Return ceil(lag / lagThreshold), by the HPA's rule of averages."""
        total = keda_lag([int(lag) for lag in world.lags], self.threshold)
        current = world.replicas
        ratio = total / (self.threshold * current)
        desired = current if abs(ratio - 1) <= Hpa.TOLERANCE else ceil(total / self.threshold)
        return self._hpa.bounded(world.now, current, desired)


class Flink:
    """The rule of Flink's Kubernetes operator, with the windows of a group instead of a job's.

    Target = lag / catch-up + arrival x pause / catch-up + arrival / 0.7, of a capacity that is known
    from busy time; nothing within 0.4 to 1.0; down once fewer were enough for ten minutes.
    """

    WINDOW_SECONDS: Final = 60
    STABLE_SECONDS: Final = 60
    DOWN_SECONDS: Final = 600
    UTILISATION: Final = 0.7
    BAND: Final = 0.3
    LONG_BACKLOG_SECONDS: Final = 300

    def __init__(self, rules: ScalingRules) -> None:
        self._rules = rules
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=self.WINDOW_SECONDS)
        self._written = 0.0
        self._changed_at = -self.STABLE_SECONDS
        self._lower: deque[tuple[int, int]] = deque()

    def watch(self, world: World) -> None:
        """Keep what came, what was consumed and how busy they were."""
        written = sum(world.written)
        if not world.is_rebalancing:
            self._seen.append((written - self._written, world.consumed, world.busy))
        self._written = written

    def replicas(self, world: World) -> int:
        """Return what its formula says."""
        current = world.replicas
        if world.now - self._changed_at < self.STABLE_SECONDS or not self._seen:
            return current
        arrival, consumed, busy = (
            sum(each) / len(self._seen) for each in zip(*self._seen, strict=True)
        )
        if busy <= 0 or consumed <= 0:
            return current
        per_replica = consumed / busy / world.consumers
        capacity = per_replica * current
        lag = sum(world.lags)
        extra = (lag + arrival * self._rules.pause_seconds) / self._rules.catch_up_seconds
        upper = arrival / (self.UTILISATION + self.BAND) + extra
        lower = arrival / (self.UTILISATION - self.BAND) + extra
        if lag / max(arrival, 1) > self.LONG_BACKLOG_SECONDS:
            upper, lower = arrival, float("inf")
        wanted = current
        if capacity < upper or capacity > lower:
            wanted = ceil((arrival / self.UTILISATION + extra) / per_replica)
        most = world.curve.partitions
        wanted = next((n for n in divisors(most) if n >= min(wanted, most)), most)
        return self._delayed(world.now, current, max(1, wanted))

    def _delayed(self, now: int, current: int, wanted: int) -> int:
        if wanted >= current:
            self._lower.clear()
            if wanted > current:
                self._changed_at = now
            return wanted
        self._lower.append((now, wanted))
        if now - self._lower[0][0] < self.DOWN_SECONDS:
            return current
        wanted = max(each for _, each in self._lower)
        self._lower.clear()
        self._changed_at = now
        return wanted
