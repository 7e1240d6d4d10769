"""What the builder makes of sources, right ones and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboards.builder.build import build
from dashboards.builder.errors import DefinitionError
from dashboards.builder.placeholders import PromqlContext

SOURCE = """
- name: project
  project: {dashboards: [small]}
- name: common
  templates:
    - query-variable: {name: job, label: Job, query: "label_values({metric}, job)"}
- name: small
  dashboard:
    uid: small
    title: Small
    description: A small one.
    tags: [one]
    templates:
      - datasource-variable: {}
      - common: {metric: up}
    rows:
      - row:
          title: First
          panels:
            - stat:
                title: Number
                description: A number.
                size: [16, 4]
                unit: s
                levels: {ok: , warn: 1, bad: 2}
                targets:
                  - prometheus-target: {type: instant, expr: 'sum(up{job!="a"})'}
            - timeseries:
                title: Lines
                description: Lines.
                size: [12, 8]
                unit: short
                showPoints: never
                colours: {first: blue}
                targets:
                  - prometheus-target: {expr: 'up{job=~"$job"}', legendFormat: "{{job}}", exemplar: true}
      - row:
          title: Second
          collapsed: true
          panels:
            - table:
                title: Rows
                description: Rows.
                size: [24, 6]
                targets:
                  - prometheus-target: {type: instant, format: table, expr: up}
"""


def built(tmp_path: Path, source: str = SOURCE) -> dict[str, Any]:
    path = tmp_path / "source.yaml"
    path.write_text(source)
    dashboard: dict[str, Any] = json.loads(build([path])["small.json"])
    return dashboard


def test_promql_and_legends_survive_as_they_were_written(tmp_path: Path) -> None:
    stat, lines = built(tmp_path)["panels"][1:3]
    assert stat["targets"][0]["expr"] == 'sum(up{job!="a"})'
    assert lines["targets"][0]["expr"] == 'up{job=~"$job"}'
    assert lines["targets"][0]["legendFormat"] == "{{job}}"
    assert lines["targets"][0]["exemplar"] is True


def test_a_named_list_of_variables_takes_its_placeholders(tmp_path: Path) -> None:
    variable = built(tmp_path)["templating"]["list"][1]
    assert variable["query"]["query"] == variable["definition"] == "label_values(up, job)"


def test_panels_flow_from_left_to_right_and_a_collapsed_row_holds_its_own(tmp_path: Path) -> None:
    first, stat, lines, second = built(tmp_path)["panels"]
    assert first["gridPos"] == {"x": 0, "y": 0, "w": 24, "h": 1}
    assert stat["gridPos"] == {"x": 0, "y": 1, "w": 16, "h": 4}
    assert lines["gridPos"] == {"x": 0, "y": 5, "w": 12, "h": 8}
    assert second["gridPos"] == {"x": 0, "y": 13, "w": 24, "h": 1}
    assert [panel["title"] for panel in second["panels"]] == ["Rows"]
    assert [panel["id"] for panel in (first, stat, lines, second)] == [1, 2, 3, 4]


def test_levels_become_thresholds_whose_first_has_no_value(tmp_path: Path) -> None:
    steps = built(tmp_path)["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, 1, 2]


def test_the_same_source_builds_the_same_text(tmp_path: Path) -> None:
    path = tmp_path / "source.yaml"
    path.write_text(SOURCE)
    assert build([path]) == build([path])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit: short", "unti: short", "timeseries 'Lines': unti: unknown key"),
        ("showPoints: never", "showPoints: sometimes", "'sometimes' is not one of auto, never"),
        ("exemplar: true", "exemplar: 1", "exemplar: expected bool, got 1"),
        ("tags: [one]", "tags: [one]\n    refrsh: 1s", "unknown keys .'refrsh'"),
        ("title: First", "titel: First\n          title: x", "unknown keys .'titel'"),
        ("size: [16, 4]", "size: [25, 4]", "expected .columns"),
        ("size: [16, 4]", "span: 4", "size is required"),
        ("{ok: , warn: 1, bad: 2}", "{ok: , warn: 3, bad: 2}", "the others ascend"),
        ("{ok: , warn: 1, bad: 2}", "{fine: 1}", "'fine' is not one of ok, warn, bad, none"),
        ("{first: blue}", "{first: red}", "'red' is not one of blue"),
        ("colours: {first: blue}", "colours: rainbow", "'rainbow' is not one of services"),
        ("type: instant, expr: 'sum", "type: now, expr: 'sum", "'now' is not one of range"),
        ("format: table, expr: up", "format: table", "expr is required"),
        ("format: table", "format: tabel", "'tabel' is not one of"),
    ],
)
def test_a_mistake_in_a_source_is_an_error_that_names_it(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SOURCE
    with pytest.raises(DefinitionError, match=message):
        built(tmp_path, SOURCE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('up{job="{job}"}', 'up{job="a"}'),
        ("{{job}}", "{{job}}"),
        ("up{le=~'.+'}", "up{le=~'.+'}"),
        ("{unknown}", "{unknown}"),
        (["{job}", {"key": "{job}"}, 1], ["a", {"key": "a"}, 1]),
    ],
)
def test_only_known_names_in_single_braces_are_placeholders(text: object, expected: object) -> None:
    assert PromqlContext({"job": "a"}).expand_placeholders(text) == expected
