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
    """Return both without the groups that have no members and whose commits do not move."""
    shown = {
        group_id: group
        for group_id, group in snapshot.groups.items()
        if group.members != () or _is_moving(measured.get(group_id))
    }
    return (
        replace(snapshot, groups=shown),
        {group_id: of for group_id, of in measured.items() if group_id in shown},
    )


def _is_moving(measures: GroupMeasures | None) -> bool:
    return measures is not None and any(rates.consumed for rates in measures.rates.values())
