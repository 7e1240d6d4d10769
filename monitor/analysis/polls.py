"""When the last polls were made, and what follows from that: the window, and the pace."""

from __future__ import annotations

from collections import deque
from typing import Final

# A restart within so many polls is one in which nothing was missed.
AWAY_INTERVALS: Final = 3.0
# A group that was the same for so many polls is likely to stay so.
POLLS_TO_REST: Final = 3
# Those who have just begun to read are not judged by a poll or two.
POLLS_TO_SETTLE: Final = 4


class Polls:
    """The polls of one monitor, the one now going on included; moments are monotonic seconds.

    `number` is how many were made, `times` when the last ones were, a window of `intervals` at least.
    `last` is when the one before this was: None if there was none, or nobody polled in between.
    `is_first` says whether none has ended since the start of this process.
    """

    def __init__(self, intervals: int) -> None:
        self._intervals = intervals
        self._was_away = False
        self.number = 0
        self.times: deque[float] = deque(maxlen=max(intervals, POLLS_TO_REST))
        self.last: float | None = None
        self.is_first = True

    def begin(self, now: float) -> None:
        """Begin a poll."""
        self.last = self.times[-1] if self.times and not self._was_away else None
        self.number += 1
        self.times.append(now)

    def end(self) -> None:
        """End a poll."""
        self.is_first = self._was_away = False

    @property
    def now(self) -> float:
        """Return when this poll was."""
        return self.times[-1]

    @property
    def window_began(self) -> float:
        """Return when the window's oldest poll was."""
        return self.times[max(0, len(self.times) - self._intervals)]

    @property
    def resting_since(self) -> float:
        """Return of before when measures are that have been the same for some polls."""
        return self.times[-min(POLLS_TO_REST, len(self.times))]

    @property
    def settling_since(self) -> float:
        """Return of when who has begun to read since has done so for fewer than `POLLS_TO_SETTLE`.

        Within the window: later a group may rest, and is not measured anew.
        """
        return self.times[-min(POLLS_TO_SETTLE, self._intervals, len(self.times))]

    @property
    def interval(self) -> float:
        """Return the mean time between two polls of the window, 0 before there are two."""
        polls = min(len(self.times), self._intervals)
        return (self.now - self.window_began) / (polls - 1) if polls > 1 else 0.0

    def restore(self, number: int, times: list[float], now: float) -> bool:
        """Go on from so many polls before a restart; tell whether some were missed until now.

        Raises ValueError where no poll was made.
        """
        if not times:
            raise ValueError("no poll was made")
        self.number = number
        self.times.extend(times)
        interval = (times[-1] - times[0]) / max(1, len(times) - 1)
        self._was_away = now - times[-1] > AWAY_INTERVALS * interval
        return self._was_away
