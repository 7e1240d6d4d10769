"""Charts over time: lines, states, distributions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from dashboards.drawing import svg, units
from dashboards.drawing.fields import TEXT, Field

_AXIS: Final = 20
_LEGEND_LINE: Final = 18
_LEGEND_LINES: Final = 2
_TOP: Final = 6
_RIGHT: Final = 8
_BESIDE: Final = 0.46  # of the width, for a legend that is a table
_CHARACTER: Final = 6.9
_CIVIDIS: Final = (
    *("#00224e", "#123570", "#3b496c", "#575d6d", "#707173"),
    *("#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"),
)
_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_ROUND_S: Final = (
    *(10, 30, 60, 120, 300, 600, 900, 1800),
    *(_HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: a moment that is marked on every chart."""

    time: float
    colour: str


Legend = Sequence[tuple[str, str]]
"""Names and colours."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where a chart draws: its size, and the times at its left and right edge."""

    width: float
    height: float
    start: float
    end: float
    left: float = 0.0
    legend_lines: int = 1

    def fitted(self, labels: Sequence[str], legend: Legend) -> Area:
        """Return the area with room for the labels at its left and the legend below."""
        widest = max(map(len, labels), default=0) * _CHARACTER + 12
        lines = min(_LEGEND_LINES, 1 + int(sum(map(_legend_width, legend)) / (self.width - 30)))
        return replace(self, left=min(widest, self.width / 3), legend_lines=lines)

    @property
    def bottom(self) -> float:
        """The y of the time axis."""
        return self.height - _AXIS - self.legend_lines * _LEGEND_LINE

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.width - _RIGHT

    def x(self, time: float) -> float:
        """Return the x of a time."""
        share = (time - self.start) / (self.end - self.start)
        return self.left + share * (self.right - self.left)

    def axis(self, marks: Sequence[Mark]) -> str:
        """Return the time axis, its grid, and the marks."""
        span = self.end - self.start
        step = next((s for s in _ROUND_S if span / s <= self.width / 90), _ROUND_S[-1])
        parts = []
        time = math.ceil(self.start / step) * step
        while time <= self.end:
            at = self.x(time)
            parts.append(svg.line(at, _TOP, at, self.bottom, svg.GRID))
            if at <= self.right - 12:
                clock = datetime.fromtimestamp(time, UTC).strftime(
                    "%H:%M" if step >= 60 else "%H:%M:%S"
                )
                parts.append(svg.label(at, self.bottom + 15, clock, anchor="middle"))
            time += step
        for mark in marks:
            at = self.x(mark.time)
            parts.append(svg.line(at, _TOP, at, self.bottom, mark.colour, dash="3 3"))
            triangle = f"M{at - 4:.1f} {self.bottom + 5:.1f}h8l-4 -6z"
            parts.append(svg.element("path", d=triangle, fill=mark.colour))
        return "".join(parts)

    def legend(self, entries: Legend) -> str:
        """Return the legend, as many entries as fit."""
        parts: list[str] = []
        x, y = 8.0, self.height - 5 - (self.legend_lines - 1) * _LEGEND_LINE
        for entry in entries:
            if x + _legend_width(entry) > self.width - 14:
                if y + _LEGEND_LINE > self.height:
                    parts.append(svg.label(x, y, "…"))
                    break
                x, y = 8.0, y + _LEGEND_LINE
            name, colour = entry
            parts.append(svg.box(x, y - 6, 14, 4, colour))
            parts.append(svg.label(x + 19, y, name, fill=TEXT))
            x += _legend_width(entry)
        return "".join(parts)


def _legend_width(entry: tuple[str, str]) -> float:
    return 32 + _CHARACTER * len(entry[0])


def _ticks(low: float, high: float, unit: str, *, whole: bool) -> list[float]:
    """Return round numbers from below `low` to above `high`."""
    raw = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)
    if unit == "bytes":
        step = 2.0 ** math.ceil(math.log2(raw))
    elif unit == "s" and raw >= _ROUND_S[0] / 2:
        step = next((float(s) for s in _ROUND_S if s >= raw), step)
    elif whole:
        step = math.ceil(step)
    first = math.floor(low / step)
    return [step * n for n in range(first, math.ceil(high / step) + 1)]


