"""Which time to ask about next, to find when a record was appended in few questions."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.analysis.append_facts import Point

# Two clocks are read one after the other: what differs by less is the same moment, and stays it.
SAME_MOMENT_SECONDS = 0.001
RECENT_SECONDS = 60.0  # without history, the first guess: most groups lag by less
LEAPS = (1.25, 3.0)  # then further back than by the rate of what is known, by so much
REACH = 0.95  # of the tolerance: a question this far from a bound closes the bracket if it hits
STRETCH = 3  # how fast the steps grow that leave one end of a bracket
PAUSE = 3  # brackets that records at the rate above it would fill: the target came before a pause
UNEVEN = 5  # a rate this many times lower than the bracket's: there is a burst, or a pause, in it


class Search:
    """Where to ask next for one committed offset."""

    __slots__ = (
        "above", "after", "began", "dated", "dated_at", "found", "gap_tried", "high", "leaps", "low",
        "narrowed", "stamp", "streak", "stuck", "told",
    )  # fmt: skip

    def __init__(self) -> None:
        self.began = False
        self.leaps = 0  # steps back in search of a lower bound
        self.gap_tried = False  # in this poll, while the bracket was wide
        self.narrowed = True  # since it was last asked, in a narrow one, if records are gone
        self.low, self.high = -inf, inf  # the bracket when the last question was asked
        self.above = -1  # the offset at which its upper bound was known
        self.after = -1  # the last read record, once asked what came after it
        # the answer in monotonic seconds, and the wall offset it is for
        self.found: tuple[float, float] | None = None
        self.told = -inf  # the moment that was told last
        self.stamp: float | None = None  # the very record's timestamp, in seconds, once brought
        self.dated_at: tuple[float, float] | None = None  # the same as `found` is
        self.dated = False  # its timestamp was asked for, beside when it was appended
        self.stuck = False  # nothing more is to be learned in this poll
        self.streak = 0  # replies in a row that moved the same end of the bracket; negative: high

    def find(self, moment: float, wall_offset: float) -> None:
        """Note the answer, in monotonic seconds, and by which offset of the wall clock."""
        self.found = self.tell(moment), wall_offset

    def tell(self, moment: float) -> float:
        """Return the moment that was told before where this is the same, as far as clocks tell."""
        if abs(moment - self.told) > SAME_MOMENT_SECONDS:
            self.told = moment
        return self.told

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

        Near an end, that is where the reply closes the bracket. Each reply in a row that moves the
        same end stretches the next step from that end: what was guessed wrongly can't hold the
        search there.
        """
        end = above[0][0]
        if low > self.low and high == self.high:
            self.streak = max(self.streak, 0) + 1
        elif high < self.high and low == self.low:
            # no record between two questions: records lie thinner here than interpolation has it
            self.streak = min(self.streak, 0) - (2 if end == self.above else 1)
        else:
            self.streak = 0
        self.low, self.high, self.above = low, high, end
        reach = tolerance * REACH
        if high - low <= 2 * reach:
            return (low + high) / 2
        guess = self._guess(low, high, below=below, above=above, target=target)
        return min(max(guess, low + reach), high - reach)

    def _guess(
        self,
        low: float,
        high: float,
        *,
        below: Sequence[Point],
        above: Sequence[Point],
        target: int,
    ) -> float:
        """Return when the target came, as far as the rates at both ends tell.

        At the bracket's own rate while those are much the same; else records go on from the nearer
        end at the lowest rate seen thereabouts: a burst in the bracket doesn't move the guess. Where
        so few records come before the upper bound that the target can't be one of them, what is in
        the bracket came soon after the lower one: written at once, or until a producer stopped.
        """
        first, end = below[0][0], above[0][0]
        middle, width = (low + high) / 2, high - low
        rate, rate_below, rate_above = (
            (end - first) / width,
            _lowest_rate(below),
            _lowest_rate(above),
        )
        stretch_low = float(STRETCH ** max(0, self.streak - 1))
        stretch_high = float(STRETCH ** max(0, -self.streak - 1))
        paused = rate_above * UNEVEN < rate <= rate_below * UNEVEN
        if paused and (end - target) / rate_above > PAUSE * width:
            if rate_below == inf:
                return low  # what comes next to it tells a rate
            guess = low + (target - first) / max(rate, rate_below) * stretch_low
            return min(guess, middle) if self.streak < 0 else guess
        lowest = min(rate_below, rate_above)
        if lowest * UNEVEN < rate:
            rate = lowest
        after, before = (target - first) / rate, (end - target) / rate
        if after <= before:
            return min(low + after * stretch_low, middle)
        return max(high - before * stretch_high, middle)


def _lowest_rate(points: Sequence[Point]) -> float:
    """Return the lowest number of records per second between points next to each other."""
    return min(
        (
            (abs(offset - next_offset) + 1) / abs(time - next_time)
            for (offset, time), (next_offset, next_time) in pairwise(points)
            if time != next_time
        ),
        default=inf,
    )
