"""What the page's scripts show, as documents of one cluster and poll.

Null is what is not known. Moments are Unix seconds, seconds are as of `seen_at`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from monitor.analysis.causes.finding import Cause, Finding
from monitor.analysis.measures import GroupMeasures, age
from monitor.analysis.rates import NEVER
from monitor.answers.clusters import NOT_IN_METADATA, why_incomplete
from monitor.answers.explanation import explanation
from monitor.answers.groups import group_detail, partition_rows
from monitor.answers.history import past_point
from monitor.answers.topics import topic_detail
from monitor.history.summary import Summary
from monitor.model import Group, Refused, Silent, Snapshot
from monitor.poller import Poller
from monitor.pools.report import PoolReport
from monitor.ranking import status_word, urgency
from monitor.state import State
from monitor.web.documents import Document
from monitor.web.past_alerts import past_alerts
from monitor.web.tool_commands import tool_commands
from monitor.web.trends import Trends
from monitor.words import with_remedy

HISTORY_SECONDS: Final = 3_600.0
# What a partition's row has, in this order: names in each of 20,000 rows would be most of the text.
PARTITION_COLUMNS: Final = (
    "topic",
    "partition",
    "current_offset",
    "readable_end",
    "log_end_offset",
    "lag",
    "lag_seconds",
    "status",
    "heard",
    "error",
    "past_end",
    "topic_is_gone",
    "retention_remaining_seconds",
    # its number in the list of members
    "owner",
)

# what a member holds is told by the rows
_ASSIGNMENT: Final = {"__all__": {"assignment"}}

ReadHistory = Callable[[str, str, float, float], Sequence[Summary] | None]
CausesOf = Callable[[State], Callable[[str], Finding | None]]
"""Returns what finds the cause of a group's lag in a state; None where that failed."""


def header(poller: Poller, state: State, name: str) -> dict[str, Any]:
    """Return what every page shows at its top: the cluster, and what is wrong with what is shown."""
    snapshot = state.snapshot
    told: dict[str, Any] = {
        "name": name,
        "cluster": state.cluster,
        "poll": poller.latest.state.monotonic_at,
        "now": time.time(),
        "seen_at": None,
        "reason": poller.unready_reason(),
        "incomplete": why_incomplete(state),
        "faults": [state.error] if state.error else [],
    }
    if snapshot is None:
        return told
    down = [
        f"broker {snapshot.brokers[broker].address}: {cause}"
        for broker, cause in snapshot.broker_errors.items()
        if broker in snapshot.brokers
    ]
    down += [f"broker {broker}: {NOT_IN_METADATA}" for broker in sorted(snapshot.missing_brokers)]
    return {
        **told,
        "seen_at": snapshot.taken_at,
        "faults": list(dict.fromkeys([*told["faults"], *down, *snapshot.errors])),
        "brokers": len(snapshot.brokers),
        "topics": len(snapshot.topics),
        "partitions": sum(len(topic.partitions) for topic in snapshot.topics.values()),
    }


def overview_document(poller: Poller, name: str, trends: Trends, causes_of: CausesOf) -> Document:
    """Return all groups of a cluster."""
    state = poller.shown()
    snapshot = state.snapshot
    told = header(poller, state, name)
    if snapshot is None:
        return Document.of({**told, "hidden": 0, "groups": []})
    cause_of = causes_of(state)
    ranked = sorted(state.groups, key=lambda group: urgency(state.groups[group]), reverse=True)
    return Document.of(
        {
            **told,
            "hidden": len(poller.current().groups) - len(state.groups),
            # the worst first: who needs help is decided here, in one place with `monitor groups`
            "groups": [
                _row(
                    snapshot,
                    snapshot.groups[group],
                    state.groups[group],
                    trends.of(state.cluster, group),
                    cause_of(group),
                )
                for group in ranked
            ],
        }
    )


def _row(
    snapshot: Snapshot,
    group: Group,
    measures: GroupMeasures,
    trend: Sequence[tuple[float, float | None]],
    why: Finding | None,
) -> dict[str, Any]:
    now = snapshot.seen_at
    rates = measures.rates.values()
    catch_ups = [each.catch_up for each in rates if each.catch_up is not None]
    finite = [each for each in catch_ups if each != NEVER]
    deleted_at = [
        risk.deleted_at
        for of_topic in measures.retention.values()
        for risk in of_topic.values()
        if risk.deleted_at is not None
    ]
    excess = [each for kinds in measures.imbalance.values() for each in kinds.values()]
    advice = measures.advice[0] if measures.advice else None
    behind = measures.behind(now)
    return {
        "group": group.id,
        "type": group.type,
        "state": group.state,
        "status": status_word(measures),
        "members": None if group.members is None else len(group.members),
        "lag": measures.lag.total if measures.lag.partitions else None,
        "lag_is": lag_is(snapshot, group, measures),
        "seconds": None if behind is None else round(behind, 1),
        "in": _sum(each.produced for each in rates),
        "out": _sum(each.consumed for each in rates),
        "catch_up": round(float(max(finite)), 1)
        if finite and len(finite) == len(catch_ups)
        else None,
        "never": len(finite) < len(catch_ups),
        "imbalance": round(max(excess), 3) if excess else None,
        "retention": round(age(now, min(deleted_at)), 1) if deleted_at else None,
        "lost": sum(measures.lost.values()),
        "cause": None if why is None or why.cause is Cause.HEALTHY else why.word,
        "sentence": None if why is None else why.sentence,
        "severity": None if advice is None else advice.severity.name.lower(),
        "stale": group.is_silent,
        "error": with_remedy(group.error) or None,
        "topics": sorted(group.topics),
        # `urgency`; infinite is null, and less than all
        "need": urgency(measures),
        "trend": trend,
    }