def _runs(points: Sequence[tuple[float, float]], gap: float) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches without a missing value."""
    run: list[tuple[float, float]] = []
    for time, value in points:
        if run and (math.isnan(value) or time - run[-1][0] > gap):
            yield run
            run = []
        if not math.isnan(value):
            run.append((time, value))
    if run:
        yield run


def timeseries(
    panel: Mapping[str, Any],
    fields: Sequence[Field],
    area: Area,
    step: float,
    marks: Sequence[Mark],
) -> str:
    """Return a chart of lines, stacked areas or bars."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    lines = _stacked(fields) if stacked else [list(field.series.points) for field in fields]
    values = [v for one in lines for _, v in one if math.isfinite(v)]
    limits = [s["value"] for s in defaults.get("thresholds", {}).get("steps", ()) if s["value"]]
    dashed = limits if custom.get("thresholdsStyle", {}).get("mode") == "dashed" else []
    low = min([defaults.get("min", math.inf), *values], default=0.0)
    high = defaults.get("max", max(values, default=1.0)) or 1.0
    # a limit that is far above the data would press the data to the ground
    dashed = [limit for limit in dashed if limit <= 4 * high]
    beside = panel["options"]["legend"]["placement"] == "right"
    whole_width = area.width
    area = replace(area, width=area.width * (1 - _BESIDE)) if beside else area
    unit = defaults.get("unit", "short")
    whole = defaults.get("decimals") == 0 and unit != "percentunit"
    ticks = _ticks(low, max([high, *dashed]), unit, whole=whole)
    low, high = ticks[0], max(ticks[-1], ticks[0] + 1e-9)
    names = [units.text(tick, unit) for tick in ticks]
    legend = [] if beside else [(field.name, field.colour) for field in fields]
    area = area.fitted(names, legend)

    def y(value: float) -> float:
        return area.bottom - (value - low) / (high - low) * (area.bottom - _TOP)

    parts = [area.axis(marks)]
    for tick, name in zip(ticks, names, strict=True):
        parts.append(svg.line(area.left, y(tick), area.right, y(tick), svg.GRID))
        parts.append(svg.label(area.left - 6, y(tick) + 4, name, anchor="end"))
    floor = y(max(low, 0.0))
    for field, points in reversed(list(zip(fields, lines, strict=True))):
        parts += [
            _drawn(field, [(area.x(time), y(value)) for time, value in run], floor, stacked=stacked)
            for run in _runs(points, 3 * step)
        ]
    for level in defaults.get("thresholds", {}).get("steps", ()):
        if level["value"] in dashed:
            at = y(level["value"])
            parts.append(svg.line(area.left, at, area.right, at, level["color"], dash="8 5"))
    parts.append(_legend_table(fields, area, whole_width) if beside else area.legend(legend))
    return svg.picture(whole_width, area.height, "".join(parts))


def _legend_table(fields: Sequence[Field], area: Area, right: float) -> str:
    """Return the legend as a table beside the chart: names and maxima, the highest first."""
    most = right - 6
    parts = [svg.label(most, 16, "Max", anchor="end", size=11, fill="#8ab8ff")]
    ranked = sorted(fields, key=lambda field: -field.highest)
    for number, field in enumerate(ranked[: int((area.height - 30) / _LEGEND_LINE)]):
        y = 36 + number * _LEGEND_LINE
        name = svg.clip(field.name, most - 56 - area.width - 24)
        parts += [
            svg.box(area.width + 4, y - 6, 14, 4, field.colour),
            svg.label(area.width + 24, y, name, fill=TEXT),
            svg.label(most, y, field.text(field.highest), anchor="end", fill=TEXT),
        ]
    return "".join(parts)


def _stacked(fields: Sequence[Field]) -> list[list[tuple[float, float]]]:
    below: dict[float, float] = {}
    stacked = []
    for field in fields:
        points = []
        for time, value in field.series.points:
            below[time] = below.get(time, 0.0) + value
            points.append((time, below[time]))
        stacked.append(points)
    return stacked


