"""Monotone (offset, time) facts of when a log's records were appended.

- *lower*: records at or after offset ``x`` were appended at ``t`` or later;
- *upper*: records before offset ``x`` were appended at ``t`` or earlier.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection

Point: TypeAlias = tuple[int, float]
"""Offset and time in seconds."""

POINTS_KEPT = 48  # polls, or replies, remembered of a partition that somebody lags on: 1.2 kB


class Facts:
    """Monotone (offset, time) steps: of facts that say the same, only the strongest is kept."""

    __slots__ = ("offsets", "times")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.times: list[float] = []

    def add_lower(self, offset: int, time: float) -> None:
        """Note that records at or after the offset came then or later."""
        offsets, times = self.offsets, self.times
        at = bisect_right(offsets, offset)
        if at and times[at - 1] >= time:
            return
        end = bisect_right(times, time, at)
        start = at - 1 if at and offsets[at - 1] == offset else at
        offsets[start:end] = [offset]
        times[start:end] = [time]

    def add_upper(self, offset: int, time: float) -> None:
        """Note that records before the offset came then or earlier."""
        offsets, times = self.offsets, self.times
        at = bisect_left(offsets, offset)
        if at < len(offsets) and times[at] <= time:
            return
        start = bisect_left(times, time, 0, at)
        end = at + 1 if at < len(offsets) and offsets[at] == offset else at
        offsets[start:end] = [offset]
        times[start:end] = [time]

    def points(self) -> list[Point]:
        """Return all of them."""
        return list(zip(self.offsets, self.times, strict=True))

    def lower(self, offset: int) -> Point:
        """Return the last point at or below the offset."""
        at = bisect_right(self.offsets, offset)
        return (self.offsets[at - 1], self.times[at - 1]) if at else (-1, -inf)

    def upper(self, offset: int) -> Point:
        """Return the first point above the offset."""
        at = bisect_right(self.offsets, offset)
        return (self.offsets[at], self.times[at]) if at < len(self.offsets) else (-1, inf)

    def before(self, offset: int) -> list[Point]:
        """Return the two last points at or below the offset."""
        at = bisect_right(self.offsets, offset)
        first = at - 2 if at > 1 else 0
        return list(zip(self.offsets[first:at], self.times[first:at], strict=True))

    def after(self, offset: int) -> list[Point]:
        """Return the two first points above the offset."""
        at = bisect_right(self.offsets, offset)
        return list(zip(self.offsets[at : at + 2], self.times[at : at + 2], strict=True))

    def truncate(self, end: int) -> None:
        """Forget the points past a log end."""
        at = bisect_right(self.offsets, end)
        del self.offsets[at:], self.times[at:]

    def prune(self, offsets: Collection[int]) -> None:
        """Keep what lies from just below the lowest of the offsets on, and thin that out."""
        first = max(0, bisect_right(self.offsets, min(offsets)) - 1)
        del self.offsets[:first], self.times[:first]
        if len(self.offsets) > POINTS_KEPT:
            keep = thinned(self.offsets, offsets)
            self.offsets = [self.offsets[i] for i in keep]
            self.times = [self.times[i] for i in keep]


def thinned(points: list[int] | array[int], wanted: Collection[int]) -> list[int]:
    """Return the indices to keep: around the wanted offsets, the newest half, every second older one."""
    kept = set(range(len(points) // 2, len(points))) | set(range(0, len(points) // 2, 2))
    for offset in wanted:
        at = bisect_right(points, offset)
        kept.update(i for i in (at - 1, at) if 0 <= i < len(points))
    return sorted(kept)
