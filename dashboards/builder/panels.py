"""Panels and their queries, with the house style, so that a source says only what is special.

Besides the SDK's own options (in camel case) a panel takes
  size: [columns of 24, rows of 30 px]
  levels: {ok: , warn: 30, bad: 120}   the value from which a level holds; the first has none
  colours: services | quantiles | partitions | {series name: colour}
  dataLinks: [{title: , url: }]
  mappings: {value: {text: , level: }}
  overrides: [{name: | pattern: , properties: {}}]
  transformations: [{id: , options: {}}]
"""

# mypy: disable-error-code="import-untyped, misc"
# grafana-dashboard-builder ships no types, so its classes are Any as base classes too

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from grafana_dashboards.common import get_component_type
from grafana_dashboards.components.panels import PanelsItemBase
from grafana_dashboards.components.targets import Targets, TargetsItemBase

from dashboards.builder import sdk
from dashboards.builder.errors import DefinitionError
from dashboards.builder.options import Setter, apply
from dashboards.builder.palette import COLOURS, LEVELS, SERIES


class PrometheusTarget(TargetsItemBase):
    """A query; `type` is range (default) or instant."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the query as Grafana's Prometheus data source reads it."""
        options = dict(data)
        if "expr" not in options:
            raise DefinitionError("prometheus-target: expr is required")
        # a folded YAML block ends in a newline, which Grafana's editor would show
        options["expr"] = str(options["expr"]).strip()
        where = f"prometheus-target {options['expr']!r}"
        query = sdk.prometheus.Dataquery().datasource(sdk.DATASOURCE)
        kind = options.pop("type", "range")
        if kind not in ("range", "instant"):
            raise DefinitionError(f"{where}: type: {kind!r} is not one of range, instant")
        (query.instant if kind == "instant" else query.range)()
        return sdk.as_json(apply(query, options, where).build())


def _size(builder: Any, value: Any, where: str) -> None:
    match value:
        case [int() as width, int() as height] if 1 <= width <= 24 and height >= 1:
            builder.span(width).height(height)
        case _:
            raise DefinitionError(f"{where}: expected [columns (1-24), rows], got {value!r}")


def _level(name: str, where: str) -> str:
    if name not in LEVELS:
        raise DefinitionError(f"{where}: {name!r} is not one of {', '.join(LEVELS)}")
    return LEVELS[name]


def _levels(builder: Any, value: Mapping[str, float | None], where: str) -> None:
    steps = [
        sdk.dashboard_models.Threshold(color=_level(name, where), value=start)
        for name, start in value.items()
    ]
    starts = [step.value for step in steps]
    known = [start for start in starts[1:] if start is not None]
    if not steps or starts[0] is not None or len(known) < len(steps) - 1 or known != sorted(known):
        raise DefinitionError(f"{where}: the first level has no value, the others ascend")
    builder.thresholds(
        sdk.dashboard.ThresholdsConfig()
        .mode(sdk.dashboard_models.ThresholdsMode.ABSOLUTE)
        .steps(steps)
    )


def _mappings(builder: Any, value: Mapping[str, Mapping[str, str]], where: str) -> None:
    results = {
        str(key): sdk.dashboard_models.ValueMappingResult(
            text=result["text"],
            color=_level(result["level"], where) if "level" in result else None,
            index=index,
        )
        for index, (key, result) in enumerate(value.items())
    }
    builder.mappings([sdk.dashboard_models.ValueMap(options=results)])


def _properties(values: Mapping[str, Any]) -> list[sdk.dashboard_models.DynamicConfigValue]:
    return [sdk.dashboard_models.DynamicConfigValue(id_val=k, value=v) for k, v in values.items()]


def _fixed(colour: str) -> list[sdk.dashboard_models.DynamicConfigValue]:
    return _properties({"color": {"mode": "fixed", "fixedColor": colour}})


def _colours(builder: Any, value: str | Mapping[str, str], where: str) -> None:
    if isinstance(value, str):
        if value not in SERIES:
            raise DefinitionError(f"{where}: {value!r} is not one of {', '.join(SERIES)}")
        for pattern, colour in SERIES[value].items():
            builder.override_by_regexp(f"/{pattern}/", _fixed(colour))
        return
    for name, colour in value.items():
        if colour not in COLOURS:
            raise DefinitionError(f"{where}: {colour!r} is not one of {', '.join(COLOURS)}")
        builder.override_by_regexp(f"/^{re.escape(name)}/", _fixed(COLOURS[colour]))


def _overrides(builder: Any, value: Sequence[Mapping[str, Any]], where: str) -> None:
    for item in value:
        match item:
            case {"name": str() as name, "properties": properties}:
                builder.override_by_name(name, _properties(properties))
            case {"pattern": str() as pattern, "properties": properties}:
                builder.override_by_regexp(f"/{pattern}/", _properties(properties))
            case _:
                raise DefinitionError(f"{where}: expected name or pattern, and properties")


def _data_links(builder: Any, value: Sequence[Mapping[str, str]], where: str) -> None:
    # the SDK's method takes links of dashboards, whose further fields Grafana's schema refuses here
    for link in value:
        if set(link) != {"title", "url"}:
            raise DefinitionError(f"{where}: expected title and url, got {sorted(link)}")
    builder.data_links([])
    builder._internal.field_config.defaults.links = [dict(link) for link in value]  # noqa: SLF001


