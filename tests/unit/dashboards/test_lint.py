"""Each rule finds what it is for: a dashboard that breaks it, and only it, is told so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from dashboards import grafana
from dashboards.lint import lint

Change = Callable[[dict[str, Any]], object]


def _panel(dashboard: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in grafana.panels(dashboard) if panel["type"] == kind)


def _target(dashboard: dict[str, Any], **values: str) -> None:
    _panel(dashboard, "timeseries")["targets"][0].update(values)


def _variable(dashboard: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in dashboard["templating"]["list"] if one["name"] == name)


SELECTED = '{job=~"$job", instance=~"$instance"}'

CHANGES: list[tuple[str, Change]] = [
    ("uneditable-dashboard", lambda d: d.update(editable=True)),
    ("template-datasource-rule", lambda d: _variable(d, "datasource").update(label="Source")),
    ("template-job-rule", lambda d: _variable(d, "job").update(multi=False)),
    ("template-instance-rule", lambda d: _variable(d, "instance").update(allValue=".*")),
    ("template-on-time-change-reload-rule", lambda d: _variable(d, "job").update(refresh=1)),
    (
        "template-label-promql-rule",
        lambda d: _variable(d, "job")["query"].update(query="label_values(up{, job)"),
    ),
    (
        "own-cascade",
        lambda d: _variable(d, "job")["query"].update(query='label_values(up{a="$instance"}, job)'),
    ),
    ("panel-title-description-rule", lambda d: _panel(d, "stat").update(description="")),
    ("panel-datasource-rule", lambda d: _panel(d, "stat")["datasource"].update(uid="x")),
    ("panel-no-targets-rule", lambda d: _panel(d, "stat").update(targets=[])),
    ("panel-units-rule", lambda d: _panel(d, "stat")["fieldConfig"]["defaults"].pop("unit")),
    ("own-panel-ids", lambda d: _panel(d, "stat").update(id=1)),
    ("own-panel-titles", lambda d: _panel(d, "stat").update(title="Unread messages")),
    ("target-datasource-rule", lambda d: _target(d, datasource={"uid": "x"})),  # type: ignore[arg-type]  # a mapping stands here
    ("target-promql-rule", lambda d: _target(d, expr="sum(")),
    ("target-job-rule", lambda d: _target(d, expr='up{instance=~"$instance"}')),
    ("target-instance-rule", lambda d: _target(d, expr='up{job=~"$job"}')),
    ("target-counter-agg-rule", lambda d: _target(d, expr=f"sum(a_total{SELECTED})")),
    ("target-rate-interval-rule", lambda d: _target(d, expr=f"rate(a_total{SELECTED}[5m])")),
    ("own-undefined-variable", lambda d: _target(d, expr=f"up{SELECTED} * $factor")),
    ("own-legend-braces", lambda d: _target(d, legendFormat="{topic}")),
    ("own-legend-missing", lambda d: _target(d, legendFormat="")),
]


@pytest.mark.parametrize(("rule", "change"), CHANGES, ids=[rule for rule, _ in CHANGES])
def test_a_broken_rule_is_found(rule: str, change: Change) -> None:
    dashboard = copy.deepcopy(grafana.load()["overview"])
    change(dashboard)
    assert rule in {finding.rule for finding in lint(dashboard)}
