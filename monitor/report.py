"""Prints the lag of groups as a table, as JSON or as CSV.

The table has the columns of `kafka-consumer-groups --describe`, with its `-` for what is unknown.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.model import Group, Snapshot

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
UNKNOWN: Final = "-"
# Narrower than this a consumer id tells nobody apart from its neighbour.
MIN_ID_WIDTH: Final = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A partition of a group: committed, assigned, or both."""

    topic: str
    partition: int
    current_offset: int | None
    log_end_offset: int | None
    lag: int | None
    consumer_id: str | None = None
    host: str | None = None
    client_id: str | None = None
    past_end: bool = False

    def cells(self, group: str) -> tuple[str, ...]:
        """Return the table's cells."""
        values = (
            group,
            self.topic,
            self.partition,
            self.current_offset,
            self.log_end_offset,
            self.lag,
            self.consumer_id,
            self.host,
            self.client_id,
        )
        return tuple(UNKNOWN if value is None else str(value) for value in values)


@dataclass(frozen=True, slots=True)
class Report:
    """A group with its rows, sorted by topic and partition."""

    group: Group
    lag: GroupLag
    rows: tuple[Row, ...]

    @property
    def summary(self) -> str:
        """Say the total and what the group is, in one line."""
        group = self.group
        facts = [group.state or "state unknown"]
        if group.members is not None:
            count = len(group.members)
            facts.append(f"{count} member{'' if count == 1 else 's'}")
        uncommitted = sum(row.current_offset is None for row in self.rows)
        if uncommitted:
            facts.append(f"{uncommitted} without a commit")
        past_end = sum(row.past_end for row in self.rows)
        if past_end:
            facts.append(f"{past_end} committed past the log end")
        if group.stale:
            facts.append("stale: its coordinator does not answer")
        total = self.lag.total if self.lag.partitions else UNKNOWN
        count = len(self.rows)
        partitions = f"{count} partition{'' if count == 1 else 's'}"
        return f"{group.id}: total lag {total}, {partitions} ({', '.join(facts)})"


def reports(
    snapshot: Snapshot,
    wants_group: Callable[[str], bool] = lambda _: True,
    wants_topic: Callable[[str], bool] = lambda _: True,
) -> list[Report]:
    """Return a report of each group, by group id."""
    found = []
    for group in sorted(snapshot.groups.values(), key=lambda group: group.id):
        if not wants_group(group.id):
            continue
        lag = lag_of_group(group, snapshot)
        rows = tuple(row for row in _rows(snapshot, group, lag) if wants_topic(row.topic))
        found.append(Report(group, _only(lag, wants_topic), rows))
    return found


def as_table(found: Sequence[Report], width: int | None = None) -> str:
    """Return a table; `width` is a terminal's, None for a pipe, where nothing is ever cut."""
    groups = [[row.cells(report.group.id) for row in report.rows] for report in found]
    cells = [COLUMNS, *(row for rows in groups for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    if width is not None and sum(widths) + len(widths) - 1 > width:
        return _narrow_table(found, groups, widths, width)
    parts = [
        "\n".join([_line(COLUMNS, widths), *(_line(row, widths) for row in rows), report.summary])
        if rows
        else report.summary
        for report, rows in zip(found, groups, strict=True)
    ]
    return "\n\n".join(parts) + "\n"


def as_json(snapshot: Snapshot, found: Sequence[Report]) -> str:
    """Return JSON; null is unknown."""
    return json.dumps(
        {
            "cluster_id": snapshot.cluster_id,
            "seen_at": round(snapshot.taken_at, 3),
            "groups": [
                {
                    "group": report.group.id,
                    "type": report.group.type,
                    "state": report.group.state,
                    "members": None if report.group.members is None else len(report.group.members),
                    "total_lag": report.lag.total if report.lag.partitions else None,
                    "stale": report.group.stale,
                    "error": report.group.error,
                    "partitions": [
                        {
                            "topic": row.topic,
                            "partition": row.partition,
                            "current_offset": row.current_offset,
                            "log_end_offset": row.log_end_offset,
                            "lag": row.lag,
                            "past_end": row.past_end,
                            "consumer_id": row.consumer_id,
                            "host": row.host,
                            "client_id": row.client_id,
                        }
                        for row in report.rows
                    ],
                }
                for report in found
            ],
        },
        indent=2,
    )


def as_csv(found: Sequence[Report]) -> str:
    """Return CSV with a header; an empty field is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(name.lower().replace("-", "_") for name in COLUMNS)
    for report in found:
        for row in report.rows:
            cells = row.cells(report.group.id)
            writer.writerow("" if cell == UNKNOWN else cell for cell in cells)
    return text.getvalue()


def _rows(snapshot: Snapshot, group: Group, lag: GroupLag) -> Iterator[Row]:
    owners = {(topic, index): member for member, topic, index in group.assignments()}
    committed = {
        (topic, index): offset
        for topic, commits in group.commits.items()
        for index, offset in commits.items()
    }
    for topic, index in sorted(owners.keys() | committed.keys()):
        owner = owners.get((topic, index))
        yield Row(
            topic=topic,
            partition=index,
            current_offset=committed.get((topic, index)),
            log_end_offset=snapshot.end_offsets.get(topic, index),
            lag=lag.get(topic, index),
            consumer_id=owner.id if owner else None,
            host=owner.host if owner else None,
            client_id=owner.client_id if owner else None,
            past_end=index in lag.past_end.get(topic, ()),
        )


def _only(lag: GroupLag, wants_topic: Callable[[str], bool]) -> GroupLag:
    partitions = {topic: lags for topic, lags in lag.partitions.items() if wants_topic(topic)}
    topics = {topic: lag.topics[topic] for topic in partitions}
    return GroupLag(partitions, topics, sum(topics.values()), lag.past_end)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _narrow_table(
    found: Sequence[Report],
    groups: Sequence[Sequence[tuple[str, ...]]],
    widths: Sequence[int],
    width: int,
) -> str:
    """Leave out GROUP (each group has its summary), HOST and CLIENT-ID; shorten names to fit."""
    shown = slice(COLUMNS.index("TOPIC"), COLUMNS.index("CONSUMER-ID") + 1)
    topic, *numbers, consumer = widths[shown]
    spare = width - sum(numbers) - len(numbers) - 1
    consumer = min(consumer, max(MIN_ID_WIDTH, spare - topic))
    topic = min(topic, max(MIN_ID_WIDTH, spare - consumer))
    fitted = [topic, *numbers, consumer]
    parts = []
    for report, rows in zip(found, groups, strict=True):
        lines = [COLUMNS[shown], *(row[shown] for row in rows)] if rows else []
        cut = [[_shorten(c, w) for c, w in zip(line, fitted, strict=True)] for line in lines]
        parts.append("\n".join([report.summary, *(_line(line, fitted) for line in cut)]))
    note = "HOST and CLIENT-ID need a wider terminal, a pipe, or --output json|csv."
    return "\n\n".join([*parts, note]) + "\n"


def _shorten(text: str, width: int) -> str:
    """Cut in the middle: ids of one group begin alike and differ at the end."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"
