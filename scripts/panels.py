"""Each kind of panel of our dashboards, drawn with matplotlib."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import EngFormatter, FuncFormatter

from dashboards.answers import View
from dashboards.grafana import Query
from dashboards.prometheus import Series
from monitor.words import duration

TEXT: Final = "#ccccdc"
DAY: Final = 86_400.0  # matplotlib counts days since 1970
# Grafana's classic palette, for series that no override colours
_CLASSIC: Final = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2"),
    *("#B877D9", "#705DA0", "#37872D", "#FADE2A", "#447EBC", "#C15C17"),
)
_MAX_LEGEND: Final = 8
_SUFFIX: Final = {"reqps": "req/s", "ops": "ops/s", "mps": "msg/s", "bytes": "B"}


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: a Unix time that is marked on every chart."""

    time: float
    colour: str


@dataclass(frozen=True, slots=True)
class Field:
    """A series as a panel shows it: `config` is its field configuration, overrides included."""

    name: str
    query: Query
    series: Series
    config: Mapping[str, Any]

    @property
    def values(self) -> list[float]:
        """Its finite values."""
        return [value for _, value in self.series.points if math.isfinite(value)]

    @property
    def moments(self) -> list[float]:
        """When each of its points was, as the charts count time."""
        return [moment / DAY for moment, _ in self.series.points]

    @property
    def mapped(self) -> Mapping[str, Mapping[str, Any]]:
        """Text and colour by value, for values that are states."""
        return {
            value: shown
            for mapping in self.config.get("mappings", ())
            for value, shown in mapping["options"].items()
        }

    def text(self, value: float) -> str:
        """Return a value as the panel writes it."""
        shown = self.mapped.get(f"{value:g}")
        return str(shown["text"]) if shown else number(value, self.config)

    def level(self, value: float) -> str:
        """Return the colour of the state or level that a value has."""
        shown = self.mapped.get(f"{value:g}", {})
        steps = self.config.get("thresholds", {}).get("steps", ())
        reached = [s["color"] for s in steps if s["value"] is None or value >= s["value"]]
        return str(shown.get("color") or (reached[-1] if reached else TEXT))


Fields = list[Field]


def number(value: float, config: Mapping[str, Any]) -> str:
    """Return a value with its unit."""
    unit, decimals = config.get("unit", "short"), config.get("decimals")
    if not math.isfinite(value):
        return "No data" if math.isnan(value) else "∞"
    if unit == "percentunit":
        return f"{value:.{1 if decimals is None else decimals}%}"
    if unit == "s":
        return duration(value) if value >= 1 else EngFormatter("s", places=0)(value)
    if unit == "locale":
        return f"{value:,.0f}"
    if decimals is None and abs(value) < 1:  # "800 mreq/s" is no help
        return f"{value:.2g} {_SUFFIX.get(unit, '')}".rstrip()
    places = decimals if decimals is not None else (0 if float(value).is_integer() else 1)
    return EngFormatter(_SUFFIX.get(unit, ""), places=places if abs(value) < 1000 else 1)(value)


def config_of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the field configuration of a name: the defaults, then each override in order."""
    config: dict[str, Any] = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
        if re.search(wanted[1:-1], name) if matcher == "byRegexp" else wanted == name:
            for one in override["properties"]:
                group, _, key = one["id"].partition(".")
                config[group] = (
                    {**config.get(group, {}), key: one["value"]} if key else one["value"]
                )
    return config


def read_fields(panel: Mapping[str, Any], query: Query, answers: Sequence[Series]) -> Fields:
    """Return the fields of one query's answers."""
    names = [query.legend_text(series.labels) for series in answers]
    return [
        Field(name, query, series, config_of(panel, name))
        for name, series in zip(names, answers, strict=True)
    ]


def _colours(fields: Fields) -> list[str]:
    return [
        field.config.get("color", {}).get("fixedColor") or _CLASSIC[index % len(_CLASSIC)]
        for index, field in enumerate(fields)
    ]


