"""dashboard-linter's rules (https://github.com/grafana/dashboard-linter), and some that it lacks.

Queries are parsed, not matched by regular expressions. A rule that has the linter's name does what
the linter's rule does; `own-...` are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import promql_parser

from dashboards import grafana

# Stand-ins for Grafana's own variables: durations that nobody would write, so that a window made of
# one is recognised in the parsed query.
_RATE_INTERVAL_MS: Final = 3_599_987
_GRAFANA_VARIABLES: Final = {
    "__rate_interval": f"{_RATE_INTERVAL_MS}ms",
    "__interval": "3599983ms",
    "__range": "3599979ms",
}
_RATES: Final = frozenset({"rate", "irate"})
_COUNTER_FUNCTIONS: Final = frozenset({"rate", "irate", "increase"})
_TARGET_LABELS: Final = ("job", "instance")
# Prometheus makes this series of alerts: its job is the alert's, where it has one at all.
_WITHOUT_TARGET: Final = frozenset({"ALERTS"})
_WITH_LEGEND: Final = frozenset({"timeseries", "state-timeline", "bargauge", "heatmap"})
_WITHOUT_UNIT: Final = frozenset({"table", "state-timeline", "heatmap"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, and where."""

    rule: str
    where: str


def lint(dashboard: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a dashboard, nothing when it is as it should be."""
    return [*_variables(dashboard), *_dashboard(dashboard), *_panels(dashboard)]


def _variables(dashboard: Mapping[str, Any]) -> Iterator[Finding]:
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    source = variables.get("datasource")
    if source is None or source["type"] != "datasource" or source["query"] != "prometheus":
        yield Finding("template-datasource-rule", "no variable `datasource` of Prometheus")
    elif source.get("label") != "Data source":
        yield Finding("template-datasource-rule", "label is not `Data source`")
    for name in _TARGET_LABELS:
        rule = f"template-{name}-rule"
        variable = variables.get(name)
        if variable is None:
            yield Finding(rule, "missing")
        elif not variable.get("multi") or variable.get("allValue") != ".+":
            yield Finding(rule, "must allow several values, all of them as `.+`")
    above: set[str] = set()
    for name, variable in variables.items():
        if variable["type"] == "query":
            yield from _query_variable(variable, above)
        above.add(name)


def _query_variable(variable: Mapping[str, Any], above: AbstractSet[str]) -> Iterator[Finding]:
    name, query = variable["name"], variable["query"]["query"]
    if variable.get("refresh") != 2:  # 2: when the time range changes
        yield Finding("template-on-time-change-reload-rule", name)
    if variable["datasource"]["uid"] != "${datasource}":
        yield Finding("template-datasource-rule", f"{name} has a data source of its own")
    match = grafana.LABEL_VALUES.match(query)
    try:
        parse(match["selector"] if match else "")
    except ValueError:
        yield Finding("template-label-promql-rule", f"{name}: {query}")
    # Grafana fills variables from top to bottom
    for missing in grafana.variables_used(query) - above:
        yield Finding("own-cascade", f"{name} uses {missing}, which is not above it")


def _dashboard(dashboard: Mapping[str, Any]) -> Iterator[Finding]:
    if dashboard["editable"]:
        yield Finding("uneditable-dashboard", "edits would be lost")
    ids = [p["id"] for p in dashboard["panels"]] + [
        p["id"] for row in dashboard["panels"] for p in row.get("panels", ())
    ]
    if len(set(ids)) != len(ids):
        yield Finding("own-panel-ids", "an id is used twice")
    titles = [panel["title"] for panel in grafana.panels(dashboard)]
    for title in {title for title in titles if titles.count(title) > 1}:
        yield Finding("own-panel-titles", f"{title!r} is used twice")


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Finding]:
    known = {v["name"] for v in dashboard["templating"]["list"]}
    for panel in grafana.panels(dashboard):
        where = repr(panel["title"])
        if not panel["title"] or not panel.get("description"):
            yield Finding("panel-title-description-rule", where)
        if not panel.get("targets"):
            yield Finding("panel-no-targets-rule", where)
        if panel["datasource"]["uid"] != "${datasource}":
            yield Finding("panel-datasource-rule", where)
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] not in _WITHOUT_UNIT and not (
            defaults.get("unit") or defaults.get("mappings")
        ):
            yield Finding("panel-units-rule", where)
        for target in panel.get("targets", ()):
            yield from _target(panel, target, where, known)


def _target(
    panel: Mapping[str, Any], target: Mapping[str, Any], where: str, known: AbstractSet[str]
) -> Iterator[Finding]:
    if target["datasource"]["uid"] != "${datasource}":
        yield Finding("target-datasource-rule", where)
    legend = target.get("legendFormat", "")
    if re.search(r"(?<!\{)\{\w+\}(?!\})", legend):
        yield Finding("own-legend-braces", where)
    if panel["type"] in _WITH_LEGEND and not legend:
        yield Finding("own-legend-missing", where)
    yield from _query(target["expr"], where, known)


def parse(expr: str) -> Any:
    """Return a query parsed, with stand-ins for its variables; raises ValueError."""
    values = {**dict.fromkeys(grafana.variables_used(expr), "x"), **_GRAFANA_VARIABLES}
    return promql_parser.parse(grafana.expand(expr, values))


def _query(expr: str, where: str, known: AbstractSet[str]) -> Iterator[Finding]:
    for name in grafana.variables_used(expr) - known - set(_GRAFANA_VARIABLES):
        yield Finding("own-undefined-variable", f"{where}: ${name}")
    try:
        parsed = parse(expr)
    except ValueError as error:
        yield Finding("target-promql-rule", f"{where}: {error}")
        return
    for node, parents in walk(parsed):
        if isinstance(node, promql_parser.VectorSelector):
            yield from _selector(node, parents, where)
        if isinstance(node, promql_parser.MatrixSelector):
            window_ms = round(node.range.total_seconds() * 1000)
            if _function(parents) in _RATES and window_ms != _RATE_INTERVAL_MS:
                yield Finding("target-rate-interval-rule", where)


def _selector(
    node: promql_parser.VectorSelector, parents: tuple[Any, ...], where: str
) -> Iterator[Finding]:
    name = node.name or ""
    matched = {matcher.name for matcher in node.matchers.matchers}
    if name not in _WITHOUT_TARGET:
        for label in _TARGET_LABELS:
            if label not in matched:
                yield Finding(f"target-{label}-rule", f"{where}: {name}")
    if name.endswith("_total") and _function(parents) not in _COUNTER_FUNCTIONS:
        yield Finding("target-counter-agg-rule", f"{where}: {name}")


def _function(parents: tuple[Any, ...]) -> str | None:
    for parent in reversed(parents):
        if isinstance(parent, promql_parser.Call):
            return str(parent.func.name)
    return None


def walk(node: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield every node of a parsed query with the nodes around it, outermost first."""
    yield node, parents
    around = (*parents, node)
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(node, name, None)
        if type(child).__module__.startswith("promql_parser"):
            yield from walk(child, around)
    for child in getattr(node, "args", None) or ():
        yield from walk(child, around)
