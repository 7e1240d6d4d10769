"""What is kept of a poll."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
