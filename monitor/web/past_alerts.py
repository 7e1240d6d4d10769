"""Which of our own alerts about a group held in the past, as far as its history can tell.

The monitor has no Alertmanager: what is told is that the condition of a shipped rule
(`alerts/rules/consumer-groups.yml`) was true for as long as the rule waits, not that somebody was paged.
Rules about single topics or partitions are not among these, as the history has sums of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from monitor.analysis.activity import Activity
from monitor.history.summary import Summary
from monitor.words import duration

# A rule's patience with groups that commit seldom begins here.
LEAST_PATIENCE_SECONDS: Final = 300.0
FOR_SECONDS: Final = 300.0
LAG_TIME_HIGH_SECONDS: Final = 60.0
LAG_TIME_CRITICAL_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class PastAlert:
    """An alert of a group, from one Unix time to another; `until` is None while it holds."""

    name: str
    severity: str
    what: str
    since: float
    until: float | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A shipped rule: `begins` says from when on a row makes it true, None if it does not."""

    name: str
    severity: str
    what: str
    is_about: Callable[[Activity], bool]
    begins: Callable[[Summary, Activity], float | None]


def _behind(limit: float) -> Callable[[Summary, Activity], float | None]:
    def begins(row: Summary, activity: Activity) -> float | None:
        patience = activity.patience
        most = max(limit, patience) if patience > LEAST_PATIENCE_SECONDS else limit
        if row.behind_since is not None:
            # the row holds on, and what is unread grows older
            return row.behind_since + most
        return row.at if row.behind is not None and row.behind > most else None

    return begins


def _has_no_members(row: Summary, _: Activity) -> float | None:
    is_unread = row.behind_since is not None or bool(row.behind)
    return row.at if row.members == 0 and is_unread else None


RULES: Final = (
    Rule(
        "KafkaConsumerGroupWithoutMembers",
        "critical",
        "unread messages and no members",
        lambda activity: activity.by_members is not None and activity.by_commits is not True,
        _has_no_members,
    ),
    Rule(
        "KafkaConsumerLagTimeCritical",
        "critical",
        f"more than {duration(LAG_TIME_CRITICAL_SECONDS)} behind",
        lambda activity: activity.by_members is not None or activity.by_commits is True,
        _behind(LAG_TIME_CRITICAL_SECONDS),
    ),
    Rule(
        "KafkaConsumerLagTimeHigh",
        "warning",
        f"more than {duration(LAG_TIME_HIGH_SECONDS)} behind",
        lambda activity: activity.by_members is not None,
        _behind(LAG_TIME_HIGH_SECONDS),
    ),
)


def past_alerts(
    rows: Sequence[Summary], until: float, activity: Activity | None
) -> list[PastAlert]:
    """Return what held in a group's rows, oldest first; `until` is now, in Unix seconds.

    What kind of group it is, and how long it may be silent, is taken as it is known now.
    """
    if activity is None:
        return []
    found = [
        PastAlert(
            rule.name,
            rule.severity,
            f"{rule.what} for {duration(FOR_SECONDS)}",
            start + FOR_SECONDS,
            None if end == until else end,
        )
        for rule in RULES
        if rule.is_about(activity)
        for start, end in _held(rows, until, lambda row, rule=rule: rule.begins(row, activity))  # type: ignore[misc]
        if end - start >= FOR_SECONDS
    ]
    return sorted(found, key=lambda each: each.since)


def _held(
    rows: Sequence[Summary], until: float, begins: Callable[[Summary], float | None]
) -> list[tuple[float, float]]:
    """Return from when to when a condition was true without a break; a row holds until the next."""
    found: list[tuple[float, float]] = []
    for number, row in enumerate(rows):
        end = rows[number + 1].at if number + 1 < len(rows) else until
        begin = begins(row)
        if begin is None or begin >= end:
            continue
        # what was so at the first row was so before it
        start = max(row.at, begin) if number else begin
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
