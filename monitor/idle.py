"""Groups that nobody reads with: MONITOR_HIDE_EMPTY_GROUPS leaves them out of what is shown.

Only of what is shown: their history goes on, so that a service whose only member restarts is not
taken for a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot


def without_idle_groups(
    snapshot: Snapshot, measured: Mapping[str, GroupMeasures]
) -> tuple[Snapshot, Mapping[str, GroupMeasures]]:
    """Return both without the groups that have no members and do not consume without any.

    A group of which that is not known is shown.
    """
    shown = {
        group_id: group
        for group_id, group in snapshot.groups.items()
        if group.members != () or not _is_idle(measured.get(group_id))
    }
    return (
        replace(snapshot, groups=shown),
        {group_id: of for group_id, of in measured.items() if group_id in shown},
    )


def _is_idle(measures: GroupMeasures | None) -> bool:
    activity = None if measures is None else measures.activity
    return activity is not None and activity.by_commits is not True
