"""One poll's figures of a group: how many consumers it takes, and why, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from monitor.analysis.scaling.measuring import Sights
from monitor.analysis.scaling.rules import Decision, ScalingRules, Verdict
from monitor.analysis.scaling.shares import Loads, Partition, fewest, largest_share
from monitor.words import duration

# Of what the consumers manage; what is above is no overload yet, but the next wave of noise is.
FULL: Final = 0.97
# What a step down must leave free, or the step up follows at once.
ROOM_AFTER_DOWN: Final = 0.9
# Lag in seconds passes this share of its goal before new replicas work: time to ask for them.
SHARE_OF_GOAL: Final = 0.4


class Figures:
    """One poll's figures, and what follows from them."""

    def __init__(
        self,
        rules: ScalingRules,
        sights: Sights,
        held: float,
        assignor: str | None,
        *,
        limit: int,
        limited_by: str,
    ) -> None:
        last = sights.last
        self._rules = rules
        self._sights = sights
        self._held = held
        self._assignor = assignor
        self.soon = rules.start_seconds + rules.pause_seconds + 2 * sights.interval
        self.limit = limit
        self.limited_by = limited_by
        self.at = last.at
        self.members = last.members
        self.lag = sum(last.lags.values())
        self.arrivals: Loads = sights.arrivals() or {}
        self.long_arrivals: Loads = sights.arrivals(long=True) or {}
        self.arrival = sum(self.arrivals.values())
        self.consumed = sights.consumed()
        self.capacity = sights.capacity()
        self.seconds_behind = last.seconds_behind
        self.standing = sights.standing()

    def decision(self, replicas: int, verdict: Verdict, reason: str) -> Decision:
        """Return the answer with all that it was made of; never more than is of use, or allowed."""
        if self.standing:
            reason += (
                f" {len(self.standing)} partitions stand still although messages wait: look at their "
                "consumers, more replicas do not move them."
            )
        return Decision(
            replicas=min(self.limit, max(self._rules.least, replicas)),
            verdict=verdict,
            reason=reason,
            members=self.members,
            limit=self.limit,
            limited_by=self.limited_by,
            arrival=self.arrival if self.arrivals else None,
            consumed=self.consumed,
            lag=self.lag,
            lag_seconds=self.seconds_behind,
            per_consumer=self.capacity,
        )

    def needed_now(self) -> int:
        """Return how many it takes for what comes, and for the lag within the wanted time."""
        if self._share_now(self.arrivals) <= self._manages * FULL and not self._is_behind():
            return self.members
        return max(self._fewest(self._loads(), self._manages), self._rules.least)

    def needed_at_all(self) -> int:
        """Return how many it takes where there is nobody; one where it is not known what one manages."""
        return 1 if self.capacity is None else self._fewest(self._loads(), self._manages)

    def can_wait(self) -> bool:
        """Say whether lag stays below its goal until replicas that are asked for later work."""
        grows = max(0.0, 1 - self._manages / max(self._share_now(self.arrivals), self._manages))
        behind = (self.seconds_behind or 0.0) + grows * self.soon
        return behind < self._rules.goal_seconds * SHARE_OF_GOAL

    def needed_for_arrivals(self) -> int:
        """Return how many it takes for what comes alone."""
        loads = {partition: rate / FULL for partition, rate in self.arrivals.items()}
        return self._fewest(loads, self._manages)

    def needed_after_down(self) -> int:
        """Return the fewest that would do with room to spare; one level less where nobody knows."""
        if self._is_behind() or self.standing:
            return self.members
        # consumers that were slow may have recovered: without backlog nobody sees that
        capacity = self._sights.best_capacity if self._is_stale() else self.capacity
        if capacity is None:
            return self._next_lower()
        loads = {
            partition: max(rate, self.arrivals.get(partition, 0.0)) / ROOM_AFTER_DOWN
            + self._lag(partition) / self._rules.catch_up_seconds
            for partition, rate in self.long_arrivals.items()
        }
        return min(self.members, self._fewest(loads, capacity))

    def is_hot(self) -> bool:
        """Say whether one partition alone is more than a consumer manages."""
        return self.capacity is not None and max(self.arrivals.values(), default=0) > self.capacity

    # -- words ------------------------------------------------------------------------------------

    def load_in_words(self) -> str:
        """Say what comes, what is managed and what waits."""
        each = "?" if self.capacity is None else f"{self.capacity:.1f}"
        return f"{self.arrival:.1f} messages/s come, one consumer manages {each}, {self.lag} wait"

    def why_up(self, replicas: int) -> str:
        """Say why it should be so many more."""
        reason = (
            f"{self.load_in_words()}: {replicas} consumers work that off in "
            f"{duration(self._rules.catch_up_seconds)}."
        )
        if replicas >= self.limit:
            reason = f"{self.load_in_words()}: {replicas} is the limit ({self.limited_by})."
        if self.is_hot():
            reason += " One partition gets more than a consumer manages: replicas do not split it."
        return reason

    def why_down(self, replicas: int, held: float) -> str:
        """Say why fewer do; `held` is for how many seconds they have been enough."""
        return f"{self.load_in_words()}: {replicas} have been enough for {duration(held)}."

    def why_keep(self, held: float) -> str:
        """Say why it should stay as it is."""
        overloaded = self._share_now(self.arrivals) > self._manages
        if overloaded or self._is_behind():
            return f"{self.load_in_words()}: more would not make the largest share smaller ({self.limited_by})."
        return f"{self.load_in_words()}: they keep up; fewer are tried when they were enough for {duration(held)}."

    # -- how it is reckoned ----------------------------------------------------------------------------------

    @property
    def _manages(self) -> float:
        """Return what one consumer manages; raises ValueError as long as nobody knows."""
        if self.capacity is None:
            raise ValueError("no consumer has had a backlog yet")
        return self.capacity

    def _fewest(self, loads: Loads, capacity: float) -> int:
        return fewest(loads, capacity, self.limit, self._assignor)

    def _loads(self) -> Loads:
        """Return what each partition asks of its consumer, in messages per second."""
        rules = self._rules
        excess = max(0.0, 1 - self._manages / max(self._share_now(self.arrivals), self._manages))
        # seconds of messages that come to wait until others work
        more = rules.pause_seconds + excess * rules.start_seconds
        within = self._within((self.seconds_behind or 0.0) + more)
        return {
            partition: max(rate / FULL, rate + (self._lag(partition) + rate * more) / within)
            for partition, rate in self.arrivals.items()
        }

    def _lag(self, partition: Partition) -> int:
        """Return what waits for want of consumers: not where one stands still."""
        return 0 if partition in self.standing else self._sights.last.lag(partition)

    def _within(self, behind: float) -> float:
        """Return in how many seconds a lag is to be gone: soon where it is past its goal."""
        rules = self._rules
        return rules.catch_up_seconds if behind < rules.goal_seconds else rules.goal_seconds

    def _share_now(self, loads: Loads) -> float:
        """Return the load of the busiest member, by who holds what."""
        owners: Mapping[Partition, str] = self._sights.last.owners
        shares: dict[str, float] = {}
        for partition, load in loads.items():
            owner = owners.get(partition, "")
            shares[owner] = shares.get(owner, 0.0) + load
        return max(shares.values(), default=0.0)

    def _is_behind(self) -> bool:
        """Say whether the lag is large, and stays so with what there is."""
        behind = self.seconds_behind or 0.0
        if behind < self._rules.goal_seconds * SHARE_OF_GOAL:
            return False
        if self.capacity is None:
            return True
        loads = {
            partition: rate + self._lag(partition) / self._within(behind)
            for partition, rate in self.arrivals.items()
        }
        return self._share_now(loads) > self.capacity

    def _is_stale(self) -> bool:
        """Say whether nobody had a backlog for so long that consumers may manage more by now."""
        at = self._sights.capacity_at
        return at is None or self.at - at > 2 * self._held

    def _next_lower(self) -> int:
        """Return the next smaller number that makes a difference, `members` where there is none."""
        loads = {partition: rate + 1e-9 for partition, rate in self.long_arrivals.items()}
        if self.members <= 1 or not loads:
            return self.members
        below = largest_share(loads, self.members - 1, self._assignor)
        return fewest(loads, below * (1 + 1e-9), self.members - 1, self._assignor)