def _timed(axes: Axes, view: View, marks: Sequence[Mark]) -> None:
    """Give a chart its time axis and its marks."""
    axes.set_xlim(view.start / DAY, view.end / DAY)
    locator = AutoDateLocator(maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    )
    for mark in marks:
        axes.axvline(mark.time / DAY, color=mark.colour, linestyle=":", linewidth=0.8)


def timeseries(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Draw lines or stacked areas, and the limits that the panel shows."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    colours = _colours(fields)
    if custom.get("stacking", {}).get("mode") == "normal":
        moments = sorted({moment for field in fields for moment in field.moments})
        lanes = [
            dict(zip(field.moments, (v for _, v in field.series.points), strict=True))
            for field in fields
        ]
        rows = [[_or_zero(lane.get(moment, 0.0)) for moment in moments] for lane in lanes]
        axes.stackplot(moments, *rows, labels=[f.name for f in fields], colors=colours, alpha=0.7)
    else:
        for field, colour in zip(fields, colours, strict=True):
            stepped = field.config.get("custom", {}).get("lineInterpolation") == "stepAfter"
            axes.plot(
                field.moments,
                [value for _, value in field.series.points],
                color=colour,
                label=field.name,
                drawstyle="steps-post" if stepped else "default",
            )
    _timed(axes, view, marks)
    highest = max((max(field.values, default=0.0) for field in fields), default=0.0)
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"]:
            # a limit that is far above the data would press the data to the ground
            if step["value"] and step["value"] <= 4 * highest:
                axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=0.8)
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, defaults)))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:_MAX_LEGEND], labels[:_MAX_LEGEND], loc="upper left", ncols=2, handlelength=1
    )


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def state_timeline(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Draw a lane of states for each series."""
    del panel
    seen: dict[str, str] = {}
    for lane, field in enumerate(fields):
        points = [point for point in field.series.points if math.isfinite(point[1])]
        for value, group in itertools.groupby(points, key=lambda point: point[1]):
            times = [moment for moment, _ in group]
            begin, end = times[0] / DAY, min(times[-1] + view.step_s, view.end) / DAY
            seen.setdefault(field.text(value), field.level(value))
            axes.barh(lane, end - begin, left=begin, height=0.8, color=field.level(value))
    axes.set_yticks(range(len(fields)), [field.name for field in fields])
    axes.invert_yaxis()
    _timed(axes, view, marks)
    for text, colour in seen.items():
        axes.plot([], [], color=colour, linewidth=5, label=text)
    axes.legend(loc="lower left", ncols=len(seen), handlelength=1)


def heatmap(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Draw a histogram's distribution: a column for each moment, a cell for each bucket."""
    buckets = sorted(fields, key=lambda field: float(field.series.labels["le"]))
    moments = sorted({moment for field in buckets for moment in field.moments})
    below = dict.fromkeys(moments, 0.0)
    rows = []
    for bucket in buckets:
        counts = dict(zip(bucket.moments, (v for _, v in bucket.series.points), strict=True))
        row = []
        for moment in moments:
            count = _or_zero(counts.get(moment, below[moment]))
            row.append(math.sqrt(max(0.0, count - below[moment])))
            below[moment] = count
        rows.append(row)
    axes.pcolormesh(moments, range(len(buckets)), rows, cmap="cividis", shading="nearest")
    axes.grid(visible=False)
    shown = {"unit": panel["options"].get("yAxis", {}).get("unit", "short")}
    bounds = [number(float(bucket.series.labels["le"]), shown) for bucket in buckets]
    every = max(1, len(bounds) // 8)
    axes.set_yticks(range(0, len(bounds), every), bounds[::every])
    _timed(axes, view, marks)


def stat(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Write one large number, on the colour of its level where the panel has that."""
    del view, marks
    value = fields[0].series.last
    axes.set_xticks([])
    axes.set_yticks([])
    colour = TEXT
    if panel["options"]["colorMode"] == "background":
        axes.set_facecolor(fields[0].level(value))
        colour = "#111217"
    text = fields[0].text(value)
    size = 18 if len(text) < 9 else 11
    axes.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        fontsize=size,
        color=colour,
        transform=axes.transAxes,
    )


def bar_gauge(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Draw horizontal bars, each on the way from minimum to maximum."""
    del view, marks
    defaults = panel["fieldConfig"]["defaults"]
    last = [_or_zero(field.series.last) for field in fields]
    axes.barh(
        range(len(fields)),
        last,
        color=[field.level(value) for field, value in zip(fields, last, strict=True)],
    )
    axes.set_xlim(defaults.get("min", 0), defaults.get("max", 1))
    axes.set_yticks([])
    axes.set_xticks([])
    axes.invert_yaxis()
    # names stand on their bars: beside them they would run into the panel to the left
    for lane, (field, value) in enumerate(zip(fields, last, strict=True)):
        for x, side, text in ((0.01, "left", field.name), (0.99, "right", field.text(value))):
            axes.text(x, lane, text, ha=side, va="center", transform=axes.get_yaxis_transform())


def table(
    axes: Axes, panel: Mapping[str, Any], fields: Fields, view: View, marks: Sequence[Mark]
) -> None:
    """Draw the first rows, after the panel's transformations."""
    del view, marks
    rows = rows_of(panel, fields)
    axes.set_axis_off()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = max(1, int(axes.bbox.height / 24) - 1)
    cells = [[cell(panel, column, row.get(column)) for column in columns] for row in rows[:lines]]
    drawn = axes.table(
        cells, colLabels=columns, loc="upper left", cellLoc="left", edges="horizontal"
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.auto_set_column_width(list(range(len(columns))))
    for place in drawn.get_celld().values():
        place.set_edgecolor("#2c3037")


Row = dict[str, str | float]


def rows_of(panel: Mapping[str, Any], fields: Fields) -> list[Row]:
    """Return a table's rows: those that agree in all labels that both have are one."""
    rows: list[Row] = []
    single = len({field.query.ref_id for field in fields}) == 1
    for field in fields:
        column = "Value" if single else f"Value #{field.query.ref_id}"
        labels = field.series.labels
        for row in rows:
            same = all(row[label] == value for label, value in labels.items() if label in row)
            if column not in row and same:
                break
        else:
            row = {}
            rows.append(row)
        row.update({**labels, column: field.series.last})
    for step in panel.get("transformations", ()):
        options = step.get("options", {})
        if step["id"] == "organize":
            rows = [_organized(row, options) for row in rows]
        for sort in options.get("sort", ()) if step["id"] == "sortBy" else ():
            rows.sort(key=_by(sort["field"]), reverse=sort.get("desc", False))
    return rows


def _by(field: str) -> Callable[[Row], float]:
    def value(row: Row) -> float:
        found = row.get(field)
        return found if isinstance(found, float) else -math.inf

    return value


def _organized(row: Row, options: Mapping[str, Any]) -> Row:
    order, names = options.get("indexByName", {}), options.get("renameByName", {})
    kept = [key for key in row if not options.get("excludeByName", {}).get(key)]
    return {
        names.get(key, key): row[key] for key in sorted(kept, key=lambda key: order.get(key, 99))
    }


def cell(panel: Mapping[str, Any], column: str, value: str | float | None) -> str:
    """Return what stands in a cell."""
    if value is None:
        return ""
    # a dollar sign would begin a formula
    return (
        number(value, config_of(panel, column))
        if isinstance(value, float)
        else value.replace("$", r"\$")
    )


Draw = Callable[[Axes, Mapping[str, Any], Fields, View, Sequence[Mark]], None]
DRAWN_BY: Final[Mapping[str, Draw]] = {
    "timeseries": timeseries,
    "state-timeline": state_timeline,
    "heatmap": heatmap,
    "stat": stat,
    "bargauge": bar_gauge,
    "table": table,
}
