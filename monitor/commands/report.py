"""Prints the lag of groups as a table, as JSON or as CSV, and a list of the worst groups.

The table has the columns of `kafka-consumer-groups --describe`, with its `-` for what is unknown,
and ours after them.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from monitor.analysis.advice import Advice, Severity
from monitor.analysis.lag import GroupLag
from monitor.analysis.measures import GroupMeasures
from monitor.answers.groups import group_detail, group_summary, partitions_of
from monitor.answers.models import GroupSummary, PartitionOfGroup
from monitor.model import Group, Snapshot
from monitor.ranking import NOT_JUDGED, status_word, urgency
from monitor.words import UNKNOWN, duration, plural, safe, shorten

COLUMNS: Final = (
    "GROUP",
    "TOPIC",
    "PARTITION",
    "CURRENT-OFFSET",
    "LOG-END-OFFSET",
    "LAG",
    "CONSUMER-ID",
    "HOST",
    "CLIENT-ID",
)
SECONDS_COLUMN: Final = "LAG-SECONDS"
# Advice and the list of groups fit a terminal of this width.
WIDTH: Final = 80
# Narrower than this a consumer id tells nobody apart from its neighbour.
MIN_ID_WIDTH: Final = 10


def values(group: str, row: PartitionOfGroup) -> tuple[str | None, ...]:
    """Return what is in the columns, those of `COLUMNS` and then the lag in seconds."""
    found = (
        group,
        row.topic,
        row.partition,
        row.current_offset,
        row.log_end_offset,
        row.lag,
        row.consumer_id,
        row.host,
        row.client_id,
        None if row.lag_seconds is None else f"{row.lag_seconds:.1f}",
    )
    return tuple(None if value is None else str(value) for value in found)


def cells(group: str, row: PartitionOfGroup) -> tuple[str, ...]:
    """Return the table's cells, as a terminal may have them."""
    return tuple(UNKNOWN if value is None else safe(value) for value in values(group, row))


@dataclass(frozen=True, slots=True)
class Report:
    """A group with its rows, sorted by topic and partition."""

    group: Group
    lag: GroupLag
    rows: tuple[PartitionOfGroup, ...]
    measures: GroupMeasures
    snapshot: Snapshot

    @property
    def behind(self) -> float | None:
        """Return the largest lag in seconds, None where it is not known."""
        return self.measures.behind(self.snapshot.seen_at)

    def finding(self, advice: Advice) -> str:
        """Return what a piece of advice says is so."""
        return advice.finding(self.snapshot.monotonic_at)

    @property
    def summary(self) -> str:
        """Say the total and what the group is, in one line."""
        group = self.group
        facts = [group.state or "state unknown"]
        if group.members is not None:
            facts.append(plural(len(group.members), "member"))
        uncommitted = sum(row.current_offset is None for row in self.rows)
        if uncommitted:
            facts.append(f"{uncommitted} without a commit")
        past_end = sum(row.past_end for row in self.rows)
        if past_end:
            facts.append(f"{past_end} committed past the log end")
        if (word := status_word(self.measures)) not in (None, NOT_JUDGED):
            facts.append(f"status {word}")
        if group.is_silent:
            facts.append("stale: its coordinator does not answer")
        gone = sum(row.topic_is_gone for row in self.rows)
        if gone:
            facts.append(
                f"{gone} on {'a topic that is' if gone == 1 else 'topics that are'} gone or may not be "
                "described"
            )
        total = str(self.lag.total) if self.lag.partitions else UNKNOWN
        if self.lag.partitions and any(row.error for row in self.rows):
            total = f">= {total}"  # what could not be read may have more
        if self.lag.total and self.behind is not None:
            total += f", {duration(self.behind)} behind"
        partitions = plural(len(self.rows), "partition")
        return f"{safe(group.id)}: total lag {total}, {partitions} ({', '.join(facts)})"

    @property
    def advice(self) -> list[str]:
        """Return what to do, one wrapped paragraph each."""
        return [
            textwrap.fill(
                safe(f"! {self.finding(advice)} {advice.action}"),
                WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
            for advice in self.measures.advice
            if advice.severity > Severity.INFO
        ]


def reports(
    snapshot: Snapshot,
    measured: Mapping[str, GroupMeasures],
    wants_topic: Callable[[str], bool] | None = None,
) -> list[Report]:
    """Return a report of each group, by group id."""
    found = []
    for group_id, measures in sorted(measured.items()):
        group = snapshot.groups[group_id]
        rows = tuple(
            row
            for row in partitions_of(snapshot, group, measures)
            if wants_topic is None or wants_topic(row.topic)
        )
        found.append(Report(group, measures.lag, rows, measures, snapshot))
    return found


def as_table(found: Sequence[Report], width: int | None = None, *, seconds: bool = False) -> str:
    """Return a table; `width` is a terminal's, None for a pipe, where nothing is ever cut.

    `seconds` adds the column LAG-SECONDS.
    """
    columns = (*COLUMNS, SECONDS_COLUMN) if seconds else COLUMNS
    groups = [
        [cells(report.group.id, row)[: len(columns)] for row in report.rows] for report in found
    ]
    lines = [columns, *(row for rows in groups for row in rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(columns))]
    if width is not None and sum(widths) + len(widths) - 1 > width:
        return _narrow_table(found, lines, widths, width)
    parts = []
    for report, rows in zip(found, groups, strict=True):
        table = [_line(columns, widths), *(_line(row, widths) for row in rows)] if rows else []
        parts.append("\n".join([*table, report.summary, *report.advice]))
    return "\n\n".join(parts) + "\n"


def as_json(
    cluster: str,
    snapshot: Snapshot,
    measured: Mapping[str, GroupMeasures],
    wants_topic: Callable[[str], bool] | None = None,
) -> str:
    """Return JSON of the groups, by id, as the API has it; null is unknown."""
    return _as_json(
        snapshot,
        [
            group_detail(cluster, snapshot, snapshot.groups[group], measures, wants_topic)
            for group, measures in sorted(measured.items())
        ],
    )


def _as_json(snapshot: Snapshot, groups: Sequence[GroupSummary]) -> str:
    return json.dumps(
        {
            "cluster_id": snapshot.cluster_id,
            "seen_at": round(snapshot.taken_at, 3),
            "groups": [group.model_dump(mode="json") for group in groups],
        },
        indent=2,
    )


def as_csv(found: Sequence[Report]) -> str:
    """Return CSV with a header; an empty field is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(name.lower().replace("-", "_") for name in (*COLUMNS, SECONDS_COLUMN))
    for report in found:
        for row in report.rows:
            writer.writerow(values(report.group.id, row))
    return text.getvalue()


def list_as_json(cluster: str, snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> str:
    """Return JSON of the groups without their partitions, worst first, as the API has it."""
    return _as_json(
        snapshot,
        [
            group_summary(cluster, snapshot, found.group, found.measures)
            for found in _worst(snapshot, measured)
        ],
    )


def list_as_csv(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> str:
    """Return CSV of the groups, worst first; an empty field is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("group", "status", "lag", "lag_seconds", "members", "state"))
    for found in _worst(snapshot, measured):
        group, measures = found.group, found.measures
        writer.writerow(
            (
                group.id,
                status_word(measures),
                measures.lag.total if measures.lag.partitions else None,
                None if found.behind is None else round(found.behind, 3),
                None if group.members is None else len(group.members),
                group.state,
            )
        )
    return text.getvalue()


