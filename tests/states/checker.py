"""One checker for all states: what each surface says against what is right."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.states.model import GROUP_PREFIX, Answer, Evidence, State, matches, value_of
from tests.support.causes_table import NO_FAULT


def violations(state: State, evidence: Evidence) -> list[str]:
    """Return what is wrong, one line each, with the surface that it is on."""
    return [
        f"{surface}: {fault}"
        for surface, faults in (
            ("/metrics", _metrics(state, evidence)),
            ("advice", _advice(state, evidence)),
            ("/ready", _ready(state, evidence)),
            ("page", _page(state, evidence)),
            ("monitor lag", _lag(state, evidence)),
            ("monitor groups", _groups(state, evidence)),
            ("alerts", _alerts(state, evidence)),
            ("explain", _causes(state, evidence)),
        )
        for fault in faults
    ]


def _metrics(state: State, evidence: Evidence) -> Iterator[str]:
    right, group = state.right, state.group_id
    first, last = evidence.pages[0], evidence.pages[-1]
    total = value_of(first, f"{GROUP_PREFIX}lag_sum", group)
    if not matches(right.lag, total):
        yield f"lag_sum at the first look is {_said(total)}, right is {right.lag}"
    for name, value in right.series.items():
        seen = value_of(last, GROUP_PREFIX + name, group)
        if not matches(value, seen):
            yield f"{name} is {_said(seen)} at the end, right is {value}"
    for name, value in right.always.items():
        for minute, page in enumerate(evidence.pages[2:], 2):
            seen = value_of(page, GROUP_PREFIX + name, group)
            if not matches(value, seen):
                yield f"{name} is {_said(seen)} in minute {minute}, right is always {value}"
                break
    for name, value in right.cluster.items():
        seen = value_of(last, name)
        if not matches(value, seen):
            yield f"{name} is {_said(seen)} at the end, right is {value}"
    yield from _never_negative(state, evidence)
    yield from _status(state, evidence)
    for name, labels in last:
        if name in ("kafka_monitor_internal_errors", "kafka_monitor_poll_failed"):
            told = dict(labels)
            if name not in right.cluster and told.get("subject", group) == group:
                yield f"{name} is told: {told}"


def _never_negative(state: State, evidence: Evidence) -> Iterator[str]:
    group = state.group_id
    for minute, page in enumerate(evidence.pages):
        negative = [
            name
            for name in page.names_of(group)
            if "velocity" not in name and any(value < 0 for _, value in page.of(group, name))
        ]
        if negative:
            yield f"{negative[0]} is negative in minute {minute}"
            break


def _status(state: State, evidence: Evidence) -> Iterator[str]:
    right, group, last = state.right, state.group_id, evidence.pages[-1]
    told = {
        labels["status"]
        for page in evidence.pages
        for labels, value in page.of(group, f"{GROUP_PREFIX}status")
        if value
    }
    if wrong := told - {*right.status, right.status_at_end}:
        yield f"status {', '.join(sorted(wrong))} is told, right is {' or '.join(right.status) or 'none'}"
    at_end = right.status_at_end
    if at_end and not value_of(last, f"{GROUP_PREFIX}status{{status={at_end}}}", group):
        yield f"status {at_end} is not told at the end"


def _advice(state: State, evidence: Evidence) -> Iterator[str]:
    told: set[tuple[str, str]] = set()
    at_end: set[str] = set()
    for page in evidence.pages:
        causes = [labels for labels, _ in page.of(state.group_id, f"{GROUP_PREFIX}advice")]
        told.update((labels["severity"], labels["cause"]) for labels in causes)
        at_end = {labels["cause"] for labels in causes}
    right = state.right
    for cause in right.advice:
        if cause not in at_end:
            yield f"{cause} is not told at the end"
    for cause in right.over:
        if cause in at_end:
            yield f"{cause} is still told at the end"
    for severity, cause in sorted(told):
        if severity != "info" and cause not in right.advice + right.may_advise + right.over:
            yield f"{cause} ({severity}) is told"


def _causes(state: State, evidence: Evidence) -> Iterator[str]:
    """Whoever is well has no cause; what is somebody's fault is named only where it is."""
    told = {causes[state.group_id] for causes in evidence.causes if state.group_id in causes}
    for cause in sorted(told - NO_FAULT - set(state.right.causes)):
        yield f"{cause} is named as the cause of its lag"