def _drawn(
    field: Field, points: Sequence[tuple[float, float]], floor: float, *, stacked: bool
) -> str:
    if field.style.get("drawStyle") == "bars":
        return "".join(
            svg.box(x - 2, min(y, floor), 4, abs(floor - y), field.colour, opacity=0.8)
            for x, y in points
        )
    if field.style.get("lineInterpolation") == "stepAfter":
        points = [
            corner
            for (x, y), (next_x, _) in itertools.pairwise([*points, points[-1]])
            for corner in ((x, y), (next_x, y))
        ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    opacity = field.style.get("fillOpacity", 0) / 100
    dash = field.style.get("lineStyle", {}).get("dash")
    outline = f"M{points[0][0]:.1f} {floor:.1f}L{path}L{points[-1][0]:.1f} {floor:.1f}Z"
    # what is stacked below is drawn later: it must not shine through what lies over it
    under = svg.element("path", d=outline, fill=svg.PANEL) if stacked else ""
    filled = svg.element("path", d=outline, fill=field.colour, fill_opacity=f"{opacity:.2f}")
    return (
        under
        + filled
        + svg.element(
            "path",
            d=f"M{path}",
            fill="none",
            stroke=field.colour,
            stroke_width=field.style.get("lineWidth", 1),
            stroke_dasharray=" ".join(map(str, dash)) if dash else None,
            stroke_linejoin="round",
        )
    )


def state_timeline(
    panel: Mapping[str, Any],
    fields: Sequence[Field],
    area: Area,
    step: float,
    marks: Sequence[Mark],
) -> str:
    """Return one lane of states for each series."""
    seen = {
        field.text(value): field.level_colour(value) or field.colour
        for field in fields
        for _, value in field.series.points
    }
    area = area.fitted([field.name for field in fields], list(seen.items()))
    parts = [area.axis(marks)]
    lane = (area.bottom - _TOP) / max(1, len(fields))
    written = panel["options"].get("showValue") != "never"
    for number, field in enumerate(fields):
        top = _TOP + lane * (number + 0.1)
        middle = top + lane * 0.4 + 4
        name = svg.clip(field.name, area.left - 12)
        parts.append(svg.label(area.left - 6, middle, name, anchor="end", fill=TEXT))
        for value, group in itertools.groupby(field.series.points, key=lambda point: point[1]):
            times = [time for time, _ in group]
            left = area.x(times[0])
            width = area.x(min(times[-1] + step, area.end)) - left
            parts.append(
                svg.box(left, top, width, lane * 0.8, seen[field.text(value)], opacity=0.85)
            )
            if written and width > 9 * len(field.text(value)):
                parts.append(svg.label(left + 5, middle, field.text(value), fill="#ffffff"))
    parts.append(area.legend(list(seen.items())))
    return svg.picture(area.width, area.height, "".join(parts))


def heatmap(
    panel: Mapping[str, Any],
    fields: Sequence[Field],
    area: Area,
    step: float,
    marks: Sequence[Mark],
) -> str:
    """Return the distribution of a histogram: a column for each moment, a cell for each bucket."""
    buckets = sorted(fields, key=lambda field: float(field.series.labels["le"]))
    below: dict[float, float] = {}
    counts: list[list[tuple[float, float]]] = []
    for bucket in buckets:
        cells = []
        for time, value in bucket.series.points:
            cells.append((time, max(0.0, value - below.get(time, 0.0))))
            below[time] = value
        counts.append(cells)
    most = max((count for cells in counts for _, count in cells), default=1.0) or 1.0
    unit = panel["options"].get("yAxis", {}).get("unit", "short")
    bounds = [units.text(float(bucket.series.labels["le"]), unit) for bucket in buckets]
    legend = [("few", _CIVIDIS[1]), ("many", _CIVIDIS[9])]
    area = area.fitted(bounds, legend)
    height = (area.bottom - _TOP) / max(1, len(buckets))
    parts = [area.axis(())]
    for number, (bound, cells) in enumerate(zip(bounds, counts, strict=True)):
        top = area.bottom - (number + 1) * height
        parts.append(svg.label(area.left - 6, top + height / 2 + 4, bound, anchor="end", size=11))
        for time, count in cells:
            if count > 0:
                colour = _CIVIDIS[min(9, int(math.sqrt(count / most) * 10))]
                # a bucket's count is of the time before it
                left = max(area.left, area.x(time - step))
                width = area.x(time) - left + 0.3
                parts.append(svg.box(left, top + 0.5, width, height - 1, colour))
    parts.append(area.axis(marks) if marks else "")
    parts.append(area.legend(legend))
    return svg.picture(area.width, area.height, "".join(parts))
