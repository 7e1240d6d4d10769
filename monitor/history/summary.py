"""What is kept of a poll, and what is told of the time between two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

POLL: Final = 0
"""Resolution of a single poll."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A row: what was found of a group at a Unix time, see `tables`.

    `status` is Burrow's number, of which the larger is the worse.
    """

    group_id: str
    at: float
    lag: int | None = None
    behind: float | None = None
    behind_since: float | None = None
    members: int | None = None
    status: int | None = None
    produced: float | None = None
    consumed: float | None = None
    rebalances: int | None = None
    seconds: int = POLL


class Gap(NamedTuple):
    """From one Unix time to another nobody looked: the monitor was not there, or reached no broker."""

    since: float
    until: float


AFTER_SECONDS: Final = 0.001
"""How long after the last look a gap begins, as two rows have two moments."""


def with_gaps(rows: Sequence[Summary], gaps: Sequence[Gap]) -> list[Summary]:
    """Return a group's rows, oldest first, and for each gap one that knows nothing.

    A row of many polls begins where a gap ends in it. One in which a gap begins and ends is too coarse
    to show it, and its value was seen again after it if a row follows at its end.
    """
    moments = [row.at for row in rows]
    found = [*rows]
    for gap in gaps:
        before, last = (bisect_right(moments, at) - 1 for at in gap)
        if last < 0:
            continue
        row = rows[last]
        end = row.at + row.seconds
        is_in_row = before == last and gap.until < end
        if is_in_row and moments[last + 1 : last + 2] == [end]:
            continue
        if before >= 0:
            found.append(Summary(row.group_id, gap.since + AFTER_SECONDS))
        if before < last and row.at < gap.until < end:
            found[last] = replace(row, at=gap.until)
    return sorted(found, key=lambda row: row.at)
