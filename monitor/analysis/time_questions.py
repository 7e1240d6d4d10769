"""Asks brokers when records were appended, as long as anything is in doubt and a poll has time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monitor.analysis.timelag import TimeLag
    from monitor.guard import Guard

Times: TypeAlias = "Mapping[str, Mapping[int, int]]"
"""Topic -> partition -> Unix time in milliseconds."""
TimeReplies: TypeAlias = "Mapping[str, Mapping[int, tuple[int, int]]]"
"""Topic -> partition -> (offset, time in ms) of the first record that is as new, (-1, -1) if none."""
AskTimes: TypeAlias = "Callable[[Times], TimeReplies]"

# Per poll and broker. With five, one figure in eighty on a compacted topic that two groups read was
# more than half a second off; with six, one in a hundred and forty.
MAX_TIME_QUESTIONS: Final = 6
# With no polls to narrow the search it takes longer, most of all where a bulk load gave thousands of
# records one timestamp.
MAX_FIRST_TIME_QUESTIONS: Final = 12


def find_times(times: TimeLag, ask: AskTimes, guard: Guard, *, is_first_poll: bool) -> None:
    """Ask what is in doubt, one request per broker at a time."""
    for _ in range(MAX_FIRST_TIME_QUESTIONS if is_first_poll else MAX_TIME_QUESTIONS):
        asked = times.questions()
        if not asked:
            return
        wanted: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for (topic, partition), milliseconds in asked.items():
            wanted[topic][partition] = milliseconds
        replies = guard.attempt("times", "", ask, wanted) or {}
        times.answers(
            asked,
            {
                (topic, partition): answer
                for topic, partitions in replies.items()
                for partition, answer in partitions.items()
            },
        )
