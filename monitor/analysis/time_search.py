"""Which time to ask about next, to find when a record was appended in few questions."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.analysis.append_times import Point

RECENT_SECONDS = 60.0  # without history, the first guess: most groups lag by less
LEAPS = (1.25, 3.0)  # then further back than by the rate of what is known, by so much
REACH = 0.95  # of the tolerance: a question this far from a bound closes the bracket if it hits
STRETCH = 3  # how fast the steps grow that leave one end of a bracket


class Search:
    """Where to ask next for one committed offset."""

    __slots__ = (
        "above", "after", "began", "found", "gap_tried", "high", "leaps", "low", "narrowed",
        "streak", "stuck",
    )  # fmt: skip

    def __init__(self) -> None:
        self.began = False
        self.leaps = 0  # steps back in search of a lower bound
        self.gap_tried = False  # in this poll, while the bracket was wide
        self.narrowed = True  # since it was last asked, in a narrow one, if records are gone
        self.low, self.high = -inf, inf  # the bracket when the last question was asked
        self.above = -1  # the offset at which its upper bound was known
        self.after = -1  # the last read record, once asked what came after it
        self.found: tuple[float, float] | None = None  # the answer, and the wall offset it is for
        self.stuck = False  # nothing more is to be learned in this poll
        self.streak = 0  # replies in a row that moved the same end of the bracket; negative: high

    def first(self, above: Sequence[Point], *, target: int, end: int, wall: float) -> float:
        """Return the time to ask where nothing is known below the target; above, at least the end.

        A minute ago, then by that minute's rate, then the first record of all.
        """
        since = RECENT_SECONDS
        if len(above) > 1:
            offset, time = above[0]
            leap = LEAPS[self.leaps] if self.leaps < len(LEAPS) else inf
            self.leaps += 1
            since = leap * (wall - time) * (end - target) / (end - offset) if offset < end else inf
        return max(0.0, wall - since)

    def next(
        self,
        low: float,
        high: float,
        *,
        below: Sequence[Point],
        above: Sequence[Point],
        target: int,
        tolerance: float,
    ) -> float:
        """Return the time to ask, in the bracket whose ends are known by the first points.

        The points, nearest first, are at or below the target and above it.

        Records go on from the nearer end at the lowest rate seen thereabouts: a burst anywhere in
        the bracket doesn't move the guess. Each reply in a row that moves the same end stretches
        the next step from that end, up to the middle, so that a burst can't hold the search there.
        """
        first, end = below[0][0], above[0][0]
        if low > self.low and high == self.high:
            self.streak = max(self.streak, 0) + 1
        elif high < self.high and low == self.low:
            # no record between two questions: records lie thinner here than interpolation has it
            self.streak = min(self.streak, 0) - (2 if end == self.above else 1)
        else:
            self.streak = 0
        self.low, self.high, self.above = low, high, end
        middle, reach = (low + high) / 2, tolerance * REACH
        rate = min((end - first) / max(high - low, tolerance), _lowest_rate(below, above))
        after, before = (target - first) / rate, (end - target) / rate
        stretch = float(STRETCH ** max(0, abs(self.streak) - 1))
        if after <= before:
            guess = low + after * (stretch if self.streak > 0 else 1)
            guess = min(guess, middle)
        else:
            guess = high - before * (stretch if self.streak < 0 else 1)
            guess = max(guess, middle)
        # near an end, ask where the reply closes the bracket; elsewhere a little early, since a
        # reply from before the target brings its own timestamp along
        if guess - low <= reach:
            return min(low + reach, middle) if high - low < 2 * reach else low + reach
        if high - guess <= reach:
            return high - reach
        return max(low + reach, guess - reach / 2)


def _lowest_rate(*sides: Sequence[Point]) -> float:
    """Return the lowest number of records per second between points next to each other."""
    lowest = inf
    for points in sides:
        for (offset, time), (next_offset, next_time) in pairwise(points):
            if time != next_time:
                rate = (abs(offset - next_offset) + 1) / abs(time - next_time)
                lowest = min(lowest, rate)
    return lowest
