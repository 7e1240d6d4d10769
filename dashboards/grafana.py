"""Read what a dashboard asks: its panels, queries and variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GENERATED: Final = Path(__file__).resolve().parent / "generated"

_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")
_LEGEND_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
LABEL_VALUES: Final = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\)$")


def load(directory: Path = GENERATED) -> dict[str, dict[str, Any]]:
    """Return name -> dashboard of every committed dashboard."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel but the rows, those in collapsed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel; `legend` is its format, such as `{{topic}}`."""

    dashboard: str
    panel: str
    ref_id: str
    expr: str
    legend: str
    instant: bool

    @property
    def legend_labels(self) -> list[str]:
        """The labels that the legend shows."""
        return _LEGEND_LABEL.findall(self.legend)

    def legend_text(self, labels: Mapping[str, str]) -> str:
        """Return the name of a series with these labels."""
        return _LEGEND_LABEL.sub(lambda match: labels.get(match[1], ""), self.legend)


def panel_queries(name: str, panel: Mapping[str, Any]) -> Iterator[Query]:
    """Yield the queries of one panel of the dashboard `name`."""
    for target in panel.get("targets", ()):
        yield Query(
            dashboard=name,
            panel=panel["title"],
            ref_id=target["refId"],
            expr=target["expr"],
            legend=target.get("legendFormat", ""),
            instant=bool(target.get("instant")),
        )


def queries(name: str, dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Yield every query of every panel."""
    for panel in panels(dashboard):
        yield from panel_queries(name, panel)


@dataclass(frozen=True, slots=True)
class VariableQuery:
    """What fills a variable: the values that a label has in the series of a selector."""

    dashboard: str
    variable: str
    selector: str
    label: str


def variable_queries(name: str, dashboard: Mapping[str, Any]) -> Iterator[VariableQuery]:
    """Yield the queries of the dashboard's variables; raises ValueError for an unknown form."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        match = LABEL_VALUES.match(variable["query"]["query"])
        if match is None:
            raise ValueError(f"{name}: {variable['name']}: expected label_values(selector, label)")
        yield VariableQuery(name, variable["name"], match["selector"], match["label"])


def variables_used(text: str) -> set[str]:
    """Return the names of the variables that stand in a text."""
    return {match[1] or match[2] for match in _VARIABLE.finditer(text)}


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables whose values are given, as Grafana does before it asks."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], match[0]), text)


def select_all(dashboard: Mapping[str, Any], *, window_s: int, rate_s: int) -> dict[str, str]:
    """Return variable -> value with "All" chosen everywhere, for a time range and a rate window."""
    chosen = {
        variable["name"]: variable.get("allValue", "")
        for variable in dashboard["templating"]["list"]
    }
    return {**chosen, "__range": f"{window_s}s", "__rate_interval": f"{rate_s}s"}