def _ready(state: State, evidence: Evidence) -> Iterator[str]:
    is_ready, reason = evidence.ready
    if is_ready != state.right.ready:
        yield f"says {'ready' if is_ready else f'not ready ({reason})'}"
    elif state.right.ready_says not in reason:
        yield f"does not say {state.right.ready_says!r} but {reason!r}"


# ours are files, and have nothing in them
OTHERS_SCRIPT: Final = re.compile(
    r'<script(?! src="/static/[\w/.]+" (?:defer|type="module")></script>'
    r'| id="clusters" type="application/json">[^<]*</script>)'  # names, with every < escaped
)


def _page(state: State, evidence: Evidence) -> Iterator[str]:
    page = html.unescape(evidence.html)
    yield from _texts(page, state.right.page_says, state.right.page_never)
    if OTHERS_SCRIPT.search(evidence.html):
        yield "has a script that is none of ours"


def _lag(state: State, evidence: Evidence) -> Iterator[str]:
    right = state.right
    yield from _well_ended(evidence.lag, right.exit_code)
    part = _part(state.group_id, evidence.lag.out) + evidence.lag.err
    yield from _texts(part, right.lag_says, right.lag_never)
    if not state.group_id.isprintable():
        yield from _safe(evidence.lag.out)
    if right.exit_code == 2:
        return
    total = right.commands_lag
    if total is None and state.where == "broker":
        total = right.lag
    try:
        told: dict[str, Any] = {
            one["group"]: one for one in json.loads(evidence.lag_json.out)["groups"]
        }
    except ValueError:
        yield f"--output json is no JSON: {evidence.lag_json.text[:200]!r}"
        return
    if state.group_id not in told:
        if total is None or not matches(total, None):
            yield "json: the group is not there"
    elif total is not None and not matches(total, told[state.group_id]["total_lag"]):
        yield f"json: total_lag is {told[state.group_id]['total_lag']}, right is {total}"
    for advice in told.get(state.group_id, {"advice": []})["advice"]:
        may = right.advice + right.may_advise + right.over
        if advice["severity"] != "info" and advice["cause"] not in may:
            yield f"json: advice {advice['cause']} ({advice['severity']}) is told"


def _groups(state: State, evidence: Evidence) -> Iterator[str]:
    yield from _well_ended(evidence.groups, state.right.exit_code)
    if not state.group_id.isprintable():
        yield from _safe(evidence.groups.out)


def _alerts(state: State, evidence: Evidence) -> Iterator[str]:
    about = {
        one.name
        for one in evidence.fired
        if one.labels.get("consumergroup") == state.group_id
        # a state that has a cluster of its own answers for all that is told of it
        or (state.where != "broker" and one.labels.get("severity") != "info")
    }
    right = state.right
    for name in right.alerts:
        if name not in about and name not in {one.name for one in evidence.fired}:
            yield f"{name} does not fire"
    for name in sorted(about - {*right.alerts, *right.may_fire}):
        yield f"{name} fires"


def _well_ended(answer: Answer, right: int) -> Iterator[str]:
    if "Traceback" in answer.text:
        yield f"ends in a traceback: {answer.err.strip()[-200:]}"
    elif answer.exit_code != right:
        yield f"ends with {answer.exit_code}, right is {right}: {answer.text.strip()[-300:]}"


def _texts(text: str, says: tuple[str, ...], never: tuple[str, ...]) -> Iterator[str]:
    flat = re.sub(r"\s+", " ", text)
    yield from (f"does not say {each!r}" for each in says if each not in flat)
    yield from (f"says {each!r}" for each in never if each in flat)


def _safe(text: str) -> Iterator[str]:
    """Names go to a terminal: nothing in them may move its cursor."""
    if found := re.search(r"[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]", text):
        yield f"prints the control character {found[0]!r}"


def _part(group: str, text: str) -> str:
    """Return a group's summary and advice of `monitor lag`."""
    start = text.find(f"{group or '(empty id)'}: total lag")
    return "" if start < 0 else text[start : text.find("\n\n", start)]


def _said(value: float | None) -> str:
    return "absent" if value is None else f"{value:g}"
