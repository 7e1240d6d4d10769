"""What a panel's field configuration says about one series: name, colour, unit, style."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboards import grafana
from dashboards.drawing import units
from dashboards.prometheus import Series

# Grafana's classic palette, for series that no override colours.
_CLASSIC: Final = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2"),
    *("#B877D9", "#705DA0", "#37872D", "#FADE2A", "#447EBC", "#C15C17"),
)
TEXT: Final = "#ccccdc"


@dataclass(frozen=True, slots=True)
class Field:
    """A series as the panel shows it."""

    name: str
    series: Series
    config: Mapping[str, Any]
    index: int

    @property
    def style(self) -> Mapping[str, Any]:
        """The options of the panel's own kind."""
        custom: Mapping[str, Any] = self.config.get("custom", {})
        return custom

    @property
    def colour(self) -> str:
        """The colour of its line."""
        fixed: str | None = self.config.get("color", {}).get("fixedColor")
        return fixed or _CLASSIC[self.index % len(_CLASSIC)]

    @property
    def highest(self) -> float:
        """The largest value, NaN when there is none."""
        return max((v for _, v in self.series.points if not math.isnan(v)), default=math.nan)

    def text(self, value: float) -> str:
        """Return a value as the panel writes it."""
        mapped = _mapped(self.config, value)
        if mapped is not None:
            return str(mapped["text"])
        return units.text(value, self.config.get("unit", "short"), self.config.get("decimals"))

    def level_colour(self, value: float) -> str | None:
        """Return the colour of the level or mapping that a value has, None without any."""
        mapped = _mapped(self.config, value)
        if mapped is not None:
            colour: str | None = mapped.get("color")
            return colour
        found = None
        for step in self.config.get("thresholds", {}).get("steps", ()):
            if step["value"] is None or value >= step["value"]:
                found = step["color"]
        return found


def _mapped(config: Mapping[str, Any], value: float) -> Mapping[str, Any] | None:
    if math.isnan(value):
        return None
    for mapping in config.get("mappings", ()):
        result: Mapping[str, Any] | None = mapping["options"].get(f"{value:g}")
        if result is not None:
            return result
    return None


def config_of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the field configuration of a field name: the defaults, then each override in order."""
    config: dict[str, Any] = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        wanted = matcher["options"]
        if matcher["id"] == "byRegexp":
            matches = re.search(wanted[1:-1], name) is not None
        else:
            matches = wanted == name
        for one in override["properties"] if matches else ():
            group, _, key = one["id"].partition(".")
            if key:
                config[group] = {**config.get(group, {}), key: one["value"]}
            else:
                config[group] = one["value"]
    return config


def fields(
    panel: Mapping[str, Any], answers: Sequence[tuple[grafana.Query, Sequence[Series]]]
) -> list[Field]:
    """Return the fields of a panel in the order of its queries."""
    found: list[Field] = []
    for query, results in answers:
        for series in results:
            name = query.legend_text(series.labels)
            found.append(Field(name, series, config_of(panel, name), len(found)))
    return found
