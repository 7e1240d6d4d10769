"""What the last polls saw of a group at work: rates by partition, and what one consumer manages.

All are differences of offsets between polls. What a consumer manages is known only while it had a
backlog all the time: then its rate is its capacity. A consumer without backlog shows only that it
manages at least as much as it did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from monitor.analysis.scaling.shares import Partition

# Long enough to even out batches and commits, short enough to see a step while it is small; and never
# fewer polls than tell a rate, where polls are rare.
WINDOW_SECONDS: Final = 20.0
LONG_WINDOW_SECONDS: Final = 60.0
WINDOW_POLLS: Final = 2
LONG_WINDOW_POLLS: Final = 4
# What a capacity is taken from: the last windows in which somebody had a backlog.
KEPT_CAPACITIES: Final = 3
# In flight is what comes within a poll; half as much again is a backlog.
BACKLOG_OF_IN_FLIGHT: Final = 1.5


@dataclass(frozen=True, slots=True)
class Sight:
    """A group as one poll saw it, at a moment in monotonic seconds.

    `ends` and `commits` have offsets of the partitions whose both are known; `owners` says which
    member holds a partition; `members` counts them all, idle ones too. `seconds_behind` is the lag in
    seconds of the partition that is furthest behind, None where that is not known. `unread` has what
    of a partition's lag can be read, where that is not all of it.
    """

    at: float
    ends: Mapping[Partition, int]
    commits: Mapping[Partition, int]
    owners: Mapping[Partition, str]
    members: int
    seconds_behind: float | None = None
    is_rebalancing: bool = False
    unread: Mapping[Partition, int] = field(default_factory=dict)

    def lag(self, partition: Partition) -> int:
        """Return the unread messages of a partition; 0 where its offsets are not known."""
        if partition not in self.commits or partition not in self.ends:
            return 0
        unread = self.unread.get(partition)
        return max(0, self.ends[partition] - self.commits[partition]) if unread is None else unread

    @property
    def lags(self) -> dict[Partition, int]:
        """Return the unread messages of each partition."""
        return {partition: self.lag(partition) for partition in self.ends}


class Sights:
    """The last sights of a group; rates are messages per second."""

    def __init__(self) -> None:
        self._seen: deque[Sight] = deque()
        # since this moment the partitions have had the owners that they have
        self._settled_at = 0.0
        self._capacities: deque[float] = deque(maxlen=KEPT_CAPACITIES)
        self.capacity_at: float | None = None
        """When a consumer was last seen to have a backlog."""
        self.best_capacity: float | None = None
        """The most that one consumer was ever seen to manage under backlog."""

    def add(self, sight: Sight) -> None:
        """Take in a poll's sight, each later than the one before."""
        before = self._seen[-1] if self._seen else None
        moved_back = before is not None and any(
            sight.ends.get(partition, end) < end for partition, end in before.ends.items()
        )
        if moved_back:  # topics that were created anew
            self._seen.clear()
        if before is None or sight.owners != before.owners or sight.is_rebalancing:
            self._settled_at = sight.at
        self._seen.append(sight)
        while len(self._seen) > LONG_WINDOW_POLLS + 1 and self._seen[-1].at - self._seen[1].at >= (
            LONG_WINDOW_SECONDS
        ):
            self._seen.popleft()
        self._learn()

    @property
    def last(self) -> Sight:
        """Return the last; raises IndexError before the first."""
        return self._seen[-1]

    @property
    def settled_seconds(self) -> float:
        """Return for how long the partitions have had their owners."""
        return self.last.at - self._settled_at

    @property
    def interval(self) -> float:
        """Return the seconds between polls, 0 while there was but one."""
        if len(self._seen) < 2:
            return 0.0
        return (self._seen[-1].at - self._seen[0].at) / (len(self._seen) - 1)

    def arrivals(self, *, long: bool = False) -> dict[Partition, float] | None:
        """Return what came by partition, over the short window or the long; None before the second poll."""
        first = self._first_since(self._long_window if long else self._window)
        elapsed = self.last.at - first.at
        if elapsed <= 0:
            return None
        return {
            partition: (end - first.ends.get(partition, end)) / elapsed
            for partition, end in self.last.ends.items()
        }

    @property
    def _window(self) -> float:
        """When the short window began."""
        return self._began(WINDOW_SECONDS, WINDOW_POLLS)

    @property
    def _long_window(self) -> float:
        return self._began(LONG_WINDOW_SECONDS, LONG_WINDOW_POLLS)

    def _began(self, seconds: float, polls: int) -> float:
        return min(self.last.at - seconds, self._seen[max(0, len(self._seen) - 1 - polls)].at)

    def consumed(self) -> float | None:
        """Return what all consumed together since they settled; None before the second poll since."""
        first = self._first_since(max(self._window, self._settled_at))
        elapsed = self.last.at - first.at
        return None if elapsed <= 0 else sum(_progress(first, self.last).values()) / elapsed

    def all_have_backlog(self) -> bool:
        """Say whether each member that holds partitions had a backlog at each of the last polls."""
        owners = set(self.last.owners.values())
        return bool(owners) and len(self._with_backlog()) == len(owners)

    def nobody_has_backlog(self) -> bool:
        """Say whether no member had one; False as long as they are not settled."""
        return bool(self._rates()) and not self._with_backlog()

    def standing(self) -> frozenset[Partition]:
        """Return the partitions of which nothing was consumed for long, although messages waited."""
        since = max(self._long_window, self._settled_at)
        window = [sight for sight in self._seen if sight.at >= since]
        if not window or self.last.at - window[0].at < LONG_WINDOW_SECONDS / 2:
            return frozenset()
        return frozenset(
            partition
            for partition, commit in self.last.commits.items()
            if all(s.commits.get(partition) == commit and s.lag(partition) for s in window)
        )

    def capacity(self) -> float | None:
        """Return what one consumer manages, None as long as none had a backlog."""
        return median(self._capacities) if self._capacities else None

    def _learn(self) -> None:
        rates = self._with_backlog()
        if rates:
            rate = median(rates)
            known = self.capacity()
            if known is not None and not known / 2 <= rate <= known * 2:
                # consumers have become another kind: what they managed before tells nothing
                self._capacities.clear()
            self._capacities.append(rate)
            self.capacity_at = self.last.at
            self.best_capacity = max(self.best_capacity or 0.0, self.capacity() or 0.0)
            return
        known = self.capacity()
        if known is not None and (best := max(self._rates().values(), default=0.0)) > known:
            self._capacities.clear()
            self._capacities.append(best)

    def _rates(self) -> dict[str, float]:
        """Return what each member consumed in the last window, if they have had their partitions for it."""
        first = self._first_since(max(self._window, self._settled_at))
        elapsed = self.last.at - first.at
        if elapsed < WINDOW_SECONDS / 2:
            return {}
        rates = dict.fromkeys(self.last.owners.values(), 0.0)
        for partition, messages in _progress(first, self.last).items():
            owner = self.last.owners.get(partition)
            if owner is not None:
                rates[owner] += messages / elapsed
        return rates

    def _with_backlog(self) -> list[float]:
        """Return the rates of the members that had a backlog at each poll of the last window."""
        since = max(self._window, self._settled_at)
        window = [sight for sight in self._seen if sight.at >= since]
        found = []
        for member, rate in self._rates().items():
            # what stands still, as at a poisonous message, waits for something else than time
            held = [
                partition
                for partition, owner in self.last.owners.items()
                if owner == member
                and self.last.commits.get(partition) != window[0].commits.get(partition)
            ]
            least = min(sum(sight.lag(partition) for partition in held) for sight in window)
            if rate > 0 and least > rate * self.interval * BACKLOG_OF_IN_FLIGHT:
                found.append(rate)
        return found

    def _first_since(self, moment: float) -> Sight:
        return next((sight for sight in self._seen if sight.at >= moment), self.last)


def _progress(first: Sight, last: Sight) -> dict[Partition, int]:
    """Return what was consumed of each partition; of one that was rewound nothing is known."""
    return {
        partition: max(0, commit - first.commits.get(partition, commit))
        for partition, commit in last.commits.items()
    }
