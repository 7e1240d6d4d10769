"""The clock that records are stamped with, held against our own monotonic one.

Records are stamped by the wall clocks of brokers and producers, and our wall clock is taken to tell
the same. Where ours is set, theirs are not: so the offset of before is kept until a reply makes sense
by the new one only.
"""

from __future__ import annotations

CLOCK_SET_SECONDS = 0.05  # wall and monotonic clock apart by this much more: somebody set the clock


class RecordClock:
    """What the brokers' clock is taken to be at a poll.

    `now` is the poll's moment in monotonic seconds, `offset` what the brokers' clock is ahead of that.
    """

    __slots__ = ("_ours", "now", "offset")

    def __init__(self) -> None:
        self.now = self.offset = 0.0
        self._ours: float | None = None  # what our wall clock is ahead now

    def observe(self, now: float, wall: float) -> None:
        """Take in the time of a poll, by the monotonic and by our wall clock."""
        ours = wall - now
        if self._ours is None or abs(ours - self.offset) < CLOCK_SET_SECONDS:
            self.offset = ours
        self._ours, self.now = ours, now

    @property
    def wall(self) -> float:
        """Return the time of the poll by the clock that records are stamped with, epoch seconds."""
        return self.now + self.offset

    def is_at(self, offset: float) -> bool:
        """Tell whether the clock is still as it was; what was reckoned by another is not known."""
        return abs(offset - self.offset) < CLOCK_SET_SECONDS

    def was_set(self) -> bool:
        """Tell whether our wall clock was set since, and is not gone by."""
        return self._ours is not None and self._ours != self.offset

    def go_by_ours(self) -> float:
        """Go by our wall clock as it is now; return the offset of before."""
        before = self.offset
        if self._ours is not None:
            self.offset = self._ours
        return before
