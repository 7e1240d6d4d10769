"""What the monitor says of the order system's groups while all is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from monitor.analysis.causes.finding import Cause
from order_services.domain import topics
from tests.support.causes_table import NO_FAULT
from tests.support.running_system import get_json
from tests.support.waiting import wait_for
from tests.support.watched_system import WatchedSystem

ORDERS_PER_SECOND: Final = 15.0
GROUPS: Final = [group.group_id for group in topics.GROUPS]


@dataclass
class OfGroup:
    """What was told of a group: how often it was asked for, and the oldest that its records became."""

    looks: int = 0
    causes: set[Cause] = field(default_factory=set)
    behind: float = 0.0

    @property
    def is_well(self) -> bool:
        """Say whether nothing was named that is anybody's fault."""
        return self.causes <= NO_FAULT


def causes(system: WatchedSystem) -> Mapping[str, Cause]:
    """Return group -> cause, of the groups that the monitor has seen."""
    page = get_json(f"{system.monitor.url}/api/v1/groups")
    seen = {group["group"] for group in page["groups"]}
    return {
        group: Cause(get_json(f"{system.monitor.url}/api/v1/explain/{group}")["cause"])
        for group in GROUPS
        if group in seen
    }


def told_in_health(
    system: WatchedSystem, seconds: float, tell: Callable[[str], None] = lambda _: None
) -> Mapping[str, OfGroup]:
    """Wait until all groups are well, and return what is told of each for so long after.

    `tell` is called once a minute with how it goes.
    """
    wait_for("groups that are well", lambda: causes(system) == dict.fromkeys(GROUPS, Cause.HEALTHY))
    told = {group: OfGroup() for group in GROUPS}
    began = time.monotonic()
    minutes = 0
    while (passed := time.monotonic() - began) < seconds:
        if passed // 60 > minutes:
            minutes = int(passed // 60)
            blamed = [group for group, of in told.items() if not of.is_well]
            looks = min(of.looks for of in told.values())
            tell(f"{minutes} min, {looks:,} looks at each; blamed: {', '.join(blamed) or 'nobody'}")
        for group, cause in causes(system).items():
            told[group].looks += 1
            told[group].causes.add(cause)
        for row in get_json(f"{system.monitor.url}/api/v1/groups")["groups"]:
            if row["group"] in told:
                told[row["group"]].behind = max(
                    told[row["group"]].behind, row["max_lag_seconds"] or 0.0
                )
        time.sleep(0.5)
    return told
