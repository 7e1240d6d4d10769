"""Panels of single values: stat, bar gauge, table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from dashboards import grafana
from dashboards.drawing import svg, units
from dashboards.drawing.fields import TEXT, Field, config_of
from dashboards.prometheus import Series


def stat(panel: Mapping[str, Any], fields: Sequence[Field], width: float, height: float) -> str:
    """Return one large number, on the colour of its level."""
    field = fields[0]
    value = field.series.last
    level = field.level_colour(value) if panel["options"]["colorMode"] == "background" else None
    parts = [svg.box(0, 0, width, height, level)] if level else []
    if panel["options"]["graphMode"] == "area":
        parts.append(_spark(field, width, height))
    fill = _readable(level) if level else TEXT
    parts.append(_centred(width, height, field.text(value), fill))
    return svg.picture(width, height, "".join(parts))


def nothing(panel: Mapping[str, Any]) -> str:
    """Return what a panel without data says."""
    return (
        f'<p class="empty">{escape(panel["fieldConfig"]["defaults"].get("noValue", "No data"))}</p>'
    )


def _centred(width: float, height: float, text: str, fill: str) -> str:
    size = int(min(height * 0.5, width / max(4, len(text)) * 1.55, 44))
    return svg.label(
        width / 2, height / 2 + size * 0.36, text, anchor="middle", size=size, fill=fill
    )


def _spark(field: Field, width: float, height: float) -> str:
    points = [point for point in field.series.points if math.isfinite(point[1])]
    if len(points) < 2:
        return ""
    start, end = points[0][0], points[-1][0]
    most = max(value for _, value in points) or 1.0
    path = "L".join(
        f"{(time - start) / (end - start) * width:.1f} {height - value / most * height * 0.45:.1f}"
        for time, value in points
    )
    return svg.element(
        "path", d=f"M0 {height}L{path}L{width} {height}Z", fill="#56B4E9", fill_opacity=0.25
    )


def _readable(background: str) -> str:
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return "#111217" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def bar_gauge(
    panel: Mapping[str, Any], fields: Sequence[Field], width: float, height: float
) -> str:
    """Return horizontal bars, each on the way from minimum to maximum."""
    defaults = panel["fieldConfig"]["defaults"]
    low, high = defaults.get("min", 0), defaults.get("max", 1)
    lane = min(44.0, height / max(1, len(fields)))
    left, right = width * 0.42, 64.0
    room = width - left - right
    parts = []
    for number, field in enumerate(fields):
        top = number * lane + lane * 0.15
        middle = top + lane * 0.35 + 5
        value = field.series.last
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        colour = field.level_colour(value) or TEXT
        name = svg.clip(field.name, left - 16)
        parts += [
            svg.label(left - 10, middle, name, anchor="end", fill=TEXT),
            svg.box(left, top, room, lane * 0.7, "#22252b"),
            svg.box(left, top, max(2.0, room * share), lane * 0.7, colour),
            svg.label(left + room + 8, middle, field.text(value), size=14, fill=TEXT),
        ]
    return svg.picture(width, height, "".join(parts))


Row = dict[str, str | float]


def table(
    panel: Mapping[str, Any], answers: Sequence[tuple[grafana.Query, Sequence[Series]]], lines: int
) -> str:
    """Return an HTML table of the first rows, after the panel's transformations."""
    rows = _rows(answers)
    for step in panel.get("transformations", ()):
        options = step.get("options", {})
        match step["id"]:
            case "organize":
                rows = [_organized(row, options) for row in rows]
            case "sortBy":
                for sort in options["sort"]:
                    key = partial(_order, field=sort["field"])
                    rows.sort(key=key, reverse=sort.get("desc", False))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(_cell(panel, column, row.get(column)) for column in columns) + "</tr>"
        for row in rows[:lines]
    )
    if not rows:
        return nothing(panel)
    return f"<table><tr>{head}</tr>{body}</table>"


def _order(row: Row, field: str) -> float:
    value = row.get(field)
    return value if isinstance(value, float) else -math.inf


def _rows(answers: Sequence[tuple[grafana.Query, Sequence[Series]]]) -> list[Row]:
    """Return the rows of all queries; rows that agree in all labels that both have are one."""
    rows: list[Row] = []
    for query, results in answers:
        column = "Value" if len(answers) == 1 else f"Value #{query.ref_id}"
        for series in results:
            labels = series.labels
            same = [
                row
                for row in rows
                if column not in row
                and all(row[label] == value for label, value in labels.items() if label in row)
            ]
            target = same[0] if same else {}
            target.update({**labels, column: series.last})
            if not same:
                rows.append(target)
    return rows


def _organized(row: Row, options: Mapping[str, Any]) -> Row:
    order = options.get("indexByName", {})
    hidden = options.get("excludeByName", {})
    names = options.get("renameByName", {})
    kept = sorted(
        (key for key in row if not hidden.get(key)), key=lambda key: order.get(key, len(order))
    )
    return {names.get(key, key): row[key] for key in kept}


def _cell(panel: Mapping[str, Any], column: str, value: str | float | None) -> str:
    config = config_of(panel, column)
    if isinstance(value, float):
        value = units.text(value, config.get("unit", "short"), config.get("decimals"))
    kind = ' class="link"' if config.get("links") else ""
    return f"<td{kind}>{escape(value or '')}</td>"