def _transformations(builder: Any, value: Sequence[Mapping[str, Any]], where: str) -> None:
    for item in value:
        if "id" not in item:
            raise DefinitionError(f"{where}: id is required")
        builder.with_transformation(
            sdk.dashboard_models.DataTransformerConfig(
                id_val=item["id"], options=item.get("options", {})
            )
        )


def _legend(builder: Any, value: Mapping[str, Any], where: str) -> None:
    builder.legend(apply(sdk.common.VizLegendOptions(), {"showLegend": True, **value}, where))


def _tooltip(builder: Any, value: Mapping[str, Any], where: str) -> None:
    builder.tooltip(apply(sdk.common.VizTooltipOptions(), value, where))


def _reduce(builder: Any, value: Mapping[str, Any], where: str) -> None:
    builder.reduce_options(apply(sdk.common.ReduceDataOptions(), value, where))


def _stacking(builder: Any, value: str, where: str) -> None:
    options = {"mode": value, "group": "A"}
    builder.stacking(apply(sdk.common.StackingConfig(), options, where))


def _thresholds_style(builder: Any, value: str, where: str) -> None:
    builder.thresholds_style(apply(sdk.common.GraphThresholdsStyleConfig(), {"mode": value}, where))


def _scale(builder: Any, value: str, where: str) -> None:
    options: dict[str, Any] = {"type": value} | ({"log": 10} if value == "log" else {})
    builder.scale_distribution(apply(sdk.common.ScaleDistributionConfig(), options, where))


_SETTERS: Final[Mapping[str, Setter]] = {
    "size": _size,
    "levels": _levels,
    "mappings": _mappings,
    "colours": _colours,
    "overrides": _overrides,
    "dataLinks": _data_links,
    "transformations": _transformations,
    "legend": _legend,
    "tooltip": _tooltip,
    "reduceOptions": _reduce,
    "stacking": _stacking,
    "thresholdsStyle": _thresholds_style,
    "scaleDistribution": _scale,
}


class Panel(PanelsItemBase):
    """A panel that the SDK builds; subclasses name the builder and the house style."""

    builder: ClassVar[Any]
    style: ClassVar[Mapping[str, Any]] = {}
    setters: ClassVar[Mapping[str, Setter]] = _SETTERS

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the panel without id and position, which the dashboard gives it."""
        # null in a source takes the house style's value away
        options = {k: v for k, v in {**self.style, **data}.items() if v is not None}
        where = f"{get_component_type(type(self))} {options.get('title', 'without a title')!r}"
        targets = options.pop("targets", [])
        if "size" not in options:
            raise DefinitionError(f"{where}: size is required")
        builder = self.builder()
        if targets:
            builder.datasource(sdk.DATASOURCE)
        panel = sdk.as_json(apply(builder, options, where, self.setters).build())
        if targets:
            panel["targets"] = self.registry.create_component(
                Targets, {"targets": targets}
            ).gen_json()
            for letter, target in zip(string.ascii_uppercase, panel["targets"], strict=False):
                target.setdefault("refId", letter)
        return panel


_LEGEND_BELOW: Final = {
    "displayMode": "list",
    "placement": "bottom",
    "calcs": [],
}
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}
_LAST: Final = {"calcs": ["lastNotNull"]}


class Timeseries(Panel):
    """Lines over time."""

    builder = sdk.timeseries.Panel
    style: ClassVar = {
        "min": 0,
        "lineWidth": 2,
        "fillOpacity": 0,  # areas of many series would hide each other
        "showPoints": "never",
        "legend": _LEGEND_BELOW,
        "tooltip": _TOOLTIP,
    }


class Stat(Panel):
    """One number; coloured by its level where it has levels."""

    builder = sdk.stat.Panel
    style: ClassVar = {"graphMode": "none", "reduceOptions": _LAST, "colorMode": "none"}

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the panel, coloured only where levels say what a colour means."""
        coloured = {"colorMode": "background"} if "levels" in data or "mappings" in data else {}
        return super().gen_json_from_data({**coloured, **data}, _context)


class BarGauge(Panel):
    """Values beside each other, each between the same limits."""

    builder = sdk.bargauge.Panel
    style: ClassVar = {
        "reduceOptions": _LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
    }


class Table(Panel):
    """Rows of labels and values."""

    builder = sdk.table.Panel
    style: ClassVar = {"cellHeight": "sm"}

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the panel without the footer that the SDK adds and Grafana's schema has dropped."""
        panel = super().gen_json_from_data(data, _context)
        panel.get("options", {}).pop("footer", None)
        return panel


class StateTimeline(Panel):
    """States over time, one lane for each series."""

    builder = sdk.statetimeline.Panel
    style: ClassVar = {
        "showValue": "never",
        "rowHeight": 0.85,
        "fillOpacity": 85,
        "legend": _LEGEND_BELOW,
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _heat(builder: Any, value: Mapping[str, Any], where: str) -> None:
    builder.color(apply(sdk.heatmap.HeatmapColorOptions(), value, where))


def _heat_axis(builder: Any, value: Mapping[str, Any], where: str) -> None:
    builder.y_axis(apply(sdk.heatmap.YAxisConfig(), value, where))


class Heatmap(Panel):
    """The distribution of a histogram over time."""

    builder = sdk.heatmap.Panel
    style: ClassVar = {
        # Cividis looks nearly the same to everybody, and darker is less also in grey
        "color": {"mode": "scheme", "scheme": "Cividis", "steps": 64, "reverse": False},
    }
    setters: ClassVar = {**_SETTERS, "color": _heat, "yAxis": _heat_axis}