def lag_is(snapshot: Snapshot, group: Group, measures: GroupMeasures) -> str:
    """Say what a group's lag is: known, a lower bound (part), or why there is none."""
    match group.answer:
        case Refused():
            return "refused"
        case Silent() if not measures.lag.partitions:
            return "silent"
    if not any(group.commits.values()):
        return "not committed"
    if not measures.lag.partitions:
        refused = any(topic in snapshot.end_offsets.refused for topic in group.commits)
        return "refused" if refused else "unknown"
    whole = all(
        len(commits) == len(measures.lag.partitions.get(topic, ()))
        for topic, commits in group.commits.items()
        if topic in snapshot.topics
    )
    return "known" if whole else "part"


def group_document(
    poller: Poller,
    name: str,
    group_id: str,
    *,
    trends: Trends,
    causes_of: CausesOf,
    bootstrap_servers: Sequence[str],
    history: ReadHistory | None,
) -> Document | None:
    """Return all that the page of a group shows, None where no such group is known."""
    state = poller.current()
    snapshot = state.snapshot
    if snapshot is None or group_id not in snapshot.groups:
        return None
    group, measures = snapshot.groups[group_id], state.groups[group_id]
    why = causes_of(state)(group_id)
    # its partitions are rows of their own below: an object for each of 19,000 takes a second
    detail = group_detail(state.cluster, snapshot, group, measures, max_partitions=0, why=why)
    explained = None if why is None else explanation(state.cluster, snapshot, group_id, why)
    return Document.of(
        {
            **header(poller, state, name),
            **detail.model_dump(
                exclude={"partitions": True, "cluster": True, "member_list": _ASSIGNMENT}
            ),
            "lag_is": lag_is(snapshot, group, measures),
            "explanation": None if explained is None else explained.model_dump(),
            "group_seen_at": detail.seen_at,
            "seen_at": snapshot.taken_at,
            "poll_seconds": poller.interval_s,
            "trend": trends.of(state.cluster, group_id),
            **_past(history, state.cluster, group_id, measures),
            "commands": [
                asdict(each) for each in tool_commands(bootstrap_servers, snapshot, group, measures)
            ],
            "columns": PARTITION_COLUMNS,
            "rows": list(_partitions(snapshot, group, measures)),
        }
    )


def _past(
    history: ReadHistory | None, cluster: str, group: str, measures: GroupMeasures
) -> dict[str, Any]:
    until = time.time()
    found = None if history is None else history(cluster, group, until - HISTORY_SECONDS, until)
    if found is None:
        return {"past": None, "alerts": []}
    return {
        "past": [past_point(each).model_dump() for each in found],
        "alerts": [asdict(each) for each in past_alerts(found, until, measures.activity)],
    }


def _partitions(snapshot: Snapshot, group: Group, measures: GroupMeasures) -> Iterator[list[Any]]:
    stable, ends = snapshot.stable_offsets, snapshot.end_offsets
    owners = {member.id: number for number, member in enumerate(group.members or ())}
    for told in partition_rows(snapshot, group, measures):
        topic, partition = told["topic"], told["partition"]
        # where no transaction holds records back, all is readable
        readable = stable.get(topic, partition)
        told["owner"] = owners.get(told["consumer_id"])
        told["readable_end"] = ends.get(topic, partition) if readable is None else readable
        yield [told[column] for column in PARTITION_COLUMNS]


def topic_document(poller: Poller, name: str, topic_name: str) -> Document | None:
    """Return all that the page of a topic shows, None where no such topic is known."""
    state = poller.current()
    topic = None if state.snapshot is None else state.snapshot.topics.get(topic_name)
    if state.snapshot is None or topic is None:
        return None
    detail = topic_detail(state, topic).model_dump(exclude={"cluster"})
    return Document.of({**header(poller, state, name), **detail, "detail_error": detail["error"]})


def pools_document(report: PoolReport | None) -> Document:
    """Return what the page of the pools shows."""
    told = None if report is None else asdict(report)
    if report is not None and told is not None:
        for shown, use in zip(told["services"], report.services, strict=True):
            shown["one_more"] = str(use.one_more)
        for shown, budget in zip(told["budgets"], report.budgets, strict=True):
            shown["left"] = budget.left
    return Document.of({"now": time.time(), "report": told})


def _sum(rates: Any) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return round(sum(known), 2) if known else None
