"""The committed dashboards: current, valid for Grafana, and asking only for what is declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import promql_parser
import pytest

from dashboards import grafana
from dashboards.builder.build import GENERATED, SOURCES, build
from dashboards.builder.dashboard import SCHEMA_VERSION
from dashboards.lint import lint, parse, walk
from tests.unit.dashboards.known_series import known_series

DASHBOARDS = grafana.load()
SCHEMA = Path(grafana.__file__).parent / "schema"
EXPECTED = {"overview", "consumer-groups", "order-flow", "database-pools", "monitor"}
# What Grafana writes itself, but its published types leave out.
UNTYPED = {
    "VariableModel": ("definition",),
    "AnnotationQuery": ("expr", "step", "textFormat", "titleFormat", "useValueForTime"),
}
HEADER_HEIGHT = 1

every_dashboard = pytest.mark.parametrize("name", sorted(EXPECTED))


def test_the_committed_files_are_what_the_sources_build() -> None:
    committed = {path.name: path.read_text() for path in GENERATED.glob("*.json")}
    assert build(SOURCES.glob("*.yaml")) == committed, "run `make dashboards`"


def test_there_are_the_five_dashboards_each_with_a_uid_of_its_own() -> None:
    assert set(DASHBOARDS) == EXPECTED
    assert len({one["uid"] for one in DASHBOARDS.values()}) == len(EXPECTED)


@every_dashboard
def test_no_rule_of_the_linter_is_broken(name: str) -> None:
    assert lint(DASHBOARDS[name]) == []


@every_dashboard
def test_the_json_is_valid_against_grafanas_published_schema(name: str) -> None:
    schema = json.loads((SCHEMA / "dashboard.json").read_text())
    for model, extra in UNTYPED.items():
        schema["definitions"][model]["properties"].update({key: {} for key in extra})
    errors = jsonschema.Draft7Validator(schema).iter_errors(DASHBOARDS[name])
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
    assert DASHBOARDS[name]["schemaVersion"] == SCHEMA_VERSION


def _partial(schema: Any) -> Any:
    # every option of a panel has a default, so none is required in a file
    if isinstance(schema, dict):
        return {key: _partial(value) for key, value in schema.items() if key != "required"}
    return [_partial(item) for item in schema] if isinstance(schema, list) else schema


@every_dashboard
def test_each_panels_options_are_valid_against_its_own_schema(name: str) -> None:
    schemas = _partial(json.loads((SCHEMA / "panels.json").read_text()))
    for panel in grafana.panels(DASHBOARDS[name]):
        parts = {
            "Options": panel.get("options", {}),
            "FieldConfig": panel["fieldConfig"]["defaults"].get("custom", {}),
        }
        for part, schema in schemas[panel["type"]].items():
            errors = jsonschema.Draft7Validator(schema).iter_errors(parts[part])
            assert [f"{panel['title']}: {error.message}" for error in errors] == []


def _units(panel: Mapping[str, Any]) -> Iterator[str]:
    yield from filter(None, [panel["fieldConfig"]["defaults"].get("unit")])
    yield from filter(None, [panel.get("options", {}).get("yAxis", {}).get("unit")])
    for override in panel["fieldConfig"]["overrides"]:
        yield from (one["value"] for one in override["properties"] if one["id"] == "unit")


@every_dashboard
def test_units_reducers_and_transformers_are_ones_that_grafana_has(name: str) -> None:
    registries = json.loads((SCHEMA / "registries.json").read_text())
    for panel in grafana.panels(DASHBOARDS[name]):
        assert set(_units(panel)) <= set(registries["units"]), panel["title"]
        options = panel.get("options", {})
        for part in ("reduceOptions", "legend"):
            calcs = options.get(part, {}).get("calcs", [])
            assert set(calcs) <= set(registries["reducers"]), panel["title"]
        for transformation in panel.get("transformations", ()):
            assert transformation["id"] in registries["transformers"], panel["title"]


def _expressions(name: str) -> Iterator[str]:
    dashboard = DASHBOARDS[name]
    yield from (query.expr for query in grafana.queries(name, dashboard))
    yield from (query.selector for query in grafana.variable_queries(name, dashboard))
    yield from (one["expr"] for one in dashboard["annotations"]["list"] if "expr" in one)


@every_dashboard
def test_every_metric_and_label_is_one_that_a_program_declares(name: str) -> None:
    series = known_series()
    for expr in _expressions(name):
        for node, _ in walk(parse(expr)):
            if isinstance(node, promql_parser.VectorSelector):
                assert node.name in series, expr
                matched = {matcher.name for matcher in node.matchers.matchers}
                assert matched <= series[node.name], expr


@every_dashboard
def test_every_label_of_a_variable_is_one_that_its_metric_has(name: str) -> None:
    series = known_series()
    for query in grafana.variable_queries(name, DASHBOARDS[name]):
        metric = query.selector.partition("{")[0]
        assert query.label in series[metric]


@every_dashboard
def test_deploys_and_rebalances_are_marked(name: str) -> None:
    marked = {one["name"] for one in DASHBOARDS[name]["annotations"]["list"]}
    assert {"Deploys and restarts", "Rebalances"} <= marked


@every_dashboard
def test_links_lead_to_dashboards_and_variables_that_exist(name: str) -> None:
    by_uid = {one["uid"]: one for one in DASHBOARDS.values()}
    text = json.dumps(DASHBOARDS[name])
    for piece in text.split('"/d/')[1:]:
        uid, _, query = piece.partition('"')[0].partition("?")
        variables = {one["name"] for one in by_uid[uid]["templating"]["list"]}
        given = {part.partition("=")[0] for part in query.split("&") if part.startswith("var-")}
        assert given <= {f"var-{variable}" for variable in variables}


@every_dashboard
def test_panels_fill_the_grid_without_gaps_or_overlaps(name: str) -> None:
    cells: dict[tuple[int, int], str] = {}
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert cells.setdefault((x, y), panel["title"]) == panel["title"]
    height = max(y for _, y in cells) + 1
    assert len(cells) == 24 * height


@every_dashboard
def test_a_panel_is_wide_enough_for_its_title_at_1440_pixels(name: str) -> None:
    column, character, padding = (1440 - 32) / 24, 7.6, 40  # bold 14 px, and the info icon
    for panel in grafana.panels(DASHBOARDS[name]):
        room = panel["gridPos"]["w"] * column - padding
        assert len(panel["title"]) * character <= room, panel["title"]
