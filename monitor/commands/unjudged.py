"""Groups of which no lag can be told, though all about them was answered: nothing is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.words import plural

_FILTERS: Final = "MONITOR_TOPICS_ALLOW or MONITOR_TOPICS_DENY"


def why_not_judged(
    measures: GroupMeasures, wants_topic: Callable[[str], bool] | None
) -> str | None:
    """Return why a group has nothing to judge, None where it has, or that could not be read.

    `wants_topic` is what the settings say of topics. A commit on a topic that is gone, or may not be
    described, is something that could not be read.
    """
    group = measures.group
    if group.error is not None or group.commits.keys() - measures.not_consumed:
        return None
    held = list(group.assignments())
    if held:
        return (
            f"it holds {plural(len(held), 'partition')} and has committed no offset of them: it "
            "keeps its offsets elsewhere, or has not committed yet"
        )
    if group.left_out:
        return f"it reads only topics that are left out by {_FILTERS}"
    if group.members:
        return (
            "its members hold no partition and it has committed no offset: there may be no topic yet "
            "that they ask for"
        )
    unless = "" if wants_topic is None else f", but for topics that are left out by {_FILTERS}"
    return f"it has no members and no committed offset{unless}"
