"""What a command shows of one poll."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot


@dataclass(frozen=True, slots=True)
class Look:
    """What one poll saw: the groups that are meant, what could not be read, the trend of each.

    `notes` say what the settings left out.
    `trends` has the lag in seconds of the last polls, oldest first; None where it was not known.
    """

    snapshot: Snapshot
    groups: Mapping[str, GroupMeasures]
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()
    trends: Mapping[str, Sequence[float | None]] | None = None
