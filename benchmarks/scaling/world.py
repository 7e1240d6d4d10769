"""A consumer group in steps of a second: partitions, consumers that start and rebalance, a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.scaling.curves import Curve
from monitor.analysis.scaling.shares import RANGE, split

# A pod that is scheduled, starts Python and joins; then all stop until the partitions are shared out.
START_SECONDS: Final = 15
PAUSE_SECONDS: Final = 5
TOPIC: Final = "orders"
# How much of a partition is not unread: floats that add up.
NOTHING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Account:
    """What a run came to; seconds, and replicas times seconds."""

    over_goal: int
    p99_lag_seconds: float
    replica_seconds: int
    rebalances: int


class World:
    """One group on one topic. Each partition is a queue; each consumer works off those that it holds."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.partitions = tuple((TOPIC, partition) for partition in range(curve.partitions))
        self.now = 0
        self.written = [0.0] * curve.partitions
        self.read = [0.0] * curve.partitions
        self.consumers = curve.consumers_at_first
        self.starting: list[int] = []  # when each will join
        self.busy = 0.0  # consumers at work in the last second, of `consumers`
        self.cpu = 0.0  # of one consumer's CPU: what waits for a database uses none
        self.consumed = 0.0
        self.replica_seconds = 0
        self.rebalances = 0
        self.lag_seconds: list[float] = []
        self._paused_until = 0
        self._held = self._split()
        # written by each second, and the second of the oldest unread message
        self._history: list[list[float]] = [[0.0] for _ in range(curve.partitions)]
        self._oldest = [0] * curve.partitions

    @property
    def replicas(self) -> int:
        """Those that run or start."""
        return self.consumers + len(self.starting)

    @property
    def lags(self) -> list[float]:
        """Unread messages by partition."""
        return [written - read for written, read in zip(self.written, self.read, strict=True)]

    @property
    def is_rebalancing(self) -> bool:
        """Say whether all wait for their partitions."""
        return self.now < self._paused_until

    @property
    def owners(self) -> list[int]:
        """The consumer of each partition."""
        found = [0] * self.curve.partitions
        for consumer, held in enumerate(self._held):
            for partition in held:
                found[partition] = consumer
        return found

    def scale(self, replicas: int) -> None:
        """Start or stop replicas; those that start are the first to be stopped."""
        while self.replicas < replicas:
            self.starting.append(self.now + START_SECONDS)
        while self.replicas > replicas and self.starting:
            self.starting.pop()
        if self.consumers > replicas:
            self.consumers = max(1, replicas)
            self._rebalance()

    def step(self) -> None:
        """Let a second pass."""
        if any(at <= self.now for at in self.starting):
            self.consumers += sum(at <= self.now for at in self.starting)
            self.starting = [at for at in self.starting if at > self.now]
            self._rebalance()
        if self.now == self.curve.replay_at:
            self._rewind(self.curve.replay_messages)
        for partition, messages in enumerate(self.curve.arrivals(self.now)):
            self.written[partition] += messages
            self._history[partition].append(self.written[partition])
        self._consume()
        self.replica_seconds += self.replicas
        self.now += 1
        self.lag_seconds.append(max(map(self._behind, range(self.curve.partitions))))

    def account(self, goal_seconds: float) -> Account:
        """Return what the seconds so far came to."""
        ordered = sorted(self.lag_seconds)
        return Account(
            sum(seconds > goal_seconds for seconds in ordered),
            ordered[int(0.99 * (len(ordered) - 1))],
            self.replica_seconds,
            self.rebalances,
        )

    def _split(self) -> list[list[int]]:
        return split(self.partitions, self.consumers, RANGE)

    def _rebalance(self) -> None:
        self._held = self._split()
        self._paused_until = self.now + PAUSE_SECONDS
        self.rebalances += 1

    def _rewind(self, messages: float) -> None:
        for partition in range(self.curve.partitions):
            self.read[partition] -= messages / self.curve.partitions
            self._oldest[partition] = 0

    def _consume(self) -> None:
        capacity = self.curve.capacity(self.now)
        written, read = self.written, self.read
        wanted: list[tuple[int, float]] = []
        if not self.is_rebalancing:
            for held in self._held:
                lags = [(p, written[p] - read[p]) for p in held if written[p] > read[p]]
                waiting = 0.0
                for _, lag in lags:
                    waiting += lag
                if waiting > capacity:
                    part = capacity / waiting
                    wanted += [(p, lag * part) for p, lag in lags]
                else:
                    wanted += lags
        total = 0.0
        for _, messages in wanted:
            total += messages
        ceiling = self.curve.ceiling(self.now)
        allowed = min(1.0, ceiling / total) if total else 1.0
        for partition, messages in wanted:
            read[partition] += messages * allowed
        self.consumed = total * allowed
        self.busy = total / capacity / self.consumers
        self.cpu = self.consumed / self.curve.usual_capacity / self.consumers

    def _behind(self, partition: int) -> float:
        """Return how long the oldest unread message has waited."""
        if self.written[partition] - self.read[partition] <= NOTHING:
            self._oldest[partition] = self.now
            return 0.0
        history, read = self._history[partition], self.read[partition]
        at = self._oldest[partition]
        while at < len(history) - 1 and history[at] <= read + NOTHING:
            at += 1
        self._oldest[partition] = at
        # what was written before the run is older than the run
        older = 0.0
        if read < 0:
            older = -read / max(history[60] / 60, NOTHING) if len(history) > 60 else 0.0
        return self.now - max(at - 1, 0) + older if read >= 0 else self.now + older
