"""Every query of every panel, variable and annotation, asked on a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dashboards import grafana
from dashboards.answers import View, problem, problems
from dashboards.drawing.page import page
from dashboards.prometheus import LocalPrometheus
from tests.integration.dashboards.simulated_history import HISTORY_S, STEP_S, history
from tests.support.programs import program

DASHBOARDS = grafana.load()
QUERIES = [query for name, one in DASHBOARDS.items() for query in grafana.queries(name, one)]


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    for name in ("prometheus", "promtool"):
        program(name, "prometheus")
    # a block boundary in between would do no harm; a whole number makes the samples' times exact
    end = float(int(time.time()) // STEP_S * STEP_S)
    directory = tmp_path_factory.mktemp("prometheus")
    with LocalPrometheus(directory, history=history(end)) as prometheus:
        yield View(prometheus.client, end - HISTORY_S, end, STEP_S)


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.dashboard}:{q.panel}:{q.ref_id}")
def test_a_panel_query_draws_finite_data_with_its_legends_labels(
    view: View, query: grafana.Query
) -> None:
    assert problem(view, query, view.values(DASHBOARDS[query.dashboard])) is None


def test_every_query_and_variable_of_all_dashboards_is_asked_at_once(view: View) -> None:
    assert list(problems(view, DASHBOARDS)) == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_annotations_mark_the_restart_and_the_rebalance_it_caused(view: View, name: str) -> None:
    values = view.values(DASHBOARDS[name])
    for annotation in DASHBOARDS[name]["annotations"]["list"]:
        if "expr" not in annotation:
            continue
        expr = grafana.expand(annotation["expr"], values)
        series = view.client.query_range(expr, view.start, view.end, 15)
        assert series, annotation["name"]


def _broken(expr: str, legend: str = "") -> grafana.Query:
    return replace(QUERIES[0], expr=expr, legend=legend, instant=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (_broken("kafka_consumergroup_lag_sum{"), "refused"),
        (_broken("kafka_consumergroup_no_such_metric"), "no data"),
        (_broken("vector(0) / vector(0)"), "no finite value"),
        (
            _broken("label_replace(vector(1) / 0, 'a', 'b', '', '') or vector(1)"),
            "an infinite value",
        ),
        (_broken("up", legend="{{topic}}"), "no label topic"),
    ],
)
def test_a_query_that_draws_nothing_or_misses_a_label_is_told(
    view: View, query: grafana.Query, expected: str
) -> None:
    found = problem(view, query, {})
    assert found is not None
    assert found.startswith(expected)


def test_a_selection_narrows_every_query_of_the_consumer_groups(view: View) -> None:
    dashboard: dict[str, Any] = DASHBOARDS["consumer-groups"]
    values = {**view.values(dashboard), "group": "payment-service-group", "topic": "orders"}
    for query in grafana.queries("consumer-groups", dashboard):
        for series in view.ask(query, values):
            assert series.labels.get("consumergroup", "payment-service-group") == (
                "payment-service-group"
            )
            assert series.labels.get("topic", "orders") == "orders"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_drawn_with_every_panel_filled(view: View, name: str) -> None:
    document, height = page(name, DASHBOARDS[name], view)
    for panel in grafana.panels(DASHBOARDS[name]):
        assert f"<h2>{panel['title']}<i>" in document
    assert "No data" not in document
    assert height > 1000
