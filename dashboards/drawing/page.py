"""A dashboard as one HTML page: its header, and its panels on Grafana's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from dashboards import grafana
from dashboards.answers import View
from dashboards.drawing import charts, numbers
from dashboards.drawing.charts import Area, Mark
from dashboards.drawing.fields import fields
from dashboards.prometheus import Series

WIDTH: Final = 1440
_PADDING: Final = 16
_GAP: Final = 8
_CELL: Final = 30
_COLUMN: Final = (WIDTH - 2 * _PADDING - 23 * _GAP) / 24
_HEADER: Final = 96
_TITLE: Final = 32
_TABLE_ROW: Final = 36

_STYLE: Final = f"""
body {{ margin: 0; background: #111217; color: #ccccdc; width: {WIDTH}px; position: relative;
  font: 14px/1.4 "Inter", "DejaVu Sans", sans-serif; }}
svg text {{ font-family: "Inter", "DejaVu Sans", sans-serif; }}
header {{ padding: 14px {_PADDING}px 0; }}
header h1 {{ font-size: 18px; margin: 0 0 10px; font-weight: 500; }}
.variable {{ display: inline-block; border: 1px solid #34373e; border-radius: 2px;
  margin-right: 8px; font-size: 12px; }}
.variable b {{ background: #181b1f; padding: 5px 8px; display: inline-block; font-weight: 500; }}
.variable span {{ padding: 5px 10px; display: inline-block; }}
.row {{ position: absolute; font-size: 15px; font-weight: 500; line-height: {_CELL}px; }}
.panel {{ position: absolute; background: #181b1f; border: 1px solid #25282e; border-radius: 2px;
  box-sizing: border-box; overflow: hidden; }}
.panel h2 {{ font-size: 14px; font-weight: 500; margin: 0; padding: 6px 8px; height: 20px; }}
.panel h2 i {{ color: #8e8e9a; font: 11px/14px sans-serif; border: 1px solid; border-radius: 50%;
  padding: 0 5px; margin-left: 6px; }}
.panel .body {{ padding: 0 8px; }}
table {{ border-collapse: collapse; width: 100%; font-size: 13px; }}
th {{ text-align: left; color: #8ab8ff; font-weight: 500; }}
th, td {{ border-bottom: 1px solid #25282e; padding: 0 6px; height: 35px; white-space: nowrap; }}
td.link {{ text-decoration: underline; }}
.empty {{ color: #9b9ba7; text-align: center; padding-top: 40px; }}
"""


def page(name: str, dashboard: Mapping[str, Any], view: View) -> tuple[str, int]:
    """Return the HTML of a dashboard and its height in pixels."""
    values = view.values(dashboard)
    marks = list(_marks(dashboard, view, values))
    parts = [_header(dashboard)]
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        left = _PADDING + at["x"] * (_COLUMN + _GAP)
        top = _HEADER + at["y"] * (_CELL + _GAP)
        width = at["w"] * (_COLUMN + _GAP) - _GAP
        height = at["h"] * (_CELL + _GAP) - _GAP
        place = f"left:{left:.0f}px;top:{top:.0f}px;width:{width:.0f}px;height:{height:.0f}px"
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="{place}">⌄ {escape(panel["title"])}</div>')
            continue
        answers = [(query, view.ask(query, values)) for query in grafana.panel_queries(name, panel)]
        body = _body(panel, answers, view, (width - 18, height - _TITLE - 10), marks)
        parts.append(
            f'<div class="panel" style="{place}"><h2>{escape(panel["title"])}<i>i</i></h2>'
            f'<div class="body">{body}</div></div>'
        )
    bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"])
    content = "".join(parts)
    document = f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style><body>{content}</body>'
    return document, _HEADER + bottom * (_CELL + _GAP) + _PADDING


def _header(dashboard: Mapping[str, Any]) -> str:
    variables = "".join(
        f'<span class="variable"><b>{escape(one["label"])}</b>'
        f"<span>{'Prometheus' if one['type'] == 'datasource' else 'All'}</span></span>"
        for one in dashboard["templating"]["list"]
    )
    return f"<header><h1>Kafka lag monitor / {escape(dashboard['title'])}</h1>{variables}</header>"


def _marks(dashboard: Mapping[str, Any], view: View, values: Mapping[str, str]) -> Sequence[Mark]:
    marks: dict[tuple[int, str], Mark] = {}
    for annotation in dashboard["annotations"]["list"]:
        if "expr" not in annotation:
            continue
        expr, colour = grafana.expand(annotation["expr"], values), annotation["iconColor"]
        for series in view.client.query_range(expr, view.start, view.end, view.step_s):
            times = (
                [value / 1000 for _, value in series.points]
                if annotation.get("useValueForTime")
                else [series.points[0][0]]
            )
            for time in times:
                if view.start <= time <= view.end:
                    marks.setdefault((round(time), colour), Mark(time, colour))
    return list(marks.values())


def _body(
    panel: Mapping[str, Any],
    answers: Sequence[tuple[grafana.Query, Sequence[Series]]],
    view: View,
    size: tuple[float, float],
    marks: Sequence[Mark],
) -> str:
    width, height = size
    if panel["type"] == "table":
        return numbers.table(panel, answers, int(height / _TABLE_ROW) - 1)
    found = fields(panel, answers)
    if not found:
        return numbers.nothing(panel)
    if panel["type"] in _VALUES:
        return _VALUES[panel["type"]](panel, found, width, height)
    area = Area(width, height, view.start, view.end)
    return _CHARTS[panel["type"]](panel, found, area, view.step_s, marks)


_VALUES: Final = {"stat": numbers.stat, "bargauge": numbers.bar_gauge}
_CHARTS: Final = {
    "timeseries": charts.timeseries,
    "state-timeline": charts.state_timeline,
    "heatmap": charts.heatmap,
}
