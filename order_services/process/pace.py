"""Turns that are so many seconds apart on average."""

from __future__ import annotations

import math


class Pace:
    """Says when the next turn may begin.

    One may come early: from the start of one turn alone, a turn that was late once would make all that
    follow late, where what they wait for comes as often as they may begin.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at = -math.inf

    def began(self, at: float) -> None:
        """Count a turn that began at `at` (of `time.monotonic`)."""
        # turns that did not wait, as those of full batches, must not add up
        self._due_at = max(min(self._due_at, at) + self._seconds, at)

    def due_in(self, now: float) -> float:
        """Return the seconds until the next turn may begin, 0 when it may."""
        return max(0.0, self._due_at - now)