def _worst(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> list[Report]:
    ids = sorted(measured, key=lambda group: (urgency(measured[group]), group), reverse=True)
    return [
        Report(snapshot.groups[group], measured[group].lag, (), measured[group], snapshot)
        for group in ids
    ]


def worst_first(snapshot: Snapshot, measured: Mapping[str, GroupMeasures], limit: int) -> str:
    """Return a list of the groups that need somebody most, in lines of at most 80 characters."""
    found = _worst(snapshot, measured)
    lines = [_list_line("GROUP", "STATUS", "LAG", "BEHIND", "MEMBERS", "STATE")]
    for each in found[:limit]:
        group, measures = each.group, each.measures
        lines.append(
            _list_line(
                shorten(safe(group.id), 30),
                status_word(measures) or UNKNOWN,
                str(measures.lag.total) if measures.lag.partitions else UNKNOWN,
                UNKNOWN if each.behind is None else duration(each.behind),
                UNKNOWN if group.members is None else str(len(group.members)),
                group.state or UNKNOWN,
            )
        )
        lines += each.advice
    if len(found) > limit:
        lines.append(f"{plural(len(found) - limit, 'more group')}; see --limit.")
    return "\n".join(lines) + "\n"


def _list_line(*cells: str) -> str:
    group, status, lag, behind, members, state = cells
    line = f"{group:<30} {status:<6} {lag:>11} {behind:>7} {members:>7} {shorten(state, 14)}"
    return line.rstrip()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _narrow_table(
    found: Sequence[Report], cells: Sequence[Sequence[str]], widths: Sequence[int], width: int
) -> str:
    """Leave out GROUP (each group has its summary), HOST and CLIENT-ID; shorten names to fit."""
    columns = cells[0]
    first, last = columns.index("TOPIC"), columns.index("CONSUMER-ID")
    shown = [*range(first, last), *range(len(COLUMNS), len(columns)), last]
    topic, *numbers, consumer = (widths[column] for column in shown)
    spare = width - sum(numbers) - len(numbers) - 1
    consumer = min(consumer, max(MIN_ID_WIDTH, spare - topic))
    topic = min(topic, max(MIN_ID_WIDTH, spare - consumer))
    fitted = [topic, *numbers, consumer]
    rest = iter(cells[1:])
    parts = []
    for report in found:
        rows = [next(rest) for _ in report.rows]
        lines = [columns, *rows] if rows else []
        cut = [
            [shorten(line[column], w) for column, w in zip(shown, fitted, strict=True)]
            for line in lines
        ]
        table = (_line(line, fitted) for line in cut)
        summary = textwrap.fill(
            report.summary, width, subsequent_indent="  ", break_on_hyphens=False
        )
        parts.append("\n".join([summary, *table, *report.advice]))
    note = "HOST and CLIENT-ID need a wider terminal, a pipe, or --output json|csv."
    return "\n\n".join([*parts, note]) + "\n"
