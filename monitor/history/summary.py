"""What is kept of a poll, and what is told of the time between two."""

from __future__ import annotations

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

    A row that stands for some time ends where a gap begins in it; one in which a gap begins and ends
    is too coarse to show it.
    """
    if not rows:
        return []
    found: list[Summary] = []
    shown = [gap for gap in gaps if gap.since >= rows[0].at - rows[0].seconds]
    for row in rows:
        inside = [gap for gap in shown if row.at - row.seconds < gap.since < row.at]
        if inside and inside[-1].until > row.at:
            row = replace(row, at=inside.pop().since)  # noqa: PLW2901
        found.append(row)
        shown = [gap for gap in shown if gap not in inside]
    found += [Summary(rows[0].group_id, gap.since + AFTER_SECONDS) for gap in shown]
    return sorted(found, key=lambda row: row.at)
