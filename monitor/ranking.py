"""Which groups need somebody most: the order of the status page and of `monitor groups`."""

from __future__ import annotations

from math import inf
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.analysis.status import Status

NOT_JUDGED: Final = "new"
"""Shown in place of a status that rests on too few polls."""


def urgency(measures: GroupMeasures) -> tuple[int, int, float, int]:
    """Return a key by which the worst group is the largest."""
    status = measures.status.status
    return (
        max((advice.severity for advice in measures.advice), default=0),
        0 if status is Status.NOTFOUND else int(status),
        -inf if measures.behind_since is None else -measures.behind_since,
        measures.lag.total,
    )


def status_word(measures: GroupMeasures) -> str | None:
    """Return a group's status in a word, None when there is nothing to judge it by."""
    status = measures.status
    if status.status is Status.NOTFOUND:
        return None
    if status.status is Status.OK and status.complete < 1:
        return NOT_JUDGED
    return status.status.name
